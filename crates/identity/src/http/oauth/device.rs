//! Where devices begin, and the page on which people allow them (RFC 8628).

use auspex_kernel::{ApiError, Peer, RequestId};
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::TAG;
use super::error::OAuthError;
use super::form::form;
use super::own_form::Refused;
use super::pages::{DeviceConsentPage, DevicePage, MessagePage, UNREADABLE, page, refusal};
use super::token::{read, uncached};
use super::views::{Notice, Onward, Pages, add_cookie};
use crate::audit::Actor;
use crate::error::IdentityError;
use crate::http::Handles;
use crate::oauth::{
    Clients, Decided, DeviceAuthorization, Devices, LoginSession, Parameters, Purpose, Sealed,
    WaitingDevice,
};
use crate::types::user_code::UserCode;

const UNKNOWN: &str = "No program waits with this code. It may be mistyped, or older than ten minutes: then let the \
    program show another.";

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new()
        .routes(routes!(authorize_device))
        .routes(routes!(show_device, decide_device))
}

form! {
    /// What a device begins with. A client authenticates by HTTP Basic or in the form.
    struct DeviceForm {
        /// Space-separated; all of the client's by default
        scope: optional {},
        /// For public clients, and for those that do not use HTTP Basic
        client_id: optional {},
        client_secret: optional {"format": "password"},
    }
}

form! {
    /// The fields of the page that asks about a device.
    struct DeviceConsentForm {
        /// From the page
        csrf_token: required {},
        /// From the page
        request: required {},
        decision: required {"enum": ["allow", "deny"]},
    }
}

/// Begin a login on a device without a browser
///
/// RFC 8628, for clients registered with its grant type. Show the user the address and the code, and ask
/// `POST /oauth2/token` with the device code, every `interval` seconds, until they have decided.
#[utoipa::path(
    post, path = "/oauth2/device_authorization", tag = TAG, security(()),
    request_body(content = DeviceForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The codes", body = DeviceAuthorization),
        (status = 400, description = "Refused", body = OAuthError<'_>),
        (status = 401, description = "The client did not authenticate", body = OAuthError<'_>),
        (status = 413, description = "The form is too long", body = OAuthError<'_>),
        (status = 429, description = "Too many requests", body = OAuthError<'_>),
        (status = 503, description = "Too many devices wait", body = OAuthError<'_>),
    )
)]
async fn authorize_device(
    State(clients): State<Clients>,
    State(devices): State<Devices>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let actor = Actor::anonymous(peer, Some(&request_id));
    let (client, parameters) = read::<DeviceForm>(&clients, &actor, &headers, body).await?;
    Ok(uncached(devices.begin(&client, &parameters).await?))
}

/// Show the page for devices
///
/// Whoever is logged in enters the code that a program shows, or comes with it, and sees which program
/// asks for what. Whoever is not logs in first.
#[utoipa::path(
    get, path = "/oauth2/device", tag = TAG, security(()),
    params(("user_code" = Option<String>, Query, description = "That the program shows, in any case, with any dashes and blanks")),
    responses(
        (status = 200, description = "A page that asks for the code, for a decision or for the password", body = String, content_type = "text/html"),
        (status = 400, description = "A page: the address cannot be read", body = String, content_type = "text/html"),
        (status = 404, description = "The page again: no program waits with this code", body = String, content_type = "text/html"),
        (status = 429, description = "A page: too many requests or wrong codes", body = String, content_type = "text/html"),
        (status = 503, description = "A page: the database is away", body = String, content_type = "text/html"),
    )
)]
async fn show_device(
    State(pages): State<Pages>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let Ok(parameters) = Parameters::parse(uri.query().unwrap_or_default().as_bytes()) else {
        return refusal(StatusCode::BAD_REQUEST, UNREADABLE);
    };
    let written = parameters.get("user_code");
    let code = written.and_then(UserCode::parse);
    let Some(session) = pages.browsers.session(&headers).await? else {
        let onward = Onward::Device(code);
        return pages.login_page(&headers, &onward, None, Notice::default());
    };
    let Some(code) = code else {
        let wrong = written.is_some().then_some(UNKNOWN);
        return device_page(StatusCode::OK, written, wrong);
    };
    let actor = Actor::anonymous(peer, Some(&request_id));
    match pages.devices.find(&actor, &session, &code).await {
        Ok(Some(device)) => pages.device_consent_page(&headers, &session, &device),
        Ok(None) => device_page(
            StatusCode::NOT_FOUND,
            Some(&code.to_string()),
            Some(UNKNOWN),
        ),
        Err(IdentityError::TooManyAttempts(retry)) => {
            let seconds = retry.seconds();
            let text = format!("Too many codes were wrong. Try again in {seconds} seconds.");
            let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, &text)?;
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, seconds.into());
            Ok(response)
        }
        Err(error) => Err(error.into()),
    }
}

