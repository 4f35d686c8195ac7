//! Users: who may be added, who may change whom, and what ends with a change.

use std::sync::Arc;
use std::time::Duration;

use auspex_identity::{
    Actor, Expected, Identity, IdentityError, NewUser, Role, RoleSet, User, UserChange, UserFilter,
};
use auspex_kernel::db::DbError;
use auspex_kernel::id::SessionId;
use auspex_kernel::{ApiError, Caller};
use serde_json::{Value, json};

use crate::ask::{actor, as_operator, as_user, ask, ask_with, walk};
use crate::store::{Store, execute};
use crate::{OPERATOR, caller, scopes};

contract! {
    users_are_added_shown_changed_and_removed
    names_and_addresses_are_unique_in_either_case
    of_two_equal_users_at_once_one_is_added
    wrong_fields_are_named_at_once
    nobody_gives_or_takes_more_than_he_has
    nobody_changes_his_own_roles
    fields_that_are_not_the_callers_are_refused
    the_last_administrator_stays
    of_two_administrators_who_remove_each_other_one_stays
    a_disabled_user_loses_keys_and_grants_and_gets_keys_back
    a_removed_user_leaves_nothing_but_his_audit_lines
    a_change_of_what_was_not_seen_is_refused
    own_passwords_are_changed_by_who_knows_them
    lists_are_walked_to_the_end_in_every_form
    lists_are_filtered
    other_processes_hear_of_changes
    equal_creations_with_one_key_make_one_user
}

fn roles(of: &[Role]) -> RoleSet {
    of.iter().copied().collect()
}

async fn add(identity: &Identity, name: &str, of: &[Role]) -> User {
    let new = NewUser {
        name: name.into(),
        email: format!("{name}@example.org"),
        roles: roles(of),
        ..NewUser::default()
    };
    identity.users().create(&OPERATOR, new).await.unwrap()
}

fn operator() -> Caller {
    as_operator(auspex_kernel::ScopeSet::all())
}

async fn users_are_added_shown_changed_and_removed(store: &Store) {
    let identity = store.identity().await;
    let by = operator();
    let body = json!({"name": "Ann", "email": "Ann@Example.org", "age": 41, "roles": ["viewer"]});
    let made = ask(&identity, &by, "POST", "/v1/users", &body.to_string()).await;
    assert_eq!(made.status, 201, "{:?}", made.error);
    let path = made.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(
        path,
        format!("/v1/users/{}", made.json["id"].as_str().unwrap())
    );
    let now = store.clock.now().to_rfc3339();
    assert_eq!(
        made.json,
        json!({
            "id": made.json["id"], "name": "Ann", "email": "Ann@Example.org",
            "email_verified": false, "username": "Ann@Example.org", "age": 41, "roles": ["viewer"], "disabled": false,
            "has_password": false, "created_at": now, "updated_at": now, "last_login_at": null,
            "login_count": 0,
        })
    );
    let shown = ask(&identity, &by, "GET", &path, "").await;
    assert_eq!(shown.json, made.json);
    assert_eq!(shown.headers["etag"], made.headers["etag"]);
    let lower = path.to_lowercase().replace("/v1/users", "/users");
    assert_eq!(ask(&identity, &by, "GET", &lower, "").await.json, made.json);

    store.clock.advance(Duration::from_secs(1));
    let body = json!({"age": null, "username": "ann"}).to_string();
    let changed = ask(&identity, &by, "PATCH", &path, &body).await;
    assert_eq!((changed.status, &changed.json["age"]), (200, &Value::Null));
    assert_eq!(changed.json["username"], "ann");
    assert_eq!(changed.json["roles"], json!(["viewer"]));
    assert_ne!(changed.json["updated_at"], changed.json["created_at"]);
    assert_ne!(changed.headers["etag"], made.headers["etag"]);
    let again = ask(&identity, &by, "PATCH", &path, &body).await;
    assert_eq!(
        again.headers["etag"], changed.headers["etag"],
        "nothing has changed"
    );

    let body = json!({"name": "Bea", "email": "bea@example.org", "disabled": true}).to_string();
    let replaced = ask(&identity, &by, "PUT", &path, &body).await;
    assert_eq!(replaced.status, 200, "{:?}", replaced.error);
    assert_eq!(replaced.json["username"], "bea@example.org");
    assert_eq!(
        (&replaced.json["roles"], &replaced.json["disabled"]),
        (&json!([]), &json!(true))
    );

    assert_eq!(ask(&identity, &by, "DELETE", &path, "").await.status, 204);
    for method in ["GET", "DELETE"] {
        assert_eq!(ask(&identity, &by, method, &path, "").await.status, 404);
    }
    for id in ["0123456789ABCDEF", "1", "x%00", "%ff", "..%2f"] {
        let path = format!("/v1/users/{id}");
        assert_eq!(
            ask(&identity, &by, "GET", &path, "").await.status,
            404,
            "{id}"
        );
        assert_eq!(
            ask(&identity, &by, "PATCH", &path, "{}").await.status,
            404,
            "{id}"
        );
    }
}

