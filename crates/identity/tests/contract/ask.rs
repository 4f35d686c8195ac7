//! Asks the routes as the edge does, without one.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use auspex_identity::{Actor, Identity, User};
use auspex_kernel::id::KeyId;
use auspex_kernel::{ApiError, Caller, CursorKey, Peer, RequestId, ScopeSet, Subject};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use serde_json::Value;
use tower_service::Service as _;

pub(crate) const PEER: Peer = Peer(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
    pub(crate) error: Option<ApiError>,
}

impl Answer {
    /// A text of the answer's JSON.
    pub(crate) fn text(&self, name: &str) -> String {
        let text = self.json[name].as_str();
        let text = text.unwrap_or_else(|| panic!("no {name}: {:?}", self.error));
        text.to_owned()
    }
}

/// A user with all the rights of their roles.
pub(crate) fn as_user(user: &User) -> Caller {
    Caller {
        subject: Subject::User(user.id.clone()),
        scopes: user.roles.scopes(),
        quota_key: 1,
        expires_at: None,
        user_id: Some(user.id.clone()),
        session_id: None,
        client_id: None,
    }
}

/// Somebody with these scopes behind whom there is nothing that could end.
pub(crate) fn as_operator(scopes: ScopeSet) -> Caller {
    Caller {
        subject: Subject::Operator,
        ..as_key("NONE", scopes)
    }
}

pub(crate) fn as_key(id: &str, scopes: ScopeSet) -> Caller {
    Caller {
        subject: Subject::Key(KeyId::from_stored(id)),
        scopes,
        quota_key: 2,
        expires_at: None,
        user_id: None,
        session_id: None,
        client_id: None,
    }
}

/// Who does what the caller does, for operations that have no route.
pub(crate) fn actor(caller: &Caller) -> Actor {
    Actor::caller(caller, PEER, None)
}

pub(crate) async fn ask(
    identity: &Arc<Identity>,
    caller: &Caller,
    method: &str,
    path: &str,
    body: &str,
) -> Answer {
    ask_with(identity, caller, method, path, body, &[]).await
}

pub(crate) async fn ask_with(
    identity: &Arc<Identity>,
    caller: &Caller,
    method: &str,
    path: &str,
    body: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let router = identity.router(CursorKey([7; 32]));
    ask_router(router, caller, method, path, body, headers).await
}

pub(crate) async fn ask_router(
    mut router: Router,
    caller: &Caller,
    method: &str,
    path: &str,
    body: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .extension(Arc::new(caller.clone()))
        .extension(PEER)
        .extension(RequestId::generate())
        .body(Body::from(body.to_owned()))
        .unwrap();
    let response = router.call(request).await.unwrap();
    let (mut parts, body) = response.into_parts();
    let bytes = auspex_kernel::body::read(body).await.unwrap();
    Answer {
        status: parts.status.as_u16(),
        error: parts.extensions.remove::<ApiError>(),
        headers: parts.headers,
        json: serde_json::from_slice(&bytes).unwrap_or_default(),
    }
}

/// The entries of a list from its first page to its last, by its `next` links.
pub(crate) async fn walk(identity: &Arc<Identity>, caller: &Caller, path: &str) -> Vec<Value> {
    let (mut found, mut next) = (Vec::new(), Some(path.to_owned()));
    while let Some(path) = next {
        let answer = ask(identity, caller, "GET", &path, "").await;
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.error);
        found.extend(answer.json["data"].as_array().unwrap().iter().cloned());
        let link = &answer.json["pagination"]["links"]["next"];
        next = link.as_str().map(str::to_owned);
    }
    found
}
