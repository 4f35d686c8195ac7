//! API keys.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auspex_identity::{
    ApiKey, ClientDraft, GrantType, Identity, IdentityError, NewKey, NewUser, Role, User,
};
use auspex_kernel::Subject;
use auspex_kernel::db::Db;
use auspex_kernel::id::ClientId;
use auspex_kernel::{ApiError, Caller, Random, Scope, ScopeSet, Timestamp};
use proptest::prelude::*;
use serde_json::json;
use tracing::instrument::WithSubscriber;

use crate::ask::{actor, as_key, as_operator, as_user, ask, ask_with, walk};
use crate::store::{ISSUER, Store, config, execute};
use crate::{OPERATOR, START, caller, knows, scopes, soon, while_watching};

contract! {
    created_key_authenticates
    keys_are_known_after_a_restart
    damaged_keys_are_refused
    revoked_key_stops_at_once
    expired_key_is_rejected
    wrong_fields_are_named
    keys_are_revoked_by_name
    ambiguous_name_is_refused
    unknown_keys_are_not_found
    keys_are_listed_newest_first
    listed_keys_hold_no_secret
    watch_notices_other_processes
    watch_survives_database_errors
    bootstrap_makes_one_key
    bootstrap_makes_no_key_whose_secret_is_lost
    bootstrap_leaves_used_databases_alone
    migrations_run_at_once
    simultaneous_operations_are_all_in_force
    scopes_of_newer_versions_are_ignored
    a_key_belongs_to_who_makes_it
    no_key_reaches_further_than_its_maker
    a_rotated_key_works_on_for_its_overlap
    of_simultaneous_rotations_one_wins
    a_repeated_creation_gives_no_second_key
    no_key_outlives_what_made_it
    a_key_of_nobody_deals_with_itself_alone
    borrowed_rights_make_no_keys
    what_ends_makes_and_changes_no_clients
}

async fn created_key_authenticates(store: &Store) {
    let identity = store.identity().await;
    let new = identity
        .keys()
        .create(&OPERATOR, "batch", scopes("predict jobs:read"), None);
    let new = new.await.unwrap();
    let caller = caller(&identity, new.secret.expose(), START).unwrap();
    assert_eq!(caller.subject, Subject::Key(new.key.id.clone()));
    assert_eq!(caller.scopes, scopes("predict jobs:read"));
    assert_eq!(caller.expires_at, None);
    let other = identity
        .keys()
        .create(&OPERATOR, "batch", scopes("predict"), None);
    let other = other.await.unwrap();
    let other = self::caller(&identity, other.secret.expose(), START).unwrap();
    assert_ne!(caller.quota_key, other.quota_key);
}

async fn keys_are_known_after_a_restart(store: &Store) {
    let identity = store.identity().await;
    let new = identity
        .keys()
        .create(&OPERATOR, "kept", scopes("predict"), None);
    let new = new.await.unwrap();
    let first = caller(&*store.identity().await, new.secret.expose(), START);
    let second = caller(&*store.identity().await, new.secret.expose(), START);
    assert!(first.is_some());
    assert_eq!(first, second, "with the same subject and quota");
}

async fn damaged_keys_are_refused(store: &Store) {
    let identity = store.identity().await;
    let new = identity
        .keys()
        .create(&OPERATOR, "a", ScopeSet::all(), None)
        .await
        .unwrap();
    let other_store = Store::sqlite();
    let elsewhere = other_store.identity().await;
    let stranger = elsewhere
        .keys()
        .create(&OPERATOR, "b", ScopeSet::all(), None)
        .await
        .unwrap();

    let key = new.secret.expose();
    let refused = |token: &[u8]| assert!(caller(&identity, token, START).is_none(), "{token:?}");
    refused(stranger.secret.expose().as_bytes());
    refused(b"");
    refused(format!("{key} ").as_bytes());
    refused(format!("{}{}", &key[..33], &stranger.secret.expose()[33..]).as_bytes());
    for end in 0..key.len() {
        refused(&key.as_bytes()[..end]);
    }
    for bit in 0..8 * key.len() {
        let mut flipped = key.as_bytes().to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refused(&flipped);
    }
    assert!(knows(&identity, &new));
}

