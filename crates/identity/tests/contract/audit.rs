//! The audit record.

use std::time::Duration;

use auspex_identity::{Expected, NewUser, UserChange};
use auspex_kernel::Timestamp;
use auspex_kernel::audit::{self, Filter, Outcome};
use auspex_kernel::db::DbError;
use auspex_kernel::page::Slice;

use crate::ask::{as_operator, ask};
use crate::person::log_in;
use crate::store::Store;
use crate::{OPERATOR, START, scopes};

contract! {
    what_is_done_is_recorded_without_names_or_addresses
    a_caller_who_is_refused_again_and_again_fills_no_record
    the_record_is_filtered
    lines_between_two_times_are_in_their_order
}

async fn what_is_done_is_recorded_without_names_or_addresses(store: &Store) {
    let identity = store.identity().await;
    let new = NewUser {
        name: "Annabel".into(),
        email: "annabel@example.org".into(),
        roles: "viewer".parse().into_iter().collect(),
        password: Some("correct horse".into()),
        ..NewUser::default()
    };
    let user = identity.users().create(&OPERATOR, new).await.unwrap();
    let change = UserChange {
        name: Some("Beatrix".into()),
        email: Some("beatrix@example.org".into()),
        roles: Some("service".parse().into_iter().collect()),
        disabled: Some(true),
        password: Some(Some("battery staple".into())),
        ..UserChange::default()
    };
    store.clock.advance(Duration::from_millis(1));
    let changed = identity
        .users()
        .update(&OPERATOR, &user.id, change, Expected::Any);
    changed.await.unwrap();
    let lines = "action || COALESCE(' ' || detail, '')";
    let mut seen = store
        .recorded(lines, "action <> 'signing_key.rotate'")
        .await;
    assert_ne!(seen[0], "user.create viewer", "newest first");
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            "user.create viewer",
            "user.disable",
            "user.password",
            "user.roles service",
            "user.update name email",
        ]
    );
    let all = "actor || action || COALESCE(target, '') || COALESCE(detail, '') \
               || COALESCE(address, '')";
    let text = store.recorded(all, "TRUE").await.join(" ").to_lowercase();
    for word in ["annabel", "beatrix", "example", "horse", "staple", "argon2"] {
        assert!(!text.contains(word), "{word}");
    }
}

async fn a_caller_who_is_refused_again_and_again_fills_no_record(store: &Store) {
    let identity = store.identity().await;
    let body = r#"{"name": "x", "scopes": ["users:write"]}"#;
    for n in 0..200 {
        let by = as_operator(scopes("keys:write"));
        let refused = ask(&identity, &by, "POST", "/v1/api-keys", body).await;
        assert_eq!(refused.status, 403, "{n}");
    }
    let denied = "action = 'key.create' AND outcome = 'denied'";
    assert_eq!(store.recorded("detail", denied).await, ["users:write"; 20]);
    // Strangers have lines of their own.
    let unknown = log_in(&identity, "nobody", "a guess").await;
    assert_eq!(unknown.status, 401);
    let strangers = "action = 'login' AND outcome = 'denied'";
    assert_eq!(store.recorded("detail", strangers).await, ["password"]);
    store.clock.advance(Duration::from_mins(10));
    identity.maintenance().tend(Timestamp(0)).await.unwrap();
    let counted = "action = 'key.create' AND detail LIKE '% more'";
    let counted = store.recorded("detail", counted).await;
    assert_eq!(counted, ["users:write, 180 more"]);
}

async fn the_record_is_filtered(store: &Store) {
    let identity = store.identity().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let name = format!("k{n}");
        let new = identity
            .keys()
            .create(&OPERATOR, &name, scopes("predict"), None);
        let id = new.await.unwrap().key.id;
        store.clock.advance(Duration::from_millis(1));
        if n % 2 == 0 {
            identity
                .keys()
                .revoke(&OPERATOR, id.as_str())
                .await
                .unwrap();
            store.clock.advance(Duration::from_millis(1));
        }
        ids.push(id);
    }
    let db = store.db().await;
    let found = async |filter: Filter, offset| {
        let slice = Slice::Skip { offset, count: 100 };
        let page = db.read(async |connection| audit::page(connection, filter, slice).await);
        let found: Result<_, DbError> = page.await;
        found.unwrap().0
    };
    let all = found(Filter::default(), 0).await;
    assert_eq!(all.len(), 9, "and the first signing key");
    assert!(all.is_sorted_by(|a, b| a.id > b.id), "{all:?}");
    assert_eq!(found(Filter::default(), 3).await, all[3..]);
    let revoked = Filter {
        action: Some("key.revoke".into()),
        ..Filter::default()
    };
    let revoked = found(revoked, 0).await;
    let expected = all.iter().filter(|line| line.action == "key.revoke");
    assert_eq!(revoked, expected.cloned().collect::<Vec<_>>());
    assert_eq!(revoked.len(), 3);
    let of_one = Filter {
        target: Some(format!("key:{}", ids[2])),
        ..Filter::default()
    };
    assert_eq!(found(of_one, 0).await.len(), 2);
    let by_operator = Filter {
        actor: Some("operator".into()),
        outcome: Some(Outcome::Success),
        ..Filter::default()
    };
    assert_eq!(found(by_operator, 0).await.len(), 9);
    let denied = Filter {
        outcome: Some(Outcome::Denied),
        ..Filter::default()
    };
    assert_eq!(found(denied, 0).await, []);
}

async fn lines_between_two_times_are_in_their_order(store: &Store) {
    let identity = store.identity().await;
    let at = |minute: u64| START + Duration::from_secs(60 * minute);
    // The wall clock is set back in between.
    for minute in [10, 20, 30, 5, 15, 20] {
        store.clock.step(at(minute));
        let name = format!("at {minute}");
        let made = identity
            .keys()
            .create(&OPERATOR, &name, scopes("predict"), None);
        made.await.unwrap();
    }
    let db = store.db().await;
    let minutes = async |from: Option<u64>, to: Option<u64>, count: u64| {
        let filter = Filter {
            action: Some("key.create".into()),
            from: from.map(at),
            to: to.map(at),
            ..Filter::default()
        };
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let slice = Slice::Seek { after, count };
            let position = filter.position();
            let filter = filter.clone();
            let page = db.read(async |connection| audit::page(connection, filter, slice).await);
            let page: Result<_, DbError> = page.await;
            let lines = page.unwrap().0;
            let Some(last) = lines.last() else {
                return seen;
            };
            after = Some(position(last));
            let minute = |line: &audit::Line| (line.at.0 - START.0) / 60_000_000;
            seen.extend(lines.iter().map(minute));
        }
    };
    for count in [1, 2, 100] {
        assert_eq!(minutes(Some(10), Some(30), count).await, [20, 20, 15, 10]);
        assert_eq!(minutes(Some(20), None, count).await, [30, 20, 20]);
        assert_eq!(minutes(None, Some(10), count).await, [5]);
        assert_eq!(minutes(Some(30), Some(10), count).await, [0; 0]);
    }
}
