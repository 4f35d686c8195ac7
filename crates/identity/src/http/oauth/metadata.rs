//! Public metadata: where the endpoints are, and the keys that verify signatures.

use std::sync::Arc;

use auspex_kernel::error::Envelope;
use auspex_kernel::etag;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::TAG;
use crate::http::Handles;
use crate::oauth::metadata;
use crate::tokens::Tokens;

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new()
        .routes(routes!(get_openid_configuration))
        .routes(routes!(get_authorization_server))
        .routes(routes!(get_jwks))
}

/// The provider's metadata
///
/// OpenID Connect Discovery §4.
#[utoipa::path(
    get, path = "/.well-known/openid-configuration", tag = TAG, security(()),
    responses(
        (status = 200, description = "The metadata", body = Object),
        (status = 304, description = "Unchanged"),
        (status = 429, description = "Too many requests", body = Envelope),
    )
)]
async fn get_openid_configuration(
    State(tokens): State<Arc<Tokens>>,
    headers: HeaderMap,
) -> Response {
    cacheable(&headers, &metadata(&tokens))
}

/// The authorization server's metadata
///
/// RFC 8414; the same document.
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = TAG, security(()),
    responses(
        (status = 200, description = "The metadata", body = Object),
        (status = 304, description = "Unchanged"),
        (status = 429, description = "Too many requests", body = Envelope),
    )
)]
async fn get_authorization_server(
    State(tokens): State<Arc<Tokens>>,
    headers: HeaderMap,
) -> Response {
    cacheable(&headers, &metadata(&tokens))
}

/// The keys that tokens are verified with
///
/// RFC 7517 §5. A key is listed before it signs, and until the last token it signed has expired.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = TAG, security(()),
    responses(
        (status = 200, description = "The keys", body = Object),
        (status = 304, description = "Unchanged"),
        (status = 429, description = "Too many requests", body = Envelope),
    )
)]
async fn get_jwks(State(tokens): State<Arc<Tokens>>, headers: HeaderMap) -> Response {
    cacheable(&headers, &tokens.jwks())
}

/// Shared caches keep it for less time than a new key waits before it signs.
fn cacheable(headers: &HeaderMap, document: &Value) -> Response {
    let fixed = HeaderValue::from_static;
    let body = document.to_string();
    let tag = etag::of(body.as_bytes());
    let full = ([(header::CONTENT_TYPE, fixed("application/json"))], body);
    etag::answer(headers, tag, fixed("public, max-age=300"), full)
}
