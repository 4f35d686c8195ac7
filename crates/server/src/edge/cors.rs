//! Which web pages of other origins may call the API and read its answers (the CORS protocol of the
//! Fetch standard).
//!
//! `Access-Control-Allow-Credentials` is never sent: keys and tokens travel in headers that the page
//! sets itself, and cookies are not for other origins.

use auspex_kernel::Credential;
use auspex_kernel::config::ConfigError;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;

const ANY: &str = "*";
/// Request headers that a page may set.
const ALLOWED: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, x-api-key, idempotency-key, if-match, if-none-match, x-request-id",
);
/// Answer headers that a page may read.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, retry-after, \
     location, link, etag",
);

/// `[server.cors]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CorsConfig {
    pub(crate) origins: Vec<String>,
    pub(crate) max_age_s: u32,
}

impl CorsConfig {
    /// What types alone cannot say; `section` is where these settings are.
    pub(crate) fn check(&self, section: &str) -> Result<(), ConfigError> {
        let mut origins = self.origins.iter();
        match origins.find_map(|origin| check_origin(origin).err()) {
            Some(reason) => Err(ConfigError::wrong(&format!("{section}.origins"), reason)),
            None => Ok(()),
        }
    }
}

/// The allowed origins.
#[derive(Debug)]
pub(crate) struct Cors {
    origins: Vec<HeaderValue>,
    is_for_any: bool,
    max_age: HeaderValue,
}

