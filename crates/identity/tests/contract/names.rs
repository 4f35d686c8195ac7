//! Names and passwords have one form, also those that were stored before there was one.

use auspex_identity::{Expected, NewUser, UserChange, UserFilter};
use serde_json::json;

use crate::OPERATOR;
use crate::ask::{as_operator, ask};
use crate::person::{PASSWORD, add, change, hash, log_in};
use crate::scopes;
use crate::store::{Store, execute, texts};

contract! {
    a_name_is_one_name_in_every_form
    nobody_takes_the_name_of_another
    people_log_in_with_their_name_or_their_address
    a_password_is_one_password_in_every_form
    old_names_are_brought_into_form_and_nobody_is_merged
}

async fn a_name_is_one_name_in_every_form(store: &Store) {
    let identity = store.identity().await;
    let id = add(&identity, "E\u{301}mile", "viewer").await;
    let user = identity.users().get(&id).await.unwrap();
    assert_eq!(user.username, "\u{c9}mile");
    for form in ["\u{e9}mile", "E\u{301}MILE", "\u{ff45}\u{301}mile"] {
        assert_eq!(
            log_in(&identity, form, PASSWORD).await.status,
            200,
            "{form}"
        );
        assert_eq!(identity.users().find(form).await.unwrap().id, user.id);
        let filter = UserFilter {
            username: Some(form.into()),
            ..UserFilter::default()
        };
        assert_eq!(identity.users().list(filter).await.unwrap().len(), 1);
    }
    assert_eq!(log_in(&identity, " \u{e9}mile", PASSWORD).await.status, 401);

    let operator = as_operator(scopes("users:write users:read"));
    for name in [
        "\u{e9}mile",
        " ann",
        "ann ",
        "a\u{200b}nn",
        "ann\u{a0}",
        "a  b",
    ] {
        let body = json!({"name": "X", "email": "x@example.org", "username": name});
        let refused = ask(&identity, &operator, "POST", "/v1/users", &body.to_string()).await;
        let expected = if name == "\u{e9}mile" { 409 } else { 422 };
        assert_eq!(refused.status, expected, "{name:?}");
        assert_eq!(refused.status == 409, name == "\u{e9}mile");
    }
}

async fn nobody_takes_the_name_of_another(store: &Store) {
    let identity = store.identity().await;
    let ann = add(&identity, "ann", "viewer").await;
    let user = |username: &str, email: &str| NewUser {
        name: "X".into(),
        email: email.into(),
        username: Some(username.into()),
        ..NewUser::default()
    };
    let create = async |new| identity.users().create(&OPERATOR, new).await;
    let taken = create(user("ANN@example.org", "x@example.org")).await;
    assert!(taken.is_err(), "their e-mail address as a username");
    let own = create(user("bea@example.org", "bea@example.org")).await;
    assert!(own.is_ok(), "one's own");
    let cleo = create(user("cleo@else.org", "cleo@example.org")).await;
    assert!(cleo.is_ok());
    assert!(create(user("x", "Cleo@ELSE.org")).await.is_err());
    for (username, email) in [
        (Some("bea@example.org"), None),
        (None, Some("cleo@else.org")),
    ] {
        let change = UserChange {
            username: username.map(str::to_owned),
            email: email.map(str::to_owned),
            ..UserChange::default()
        };
        let changed = identity
            .users()
            .update(&OPERATOR, &ann, change, Expected::Any);
        assert!(changed.await.is_err(), "{username:?} {email:?}");
    }
    assert_eq!(identity.users().name_conflicts().await.unwrap(), []);
}

async fn people_log_in_with_their_name_or_their_address(store: &Store) {
    let identity = store.identity().await;
    let id = add(&identity, "ann", "viewer").await;
    for name in ["ann", "ann@example.org", "ANN@Example.org"] {
        let answer = log_in(&identity, name, PASSWORD).await;
        assert_eq!(answer.status, 200, "{name}");
    }
    for name in [&*id, "example.org", "ann@"] {
        let answer = log_in(&identity, name, PASSWORD).await;
        assert_eq!(answer.status, 401, "{name}");
    }
    let moved = UserChange {
        email: Some("ann@else.org".into()),
        ..UserChange::default()
    };
    change(&identity, &id, moved).await;
    for (name, status) in [("ann@else.org", 200), ("ann@example.org", 401)] {
        let answer = log_in(&identity, name, PASSWORD).await;
        assert_eq!(answer.status, status, "{name}");
    }
    // From before this was refused: the name of one is the address of another, and is the one's.
    let bob = add(&identity, "bob", "viewer").await;
    let db = store.db().await;
    let set = format!("UPDATE identity_users SET username_key = 'ann@else.org' WHERE id = '{bob}'");
    execute(&db, set).await;
    let answer = log_in(&identity, "ann@else.org", PASSWORD).await;
    let user = identity.users().get(&bob).await.unwrap();
    assert_eq!((answer.status, user.login_count), (200, 1));
}

