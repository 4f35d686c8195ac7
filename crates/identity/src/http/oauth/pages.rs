//! The pages that people see. Plain HTML without scripts; everything that is shown is escaped.

use askama::Template;
use auspex_kernel::ApiError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::oauth::{AuthorizationRequest, csp_source};

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Asks for name and password.
#[derive(Template)]
#[template(path = "login.html")]
pub(super) struct LoginPage<'a> {
    pub(super) client: &'a str,
    pub(super) csrf_token: &'a str,
    pub(super) request: &'a str,
    pub(super) username: &'a str,
    pub(super) error: Option<&'a str>,
}

/// Asks whether a client may have what it wants.
#[derive(Template)]
#[template(path = "consent.html")]
pub(super) struct ConsentPage<'a> {
    pub(super) client: &'a str,
    pub(super) user: &'a str,
    pub(super) destination: &'a str,
    pub(super) scopes: Vec<&'static str>,
    /// Nobody knows whether it is the program it says it is.
    pub(super) public: bool,
    pub(super) csrf_token: &'a str,
    pub(super) request: &'a str,
}

/// Says something; there is nothing to be done here.
#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct MessagePage<'a> {
    pub(super) title: &'a str,
    pub(super) text: &'a str,
    pub(super) is_error: bool,
}

/// A page of the way to the client of this request.
///
/// # Errors
/// 500 where the page cannot be made.
pub(super) fn page(
    status: StatusCode,
    page: &impl Template,
    request: Option<&AuthorizationRequest>,
) -> Result<Response, ApiError> {
    let text = page.render().map_err(ApiError::internal)?;
    // Browsers follow a form's redirects only where `form-action` lets them.
    let client = request.map(|request| csp_source(&request.redirect_uri));
    let policy = format!(
        "default-src 'none'; style-src 'self'; form-action 'self' {}; frame-ancestors 'none'; base-uri 'none'",
        client.unwrap_or_default()
    );
    let policy = HeaderValue::try_from(policy).map_err(ApiError::internal)?;
    let headers = [
        (header::CONTENT_TYPE, HTML),
        (header::CACHE_CONTROL, NO_STORE),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
    ];
    Ok((status, headers, text).into_response())
}

/// Tells the person what is wrong.
///
/// # Errors
/// 500 where the page cannot be made.
pub(super) fn refusal(status: StatusCode, text: &str) -> Result<Response, ApiError> {
    let message = MessagePage {
        title: "This does not work",
        text,
        is_error: true,
    };
    page(status, &message, None)
}

/// Sends the browser on, by GET whatever it came with.
///
/// # Errors
/// 500 for a place that is no header value, which none is.
pub(super) fn redirect(location: &str) -> Result<Response, ApiError> {
    let location = HeaderValue::try_from(location).map_err(ApiError::internal)?;
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, NO_STORE),
    ];
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}
