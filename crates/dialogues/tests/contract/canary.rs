//! What was erased is in no byte of any file: neither the text, nor what stood there in its place.
//!
//! A text at rest is encrypted, so its absence alone would prove nothing. What is looked for is what
//! the tables held before: sealed texts, sealed ids and the wrapped key, each in pieces of 16 bytes,
//! since a page that is rebuilt may keep a part of what it held.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use auspex_dialogues::{Config, CustomerRef, Dialogues, MessageFilter, RetentionRule};
use auspex_kernel::db::Db;

use crate::store::{Store, blobs, execute, number};
use crate::{OPERATOR, dialogue, read};

const PIECE: usize = 16;
const CANARY: &str = "canary Serinus canaria 4711 sings of the mine";
/// Texts of others, before, between and after those of the canary.
const OTHERS: usize = 3_000;

/// Pieces of bytes that must be nowhere.
#[derive(Default)]
struct Needles {
    pieces: HashSet<[u8; PIECE]>,
    /// By the first two bytes: nearly all places in a file are passed over by it.
    begins: HashSet<[u8; 2]>,
}

impl Needles {
    fn add(&mut self, bytes: &[u8]) {
        assert!(bytes.len() >= PIECE);
        for piece in bytes.chunks_exact(PIECE) {
            self.pieces.insert(piece.try_into().unwrap());
            self.begins.insert([piece[0], piece[1]]);
        }
    }

    /// How many places of the files under a folder hold one of them.
    fn found(&self, folder: &Path) -> usize {
        files(folder).iter().map(|file| self.in_file(file)).sum()
    }