/// Allow or deny a device
#[utoipa::path(
    post, path = "/oauth2/device", tag = TAG, security(()),
    request_body(content = DeviceConsentForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "A page: done", body = String, content_type = "text/html"),
        (status = 303, description = "Somebody else is logged in now, and is asked in their turn"),
        (status = 400, description = "A page: the form cannot be read", body = String, content_type = "text/html"),
        (status = 403, description = "A page: the form is not from a page of this browser", body = String, content_type = "text/html"),
        (status = 409, description = "A page: the program no longer waits", body = String, content_type = "text/html"),
        (status = 429, description = "A page: too many requests", body = String, content_type = "text/html"),
        (status = 503, description = "A page: the database is away", body = String, content_type = "text/html"),
    )
)]
async fn decide_device(
    State(pages): State<Pages>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let form = pages
        .read_form::<DeviceConsentForm>(&headers, body, &[Purpose::Device])
        .await?;
    let allowed = form.decision()?;
    let code = UserCode::parse(&form.sealed.query);
    let session = pages.session_of(&headers, &form).await?;
    let (Some(session), Some(code)) = (session, &code) else {
        return Ok(pages.go_on(&form.place())?);
    };
    let actor = Actor::anonymous(peer, Some(&request_id));
    let decided = pages
        .devices
        .decide(&actor, &session, code, &form.sealed.scopes, allowed);
    let (status, title, text) = match decided.await? {
        Decided::Allowed => (
            StatusCode::OK,
            "The program is allowed",
            "It goes on within a few seconds. You can close this page. At /oauth2/login you see which programs \
             act for you, and end that.",
        ),
        Decided::Denied => (
            StatusCode::OK,
            "The program is denied",
            "It gets nothing. You can close this page.",
        ),
        Decided::Over => (
            StatusCode::CONFLICT,
            "Nothing waits for this",
            "The program no longer waits, has its answer, or your login has changed. Begin again in the program.",
        ),
    };
    let message = MessagePage {
        title,
        text,
        is_error: status != StatusCode::OK,
        place: None,
    };
    Ok(page(status, &message)?)
}

/// Asks for the code.
fn device_page(
    status: StatusCode,
    code: Option<&str>,
    notice: Option<&str>,
) -> Result<Response, ApiError> {
    let shown = DevicePage {
        code: code.unwrap_or_default(),
        notice,
    };
    page(status, &shown)
}

impl Pages {
    /// Asks whether a device may have what it asks for.
    fn device_consent_page(
        &self,
        headers: &HeaderMap,
        session: &LoginSession,
        device: &WaitingDevice,
    ) -> Result<Response, ApiError> {
        let user = &session.user;
        let (csrf_token, set_cookie) = self.browsers.csrf_token(headers, user.id.as_str())?;
        let carried = Sealed {
            query: device.user_code.to_string(),
            scopes: device.offered.to_string(),
            holder: user.id.to_string(),
        };
        let asked = DeviceConsentPage {
            client: &device.client.name,
            public: device.client.public,
            user: &user.name,
            code: &device.user_code.to_string(),
            scopes: device.client.in_words(device.offered),
            lacking: device.lacking.in_words(),
            csrf_token: &csrf_token,
            request: &self.seals.seal(Purpose::Device, &carried),
        };
        let mut response = page(StatusCode::OK, &asked)?;
        add_cookie(&mut response, set_cookie);
        Ok(response)
    }
}
