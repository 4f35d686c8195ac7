//! `GET /`: where to go from here, as a page for browsers and as JSON for others.

use std::fmt::Write as _;
use std::sync::Arc;

use auspex_kernel::error::Envelope;
use auspex_kernel::http::accepts;
use auspex_kernel::service::Link;
use axum::response::{Html, IntoResponse as _, Response};
use axum::{Extension, Json};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const STYLE: &str = "\
:root{color-scheme:light dark;--ground:#f4f5f7;--card:#fff;--text:#1b1f24;--quiet:#4d5661;--accent:#0b57c2}\
@media (prefers-color-scheme:dark){:root{--ground:#14171b;--card:#1e2329;--text:#eceff2;--quiet:#b3bcc6;--accent:#8ab8ff}}\
body{margin:0;min-height:100vh;display:flex;align-items:center;justify-content:center;background:var(--ground);\
color:var(--text);font:1rem/1.5 system-ui,sans-serif}\
main{box-sizing:border-box;width:100%;max-width:34rem;margin:1rem;padding:1.5rem 2rem;background:var(--card);border-radius:.5rem}\
h1{margin:0;font-size:1.75rem}p{margin:.25rem 0 1rem;color:var(--quiet)}ul{margin:0;padding:0;list-style:none}\
li{padding:.5rem 0}a{color:var(--accent);font-weight:600}li span{display:block;color:var(--quiet)}\
a:focus-visible{outline:3px solid var(--accent);outline-offset:2px}";

/// The style above is the only thing that the page may use.
const POLICY: &str = "default-src 'none'; \
    style-src 'sha256-gobBWlYyoUn4MhCaV15DBMxPykttgh1eDg1R0NwfNbQ='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const DOCS: [Link; 2] = [
    Link {
        name: "docs",
        path: "/docs",
        title: "Documentation",
        text: "Every operation of the API, to read and to try out.",
    },
    Link {
        name: "openapi",
        path: "/openapi.json",
        title: "OpenAPI document",
        text: "The same for programs.",
    },
];
const HEALTH: Link = Link {
    name: "health",
    path: "/health",
    title: "Health",
    text: "Whether the server and its services work.",
};

/// The links of the front page.
pub(crate) struct Front(Vec<Link>);

impl Front {
    /// Those of the server, then those of its services.
    pub(crate) fn new(docs: bool, services: impl IntoIterator<Item = Link>) -> Self {
        let docs = DOCS.into_iter().filter(|_| docs);
        Self(docs.chain([HEALTH]).chain(services).collect())
    }

    fn page(&self) -> String {
        let mut items = String::new();
        for Link {
            path, title, text, ..
        } in &self.0
        {
            // A string takes any text.
            let _ = writeln!(
                items,
                "<li><a href=\"{path}\">{title}</a><span>{text}</span></li>"
            );
        }
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>Auspex</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
             <h1>Auspex</h1>\n<p>Trained models behind a production API.</p>\n\
             <nav aria-label=\"Start\">\n<ul>\n{items}</ul>\n</nav>\n</main>\n</body>\n</html>\n"
        )
    }

    fn json(&self) -> Value {
        let links = self
            .0
            .iter()
            .map(|link| (link.name.to_owned(), json!(link.path)));
        json!({"name": "Auspex", "links": links.collect::<Map<_, _>>()})
    }
}

pub(crate) fn operations() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(get_index))
}

/// Where to go from here
///
/// A page for browsers (`Accept: text/html`), JSON for others.
#[utoipa::path(
    get, path = "/", tag = "system", security(()),
    responses(
        (status = 200, description = "Links", content(
            (Value = "application/json", example = json!({"name": "Auspex", "links": {"docs": "/docs", "health": "/health"}})),
            (String = "text/html"),
        )),
        (status = 429, description = "Too many requests", body = Envelope),
    )
)]
async fn get_index(Extension(front): Extension<Arc<Front>>, headers: HeaderMap) -> Response {
    let mut response = if wants_page(&headers) {
        let policy = HeaderValue::from_static(POLICY);
        (
            [(header::CONTENT_SECURITY_POLICY, policy)],
            Html(front.page()),
        )
            .into_response()
    } else {
        Json(front.json()).into_response()
    };
    let accept = HeaderValue::from_static("Accept");
    response.headers_mut().append(header::VARY, accept);
    response
}

/// Browsers name the type; tools that take anything do not.
fn wants_page(headers: &HeaderMap) -> bool {
    accepts(headers, "text/html")
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn the_policy_lets_the_style_of_the_page_in_and_nothing_else() {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes());
        let hash = format!("'sha256-{}'", STANDARD.encode(digest));
        assert!(POLICY.contains(&hash), "it is {hash}");
        let page = Front::new(true, []).page();
        assert_eq!(page.matches("<style>").count(), 1);
        assert!(!page.contains("<script") && !page.contains("style=\"") && !page.contains("://"));
    }

    #[test]
    fn only_who_names_the_type_of_pages_gets_one() {
        let wants = |accept: &'static str| {
            let accept = HeaderValue::from_static(accept);
            wants_page(&HeaderMap::from_iter([(header::ACCEPT, accept)]))
        };
        assert!(wants("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(wants("application/json, Text/HTML;q=0.9"));
        for other in [
            "*/*",
            "application/json",
            "text/html;q=0",
            "text/html-sandboxed",
            "application/json;note=text/html",
        ] {
            assert!(!wants(other), "{other}");
        }
    }

    #[test]
    fn closed_documentation_is_not_linked() {
        let front = Front::new(false, []);
        assert!(!front.page().contains("/docs"));
        assert_eq!(
            front.json(),
            json!({"name": "Auspex", "links": {"health": "/health"}})
        );
    }
}