async fn revoked_key_stops_at_once(store: &Store) {
    let identity = store.identity().await;
    let new = identity
        .keys()
        .create(&OPERATOR, "a", scopes("predict"), None)
        .await
        .unwrap();
    let other = identity
        .keys()
        .create(&OPERATOR, "b", scopes("predict"), None)
        .await
        .unwrap();
    store.clock.advance(Duration::from_secs(1));
    let id = new.key.id.as_str();
    let revoked = identity.keys().revoke(&OPERATOR, id).await.unwrap();
    assert!(!knows(&identity, &new) && knows(&identity, &other));
    assert_eq!(revoked.revoked_at, Some(store.clock.now()));

    store.clock.advance(Duration::from_secs(1));
    let again = identity
        .keys()
        .revoke(&OPERATOR, &id.to_lowercase())
        .await
        .unwrap();
    assert_eq!(again, revoked, "the first time counts");

    // What another process revoked is out of force here when this one confirms it.
    let elsewhere = store.identity().await;
    elsewhere
        .keys()
        .revoke(&OPERATOR, other.key.id.as_str())
        .await
        .unwrap();
    identity
        .keys()
        .revoke(&OPERATOR, other.key.id.as_str())
        .await
        .unwrap();
    assert!(!knows(&identity, &other));
}

async fn expired_key_is_rejected(store: &Store) {
    let identity = store.identity().await;
    let end = Timestamp(START.0 + 60_000_000);
    let new = identity
        .keys()
        .create(&OPERATOR, "short", scopes("predict"), Some(end));
    let new = new.await.unwrap();
    let at = |now: Timestamp| caller(&identity, new.secret.expose(), now);
    assert_eq!(at(START).unwrap().expires_at, Some(end));
    store.clock.advance(Duration::from_micros(59_999_999));
    assert!(at(store.clock.now()).is_some());
    store.clock.advance(Duration::from_micros(1));
    assert!(at(store.clock.now()).is_none());
    identity.reload().await.unwrap();
    assert!(at(store.clock.now()).is_none());
}

async fn wrong_fields_are_named(store: &Store) {
    let identity = store.identity().await;
    let error = identity
        .keys()
        .create(&OPERATOR, " ", ScopeSet::default(), Some(START));
    let error = ApiError::from(error.await.unwrap_err());
    assert_eq!(error.status(), 422);
    let fields: Vec<&str> = error.details().iter().map(|e| e.field.as_str()).collect();
    assert_eq!(fields, ["name", "scopes", "expires_at"]);
    assert_eq!(identity.keys().list().await.unwrap(), []);
}

async fn keys_are_revoked_by_name(store: &Store) {
    let identity = store.identity().await;
    let old = identity
        .keys()
        .create(&OPERATOR, "ci", scopes("predict"), None)
        .await
        .unwrap();
    identity.keys().revoke(&OPERATOR, "ci").await.unwrap();
    assert!(!knows(&identity, &old));
    let new = identity
        .keys()
        .create(&OPERATOR, "ci", scopes("predict"), None)
        .await
        .unwrap();
    let revoked = identity.keys().revoke(&OPERATOR, "ci").await.unwrap();
    assert_eq!(revoked.id, new.key.id, "the one still in force is meant");
    assert!(!knows(&identity, &new));
    assert!(
        identity
            .keys()
            .revoke(&OPERATOR, "ci")
            .await
            .unwrap()
            .revoked_at
            .is_some()
    );
}

async fn ambiguous_name_is_refused(store: &Store) {
    let identity = store.identity().await;
    let one = identity
        .keys()
        .create(&OPERATOR, "twin", scopes("predict"), None)
        .await
        .unwrap();
    let two = identity
        .keys()
        .create(&OPERATOR, "twin", scopes("predict"), None)
        .await
        .unwrap();
    let error = identity.keys().revoke(&OPERATOR, "twin").await.unwrap_err();
    assert!(matches!(&error, IdentityError::KeyAmbiguous(ids) if ids.len() == 2));
    for new in [&one, &two] {
        assert!(error.to_string().contains(new.key.id.as_str()), "{error}");
        assert!(knows(&identity, new));
    }
    assert_eq!(ApiError::from(error).status(), 409);
    identity
        .keys()
        .revoke(&OPERATOR, one.key.id.as_str())
        .await
        .unwrap();
    assert!(!knows(&identity, &one) && knows(&identity, &two));
}

async fn unknown_keys_are_not_found(store: &Store) {
    let identity = store.identity().await;
    let new = identity
        .keys()
        .create(&OPERATOR, "a", scopes("predict"), None)
        .await
        .unwrap();
    let secret = new.secret.expose();
    for text in [
        "",
        "nobody",
        "0123456789ABCDEF",
        "a\0",
        &"x".repeat(5_000),
        secret,
    ] {
        let error = identity.keys().revoke(&OPERATOR, text).await.unwrap_err();
        assert!(matches!(error, IdentityError::KeyNotFound));
        assert!(!format!("{error} {error:?}").contains(secret));
        assert_eq!(ApiError::from(error).status(), 404);
    }
}