async fn names_and_addresses_are_unique_in_either_case(store: &Store) {
    let identity = store.identity().await;
    let ann = add(&identity, "ann", &[]).await;
    let bea = add(&identity, "bea", &[]).await;
    for body in [
        json!({"name": "x", "email": "ANN@example.ORG"}),
        json!({"name": "x", "email": "new@example.org", "username": "Ann@Example.Org"}),
    ] {
        let answer = ask(
            &identity,
            &operator(),
            "POST",
            "/v1/users",
            &body.to_string(),
        )
        .await;
        let error = answer.error.unwrap();
        assert_eq!((answer.status, error.code()), (409, "CONFLICT"));
        assert!(
            !error.message().to_lowercase().contains("unique"),
            "{}",
            error.message()
        );
        assert!(error.cause().is_none(), "nothing for the log");
    }
    let change = UserChange {
        email: Some("ANN@EXAMPLE.ORG".into()),
        ..UserChange::default()
    };
    let taken = identity
        .users()
        .update(&OPERATOR, &bea.id, change.clone(), Expected::Any);
    assert!(matches!(taken.await, Err(IdentityError::UserTaken)));
    assert_eq!(identity.users().get(&bea.id).await.unwrap(), bea);
    let own = identity
        .users()
        .update(&OPERATOR, &ann.id, change, Expected::Any)
        .await;
    assert_eq!(own.unwrap().email, "ANN@EXAMPLE.ORG");
    // Commands name users by id or username.
    let named = |user: &User| UserChange {
        username: Some(user.id.to_string().to_lowercase()),
        ..UserChange::default()
    };
    let users = identity.users();
    let taken = users.update(&OPERATOR, &bea.id, named(&ann), Expected::Any);
    assert!(matches!(taken.await, Err(IdentityError::UserTaken)));
    let own = users.update(&OPERATOR, &bea.id, named(&bea), Expected::Any);
    assert!(own.await.is_ok());
}

async fn of_two_equal_users_at_once_one_is_added(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    let mut tries = tokio::task::JoinSet::new();
    for n in 0..10 {
        let identity = Arc::clone(if n % 2 == 0 { &here } else { &there });
        tries.spawn(async move {
            let new = NewUser {
                name: "Ann".into(),
                email: "ann@example.org".into(),
                ..NewUser::default()
            };
            identity.users().create(&OPERATOR, new).await
        });
    }
    let ended = tries.join_all().await;
    assert_eq!(ended.iter().filter(|made| made.is_ok()).count(), 1);
    for refused in ended.into_iter().filter_map(Result::err) {
        assert!(matches!(refused, IdentityError::UserTaken), "{refused}");
    }
    assert_eq!(
        here.users()
            .list(UserFilter::default())
            .await
            .unwrap()
            .len(),
        1
    );
}

