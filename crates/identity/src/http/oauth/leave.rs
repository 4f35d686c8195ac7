//! The way from a form of ours to wherever it leads.
//!
//! Browsers apply `form-action` to every redirect that follows a form, also to those of a client's own
//! site, and stop at the first place that it does not name. So what answers a form redirects no further
//! than to a page here, and the page goes on: without scripts, and once, so that going back in the
//! browser does not send a code a second time.

use auspex_kernel::ApiError;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::TAG;
use super::browser::Cookie;
use super::pages::{LeavePage, MessagePage, page, redirect};
use super::views::Pages;
use crate::http::Handles;
use crate::oauth::{Parameters, Purpose, Sealed};
use crate::types::redirect::shown;

const PATH: &str = "/oauth2/continue";

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new().routes(routes!(continue_on))
}

/// Go on from a form
///
/// Answers to forms redirect here, and this page sends the browser on. It does so once: opened again it
/// says what to do instead.
#[utoipa::path(
    get, path = "/oauth2/continue", tag = TAG, security(()),
    params(("to" = Option<String>, Query, description = "From the answer to the form")),
    responses(
        (status = 200, description = "A page that goes on by itself, and has a link", body = String, content_type = "text/html"),
        (status = 400, description = "A page: the browser has gone on already, or the address is too old", body = String, content_type = "text/html"),
        (status = 429, description = "A page: too many requests", body = String, content_type = "text/html"),
    )
)]
async fn continue_on(
    State(pages): State<Pages>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let parameters = Parameters::parse(uri.query().unwrap_or_default().as_bytes()).ok();
    let sealed = parameters.and_then(|found| pages.seals.open(Purpose::Continue, found.get("to")?));
    let ticket = pages.browsers.cookie(&headers, Cookie::Continue);
    let is_own = |sealed: &Sealed| {
        ticket.is_some_and(|ticket| pages.seals.is_csrf_token(ticket, "", &sealed.holder))
    };
    let Some(Sealed { query: to, .. }) = sealed.filter(is_own) else {
        let message = MessagePage {
            title: "This step is done",
            text: "Your browser has gone on from here already, or took too long. Go back to the \
                application. If you are not logged in there, start again.",
            is_error: true,
            place: None,
        };
        return page(StatusCode::BAD_REQUEST, &message);
    };
    let destination = match to.starts_with('/') {
        true => String::new(),
        false => shown(&to),
    };
    let leave = LeavePage {
        to: &to,
        destination: &destination,
    };
    let mut response = page(StatusCode::OK, &leave)?;
    let used = pages.browsers.set_cookie(Cookie::Continue, None)?;
    response.headers_mut().append(header::SET_COOKIE, used);
    Ok(response)
}

impl Pages {
    /// Answers a form: the browser goes on to `location`, here or elsewhere.
    pub(super) fn go_on(&self, location: &str) -> Result<Response, ApiError> {
        let ticket = self.sessions.draw_cookie()?;
        let sealed = Sealed {
            query: location.to_owned(),
            holder: self.seals.csrf_token(&ticket, ""),
            scopes: String::new(),
        };
        let sealed = self.seals.seal(Purpose::Continue, &sealed);
        let mut response = redirect(&format!("{PATH}?to={sealed}"))?;
        let ticket: HeaderValue = self.browsers.set_cookie(Cookie::Continue, Some(&ticket))?;
        response.headers_mut().append(header::SET_COOKIE, ticket);
        Ok(response)
    }
}
