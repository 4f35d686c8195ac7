//! Sessions and tokens that an operator ends.

use auspex_identity::IdentityError;

use crate::person::{PASSWORD, add, basic, bearer, caller_by, log_in, part, refresh};
use crate::store::{Store, execute, texts};
use crate::{OPERATOR, scopes, soon, while_watching};
use auspex_kernel::{ApiError, Credential};
use std::time::Duration;

contract! {
    all_sessions_of_a_user_end_and_nothing_else
    one_session_ends
    one_token_ends
    what_names_nothing_is_refused
    ends_that_meet_do_not_wait_for_each_other
}

async fn audit(store: &Store) -> Vec<String> {
    let sql = "SELECT actor || ' ' || target FROM identity_audit WHERE action = 'token.revoke'";
    texts(&store.db().await, sql).await
}

async fn all_sessions_of_a_user_end_and_nothing_else(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    let ann = add(&here, "ann", "viewer").await;
    add(&here, "bob", "viewer").await;
    there.reload().await.unwrap();
    let key = here.keys().create(&OPERATOR, "k", scopes("predict"), None);
    let key = key.await.unwrap();
    let mut hers = Vec::new();
    for _ in 0..3 {
        hers.push(log_in(&here, "ann", PASSWORD).await);
    }
    let bobs = log_in(&here, "bob", PASSWORD).await;
    while_watching(
        &there,
        Box::pin(async {
            let ended = here
                .sessions()
                .revoke_all_of_user(&OPERATOR, "ANN")
                .await
                .unwrap();
            assert_eq!((ended.0.to_string(), ended.1), (ann.clone(), 3));
            for answer in &hers {
                let token = answer.text("access_token");
                assert!(bearer(&here, store, &token).is_none());
                soon("her end", || bearer(&there, store, &token).is_none()).await;
                assert_eq!(
                    refresh(&here, &answer.text("refresh_token")).await.status,
                    401
                );
            }
        }),
    )
    .await;
    for process in [&here, &there] {
        assert!(bearer(process, store, &bobs.text("access_token")).is_some());
    }
    assert!(bearer(&here, store, key.secret.expose()).is_some());
    let password = basic("ann", PASSWORD);
    assert!(
        caller_by(&here, store, Credential::Basic(&password))
            .await
            .is_ok()
    );
    let again = here
        .sessions()
        .revoke_all_of_user(&OPERATOR, &ann)
        .await
        .unwrap();
    assert_eq!((again.0.to_string(), again.1), (ann.clone(), 0));
    assert_eq!(
        audit(store).await,
        [
            format!("operator user:{ann}"),
            format!("operator user:{ann}")
        ]
    );
}

async fn one_session_ends(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    add(&here, "ann", "viewer").await;
    there.reload().await.unwrap();
    let (one, other) = (
        log_in(&here, "ann", PASSWORD).await,
        log_in(&here, "ann", PASSWORD).await,
    );
    let token = one.text("access_token");
    let sid = part(&token, 1)["sid"].as_str().unwrap().to_owned();
    assert!(bearer(&there, store, &token).is_some());
    while_watching(
        &there,
        Box::pin(async {
            assert!(
                here.sessions()
                    .revoke(&OPERATOR, &sid.to_lowercase())
                    .await
                    .unwrap()
            );
            assert!(bearer(&here, store, &token).is_none());
            soon("its end", || bearer(&there, store, &token).is_none()).await;
        }),
    )
    .await;
    assert_eq!(refresh(&here, &one.text("refresh_token")).await.status, 401);
    assert_eq!(
        refresh(&here, &other.text("refresh_token")).await.status,
        200
    );
    assert!(!here.sessions().revoke(&OPERATOR, &sid).await.unwrap());
    assert_eq!(audit(store).await, [format!("operator grant:{sid}")]);
}

async fn one_token_ends(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    add(&here, "ann", "viewer").await;
    there.reload().await.unwrap();
    let first = log_in(&here, "ann", PASSWORD).await;
    let second = refresh(&here, &first.text("refresh_token")).await;
    let token = first.text("access_token");
    let jti = part(&token, 1)["jti"].as_str().unwrap().to_owned();
    assert!(bearer(&there, store, &token).is_some());
    while_watching(
        &there,
        Box::pin(async {
            here.sessions().revoke_jti(&OPERATOR, &jti).await.unwrap();
            assert!(bearer(&here, store, &token).is_none());
            soon("its end", || bearer(&there, store, &token).is_none()).await;
        }),
    )
    .await;
    let restarted = store.identity().await;
    assert!(bearer(&restarted, store, &token).is_none());
    for process in [&here, &there, &restarted] {
        assert!(bearer(process, store, &second.text("access_token")).is_some());
    }
    assert_eq!(audit(store).await, [format!("operator token:{jti}")]);
}