    fn in_file(&self, file: &Path) -> usize {
        let bytes = std::fs::read(file).unwrap();
        let begins: Vec<bool> = {
            let mut begins = vec![false; 1 << 16];
            for begin in &self.begins {
                begins[usize::from(u16::from_be_bytes(*begin))] = true;
            }
            begins
        };
        let is_piece = |window: &&[u8]| {
            let begin = usize::from(u16::from_be_bytes([window[0], window[1]]));
            begins[begin] && self.pieces.contains(*window)
        };
        bytes.windows(PIECE).filter(is_piece).count()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect()
}

/// Texts of others around those of one customer, some of them long, so that pages of all kinds split
/// and merge when they go.
async fn fill(dialogues: &Dialogues) -> CustomerRef {
    let statement = dialogues.usual_statement();
    let mut customer = None;
    for n in 0..OTHERS / 10 {
        let texts: Vec<String> = (0..10)
            .map(|place| "other ".repeat((n * 7 + place * 13) % 90 + 1))
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let new = dialogue(
            dialogues,
            &format!("other {}", n % 50),
            &format!("o{n}"),
            &texts,
        );
        dialogues.grant(&new, &statement).await.unwrap();
        if n % 4 == 0 {
            let long = format!("{CANARY} {}", "la ".repeat(n % 12 * 300));
            let texts: Vec<&str> = std::iter::repeat_n(CANARY, 7)
                .chain([long.as_str()])
                .collect();
            let new = dialogue(dialogues, "canary", &format!("c{n}"), &texts);
            dialogues.grant(&new, &statement).await.unwrap();
            customer = Some(new.customer_ref);
        }
    }
    customer.unwrap()
}

/// What stands in the tables of a customer.
async fn needles(store: &Store, customer: CustomerRef, of: &str) -> Needles {
    let mut needles = Needles::default();
    needles.add(CANARY.as_bytes());
    let of = format!("customer = X'{}' {of}", hex(customer.as_bytes()));
    let db = store.db().await;
    for ids in [
        format!("SELECT id FROM dialogues_messages WHERE {of}"),
        format!("SELECT ids_id FROM dialogues_dialogues WHERE {of}"),
    ] {
        let sql = format!("SELECT sealed FROM dialogues_sealed WHERE id IN ({ids})");
        let found = blobs(&db, &sql).await;
        assert!(!found.is_empty());
        found.iter().for_each(|bytes| needles.add(bytes));
    }
    needles
}

async fn wrapped_key(store: &Store, customer: CustomerRef) -> Vec<u8> {
    let customer = hex(customer.as_bytes());
    let sql = format!("SELECT wrapped FROM dialogues_keys WHERE customer = X'{customer}'");
    blobs(&store.keys_db().await, &sql).await.pop().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The texts of others are all there.
async fn others_are_there(dialogues: &Dialogues) {
    let mut stream = dialogues
        .stream(&OPERATOR, MessageFilter::default(), false)
        .await
        .unwrap();
    let mut count = 0;
    while let Some(some) = stream.next().await.unwrap() {
        let others = some
            .iter()
            .filter(|message| message.text.starts_with("other "));
        count += others.count();
    }
    assert_eq!(count, OTHERS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_customer_is_in_no_byte_of_any_file() {
    let store = Store::sqlite();
    let dialogues = store.dialogues().await;
    let customer = fill(&dialogues).await;
    let mut needles = needles(&store, customer, "").await;
    needles.add(&wrapped_key(&store, customer).await);
    assert!(
        needles.found(store.path()) > 0,
        "the search finds what is there"
    );
    let receipt = dialogues.erase(&OPERATOR, customer).await.unwrap();
    assert!(receipt.log_truncated && receipt.messages > 0);
    assert_eq!(needles.found(store.path()), 0);
    others_are_there(&dialogues).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn withdrawn_texts_are_in_no_byte_of_any_file() {
    let store = Store::sqlite();
    let dialogues = store.dialogues().await;
    let customer = fill(&dialogues).await;
    let one = dialogue(&dialogues, "canary", "c0", &[]);
    let one = dialogues.pseudonyms().dialogue(&one.id);
    let of = format!("AND dialogue = X'{}'", hex(one.as_bytes()));
    let of_one = needles(&store, customer, &of).await;
    let statement = dialogues.usual_statement();
    dialogues
        .answer_again(one, false, &statement)
        .await
        .unwrap();
    assert_eq!(of_one.found(store.path()), 0);
    let of_all = needles(&store, customer, "AND key_id IS NOT NULL").await;
    let withdrawn = dialogues
        .withdraw_all(&OPERATOR, customer, &statement)
        .await
        .unwrap();
    assert!(withdrawn.log_truncated);
    assert_eq!(of_all.found(store.path()), 0);
    others_are_there(&dialogues).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_texts_are_in_no_byte_of_any_file() {
    let store = Store::sqlite();
    let dialogues = store.dialogues().await;
    let customer = fill(&dialogues).await;
    // Those of others come a day later.
    let sql = format!(
        "UPDATE dialogues_messages SET received_at = received_at + 90000000000 \
         WHERE customer <> X'{}'",
        hex(customer.as_bytes())
    );
    execute(&store.db().await, &sql).await;
    let mut needles = Needles::default();
    needles.add(CANARY.as_bytes());
    let sql = format!(
        "SELECT sealed FROM dialogues_sealed WHERE id IN \
         (SELECT id FROM dialogues_messages WHERE customer = X'{}')",
        hex(customer.as_bytes())
    );
    for sealed in blobs(&store.db().await, &sql).await {
        needles.add(&sealed);
    }
    store.clock.advance(Duration::from_hours(25));
    let config = Config {
        retention: vec![RetentionRule {
            language: None,
            purpose: None,
            days: 1,
        }],
        ..Config::default()
    };
    let keeping = store.open(config).await.unwrap();
    assert!(needles.found(store.path()) > 0);
    keeping.apply_retention(&OPERATOR).await.unwrap();
    assert_eq!(needles.found(store.path()), 0);
    others_are_there(&keeping).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_and_pending_texts_never_reach_a_file() {
    let store = Store::sqlite();
    let dialogues = store.dialogues().await;
    let refused = dialogue(&dialogues, "canary", "c", &[CANARY; 20]);
    let statement = dialogues.usual_statement();
    dialogues.refuse(&refused, &statement).await.unwrap();
    let mut needles = Needles::default();
    needles.add(CANARY.as_bytes());
    assert_eq!(needles.found(store.path()), 0);
    assert_eq!(read(&dialogues, MessageFilter::default()).await.len(), 0);
}

/// An erasure merges pages, and so moves what others have beside it. The copies that this leaves of
/// theirs must not outlive them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn customers_erased_one_after_another_leave_nothing() {
    const CUSTOMERS: usize = 45;
    let store = Store::sqlite();
    let dialogues = store.dialogues().await;
    let statement = dialogues.usual_statement();
    for n in 0..CUSTOMERS * 6 {
        let texts: Vec<String> = (0..8)
            .map(|place| "text ".repeat((n * 31 + place * 17) % 120 + 1))
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let customer = n * 7 % CUSTOMERS;
        let new = dialogue(&dialogues, &format!("{customer}"), &format!("d{n}"), &texts);
        dialogues.grant(&new, &statement).await.unwrap();
    }
    for n in (0..CUSTOMERS).map(|n| n * 23 % CUSTOMERS) {
        let customer = dialogue(&dialogues, &format!("{n}"), "none", &[]).customer_ref;
        let mut needles = needles(&store, customer, "").await;
        needles.add(&wrapped_key(&store, customer).await);
        let receipt = dialogues.erase(&OPERATOR, customer).await.unwrap();
        assert_eq!((receipt.messages, receipt.dialogues), (48, 6));
        assert_eq!(needles.found(store.path()), 0, "of the customer {n}");
    }
}

/// The space of what was erased is given back without moving what is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_leaves_no_copies_behind() {
    let store = Store::sqlite();
    let dialogues = store.dialogues().await;
    let statement = dialogues.usual_statement();
    let db = store.db().await;
    // In turn: texts that stay for now, and many that go.
    let mut stay = Vec::new();
    for n in 0..24 {
        let (customer, count) = match n % 3 {
            0 => (format!("stays {n}"), 40),
            _ => ("goes".to_owned(), 900),
        };
        let texts = vec!["some text of this length"; count];
        let new = dialogue(&dialogues, &customer, &format!("d{n}"), &texts);
        dialogues.grant(&new, &statement).await.unwrap();
        if n % 3 == 0 {
            stay.push(new.customer_ref);
        }
    }
    let goes = dialogue(&dialogues, "goes", "x", &[]).customer_ref;
    dialogues.erase(&OPERATOR, goes).await.unwrap();
    let rows = "SELECT COUNT(*) FROM dialogues_sealed";
    let before = number(&db, rows).await;
    let removed = dialogues.compact().await.unwrap();
    assert!(removed > 3_000, "{removed} of {before}");
    assert_eq!(number(&db, rows).await, before - removed.cast_signed());
    for customer in stay {
        let needles = needles(&store, customer, "").await;
        let receipt = dialogues.erase(&OPERATOR, customer).await.unwrap();
        assert_eq!(receipt.messages, 40);
        assert_eq!(needles.found(store.path()), 0);
        dialogues.compact().await.unwrap();
    }
    assert!(number(&db, rows).await <= 4 * 600);
}

/// The search has to find what a careless deletion leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_erasure_is_noticed() {
    let delete = |customer: CustomerRef| {
        let customer = hex(customer.as_bytes());
        format!(
            "DELETE FROM dialogues_sealed WHERE id IN \
             (SELECT id FROM dialogues_messages WHERE customer = X'{customer}')"
        )
    };
    let broken = async |db: &Db, pragma: &str, customer: CustomerRef| {
        execute(
            db,
            &format!("PRAGMA secure_delete = {pragma}; {}", delete(customer)),
        )
        .await;
    };
    // Without the log being emptied.
    let store = Store::sqlite();
    let dialogues = store.dialogues().await;
    let customer = fill(&dialogues).await;
    let of_first = needles(&store, customer, "").await;
    let db = store.db().await;
    broken(&db, "ON", customer).await;
    assert!(of_first.found(store.path()) > 0);
    // Without what was deleted being overwritten.
    let store = Store::sqlite();
    let dialogues = store.dialogues().await;
    let customer = fill(&dialogues).await;
    let of_second = needles(&store, customer, "").await;
    let db = store.db().await;
    broken(&db, "OFF", customer).await;
    assert!(db.truncate_log().await.unwrap());
    assert!(of_second.found(store.path()) > 0);
}
