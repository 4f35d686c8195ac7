//! What is deleted by age, and what is not.

use std::time::Duration;

use auspex_dialogues::{Config, Reason, RetentionRule, Status};
use auspex_kernel::page::Slice;

use crate::store::{Store, number};
use crate::{OPERATOR, dialogue, texts};

contract! {
    texts_go_by_age_and_rule_and_records_after_them
}

const DAY: Duration = Duration::from_hours(24);

fn rule(language: Option<&str>, purpose: Option<&str>, days: u32) -> RetentionRule {
    RetentionRule {
        language: language.map(str::to_owned),
        purpose: purpose.map(str::to_owned),
        days,
    }
}

async fn texts_go_by_age_and_rule_and_records_after_them(store: &Store) {
    let config = Config {
        retention: vec![
            rule(Some("es"), None, 1),
            rule(Some("pt"), Some("research"), 2),
            rule(None, None, 10),
        ],
        decisions_days: 20,
        ..Config::default()
    };
    let dialogues = store.open(config).await.unwrap();
    let usual = dialogues.usual_statement();
    let mut research = usual.clone();
    research.purpose = "research".to_owned();
    let kept = dialogue(&dialogues, "Maria", "usual", &["usual"; 3]);
    dialogues.grant(&kept, &usual).await.unwrap();
    let short = dialogue(&dialogues, "Maria", "research", &["research"; 2]);
    dialogues.grant(&short, &research).await.unwrap();
    let refused = dialogue(&dialogues, "Maria", "refused", &["no"]);
    dialogues.refuse(&refused, &usual).await.unwrap();

    store.clock.advance(3 * DAY);
    let counts = async || {
        let expired = dialogues.expired().await.unwrap();
        expired
            .iter()
            .map(|expired| expired.count)
            .collect::<Vec<_>>()
    };
    assert_eq!(counts().await, [0, 2, 0]);
    assert_eq!(texts(&dialogues).await.len(), 5, "it was only counted");
    let expired = dialogues.apply_retention(&OPERATOR).await.unwrap();
    let deleted: Vec<_> = expired.iter().map(|expired| expired.count).collect();
    assert_eq!(deleted, [0, 2, 0, 0]);
    assert_eq!(texts(&dialogues).await, ["usual"; 3]);
    let slice = Slice::Seek {
        after: None,
        count: 10,
    };
    let (told, _) = dialogues.withdrawals(None, slice).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].reason, Reason::Expired);
    assert_eq!(told[0].dialogue, dialogues.pseudonyms().dialogue(&short.id));
    let without_ids = "SELECT COUNT(*) FROM dialogues_dialogues \
                       WHERE status = 'consented' AND ids_id IS NULL";
    let without_ids = number(&store.db().await, without_ids).await;
    assert_eq!(without_ids, 1, "the ids go with the last text");

    // A record goes when it is old and its texts are not held.
    let status = async |id| {
        let decided = dialogues.decided(dialogues.pseudonyms().dialogue(id)).await;
        decided.unwrap().map(|decided| decided.status)
    };
    assert_eq!(status(&short.id).await, Some(Status::Consented));
    store.clock.advance(18 * DAY);
    dialogues.apply_retention(&OPERATOR).await.unwrap();
    assert_eq!(texts(&dialogues).await, [""; 0]);
    for id in [&kept.id, &short.id, &refused.id] {
        assert_eq!(status(id).await, None);
    }
}
