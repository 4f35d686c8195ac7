//! People who log in, and what they send.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, Version};
use auspex_identity::{Expected, Identity, NewUser, RoleSet, UserChange};
use auspex_kernel::{ApiError, Authenticate as _, Caller, Credential, ScopeSet, Verdict};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::OPERATOR;
use crate::ask::{Answer, PEER, as_key, ask};
use crate::store::Store;

pub(crate) const PASSWORD: &str = "correct horse battery";

/// Adds a user called `name`, which is also the username, with [`PASSWORD`]. Returns the id.
pub(crate) async fn add(identity: &Identity, name: &str, roles: &str) -> String {
    let roles = roles.split_whitespace().map(|role| role.parse().unwrap());
    let new = NewUser {
        name: name.into(),
        email: format!("{name}@example.org"),
        username: Some(name.into()),
        roles: roles.collect::<RoleSet>(),
        password: Some(PASSWORD.into()),
        ..NewUser::default()
    };
    let user = identity.users().create(&OPERATOR, new).await.unwrap();
    user.id.to_string()
}

/// Changes the user as an administrator does.
pub(crate) async fn change(identity: &Identity, id: &str, change: UserChange) {
    let changed = identity
        .users()
        .update(&OPERATOR, id, change, Expected::Any);
    changed.await.unwrap();
}

pub(crate) async fn disable(identity: &Identity, id: &str) {
    let disabled = UserChange {
        disabled: Some(true),
        ..UserChange::default()
    };
    change(identity, id, disabled).await;
}

/// The hash of a password, of the least parameters that are taken or weaker ones.
pub(crate) fn hash(password: &str, memory_kib: u32) -> String {
    let params = Params::new(memory_kib, 2, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password_with_salt(password.as_bytes(), b"salt of 16 bytes");
    hash.unwrap().to_string()
}

/// Sends a request to a route that anybody may call.
pub(crate) async fn post(identity: &Arc<Identity>, path: &str, body: Value) -> Answer {
    let nobody = as_key("NOBODY", ScopeSet::default());
    ask(identity, &nobody, "POST", path, &body.to_string()).await
}

pub(crate) async fn log_in(identity: &Arc<Identity>, name: &str, password: &str) -> Answer {
    let body = json!({"username": name, "password": password});
    post(identity, "/v1/auth/login", body).await
}

pub(crate) async fn refresh(identity: &Arc<Identity>, token: &str) -> Answer {
    let body = json!({"refresh_token": token});
    post(identity, "/v1/auth/refresh", body).await
}

/// Logs out by an access token or key, or is refused as by the edge; the status.
pub(crate) async fn log_out(identity: &Arc<Identity>, store: &Store, token: &str) -> u16 {
    let Some(caller) = bearer(identity, store, token) else {
        return 401;
    };
    let answer = ask(identity, &caller, "POST", "/v1/auth/logout", "");
    answer.await.status
}

/// Who calls by a token or key, from memory alone.
pub(crate) fn bearer(identity: &Identity, store: &Store, token: &str) -> Option<Arc<Caller>> {
    known(
        identity
            .authenticator()
            .authenticate(Credential::Token(token.as_bytes()), store.clock.now()),
    )
}

pub(crate) fn bearer_scopes(identity: &Identity, store: &Store, token: &str) -> Option<ScopeSet> {
    bearer(identity, store, token).map(|caller| caller.scopes)
}

fn known(verdict: Verdict) -> Option<Arc<Caller>> {
    match verdict {
        Verdict::Known(caller) => Some(caller),
        Verdict::Refused | Verdict::Unverified => None,
    }
}

/// Who calls, as the edge finds out.
pub(crate) async fn caller_by(
    identity: &Arc<Identity>,
    store: &Store,
    credential: Credential<'_>,
) -> Result<Arc<Caller>, ApiError> {
    match identity
        .authenticator()
        .authenticate(credential, store.clock.now())
    {
        Verdict::Known(caller) => Ok(caller),
        Verdict::Refused => Err(ApiError::unauthenticated("refused")),
        Verdict::Unverified => {
            identity
                .authenticator()
                .clone()
                .verify(credential, PEER.0)
                .await
        }
    }
}

/// What HTTP Basic sends after the scheme.
pub(crate) fn basic(name: &str, password: &str) -> Vec<u8> {
    STANDARD.encode(format!("{name}:{password}")).into_bytes()
}

/// Whether name and password are known without a look at the database.
pub(crate) fn remembers(identity: &Identity, store: &Store, basic: &[u8]) -> bool {
    known(
        identity
            .authenticator()
            .authenticate(Credential::Basic(basic), store.clock.now()),
    )
    .is_some()
}

/// A part of a token.
pub(crate) fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}
