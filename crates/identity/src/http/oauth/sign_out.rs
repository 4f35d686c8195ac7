//! The end of a login to the pages.

use auspex_kernel::{ApiError, Peer, RequestId};
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::TAG;
use super::browser::Cookie;
use super::form::{self, form};
use super::pages::{FOREIGN, MessagePage, UNREADABLE, page, refusal};
use super::views::Pages;
use crate::audit::Actor;
use crate::http::Handles;
use crate::oauth::{LoginSession, Purpose};

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new().routes(routes!(submit_logout))
}

form! {
    /// The fields of the button that logs out.
    struct LogoutForm {
        /// From the page, like the next field
        csrf_token: required {},
        request: optional {},
    }
}

/// Log out of the login pages
///
/// Ends the session of this browser; tokens that clients have got stay valid.
#[utoipa::path(
    post, path = "/oauth2/logout", tag = TAG, security(()),
    request_body(content = LogoutForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "A page: logged out", body = String, content_type = "text/html"),
        (status = 303, description = "Logged out; back to the request, for another login"),
        (status = 400, description = "A page: the form cannot be read", body = String, content_type = "text/html"),
        (status = 403, description = "A page: the form is not from a page of this browser", body = String, content_type = "text/html"),
        (status = 429, description = "A page: too many requests", body = String, content_type = "text/html"),
        (status = 503, description = "A page: the database is away", body = String, content_type = "text/html"),
    )
)]
async fn submit_logout(
    State(pages): State<Pages>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Ok(fields) = form::read::<LogoutForm>(&headers, body).await? else {
        return refusal(StatusCode::BAD_REQUEST, UNREADABLE);
    };
    let token = fields.get("csrf_token");
    let session = pages.browsers.session(&headers).await?;
    let is_own = |session: &LoginSession| {
        let user = session.user.id.as_str();
        pages.browsers.is_own_form(&headers, user, token)
    };
    let Some(session) = session.filter(is_own) else {
        return refusal(StatusCode::FORBIDDEN, FOREIGN);
    };
    let actor = Actor::anonymous(peer, Some(&request_id));
    pages.sessions.end(&actor, session).await?;
    let mut response = match pages.request(Purpose::Consent, &fields) {
        Some(sealed) => pages.go_on(&format!("/oauth2/authorize?{}", sealed.query))?,
        None => {
            let message = MessagePage {
                title: "You are logged out",
                text: "You can close this page.",
                is_error: false,
            };
            page(StatusCode::OK, &message)?
        }
    };
    let removed = pages.browsers.set_cookie(Cookie::Session, None)?;
    response.headers_mut().append(header::SET_COOKIE, removed);
    Ok(response)
}
