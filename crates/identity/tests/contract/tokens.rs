//! Logging in, refreshing and logging out.

use std::sync::Arc;
use std::time::Duration;

use auspex_identity::{Expected, Role, UserChange};
use auspex_kernel::id::UserId;
use auspex_kernel::{Clock, Credential, ScopeSet};

use crate::ask::actor;
use crate::person::{
    PASSWORD, add, basic, bearer, bearer_scopes, caller_by, change, disable, hash, log_in, log_out,
    part, refresh,
};
use crate::store::{Store, execute, settings, texts};
use crate::{OPERATOR, soon, while_watching};

contract! {
    a_login_gives_tokens_and_is_recorded_when_answered
    every_refusal_looks_the_same
    a_refreshed_session_goes_on
    logging_out_ends_the_session
    reuse_of_a_refresh_token_ends_the_session
    a_refresh_token_younger_than_a_restored_database_is_no_theft
    simultaneous_refreshes_all_succeed
    a_lost_reply_can_be_had_again_for_a_few_seconds
    without_grace_every_reuse_ends_the_session
    sessions_and_tokens_end_in_time
    who_is_disabled_or_gone_gets_no_more_tokens
    who_is_demoted_loses_scopes_at_once
    damaged_refresh_tokens_are_refused
    two_logins_at_once_may_both_renew_the_hash
    what_another_process_changed_counts_at_a_login
    clocks_may_differ_a_little
}

/// Nobody follows the other process here, as in the moments between two rounds.
async fn what_another_process_changed_counts_at_a_login(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    let id = add(&there, "ann", "viewer").await;
    let access = log_in(&here, "ann", PASSWORD).await.text("access_token");
    assert!(bearer(&here, store, &access).is_some(), "added elsewhere");
    let roles = UserChange {
        roles: Some([Role::Operator].into_iter().collect()),
        password: Some(Some("another battery".into())),
        ..UserChange::default()
    };
    change(&there, &id, roles).await;
    let text = basic("ann", "another battery");
    let caller = caller_by(&here, store, Credential::Basic(&text)).await;
    assert_eq!(caller.unwrap().scopes, Role::Operator.scopes());
    assert!(
        bearer(&here, store, &access).is_none(),
        "logged out elsewhere"
    );
}

async fn a_login_gives_tokens_and_is_recorded_when_answered(store: &Store) {
    let identity = store.identity().await;
    let id = add(&identity, "ann", "data-scientist viewer").await;
    let answer = log_in(&identity, "ANN", PASSWORD).await;
    assert_eq!(answer.status, 200, "{:?}", answer.error);
    assert_eq!(answer.json["token_type"], "Bearer");
    assert_eq!(answer.json["expires_in"], 900);
    let caller = bearer(&identity, store, &answer.text("access_token")).unwrap();
    assert_eq!(caller.subject.to_string(), format!("user:{id}"));
    let scopes: ScopeSet = answer.text("scope").parse().unwrap();
    assert_eq!(caller.scopes, scopes);
    assert!(scopes.to_string().contains("predict") && scopes.to_string().contains("metrics:read"));

    let db = store.db().await;
    let now = store.clock.now().0;
    let of_user = |columns: &str| format!("SELECT {columns} FROM identity_users WHERE id = '{id}'");
    let text = |column| of_user(&format!("CAST({column} AS TEXT)"));
    assert_eq!(texts(&db, &text("last_login_at")).await, [now.to_string()]);
    assert_eq!(texts(&db, &text("login_count")).await, ["1"]);
    let logins = "SELECT user_id || ' ' || method || ' ' || address FROM identity_logins";
    assert_eq!(
        texts(&db, logins).await,
        [format!("{id} password 192.0.2.0/24")]
    );
    let audit = "SELECT actor || ' ' || action || ' ' || outcome FROM identity_audit \
                 WHERE action = 'login'";
    assert_eq!(
        texts(&db, audit).await,
        [format!("user:{id} login success")]
    );
}