async fn wrong_fields_are_named_at_once(store: &Store) {
    let identity = store.identity().await;
    let refused = async |body: Value| -> String {
        let answer = ask(&identity, &operator(), "POST", "/users", &body.to_string()).await;
        assert_eq!(answer.status, 422, "{body}");
        let error = answer.error.unwrap();
        let fields: Vec<&str> = error.details().iter().map(|e| e.field.as_str()).collect();
        fields.join(" ")
    };
    let long = "x".repeat(300);
    assert_eq!(refused(json!({})).await, "name email");
    assert_eq!(
        refused(json!({"name": "", "email": "invalid"})).await,
        "name email"
    );
    let bob = json!({"name": "Bob", "email": "bob@test.com", "age": -5});
    assert_eq!(refused(bob).await, "age");
    let all = json!({
        "name": "\n", "email": "a b@c.d", "username": "a:b", "age": 151, "roles": ["viewer", "viewer"],
        "password": "short",
    });
    assert_eq!(refused(all).await, "name email username age roles password");
    for email in [
        "a@b",
        "a@b.",
        "a@.b",
        "@b.c",
        "a.b@c",
        "a@b@c.d",
        &format!("{long}@b.c"),
    ] {
        assert_eq!(
            refused(json!({"name": "x", "email": email})).await,
            "email",
            "{email}"
        );
    }
    for roles in [
        json!("viewer"),
        json!(["emperor"]),
        json!([1]),
        json!({"viewer": true}),
    ] {
        let body = json!({"name": "x", "email": "x@example.org", "roles": roles});
        assert_eq!(refused(body).await, "roles");
    }
    let same = json!({"name": "x", "email": "same@example.org", "password": "Same@example.org"});
    assert_eq!(refused(same).await, "password");
    assert!(
        identity
            .users()
            .list(UserFilter::default())
            .await
            .unwrap()
            .is_empty()
    );

    let direct = NewUser {
        name: " ".into(),
        email: "x".into(),
        age: Some(0),
        ..NewUser::default()
    };
    let error = identity
        .users()
        .create(&OPERATOR, direct)
        .await
        .unwrap_err();
    assert_eq!(
        ApiError::from(error).details().len(),
        3,
        "the command line is told as well"
    );
}

async fn nobody_gives_or_takes_more_than_he_has(store: &Store) {
    let identity = store.identity().await;
    let admin = add(&identity, "admin", &[Role::Admin]).await;
    add(&identity, "other", &[Role::Admin]).await;
    let viewer = add(&identity, "viewer", &[Role::Viewer]).await;
    // May write users and do what a viewer may, and no more.
    let rights = scopes("users:read users:write models:read jobs:read gateway:read metrics:read");
    let by = as_operator(rights);
    let status = async |method: &str, path: String, body: Value| {
        let answer = ask(&identity, &by, method, &path, &body.to_string()).await;
        let code = answer.error.map(|error| error.code());
        (answer.status, code.unwrap_or_default())
    };
    let denied = (403, "FORBIDDEN");
    let new = |roles: &[&str]| json!({"name": "x", "email": "x@example.org", "roles": roles});
    assert_eq!(
        status("POST", "/v1/users".into(), new(&["admin"])).await,
        denied
    );
    assert_eq!(
        status("POST", "/v1/users".into(), new(&["viewer", "service"])).await,
        denied
    );
    assert_eq!(
        status("POST", "/v1/users".into(), new(&["viewer"])).await.0,
        201
    );
    let (admins, viewers) = (
        format!("/v1/users/{}", admin.id),
        format!("/v1/users/{}", viewer.id),
    );
    assert_eq!(
        status("PATCH", viewers.clone(), json!({"roles": ["operator"]})).await,
        denied
    );
    assert_eq!(
        status("PATCH", viewers.clone(), json!({"roles": []}))
            .await
            .0,
        200
    );
    for change in [
        json!({"roles": []}),
        json!({"password": "a new password"}),
        json!({"email": "clerk@example.org"}),
        json!({"username": "clerk"}),
        json!({"disabled": true}),
        json!({"name": "x", "disabled": true}),
    ] {
        assert_eq!(
            status("PATCH", admins.clone(), change.clone()).await,
            denied,
            "{change}"
        );
    }
    let put = json!({"name": "x", "email": "x2@example.org", "roles": ["admin"]});
    assert_eq!(status("PUT", admins.clone(), put).await, denied);
    assert_eq!(status("DELETE", admins.clone(), json!({})).await, denied);
    assert_eq!(identity.users().get(&admin.id).await.unwrap(), admin);
    assert_eq!(
        status("PATCH", admins, json!({"name": "Boss"})).await.0,
        200,
        "that is harmless"
    );

    let denials = store.recorded("actor || ' ' || address", "outcome = 'denied'");
    assert_eq!(denials.await, ["operator 192.0.2.0/24"; 11]);
}

