//! The pages that people see. Plain HTML without scripts; everything that is shown is escaped.

use askama::Template;
use auspex_kernel::error::Envelope;
use auspex_kernel::{ApiError, RequestId, etag};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::TAG;
use crate::http::Handles;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const STYLE: &str = include_str!("../../../templates/style.css");
/// Nothing but the style sheet, and forms to this site alone: `leave.rs` goes on from there.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
);
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

pub(super) const FOREIGN: &str = "This form is too old, or not from a page that this browser was shown, as may be if you \
    opened two at once. Your browser must keep cookies of this site. Without a link here, start again: at the \
    application that sent you here, or at /oauth2/login if you came by yourself.";
pub(super) const UNREADABLE: &str = "The form or address cannot be read. Start again.";

/// What all pages use.
pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new().routes(routes!(get_login_style))
}

/// Asks for username and password.
#[derive(Template)]
#[template(path = "login.html")]
pub(super) struct LoginPage<'a> {
    /// The application that sent the person here; without it they came by themselves.
    pub(super) client: Option<&'a str>,
    pub(super) csrf_token: &'a str,
    pub(super) request: &'a str,
    pub(super) username: &'a str,
    /// Why the page is shown.
    pub(super) notice: Option<&'a str>,
    pub(super) instead: Option<Instead>,
}

/// What one can do without logging in.
pub(super) struct Instead {
    pub(super) place: String,
    pub(super) text: String,
}

/// A login, as its user sees it.
pub(super) struct ShownSession {
    pub(super) id: String,
    pub(super) place: &'static str,
    pub(super) since: String,
}

/// An application that acts for a user, as they see it.
pub(super) struct ShownConsent {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) scopes: Vec<&'static str>,
    pub(super) since: String,
}

/// Says as whom this browser is logged in, where else they are, and which applications act for them.
#[derive(Template)]
#[template(path = "account.html")]
pub(super) struct AccountPage<'a> {
    pub(super) user: &'a str,
    pub(super) email: &'a str,
    pub(super) roles: &'a str,
    pub(super) sessions: Vec<ShownSession>,
    pub(super) consents: Vec<ShownConsent>,
    pub(super) csrf_token: &'a str,
    pub(super) request: &'a str,
}

/// Asks whether a client may have the scopes it asks for.
#[derive(Template)]
#[template(path = "consent.html")]
pub(super) struct ConsentPage<'a> {
    pub(super) client: &'a str,
    pub(super) user: &'a str,
    pub(super) destination: &'a str,
    pub(super) scopes: Vec<&'static str>,
    /// What it asks for beside, and the user does not have.
    pub(super) lacking: Vec<&'static str>,
    /// Whether the client is public and cannot prove what program it is.
    pub(super) public: bool,
    pub(super) csrf_token: &'a str,
    pub(super) request: &'a str,
}

/// Asks for the code that a device shows.
#[derive(Template)]
#[template(path = "device.html")]
pub(super) struct DevicePage<'a> {
    /// As it was entered before.
    pub(super) code: &'a str,
    /// Why the page is shown again.
    pub(super) notice: Option<&'a str>,
}

/// Asks whether a device may have the scopes it asks for.
#[derive(Template)]
#[template(path = "device_consent.html")]
pub(super) struct DeviceConsentPage<'a> {
    pub(super) client: &'a str,
    /// Whether the client is public and cannot prove what program it is.
    pub(super) public: bool,
    pub(super) user: &'a str,
    pub(super) code: &'a str,
    /// If there are none, it can only be denied.
    pub(super) scopes: Vec<&'static str>,
    /// What it asks for beside, and the user does not have.
    pub(super) lacking: Vec<&'static str>,
    pub(super) csrf_token: &'a str,
    pub(super) request: &'a str,
}

/// Says that the user has none of the rights that a client asks for.
#[derive(Template)]
#[template(path = "lack.html")]
pub(super) struct LackPage<'a> {
    pub(super) client: &'a str,
    pub(super) user: &'a str,
    pub(super) destination: &'a str,
    pub(super) scopes: Vec<&'static str>,
    pub(super) csrf_token: &'a str,
    pub(super) request: &'a str,
}

/// Asks whether to log out.
#[derive(Template)]
#[template(path = "logout.html")]
pub(super) struct LogoutPage<'a> {
    pub(super) client: Option<&'a str>,
    pub(super) user: &'a str,
    pub(super) csrf_token: &'a str,
    pub(super) request: &'a str,
}

/// Leads on, by itself and by a link.
#[derive(Template)]
#[template(path = "leave.html")]
pub(super) struct LeavePage<'a> {
    pub(super) to: &'a str,
    /// Empty: this site.
    pub(super) destination: &'a str,
}

/// Shows a message.
#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct MessagePage<'a> {
    pub(super) title: &'a str,
    pub(super) text: &'a str,
    pub(super) is_error: bool,
    /// Where one can go on.
    pub(super) place: Option<&'a str>,
}

/// A page.
///
/// # Errors
/// 500 if it cannot be rendered.
pub(super) fn page(status: StatusCode, page: &impl Template) -> Result<Response, ApiError> {
    let text = page.render().map_err(ApiError::internal)?;
    let headers = [
        (header::CONTENT_TYPE, HTML),
        (header::CACHE_CONTROL, NO_STORE),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
    ];
    Ok((status, headers, text).into_response())
}

/// Shows the person what is wrong.
///
/// # Errors
/// 500 if the page cannot be rendered.
pub(super) fn refusal(status: StatusCode, text: &str) -> Result<Response, ApiError> {
    let message = MessagePage {
        title: "This does not work",
        text,
        is_error: true,
        place: None,
    };
    page(status, &message)
}

/// Renders every error of the pages, those of the edge included.
pub(crate) fn render(error: &ApiError, request_id: &RequestId) -> Response {
    let mut response = match refusal(error.status(), error.message()) {
        Ok(page) => page,
        Err(error) => return error.render(request_id),
    };
    response.headers_mut().extend(error.headers().clone());
    response
}

/// Redirects the browser, which continues by GET in any case.
///
/// # Errors
/// 500 for a location that is not a header value, which never happens.
pub(super) fn redirect(location: &str) -> Result<Response, ApiError> {
    let location = HeaderValue::try_from(location).map_err(ApiError::internal)?;
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, NO_STORE),
    ];
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}

/// The style sheet of the pages
#[utoipa::path(
    get, path = "/oauth2/assets/style.css", tag = TAG, security(()),
    responses(
        (status = 200, description = "The style sheet", body = String, content_type = "text/css"),
        (status = 304, description = "Unchanged"),
        (status = 429, description = "Too many requests", body = Envelope),
    )
)]
async fn get_login_style(headers: HeaderMap) -> Response {
    let fixed = HeaderValue::from_static;
    let tag = etag::of(STYLE.as_bytes());
    let kind = [(header::CONTENT_TYPE, fixed("text/css; charset=utf-8"))];
    etag::answer(&headers, tag, fixed("public, max-age=300"), (kind, STYLE))
}
