//! What is erased stays erased: after a crash between any two steps, after a backup of either
//! database was restored, and in other processes.

use std::time::Duration;

use auspex_dialogues::{Dialogues, HOLDINGS, MessageFilter};
use auspex_kernel::db::Db;
use auspex_kernel::page::Slice;

use crate::store::{Store, execute, number, texts as names};
use crate::{OPERATOR, dialogue, read, texts};

contract! {
    an_erasure_that_was_cut_off_is_carried_out
    who_asks_again_carries_on_an_erasure_that_was_cut_off
    a_restored_backup_of_the_texts_is_cleansed
    a_restored_backup_of_the_keys_brings_no_key_back
    a_withdrawal_outlives_a_restored_backup
    texts_without_a_key_are_passed_over
    export_and_erasure_know_every_place
    receipts_are_listed_newest_first
}

/// Copies of the rows of some tables, as a backup has them.
async fn back_up(db: &Db, tables: &[&str]) {
    for table in tables {
        execute(
            db,
            &format!("CREATE TABLE backup_{table} AS SELECT * FROM {table}"),
        )
        .await;
    }
}

async fn restore(db: &Db, tables: &[&str]) {
    for table in tables {
        let sql = format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM backup_{table}");
        execute(db, &sql).await;
    }
}

const MAIN: [&str; 6] = [
    "dialogues_dialogues",
    "dialogues_messages",
    "dialogues_sealed",
    "dialogues_consents",
    "dialogues_withdrawals",
    "dialogues_erased",
];
const KEYS: [&str; 2] = ["dialogues_keys", "dialogues_erasures"];

/// Two customers with two texts each.
async fn fill(dialogues: &Dialogues) {
    let statement = dialogues.usual_statement();
    for customer in ["Maria", "João"] {
        let new = dialogue(dialogues, customer, customer, &[customer, "text"]);
        dialogues.grant(&new, &statement).await.unwrap();
    }
}

async fn an_erasure_that_was_cut_off_is_carried_out(store: &Store) {
    let dialogues = store.dialogues().await;
    fill(&dialogues).await;
    let (db, keys) = (store.db().await, store.keys_db().await);
    let maria = dialogue(&dialogues, "Maria", "Maria", &[]).customer_ref;
    back_up(&db, &MAIN).await;
    dialogues.erase(&OPERATOR, maria).await.unwrap();
    // As if the process had died after its first step, or in the midst of the second.
    let is_hers = store.is("customer", maria.as_bytes());
    for gone in ["1 = 0", "ordinal = 1"] {
        restore(&db, &MAIN).await;
        let some = format!("DELETE FROM dialogues_messages WHERE {is_hers} AND {gone}");
        execute(&db, &some).await;
        let count = format!("SELECT COUNT(*) FROM dialogues_messages WHERE {is_hers}");
        let left = number(&db, &count).await.unsigned_abs();
        execute(
            &keys,
            "UPDATE dialogues_erasures SET completed_at = NULL, messages = 0",
        )
        .await;
        let started = store.dialogues().await;
        assert_eq!(
            texts(&started).await,
            ["João", "text"],
            "nothing of it is readable"
        );
        let replayed = started.replay_erasures().await.unwrap();
        assert_eq!((replayed.erasures, replayed.texts), (1, left));
        let left = number(&db, "SELECT COUNT(*) FROM dialogues_messages").await;
        assert_eq!(left, 2);
        assert_eq!(started.replay_erasures().await.unwrap().erasures, 0);
        let slice = Slice::Seek {
            after: None,
            count: 10,
        };
        let (receipts, _) = started.receipts(Some(maria), slice).await.unwrap();
        assert!(receipts[0].completed_at.is_some());
    }
}

async fn who_asks_again_carries_on_an_erasure_that_was_cut_off(store: &Store) {
    let dialogues = store.dialogues().await;
    fill(&dialogues).await;
    let (db, keys) = (store.db().await, store.keys_db().await);
    let maria = dialogue(&dialogues, "Maria", "Maria", &[]).customer_ref;
    back_up(&db, &MAIN).await;
    let first = dialogues.erase(&OPERATOR, maria).await.unwrap();
    restore(&db, &MAIN).await;
    let undone = "UPDATE dialogues_erasures SET completed_at = NULL, messages = 0, dialogues = 0";
    execute(&keys, undone).await;
    store.clock.advance(Duration::from_secs(1));
    let again = dialogues.erase(&OPERATOR, maria).await.unwrap();
    assert_ne!(again.id, first.id);
    let left = number(&db, "SELECT COUNT(*) FROM dialogues_messages").await;
    assert_eq!(left, 2, "those of somebody else");
    let first = dialogues.receipt(&first.id).await.unwrap().unwrap();
    assert!(first.completed_at.is_some() && again.completed_at.is_some());
    assert_eq!((first.messages, first.dialogues), (2, 1));
    assert_eq!((again.messages, again.dialogues), (0, 0));
}

