//! Decisions, and what comes of two that meet.

use std::time::Duration;

use auspex_dialogues::{
    Decided, Decision, Dialogue, DialoguesError, MessageFilter, Reason, Status,
};
use auspex_kernel::Timestamp;
use auspex_kernel::page::Slice;
use futures_util::future::join_all;

use crate::store::{Store, number};
use crate::{OPERATOR, dialogue, read, texts};

contract! {
    a_yes_stores_every_text_once_and_in_order
    a_no_leaves_a_record_without_texts
    the_same_answer_again_changes_nothing
    a_no_after_a_yes_withdraws_and_there_is_no_way_back
    two_answers_at_once_leave_one_outcome
    yeses_at_once_are_each_stored_once
    a_dialogue_belongs_to_one_customer
    a_yes_after_an_erasure_is_unknown_and_the_customer_may_come_back
    filters_are_combined
}

const ALL: Slice = Slice::Seek {
    after: None,
    count: 1_000,
};

async fn a_yes_stores_every_text_once_and_in_order(store: &Store) {
    let dialogues = store.dialogues().await;
    let many: Vec<String> = (0..2_500).map(|n| format!("text {n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let new = dialogue(&dialogues, "Maria", "first", &many);
    let decided = dialogues
        .grant(&new, &dialogues.usual_statement())
        .await
        .unwrap();
    assert_eq!((decided.consent, decided.texts), (true, 2_500));
    // Another process reads them too, by pages.
    let other = store.dialogues().await;
    let mut read = Vec::new();
    let mut stream = other
        .stream(&OPERATOR, MessageFilter::default(), true)
        .await
        .unwrap();
    while let Some(some) = stream.next().await.unwrap() {
        read.extend(some);
    }
    assert_eq!(read.len(), 2_500);
    for (message, text) in read.iter().rev().zip(&many) {
        assert_eq!(message.text.as_str(), *text);
        assert_eq!(message.language, "pt-BR");
        let ids = message.ids.as_ref().unwrap();
        assert_eq!(
            (ids.customer.expose(), ids.dialogue.expose()),
            ("Maria", "first")
        );
    }
    assert!(read.is_sorted_by(|newer, older| {
        (newer.received_at, newer.id) > (older.received_at, older.id)
    }));
    let db = store.db().await;
    let stored = "SELECT COUNT(*) FROM dialogues_messages WHERE ordinal < 2500";
    assert_eq!(number(&db, stored).await, 2_500);
}

async fn a_no_leaves_a_record_without_texts(store: &Store) {
    let dialogues = store.dialogues().await;
    let refused = dialogue(&dialogues, "Maria", "first", &["a", "b"]);
    let statement = dialogues.usual_statement();
    let decided = dialogues.refuse(&refused, &statement).await.unwrap();
    assert_eq!((decided.consent, decided.texts), (false, 2));
    assert_eq!(texts(&dialogues).await, [""; 0]);
    let customer = refused.customer_ref;
    let (consents, _) = dialogues.consents(&OPERATOR, customer, ALL).await.unwrap();
    assert_eq!(consents.len(), 1);
    assert_eq!(consents[0].decision, Decision::Refused);
    assert_eq!(consents[0].statement, statement);
    let keys = number(
        &store.keys_db().await,
        "SELECT COUNT(*) FROM dialogues_keys",
    )
    .await;
    assert_eq!(keys, 0, "nothing is encrypted for them");
}

async fn the_same_answer_again_changes_nothing(store: &Store) {
    let dialogues = store.dialogues().await;
    let statement = dialogues.usual_statement();
    let yes = dialogue(&dialogues, "Maria", "yes", &["a", "b"]);
    let no = dialogue(&dialogues, "Maria", "no", &["c"]);
    dialogues.grant(&yes, &statement).await.unwrap();
    dialogues.refuse(&no, &statement).await.unwrap();
    let again = |texts, consent| Decided {
        consent,
        texts,
        is_repeated: true,
    };
    assert_eq!(
        dialogues.grant(&yes, &statement).await.unwrap(),
        again(2, true)
    );
    assert_eq!(
        dialogues.refuse(&no, &statement).await.unwrap(),
        again(1, false)
    );
    let (yes, no) = (
        dialogues.pseudonyms().dialogue(&yes.id),
        dialogues.pseudonyms().dialogue(&no.id),
    );
    let answer =
        async |dialogue, consent| dialogues.answer_again(dialogue, consent, &statement).await;
    assert_eq!(answer(yes, true).await.unwrap(), again(2, true));
    assert_eq!(answer(no, false).await.unwrap(), again(1, false));
    let refused = answer(no, true).await;
    assert!(
        matches!(refused, Err(DialoguesError::NoWayBack)),
        "{refused:?}"
    );
    let db = store.db().await;
    assert_eq!(
        number(&db, "SELECT COUNT(*) FROM dialogues_consents").await,
        2
    );
    assert_eq!(texts(&dialogues).await, ["a", "b"]);
}

async fn a_no_after_a_yes_withdraws_and_there_is_no_way_back(store: &Store) {
    let dialogues = store.dialogues().await;
    let statement = dialogues.usual_statement();
    let many = vec!["x"; 2_100];
    let long = dialogue(&dialogues, "Maria", "long", &many);
    let kept = dialogue(&dialogues, "Maria", "kept", &["kept"]);
    dialogues.grant(&long, &statement).await.unwrap();
    dialogues.grant(&kept, &statement).await.unwrap();
    store.clock.advance(Duration::from_secs(1));
    let reference = dialogues.pseudonyms().dialogue(&long.id);
    let withdrawn = dialogues
        .answer_again(reference, false, &statement)
        .await
        .unwrap();
    assert_eq!((withdrawn.consent, withdrawn.texts), (false, 2_100));
    assert_eq!(texts(&dialogues).await, ["kept"]);
    let decided = dialogues.decided(reference).await.unwrap().unwrap();
    assert_eq!(decided.status, Status::Withdrawn);
    let (told, _) = dialogues
        .withdrawals(Some(dialogues.now()), ALL)
        .await
        .unwrap();
    assert_eq!(
        (told.len(), told[0].dialogue, told[0].reason),
        (1, reference, Reason::Withdrawn)
    );
    let again = dialogues.grant(&long, &statement).await;
    assert!(matches!(again, Err(DialoguesError::NoWayBack)), "{again:?}");
    let (consents, _) = dialogues
        .consents(&OPERATOR, long.customer_ref, ALL)
        .await
        .unwrap();
    let decisions: Vec<_> = consents.iter().map(|consent| consent.decision).collect();
    assert_eq!(
        decisions,
        [Decision::Granted, Decision::Granted, Decision::Withdrawn]
    );
    // Whoever has read the list so far finds the rest after it, though no time has passed.
    let at = told[0].at;
    // All that are left, at once.
    let all = dialogues
        .withdraw_all(&OPERATOR, long.customer_ref, &statement)
        .await
        .unwrap();
    assert_eq!((all.dialogues, all.texts), (1, 1));
    assert_eq!(texts(&dialogues).await, [""; 0]);
    let later = Some(Timestamp(at.0 + 1));
    let (told, _) = dialogues.withdrawals(later, ALL).await.unwrap();
    assert_eq!(told.len(), 1);
}

async fn two_answers_at_once_leave_one_outcome(store: &Store) {
    let (one, other) = (store.dialogues().await, store.dialogues().await);
    let statement = one.usual_statement();
    for round in 0..20 {
        let id = format!("dialogue {round}");
        let new = dialogue(&one, "Maria", &id, &["a", "b", "c"]);
        let reference = one.pseudonyms().dialogue(&new.id);
        let (yes, no) = tokio::join!(one.grant(&new, &statement), other.refuse(&new, &statement));
        let decided = one.decided(reference).await.unwrap().unwrap();
        let filter = MessageFilter {
            dialogue: Some(reference),
            ..MessageFilter::default()
        };
        assert_eq!(read(&one, filter).await.len(), 0, "whoever was first");
        assert!(no.is_ok(), "{no:?}");
        match decided.status {
            Status::Refused => assert!(matches!(yes, Err(DialoguesError::NoWayBack)), "{yes:?}"),
            Status::Withdrawn => assert_eq!(yes.unwrap().texts, 3),
            Status::Consented => panic!("a no was answered"),
        }
    }
    let same = dialogue(&one, "Maria", "same", &["a", "b", "c"]);
    let (one_yes, other_yes) =
        tokio::join!(one.grant(&same, &statement), other.grant(&same, &statement));
    let (one_yes, other_yes) = (one_yes.unwrap(), other_yes.unwrap());
    assert_eq!((one_yes.texts, other_yes.texts), (3, 3));
    assert_ne!(one_yes.is_repeated, other_yes.is_repeated);
    assert_eq!(texts(&one).await, ["a", "b", "c"]);
}

async fn yeses_at_once_are_each_stored_once(store: &Store) {
    let dialogues = store.dialogues().await;
    let statement = dialogues.usual_statement();
    let erased = dialogue(&dialogues, "Erased", "late", &["late"]);
    store.clock.advance(Duration::from_secs(1));
    dialogues
        .erase(&OPERATOR, erased.customer_ref)
        .await
        .unwrap();
    // Everybody says yes to two dialogues, twice.
    let mut new = vec![erased];
    for customer in 0..20 {
        for part in ["a", "b"] {
            let id = format!("{customer}{part}");
            let said = ["one", "two", "three"].map(|text| format!("{id} {text}"));
            let said = said.each_ref().map(String::as_str);
            let name = format!("customer {customer}");
            new.push(dialogue(&dialogues, &name, &id, &said));
            new.push(dialogue(&dialogues, &name, &id, &said));
        }
    }
    let granted = new.iter().map(|one| dialogues.grant(one, &statement));
    let granted = join_all(granted).await;
    assert!(matches!(granted[0], Err(DialoguesError::Unknown)));
    for pair in granted[1..].chunks(2) {
        let (first, second) = (pair[0].as_ref().unwrap(), pair[1].as_ref().unwrap());
        assert_eq!((first.texts, second.texts), (3, 3));
        assert_ne!(first.is_repeated, second.is_repeated);
    }
    let other = dialogue(&dialogues, "other", "other", &["other"]);
    let claimed: Vec<_> = new[1..]
        .iter()
        .map(|one| Dialogue {
            id: one.id.clone(),
            ..other.clone()
        })
        .collect();
    let claimed = claimed.iter().map(|one| dialogues.grant(one, &statement));
    for claimed in join_all(claimed).await {
        let is_refused = matches!(claimed, Err(DialoguesError::OtherCustomer));
        assert!(is_refused, "{claimed:?}");
    }
    let mut kept = texts(&dialogues).await;
    kept.sort_unstable();
    let said = new[1..].chunks(2).flat_map(|pair| pair[0].texts.iter());
    let mut said: Vec<_> = said.map(|text| text.said().to_owned()).collect();
    said.sort_unstable();
    assert_eq!(kept, said);
    let now = dialogues.now();
    let days = dialogues.statistics(now, now).await.unwrap();
    assert_eq!((days[0].granted, days[0].texts), (Some(40), Some(120)));
}

async fn a_dialogue_belongs_to_one_customer(store: &Store) {
    let dialogues = store.dialogues().await;
    let statement = dialogues.usual_statement();
    let mine = dialogue(&dialogues, "Maria", "7", &["mine"]);
    let theirs = dialogue(&dialogues, "João", "7", &["theirs"]);
    dialogues.grant(&mine, &statement).await.unwrap();
    let granted = dialogues.grant(&theirs, &statement).await;
    assert!(
        matches!(granted, Err(DialoguesError::OtherCustomer)),
        "{granted:?}"
    );
    let refused = dialogues.refuse(&theirs, &statement).await;
    assert!(
        matches!(refused, Err(DialoguesError::OtherCustomer)),
        "{refused:?}"
    );
    assert_eq!(texts(&dialogues).await, ["mine"]);
}

async fn a_yes_after_an_erasure_is_unknown_and_the_customer_may_come_back(store: &Store) {
    let (one, other) = (store.dialogues().await, store.dialogues().await);
    let statement = one.usual_statement();
    let before = dialogue(&one, "Maria", "before", &["before"]);
    let late = dialogue(&one, "Maria", "late", &["late"]);
    store.clock.advance(Duration::from_secs(1));
    one.grant(&before, &statement).await.unwrap();
    // The other process has the key in memory.
    let second = dialogue(&other, "Maria", "second", &["second"]);
    other.grant(&second, &statement).await.unwrap();
    let receipt = one.erase(&OPERATOR, before.customer_ref).await.unwrap();
    assert_eq!((receipt.messages, receipt.dialogues), (2, 2));
    assert!(receipt.completed_at.is_some() && receipt.log_truncated);
    let held_back = dialogue(&other, "Maria", "third", &["third"]);
    for (process, dialogue) in [(&one, &late), (&other, &late), (&other, &held_back)] {
        let granted = process.grant(dialogue, &statement).await;
        assert!(
            matches!(granted, Err(DialoguesError::Unknown)),
            "{granted:?}"
        );
    }
    assert_eq!(texts(&one).await, [""; 0]);
    store.clock.advance(Duration::from_secs(1));
    let back = dialogue(&other, "Maria", "before", &["back"]);
    assert_eq!(other.grant(&back, &statement).await.unwrap().texts, 1);
    assert_eq!(texts(&one).await, ["back"]);
    let late = other.grant(&late, &statement).await;
    assert!(matches!(late, Err(DialoguesError::Unknown)), "{late:?}");
}

async fn filters_are_combined(store: &Store) {
    let dialogues = store.dialogues().await;
    let statement = dialogues.usual_statement();
    for (customer, id) in [("a", "1"), ("a", "2"), ("b", "3")] {
        let texts = ["one", "two"].map(|text| format!("{id} {text}"));
        let texts = texts.each_ref().map(String::as_str);
        let new = dialogue(&dialogues, customer, id, &texts);
        dialogues.grant(&new, &statement).await.unwrap();
        store.clock.advance(Duration::from_secs(10));
    }
    let customer = dialogue(&dialogues, "a", "2", &[]);
    let reference = dialogues.pseudonyms().dialogue(&customer.id);
    let by = |language: Option<&str>, has_customer: bool, has_dialogue: bool| MessageFilter {
        language: language.map(str::to_owned),
        customer: has_customer.then_some(customer.customer_ref),
        dialogue: has_dialogue.then_some(reference),
        ..MessageFilter::default()
    };
    for (filter, count) in [
        (by(Some("pt"), false, false), 6),
        (by(Some("pt-BR"), false, false), 6),
        (by(Some("pt-PT"), false, false), 0),
        (by(None, true, false), 4),
        (by(Some("pt"), true, false), 4),
        (by(Some("pt-BR"), true, true), 2),
        (by(Some("es"), true, true), 0),
        (by(None, false, true), 2),
    ] {
        assert_eq!(
            read(&dialogues, filter.clone()).await.len(),
            count,
            "{filter:?}"
        );
        let slice = Slice::Skip {
            offset: 1,
            count: 1,
        };
        let (some, total) = dialogues
            .messages(&OPERATOR, &filter, slice, false)
            .await
            .unwrap();
        assert_eq!((some.len(), total), (usize::from(count > 1), count as u64));
        assert!(some.iter().all(|message| message.ids.is_none()));
    }
    let from = crate::START + Duration::from_secs(10);
    let filter = MessageFilter {
        from: Some(from),
        to: Some(from + Duration::from_secs(10)),
        ..by(Some("pt"), true, false)
    };
    let read = read(&dialogues, filter).await;
    let read: Vec<_> = read.iter().map(|message| message.text.as_str()).collect();
    assert_eq!(read, ["2 two", "2 one"]);
}
