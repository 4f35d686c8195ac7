//! From the first text to the decision, where the buffer and the databases meet.

use std::time::Duration;

use auspex_dialogues::{
    CustomerId, DialogId, Dialogues, DialoguesError, IntakeError, Language, NewText, PushError,
    Pushed, Standing, State, Status,
};

use tokio::sync::oneshot;

use crate::store::{Store, execute};
use crate::{OPERATOR, texts};

contract! {
    texts_wait_and_are_kept_by_a_yes
    of_answers_at_once_one_counts_and_the_same_ones_agree
    a_text_beside_a_yes_is_kept_or_refused
    a_yes_beside_a_withdrawal_of_everything_keeps_nothing
    a_decision_that_cannot_be_stored_leaves_the_texts_and_a_refusal_none
    who_was_erased_has_nothing_that_waits_and_may_come_back
    what_another_process_erased_does_not_wait_here
    a_yes_does_not_keep_what_another_process_erased
}

/// Hands in a text as a job does: the buffer first, and the databases where it does not know.
async fn push(
    dialogues: &Dialogues,
    customer: &str,
    dialogue: &str,
    text: &str,
) -> Result<Pushed, IntakeError> {
    let new = NewText {
        customer: &CustomerId::parse(customer).unwrap(),
        dialogue: &id(dialogue),
        text,
        language: Language::parse("en").unwrap(),
        mark: None,
    };
    match dialogues.add(new).await {
        Err(PushError::Unknown) => dialogues.begin(new).await,
        added => Ok(added?),
    }
}

fn id(dialogue: &str) -> DialogId {
    DialogId::parse(dialogue).unwrap()
}

async fn decide(
    dialogues: &Dialogues,
    dialogue: &str,
    consent: bool,
) -> Result<u64, DialoguesError> {
    let statement = dialogues.usual_statement();
    let decided = dialogues.decide(&id(dialogue), consent, &statement).await?;
    assert_eq!(decided.consent, consent);
    Ok(decided.texts)
}

async fn state(dialogues: &Dialogues, dialogue: &str) -> Option<(State, usize)> {
    match dialogues.standing(&id(dialogue)).await.unwrap()? {
        Standing::Pending(look) => Some((look.state, look.texts)),
        Standing::Decided(_) => None,
    }
}

async fn status(dialogues: &Dialogues, dialogue: &str) -> Option<Status> {
    match dialogues.standing(&id(dialogue)).await.unwrap()? {
        Standing::Pending(_) => None,
        Standing::Decided(decided) => Some(decided.status),
    }
}

async fn texts_wait_and_are_kept_by_a_yes(store: &Store) {
    let dialogues = store.dialogues().await;
    push(&dialogues, "ann", "d", "one").await.unwrap();
    push(&dialogues, "ann", "d", "two").await.unwrap();
    assert_eq!(state(&dialogues, "d").await, Some((State::Open, 2)));
    assert!(texts(&dialogues).await.is_empty());
    assert_eq!(decide(&dialogues, "d", true).await.unwrap(), 2);
    assert_eq!(texts(&dialogues).await, ["one", "two"]);
    assert_eq!(status(&dialogues, "d").await, Some(Status::Consented));
    // A process that knows nothing of it asks the database.
    let other = store.dialogues().await;
    for dialogues in [&dialogues, &other] {
        let late = push(dialogues, "ann", "d", "late").await;
        assert!(matches!(
            late,
            Err(IntakeError::Pending(PushError::Decided))
        ));
    }
    let foreign = push(&other, "bob", "d", "not theirs").await;
    assert!(matches!(
        foreign,
        Err(IntakeError::Pending(PushError::OtherCustomer))
    ));
}

