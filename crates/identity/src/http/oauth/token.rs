//! The endpoints that clients call directly, with errors as in RFC 6749 §5.2.

use auspex_kernel::error::Envelope;
use auspex_kernel::{ApiError, Peer, RequestId};
use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::TAG;
use super::error::OAuthError;
use super::form::{self, Form, form};
use crate::audit::Actor;
use crate::http::Handles;
use crate::oauth::{
    Clients, Introspection, IssuedTokens, Parameters, Presented, TokenEndpoint, TokenError,
    TokenResponse, UserInfo, decode,
};
use crate::types::client::{Client, GrantType};

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new()
        .routes(routes!(exchange_token))
        .routes(routes!(introspect_token))
        .routes(routes!(revoke_token))
        .routes(routes!(get_userinfo, post_userinfo))
}

form! {
    /// The parameters of a token request. A client authenticates by HTTP Basic or in the form.
    struct TokenForm {
        grant_type: required {"enum": grant_types()},
        /// For `authorization_code`, like the next two parameters
        code: optional {},
        /// That of the authorization request
        redirect_uri: optional {},
        /// RFC 7636
        code_verifier: optional {"minLength": 43, "maxLength": 128},
        /// For `urn:ietf:params:oauth:grant-type:device_code`
        device_code: optional {},
        /// For `refresh_token`
        refresh_token: optional {},
        /// Fewer scopes, space-separated
        scope: optional {},
        /// For public clients, and for those that do not use HTTP Basic
        client_id: optional {},
        client_secret: optional {"format": "password"},
    }
}

fn grant_types() -> Vec<&'static str> {
    GrantType::ALL.iter().map(|kind| kind.as_str()).collect()
}

form! {
    /// A token to introspect or revoke.
    struct TokenQuestionForm {
        token: required {},
        /// Not needed
        token_type_hint: optional {},
        /// For public clients, and for those that do not use HTTP Basic
        client_id: optional {},
        client_secret: optional {"format": "password"},
    }
}