async fn nobody_changes_his_own_roles(store: &Store) {
    let identity = store.identity().await;
    let admin = add(&identity, "admin", &[Role::Admin]).await;
    add(&identity, "other", &[Role::Admin]).await;
    let path = format!("/v1/users/{}", admin.id);
    for body in [
        json!({"roles": ["viewer"]}),
        json!({"roles": ["admin", "viewer"]}),
    ] {
        let answer = ask(
            &identity,
            &as_user(&admin),
            "PATCH",
            &path,
            &body.to_string(),
        )
        .await;
        assert_eq!(answer.status, 403, "{body}");
        assert!(answer.error.unwrap().message().contains("own roles"));
    }
    let same = json!({"roles": ["admin"], "name": "Boss"}).to_string();
    assert_eq!(
        ask(&identity, &as_user(&admin), "PATCH", &path, &same)
            .await
            .status,
        200
    );
}

async fn fields_that_are_not_the_callers_are_refused(store: &Store) {
    let identity = store.identity().await;
    let user = add(&identity, "ann", &[]).await;
    let path = format!("/v1/users/{}", user.id);
    for field in [
        "id",
        "version",
        "login_count",
        "last_login_at",
        "scopes",
        "is_admin",
        "password_hash",
        "created_at",
        "has_password",
        "disabled_at",
        "__proto__",
        "Roles",
    ] {
        let mut body = json!({"name": "x", "email": "x@example.org"});
        body[field] = json!("1");
        for (method, path) in [("POST", "/v1/users"), ("PUT", &path), ("PATCH", &path)] {
            let answer = ask(&identity, &operator(), method, path, &body.to_string()).await;
            assert_eq!(answer.status, 422, "{method} {field}");
            assert_eq!(answer.error.unwrap().details()[0].field, field);
        }
    }
    let answer = ask(
        &identity,
        &operator(),
        "POST",
        "/v1/users",
        &json!({
            "name": "x", "email": "x@example.org", "disabled": true,
        })
        .to_string(),
    )
    .await;
    assert_eq!(answer.status, 422, "nobody is added disabled");
    assert_eq!(identity.users().get(&user.id).await.unwrap(), user);
}

async fn the_last_administrator_stays(store: &Store) {
    let identity = store.identity().await;
    let admin = add(&identity, "admin", &[Role::Admin, Role::Viewer]).await;
    let asleep = add(&identity, "asleep", &[Role::Admin]).await;
    let disable = UserChange {
        disabled: Some(true),
        ..UserChange::default()
    };
    let disabled = identity
        .users()
        .update(&OPERATOR, &asleep.id, disable.clone(), Expected::Any);
    disabled.await.unwrap();
    let demote = UserChange {
        roles: Some(roles(&[Role::Viewer])),
        ..UserChange::default()
    };
    for change in [disable, demote] {
        let ended = identity
            .users()
            .update(&OPERATOR, &admin.id, change, Expected::Any)
            .await;
        assert!(matches!(ended, Err(IdentityError::LastAdmin)));
    }
    let ended = identity
        .users()
        .delete(&OPERATOR, &admin.id, Expected::Any)
        .await
        .unwrap_err();
    assert!(matches!(ended, IdentityError::LastAdmin));
    assert_eq!(ApiError::from(ended).status(), 409);
    assert_eq!(identity.users().get(&admin.id).await.unwrap(), admin);
    identity
        .users()
        .delete(&OPERATOR, &asleep.id, Expected::Any)
        .await
        .unwrap();
    add(&identity, "next", &[Role::Admin]).await;
    identity
        .users()
        .delete(&OPERATOR, &admin.id, Expected::Any)
        .await
        .unwrap();
}

