//! The end of a login to the pages.

use auspex_kernel::id::UserId;
use auspex_kernel::{ApiError, Peer, RequestId};
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::TAG;
use super::browser::Cookie;
use super::form::{self, form};
use super::own_form::Refused;
use super::pages::{LogoutPage, MessagePage, UNREADABLE, page, redirect, refusal};
use super::sign_in::refused;
use super::views::{Pages, add_cookie};
use crate::audit::Actor;
use crate::http::Handles;
use crate::oauth::{
    AuthorizationError, LoginSession, LogoutRequest, Parameters, Purpose, ReturnTo, Sealed,
};

const CLOSE: &str = "You can close this page.";
const UNREGISTERED: &str = "The application wants you back at an address that it has not registered for logouts, so you \
    are not sent there. You can close this page, or go back to the application yourself.";

/// The pages that one can log out by.
const WITH_LOGOUT: [Purpose; 4] = [
    Purpose::Consent,
    Purpose::Device,
    Purpose::Logout,
    Purpose::Account,
];

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new()
        .routes(routes!(end_session, post_end_session))
        .routes(routes!(submit_logout))
}

form! {
    /// The parameters of a request to log out.
    struct EndSessionForm {
        /// An ID token that the client got for its user; it may have expired. Without one the person is asked
        id_token_hint: optional {},
        /// Needed for `post_logout_redirect_uri` where there is no `id_token_hint`
        client_id: optional {},
        /// Exactly as registered
        post_logout_redirect_uri: optional {},
        /// Is returned unchanged
        state: optional {},
        /// In place of all others: from the answer to the form
        request: optional {},
    }
}

form! {
    /// The fields of the button that logs out.
    struct LogoutForm {
        /// From the page, like the next field
        csrf_token: required {},
        request: required {},
    }
}

/// Log out for a client
///
/// The end session endpoint (OpenID Connect RP-Initiated Logout 1.0), to be opened in a browser. With the
/// ID token of whoever is logged in the login here ends at once; otherwise they are asked. Then the
/// browser goes on to `post_logout_redirect_uri`. Tokens that clients have got stay valid: revoke them.
#[utoipa::path(
    get, path = "/oauth2/end-session", tag = TAG, security(()),
    params(EndSessionForm),
    responses(
        (status = 200, description = "A page: logged out, or asks whether to", body = String, content_type = "text/html"),
        (status = 303, description = "Logged out; to the client"),
        (status = 400, description = "A page that says what is wrong with the request", body = String, content_type = "text/html"),
        (status = 429, description = "A page: too many requests", body = String, content_type = "text/html"),
        (status = 503, description = "A page: the database is away", body = String, content_type = "text/html"),
    )
)]
async fn end_session(
    State(pages): State<Pages>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query = uri.query().unwrap_or_default();
    let request = match pages.logout_request(query).await {
        Ok(request) => request,
        Err(error) => return refused(error),
    };
    let session = pages.browsers.session(&headers).await?;
    let ends = match session {
        Some(session) if request.user_id.as_ref() != Some(&session.user.id) => {
            return pages.logout_page(&headers, &request, &session);
        }
        session => session,
    };
    if let Some(session) = ends {
        let actor = Actor::anonymous(peer, Some(&request_id));
        pages.sessions.end(&actor, session).await?;
    }
    let gone_on = match &request.return_to {
        ReturnTo::Client(location) => redirect(location)?,
        ReturnTo::Nowhere => logged_out(CLOSE)?,
        ReturnTo::Unregistered => logged_out(UNREGISTERED)?,
    };
    pages.without_session(gone_on)
}

