//! Forms of ours that come back: one reader of what they carry, which also says whether this browser was
//! shown the page.

use auspex_kernel::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::form::{self, Form};
use super::pages::{FOREIGN, MessagePage, UNREADABLE, page, refusal};
use super::views::{Onward, Pages};
use crate::error::IdentityError;
use crate::oauth::{LoginSession, Parameters, Purpose, Sealed};
use crate::types::user_code::UserCode;

/// A form from a page that this browser was shown.
pub(super) struct OwnForm {
    pub(super) fields: Parameters,
    /// Of the page.
    pub(super) purpose: Purpose,
    pub(super) sealed: Sealed,
}

/// Why a form is not carried out.
pub(super) enum Refused {
    /// This page says it.
    Shown(Box<Response>),
    Failed(ApiError),
}

impl<E: Into<ApiError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Refused::Shown(page) => *page,
            Refused::Failed(error) => error.into_response(),
        }
    }
}

impl Pages {
    /// Reads a form of a page with one of these purposes.
    ///
    /// # Errors
    /// Pages with 400 for what is no such form, and with 403 for one of a page that this browser was not
    /// shown, or too long ago. The latter leads on to where the page is shown anew: of two tabs that were
    /// opened at the same instant in a browser without cookies, only one has the form for the cookie
    /// that stays.
    pub(super) async fn read_form<F: Form>(
        &self,
        headers: &HeaderMap,
        body: Body,
        purposes: &[Purpose],
    ) -> Result<OwnForm, Refused> {
        let Ok(fields) = form::read::<F>(headers, body).await? else {
            return Err(unreadable());
        };
        let Some((purpose, sealed)) = self.opened(purposes, &fields) else {
            return Err(foreign(None));
        };
        let token = fields.get("csrf_token");
        if !self.browsers.is_own_form(headers, &sealed.holder, token) {
            return Err(foreign(Some(&place(purpose, &sealed))));
        }
        Ok(OwnForm {
            fields,
            purpose,
            sealed,
        })
    }

    /// The session of the browser, if the page was shown to its user.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(super) async fn session_of(
        &self,
        headers: &HeaderMap,
        form: &OwnForm,
    ) -> Result<Option<LoginSession>, IdentityError> {
        let session = self.browsers.session(headers).await?;
        Ok(session.filter(|session| session.user.id.as_str() == form.sealed.holder))
    }
}

impl OwnForm {
    /// Whether they allow what the page asks.
    ///
    /// # Errors
    /// A page with 400 for a form without a decision.
    pub(super) fn decision(&self) -> Result<bool, Refused> {
        match self.fields.get("decision") {
            Some("allow") => Ok(true),
            Some("deny") => Ok(false),
            _ => Err(unreadable()),
        }
    }

    /// Where its page is shown anew.
    pub(super) fn place(&self) -> String {
        place(self.purpose, &self.sealed)
    }
}

fn place(purpose: Purpose, sealed: &Sealed) -> String {
    let query = &sealed.query;
    match purpose {
        Purpose::Login | Purpose::Consent if !query.is_empty() => {
            format!("/oauth2/authorize?{query}")
        }
        Purpose::Logout | Purpose::EndSession => format!("/oauth2/end-session?{query}"),
        Purpose::DeviceLogin | Purpose::Device => Onward::Device(UserCode::parse(query)).location(),
        Purpose::Login | Purpose::Consent | Purpose::Account | Purpose::Continue => {
            Onward::Account.location()
        }
    }
}

/// A form or address that cannot be read.
pub(super) fn unreadable() -> Refused {
    shown(refusal(StatusCode::BAD_REQUEST, UNREADABLE))
}

/// A form of another page than this browser was shown, which leads on to `place`.
fn foreign(place: Option<&str>) -> Refused {
    let message = MessagePage {
        title: "This does not work",
        text: FOREIGN,
        is_error: true,
        place,
    };
    shown(page(StatusCode::FORBIDDEN, &message))
}

fn shown(page: Result<Response, ApiError>) -> Refused {
    page.map_or_else(Refused::Failed, |page| Refused::Shown(Box::new(page)))
}
