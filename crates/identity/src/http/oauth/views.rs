//! What the routes of the pages have, and how each page is filled in.

use auspex_kernel::ApiError;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::browser::Browsers;
use super::pages::{ConsentPage, LackPage, LoginPage, page};
use crate::error::IdentityError;
use crate::oauth::{
    AuthorizationEndpoint, AuthorizationError, AuthorizationRequest, LoginSession, Own,
    PageSessions, Parameters, Purpose, Sealed, Seals,
};
use crate::types::redirect::shown;
use crate::types::scope::ClientScopes;
use crate::types::user::User;

/// What the pages need.
#[derive(Clone)]
pub(crate) struct Pages {
    pub(super) authorization: AuthorizationEndpoint,
    pub(super) sessions: PageSessions,
    pub(super) own: Own,
    pub(super) seals: Seals,
    pub(super) browsers: Browsers,
}

impl Pages {
    /// `issuer` is the public URL, without a slash at its end.
    pub(crate) fn new(
        authorization: AuthorizationEndpoint,
        sessions: PageSessions,
        own: Own,
        seals: Seals,
        issuer: &str,
    ) -> Self {
        Self {
            browsers: Browsers::new(sessions.clone(), seals.clone(), issuer),
            authorization,
            sessions,
            own,
            seals,
        }
    }
}

impl Pages {
    /// What was sealed for this purpose.
    pub(super) fn open(&self, purpose: Purpose, text: &str) -> Option<Sealed> {
        self.seals.open(purpose, text)
    }

    /// The same, of a form.
    pub(super) fn request(&self, purpose: Purpose, fields: &Parameters) -> Option<Sealed> {
        self.open(purpose, fields.get("request")?)
    }

    /// The application's request that the login page was shown for, if it was.
    pub(super) async fn requested(
        &self,
        sealed: &Sealed,
    ) -> Result<Option<AuthorizationRequest>, AuthorizationError> {
        match sealed.query.as_str() {
            "" => Ok(None),
            query => self.authorization.read(query).await.map(Some),
        }
    }

    /// The login page. `notice` says why it is shown.
    pub(super) fn login_page(
        &self,
        headers: &HeaderMap,
        request: Option<&AuthorizationRequest>,
        username: &str,
        notice: Option<&str>,
    ) -> Result<Response, ApiError> {
        let (csrf_token, set_cookie) = self.browsers.csrf_token(headers, "")?;
        let carried = Sealed {
            query: request
                .map(|request| request.query.clone())
                .unwrap_or_default(),
            scopes: String::new(),
            holder: String::new(),
        };
        let shown = LoginPage {
            client: request.map(|request| request.client.name.as_str()),
            csrf_token: &csrf_token,
            request: &self.seals.seal(Purpose::Login, &carried),
            username,
            notice,
        };
        let mut response = page(StatusCode::OK, &shown)?;
        add_cookie(&mut response, set_cookie);
        Ok(response)
    }

    /// The same after an attempt that failed.
    pub(super) fn failed_login_page(
        &self,
        headers: &HeaderMap,
        request: Option<&AuthorizationRequest>,
        username: &str,
        error: IdentityError,
    ) -> Result<Response, ApiError> {
        let (text, wait_s) = match &error {
            IdentityError::TooManyAttempts(retry) => {
                let seconds = retry.seconds();
                let text = format!("Too many failed attempts. Try again in {seconds} seconds.");
                (text, Some(seconds))
            }
            IdentityError::Busy(_) => {
                let text = "Too many people are logging in at once. Try again in a moment.";
                (text.to_owned(), Some(1))
            }
            _ => ("Username or password is wrong.".to_owned(), None),
        };
        let mut response = self.login_page(headers, request, username, Some(&text))?;
        // The answer of any other endpoint.
        *response.status_mut() = ApiError::from(error).status();
        let wait = wait_s.map(|seconds| (header::RETRY_AFTER, seconds.into()));
        response.headers_mut().extend(wait);
        Ok(response)
    }

    /// Asks whether the client may have these scopes.
    pub(super) fn consent_page(
        &self,
        headers: &HeaderMap,
        request: &AuthorizationRequest,
        session: &LoginSession,
        scopes: ClientScopes,
    ) -> Result<Response, ApiError> {
        let user = &session.user;
        let (csrf_token, set_cookie) = self.browsers.csrf_token(headers, user.id.as_str())?;
        let asked = ConsentPage {
            client: &request.client.name,
            user: &user.name,
            destination: &shown(&request.redirect_uri),
            scopes: scopes.in_words(),
            lacking: request.beyond(scopes).in_words(),
            public: request.client.public,
            csrf_token: &csrf_token,
            request: &self.asked_of(user, request, scopes),
        };
        let mut response = page(StatusCode::OK, &asked)?;
        add_cookie(&mut response, set_cookie);
        Ok(response)
    }

    /// Tells a person that they have none of the rights that the client asks for.
    pub(super) fn lack_page(
        &self,
        headers: &HeaderMap,
        request: &AuthorizationRequest,
        session: &LoginSession,
    ) -> Result<Response, ApiError> {
        let (user, none) = (&session.user, ClientScopes::default());
        let (csrf_token, set_cookie) = self.browsers.csrf_token(headers, user.id.as_str())?;
        let told = LackPage {
            client: &request.client.name,
            user: &user.name,
            destination: &shown(&request.redirect_uri),
            scopes: request.beyond(none).in_words(),
            csrf_token: &csrf_token,
            request: &self.asked_of(user, request, none),
        };
        let mut response = page(StatusCode::OK, &told)?;
        add_cookie(&mut response, set_cookie);
        Ok(response)
    }

    /// The request that a page asks this user about.
    fn asked_of(
        &self,
        user: &User,
        request: &AuthorizationRequest,
        scopes: ClientScopes,
    ) -> String {
        let carried = Sealed {
            query: request.query.clone(),
            scopes: scopes.to_string(),
            holder: user.id.to_string(),
        };
        self.seals.seal(Purpose::Consent, &carried)
    }
}

pub(super) fn add_cookie(response: &mut Response, set_cookie: Option<HeaderValue>) {
    let set_cookie = set_cookie.map(|cookie| (header::SET_COOKIE, cookie));
    response.headers_mut().extend(set_cookie);
}