impl Cors {
    /// From checked settings. Without origins none is allowed.
    pub(crate) fn new(config: &CorsConfig) -> Self {
        let values = config.origins.iter().map(HeaderValue::try_from);
        Self {
            origins: values.filter_map(Result::ok).collect(),
            is_for_any: config.origins.iter().any(|origin| origin == ANY),
            max_age: HeaderValue::from(config.max_age_s),
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.is_for_any || self.origins.contains(origin)
    }

    /// Whether a page of this origin may send this credential. A browser may add `Basic` credentials
    /// without the page knowing them, so only origins allowed by name may send those.
    pub(super) fn allows_credential(
        &self,
        origin: &HeaderValue,
        credential: Credential<'_>,
    ) -> bool {
        match credential {
            Credential::Token(_) => self.allows(origin),
            Credential::Basic(_) => self.origins.contains(origin),
        }
    }

    /// Whether this is a browser asking if a page of an allowed origin may send a request.
    pub(super) fn is_preflight(&self, parts: &Parts) -> bool {
        let headers = &parts.headers;
        let asks = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let origin = headers.get(header::ORIGIN);
        parts.method == Method::OPTIONS && asks && origin.is_some_and(|origin| self.allows(origin))
    }

    /// The answer to such a request, for a path with these methods.
    pub(super) fn preflight(&self, methods: &HeaderValue) -> Response {
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, methods.clone()),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED),
            (header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone()),
        ];
        (StatusCode::NO_CONTENT, headers).into_response()
    }

    /// Lets the page read the answer, if its origin is allowed.
    pub(super) fn add(&self, headers: &mut HeaderMap, origin: Option<&HeaderValue>) {
        if self.origins.is_empty() {
            return;
        }
        if !self.is_for_any {
            // A cache must not give one origin's answer to another.
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = origin.filter(|origin| self.allows(origin)) else {
            return;
        };
        let allowed = match self.is_for_any {
            true => HeaderValue::from_static(ANY),
            false => origin.clone(),
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}

/// Checks an origin in the settings; the error says what it must be.
fn check_origin(origin: &str) -> Result<(), &'static str> {
    let wrong = "must hold \"*\", or origins as browsers write them: http:// or https://, a host \
                 in lower case, a port if it is not the usual one, and no path";
    if origin == ANY {
        return Ok(());
    }
    let (scheme, host) = origin.split_once("://").ok_or(wrong)?;
    let authority: http::uri::Authority = host.parse().map_err(|_| wrong)?;
    let usual_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err(wrong),
    };
    let is_written_so = host == host.to_lowercase()
        && !host.contains(['@', '*'])
        && !host.ends_with(':')
        && authority.port_u16() != Some(usual_port);
    is_written_so.then_some(()).ok_or(wrong)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::body::Body;
    use http::Request;

    use super::*;
    use crate::edge::Edge;
    use crate::edge::tests::edge;

    const PAGE: &str = "https://page.example.org";

    fn edge_for(origins: &[&str]) -> Edge {
        let config = CorsConfig {
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            max_age_s: 600,
        };
        let cors = Cors::new(&config);
        Edge { cors, ..edge(None) }
    }

    async fn ask(
        edge: &Edge,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (u16, HeaderMap) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "x");
        let request = headers
            .iter()
            .fold(request, |r, (name, value)| r.header(*name, *value));
        let request = request.body(Body::empty()).expect("valid");
        let answer = edge.handle(request, Ipv4Addr::LOCALHOST.into()).await;
        (answer.status().as_u16(), answer.headers().clone())
    }

    async fn preflight(edge: &Edge, path: &str, origin: &str) -> (u16, HeaderMap) {
        let headers = [("origin", origin), ("access-control-request-method", "GET")];
        ask(edge, "OPTIONS", path, &headers).await
    }

    fn is_let_in(headers: &HeaderMap) -> bool {
        headers.contains_key("access-control-allow-origin")
    }

    #[tokio::test]
    async fn a_page_that_is_let_in_may_ask_call_and_read() {
        let edge = edge_for(&["https://other.example.org", PAGE]);
        let (status, headers) = preflight(&edge, "/scoped", PAGE).await;
        assert_eq!(status, 204);
        for (name, value) in [
            ("access-control-allow-origin", PAGE),
            ("access-control-allow-methods", "GET, HEAD"),
            (
                "access-control-allow-headers",
                ALLOWED.to_str().expect("ASCII"),
            ),
            ("access-control-max-age", "600"),
            ("vary", "Origin"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        assert!(headers.contains_key("x-request-id"));
        for (key, expected) in [("good", 200), ("bad", 401)] {
            let (status, headers) = ask(
                &edge,
                "GET",
                "/scoped",
                &[("origin", PAGE), ("x-api-key", key)],
            )
            .await;
            assert_eq!(status, expected);
            assert_eq!(headers["access-control-allow-origin"], PAGE);
            assert_eq!(headers["vary"], "Origin");
            let exposed = headers["access-control-expose-headers"]
                .to_str()
                .expect("ASCII");
            assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"));
            assert!(!headers.contains_key("access-control-allow-credentials"));
        }
        assert!(is_let_in(
            &ask(&edge, "GET", "/nowhere", &[("origin", PAGE)]).await.1
        ));
        assert!(is_let_in(
            &ask(&edge, "GET", "/panic", &[("origin", PAGE)]).await.1
        ));
    }

    #[tokio::test]
    async fn other_pages_are_not_let_in() {
        let edge = edge_for(&[PAGE]);
        for origin in [
            "https://page.example.org.evil.example",
            "http://page.example.org",
            "null",
        ] {
            let (status, headers) = preflight(&edge, "/scoped", origin).await;
            assert_eq!((status, is_let_in(&headers)), (405, false), "{origin}");
            assert_eq!(headers["vary"], "Origin");
        }
        let headers = [("origin", "https://evil.example"), ("x-api-key", "good")];
        let (status, headers) = ask(&edge, "GET", "/scoped", &headers).await;
        assert_eq!((status, is_let_in(&headers)), (403, false));
    }

    #[tokio::test]
    async fn without_origins_there_is_no_cors() {
        let edge = edge_for(&[]);
        let (status, headers) = preflight(&edge, "/scoped", PAGE).await;
        assert_eq!((status, is_let_in(&headers)), (405, false));
        assert!(!headers.contains_key("vary"));
    }

    #[tokio::test]
    async fn any_page_is_let_in_by_a_star_but_not_with_what_the_browser_adds() {
        let edge = edge_for(&["*"]);
        let (status, headers) = preflight(&edge, "/scoped", PAGE).await;
        assert_eq!(
            (status, &headers["access-control-allow-origin"]),
            (204, &"*".parse().expect("ASCII"))
        );
        assert!(!headers.contains_key("vary"));
        let with = |name: &'static str, value: &'static str| [("origin", PAGE), (name, value)];
        assert_eq!(
            ask(&edge, "GET", "/scoped", &with("x-api-key", "good"))
                .await
                .0,
            200
        );
        assert_eq!(
            ask(
                &edge,
                "GET",
                "/scoped",
                &with("authorization", "Basic dTpw")
            )
            .await
            .0,
            403
        );
        let edge = edge_for(&["*", PAGE]);
        assert_eq!(
            ask(
                &edge,
                "GET",
                "/scoped",
                &with("authorization", "Basic dTpw")
            )
            .await
            .0,
            401
        );
    }

    #[tokio::test]
    async fn what_is_no_preflight_of_a_route_is_answered_as_ever() {
        let edge = edge_for(&[PAGE]);
        assert_eq!(preflight(&edge, "/nowhere", PAGE).await.0, 404);
        assert_eq!(
            ask(&edge, "OPTIONS", "/scoped", &[("origin", PAGE)])
                .await
                .0,
            405
        );
    }

    #[tokio::test]
    async fn preflights_count_against_the_address() {
        let edge = edge_for(&[PAGE]);
        for _ in 0..5 {
            assert_eq!(preflight(&edge, "/scoped", PAGE).await.0, 204);
        }
        let (status, headers) = preflight(&edge, "/scoped", PAGE).await;
        assert_eq!((status, is_let_in(&headers)), (429, true));
    }

    #[test]
    fn origins_are_checked() {
        for good in ["*", PAGE, "http://localhost:3000", "https://[::1]:8443"] {
            assert!(check_origin(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "null",
            "page.example.org",
            "https://",
            "https://Page.example.org",
            "ftp://x",
            "https://page.example.org/",
            "https://u@page.example.org",
            "https://x:443",
            "http://x:80",
            "https://*.example.org",
            "https://x:",
            "https://a b",
        ] {
            assert!(check_origin(bad).is_err(), "{bad}");
        }
    }
}