async fn keys_are_listed_newest_first(store: &Store) {
    let identity = store.identity().await;
    let mut made: Vec<ApiKey> = Vec::new();
    for name in ["one", "two", "three"] {
        let end = (name == "two").then_some(Timestamp(START.0 + 60_000_000));
        let new = identity
            .keys()
            .create(&OPERATOR, name, scopes("predict metrics:read"), end);
        made.insert(0, new.await.unwrap().key);
        store.clock.advance(Duration::from_micros(1));
    }
    made[2] = identity.keys().revoke(&OPERATOR, "one").await.unwrap();
    store.clock.advance(Duration::from_secs(120));
    assert_eq!(identity.keys().list().await.unwrap(), made);
}

async fn listed_keys_hold_no_secret(store: &Store) {
    let identity = store.identity().await;
    let new = identity
        .keys()
        .create(&OPERATOR, "a", scopes("predict"), None)
        .await
        .unwrap();
    let secret = new.secret.expose();
    let random_part = &secret[3..33];
    let list = identity.keys().list().await.unwrap();
    let caller = caller(&identity, secret, START);
    let shown = format!("{list:?} {new:?} {:?} {identity:?} {caller:?}", new.secret);
    assert!(shown.contains(new.key.id.as_str()));
    assert!(!shown.contains(random_part));

    let Some(folder) = &store.folder else { return };
    let mut bytes = 0;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        bytes += content.len();
        let mut windows = content.windows(random_part.len());
        assert!(!windows.any(|window| window == random_part.as_bytes()));
    }
    assert!(bytes > 0);
}

async fn watch_notices_other_processes(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    let new = there.keys().create(&OPERATOR, "a", scopes("predict"), None);
    let new = new.await.unwrap();
    assert!(!knows(&here, &new));
    while_watching(
        &here,
        Box::pin(async {
            soon("the new key", || knows(&here, &new)).await;
            there
                .keys()
                .revoke(&OPERATOR, new.key.id.as_str())
                .await
                .unwrap();
            soon("its revocation", || !knows(&here, &new)).await;
        }),
    )
    .await;
}

/// Collects log lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn count(&self, text: &str) -> usize {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(text)).count()
    }
}

async fn watch_survives_database_errors(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    let old = here
        .keys()
        .create(&OPERATOR, "old", scopes("predict"), None)
        .await
        .unwrap();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    let errors = async {
        let hide = "ALTER TABLE identity_key_sets RENAME TO hidden";
        execute(&store.db().await, hide.into()).await;
        soon("the error", || log.count("cannot be followed") == 1).await;
        // Two rounds more, which must not be logged.
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(knows(&here, &old), "the last snapshot stays in force");
        let show = "ALTER TABLE hidden RENAME TO identity_key_sets";
        execute(&store.db().await, show.into()).await;
        soon("its end", || log.count("followed again") == 1).await;
        there.keys().revoke(&OPERATOR, "old").await.unwrap();
        soon("the revocation", || !knows(&here, &old)).await;
        assert_eq!(log.count("cannot be followed"), 1);
    };
    while_watching(&here, errors)
        .with_subscriber(subscriber)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_tells_of_a_replaced_file() {
    let store = Store::sqlite();
    let (here, there) = (store.identity().await, store.identity().await);
    let new = here
        .keys()
        .create(&OPERATOR, "a", scopes("predict"), None)
        .await
        .unwrap();
    let folder = store.folder.as_ref().unwrap().path();
    let (file, moved) = (folder.join("auspex.db"), folder.join("moved.db"));
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let errors = async {
        std::fs::rename(&file, &moved).unwrap();
        soon("the removal", || log.count("replaced or removed") == 1).await;
        std::fs::write(&file, "another").unwrap();
        // Two rounds more, which must not be logged.
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(log.count("replaced or removed"), 1);
        assert_eq!(log.count("ERROR"), 1);
        assert!(
            here.keys().revoke(&OPERATOR, "a").await.is_err(),
            "it would be lost"
        );
        assert!(knows(&here, &new), "the last snapshot stays in force");

        std::fs::rename(&moved, &file).unwrap();
        soon("its end", || log.count("followed again") == 1).await;
        there.keys().revoke(&OPERATOR, "a").await.unwrap();
        soon("the revocation", || !knows(&here, &new)).await;
    };
    while_watching(&here, errors)
        .with_subscriber(subscriber)
        .await;
}

async fn bootstrap_makes_one_key(store: &Store) {
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (url, clock) = (store.url.clone(), store.clock.clone());
        starts.spawn(async move {
            let db = Db::open(&url).await.unwrap();
            auspex_kernel::migrate(&db).await.unwrap();
            Identity::migrate(&db).await.unwrap();
            let identity = Identity::open(db, clock, Random::system(), config(), ISSUER)
                .await
                .unwrap();
            (
                identity.keys().bootstrap(|_| Ok(())).await.unwrap(),
                identity,
            )
        });
    }
    let started = starts.join_all().await;
    let made: Vec<&NewKey> = started.iter().filter_map(|(key, _)| key.as_ref()).collect();
    let [admin] = made[..] else {
        panic!("{} keys", made.len())
    };
    for (_, identity) in &started {
        let listed = identity.keys().list().await.unwrap();
        assert_eq!(listed, std::slice::from_ref(&admin.key));
        let caller = caller(identity, admin.secret.expose(), START).unwrap();
        assert_eq!(caller.scopes, ScopeSet::all());
    }
}