/// Log out for a client by a form
///
/// The same with the parameters in the body. A valid request is redirected to GET, because browsers
/// send no cookies with forms of other sites.
#[utoipa::path(
    post, path = "/oauth2/end-session", tag = TAG, security(()),
    request_body(content = EndSessionForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "To the same endpoint"),
        (status = 400, description = "A page that says what is wrong with the form or request", body = String, content_type = "text/html"),
        (status = 413, description = "A page: the form is too long", body = String, content_type = "text/html"),
        (status = 429, description = "A page: too many requests", body = String, content_type = "text/html"),
        (status = 503, description = "A page: the database is away", body = String, content_type = "text/html"),
    )
)]
async fn post_end_session(
    State(pages): State<Pages>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Ok(fields) = form::read::<EndSessionForm>(&headers, body).await? else {
        return refusal(StatusCode::BAD_REQUEST, UNREADABLE);
    };
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields.iter())
        .finish();
    match pages.authorization.read_logout(&query).await {
        Ok(request) => {
            let carried = Sealed {
                holder: request
                    .user_id
                    .map_or_else(String::new, |id| id.to_string()),
                query: request.query,
                scopes: String::new(),
            };
            let sealed = pages.seals.seal(Purpose::EndSession, &carried);
            redirect(&format!("/oauth2/end-session?request={sealed}"))
        }
        Err(error) => refused(error),
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
) -> Result<Response, Refused> {
    let form = pages
        .read_form::<LogoutForm>(&headers, body, &WITH_LOGOUT)
        .await?;
    let Some(session) = pages.session_of(&headers, &form).await? else {
        // In another tab they logged out, or in as somebody else.
        return Ok(pages.go_on(&form.place())?);
    };
    let actor = Actor::anonymous(peer, Some(&request_id));
    pages.sessions.end(&actor, session).await?;
    let response = match form.purpose {
        Purpose::Logout => match pages.authorization.read_logout(&form.sealed.query).await {
            Ok(request) => match request.return_to {
                ReturnTo::Client(location) => pages.go_on(&location)?,
                ReturnTo::Nowhere => logged_out(CLOSE)?,
                ReturnTo::Unregistered => logged_out(UNREGISTERED)?,
            },
            Err(error) => refused(error)?,
        },
        Purpose::Account => logged_out(CLOSE)?,
        // For another login.
        _ => pages.go_on(&form.place())?,
    };
    Ok(pages.without_session(response)?)
}

fn logged_out(text: &str) -> Result<Response, ApiError> {
    let message = MessagePage {
        title: "You are logged out",
        text,
        is_error: false,
        place: None,
    };
    page(StatusCode::OK, &message)
}

impl Pages {
    /// The answer, with which the browser forgets the session that has ended.
    fn without_session(&self, mut response: Response) -> Result<Response, ApiError> {
        let removed = self.browsers.set_cookie(Cookie::Session, None)?;
        response.headers_mut().append(header::SET_COOKIE, removed);
        Ok(response)
    }

    /// The request of an address, which may be one that came as a form before.
    async fn logout_request(&self, query: &str) -> Result<LogoutRequest, AuthorizationError> {
        let parameters = Parameters::parse(query.as_bytes()).ok();
        let sealed = parameters.and_then(|found| self.opened(&[Purpose::EndSession], &found));
        let Some((_, Sealed { query, holder, .. })) = sealed else {
            return self.authorization.read_logout(query).await;
        };
        let request = self.authorization.read_logout(&query).await?;
        Ok(LogoutRequest {
            user_id: UserId::parse(&holder),
            ..request
        })
    }

    /// Asks whether to log out.
    fn logout_page(
        &self,
        headers: &HeaderMap,
        request: &LogoutRequest,
        session: &LoginSession,
    ) -> Result<Response, ApiError> {
        let user = &session.user;
        let (csrf_token, set_cookie) = self.browsers.csrf_token(headers, user.id.as_str())?;
        let carried = Sealed {
            query: request.query.clone(),
            scopes: String::new(),
            holder: user.id.to_string(),
        };
        let asked = LogoutPage {
            client: request.client.as_ref().map(|client| client.name.as_str()),
            user: &user.name,
            csrf_token: &csrf_token,
            request: &self.seals.seal(Purpose::Logout, &carried),
        };
        let mut response = page(StatusCode::OK, &asked)?;
        add_cookie(&mut response, set_cookie);
        Ok(response)
    }
}