async fn a_restored_backup_of_the_texts_is_cleansed(store: &Store) {
    let dialogues = store.dialogues().await;
    fill(&dialogues).await;
    let db = store.db().await;
    back_up(&db, &MAIN).await;
    let maria = dialogue(&dialogues, "Maria", "Maria", &[]).customer_ref;
    dialogues.erase(&OPERATOR, maria).await.unwrap();
    // She comes back, and her new texts stay.
    store.clock.advance(Duration::from_secs(1));
    let back = dialogue(&dialogues, "Maria", "again", &["back"]);
    dialogues
        .grant(&back, &dialogues.usual_statement())
        .await
        .unwrap();
    let with_texts = ["dialogues_messages", "dialogues_sealed"];
    for table in with_texts {
        execute(
            &db,
            &format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}"),
        )
        .await;
    }
    restore(&db, &MAIN).await;
    for table in with_texts {
        let newer = format!("SELECT * FROM kept_{table} WHERE id NOT IN (SELECT id FROM {table})");
        execute(&db, &format!("INSERT INTO {table} {newer}")).await;
    }
    let replayed = dialogues.replay_erasures().await.unwrap();
    assert_eq!(
        (replayed.erasures, replayed.texts, replayed.keys),
        (1, 2, 0)
    );
    assert_eq!(texts(&dialogues).await, ["João", "text", "back"]);
}

async fn a_restored_backup_of_the_keys_brings_no_key_back(store: &Store) {
    let dialogues = store.dialogues().await;
    fill(&dialogues).await;
    let (db, keys) = (store.db().await, store.keys_db().await);
    back_up(&db, &MAIN).await;
    back_up(&keys, &KEYS).await;
    let maria = dialogue(&dialogues, "Maria", "Maria", &[]).customer_ref;
    dialogues.erase(&OPERATOR, maria).await.unwrap();
    restore(&keys, &KEYS).await;
    let started = store.dialogues().await;
    let replayed = started.replay_erasures().await.unwrap();
    assert_eq!((replayed.erasures, replayed.keys), (0, 1));
    assert_eq!(texts(&started).await, ["João", "text"]);
    let hers = format!(
        "SELECT COUNT(*) FROM dialogues_keys WHERE {}",
        store.is("customer", maria.as_bytes())
    );
    assert_eq!(number(&keys, &hers).await, 0);
}

async fn a_withdrawal_outlives_a_restored_backup(store: &Store) {
    let dialogues = store.dialogues().await;
    fill(&dialogues).await;
    let db = store.db().await;
    back_up(&db, &MAIN).await;
    let statement = dialogues.usual_statement();
    let maria = dialogue(&dialogues, "Maria", "Maria", &[]);
    let reference = dialogues.pseudonyms().dialogue(&maria.id);
    dialogues
        .answer_again(reference, false, &statement)
        .await
        .unwrap();
    restore(&db, &MAIN).await;
    assert_eq!(texts(&dialogues).await.len(), 4);
    assert_eq!(dialogues.replay_erasures().await.unwrap().texts, 2);
    assert_eq!(texts(&dialogues).await, ["João", "text"]);
}

async fn texts_without_a_key_are_passed_over(store: &Store) {
    let dialogues = store.dialogues().await;
    let statement = dialogues.usual_statement();
    for n in 0..30 {
        let customer = if n % 3 == 0 { "kept" } else { "gone" };
        let new = dialogue(&dialogues, customer, &format!("{n}"), &["a"; 10]);
        dialogues.grant(&new, &statement).await.unwrap();
        store.clock.advance(Duration::from_secs(1));
    }
    let gone = dialogue(&dialogues, "gone", "x", &[]).customer_ref;
    let keys = store.keys_db().await;
    let delete = format!(
        "DELETE FROM dialogues_keys WHERE {}",
        store.is("customer", gone.as_bytes())
    );
    execute(&keys, &delete).await;
    let other = store.dialogues().await;
    // A page is full for as long as there are texts, so that its reader goes on.
    let mut after = None;
    let mut pages = Vec::new();
    loop {
        let slice = Slice::Seek { after, count: 31 };
        let filter = MessageFilter::default();
        let (mut page, _) = other
            .messages(&OPERATOR, &filter, slice, false)
            .await
            .unwrap();
        let is_last = page.len() < 31;
        page.truncate(30);
        after = page.last().map(|message| message.position());
        pages.push(page.len());
        if is_last {
            break;
        }
    }
    assert_eq!(pages, [30, 30, 30, 10]);
}

