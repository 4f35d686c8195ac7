//! Keys that users make for themselves, without `keys:write`.

use std::sync::Arc;

use auspex_identity::{Identity, Role, UserChange};
use auspex_kernel::Caller;
use serde_json::json;

use crate::OPERATOR;
use crate::ask::{Answer, as_key, as_user, ask, walk};
use crate::person::{add, bearer, bearer_scopes, change, disable};
use crate::scopes;
use crate::store::Store;

contract! {
    whoever_may_predict_has_keys_of_their_own
    who_may_no_longer_predict_still_ends_their_keys
    nobody_reaches_the_keys_of_others
    a_key_makes_no_other_and_sees_itself_alone
    a_key_may_no_more_than_its_owner
}

const PATH: &str = "/v1/me/api-keys";

async fn make(identity: &Arc<Identity>, caller: &Caller, scopes: &[&str]) -> Answer {
    let body = json!({"name": "notebook", "scopes": scopes}).to_string();
    ask(identity, caller, "POST", PATH, &body).await
}

async fn user(identity: &Identity, name: &str, role: &str) -> Caller {
    let id = add(identity, name, role).await;
    as_user(&identity.users().get(&id).await.unwrap())
}

async fn whoever_may_predict_has_keys_of_their_own(store: &Store) {
    let identity = store.identity().await;
    let ann = user(&identity, "ann", "data-scientist").await;
    let made = make(&identity, &ann, &["predict", "models:read"]).await;
    assert_eq!(made.status, 201, "{:?}", made.error);
    let one = format!("{PATH}/{}", made.text("id"));
    assert_eq!(made.headers["location"], one.as_str());
    assert_eq!(
        bearer_scopes(&identity, store, &made.text("key")),
        Some(scopes("predict models:read"))
    );
    let seen = ask(&identity, &ann, "GET", &one, "").await;
    assert_eq!((seen.status, seen.text("name")), (200, "notebook".into()));
    assert!(seen.json.get("key").is_none());

    let rotations = format!("{one}/rotations");
    let body = json!({"overlap_s": 0}).to_string();
    let rotated = ask(&identity, &ann, "POST", &rotations, &body).await;
    assert_eq!(rotated.status, 201, "{:?}", rotated.error);
    assert!(bearer(&identity, store, &made.text("key")).is_none());
    let key = rotated.text("key");
    assert!(bearer(&identity, store, &key).is_some());
    assert_eq!(walk(&identity, &ann, PATH).await.len(), 2);

    let next = format!("{PATH}/{}", rotated.text("id"));
    assert_eq!(ask(&identity, &ann, "DELETE", &next, "").await.status, 204);
    assert!(bearer(&identity, store, &key).is_none());

    for more in [
        &["metrics:read", "users:read"][..],
        &["keys:write"],
        &["audit:read"],
    ] {
        assert_eq!(make(&identity, &ann, more).await.status, 403, "{more:?}");
    }
    assert_eq!(make(&identity, &ann, &["metrics:read"]).await.status, 201);
}

async fn who_may_no_longer_predict_still_ends_their_keys(store: &Store) {
    let identity = store.identity().await;
    let ann = user(&identity, "ann", "data-scientist").await;
    let made = make(&identity, &ann, &["predict", "models:read"]).await;
    let one = format!("{PATH}/{}", made.text("id"));
    let id = ann.user_id.clone().unwrap().to_string();
    let demoted = UserChange {
        roles: Some([Role::Viewer].into_iter().collect()),
        ..UserChange::default()
    };
    change(&identity, &id, demoted).await;
    let ann = as_user(&identity.users().get(&id).await.unwrap());
    assert_eq!(walk(&identity, &ann, PATH).await.len(), 1);
    assert_eq!(ask(&identity, &ann, "GET", &one, "").await.status, 200);
    assert_eq!(ask(&identity, &ann, "DELETE", &one, "").await.status, 204);
    assert!(bearer(&identity, store, &made.text("key")).is_none());
}