async fn of_answers_at_once_one_counts_and_the_same_ones_agree(store: &Store) {
    let dialogues = store.dialogues().await;
    for round in 0..20 {
        let name = format!("d{round}");
        push(&dialogues, "ann", &name, "one").await.unwrap();
        let (one, other, no) = tokio::join!(
            decide(&dialogues, &name, true),
            decide(&dialogues, &name, true),
            decide(&dialogues, &name, false),
        );
        assert_eq!(no.unwrap(), 1, "a no is always heard");
        for yes in [one, other] {
            assert!(
                matches!(yes, Ok(1) | Err(DialoguesError::NoWayBack)),
                "{yes:?}"
            );
        }
        let gone = [Status::Refused, Status::Withdrawn];
        assert!(gone.contains(&status(&dialogues, &name).await.unwrap()));
        push(&dialogues, "ann", &format!("e{round}"), "two")
            .await
            .unwrap();
        let name = format!("e{round}");
        let (one, other) = tokio::join!(
            decide(&dialogues, &name, true),
            decide(&dialogues, &name, true),
        );
        assert_eq!((one.unwrap(), other.unwrap()), (1, 1));
    }
    assert_eq!(texts(&dialogues).await.len(), 20);
}

async fn a_text_beside_a_yes_is_kept_or_refused(store: &Store) {
    let dialogues = store.dialogues().await;
    let mut kept = 0;
    for round in 0..20 {
        let name = format!("d{round}");
        push(&dialogues, "ann", &name, "one").await.unwrap();
        let (pushed, count) = tokio::join!(
            push(&dialogues, "ann", &name, "two"),
            decide(&dialogues, &name, true),
        );
        let count = count.unwrap();
        match pushed {
            Ok(_) => assert_eq!(count, 2, "what was accepted is kept"),
            Err(IntakeError::Pending(PushError::Deciding | PushError::Decided)) => {
                assert_eq!(count, 1);
            }
            Err(error) => panic!("{error}"),
        }
        kept += count;
    }
    assert_eq!(texts(&dialogues).await.len() as u64, kept);
}