async fn of_two_administrators_who_remove_each_other_one_stays(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    for round in 0..5 {
        let ann = add(&here, &format!("ann{round}"), &[Role::Admin]).await;
        let bea = add(&here, &format!("bea{round}"), &[Role::Admin]).await;
        let disable = UserChange {
            disabled: Some(true),
            ..UserChange::default()
        };
        let one = here.users().delete(&OPERATOR, &bea.id, Expected::Any);
        let two = there
            .users()
            .update(&OPERATOR, &ann.id, disable, Expected::Any);
        let (one, two) = tokio::join!(one, two);
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        let refused = one.err().or(two.err()).unwrap();
        assert!(matches!(refused, IdentityError::LastAdmin), "{refused}");
        let execute_sql = "DELETE FROM identity_users";
        execute(&store.db().await, execute_sql.into()).await;
    }
}

async fn a_disabled_user_loses_keys_and_grants_and_gets_keys_back(store: &Store) {
    let identity = store.identity().await;
    let user = add(&identity, "ann", &[Role::Viewer]).await;
    let by = actor(&as_user(&user));
    let key = identity
        .keys()
        .create(&by, "hers", scopes("jobs:read"), None)
        .await
        .unwrap();
    let known = || caller(&identity, key.secret.expose(), store.clock.now()).is_some();
    assert!(known());
    grant(store, user.id.as_str(), "GRANT").await;
    let path = format!("/v1/users/{}", user.id);
    for (disabled, kept) in [(true, false), (false, true)] {
        let body = json!({"disabled": disabled}).to_string();
        let answer = ask(&identity, &operator(), "PATCH", &path, &body).await;
        assert_eq!(
            (answer.status, &answer.json["disabled"]),
            (200, &json!(disabled))
        );
        assert_eq!(known(), kept);
    }
    assert_eq!(
        count(store, "identity_grants WHERE revoked_at IS NULL").await,
        0
    );
    assert_eq!(count(store, "identity_sessions").await, 0);
}

async fn a_removed_user_leaves_nothing_but_his_audit_lines(store: &Store) {
    let (identity, elsewhere) = (store.identity().await, store.identity().await);
    let user = add(&identity, "ann", &[Role::Viewer]).await;
    let by = actor(&as_user(&user));
    let key = identity
        .keys()
        .create(&by, "hers", scopes("jobs:read"), None)
        .await
        .unwrap();
    let now = store.clock.now();
    store.clock.advance(Duration::from_millis(1));
    grant(store, user.id.as_str(), "GRANT").await;
    elsewhere.reload().await.unwrap();
    identity
        .users()
        .delete(&OPERATOR, &user.id, Expected::Any)
        .await
        .unwrap();
    assert!(caller(&identity, key.secret.expose(), now).is_none());
    // What brings another process up to date must name the keys, for their rows are gone.
    add(&elsewhere, "bea", &[]).await;
    assert!(caller(&elsewhere, key.secret.expose(), now).is_none());
    for table in [
        "users", "api_keys", "logins", "consents", "sessions", "codes",
    ] {
        let left = if table == "users" { 1 } else { 0 };
        assert_eq!(
            count(store, &format!("identity_{table}")).await,
            left,
            "{table}"
        );
    }
    assert_eq!(
        count(store, "identity_grants WHERE revoked_at IS NULL").await,
        0
    );
    let of_user = format!("target = 'user:{}'", user.id);
    let actions = store.recorded("action", &of_user).await;
    assert_eq!(actions, ["user.delete", "user.create"]);
}

/// What a login, a consent and a session leave behind.
async fn grant(store: &Store, user_id: &str, id: &str) {
    let later = store.clock.now().0 + 1_000_000;
    for sql in [
        format!(
            "INSERT INTO identity_grants (id, user_id, scopes, created_at, authenticated_at, \
             expires_at, sequence) VALUES ('{id}', '{user_id}', 'predict', 1, 1, {later}, 0)"
        ),
        format!("INSERT INTO identity_logins VALUES ('{id}', '{user_id}', 1, 'basic', '')"),
        format!("INSERT INTO identity_consents VALUES ('{user_id}', 'C', 'openid', 1)"),
        format!(
            "INSERT INTO identity_sessions SELECT digest, '{user_id}', 1, {later} \
             FROM identity_api_keys LIMIT 1"
        ),
    ] {
        execute(&store.db().await, sql).await;
    }
}

