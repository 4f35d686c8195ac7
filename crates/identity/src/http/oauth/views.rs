//! What the routes of the pages have, and how each page is filled in.

use auspex_kernel::ApiError;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;

use super::browser::Browsers;
use super::pages::{AccountPage, ConsentPage, LoginPage, page};
use crate::error::IdentityError;
use crate::oauth::{
    AuthorizationEndpoint, AuthorizationError, AuthorizationRequest, LoginSession, PageSessions,
    Parameters, Purpose, Sealed, Seals,
};
use crate::types::redirect::shown;
use crate::types::scope::ClientScopes;

/// What the pages need.
#[derive(Clone)]
pub(crate) struct Pages {
    pub(super) authorization: AuthorizationEndpoint,
    pub(super) sessions: PageSessions,
    pub(super) seals: Seals,
    pub(super) browsers: Browsers,
}

impl Pages {
    /// `issuer` is the public URL, without a slash at its end.
    pub(crate) fn new(
        authorization: AuthorizationEndpoint,
        sessions: PageSessions,
        seals: Seals,
        issuer: &str,
    ) -> Self {
        Self {
            browsers: Browsers::new(sessions.clone(), seals.clone(), issuer),
            authorization,
            sessions,
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

    pub(super) fn login_page(
        &self,
        headers: &HeaderMap,
        request: Option<&AuthorizationRequest>,
        username: &str,
        failed: Option<IdentityError>,
    ) -> Result<Response, ApiError> {
        let (cookie, set_cookie) = self.browsers.before_login(headers)?;
        let carried = Sealed {
            query: request
                .map(|request| request.query.clone())
                .unwrap_or_default(),
            scopes: String::new(),
            holder: String::new(),
        };
        let (error, wait_s) = match &failed {
            None => (None, None),
            Some(IdentityError::TooManyAttempts(retry)) => {
                let seconds = retry.seconds();
                let text = format!("Too many failed attempts. Try again in {seconds} seconds.");
                (Some(text), Some(seconds))
            }
            Some(IdentityError::Busy(_)) => {
                let text = "Too many people are logging in at once. Try again in a moment.";
                (Some(text.to_owned()), Some(1))
            }
            Some(_) => (Some("Username or password is wrong.".to_owned()), None),
        };
        let shown = LoginPage {
            client: request.map(|request| request.client.name.as_str()),
            csrf_token: &self.seals.csrf_token(&cookie),
            request: &self.seals.seal(Purpose::Login, &carried),
            username,
            error: error.as_deref(),
        };
        // The answer of any other endpoint.
        let status = failed.map_or(StatusCode::OK, |error| ApiError::from(error).status());
        let mut response = page(status, &shown)?;
        let wait = wait_s.map(|seconds| (header::RETRY_AFTER, seconds.into()));
        let set_cookie = set_cookie.map(|cookie| (header::SET_COOKIE, cookie));
        response
            .headers_mut()
            .extend(wait.into_iter().chain(set_cookie));
        Ok(response)
    }

    pub(super) fn account_page(
        &self,
        cookie: &str,
        session: &LoginSession,
    ) -> Result<Response, ApiError> {
        let user = &session.user;
        let shown = AccountPage {
            user: &user.name,
            email: &user.email,
            roles: &user.roles.to_string(),
            csrf_token: &self.seals.csrf_token(cookie),
        };
        page(StatusCode::OK, &shown)
    }

    pub(super) fn consent_page(
        &self,
        request: &AuthorizationRequest,
        cookie: &str,
        session: &LoginSession,
        scopes: ClientScopes,
    ) -> Result<Response, ApiError> {
        let carried = Sealed {
            query: request.query.clone(),
            scopes: scopes.to_string(),
            holder: String::new(),
        };
        let asked = ConsentPage {
            client: &request.client.name,
            user: &session.user.name,
            destination: &shown(&request.redirect_uri),
            scopes: scopes.in_words(),
            public: request.client.public,
            csrf_token: &self.seals.csrf_token(cookie),
            request: &self.seals.seal(Purpose::Consent, &carried),
        };
        page(StatusCode::OK, &asked)
    }
}