async fn every_refusal_looks_the_same(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let off = add(&identity, "off", "viewer").await;
    disable(&identity, &off).await;
    let without = add(&identity, "without", "viewer").await;
    let no_password = UserChange {
        password: Some(None),
        ..UserChange::default()
    };
    change(&identity, &without, no_password).await;
    let mut told = Vec::new();
    for (name, password) in [
        ("ann", "wrong"),
        ("nobody", PASSWORD),
        ("off", PASSWORD),
        ("without", PASSWORD),
        ("without", ""),
        ("a\0b", PASSWORD),
        ("", ""),
    ] {
        let answer = log_in(&identity, name, password).await;
        assert_eq!(answer.status, 401, "{name}");
        told.push(format!("{:?}", answer.error.unwrap()));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    let denied = "SELECT actor || ' ' || outcome FROM identity_audit WHERE action = 'login'";
    let denied = texts(&store.db().await, denied).await;
    assert_eq!(denied, ["anonymous denied"; 7]);
}

async fn a_refreshed_session_goes_on(store: &Store) {
    let identity = store.identity().await;
    let id = add(&identity, "ann", "viewer").await;
    let first = log_in(&identity, "ann", PASSWORD).await;
    store.clock.advance(Duration::from_mins(10));
    let second = refresh(&identity, &first.text("refresh_token")).await;
    assert_eq!(second.status, 200, "{:?}", second.error);
    assert_ne!(first.text("refresh_token"), second.text("refresh_token"));
    assert_eq!(first.text("scope"), second.text("scope"));
    for answer in [&first, &second] {
        let caller = bearer(&identity, store, &answer.text("access_token")).unwrap();
        assert_eq!(caller.user_id, UserId::parse(&id));
    }
    store.clock.advance(Duration::from_mins(5));
    assert!(bearer(&identity, store, &first.text("access_token")).is_none());
    assert!(bearer(&identity, store, &second.text("access_token")).is_some());
}

async fn logging_out_ends_the_session(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    add(&here, "ann", "viewer").await;
    let mine = log_in(&here, "ann", PASSWORD).await;
    let other = log_in(&here, "ann", PASSWORD).await;
    there.reload().await.unwrap();
    let token = mine.text("access_token");
    assert!(bearer(&there, store, &token).is_some());
    while_watching(
        &there,
        Box::pin(async {
            assert_eq!(log_out(&here, store, &token).await, 204);
            assert!(bearer(&here, store, &token).is_none());
            soon("the logout", || bearer(&there, store, &token).is_none()).await;
        }),
    )
    .await;
    assert_eq!(
        refresh(&here, &mine.text("refresh_token")).await.status,
        401
    );
    assert_eq!(log_out(&here, store, &token).await, 401);
    assert!(bearer(&here, store, &other.text("access_token")).is_some());
    assert_eq!(
        refresh(&here, &other.text("refresh_token")).await.status,
        200
    );
    let key = here
        .keys()
        .create(&OPERATOR, "k", "predict".parse().unwrap(), None);
    let key = key.await.unwrap();
    assert_eq!(log_out(&here, store, key.secret.expose()).await, 409);
}

async fn reuse_of_a_refresh_token_ends_the_session(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let first = log_in(&identity, "ann", PASSWORD).await;
    let second = refresh(&identity, &first.text("refresh_token")).await;
    let third = refresh(&identity, &second.text("refresh_token")).await;
    let tokens = [&first, &second, &third].map(|answer| answer.text("access_token"));
    for token in &tokens {
        assert!(bearer(&identity, store, token).is_some());
    }
    let reused = refresh(&identity, &first.text("refresh_token")).await;
    assert_eq!(reused.status, 401);
    for token in &tokens {
        assert!(bearer(&identity, store, token).is_none(), "at once");
    }
    assert_eq!(
        refresh(&identity, &third.text("refresh_token"))
            .await
            .status,
        401
    );
    let audit = "SELECT outcome FROM identity_audit WHERE action = 'token.reuse'";
    assert_eq!(texts(&store.db().await, audit).await, ["denied"]);
}

async fn a_refresh_token_younger_than_a_restored_database_is_no_theft(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let first = log_in(&identity, "ann", PASSWORD).await;
    let second = refresh(&identity, &first.text("refresh_token")).await;
    let third = refresh(&identity, &second.text("refresh_token")).await;
    // The backup was made before the refreshes.
    let restored = "UPDATE identity_grants SET sequence = 1, refreshed_at = NULL";
    execute(&store.db().await, restored.into()).await;
    for younger in [&third, &second, &third] {
        let refused = refresh(&identity, &younger.text("refresh_token")).await;
        assert_eq!(refused.status, 401);
    }
    let token = first.text("access_token");
    assert!(bearer(&identity, store, &token).is_some(), "nothing ended");
    let audit = "SELECT outcome FROM identity_audit WHERE action = 'token.reuse'";
    assert!(texts(&store.db().await, audit).await.is_empty());
    let known = first.text("refresh_token");
    assert_eq!(refresh(&identity, &known).await.status, 200);
    // One that is known and used is a theft as ever.
    refresh(&identity, &third.text("refresh_token")).await;
    let next = refresh(&identity, &second.text("refresh_token")).await;
    let next = refresh(&identity, &next.text("refresh_token")).await;
    assert_eq!(
        (next.status, refresh(&identity, &known).await.status),
        (200, 401)
    );
    assert!(
        bearer(&identity, store, &token).is_none(),
        "all of it ended"
    );
}

/// A client with ten requests under way, whose access token ends.
async fn simultaneous_refreshes_all_succeed(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    add(&here, "ann", "viewer").await;
    there.reload().await.unwrap();
    let first = log_in(&here, "ann", PASSWORD).await.text("refresh_token");
    let mut requests = tokio::task::JoinSet::new();
    for n in 0..10 {
        let (process, token) = (if n % 2 == 0 { &here } else { &there }, first.clone());
        let process = Arc::clone(process);
        requests.spawn(async move { refresh(&process, &token).await });
    }
    let answers = requests.join_all().await;
    let mut next: Vec<String> = answers.iter().map(|a| a.text("refresh_token")).collect();
    next.dedup();
    assert_eq!(next.len(), 1, "all get the same successor");
    for answer in &answers {
        assert!(bearer(&here, store, &answer.text("access_token")).is_some());
    }
    let after = refresh(&here, &next[0]).await;
    assert_eq!(after.status, 200, "nobody is locked out");
    // Once the successor is used, who shows the first one has stolen it, or was stolen from.
    assert_eq!(refresh(&here, &first).await.status, 401);
    assert_eq!(
        refresh(&here, &after.text("refresh_token")).await.status,
        401
    );
}

async fn a_lost_reply_can_be_had_again_for_a_few_seconds(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let first = log_in(&identity, "ann", PASSWORD)
        .await
        .text("refresh_token");
    let second = refresh(&identity, &first).await.text("refresh_token");
    store.clock.advance(Duration::from_secs(9));
    assert_eq!(
        refresh(&identity, &first).await.text("refresh_token"),
        second
    );
    store.clock.advance(Duration::from_secs(1));
    assert_eq!(refresh(&identity, &first).await.status, 401);
    assert_eq!(refresh(&identity, &second).await.status, 401);
}

async fn without_grace_every_reuse_ends_the_session(store: &Store) {
    let mut settings = settings();
    settings["tokens"]["refresh_grace_s"] = 0.into();
    let identity = store.identity_with(serde_json::from_value(settings).unwrap());
    let identity = identity.await;
    add(&identity, "ann", "viewer").await;
    let first = log_in(&identity, "ann", PASSWORD)
        .await
        .text("refresh_token");
    let second = refresh(&identity, &first).await.text("refresh_token");
    assert_eq!(refresh(&identity, &first).await.status, 401);
    assert_eq!(refresh(&identity, &second).await.status, 401);
}

async fn sessions_and_tokens_end_in_time(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let first = log_in(&identity, "ann", PASSWORD).await;
    store.clock.advance(Duration::from_secs(899));
    let token = first.text("access_token");
    assert!(bearer(&identity, store, &token).is_some());
    store.clock.advance(Duration::from_secs(1));
    assert!(bearer(&identity, store, &token).is_none());
    store
        .clock
        .advance(Duration::from_hours(30 * 24) - Duration::from_secs(901));
    let last = refresh(&identity, &first.text("refresh_token")).await;
    assert_eq!(last.status, 200);
    store.clock.advance(Duration::from_secs(1));
    let late = refresh(&identity, &last.text("refresh_token")).await;
    assert_eq!(late.status, 401, "refreshing does not make it longer");
}

async fn who_is_disabled_or_gone_gets_no_more_tokens(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    let off = add(&here, "off", "viewer").await;
    let gone = add(&here, "gone", "viewer").await;
    there.reload().await.unwrap();
    let of_off = log_in(&here, "off", PASSWORD).await;
    let of_gone = log_in(&here, "gone", PASSWORD).await;
    let mut tokens = Vec::new();
    for answer in [&of_off, &of_gone] {
        let token = answer.text("access_token");
        // A key of their own as well.
        let owner = actor(&bearer(&here, store, &token).unwrap());
        let key = here
            .keys()
            .create(&owner, "own", Role::Viewer.scopes(), None);
        tokens.push(key.await.unwrap().secret.expose().to_owned());
        tokens.push(token);
    }
    there.reload().await.unwrap();
    assert!(
        tokens
            .iter()
            .all(|token| bearer(&there, store, token).is_some())
    );
    while_watching(
        &there,
        Box::pin(async {
            disable(&here, &off).await;
            here.users()
                .delete(&OPERATOR, &gone, Expected::Any)
                .await
                .unwrap();
            for token in &tokens {
                assert!(bearer(&here, store, token).is_none(), "at once");
                soon("their end", || bearer(&there, store, token).is_none()).await;
            }
        }),
    )
    .await;
    for answer in [of_off, of_gone] {
        assert_eq!(
            refresh(&here, &answer.text("refresh_token")).await.status,
            401
        );
    }
}

async fn who_is_demoted_loses_scopes_at_once(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    add(&here, "bob", "admin").await;
    let id = add(&here, "ann", "admin").await;
    there.reload().await.unwrap();
    let first = log_in(&here, "ann", PASSWORD).await;
    let token = first.text("access_token");
    assert_eq!(bearer_scopes(&there, store, &token), Some(ScopeSet::all()));
    let viewer = Role::Viewer.scopes();
    while_watching(
        &there,
        Box::pin(async {
            let demoted = UserChange {
                roles: Some([Role::Viewer].into_iter().collect()),
                ..UserChange::default()
            };
            change(&here, &id, demoted).await;
            assert_eq!(bearer_scopes(&here, store, &token), Some(viewer));
            let is_viewer = || bearer_scopes(&there, store, &token) == Some(viewer);
            soon("the demotion", is_viewer).await;
        }),
    )
    .await;
    // Nor does a new token claim what others, who have only the token to go by, would believe.
    let second = refresh(&here, &first.text("refresh_token")).await;
    assert_eq!(second.text("scope"), viewer.to_string());
    let claims = part(&second.text("access_token"), 1);
    assert_eq!(claims["scope"], viewer.to_string());
    assert_eq!(claims["role"], "viewer");
}

async fn damaged_refresh_tokens_are_refused(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let good = log_in(&identity, "ann", PASSWORD)
        .await
        .text("refresh_token");
    let numbered = good.rsplit_once('_').unwrap().0.to_owned();
    let mut wrong = vec![
        String::new(),
        "axr_".into(),
        "axr___".into(),
        numbered,
        good.replacen("_1_", "_2_", 1),
        good.replacen("_1_", "_01_", 1),
        good.replacen("axr_", "AXR_", 1),
        format!("{good}A"),
        format!("{good}="),
        good[..good.len() - 1].to_owned(),
        "a\0b".repeat(1_000),
    ];
    for index in 4..good.len() {
        let mut damaged = good.clone().into_bytes();
        damaged[index] = if damaged[index] == b'A' { b'B' } else { b'A' };
        wrong.push(String::from_utf8(damaged).unwrap());
    }
    for token in wrong {
        let answer = refresh(&identity, &token).await;
        assert_eq!(answer.status, 401, "{token}");
    }
    assert_eq!(
        refresh(&identity, &good).await.status,
        200,
        "none of them did harm"
    );
}

/// After the parameters were raised, the first login stores a better hash while the second is still
/// being checked by the old one.
async fn two_logins_at_once_may_both_renew_the_hash(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let old = format!(
        "UPDATE identity_users SET password_hash = '{}'",
        hash(PASSWORD, 8_192)
    );
    execute(&store.db().await, old).await;
    let logins = [(); 4].map(|()| log_in(&identity, "ann", PASSWORD));
    let [a, b, c, d] = logins;
    let answers = tokio::join!(a, b, c, d);
    let statuses = [answers.0, answers.1, answers.2, answers.3].map(|answer| answer.status);
    assert_eq!(statuses, [200; 4]);
    let hashes = texts(
        &store.db().await,
        "SELECT password_hash FROM identity_users",
    )
    .await;
    assert!(hashes[0].contains("m=19456,"), "{}", hashes[0]);
}

async fn clocks_may_differ_a_little(store: &Store) {
    let ahead = Store {
        clock: Clock::manual(store.clock.now() + Duration::from_secs(30)),
        ..store.shared()
    };
    let (here, there) = (store.identity().await, ahead.identity().await);
    add(&there, "ann", "viewer").await;
    here.reload().await.unwrap();
    let session = log_in(&there, "ann", PASSWORD).await;
    assert!(bearer(&here, store, &session.text("access_token")).is_some());
    let next = refresh(&here, &session.text("refresh_token")).await;
    assert!(bearer(&there, &ahead, &next.text("access_token")).is_some());
    let again = refresh(&there, &session.text("refresh_token")).await;
    assert_eq!(again.status, 401, "the grace is over by either clock");
}