async fn count(store: &Store, what: &str) -> i64 {
    use sea_orm::{ConnectionTrait as _, Statement};
    let sql = format!("SELECT COUNT(*) AS n FROM {what}");
    let db = store.db().await;
    let count = db.read(async |connection| -> Result<i64, DbError> {
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        let row = connection.query_one_raw(statement).await?.unwrap();
        Ok(row.try_get("", "n")?)
    });
    count.await.unwrap()
}

async fn a_change_of_what_was_not_seen_is_refused(store: &Store) {
    let identity = store.identity().await;
    let user = add(&identity, "ann", &[]).await;
    let (by, path) = (operator(), format!("/v1/users/{}", user.id));
    let tag = ask(&identity, &by, "GET", &path, "").await.headers["etag"].clone();
    let tag = tag.to_str().unwrap();
    let known = ask_with(&identity, &by, "GET", &path, "", &[("if-none-match", tag)]).await;
    assert_eq!(known.status, 304);
    let mut changes = tokio::task::JoinSet::new();
    for n in 0..10 {
        let (identity, by) = (Arc::clone(&identity), by.clone());
        let (path, tag) = (path.clone(), tag.to_owned());
        changes.spawn(async move {
            let body = json!({"name": format!("Ann {n}")}).to_string();
            let headers = [("if-match", tag.as_str())];
            ask_with(&identity, &by, "PATCH", &path, &body, &headers)
                .await
                .status
        });
    }
    let mut statuses = changes.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200, "one is the first");
    assert!(
        statuses[1..].iter().all(|status| *status == 412),
        "{statuses:?}"
    );
    for stale in [tag, "\"x\"", "", "W/\"2-0\"", "\"-\"", "2"] {
        let headers = [("if-match", stale)];
        let put = json!({"name": "x", "email": "x@example.org"}).to_string();
        for (method, body) in [("PATCH", "{}"), ("DELETE", ""), ("PUT", put.as_str())] {
            let answer = ask_with(&identity, &by, method, &path, body, &headers).await;
            assert_eq!(answer.status, 412, "{method} {stale}");
        }
    }
    let login = "UPDATE identity_users SET login_count = 1, last_login_at = 5";
    execute(&store.db().await, login.into()).await;
    let shown = ask(&identity, &by, "GET", &path, "").await;
    assert_ne!(
        shown.headers["etag"], "\"2-0\"",
        "a cache must not hide a login"
    );
    for current in ["\"9-9\", \"2-0\"", "*"] {
        let headers = [("if-match", current)];
        let answer = ask_with(&identity, &by, "PATCH", &path, "{}", &headers).await;
        assert_eq!(
            answer.status, 200,
            "{current}: a login is no change to be lost"
        );
    }
}

