//! What a step of the wall clock does: an administrator sets it, a time server answers late, a machine
//! wakes up.

use std::time::Duration;

use auspex_identity::Identity;
use auspex_kernel::{Clock, Random, Scope, ScopeSet, Timestamp};

use crate::ask::{as_operator, ask, walk};
use crate::person::{PASSWORD, add, bearer, log_in, part, refresh};
use crate::store::{ISSUER, Store, config, execute, settings, texts};
use crate::{OPERATOR, START, caller, scopes, soon, while_watching};

contract! {
    keys_end_at_their_date
    tokens_are_good_from_their_date_to_their_end
    an_old_refresh_token_does_not_become_young
    what_was_revoked_stays_so
    forgotten_revocations_come_back_with_the_time
    a_step_back_is_not_forgotten_while_the_database_fails
    throttling_goes_on
    lists_stay_in_order
    a_walk_meets_each_key_once
}

const HOUR: Duration = Duration::from_hours(1);
const DAYS: Duration = Duration::from_hours(240);

async fn keys_end_at_their_date(store: &Store) {
    let identity = store.identity().await;
    let end = START + 2 * HOUR;
    let key = identity
        .keys()
        .create(&OPERATOR, "k", scopes("predict"), Some(end));
    let key = key.await.unwrap();
    let known = |now| caller(&identity, key.secret.expose(), now).is_some();
    for (now, is_known) in [
        (START + HOUR, true),
        (START - HOUR, true),
        (START - DAYS, true),
        (end, false),
        (START + DAYS, false),
        (START, true),
    ] {
        store.clock.step(now);
        assert_eq!(known(store.clock.now()), is_known, "{}", now.to_rfc3339());
    }
    // What has ended is forgotten, and loaded again.
    let watched = Box::pin(async {
        store.clock.step(START + DAYS);
        identity.maintenance().tend(Timestamp(0)).await.unwrap();
        identity.reload().await.unwrap();
        assert!(!known(START));
        tokio::time::sleep(Duration::from_millis(300)).await;
        store.clock.step(START);
        soon("the step back", || known(START)).await;
    });
    while_watching(&identity, watched).await;
}

async fn tokens_are_good_from_their_date_to_their_end(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let session = log_in(&identity, "ann", PASSWORD).await;
    let access = session.text("access_token");
    for (now, is_known) in [
        (START, true),
        (START + HOUR, false),
        (START - HOUR, false),
        (START + DAYS, false),
        (START - DAYS, false),
        (START + Duration::from_mins(14), true),
    ] {
        store.clock.step(now);
        let known = bearer(&identity, store, &access);
        assert_eq!(known.is_some(), is_known, "{}", now.to_rfc3339());
    }
    let mut refresh_token = session.text("refresh_token");
    for now in [START + HOUR, START - HOUR, START + DAYS, START - DAYS] {
        store.clock.step(now);
        let next = refresh(&identity, &refresh_token).await;
        assert_eq!(next.status, 200, "{:?}", next.error);
        let claims = part(&next.text("access_token"), 1);
        let now_s = now.unix_seconds();
        assert_eq!(
            (&claims["iat"], &claims["exp"]),
            (&now_s.into(), &(now_s + 900).into())
        );
        assert!(bearer(&identity, store, &next.text("access_token")).is_some());
        refresh_token = next.text("refresh_token");
    }
    store.clock.step(START + 3 * DAYS);
    assert_eq!(refresh(&identity, &refresh_token).await.status, 401);
}

async fn an_old_refresh_token_does_not_become_young(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    for back in [HOUR, DAYS] {
        store.clock.step(START);
        let first = log_in(&identity, "ann", PASSWORD)
            .await
            .text("refresh_token");
        let second = refresh(&identity, &first).await.text("refresh_token");
        store.clock.step(START - back);
        assert_eq!(refresh(&identity, &first).await.status, 401, "it was used");
        assert_eq!(
            refresh(&identity, &second).await.status,
            401,
            "and so the session ended"
        );
    }
}

async fn what_was_revoked_stays_so(store: &Store) {
    let identity = store.identity().await;
    let ann = add(&identity, "ann", "viewer").await;
    add(&identity, "bob", "viewer").await;
    for back in [HOUR, DAYS] {
        store.clock.step(START);
        let of_ann = log_in(&identity, "ann", PASSWORD)
            .await
            .text("access_token");
        let of_bob = log_in(&identity, "bob", PASSWORD)
            .await
            .text("access_token");
        store.clock.step(START - back);
        let revoked = identity
            .sessions()
            .revoke_all_of_user(&OPERATOR, &ann)
            .await;
        assert_eq!(revoked.unwrap().1, 1);
        let jti = part(&of_bob, 1)["jti"].as_str().unwrap().to_owned();
        identity
            .sessions()
            .revoke_jti(&OPERATOR, &jti)
            .await
            .unwrap();
        store.clock.step(START + Duration::from_mins(1));
        identity.maintenance().tend(Timestamp(0)).await.unwrap();
        for process in [&identity, &store.identity().await] {
            assert!(bearer(process, store, &of_ann).is_none());
            assert!(bearer(process, store, &of_bob).is_none());
        }
    }
}

