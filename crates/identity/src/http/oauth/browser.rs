//! What a browser sends along: cookies, and evidence of the page that a form comes from.
//!
//! There are three cookies of 256 random bits each. A session cookie is set only by a login. That
//! of the browser only ties forms to the browser that was shown them, and never counts as a login.
//! The third is for the step from a form to where it leads, and is used up by it.

use std::sync::Arc;

use auspex_kernel::error::ApiError;
use axum::http::{HeaderMap, HeaderValue, header};

use crate::error::IdentityError;
use crate::oauth::{LoginSession, PageSessions, SESSION_TTL, Seals};

/// 32 bytes in base64url.
const VALUE_CHARS: usize = 43;

/// One of our cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cookie {
    Session,
    Browser,
    Continue,
}

impl Cookie {
    fn name(self) -> &'static str {
        match self {
            Cookie::Session => "auspex_session",
            Cookie::Browser => "auspex_login",
            Cookie::Continue => "auspex_continue",
        }
    }
}

/// Recognises browsers.
#[derive(Clone)]
pub(super) struct Browsers {
    sessions: PageSessions,
    seals: Seals,
    /// The public URL, without a slash at its end.
    issuer: Arc<str>,
    /// At the end of the name of each cookie.
    installation: Arc<str>,
}

impl Browsers {
    pub(super) fn new(sessions: PageSessions, seals: Seals, issuer: &str) -> Self {
        Self {
            sessions,
            issuer: issuer.into(),
            installation: seals.installation().into(),
            seals,
        }
    }

    fn is_https(&self) -> bool {
        self.issuer.starts_with("https://")
    }

    fn name_of(&self, cookie: Cookie) -> String {
        // Keeps other hosts of the domain from setting it; needs https.
        let prefix = if self.is_https() { "__Host-" } else { "" };
        format!("{prefix}{}_{}", cookie.name(), self.installation)
    }

    /// The value of a cookie, if it looks like one of ours.
    pub(super) fn cookie<'h>(&self, headers: &'h HeaderMap, cookie: Cookie) -> Option<&'h str> {
        let name = self.name_of(cookie);
        let lines = headers.get_all(header::COOKIE).iter();
        let pairs = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'));
        let mut values = pairs.filter_map(|pair| {
            let (known, value) = pair.trim().split_once('=')?;
            (known == name).then_some(value)
        });
        values.find(|value| {
            value.len() == VALUE_CHARS
                && value
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        })
    }

    /// The header that sets a cookie, or removes it if there is no value.
    pub(super) fn set_cookie(
        &self,
        cookie: Cookie,
        value: Option<&str>,
    ) -> Result<HeaderValue, ApiError> {
        let https = self.is_https();
        let (name, text) = (self.name_of(cookie), value.unwrap_or_default());
        let mut line = format!("{name}={text}; Path=/; HttpOnly; SameSite=Lax");
        if https {
            line.push_str("; Secure");
        }
        match (cookie, value) {
            (_, None) => line.push_str("; Max-Age=0"),
            (Cookie::Session, Some(_)) => {
                line.push_str(&format!("; Max-Age={}", SESSION_TTL.as_secs()));
            }
            (Cookie::Continue, Some(_)) => line.push_str("; Max-Age=60"),
            // Until the browser is closed.
            (Cookie::Browser, Some(_)) => {}
        }
        HeaderValue::try_from(line).map_err(ApiError::internal)
    }

    /// The session of the browser.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(super) async fn session(
        &self,
        headers: &HeaderMap,
    ) -> Result<Option<LoginSession>, IdentityError> {
        match self.cookie(headers, Cookie::Session) {
            Some(cookie) => self.sessions.find(cookie).await,
            None => Ok(None),
        }
    }

    /// What a form holds to be known again as ours, and the header that sets the cookie for it where the
    /// browser has none. `user` is who is logged in; empty: nobody.
    ///
    /// # Errors
    /// [`IdentityError::Randomness`].
    pub(super) fn csrf_token(
        &self,
        headers: &HeaderMap,
        user: &str,
    ) -> Result<(String, Option<HeaderValue>), ApiError> {
        if let Some(cookie) = self.cookie(headers, Cookie::Browser) {
            return Ok((self.seals.csrf_token(cookie, user), None));
        }
        let cookie = self.sessions.draw_cookie()?;
        let header = self.set_cookie(Cookie::Browser, Some(&cookie))?;
        Ok((self.seals.csrf_token(&cookie, user), Some(header)))
    }

    /// Whether a form comes from one of our pages: the browser does not say otherwise, and the form has
    /// the token that belongs to its cookie and to `user`, whom the page was shown to.
    ///
    /// Our pages send no referrer, and browsers then send `Origin: null` even with our own forms.
    /// `Sec-Fetch-Site` is exact, but browsers leave it out for addresses without https. So neither is
    /// proof; only the token is.
    pub(super) fn is_own_form(&self, headers: &HeaderMap, user: &str, token: Option<&str>) -> bool {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let from_site = matches!(text("sec-fetch-site"), None | Some("same-origin" | "none"));
        let host = text("host");
        let from_origin = match text("origin") {
            None | Some("null") => true,
            Some(origin) => {
                let authority = origin.split_once("://").map(|(_, authority)| authority);
                *origin == *self.issuer || (authority.is_some() && authority == host)
            }
        };
        let has_token = match (self.cookie(headers, Cookie::Browser), token) {
            (Some(cookie), Some(token)) => self.seals.is_csrf_token(cookie, user, token),
            _ => false,
        };
        from_site && from_origin && has_token
    }
}