async fn own_passwords_are_changed_by_who_knows_them(store: &Store) {
    let identity = store.identity().await;
    let new = NewUser {
        name: "Ann".into(),
        email: "ann@example.org".into(),
        password: Some("the first password".into()),
        ..NewUser::default()
    };
    let user = identity.users().create(&OPERATOR, new).await.unwrap();
    assert!(user.has_password);
    grant(store, user.id.as_str(), "OTHER").await;
    grant_only(store, user.id.as_str(), "OWN").await;
    let by = Caller {
        session_id: Some(SessionId::from_stored("OWN")),
        client_id: None,
        ..as_user(&user)
    };
    let path = "/v1/me/password";
    let change = |current: &str, new: &str| {
        json!({"current_password": current, "new_password": new}).to_string()
    };
    let wrong = ask(
        &identity,
        &by,
        "PUT",
        path,
        &change("not it", "the second one"),
    )
    .await;
    assert_eq!(wrong.status, 422);
    assert_eq!(wrong.error.unwrap().details()[0].field, "current_password");
    for choice in ["short", "ANN@example.org"] {
        let weak = ask(
            &identity,
            &by,
            "PUT",
            path,
            &change("the first password", choice),
        )
        .await;
        assert_eq!(
            weak.error.unwrap().details()[0].field,
            "new_password",
            "{choice}"
        );
    }
    assert_eq!(
        count(store, "identity_grants WHERE revoked_at IS NULL").await,
        2
    );
    let done = change("the first password", "the second one");
    assert_eq!(ask(&identity, &by, "PUT", path, &done).await.status, 204);
    let left = "identity_grants WHERE revoked_at IS NULL AND id = 'OWN'";
    assert_eq!(count(store, left).await, 1);
    assert_eq!(
        count(store, "identity_grants WHERE revoked_at IS NULL").await,
        1
    );
    assert_eq!(
        ask(&identity, &by, "PUT", path, &done).await.status,
        422,
        "it is the old one"
    );
    let nobody = ask(&identity, &operator(), "PUT", path, &done).await;
    assert_eq!(nobody.status, 403);
    assert_eq!(
        ask(&identity, &operator(), "GET", "/v1/me/logins", "")
            .await
            .status,
        403
    );
    assert_eq!(
        ask(&identity, &by, "GET", "/v1/me/logins", "").await.status,
        200
    );
}

async fn grant_only(store: &Store, user_id: &str, id: &str) {
    let later = store.clock.now().0 + 1_000_000;
    let sql = format!(
        "INSERT INTO identity_grants (id, user_id, scopes, created_at, authenticated_at, \
         expires_at, sequence) VALUES ('{id}', '{user_id}', 'predict', 1, 1, {later}, 0)"
    );
    execute(&store.db().await, sql).await;
}

