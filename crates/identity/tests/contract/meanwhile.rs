//! Rights that end between the head of a request and its end.

use std::sync::Arc;
use std::time::Duration;

use auspex_identity::{
    Actor, ClientDraft, Expected, GrantType, Identity, IdentityError, NewUser, Role, UserChange,
    UserFilter,
};
use auspex_kernel::id::SessionId;
use auspex_kernel::{ApiError, ScopeSet, Subject, Timestamp};
use serde_json::json;

use crate::ask::{actor, as_user, ask};
use crate::person::{PASSWORD, add, change, disable};
use crate::store::{Store, execute};
use crate::{OPERATOR, caller, scopes};

contract! {
    users_act_by_the_rights_they_still_have
    sessions_that_ended_change_nothing
    keys_that_ended_change_nothing
    clients_that_are_gone_change_nothing
    narrowed_rights_bound_what_is_given
    a_password_replaces_only_the_one_that_was_shown
}

fn draft() -> ClientDraft {
    ClientDraft {
        name: "shop".into(),
        redirect_uris: Vec::new(),
        post_logout_redirect_uris: Vec::new(),
        grant_types: vec![GrantType::ClientCredentials],
        scopes: "predict".parse().unwrap(),
        public: false,
    }
}

fn new_user(name: &str) -> NewUser {
    NewUser {
        name: name.into(),
        email: format!("{name}@example.org"),
        ..NewUser::default()
    }
}

/// All that there is, the audit record too.
async fn everything(store: &Store, identity: &Identity) -> String {
    let lines = store.recorded("id", "TRUE").await;
    format!(
        "{lines:?} {:?} {:?} {:?}",
        identity.users().list(UserFilter::default()).await.unwrap(),
        identity.keys().list().await.unwrap(),
        identity.clients().list().await.unwrap(),
    )
}

/// Asserts that `by` can do nothing any more.
async fn assert_powerless(store: &Store, identity: &Identity, by: &Actor, why: &str) {
    let round = identity.keys().list().await.unwrap().len();
    let other = identity
        .users()
        .create(&OPERATOR, new_user(&format!("other{round}")))
        .await
        .unwrap()
        .id;
    let key = identity
        .keys()
        .create(&OPERATOR, "other", scopes("predict"), None);
    let key = key.await.unwrap().key.id.to_string();
    let client = identity.clients().create(&OPERATOR, draft()).await.unwrap();
    let client = client.client.id;
    let before = everything(store, identity).await;
    let renamed = UserChange {
        name: Some("x".into()),
        ..UserChange::default()
    };
    let any = Expected::Any;
    let refusals = [
        identity.users().create(by, new_user("new")).await.err(),
        identity
            .users()
            .update(by, &other, renamed, any.clone())
            .await
            .err(),
        identity.users().delete(by, &other, any).await.err(),
        identity
            .keys()
            .create(by, "new", scopes("predict"), None)
            .await
            .err(),
        identity.keys().revoke(by, &key).await.err(),
        identity.keys().rotate(by, &key, Duration::ZERO).await.err(),
        identity.clients().create(by, draft()).await.err(),
        identity.clients().delete(by, &client).await.err(),
    ];
    for (n, refused) in refusals.into_iter().enumerate() {
        let refused = refused.unwrap_or_else(|| panic!("{why}: operation {n} was carried out"));
        assert!(
            matches!(refused, IdentityError::CredentialEnded),
            "{why}: {n}: {refused}"
        );
        assert_eq!(ApiError::from(refused).status(), 401);
    }
    assert_eq!(everything(store, identity).await, before, "{why}");
}

async fn users_act_by_the_rights_they_still_have(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "stays", "admin").await;
    let admin = async |name: &str| {
        let id = add(&identity, name, "admin").await;
        let by = actor(&as_user(&identity.users().get(&id).await.unwrap()));
        let harmless = identity
            .users()
            .create(&by, new_user(&format!("{name}s-friend")));
        harmless.await.unwrap();
        (id, by)
    };
    let (id, by) = admin("disabled").await;
    disable(&identity, &id).await;
    assert_powerless(store, &identity, &by, "disabled").await;

    let (id, by) = admin("demoted").await;
    let demoted = UserChange {
        roles: Some([Role::Viewer].into_iter().collect()),
        ..UserChange::default()
    };
    change(&identity, &id, demoted).await;
    assert_powerless(store, &identity, &by, "demoted").await;

    let (id, by) = admin("removed").await;
    let removed = identity.users().delete(&OPERATOR, &id, Expected::Any);
    removed.await.unwrap();
    assert_powerless(store, &identity, &by, "removed").await;

    // A key goes with its owner.
    let (id, by) = admin("owner").await;
    let key = identity.keys().create(&by, "hers", ScopeSet::all(), None);
    let key = key.await.unwrap();
    let by = actor(&caller(&identity, key.secret.expose(), store.clock.now()).unwrap());
    disable(&identity, &id).await;
    assert_powerless(store, &identity, &by, "its owner disabled").await;
}