/// Get tokens
///
/// The token endpoint (RFC 6749 §3.2). A code can be exchanged once within a minute; if it is sent
/// again, the tokens it gave are revoked. While nobody has decided about a device, the error is
/// `authorization_pending`, or `slow_down` for one that asks too often.
#[utoipa::path(
    post, path = "/oauth2/token", tag = TAG, security(()),
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Tokens", body = TokenResponse),
        (status = 400, description = "Refused", body = OAuthError<'_>),
        (status = 401, description = "The client did not authenticate", body = OAuthError<'_>),
        (status = 413, description = "The form is too long", body = OAuthError<'_>),
        (status = 429, description = "Too many requests", body = OAuthError<'_>),
        (status = 503, description = "The database is away", body = OAuthError<'_>),
    )
)]
async fn exchange_token(
    State(clients): State<Clients>,
    State(endpoint): State<TokenEndpoint>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let actor = Actor::anonymous(peer, Some(&request_id));
    let (client, parameters) = read::<TokenForm>(&clients, &actor, &headers, body).await?;
    let tokens = endpoint.exchange(&actor, &client, &parameters).await?;
    Ok(uncached(tokens))
}

/// Introspect a token
///
/// RFC 7662. For confidential clients and their own tokens; every other token is `active: false`.
#[utoipa::path(
    post, path = "/oauth2/introspect", tag = TAG, security(()),
    request_body(content = TokenQuestionForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Whether it is active, and for what", body = Introspection),
        (status = 400, description = "Refused", body = OAuthError<'_>),
        (status = 401, description = "The client did not authenticate", body = OAuthError<'_>),
        (status = 413, description = "The form is too long", body = OAuthError<'_>),
        (status = 429, description = "Too many requests", body = OAuthError<'_>),
        (status = 503, description = "The database is away", body = OAuthError<'_>),
    )
)]
async fn introspect_token(
    State(clients): State<Clients>,
    State(tokens): State<IssuedTokens>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let actor = Actor::anonymous(peer, Some(&request_id));
    let (client, token) = question(&clients, &actor, &headers, body).await?;
    // Anybody could claim to be a public client and ask about tokens that they found.
    if client.public {
        return Err(TokenError::InvalidClient.into());
    }
    let worth = tokens.introspect(&client, &token).await;
    let worth = worth.map_err(TokenError::from)?;
    Ok(uncached(worth))
}

/// Revoke a token
///
/// RFC 7009, for a client's own tokens. Revoking a refresh token ends everything that came from the
/// same login. Revoking an access token ends only that token; its refresh token still gives the next
/// one. A token that is unknown or has ended is none to revoke: 200. One of another client is refused and goes
/// on (`invalid_grant`).
#[utoipa::path(
    post, path = "/oauth2/revoke", tag = TAG, security(()),
    request_body(content = TokenQuestionForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token is not valid, or no longer"),
        (status = 400, description = "Refused", body = OAuthError<'_>),
        (status = 401, description = "The client did not authenticate", body = OAuthError<'_>),
        (status = 413, description = "The form is too long", body = OAuthError<'_>),
        (status = 429, description = "Too many requests", body = OAuthError<'_>),
        (status = 503, description = "The database is away", body = OAuthError<'_>),
    )
)]
async fn revoke_token(
    State(clients): State<Clients>,
    State(tokens): State<IssuedTokens>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let actor = Actor::anonymous(peer, Some(&request_id));
    let (client, token) = question(&clients, &actor, &headers, body).await?;
    tokens.revoke(&actor, &client, &token).await?;
    Ok(StatusCode::OK.into_response())
}

/// Show the user of an access token
///
/// OpenID Connect Core §5.3: `sub`, and what the scopes `profile`, `email` and `roles` tell, as in
/// the tokens.
#[utoipa::path(
    get, path = "/oauth2/userinfo", tag = TAG,
    security(("api_key" = []), ("bearer" = [])),
    responses(
        (status = 200, description = "Claims", body = UserInfo),
        (status = 401, description = "No valid token", body = Envelope),
        (status = 403, description = "The token has no scope `openid`", body = Envelope),
        (status = 429, description = "Too many requests", body = Envelope),
        (status = 503, description = "The database is away", body = Envelope),
    )
)]
async fn get_userinfo(
    State(tokens): State<IssuedTokens>,
    headers: HeaderMap,
) -> Result<Json<UserInfo>, ApiError> {
    userinfo(&tokens, &headers).await
}

/// Show the user of an access token
///
/// The same as GET; the token is in `Authorization` here too.
#[utoipa::path(
    post, path = "/oauth2/userinfo", tag = TAG,
    security(("api_key" = []), ("bearer" = [])),
    responses(
        (status = 200, description = "Claims", body = UserInfo),
        (status = 401, description = "No valid token", body = Envelope),
        (status = 403, description = "The token has no scope `openid`", body = Envelope),
        (status = 429, description = "Too many requests", body = Envelope),
        (status = 503, description = "The database is away", body = Envelope),
    )
)]
async fn post_userinfo(
    State(tokens): State<IssuedTokens>,
    headers: HeaderMap,
) -> Result<Json<UserInfo>, ApiError> {
    userinfo(&tokens, &headers).await
}

async fn userinfo(tokens: &IssuedTokens, headers: &HeaderMap) -> Result<Json<UserInfo>, ApiError> {
    // The edge has checked the credential; whether it is a token with `openid` is checked here.
    let known = match presented_token(headers) {
        Some(token) => tokens.user_info(token).await?,
        None => None,
    };
    let challenge = "Bearer realm=\"auspex\", error=\"insufficient_scope\", scope=\"openid\"";
    known.map(Json).ok_or_else(|| {
        ApiError::forbidden("this needs an access token with the scope openid").with_header(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(challenge),
        )
    })
}

/// The token or key of a request that the edge has let in.
pub(in crate::http) fn presented_token(headers: &HeaderMap) -> Option<&[u8]> {
    let authorization = headers
        .get(header::AUTHORIZATION)
        .map(HeaderValue::as_bytes);
    let bearer = authorization.and_then(|value| value.split_at_checked("Bearer ".len()));
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    let key = headers.get("x-api-key").map(HeaderValue::as_bytes);
    bearer.map(|(_, token)| token.trim_ascii()).or(key)
}

/// A client that has authenticated, and its parameters.
pub(super) async fn read<F: Form>(
    clients: &Clients,
    actor: &Actor,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Client, Parameters), ApiError> {
    let parameters = form::read::<F>(headers, body)
        .await?
        .map_err(|malformed| TokenError::Refused("invalid_request", malformed.as_str()))?;
    let presented = presented(headers, &parameters)?;
    let client = clients.authenticate(actor, &presented).await?;
    Ok((client, parameters))
}

/// The same, with the token that it asks about.
async fn question(
    clients: &Clients,
    actor: &Actor,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Client, String), ApiError> {
    let (client, parameters) = read::<TokenQuestionForm>(clients, actor, headers, body).await?;
    let missing = TokenError::Refused("invalid_request", "token is missing");
    let token = parameters.get("token").ok_or(missing)?.to_owned();
    Ok((client, token))
}

/// The credentials of the client: by HTTP Basic or in the form, not both (RFC 6749 §2.3).
fn presented(headers: &HeaderMap, parameters: &Parameters) -> Result<Presented, TokenError> {
    let refused = |description| TokenError::Refused("invalid_request", description);
    let in_form = parameters.get("client_id").map(str::to_owned);
    let form_secret = parameters.get("client_secret").map(str::to_owned);
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let Some(line) = lines.next() else {
        let client_id = in_form.ok_or(TokenError::InvalidClient)?;
        return Ok(Presented {
            client_id,
            secret: form_secret,
        });
    };
    if form_secret.is_some() || lines.next().is_some() {
        return Err(refused("the client must prove who it is in one way"));
    }
    let (client_id, secret) = basic(line).ok_or(TokenError::InvalidClient)?;
    if in_form.is_some_and(|other| other != client_id) {
        return Err(refused("client_id differs from the one in Authorization"));
    }
    Ok(Presented {
        client_id,
        // Some libraries send Basic with nothing after the colon for a client that has no secret.
        secret: Some(secret).filter(|secret| !secret.is_empty()),
    })
}

/// Id and secret are each form-encoded before they are joined (RFC 6749 §2.3.1).
fn basic(line: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = line.as_bytes().split_at_checked("Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let text = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = text.iter().position(|byte| *byte == b':')?;
    let (id, secret) = (decode(&text[..colon]), decode(&text[colon + 1..]));
    Some((id.ok()?, secret.ok()?))
}

/// An answer that no cache stores.
pub(super) fn uncached(answer: impl Serialize) -> Response {
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
    ];
    (headers, Json(answer)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> HeaderValue {
        HeaderValue::try_from(format!("basic {}", STANDARD.encode(text))).unwrap()
    }

    #[test]
    fn both_parts_of_basic_are_decoded() {
        let pair = |text| basic(&encoded(text));
        assert_eq!(
            pair("a%3Ab:c+d%25:e"),
            Some(("a:b".into(), "c d%:e".into()))
        );
        assert_eq!(pair("no colon"), None);
        assert_eq!(pair("a:%zz"), None);
        assert_eq!(basic(&HeaderValue::from_static("Bearer x")), None);
        assert_eq!(basic(&HeaderValue::from_static("Basic !")), None);
        assert_eq!(basic(&HeaderValue::from_static("Basic")), None);
    }

    #[test]
    fn two_proofs_are_one_too_many() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, encoded("a:b"));
        let presented = |form: &str| {
            let parameters = Parameters::parse(form.as_bytes()).unwrap();
            let presented = super::presented(&headers, &parameters);
            presented.map(|presented| presented.client_id).ok()
        };
        assert_eq!(presented(""), Some("a".into()));
        assert_eq!(presented("client_id=a"), Some("a".into()));
        assert_eq!(presented("client_id=x"), None);
        assert_eq!(presented("client_secret=b"), None);
    }
}
