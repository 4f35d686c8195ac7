//! People who log in, and what they send.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, Version};
use auspex_identity::Identity;
use auspex_kernel::{
    ApiError, Authenticate as _, Caller, Credential, CursorKey, Peer, RequestId, ScopeSet, Verdict,
};
use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tower_service::Service as _;

use crate::store::{Store, execute};

pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) json: Value,
    pub(crate) error: Option<ApiError>,
}

impl Answer {
    pub(crate) fn text(&self, name: &str) -> String {
        let text = self.json[name].as_str();
        text.unwrap_or_else(|| panic!("no {name}: {:?}", self.error))
            .to_owned()
    }
}

/// Sends a request to a route that anybody may call.
pub(crate) async fn post(identity: &Arc<Identity>, path: &str, body: Value) -> Answer {
    send(identity, None, path, body).await
}

async fn send(
    identity: &Arc<Identity>,
    caller: Option<Arc<Caller>>,
    path: &str,
    body: Value,
) -> Answer {
    let mut request = Request::post(path)
        .extension(Peer(PEER))
        .extension(RequestId::generate());
    if let Some(caller) = caller {
        request = request.extension(caller);
    }
    let request = request.body(Body::from(body.to_string())).unwrap();
    let mut router = Arc::clone(identity).router(CursorKey([7; 32]));
    let response = router.call(request).await.unwrap();
    let (mut parts, body) = response.into_parts();
    let bytes = auspex_kernel::body::read(body).await.unwrap();
    Answer {
        status: parts.status.as_u16(),
        error: parts.extensions.remove::<ApiError>(),
        json: serde_json::from_slice(&bytes).unwrap_or_default(),
    }
}

pub(crate) async fn log_in(identity: &Arc<Identity>, name: &str, password: &str) -> Answer {
    let body = json!({"username": name, "password": password});
    post(identity, "/v1/auth/login", body).await
}

pub(crate) async fn refresh(identity: &Arc<Identity>, token: &str) -> Answer {
    let body = json!({"refresh_token": token});
    post(identity, "/v1/auth/refresh", body).await
}

/// Logs out by an access token, or is refused as the edge would.
pub(crate) async fn log_out(identity: &Arc<Identity>, store: &Store, token: &str) -> u16 {
    let Some(caller) = bearer(identity, store, token) else {
        return 401;
    };
    let answer = send(identity, Some(caller), "/v1/auth/logout", json!({})).await;
    answer.status
}

/// Who calls by a token, from memory alone.
pub(crate) fn bearer(identity: &Identity, store: &Store, token: &str) -> Option<Arc<Caller>> {
    known(identity.authenticate(Credential::Token(token.as_bytes()), store.clock.now()))
}

pub(crate) fn bearer_scopes(identity: &Identity, store: &Store, token: &str) -> Option<ScopeSet> {
    bearer(identity, store, token).map(|caller| caller.scopes)
}

pub(crate) fn known(verdict: Verdict) -> Option<Arc<Caller>> {
    match verdict {
        Verdict::Known(caller) => Some(caller),
        Verdict::Refused | Verdict::Unverified => None,
    }
}

/// What HTTP Basic sends after the scheme.
pub(crate) fn basic(name: &str, password: &str) -> Vec<u8> {
    STANDARD.encode(format!("{name}:{password}")).into_bytes()
}

/// Who calls by HTTP Basic, as the edge finds out.
pub(crate) async fn basic_caller(
    identity: &Identity,
    store: &Store,
    text: &[u8],
) -> Result<Arc<Caller>, ApiError> {
    let credential = Credential::Basic(text);
    match identity.authenticate(credential, store.clock.now()) {
        Verdict::Known(caller) => Ok(caller),
        Verdict::Refused => Err(ApiError::unauthenticated("refused")),
        Verdict::Unverified => identity.verify(credential, PEER).await,
    }
}

/// The same from memory alone.
pub(crate) fn remembers_basic(identity: &Identity, store: &Store, text: &[u8]) -> bool {
    known(identity.authenticate(Credential::Basic(text), store.clock.now())).is_some()
}

/// The hash of a password, of the least parameters that are taken or weaker ones.
pub(crate) fn hash(password: &str, memory_kib: u32) -> String {
    let params = Params::new(memory_kib, 2, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password_with_salt(password.as_bytes(), b"salt of 16 bytes");
    hash.unwrap().to_string()
}

/// A part of a token.
pub(crate) fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Adds a user called `name`, who is also his name to log in, with [`PASSWORD`].
pub(crate) async fn add(store: &Store, identity: &Identity, name: &str, roles: &str) -> String {
    let id = insert(store, name, roles).await;
    identity.reload().await.unwrap();
    id
}

/// The same, as another process would.
pub(crate) async fn insert(store: &Store, name: &str, roles: &str) -> String {
    let id = format!("{:0>16}", name.to_uppercase());
    let sql = format!(
        "INSERT INTO identity_users (id, name, email, email_key, username, username_key, roles, \
         password_hash, created_at, updated_at, login_count, version) VALUES ('{id}', '{name}', \
         '{name}@example.org', '{name}@example.org', '{name}', '{name}', '{roles}', '{}', 0, 0, 0, 1)",
        hash(PASSWORD, 19_456),
    );
    write(store, &id, &sql).await;
    id
}

/// Sets a column of a user.
pub(crate) async fn set(store: &Store, identity: &Identity, id: &str, column: &str, value: &str) {
    let sql = format!("UPDATE identity_users SET {column} = {value} WHERE id = '{id}'");
    write(store, id, &sql).await;
    identity.reload().await.unwrap();
}

/// Removes a user.
pub(crate) async fn remove(store: &Store, identity: &Identity, id: &str) {
    let sql = format!("DELETE FROM identity_users WHERE id = '{id}'");
    write(store, id, &sql).await;
    identity.reload().await.unwrap();
}

/// Changes a user by SQL, and tells every process.
async fn write(store: &Store, id: &str, sql: &str) {
    let sql = format!(
        "{sql}; UPDATE identity_key_sets SET generation = generation + 1; \
         INSERT INTO identity_changes (generation, kind, subject, at) \
         SELECT generation, 'user', '{id}', 0 FROM identity_key_sets",
    );
    execute(&store.db().await, sql).await;
}