async fn lists_are_walked_to_the_end_in_every_form(store: &Store) {
    let identity = store.identity().await;
    let mut made = Vec::new();
    for n in 0..7 {
        made.push(
            add(&identity, &format!("user{n}"), &[])
                .await
                .id
                .to_string(),
        );
        store.clock.advance(Duration::from_millis(1));
    }
    for begin in ["limit=3", "per_page=3", "offset=0&limit=3", "limit=1000"] {
        for path in ["/v1/users", "/users"] {
            let found = walk(&identity, &operator(), &format!("{path}?{begin}")).await;
            let ids: Vec<&str> = found
                .iter()
                .filter_map(|user| user["id"].as_str())
                .collect();
            assert_eq!(ids, made, "{path} {begin}");
        }
    }
    let first = ask(&identity, &operator(), "GET", "/v1/users?limit=3", "").await;
    let cursor = first.json["pagination"]["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let link = first.headers["link"].to_str().unwrap();
    assert!(link.contains(&format!(
        "</v1/users?limit=3&cursor={cursor}>; rel=\"next\""
    )));
    // A cursor keeps its place whatever is added or removed around it.
    identity
        .users()
        .delete(&OPERATOR, &made[2], Expected::Any)
        .await
        .unwrap();
    let next = format!("/v1/users?limit=3&cursor={cursor}");
    let next = ask(&identity, &operator(), "GET", &next, "").await;
    assert_eq!(next.json["data"][0]["id"], made[3].as_str());
    let foreign = format!("/v1/api-keys?cursor={cursor}");
    assert_eq!(
        ask(&identity, &operator(), "GET", &foreign, "")
            .await
            .status,
        400
    );
    let pages = ask(
        &identity,
        &operator(),
        "GET",
        "/v1/users?page=2&per_page=4",
        "",
    )
    .await;
    assert_eq!(pages.json["pagination"]["total"], 6);
    assert_eq!(pages.json["data"].as_array().unwrap().len(), 2);
}

async fn lists_are_filtered(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", &[Role::Admin, Role::Viewer]).await;
    add(&identity, "bea", &[Role::Viewer]).await;
    let cid = add(
        &identity,
        "cid",
        &[Role::Service, Role::DataScientist, Role::Viewer],
    )
    .await;
    let disable = UserChange {
        disabled: Some(true),
        username: Some("sid".into()),
        ..UserChange::default()
    };
    let disabled = identity
        .users()
        .update(&OPERATOR, &cid.id, disable, Expected::Any);
    disabled.await.unwrap();
    let names = async |query: &str| {
        let found = walk(
            &identity,
            &operator(),
            &format!("/v1/users?limit=1&{query}"),
        )
        .await;
        let mut names: Vec<_> = found
            .iter()
            .map(|user| user["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort_unstable();
        names.join(" ")
    };
    assert_eq!(names("role=viewer").await, "ann bea cid");
    assert_eq!(names("role=admin").await, "ann");
    assert_eq!(names("role=service").await, "cid");
    assert_eq!(names("role=viewer&disabled=false").await, "ann bea");
    assert_eq!(names("disabled=true").await, "cid");
    assert_eq!(names("email=BEA%40example.org").await, "bea");
    assert_eq!(names("username=Sid").await, "cid");
    assert_eq!(names("username=cid%40example.org").await, "");
    assert_eq!(names("username=%25").await, "", "it is no pattern");
    for (query, field) in [
        ("role=emperor", "role"),
        ("disabled=maybe", "disabled"),
        ("sort=name", "sort"),
        ("email=%00", "email"),
        ("limit=0", "limit"),
    ] {
        let path = format!("/v1/users?{query}");
        let answer = ask(&identity, &operator(), "GET", &path, "").await;
        assert_eq!(answer.status, 422, "{query}");
        assert_eq!(answer.error.unwrap().details()[0].field, field);
    }
}

async fn other_processes_hear_of_changes(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    let user = add(&here, "ann", &[Role::Viewer]).await;
    let by: Actor = actor(&as_user(&user));
    let key = here
        .keys()
        .create(&by, "hers", scopes("jobs:read"), None)
        .await
        .unwrap();
    let now = store.clock.now();
    crate::while_watching(
        &there,
        Box::pin(async {
            let known = || caller(&there, key.secret.expose(), now).is_some();
            crate::soon("the key", known).await;
            let demote = UserChange {
                roles: Some(RoleSet::default()),
                ..UserChange::default()
            };
            here.users()
                .update(&OPERATOR, &user.id, demote, Expected::Any)
                .await
                .unwrap();
            let powerless =
                || caller(&there, key.secret.expose(), now).is_some_and(|c| c.scopes.is_empty());
            crate::soon("the demotion", powerless).await;
            here.users()
                .delete(&OPERATOR, &user.id, Expected::Any)
                .await
                .unwrap();
            crate::soon("the removal", || !known()).await;
        }),
    )
    .await;
}

async fn equal_creations_with_one_key_make_one_user(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    let mut tries = tokio::task::JoinSet::new();
    for n in 0..10 {
        let identity = Arc::clone(if n % 2 == 0 { &here } else { &there });
        tries.spawn(async move {
            let body = r#"{"name": "Ann", "email": "ann@example.org"}"#;
            let key = [("idempotency-key", "once")];
            ask_with(&identity, &operator(), "POST", "/v1/users", body, &key).await
        });
    }
    let answers = tries.join_all().await;
    assert!(answers.iter().any(|answer| answer.status == 201));
    for answer in &answers {
        // A request that comes while the first is at work is told to come again.
        assert!(matches!(answer.status, 201 | 409), "{:?}", answer.error);
    }
    let body = r#"{"name": "Ann", "email": "ann@example.org"}"#;
    let key = [("idempotency-key", "once")];
    let replay = ask_with(&here, &operator(), "POST", "/v1/users", body, &key).await;
    assert_eq!(
        (replay.status, &replay.headers["idempotency-replayed"]),
        (201, &"true".parse().unwrap())
    );
    let user = identity_of(&here).await;
    assert_eq!(replay.json["id"], user.id.as_str());
    assert_eq!(
        replay.headers["location"],
        format!("/v1/users/{}", user.id).as_str()
    );
}

async fn identity_of(identity: &Identity) -> User {
    let mut users = identity.users().list(UserFilter::default()).await.unwrap();
    assert_eq!(users.len(), 1);
    users.remove(0)
}