async fn a_yes_beside_a_withdrawal_of_everything_keeps_nothing(store: &Store) {
    let dialogues = store.dialogues().await;
    let statement = dialogues.usual_statement();
    let maria = CustomerId::parse("Maria").unwrap();
    let maria = dialogues.pseudonyms().customer(&maria);
    for round in 0..100 {
        let name = format!("dialogue {round}");
        for _ in 0..10 {
            push(&dialogues, "Maria", &name, &"text ".repeat(500))
                .await
                .unwrap();
        }
        let deciding = async {
            tokio::time::sleep(Duration::from_micros(round * 50)).await;
            decide(&dialogues, &name, true).await
        };
        let withdrawing = dialogues.withdraw_all(&OPERATOR, maria, &statement);
        let (withdrawn, decided) = tokio::join!(withdrawing, deciding);
        let withdrawn = withdrawn.unwrap();
        match decided {
            Ok(texts) => assert_eq!((withdrawn.texts, withdrawn.pending_texts), (texts, 0)),
            Err(DialoguesError::Unknown) => assert_eq!(withdrawn.pending_texts, 10),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(texts(&dialogues).await, [""; 0], "round {round}");
    }
}

async fn a_decision_that_cannot_be_stored_leaves_the_texts_and_a_refusal_none(store: &Store) {
    let dialogues = store.dialogues().await;
    push(&dialogues, "ann", "yes", "one").await.unwrap();
    push(&dialogues, "ann", "no", "two").await.unwrap();
    let db = store.db().await;
    execute(
        &db,
        "ALTER TABLE dialogues_consents RENAME TO dialogues_away",
    )
    .await;
    assert!(decide(&dialogues, "yes", true).await.is_err());
    assert!(decide(&dialogues, "no", false).await.is_err());
    assert_eq!(state(&dialogues, "no").await, Some((State::Refused, 1)));
    let late = push(&dialogues, "ann", "no", "late").await;
    assert!(matches!(
        late,
        Err(IntakeError::Pending(PushError::Decided))
    ));
    execute(
        &db,
        "ALTER TABLE dialogues_away RENAME TO dialogues_consents",
    )
    .await;
    assert!(matches!(
        decide(&dialogues, "no", true).await,
        Err(DialoguesError::NoWayBack)
    ));
    assert_eq!(decide(&dialogues, "no", false).await.unwrap(), 1);
    assert_eq!(status(&dialogues, "no").await, Some(Status::Refused));
    assert_eq!(decide(&dialogues, "yes", true).await.unwrap(), 1);
    assert_eq!(texts(&dialogues).await, ["one"]);
}

async fn who_was_erased_has_nothing_that_waits_and_may_come_back(store: &Store) {
    let dialogues = store.dialogues().await;
    push(&dialogues, "ann", "kept", "one").await.unwrap();
    decide(&dialogues, "kept", true).await.unwrap();
    push(&dialogues, "ann", "waits", "two").await.unwrap();
    push(&dialogues, "bob", "other", "three").await.unwrap();
    let ann = dialogues
        .pseudonyms()
        .customer(&CustomerId::parse("ann").unwrap());
    let held = dialogues.holdings(&OPERATOR, ann).await.unwrap();
    assert_eq!((held.stored.texts, held.pending_texts), (1, 1));
    let receipt = dialogues.erase(&OPERATOR, ann).await.unwrap();
    assert_eq!((receipt.messages, receipt.pending_texts), (1, 1));
    assert!(matches!(
        decide(&dialogues, "waits", true).await,
        Err(DialoguesError::Unknown)
    ));
    assert_eq!(state(&dialogues, "other").await, Some((State::Open, 1)));
    store.clock.advance(Duration::from_millis(1));
    for name in ["kept", "waits"] {
        push(&dialogues, "ann", name, "anew").await.unwrap();
        assert_eq!(decide(&dialogues, name, true).await.unwrap(), 1);
    }
    assert_eq!(texts(&dialogues).await, ["anew", "anew"]);
}

/// Its buffer follows the keys database, whose erasures are everybody's.
async fn what_another_process_erased_does_not_wait_here(store: &Store) {
    let (here, there) = (store.dialogues().await, store.dialogues().await);
    push(&here, "ann", "waits", "one").await.unwrap();
    push(&here, "bob", "other", "two").await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let watching = here.clone();
    let watch = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        watching.watch(stopped).await;
    });
    let ann = there
        .pseudonyms()
        .customer(&CustomerId::parse("ann").unwrap());
    there.erase(&OPERATOR, ann).await.unwrap();
    let gone = async {
        while state(&here, "waits").await.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .expect("it is dropped");
    assert_eq!(state(&here, "other").await, Some((State::Open, 1)));
    let late = decide(&here, "waits", true).await;
    assert!(matches!(late, Err(DialoguesError::Unknown)), "{late:?}");
    stop.send(()).unwrap();
    watch.await.unwrap();
}

/// Before its buffer has heard of the erasure, and whether its key is older than the dialogue or not.
async fn a_yes_does_not_keep_what_another_process_erased(store: &Store) {
    let (here, there) = (store.dialogues().await, store.dialogues().await);
    let ann = here
        .pseudonyms()
        .customer(&CustomerId::parse("ann").unwrap());
    for round in ["first", "second"] {
        let named = |name: &str| format!("{round} {name}");
        push(&here, "ann", &named("older"), "one").await.unwrap();
        store.clock.advance(Duration::from_millis(1));
        push(&here, "ann", &named("kept"), "two").await.unwrap();
        assert_eq!(decide(&here, &named("kept"), true).await.unwrap(), 1);
        store.clock.advance(Duration::from_millis(1));
        push(&here, "ann", &named("younger"), "three")
            .await
            .unwrap();
        there.erase(&OPERATOR, ann).await.unwrap();
        for name in ["older", "younger"] {
            let late = decide(&here, &named(name), true).await;
            assert!(
                matches!(late, Err(DialoguesError::Unknown)),
                "{name}: {late:?}"
            );
        }
        assert_eq!(texts(&there).await, [""; 0]);
        store.clock.advance(Duration::from_millis(1));
    }
}
