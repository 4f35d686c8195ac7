//! What the routes of the pages have, and how each page is filled in.

use auspex_kernel::ApiError;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::browser::Browsers;
use super::pages::{ConsentPage, Instead, LackPage, LoginPage, page};
use crate::error::IdentityError;
use crate::oauth::{
    AuthorizationEndpoint, AuthorizationError, AuthorizationRequest, Devices, LoginSession, Own,
    PageSessions, Parameters, Purpose, Sealed, Seals,
};
use crate::types::redirect::shown;
use crate::types::scope::ClientScopes;
use crate::types::user::User;
use crate::types::user_code::UserCode;

/// What the pages need.
#[derive(Clone)]
pub(crate) struct Pages {
    pub(super) authorization: AuthorizationEndpoint,
    pub(super) sessions: PageSessions,
    pub(super) own: Own,
    pub(super) devices: Devices,
    pub(super) seals: Seals,
    pub(super) browsers: Browsers,
}

/// Where a login leads.
pub(super) enum Onward {
    /// To the page about oneself.
    Account,
    /// To the page for devices, with the code that somebody came with.
    Device(Option<UserCode>),
    /// To the application's request.
    Client(Box<AuthorizationRequest>),
}

/// Why the login page is shown.
#[derive(Default)]
pub(super) struct Notice<'a> {
    pub(super) text: Option<&'a str>,
    pub(super) instead: Option<Instead>,
}

impl<'a> Notice<'a> {
    fn of(text: &'a str) -> Self {
        Self {
            text: Some(text),
            instead: None,
        }
    }
}

impl Onward {
    /// The address after the login.
    pub(super) fn location(&self) -> String {
        match self {
            Onward::Account => "/oauth2/login".into(),
            Onward::Device(None) => "/oauth2/device".into(),
            Onward::Device(Some(code)) => format!("/oauth2/device?user_code={code}"),
            Onward::Client(request) => {
                format!("/oauth2/authorize?{}", request.query_after_login())
            }
        }
    }

    fn client(&self) -> Option<&str> {
        match self {
            Onward::Client(request) => Some(&request.client.name),
            Onward::Account | Onward::Device(_) => None,
        }
    }

    /// What to fill in as the name.
    fn hinted(&self) -> &str {
        match self {
            Onward::Client(request) => request.hinted(),
            Onward::Account | Onward::Device(_) => "",
        }
    }

    /// What the login page carries.
    fn sealed(&self, seals: &Seals) -> String {
        let (purpose, query) = match self {
            Onward::Account => (Purpose::Login, String::new()),
            Onward::Device(code) => {
                let code = code.as_ref().map(UserCode::to_string);
                (Purpose::DeviceLogin, code.unwrap_or_default())
            }
            Onward::Client(request) => (Purpose::Login, request.query.clone()),
        };
        let carried = Sealed {
            query,
            scopes: String::new(),
            holder: String::new(),
        };
        seals.seal(purpose, &carried)
    }
}

impl Pages {
    /// `issuer` is the public URL, without a slash at its end.
    pub(crate) fn new(
        authorization: AuthorizationEndpoint,
        sessions: PageSessions,
        own: Own,
        devices: Devices,
        seals: Seals,
        issuer: &str,
    ) -> Self {
        Self {
            browsers: Browsers::new(sessions.clone(), seals.clone(), issuer),
            authorization,
            sessions,
            own,
            devices,
            seals,
        }
    }
}

impl Pages {
    /// What was sealed for one of these purposes.
    pub(super) fn opened(
        &self,
        purposes: &[Purpose],
        fields: &Parameters,
    ) -> Option<(Purpose, Sealed)> {
        let text = fields.get("request")?;
        let mut purposes = purposes.iter();
        purposes.find_map(|purpose| Some((*purpose, self.seals.open(*purpose, text)?)))
    }

    /// Where the login leads that a login page was shown for.
    pub(super) async fn onward(
        &self,
        purpose: Purpose,
        sealed: &Sealed,
    ) -> Result<Onward, AuthorizationError> {
        match (purpose, sealed.query.as_str()) {
            (Purpose::DeviceLogin, code) => Ok(Onward::Device(UserCode::parse(code))),
            (_, "") => Ok(Onward::Account),
            (_, query) => {
                let request = self.authorization.read(query).await?;
                Ok(Onward::Client(Box::new(request)))
            }
        }
    }

    /// What somebody can do who is not whom a client expects: go on as themselves where it only hints at a
    /// name, and else go back to it.
    pub(super) fn instead(&self, request: &AuthorizationRequest, name: &str) -> Instead {
        match request.query_without_hint() {
            Some(query) => Instead {
                place: format!("/oauth2/authorize?{query}"),
                text: format!("Go on as {name}"),
            },
            None => Instead {
                place: self.authorization.login_required(request),
                text: format!("Back to {}", shown(&request.redirect_uri)),
            },
        }
    }

    /// The login page. `username` is what was entered before.
    pub(super) fn login_page(
        &self,
        headers: &HeaderMap,
        onward: &Onward,
        username: Option<&str>,
        notice: Notice<'_>,
    ) -> Result<Response, ApiError> {
        let (csrf_token, set_cookie) = self.browsers.csrf_token(headers, "")?;
        let shown = LoginPage {
            client: onward.client(),
            csrf_token: &csrf_token,
            request: &onward.sealed(&self.seals),
            username: username.unwrap_or_else(|| onward.hinted()),
            notice: notice.text,
            instead: notice.instead,
        };
        let mut response = page(StatusCode::OK, &shown)?;
        add_cookie(&mut response, set_cookie);
        Ok(response)
    }

    /// The same after an attempt that failed.
    pub(super) fn failed_login_page(
        &self,
        headers: &HeaderMap,
        onward: &Onward,
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
        let mut response = self.login_page(headers, onward, Some(username), Notice::of(&text))?;
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
            scopes: request.client.in_words(scopes),
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
