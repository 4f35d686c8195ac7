//! The audit record.

use std::time::Duration;

use auspex_identity::{Expected, NewUser, UserChange};
use serde_json::Value;

use crate::OPERATOR;
use crate::ask::{as_key, ask, walk};
use crate::store::Store;

contract! {
    what_is_done_is_recorded_without_names_or_addresses
    the_record_is_walked_and_filtered
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
    let by = as_key("READER", "audit:read".parse().unwrap());
    let lines = walk(&identity, &by, "/v1/audit").await;
    let mut seen: Vec<(&str, Option<&str>)> = lines
        .iter()
        .filter(|line| line["action"] != "signing_key.rotate")
        .map(|line| (line["action"].as_str().unwrap(), line["detail"].as_str()))
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            ("user.create", Some("viewer")),
            ("user.disable", None),
            ("user.password", None),
            ("user.roles", Some("service")),
            ("user.update", Some("name email")),
        ]
    );
    assert_ne!(lines[0]["action"], "user.create", "newest first");
    let text = Value::from(lines).to_string().to_lowercase();
    for word in ["annabel", "beatrix", "example", "horse", "staple", "argon2"] {
        assert!(!text.contains(word), "{word}");
    }
}

async fn the_record_is_walked_and_filtered(store: &Store) {
    let identity = store.identity().await;
    let scopes = || "predict".parse().unwrap();
    for n in 0..5 {
        let name = format!("k{n}");
        let new = identity.keys().create(&OPERATOR, &name, scopes(), None);
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
    }
    let by = as_key("READER", "audit:read".parse().unwrap());
    for begin in ["limit=3", "page=1&per_page=3", "offset=0&limit=3"] {
        let lines = walk(&identity, &by, &format!("/v1/audit?{begin}")).await;
        let ids: Vec<&str> = lines
            .iter()
            .filter_map(|line| line["id"].as_str())
            .collect();
        assert_eq!(ids.len(), 9, "and the first signing key");
        assert!(ids.is_sorted_by(|a, b| a >= b), "{begin}: {ids:?}");
        let of = |action: &'static str| {
            let lines = lines.iter();
            lines
                .filter(move |line| line["action"] == action)
                .cloned()
                .collect::<Vec<_>>()
        };
        let revoked = walk(
            &identity,
            &by,
            &format!("/v1/audit?action=key.revoke&{begin}"),
        )
        .await;
        assert_eq!(revoked, of("key.revoke"));
        assert_eq!(revoked.len(), 3);
        let target = revoked[1]["target"].as_str().unwrap();
        let both = walk(
            &identity,
            &by,
            &format!("/v1/audit?target={target}&{begin}"),
        )
        .await;
        assert_eq!(both.len(), 2);
    }
    let by_operator = walk(&identity, &by, "/v1/audit?actor=operator&outcome=success").await;
    assert_eq!(by_operator.len(), 9);
    assert!(
        walk(&identity, &by, "/v1/audit?outcome=denied")
            .await
            .is_empty()
    );
    for query in ["action=key", "outcome=maybe", "who=me"] {
        let answer = ask(&identity, &by, "GET", &format!("/v1/audit?{query}"), "").await;
        assert_eq!(answer.status, 422, "{query}");
    }
}
