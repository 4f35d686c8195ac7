//! HTTP Basic: hashed once, remembered for a while, forgotten with the password.

use std::sync::Arc;
use std::time::Duration;

use auspex_identity::{Role, UserChange};
use auspex_kernel::{ApiError, Caller, Credential};

use crate::person::{PASSWORD, add, basic, caller_by, change, disable, remembers};
use crate::store::{Store, texts};
use crate::{OPERATOR, soon, while_watching};

contract! {
    who_shows_a_password_many_times_at_once_logs_in_once
    a_password_is_remembered_for_a_while
    another_password_ends_the_old_one_at_once
    a_demoted_or_disabled_user_is_noticed_at_once
    what_is_not_a_name_with_a_password_is_refused
    guessing_is_stopped_and_who_is_in_stays_in
}

async fn by(
    identity: &Arc<auspex_identity::Identity>,
    store: &Store,
    text: &[u8],
) -> Result<Arc<Caller>, ApiError> {
    caller_by(identity, store, Credential::Basic(text)).await
}

async fn logins(store: &Store) -> usize {
    let sql = "SELECT id FROM identity_logins WHERE method = 'basic'";
    texts(&store.db().await, sql).await.len()
}

async fn who_shows_a_password_many_times_at_once_logs_in_once(store: &Store) {
    let identity = store.identity().await;
    let id = add(&identity, "ann", "service").await;
    let text = basic("Ann", PASSWORD);
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (identity, text) = (Arc::clone(&identity), text.clone());
        let store = store.shared();
        requests.spawn(async move { by(&identity, &store, &text).await.unwrap() });
    }
    for caller in requests.join_all().await {
        assert_eq!(caller.subject.to_string(), format!("user:{id}"));
        assert_eq!(caller.scopes, Role::Service.scopes());
    }
    assert_eq!(logins(store).await, 1);
    let counted = "SELECT CAST(login_count AS TEXT) FROM identity_users";
    assert_eq!(texts(&store.db().await, counted).await, ["1"]);
}

async fn a_password_is_remembered_for_a_while(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "service").await;
    let text = basic("ann", PASSWORD);
    assert!(!remembers(&identity, store, &text));
    by(&identity, store, &text).await.unwrap();
    store.clock.advance(Duration::from_secs(59));
    assert!(remembers(&identity, store, &text));
    assert!(
        !remembers(&identity, store, &basic("ANN", PASSWORD)),
        "that very text"
    );
    store.clock.advance(Duration::from_secs(1));
    assert!(!remembers(&identity, store, &text));
    by(&identity, store, &text).await.unwrap();
    assert_eq!(logins(store).await, 2);
}

async fn another_password_ends_the_old_one_at_once(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    let id = add(&here, "ann", "service").await;
    there.reload().await.unwrap();
    let (old, new) = (basic("ann", PASSWORD), basic("ann", "another password"));
    for process in [&here, &there] {
        by(process, store, &old).await.unwrap();
        assert!(remembers(process, store, &old));
    }
    while_watching(
        &there,
        Box::pin(async {
            let other = UserChange {
                password: Some(Some("another password".into())),
                ..UserChange::default()
            };
            change(&here, &id, other).await;
            assert!(!remembers(&here, store, &old));
            soon("the new password", || !remembers(&there, store, &old)).await;
        }),
    )
    .await;
    for process in [&here, &there] {
        assert_eq!(by(process, store, &old).await.unwrap_err().status(), 401);
        by(process, store, &new).await.unwrap();
    }
}

async fn a_demoted_or_disabled_user_is_noticed_at_once(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    let id = add(&here, "ann", "service").await;
    there.reload().await.unwrap();
    let text = basic("ann", PASSWORD);
    for process in [&here, &there] {
        by(process, store, &text).await.unwrap();
    }
    let demoted = UserChange {
        roles: Some([Role::Viewer].into_iter().collect()),
        ..UserChange::default()
    };
    change(&here, &id, demoted).await;
    assert_eq!(
        by(&here, store, &text).await.unwrap().scopes,
        Role::Viewer.scopes()
    );
    while_watching(
        &there,
        Box::pin(async {
            disable(&here, &id).await;
            assert!(!remembers(&here, store, &text));
            soon("the end", || !remembers(&there, store, &text)).await;
        }),
    )
    .await;
    assert_eq!(by(&here, store, &text).await.unwrap_err().status(), 401);
    let enabled = UserChange {
        disabled: Some(false),
        ..UserChange::default()
    };
    change(&here, &id, enabled).await;
    assert!(!remembers(&here, store, &text), "they have to show it anew");
    by(&here, store, &text).await.unwrap();
}

async fn what_is_not_a_name_with_a_password_is_refused(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "service").await;
    let key = identity
        .keys()
        .create(&OPERATOR, "k", "predict".parse().unwrap(), None);
    let key = key.await.unwrap();
    let good = basic("ann", PASSWORD);
    for text in [
        b"".to_vec(),
        b"****".to_vec(),
        good[..good.len() - 1].to_vec(),
        [good.as_slice(), b"="].concat(),
        basic("ann", ""),
        basic("", PASSWORD),
        basic("ann\0", PASSWORD),
        basic("x", key.secret.expose()),
        basic("ann", &"x".repeat(100_000)),
    ] {
        assert_eq!(by(&identity, store, &text).await.unwrap_err().status(), 401);
    }
    by(&identity, store, &good).await.unwrap();
}

async fn guessing_is_stopped_and_who_is_in_stays_in(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "service").await;
    let good = basic("ann", PASSWORD);
    by(&identity, store, &good).await.unwrap();
    for n in 0..20 {
        let wrong = by(&identity, store, &basic("ann", &format!("guess {n}"))).await;
        assert_eq!(wrong.unwrap_err().status(), 401, "{n}");
    }
    let refused = by(&identity, store, &basic("ann", "guess"))
        .await
        .unwrap_err();
    assert_eq!(refused.status(), 429);
    by(&identity, store, &good).await.unwrap();
    store.clock.advance(Duration::from_mins(10));
    let wrong = by(&identity, store, &basic("ann", "guess"))
        .await
        .unwrap_err();
    assert_eq!(wrong.status(), 401);
}