async fn forgotten_revocations_come_back_with_the_time(store: &Store) {
    let identity = store.identity().await;
    let ann = add(&identity, "ann", "viewer").await;
    add(&identity, "bob", "viewer").await;
    let access = async |name| {
        let session = log_in(&identity, name, PASSWORD).await;
        session.text("access_token")
    };
    let (of_ann, of_bob) = (access("ann").await, access("bob").await);
    let revoked = identity.sessions().revoke_all_of_user(&OPERATOR, &ann);
    assert_eq!(revoked.await.unwrap().1, 1);
    let jti = part(&of_bob, 1)["jti"].as_str().unwrap().to_owned();
    let revoked = identity.sessions().revoke_jti(&OPERATOR, &jti);
    revoked.await.unwrap();
    let watched = Box::pin(async {
        store.clock.step(START + DAYS);
        identity.maintenance().tend(Timestamp(0)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        store.clock.step(START);
        for token in [&of_ann, &of_bob] {
            let is_refused = || bearer(&identity, store, token).is_none();
            soon("the step back", is_refused).await;
        }
    });
    while_watching(&identity, watched).await;
}

async fn a_step_back_is_not_forgotten_while_the_database_fails(store: &Store) {
    let identity = store.identity().await;
    let ann = add(&identity, "ann", "viewer").await;
    let session = log_in(&identity, "ann", PASSWORD).await;
    let token = session.text("access_token");
    let revoked = identity.sessions().revoke_all_of_user(&OPERATOR, &ann);
    assert_eq!(revoked.await.unwrap().1, 1);
    let rename = async |from: &str, to: &str| {
        let sql = format!("ALTER TABLE {from} RENAME TO {to}");
        execute(&store.db().await, sql).await;
    };
    let watched = Box::pin(async {
        store.clock.step(START + DAYS);
        identity.maintenance().tend(Timestamp(0)).await.unwrap();
        // A round or two follow before the database fails, and some while it does.
        tokio::time::sleep(Duration::from_millis(600)).await;
        rename("identity_clients", "away").await;
        store.clock.step(START);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(bearer(&identity, store, &token).is_some());
        rename("away", "identity_clients").await;
        let is_refused = || bearer(&identity, store, &token).is_none();
        soon("the step back", is_refused).await;
    });
    while_watching(&identity, watched).await;
}

async fn throttling_goes_on(store: &Store) {
    let mut settings = settings();
    settings["throttle"]["failures_max"] = 2.into();
    let config = serde_json::from_value(settings).unwrap();
    let identity = store.identity_with(config).await;
    for name in ["one", "two"] {
        assert_eq!(log_in(&identity, name, "wrong").await.status, 401);
    }
    for now in [
        START,
        START + HOUR,
        START - HOUR,
        START + DAYS,
        START - DAYS,
    ] {
        store.clock.step(now);
        let refused = log_in(&identity, "three", "wrong").await;
        assert_eq!(refused.status, 429, "{}", now.to_rfc3339());
    }
    store.clock.advance(Duration::from_mins(10));
    assert_eq!(log_in(&identity, "three", "wrong").await.status, 401);
}

fn ids(rows: &[serde_json::Value]) -> Vec<String> {
    let id = |row: &serde_json::Value| row["id"].as_str().unwrap().to_owned();
    rows.iter().map(id).collect()
}

/// Users are listed oldest first, the audit record newest first.
async fn lists_stay_in_order(store: &Store) {
    let identity = store.identity().await;
    let all: ScopeSet = Scope::ALL.iter().copied().collect();
    let operator = as_operator(all);
    let mut made = Vec::new();
    for (name, now) in [
        ("one", START),
        ("two", START - HOUR),
        ("three", START - DAYS),
        ("four", START + HOUR),
        ("five", START + DAYS),
        ("six", START),
    ] {
        store.clock.step(now);
        store.clock.advance(Duration::from_millis(1));
        // Enough ids for the next millisecond, which real time would bring by itself.
        for _ in 0..1_000 {
            store.clock.for_id();
        }
        made.push(add(&identity, name, "viewer").await);
    }
    // Another start of the program, with its wall clock set back.
    let restarted = Clock::manual(START - DAYS);
    let identity = Identity::open(
        store.db().await,
        restarted,
        Random::system(),
        config(),
        ISSUER,
    );
    let identity = identity.await.unwrap();
    made.push(add(&identity, "seven", "viewer").await);

    let users = walk(&identity, &operator, "/v1/users?limit=2").await;
    assert_eq!(ids(&users), made);
    let recorded = async |column: &str| {
        let sql =
            format!("SELECT {column} FROM identity_audit WHERE action = 'user.create' ORDER BY id");
        texts(&store.db().await, &sql).await
    };
    let expected: Vec<_> = made.iter().map(|id| format!("user:{id}")).collect();
    assert_eq!(recorded("target").await, expected);
    let dates = recorded("CAST(at AS TEXT)").await;
    let last = (START - DAYS).0.to_string();
    assert_eq!(dates.last(), Some(&last), "dates follow the wall clock");
}

async fn a_walk_meets_each_key_once(store: &Store) {
    let identity = store.identity().await;
    let all: ScopeSet = Scope::ALL.iter().copied().collect();
    let operator = as_operator(all);
    let create = async |name: &str| {
        store.clock.advance(Duration::from_secs(1));
        let key = identity
            .keys()
            .create(&OPERATOR, name, scopes("predict"), None);
        key.await.unwrap().key.id.to_string()
    };
    let mut made = Vec::new();
    for name in ["a", "b", "c", "d"] {
        made.push(create(name).await);
    }
    made.reverse();
    for now in [START - HOUR, START + HOUR, START - DAYS, START + DAYS] {
        store.clock.step(START + HOUR / 2);
        let page = ask(&identity, &operator, "GET", "/v1/api-keys?limit=2", "").await;
        let mut met = ids(page.json["data"].as_array().unwrap());
        store.clock.step(now);
        create("meanwhile").await;
        let next = page.json["pagination"]["links"]["next"].as_str().unwrap();
        met.extend(ids(&walk(&identity, &operator, next).await));
        for id in &made {
            assert_eq!(
                met.iter().filter(|met| *met == id).count(),
                usize::from(true),
                "{met:?}"
            );
        }
    }
}
