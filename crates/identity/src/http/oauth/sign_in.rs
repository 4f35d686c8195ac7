//! From a client's link to a code: the authorization endpoint, and the pages in between.

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
use super::pages::{FOREIGN, UNREADABLE, redirect, refusal};
use super::views::{Notice, Onward, Pages};
use crate::audit::Actor;
use crate::error::IdentityError;
use crate::http::Handles;
use crate::oauth::{AuthorizationError, Parameters, Purpose, Step};
use crate::password::Password;

/// What login pages are for.
const LOGINS: [Purpose; 2] = [Purpose::Login, Purpose::DeviceLogin];

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new()
        .routes(routes!(authorize, post_authorize))
        .routes(routes!(show_login, submit_login))
        .routes(routes!(submit_consent))
}

form! {
    /// The parameters of an authorization request.
    struct AuthorizationForm {
        /// `code`
        response_type: required {},
        /// As registered
        client_id: required {},
        /// Exactly as registered
        redirect_uri: required {},
        /// RFC 7636; required
        code_challenge: required {},
        /// `S256`
        code_challenge_method: required {},
        /// Space-separated; all of the client's by default
        scope: optional {},
        /// Is returned unchanged
        state: optional {},
        /// Is returned in the ID token
        nonce: optional {},
        /// `none`, or some of `login`, `consent`, `select_account`
        prompt: optional {},
        /// Most seconds since the login
        max_age: optional {"type": "integer", "format": "int32", "minimum": 0},
        /// Username, e-mail address or id of the user that is expected; fills in the login form
        login_hint: optional {},
        /// An ID token that the client got for the user that is expected; it may have expired
        id_token_hint: optional {},
    }
}

form! {
    /// The fields of the login page.
    struct LoginForm {
        username: required {},
        password: required {"format": "password"},
        /// From the page, like the next field
        csrf_token: required {},
        request: required {},
    }
}

form! {
    /// The fields of the consent page.
    struct ConsentForm {
        decision: required {"enum": ["allow", "deny"]},
        /// From the page, like the next field
        csrf_token: required {},
        request: required {},
    }
}

/// Begin a login for a client
///
/// The authorization endpoint (RFC 6749 §4.1.1, OpenID Connect Core §3.1.2), to be opened in a
/// browser. It shows the login page or the consent page where they are needed, and then sends the
/// browser to `redirect_uri` with `code`, `state` and `iss`, or with `error` and
/// `error_description`. A request whose client or address is not registered is never redirected.
#[utoipa::path(
    get, path = "/oauth2/authorize", tag = TAG, security(()),
    params(AuthorizationForm),
    responses(
        (status = 200, description = "A page: log in, or agree", body = String, content_type = "text/html"),
        (status = 303, description = "To the client"),
        (status = 400, description = "A page that says what is wrong with client or address", body = String, content_type = "text/html"),
        (status = 429, description = "A page: too many requests", body = String, content_type = "text/html"),
        (status = 503, description = "A page: the database is away", body = String, content_type = "text/html"),
    )
)]
async fn authorize(
    State(pages): State<Pages>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let actor = Actor::anonymous(peer, Some(&request_id));
    let query = uri.query().unwrap_or_default();
    let request = match pages.authorization.read(query).await {
        Ok(request) => request,
        Err(error) => return refused(error),
    };
    let session = pages.browsers.session(&headers).await?;
    let step = pages
        .authorization
        .next_step(&actor, &request, session.as_ref());
    match (step.await, &session) {
        (Ok(Step::Ask(scopes)), Some(session)) => {
            pages.consent_page(&headers, &request, session, scopes)
        }
        (Ok(Step::Lack), Some(session)) => pages.lack_page(&headers, &request, session),
        (Ok(Step::LogIn | Step::Lack | Step::Ask(_)), _) => {
            let other = session.filter(|session| !request.is_for(&session.user));
            let notice = other.as_ref().map(|session| {
                let (who, client) = (&session.user.name, &request.client.name);
                format!("You are logged in as {who}. {client} expects somebody else.")
            });
            let instead = other.map(|session| pages.instead(&request, &session.user.name));
            let onward = Onward::Client(Box::new(request));
            let notice = Notice {
                text: notice.as_deref(),
                instead,
            };
            pages.login_page(&headers, &onward, None, notice)
        }
        (Ok(Step::Redirect(location)), _) => redirect(&location),
        (Err(error), _) => refused(error),
    }
}

/// Begin a login for a client by a form
///
/// The same with the parameters in the body. A valid request is redirected to GET, because browsers
/// send no cookies with forms of other sites.
#[utoipa::path(
    post, path = "/oauth2/authorize", tag = TAG, security(()),
    request_body(content = AuthorizationForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "To the authorization endpoint, or to the client with an error"),
        (status = 400, description = "A page that says what is wrong with the form, client or address", body = String, content_type = "text/html"),
        (status = 413, description = "A page: the form is too long", body = String, content_type = "text/html"),
        (status = 429, description = "A page: too many requests", body = String, content_type = "text/html"),
        (status = 503, description = "A page: the database is away", body = String, content_type = "text/html"),
    )
)]
async fn post_authorize(
    State(pages): State<Pages>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Ok(fields) = form::read_any(&headers, body).await? else {
        return refusal(StatusCode::BAD_REQUEST, UNREADABLE);
    };
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields.iter())
        .finish();
    match pages.authorization.read(&query).await {
        Ok(_) => redirect(&format!("/oauth2/authorize?{query}")),
        Err(error) => refused(error),
    }
}