async fn a_password_is_one_password_in_every_form(store: &Store) {
    let identity = store.identity().await;
    let id = add(&identity, "ann", "viewer").await;
    let (composed, decomposed) = ("\u{e9}1234 noir 1", "e\u{301}1234\u{a0}noir 1");
    let chosen = UserChange {
        password: Some(Some(decomposed.into())),
        ..UserChange::default()
    };
    change(&identity, &id, chosen).await;
    for form in [composed, decomposed] {
        assert_eq!(log_in(&identity, "ann", form).await.status, 200, "{form}");
    }
    assert_eq!(log_in(&identity, "ann", "cafe noir 1").await.status, 401);

    // One from before is hashed as it was typed: it goes on, and then in every form.
    let old = hash(decomposed, 19_456);
    let db = store.db().await;
    let set = format!("UPDATE identity_users SET password_hash = '{old}'");
    execute(&db, set).await;
    identity.reload().await.unwrap();
    assert_eq!(log_in(&identity, "ann", composed).await.status, 401);
    assert_eq!(log_in(&identity, "ann", decomposed).await.status, 200);
    assert_eq!(log_in(&identity, "ann", composed).await.status, 200);
    let stored = texts(&db, "SELECT password_hash FROM identity_users").await;
    assert_ne!(stored, [old], "hashed anew");
}

async fn old_names_are_brought_into_form_and_nobody_is_merged(store: &Store) {
    let identity = store.identity().await;
    let mut ids = Vec::new();
    for name in ["one", "two", "three", "four"] {
        ids.push(add(&identity, name, "viewer").await);
        store.clock.advance(std::time::Duration::from_millis(1));
    }
    // As a version before this rule stored them.
    let db = store.db().await;
    for (id, name) in ids
        .iter()
        .zip(["E\u{301}mile", "\u{e9}va", "E\u{301}va", "trailing\u{a0}"])
    {
        let key = name.to_lowercase();
        let sql = format!(
            "UPDATE identity_users SET username = '{name}', username_key = '{key}' WHERE id = '{id}'"
        );
        execute(&db, sql).await;
    }
    let forget = "DELETE FROM identity_migrations WHERE version = 'm0007_names'";
    execute(&db, forget.into()).await;
    let identity = store.identity().await;

    let key = "SELECT username_key FROM identity_users ORDER BY id";
    assert_eq!(
        texts(&db, key).await,
        ["\u{e9}mile", "\u{e9}va", "e\u{301}va", "trailing\u{a0}"]
    );
    let status = async |name: &str| log_in(&identity, name, PASSWORD).await.status;
    assert_eq!(status("\u{e9}mile").await, 200);
    // Each of two with the same name logs in as they always did, and so does who has a strange one.
    for (id, name) in ids[1..]
        .iter()
        .zip(["\u{e9}va", "e\u{301}VA", "Trailing\u{a0}"])
    {
        assert_eq!(status(name).await, 200, "{name}");
        let found = identity.users().find(name).await.unwrap();
        assert_eq!(found.id.as_str(), id, "{name}");
    }
    let conflicts = identity.users().name_conflicts().await.unwrap();
    let listed: Vec<Vec<&str>> = conflicts
        .iter()
        .map(|conflict| conflict.users.iter().map(|id| id.as_str()).collect())
        .collect();
    assert_eq!(listed, [vec![ids[3].as_str()], vec![&ids[1], &ids[2]]]);
    // They can be changed otherwise, and be given other names.
    crate::person::disable(&identity, &ids[2]).await;
    let renamed = UserChange {
        username: Some("eva.two".into()),
        ..UserChange::default()
    };
    change(&identity, &ids[2], renamed).await;
    assert_eq!(identity.users().name_conflicts().await.unwrap().len(), 1);
}