async fn bootstrap_makes_no_key_whose_secret_is_lost(store: &Store) {
    let identity = store.identity().await;
    let full = |_: &auspex_identity::Secret| Err(std::io::Error::other("disk full"));
    let error = identity.keys().bootstrap(full).await.unwrap_err();
    assert!(error.to_string().contains("disk full"), "{error}");
    assert!(identity.keys().list().await.unwrap().is_empty());
    let new = identity.keys().bootstrap(|_| Ok(())).await.unwrap();
    assert!(new.is_some());
}

async fn bootstrap_leaves_used_databases_alone(store: &Store) {
    let identity = store.identity().await;
    identity
        .keys()
        .create(&OPERATOR, "only", scopes("predict"), None)
        .await
        .unwrap();
    assert!(
        identity
            .keys()
            .bootstrap(|_| Ok(()))
            .await
            .unwrap()
            .is_none()
    );
    identity.keys().revoke(&OPERATOR, "only").await.unwrap();
    assert!(
        identity
            .keys()
            .bootstrap(|_| Ok(()))
            .await
            .unwrap()
            .is_none()
    );
}

async fn migrations_run_at_once(store: &Store) {
    let mut processes = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let url = store.url.clone();
        processes.spawn(async move {
            let db = Db::open(&url).await.unwrap();
            Identity::migrate(&db).await.unwrap();
            Identity::migrate(&db).await.unwrap();
        });
    }
    processes.join_all().await;
    let identity = store.identity().await;
    assert!(
        identity
            .keys()
            .bootstrap(|_| Ok(()))
            .await
            .unwrap()
            .is_some()
    );
}

async fn simultaneous_operations_are_all_in_force(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    let mut operations = tokio::task::JoinSet::new();
    for n in 0..20 {
        let identity = Arc::clone(if n % 2 == 0 { &here } else { &there });
        operations.spawn(async move {
            let name = format!("key {n}");
            let new = identity
                .keys()
                .create(&OPERATOR, &name, scopes("predict"), None);
            let new = new.await.unwrap();
            assert!(knows(&identity, &new));
            if n % 3 == 0 {
                identity.keys().revoke(&OPERATOR, &name).await.unwrap();
                assert!(!knows(&identity, &new));
            }
            (n, new)
        });
    }
    let made = operations.join_all().await;
    here.reload().await.unwrap();
    for (n, new) in &made {
        assert_eq!(knows(&here, new), n % 3 != 0);
    }
}

async fn scopes_of_newer_versions_are_ignored(store: &Store) {
    let identity = store.identity().await;
    let new = identity
        .keys()
        .create(&OPERATOR, "a", scopes("predict"), None)
        .await
        .unwrap();
    let other = identity
        .keys()
        .create(&OPERATOR, "b", scopes("predict"), None)
        .await
        .unwrap();
    let add = "UPDATE identity_api_keys SET scopes = 'moon:land predict' WHERE name = 'a'";
    execute(&store.db().await, add.into()).await;
    identity.reload().await.unwrap();
    let caller = caller(&identity, new.secret.expose(), START).unwrap();
    assert!(caller.scopes.iter().eq([Scope::Predict]));
    assert!(knows(&identity, &other));
    assert_eq!(identity.keys().list().await.unwrap().len(), 2);
}

#[test]
fn random_tokens_never_authenticate() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = Store::sqlite();
    let identity = runtime.block_on(async {
        let identity = store.identity().await;
        identity
            .keys()
            .bootstrap(|_| Ok(()))
            .await
            .unwrap()
            .unwrap();
        identity
    });
    let bytes = proptest::collection::vec(any::<u8>(), 0..100);
    let text = "ax_[0-9A-Za-z]{36}".prop_map(String::into_bytes);
    proptest!(|(token in prop_oneof![bytes, text], now in any::<i64>())| {
        prop_assert!(caller(&identity, token, Timestamp(now)).is_none());
    });
}