/// Show the login page, or who is logged in
///
/// Without `request` it is for people who come by themselves: it shows as whom this browser is logged
/// in, or lets them log in. With it, it shows the login page of an application's request again.
#[utoipa::path(
    get, path = "/oauth2/login", tag = TAG, security(()),
    params(("request" = Option<String>, Query, description = "From the page")),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 303, description = "To the client, with an error"),
        (status = 400, description = "A page: the address cannot be read, or is too old; start again", body = String, content_type = "text/html"),
        (status = 429, description = "A page: too many requests", body = String, content_type = "text/html"),
        (status = 503, description = "A page: the database is away", body = String, content_type = "text/html"),
    )
)]
async fn show_login(
    State(pages): State<Pages>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let Ok(parameters) = Parameters::parse(uri.query().unwrap_or_default().as_bytes()) else {
        return refusal(StatusCode::BAD_REQUEST, UNREADABLE);
    };
    // Others may have been added on the way here, such as those that count visitors.
    if parameters.get("request").is_none() {
        return match pages.browsers.session(&headers).await? {
            Some(session) => pages.account_page(&headers, &session).await,
            None => pages.login_page(&headers, &Onward::Account, None, Notice::default()),
        };
    }
    let Some((purpose, sealed)) = pages.opened(&LOGINS, &parameters) else {
        return refusal(StatusCode::BAD_REQUEST, FOREIGN);
    };
    match pages.onward(purpose, &sealed).await {
        Ok(onward) => pages.login_page(&headers, &onward, None, Notice::default()),
        Err(error) => refused(error),
    }
}

/// Log in by the login page
#[utoipa::path(
    post, path = "/oauth2/login", tag = TAG, security(()),
    request_body(content = LoginForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "Logged in; back to the request, or to the page that says so"),
        (status = 400, description = "A page: the form cannot be read", body = String, content_type = "text/html"),
        (status = 401, description = "The page again: name or password is wrong", body = String, content_type = "text/html"),
        (status = 403, description = "A page: the form is not from a page of this browser", body = String, content_type = "text/html"),
        (status = 429, description = "The page again, after too many failures from this address", body = String, content_type = "text/html"),
        (status = 503, description = "A page: too many passwords to check, or the database is away", body = String, content_type = "text/html"),
    )
)]
async fn submit_login(
    State(pages): State<Pages>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let form = pages
        .read_form::<LoginForm>(&headers, body, &LOGINS)
        .await?;
    let onward = match pages.onward(form.purpose, &form.sealed).await {
        Ok(onward) => onward,
        Err(error) => return Ok(pages.refused_form(error)?),
    };
    let fields = &form.fields;
    let actor = Actor::anonymous(peer, Some(&request_id));
    let username = fields.get("username").unwrap_or_default();
    let password = Password::from(fields.get("password").unwrap_or_default());
    let replaced = pages.browsers.cookie(&headers, Cookie::Session);
    match pages
        .sessions
        .begin(&actor, username, &password, replaced)
        .await
    {
        Ok(session) => {
            let location = onward.location();
            let mut response = match onward {
                Onward::Client(_) => pages.go_on(&location)?,
                Onward::Account | Onward::Device(_) => redirect(&location)?,
            };
            let session = pages.browsers.set_cookie(Cookie::Session, Some(&session))?;
            response.headers_mut().append(header::SET_COOKIE, session);
            Ok(response)
        }
        Err(
            error @ (IdentityError::InvalidCredentials
            | IdentityError::TooManyAttempts(_)
            | IdentityError::Busy(_)),
        ) => Ok(pages.failed_login_page(&headers, &onward, username, error)?),
        Err(error) => Err(error.into()),
    }
}

/// Allow or deny on the consent page
#[utoipa::path(
    post, path = "/oauth2/consent", tag = TAG, security(()),
    request_body(content = ConsentForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "To the client"),
        (status = 400, description = "A page: the form cannot be read", body = String, content_type = "text/html"),
        (status = 403, description = "A page: the form is not from a page of this browser", body = String, content_type = "text/html"),
        (status = 429, description = "A page: too many requests", body = String, content_type = "text/html"),
        (status = 503, description = "A page: the database is away", body = String, content_type = "text/html"),
    )
)]
async fn submit_consent(
    State(pages): State<Pages>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let form = pages
        .read_form::<ConsentForm>(&headers, body, &[Purpose::Consent])
        .await?;
    let allowed = form.decision()?;
    let Some(session) = pages.session_of(&headers, &form).await? else {
        // In another tab they logged out, or in as somebody else, who is asked in their turn.
        return Ok(pages.go_on(&form.place())?);
    };
    let sealed = &form.sealed;
    let request = match pages.authorization.read(&sealed.query).await {
        Ok(request) => request,
        Err(error) => return Ok(pages.refused_form(error)?),
    };
    let actor = Actor::anonymous(peer, Some(&request_id));
    let decided = pages
        .authorization
        .decide(&actor, &request, &session, &sealed.scopes, allowed);
    let answer = match decided.await {
        Ok(location) => pages.go_on(&location),
        Err(error) => pages.refused_form(error),
    };
    Ok(answer?)
}

/// Answers the client where that is safe, and the person otherwise.
pub(super) fn refused(error: AuthorizationError) -> Result<Response, ApiError> {
    match error {
        AuthorizationError::Shown(text) => refusal(StatusCode::BAD_REQUEST, text),
        AuthorizationError::Redirect(location) => redirect(&location),
        AuthorizationError::Failed(error) => Err(error.into()),
    }
}

impl Pages {
    /// The same for the answer to a form of ours.
    fn refused_form(&self, error: AuthorizationError) -> Result<Response, ApiError> {
        match error {
            AuthorizationError::Redirect(location) => self.go_on(&location),
            error => refused(error),
        }
    }
}
