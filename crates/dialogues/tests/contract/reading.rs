//! Reading everything, block by block.

use auspex_dialogues::MessageFilter;

use crate::store::Store;
use crate::{OPERATOR, dialogue};

contract! {
    a_reader_that_has_stopped_keeps_no_log_from_being_emptied
}

/// Nor does it show what was erased since.
async fn a_reader_that_has_stopped_keeps_no_log_from_being_emptied(store: &Store) {
    let dialogues = store.dialogues().await;
    let statement = dialogues.usual_statement();
    let many = vec!["said"; 5_000];
    let older = dialogue(&dialogues, "Maria", "older", &["one", "two"]);
    dialogues.grant(&older, &statement).await.unwrap();
    store.clock.advance(std::time::Duration::from_secs(1));
    let newer = dialogue(&dialogues, "Ann", "newer", &many);
    dialogues.grant(&newer, &statement).await.unwrap();
    let stream = dialogues.stream(&OPERATOR, MessageFilter::default(), true);
    let mut stream = stream.await.unwrap();
    let mut read = stream.next().await.unwrap().unwrap();
    assert!(read.len() < many.len());
    let receipt = dialogues.erase(&OPERATOR, older.customer_ref).await;
    assert!(receipt.unwrap().log_truncated);
    if store.is_sqlite() {
        let log = std::fs::metadata(store.path().join("auspex.db-wal"));
        assert_eq!(log.unwrap().len(), 0);
    }
    while let Some(some) = stream.next().await.unwrap() {
        read.extend(some);
    }
    assert_eq!(read.len(), many.len());
    assert!(read.iter().all(|message| message.text.as_str() == "said"));
}