async fn sessions_that_ended_change_nothing(store: &Store) {
    let identity = store.identity().await;
    let id = add(&identity, "ann", "admin").await;
    let later = store.clock.now().0 + 1_000_000;
    let sql = format!(
        "INSERT INTO identity_grants (id, user_id, scopes, created_at, authenticated_at, \
         expires_at, sequence) VALUES ('OWN', '{id}', 'predict', 1, 1, {later}, 0)"
    );
    execute(&store.db().await, sql).await;
    let by = Actor {
        session_id: Some(SessionId::from_stored("OWN")),
        ..actor(&as_user(&identity.users().get(&id).await.unwrap()))
    };
    identity
        .users()
        .create(&by, new_user("friend"))
        .await
        .unwrap();
    let ended = "UPDATE identity_grants SET revoked_at = 2";
    execute(&store.db().await, ended.into()).await;
    assert_powerless(store, &identity, &by, "logged out").await;
}

async fn keys_that_ended_change_nothing(store: &Store) {
    let identity = store.identity().await;
    let end = Timestamp(store.clock.now().0 + 60_000_000);
    let actor_by = async |end| {
        let key = identity.keys().create(&OPERATOR, "k", ScopeSet::all(), end);
        let key = key.await.unwrap();
        let by = actor(&caller(&identity, key.secret.expose(), store.clock.now()).unwrap());
        (key.key.id, by)
    };
    let (id, by) = actor_by(None).await;
    identity
        .users()
        .create(&by, new_user("friend"))
        .await
        .unwrap();
    identity
        .keys()
        .revoke(&OPERATOR, id.as_str())
        .await
        .unwrap();
    assert_powerless(store, &identity, &by, "revoked").await;

    let (_, by) = actor_by(Some(end)).await;
    store.clock.advance(Duration::from_secs(60));
    assert_powerless(store, &identity, &by, "expired").await;
}

async fn clients_that_are_gone_change_nothing(store: &Store) {
    let identity = store.identity().await;
    let client = identity.clients().create(&OPERATOR, draft()).await.unwrap();
    let id = client.client.id;
    let by = Actor {
        subject: Subject::Client(id.clone()),
        client_id: Some(id.clone()),
        ..Actor::operator()
    };
    identity
        .users()
        .create(&by, new_user("friend"))
        .await
        .unwrap();
    identity.clients().delete(&OPERATOR, &id).await.unwrap();
    assert_powerless(store, &identity, &by, "client removed").await;
}

async fn narrowed_rights_bound_what_is_given(store: &Store) {
    let identity = store.identity().await;
    let id = add(&identity, "ann", "data-scientist operator").await;
    let by = Actor {
        scopes: scopes("predict gateway:write audit:read"),
        ..actor(&as_user(&identity.users().get(&id).await.unwrap()))
    };
    let narrowed = UserChange {
        roles: Some([Role::DataScientist].into_iter().collect()),
        ..UserChange::default()
    };
    change(&identity, &id, narrowed).await;
    let more = identity.keys().create(&by, "k", scopes("audit:read"), None);
    assert!(matches!(more.await, Err(IdentityError::Escalation)));
    let less = identity.keys().create(&by, "k", scopes("predict"), None);
    less.await.unwrap();
}

async fn a_password_replaces_only_the_one_that_was_shown(store: &Store) {
    let identity = store.identity().await;
    let id = add(&identity, "ann", "viewer").await;
    let by = as_user(&identity.users().get(&id).await.unwrap());
    let mut changes = tokio::task::JoinSet::new();
    for n in 0..4 {
        let (identity, by) = (Arc::clone(&identity), by.clone());
        changes.spawn(async move {
            let new = format!("the new password {n}");
            let body = json!({"current_password": PASSWORD, "new_password": new}).to_string();
            let answer = ask(&identity, &by, "PUT", "/v1/me/password", &body).await;
            let fields = answer.error.map(|error| error.details().to_vec());
            let field = fields.and_then(|fields| Some(fields.first()?.field.clone()));
            (answer.status, field)
        });
    }
    let mut answers = changes.join_all().await;
    answers.sort_unstable();
    assert_eq!(answers[0], (204, None), "one is the first");
    for later in &answers[1..] {
        assert_eq!(later, &(422, Some("current_password".to_owned())));
    }
}
