//! The page on which people see where they are logged in and which applications act for them, and end
//! that.

use auspex_kernel::{ApiError, Peer, RequestId, Timestamp};
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::TAG;
use super::form::form;
use super::own_form::{Refused, unreadable};
use super::pages::{AccountPage, ShownConsent, ShownSession, page, redirect};
use super::views::{Pages, add_cookie};
use crate::audit::Actor;
use crate::error::IdentityError;
use crate::http::Handles;
use crate::oauth::{LoginSession, Place, Purpose, Sealed};

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new().routes(routes!(change_account))
}

form! {
    /// The fields of the page about oneself; one of the optional ones is the button pressed.
    struct AccountForm {
        /// From the page, like the next field
        csrf_token: required {},
        request: required {},
        /// Id of a session to end
        end_session: optional {},
        /// Id of a client that is no longer to act for the user
        withdraw: optional {},
    }
}

/// End a session or withdraw a consent by the page about oneself
#[utoipa::path(
    post, path = "/oauth2/account", tag = TAG, security(()),
    request_body(content = AccountForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "Done, or it had ended before; back to the page"),
        (status = 400, description = "A page: the form cannot be read", body = String, content_type = "text/html"),
        (status = 403, description = "A page: the form is not from a page of this browser", body = String, content_type = "text/html"),
        (status = 429, description = "A page: too many requests", body = String, content_type = "text/html"),
        (status = 503, description = "A page: the database is away", body = String, content_type = "text/html"),
    )
)]
async fn change_account(
    State(pages): State<Pages>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let form = pages
        .read_form::<AccountForm>(&headers, body, &[Purpose::Account])
        .await?;
    let Some(LoginSession { user, .. }) = pages.session_of(&headers, &form).await? else {
        // In another tab they logged out, or in as somebody else.
        return Ok(redirect(&form.place())?);
    };
    let actor = Actor::anonymous(peer, Some(&request_id));
    let actor = actor.as_user(&user.id, user.roles.scopes());
    let fields = &form.fields;
    let done = match (fields.get("end_session"), fields.get("withdraw")) {
        (Some(id), None) => pages.own.end_session(&actor, &user.id, id).await,
        (None, Some(id)) => pages.own.withdraw(&actor, &user.id, id).await,
        _ => return Err(unreadable()),
    };
    match done {
        // Ended meanwhile, or the button was pressed twice.
        Ok(()) | Err(IdentityError::SessionNotFound | IdentityError::ClientNotFound) => {
            Ok(redirect(&form.place())?)
        }
        Err(error) => Err(error.into()),
    }
}

impl Pages {
    /// Says as whom this browser is logged in, where else they are, and which applications act for them.
    pub(super) async fn account_page(
        &self,
        headers: &HeaderMap,
        session: &LoginSession,
    ) -> Result<Response, ApiError> {
        let user = &session.user;
        let sessions = self.own.sessions(&user.id).await?.into_iter();
        let consents = self.own.consents(&user.id).await?.into_iter();
        let (csrf_token, set_cookie) = self.browsers.csrf_token(headers, user.id.as_str())?;
        let carried = Sealed {
            query: String::new(),
            scopes: String::new(),
            holder: user.id.to_string(),
        };
        let shown = AccountPage {
            user: &user.name,
            email: &user.email,
            roles: &user.roles.to_string(),
            sessions: sessions
                .map(|session| ShownSession {
                    place: match session.place {
                        Place::Browser => "In a browser",
                        Place::Tokens => "By a program, with your password",
                    },
                    since: minute(session.authenticated_at),
                    id: session.id,
                })
                .collect(),
            consents: consents
                .map(|consent| ShownConsent {
                    scopes: consent.scopes.in_words(),
                    since: minute(consent.agreed_at),
                    id: consent.client_id.to_string(),
                    name: consent.name,
                })
                .collect(),
            csrf_token: &csrf_token,
            request: &self.seals.seal(Purpose::Account, &carried),
        };
        let mut response = page(StatusCode::OK, &shown)?;
        add_cookie(&mut response, set_cookie);
        Ok(response)
    }
}

/// A time for people, to the minute.
fn minute(at: Timestamp) -> String {
    let text = at.to_rfc3339().replacen('T', " ", 1);
    let minute: String = text.chars().take("2026-01-31 12:00".len()).collect();
    format!("{minute} UTC")
}