async fn a_key_belongs_to_who_makes_it(store: &Store) {
    let identity = store.identity().await;
    let (ann, bea) = (
        member(&identity, "ann").await,
        member(&identity, "bea").await,
    );
    let operator = as_operator(ScopeSet::all());
    // Roles that may make keys may deal with all of them; a narrower token may not.
    let narrow = |user| Caller {
        scopes: scopes("keys:write predict"),
        ..as_user(user)
    };
    let make = async |by: &Caller, name: &str| {
        let body = json!({"name": name, "scopes": ["predict"]}).to_string();
        let made = ask(&identity, by, "POST", "/v1/api-keys", &body).await;
        assert_eq!(made.status, 201, "{:?}", made.error);
        let path = made.headers["location"].to_str().unwrap().to_owned();
        assert_eq!(
            path,
            format!("/v1/api-keys/{}", made.json["id"].as_str().unwrap())
        );
        assert!(caller(&identity, made.json["key"].as_str().unwrap(), START).is_some());
        path
    };
    let hers = make(&narrow(&ann), "hers").await;
    let beas = make(&narrow(&bea), "beas").await;
    let nobodys = make(&operator, "nobodys").await;
    let shown = ask(&identity, &narrow(&ann), "GET", &hers, "").await;
    assert_eq!(
        (shown.status, &shown.json["owner_id"]),
        (200, &json!(ann.id))
    );
    assert!(shown.json.get("key").is_none());
    for path in [&beas, &nobodys] {
        assert_eq!(
            ask(&identity, &narrow(&ann), "GET", path, "").await.status,
            404
        );
        assert_eq!(
            ask(&identity, &narrow(&ann), "DELETE", path, "")
                .await
                .status,
            404
        );
        let rotations = format!("{path}/rotations");
        assert_eq!(
            ask(&identity, &narrow(&ann), "POST", &rotations, "")
                .await
                .status,
            404
        );
    }
    let names = async |by: &Caller, query: &str| {
        let found = walk(&identity, by, &format!("/v1/api-keys?limit=1{query}")).await;
        let names: Vec<_> = found
            .iter()
            .map(|key| key["name"].as_str().unwrap().to_owned())
            .collect();
        names.join(" ")
    };
    assert_eq!(names(&narrow(&ann), "").await, "hers");
    assert_eq!(
        names(&narrow(&ann), &format!("&owner_id={}", bea.id)).await,
        ""
    );
    assert_eq!(
        names(&as_key("K", scopes("keys:write")), "").await,
        "",
        "it sees no other key that is nobody's"
    );
    assert_eq!(
        names(&operator, &format!("&owner_id={}", bea.id)).await,
        "beas"
    );
    assert_eq!(names(&operator, "&owner_id=nobody").await, "");
    let mut all: Vec<String> = names(&operator, "")
        .await
        .split(' ')
        .map(str::to_owned)
        .collect();
    all.sort_unstable();
    assert_eq!(all, ["beas", "hers", "nobodys"]);
    let by_page = walk(&identity, &operator, "/v1/api-keys?per_page=2").await;
    assert_eq!(by_page.len(), 3);
    assert_eq!(
        ask(&identity, &narrow(&ann), "DELETE", &hers, "")
            .await
            .status,
        204
    );
    assert_eq!(
        ask(&identity, &narrow(&ann), "DELETE", &hers, "")
            .await
            .status,
        204
    );
    let ended = ask(&identity, &narrow(&ann), "GET", &hers, "").await;
    assert_eq!(ended.json["state"], "revoked");
}

async fn member(identity: &Identity, name: &str) -> User {
    let new = NewUser {
        name: name.into(),
        email: format!("{name}@example.org"),
        roles: [Role::Admin].into_iter().collect(),
        ..NewUser::default()
    };
    identity.users().create(&OPERATOR, new).await.unwrap()
}