async fn what_names_nothing_is_refused(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let answer = log_in(&identity, "ann", PASSWORD).await;
    let token = answer.text("access_token");
    let long = "x".repeat(100_000);
    for text in ["", "nobody", "a\0", "0000000000000000", &token, &long] {
        let user = identity
            .sessions()
            .revoke_all_of_user(&OPERATOR, text)
            .await;
        assert!(matches!(user, Err(IdentityError::UserNotFound)));
        let session = identity.sessions().revoke(&OPERATOR, text).await;
        let error = session.unwrap_err();
        assert!(matches!(error, IdentityError::SessionNotFound));
        assert_eq!(ApiError::from(error).status(), 404);
        if text != "0000000000000000" {
            let error = identity
                .sessions()
                .revoke_jti(&OPERATOR, text)
                .await
                .unwrap_err();
            assert!(matches!(error, IdentityError::Invalid(_)));
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
    }
    assert!(bearer(&identity, store, &token).is_some());
    assert!(audit(store).await.is_empty());
}

/// Logouts and reuse take a session first; who ends all of a user takes all of them. On PostgreSQL
/// they could wait for each other.
async fn ends_that_meet_do_not_wait_for_each_other(store: &Store) {
    let identity = store.identity().await;
    let id = add(&identity, "ann", "viewer").await;
    for _ in 0..3 {
        let mut sessions = Vec::new();
        for _ in 0..6 {
            let first = log_in(&identity, "ann", PASSWORD).await;
            let second = refresh(&identity, &first.text("refresh_token")).await;
            refresh(&identity, &second.text("refresh_token")).await;
            sessions.push(first);
        }
        let mut ends = tokio::task::JoinSet::new();
        for (n, answer) in sessions.into_iter().enumerate() {
            let identity = std::sync::Arc::clone(&identity);
            let id = id.clone();
            ends.spawn(async move {
                let sid = &part(&answer.text("access_token"), 1)["sid"];
                match n % 3 {
                    0 => {
                        let session = sid.as_str().unwrap();
                        identity
                            .sessions()
                            .revoke(&OPERATOR, session)
                            .await
                            .map(|_| 401)
                    }
                    1 => Ok(refresh(&identity, &answer.text("refresh_token"))
                        .await
                        .status),
                    _ => identity
                        .sessions()
                        .revoke_all_of_user(&OPERATOR, &id)
                        .await
                        .map(|_| 401),
                }
            });
        }
        for ended in ends.join_all().await {
            assert_eq!(ended.unwrap(), 401);
        }
    }
}

/// Of a damaged row in a SQLite file; PostgreSQL refuses such texts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_revocation_never_lets_anything_in_again() {
    for (table, id, time) in [
        ("identity_revoked_tokens", "jti", "expires_at"),
        ("identity_grants", "id", "revoked_at"),
    ] {
        let store = Store::sqlite();
        let here = store.identity().await;
        add(&here, "ann", "viewer").await;
        let one = log_in(&here, "ann", PASSWORD).await.text("access_token");
        let claims = part(&one, 1);
        let text = |claim: &str| claims[claim].as_str().unwrap().to_owned();
        match id {
            "jti" => here
                .sessions()
                .revoke_jti(&OPERATOR, &text("jti"))
                .await
                .unwrap(),
            _ => assert!(
                here.sessions()
                    .revoke(&OPERATOR, &text("sid"))
                    .await
                    .unwrap()
            ),
        }
        store.clock.advance(Duration::from_secs(1));
        let other = log_in(&here, "ann", PASSWORD).await;
        let damage = |column: &str, value: &str| {
            let of = if id == "jti" {
                "1"
            } else {
                "revoked_at IS NOT NULL"
            };
            format!("UPDATE {table} SET {column} = {value} WHERE {of}")
        };
        let db = store.db().await;

        execute(&db, damage(time, "'soon'")).await;
        here.reload().await.unwrap();
        for process in [&here, &store.identity().await] {
            assert!(bearer(process, &store, &one).is_none(), "{table}");
            assert!(bearer(process, &store, &other.text("access_token")).is_some());
        }

        execute(&db, damage(id, "CAST(x'ff6d' AS TEXT)")).await;
        here.reload().await.unwrap();
        let restarted = store.identity().await;
        for process in [&here, &restarted] {
            assert!(bearer(process, &store, &one).is_none(), "{table}");
            // Nobody can say that it was not this one.
            assert!(bearer(process, &store, &other.text("access_token")).is_none());
        }
        store.clock.advance(Duration::from_secs(1));
        let next = refresh(&here, &other.text("refresh_token")).await;
        here.reload().await.unwrap();
        for process in [&here, &restarted] {
            assert!(bearer(process, &store, &next.text("access_token")).is_some());
        }
    }
}
