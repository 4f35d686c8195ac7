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
     location, link, etag, www-authenticate, x-gateway-completed, x-gateway-parts",
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

/// What a page of another origin may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// Nothing; also a page of our own, and a request that is from no page.
    Other,
    /// Send tokens and read answers: any origin may, or an OAuth client runs there.
    LetIn,
    /// The same, for it is named in the settings, and log in by name and password.
    Named,
}

impl Page {
    /// Whether it may send this credential. A browser may add `Basic` credentials without the page
    /// knowing them, so only origins allowed by name may send those.
    pub(super) fn may_send(self, credential: Credential<'_>) -> bool {
        match credential {
            Credential::Token(_) => self != Page::Other,
            Credential::Basic(_) => self == Page::Named,
        }
    }

    /// Whether this is a browser asking if the page may send a request.
    pub(super) fn is_preflight(self, parts: &Parts) -> bool {
        let headers = &parts.headers;
        let asks = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        parts.method == Method::OPTIONS && asks && self != Page::Other
    }
}

/// The origins in the settings.
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

    /// What pages of this origin may do. `is_client` says whether a client may run there that the route
    /// is for.
    pub(super) fn page(&self, origin: &HeaderValue, is_client: impl FnOnce(&str) -> bool) -> Page {
        if self.origins.contains(origin) {
            Page::Named
        } else if self.is_for_any || origin.to_str().is_ok_and(is_client) {
            Page::LetIn
        } else {
            Page::Other
        }
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

    /// Lets the page read the answer, if it is let in.
    pub(super) fn add(
        &self,
        headers: &mut HeaderMap,
        origin: Option<&HeaderValue>,
        page: Page,
        is_for_clients: bool,
    ) {
        let varies = is_for_clients || page != Page::Other || !self.origins.is_empty();
        let is_said = headers
            .get_all(header::VARY)
            .iter()
            .any(|said| said == "Origin");
        if varies && !self.is_for_any && !is_said {
            // A cache must not give one origin's answer to another.
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = origin.filter(|_| page != Page::Other) else {
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

    use arc_swap::ArcSwap;
    use auspex_kernel::policy::Policy;
    use axum::body::Body;
    use axum::routing::get;
    use http::Request;

    use super::*;
    use crate::edge::Edge;
    use crate::edge::tests::{edge, table_with};

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
    async fn pages_of_clients_are_let_in_where_clients_call_and_by_tokens_alone() {
        const CLIENT: &str = "https://client.example.org";
        let policy = Policy {
            is_for_clients: true,
            ..Policy::default()
        };
        let for_clients = || ArcSwap::from_pointee(table_with(get(async || "x"), policy));
        for origins in [&[][..], &[PAGE][..]] {
            // Another each time, for they count requests.
            let edge = || Edge {
                routes: for_clients(),
                ..edge_for(origins)
            };
            let (status, headers) = preflight(&edge(), "/x", CLIENT).await;
            assert_eq!(status, 204);
            assert_eq!(headers["access-control-allow-origin"], CLIENT);
            assert_eq!(headers["access-control-allow-methods"], "GET, HEAD");
            for (name, value, expected) in [
                ("x-api-key", "good", 200),
                ("authorization", "Bearer good", 200),
                ("authorization", "Bearer bad", 401),
                ("authorization", "Basic good", 403),
            ] {
                let with = [("origin", CLIENT), (name, value)];
                let (status, headers) = ask(&edge(), "GET", "/x", &with).await;
                assert_eq!(status, expected, "{value}");
                assert_eq!(headers["access-control-allow-origin"], CLIENT);
                assert_eq!(headers["vary"], "Origin");
                assert!(!headers.contains_key("access-control-allow-credentials"));
            }
            for other in ["https://client.example.org:8443", "https://y", "null"] {
                let (status, headers) = preflight(&edge(), "/x", other).await;
                assert_eq!((status, is_let_in(&headers)), (405, false), "{other}");
                let with = [("origin", other), ("x-api-key", "good")];
                let (status, headers) = ask(&edge(), "GET", "/x", &with).await;
                assert_eq!((status, is_let_in(&headers)), (403, false), "{other}");
                assert_eq!(headers["vary"], "Origin");
            }
            // A cache keeps answers to no page as well.
            assert_eq!(ask(&edge(), "GET", "/x", &[]).await.1["vary"], "Origin");
        }
        let (status, headers) = preflight(&edge_for(&[]), "/scoped", CLIENT).await;
        assert_eq!((status, is_let_in(&headers)), (405, false));
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