async fn no_key_reaches_further_than_its_maker(store: &Store) {
    let identity = store.identity().await;
    let by = as_operator(scopes("keys:write users:write predict"));
    let strong = identity
        .keys()
        .create(&OPERATOR, "strong", ScopeSet::all(), None)
        .await
        .unwrap();
    let body = r#"{"name": "x", "scopes": ["predict", "audit:read"]}"#;
    let strong_path = format!("/v1/api-keys/{}", strong.key.id);
    let rotations = format!("{strong_path}/rotations");
    for (method, path, body) in [
        ("POST", "/v1/api-keys", body),
        ("DELETE", strong_path.as_str(), ""),
        ("POST", rotations.as_str(), "{}"),
    ] {
        let answer = ask(&identity, &by, method, path, body).await;
        assert_eq!(answer.status, 403, "{method} {path}");
    }
    assert!(knows(&identity, &strong));
    let reader = as_operator(ScopeSet::all());
    let denied = store.recorded("action", "outcome = 'denied'").await;
    assert_eq!(denied.len(), 3);
    for (body, fields) in [
        ("{}", "name scopes"),
        (r#"{"name": " ", "scopes": []}"#, "name scopes"),
        (r#"{"name": "x", "scopes": ["moon:land"]}"#, "scopes"),
        (r#"{"name": "x", "scopes": "predict"}"#, "scopes"),
        (
            r#"{"name": "x", "scopes": ["predict"], "expires_at": "2001-01-01T00:00:00Z"}"#,
            "expires_at",
        ),
        (
            r#"{"name": "x", "scopes": ["predict"], "owner_id": "U", "id": "K"}"#,
            "owner_id id",
        ),
    ] {
        let error = ask(&identity, &reader, "POST", "/v1/api-keys", body)
            .await
            .error
            .unwrap();
        let found: Vec<&str> = error.details().iter().map(|e| e.field.as_str()).collect();
        assert_eq!(found.join(" "), fields, "{body}");
    }
}

async fn a_rotated_key_works_on_for_its_overlap(store: &Store) {
    let identity = store.identity().await;
    let by = as_operator(ScopeSet::all());
    let end = Timestamp(START.0 + 100 * 1_000_000);
    let old = identity
        .keys()
        .create(&OPERATOR, "old", scopes("predict"), Some(end))
        .await
        .unwrap();
    let path = format!("/v1/api-keys/{}", old.key.id);
    let known = |secret: &str| caller(&identity, secret, store.clock.now()).is_some();
    for body in [
        r#"{"overlap_s": -1}"#,
        r#"{"overlap_s": 604801}"#,
        r#"{"overlap": 1}"#,
    ] {
        let answer = ask(&identity, &by, "POST", &format!("{path}/rotations"), body).await;
        assert_eq!(answer.status, 422, "{body}");
    }
    let (rotations, body) = (format!("{path}/rotations"), r#"{"overlap_s": 60}"#);
    let rotated = ask(&identity, &by, "POST", &rotations, body).await;
    assert_eq!(rotated.status, 201, "{:?}", rotated.error);
    let new = rotated.json["key"].as_str().unwrap();
    assert_eq!(rotated.json["name"], "old");
    assert_eq!(rotated.json["scopes"], json!(["predict"]));
    assert_eq!(rotated.json["expires_at"], end.to_rfc3339());
    assert!(known(old.secret.expose()) && known(new));
    let shown = ask(&identity, &by, "GET", &path, "").await.json;
    assert_eq!(
        (&shown["replaced_by"], &shown["state"]),
        (&rotated.json["id"], &json!("active"))
    );
    assert_eq!(
        shown["expires_at"],
        Timestamp(START.0 + 60 * 1_000_000).to_rfc3339()
    );
    assert_eq!(
        shown["last_used_at"],
        START.to_rfc3339(),
        "seen by this process alone so far"
    );

    let again = ask(&identity, &by, "POST", &format!("{path}/rotations"), "").await;
    assert_eq!(
        (again.status, again.error.unwrap().code()),
        (409, "CONFLICT")
    );
    store.clock.advance(Duration::from_secs(60));
    assert!(!known(old.secret.expose()) && known(new));
    // Without a word the overlap is a day, and no longer than the old one lives anyway.
    let next = format!("/v1/api-keys/{}", rotated.json["id"].as_str().unwrap());
    let rotated = ask(&identity, &by, "POST", &format!("{next}/rotations"), "").await;
    assert_eq!(rotated.status, 201);
    let shown = ask(&identity, &by, "GET", &next, "").await.json;
    assert_eq!(shown["expires_at"], end.to_rfc3339());
    store.clock.advance(Duration::from_secs(40));
    let last = format!(
        "/v1/api-keys/{}/rotations",
        rotated.json["id"].as_str().unwrap()
    );
    assert_eq!(
        ask(&identity, &by, "POST", &last, "").await.status,
        409,
        "it has expired"
    );
    let forever = identity
        .keys()
        .create(&OPERATOR, "e", scopes("predict"), None)
        .await
        .unwrap();
    let none = identity
        .keys()
        .rotate(&OPERATOR, forever.key.id.as_str(), Duration::ZERO)
        .await;
    assert!(!known(forever.secret.expose()) && known(none.unwrap().secret.expose()));
}

async fn of_simultaneous_rotations_one_wins(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    let old = here
        .keys()
        .create(&OPERATOR, "old", scopes("predict"), None)
        .await
        .unwrap();
    let mut tries = tokio::task::JoinSet::new();
    for n in 0..10 {
        let identity = Arc::clone(if n % 2 == 0 { &here } else { &there });
        let id = old.key.id.clone();
        tries.spawn(async move {
            identity
                .keys()
                .rotate(&OPERATOR, id.as_str(), Duration::from_secs(9))
                .await
        });
    }
    let ended = tries.join_all().await;
    assert_eq!(ended.iter().filter(|made| made.is_ok()).count(), 1);
    let refused = ended.iter().filter_map(|made| made.as_ref().err());
    assert_eq!(
        refused
            .filter(|e| matches!(e, IdentityError::KeyEnded))
            .count(),
        9
    );
    assert_eq!(here.keys().list().await.unwrap().len(), 2);
}

async fn a_repeated_creation_gives_no_second_key(store: &Store) {
    let identity = store.identity().await;
    let by = as_operator(ScopeSet::all());
    let (body, key) = (
        r#"{"name": "x", "scopes": ["predict"]}"#,
        [("idempotency-key", "k")],
    );
    let path = "/v1/api-keys";
    let first = ask_with(&identity, &by, "POST", path, body, &key).await;
    let second = ask_with(&identity, &by, "POST", path, body, &key).await;
    assert_eq!((first.status, second.status), (201, 409));
    assert_eq!(identity.keys().list().await.unwrap().len(), 1);
}

async fn no_key_outlives_what_made_it(store: &Store) {
    let identity = store.identity().await;
    let end = Timestamp(START.0 + 60_000_000);
    let make = identity.keys().create(
        &OPERATOR,
        "short",
        scopes("keys:write users:write"),
        Some(end),
    );
    let maker = make.await.unwrap();
    let by = caller(&identity, maker.secret.expose(), START).unwrap();
    let body = json!({"name": "child", "scopes": ["keys:write"]});
    let made = ask(&identity, &by, "POST", "/v1/api-keys", &body.to_string()).await;
    assert_eq!(made.status, 201, "{:?}", made.error);
    assert_eq!(made.json["expires_at"], end.to_rfc3339());
    for (late, status) in [(0, 201), (-1, 201), (1, 422)] {
        let mut body = body.clone();
        body["expires_at"] = Timestamp(end.0 + late).to_rfc3339().into();
        let made = ask(&identity, &by, "POST", "/v1/api-keys", &body.to_string()).await;
        assert_eq!(made.status, status, "{late}");
        if let Some(error) = made.error {
            assert_eq!(error.details()[0].field, "expires_at");
        }
    }
    let forever = identity
        .keys()
        .create(&OPERATOR, "forever", scopes("keys:write"), None);
    let rotations = format!("/v1/api-keys/{}/rotations", forever.await.unwrap().key.id);
    let rotated = ask(&identity, &by, "POST", &rotations, "").await;
    assert_eq!(rotated.status, 201, "{:?}", rotated.error);
    assert_eq!(rotated.json["expires_at"], end.to_rfc3339());
    let secrets = [made.text("key"), rotated.text("key")];
    let known = |secret: &String| caller(&identity, secret, store.clock.now()).is_some();
    assert!(secrets.iter().all(known));
    store.clock.advance(Duration::from_secs(60));
    assert!(!secrets.iter().any(known));
}

async fn borrowed_rights_make_no_keys(store: &Store) {
    let identity = store.identity().await;
    let ann = member(&identity, "ann").await;
    let draft = ClientDraft {
        name: "shop".into(),
        redirect_uris: Vec::new(),
        post_logout_redirect_uris: Vec::new(),
        grant_types: vec![GrantType::ClientCredentials],
        scopes: "keys:write".parse().unwrap(),
        public: false,
    };
    let client = identity.clients().create(&OPERATOR, draft).await.unwrap();
    let client = client.client.id;
    let by_ann = actor(&as_user(&ann));
    let key = identity
        .keys()
        .create(&by_ann, "hers", scopes("predict"), None);
    let key = key.await.unwrap();
    let rotations = format!("/v1/api-keys/{}/rotations", key.key.id);
    let body = r#"{"name": "x", "scopes": ["predict"]}"#;
    let delegated = Caller {
        client_id: Some(client.clone()),
        ..as_user(&ann)
    };
    let alone = Caller {
        subject: Subject::Client(client.clone()),
        client_id: Some(client),
        ..as_operator(ScopeSet::all())
    };
    let external = Caller {
        subject: Subject::External("somebody".into()),
        ..as_operator(ScopeSet::all())
    };
    for by in [delegated, alone, external] {
        for (path, body) in [("/v1/api-keys", body), (&rotations, "")] {
            let answer = ask(&identity, &by, "POST", path, body).await;
            assert_eq!(answer.status, 403, "{} {path}", by.subject);
            let error = answer.error.unwrap();
            assert!(error.message().contains("make no API key"), "{error:?}");
        }
    }
    assert_eq!(identity.keys().list().await.unwrap().len(), 1);
    let denied = store.recorded("action", "outcome = 'denied'").await;
    assert_eq!(denied.len(), 6);
}

async fn what_ends_makes_and_changes_no_clients(store: &Store) {
    let identity = store.identity().await;
    let admin = member(&identity, "root").await;
    let draft =
        r#"{"name": "shop", "grant_types": ["client_credentials"], "scopes": ["users:read"]}"#;
    let all = as_operator(ScopeSet::all());
    let made = ask(&identity, &all, "POST", "/v1/oauth-clients", draft).await;
    assert_eq!(made.status, 201);
    let shop = format!("/v1/oauth-clients/{}", made.text("client_id"));

    let soon = store.clock.now() + Duration::from_secs(4);
    let key = identity
        .keys()
        .create(&OPERATOR, "short", ScopeSet::all(), Some(soon));
    let by_key = Caller {
        subject: Subject::Key(key.await.unwrap().key.id),
        ..as_operator(ScopeSet::all())
    };
    let delegated = Caller {
        client_id: ClientId::parse(&made.text("client_id")),
        ..as_user(&admin)
    };
    let external = Caller {
        subject: Subject::External("somebody".into()),
        ..as_operator(ScopeSet::all())
    };
    let rotations = format!("{shop}/secret-rotations");
    let requests = [
        ("POST", "/v1/oauth-clients", draft),
        ("PATCH", &shop, r#"{"name": "other"}"#),
        ("POST", &rotations, ""),
    ];
    for by in [&by_key, &delegated, &external] {
        for (method, path, body) in requests {
            let answer = ask(&identity, by, method, path, body).await;
            assert_eq!(answer.status, 403, "{} {method} {path}", by.subject);
            let error = answer.error.unwrap();
            assert!(error.message().contains("no client"), "{error:?}");
        }
    }
    assert_eq!(identity.clients().list().await.unwrap().len(), 1);
    let denied = store.recorded("action", "outcome = 'denied'").await;
    assert_eq!(denied.len(), 9);
    // Users who act for themselves may, and keys that last.
    for by in [&as_user(&admin), &all] {
        let answer = ask(&identity, by, "POST", "/v1/oauth-clients", draft).await;
        assert_eq!(answer.status, 201, "{}", by.subject);
    }
}

async fn a_key_of_nobody_deals_with_itself_alone(store: &Store) {
    let identity = store.identity().await;
    let other = identity
        .keys()
        .create(&OPERATOR, "other", scopes("predict"), None);
    let other = other.await.unwrap();
    let own = identity
        .keys()
        .create(&OPERATOR, "own", scopes("keys:write predict"), None);
    let own = own.await.unwrap();
    let by = caller(&identity, own.secret.expose(), START).unwrap();
    for query in ["limit=1", "per_page=1"] {
        let seen = walk(&identity, &by, &format!("/v1/api-keys?{query}")).await;
        let ids: Vec<_> = seen.iter().map(|key| &key["id"]).collect();
        assert_eq!(ids, [own.key.id.as_str()], "{query}");
    }
    let path = format!("/v1/api-keys/{}", other.key.id);
    let rotations = format!("{path}/rotations");
    for (method, path) in [("GET", &path), ("DELETE", &path), ("POST", &rotations)] {
        let answer = ask(&identity, &by, method, path, "").await;
        assert_eq!(answer.status, 404, "{method} {path}");
    }
    let named = identity.keys().revoke(&actor(&by), "other").await;
    assert!(matches!(named, Err(IdentityError::KeyNotFound)));
    assert!(knows(&identity, &other));
    let stranger = Caller {
        subject: Subject::External("somebody".into()),
        ..(*by).clone()
    };
    assert!(walk(&identity, &stranger, "/v1/api-keys").await.is_empty());

    let path = format!("/v1/api-keys/{}", own.key.id);
    let rotated = ask(&identity, &by, "POST", &format!("{path}/rotations"), "").await;
    assert_eq!(rotated.status, 201, "{:?}", rotated.error);
    assert_eq!(ask(&identity, &by, "DELETE", &path, "").await.status, 204);
}