async fn nobody_reaches_the_keys_of_others(store: &Store) {
    let identity = store.identity().await;
    let ann = user(&identity, "ann", "data-scientist").await;
    let made = make(&identity, &ann, &["predict"]).await;
    let one = format!("{PATH}/{}", made.text("id"));
    for (name, role) in [("bea", "service"), ("root", "admin")] {
        let other = user(&identity, name, role).await;
        assert_eq!(walk(&identity, &other, PATH).await, [0; 0]);
        for (method, path) in [
            ("GET", &one),
            ("DELETE", &one),
            ("POST", &format!("{one}/rotations")),
        ] {
            let refused = ask(&identity, &other, method, path, "").await;
            assert_eq!(refused.status, 404, "{method} by {name}");
        }
    }
    assert!(bearer(&identity, store, &made.text("key")).is_some());

    // Those who are no users have none.
    let nobodys = identity
        .keys()
        .create(&OPERATOR, "k", scopes("predict"), None);
    let nobodys = as_key(nobodys.await.unwrap().key.id.as_str(), scopes("predict"));
    let client = Caller {
        client_id: Some(auspex_kernel::id::ClientId::from_stored("C")),
        ..ann
    };
    for caller in [nobodys, client] {
        assert_eq!(make(&identity, &caller, &["predict"]).await.status, 403);
        let list = ask(&identity, &caller, "GET", PATH, "").await;
        assert_eq!(list.status, 403);
    }
}

async fn a_key_makes_no_other_and_sees_itself_alone(store: &Store) {
    let identity = store.identity().await;
    let ann = user(&identity, "ann", "data-scientist").await;
    let (leaked, other) = (
        make(&identity, &ann, &["predict"]).await,
        make(&identity, &ann, &["predict"]).await,
    );
    let key = bearer(&identity, store, &leaked.text("key")).unwrap();
    assert_eq!(make(&identity, &key, &["predict"]).await.status, 403);
    let seen = walk(&identity, &key, PATH).await;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0]["id"], leaked.json["id"]);
    let path = |of: &Answer| format!("{PATH}/{}", of.text("id"));
    let status = async |method, path: String| ask(&identity, &key, method, &path, "").await.status;
    assert_eq!(status("GET", path(&other)).await, 404);
    assert_eq!(status("DELETE", path(&other)).await, 404);
    let rotations = |of| path(of) + "/rotations";
    assert_eq!(status("POST", rotations(&other)).await, 404);
    assert_eq!(status("POST", rotations(&leaked)).await, 403);
    let mut denied = store.recorded("action", "outcome = 'denied'").await;
    denied.sort_unstable();
    assert_eq!(denied, ["key.create", "key.rotate"]);
    assert_eq!(status("DELETE", path(&leaked)).await, 204);
    assert!(bearer(&identity, store, &other.text("key")).is_some());

    // One that was given the right by an administrator may.
    let root = user(&identity, "root", "admin").await;
    let manager = make(&identity, &root, &["predict", "keys:write"]).await;
    let manager = bearer(&identity, store, &manager.text("key")).unwrap();
    assert_eq!(make(&identity, &manager, &["predict"]).await.status, 201);
    assert_eq!(
        make(&identity, &manager, &["users:write"]).await.status,
        403
    );
}

async fn a_key_may_no_more_than_its_owner(store: &Store) {
    let identity = store.identity().await;
    let ann = user(&identity, "ann", "data-scientist").await;
    let id = ann.user_id.clone().unwrap().to_string();
    let made = make(&identity, &ann, &["predict", "metrics:read"]).await;
    let key = made.text("key");
    let demoted = UserChange {
        roles: Some([Role::Viewer].into_iter().collect()),
        ..UserChange::default()
    };
    change(&identity, &id, demoted).await;
    assert_eq!(
        bearer_scopes(&identity, store, &key),
        Some(scopes("metrics:read"))
    );
    // The request had begun before the role was lost.
    assert_eq!(make(&identity, &ann, &["predict"]).await.status, 401);
    disable(&identity, &id).await;
    assert!(bearer(&identity, store, &key).is_none());
}