async fn export_and_erasure_know_every_place(store: &Store) {
    let dialogues = store.dialogues().await;
    let statement = dialogues.usual_statement();
    for (id, customer) in [("1", "Maria"), ("2", "Maria"), ("3", "João")] {
        let new = dialogue(&dialogues, customer, id, &["a", "b"]);
        dialogues.grant(&new, &statement).await.unwrap();
    }
    let refused = dialogue(&dialogues, "Maria", "refused", &["c"]);
    dialogues.refuse(&refused, &statement).await.unwrap();
    let maria = refused.customer_ref;
    let first = dialogue(&dialogues, "Maria", "1", &[]);
    let first = dialogues.pseudonyms().dialogue(&first.id);
    dialogues
        .answer_again(first, false, &statement)
        .await
        .unwrap();

    let (db, keys) = (store.db().await, store.keys_db().await);
    let mut tables = names(&db, &store.tables_with("customer")).await;
    tables.extend(names(&keys, &store.tables_with("customer")).await);
    tables.sort();
    tables.dedup();
    let mut known: Vec<_> = HOLDINGS.iter().map(|holding| holding.place).collect();
    known.retain(|place| *place != "pending");
    known.sort_unstable();
    assert_eq!(
        tables, known,
        "each table with a customer is in the register"
    );

    let rows = async |table: &str| {
        let of = if KEYS.contains(&table) { &keys } else { &db };
        let is = store.is("customer", maria.as_bytes());
        let sql = format!("SELECT COUNT(*) FROM {table} WHERE {is}");
        number(of, &sql).await.unsigned_abs()
    };
    let export = dialogues.export(&OPERATOR, maria).await.unwrap();
    for holding in HOLDINGS.iter().filter(|holding| holding.place != "pending") {
        let rows = rows(holding.place).await;
        assert_eq!((holding.exported)(&export), rows, "{}", holding.place);
        assert!(rows > 0, "{} is put to the test", holding.place);
    }
    let mut messages = export.messages;
    let exported = messages.next().await.unwrap().unwrap();
    assert_eq!(exported.len(), 2);
    assert_eq!(exported[0].ids.as_ref().unwrap().customer.expose(), "Maria");

    let receipt = dialogues.erase(&OPERATOR, maria).await.unwrap();
    assert_eq!((receipt.messages, receipt.dialogues), (2, 3));
    for holding in HOLDINGS.iter().filter(|holding| holding.place != "pending") {
        let rows = rows(holding.place).await;
        assert_eq!(
            rows > 0,
            holding.kept_because.is_some(),
            "{}",
            holding.place
        );
    }
    assert_eq!(texts(&dialogues).await, ["a", "b"]);
    let held = dialogues.held(&OPERATOR, maria).await.unwrap();
    assert_eq!((held.consented, held.refused, held.texts), (0, 0, 0));
}

async fn receipts_are_listed_newest_first(store: &Store) {
    let dialogues = store.dialogues().await;
    for n in 0..5 {
        let new = dialogue(&dialogues, &format!("{n}"), &format!("{n}"), &["a"]);
        dialogues
            .grant(&new, &dialogues.usual_statement())
            .await
            .unwrap();
        dialogues.erase(&OPERATOR, new.customer_ref).await.unwrap();
        store.clock.advance(Duration::from_secs(u64::from(n > 2)));
    }
    let mut after = None;
    let mut seen = Vec::new();
    loop {
        let slice = Slice::Seek { after, count: 2 };
        let (page, _) = dialogues.receipts(None, slice).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.position());
        seen.extend(page.iter().map(|receipt| (receipt.erased_at, receipt.id)));
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted_by(|newer, older| newer > older));
    assert_eq!(read(&dialogues, MessageFilter::default()).await.len(), 0);
}
