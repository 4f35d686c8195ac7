//! The master key: made once, never in silence again, replaced without losing a text.

use auspex_dialogues::{Config, Dialogues, Hidden, KeysError};
use auspex_kernel::Random;
use auspex_kernel::db::Db;

use crate::store::{Store, number};
use crate::{dialogue, texts};

contract! {
    the_master_key_is_made_by_the_first_start_alone
    a_master_key_is_replaced_and_the_old_one_may_go
    texts_and_keys_belong_together
}

const FILE: &str = "dialogues.key";

async fn the_master_key_is_made_by_the_first_start_alone(store: &Store) {
    let dialogues = store.dialogues().await;
    let new = dialogue(&dialogues, "Maria", "first", &["kept"]);
    dialogues
        .grant(&new, &dialogues.usual_statement())
        .await
        .unwrap();
    let file = store.path().join(FILE);
    let key = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let missing = store.open(Config::default()).await.unwrap_err();
    assert!(matches!(missing, KeysError::Missing { .. }), "{missing}");
    assert!(
        !file.exists(),
        "another one would hide that the first is lost"
    );
    std::fs::write(&file, "00".repeat(32)).unwrap();
    let foreign = store.open(Config::default()).await.unwrap_err();
    assert!(matches!(foreign, KeysError::Foreign { .. }), "{foreign}");
    std::fs::write(&file, "no key").unwrap();
    let unreadable = store.open(Config::default()).await.unwrap_err();
    assert!(
        matches!(unreadable, KeysError::Unreadable { .. }),
        "{unreadable}"
    );
    assert!(!unreadable.to_string().contains("no key"));
    std::fs::write(&file, &key).unwrap();
    assert_eq!(texts(&store.dialogues().await).await, ["kept"]);
    // The same from a setting.
    std::fs::remove_file(&file).unwrap();
    let config = Config {
        master_key: Hidden(key.trim().to_owned()),
        ..Config::default()
    };
    assert_eq!(texts(&store.open(config).await.unwrap()).await, ["kept"]);
}

async fn a_master_key_is_replaced_and_the_old_one_may_go(store: &Store) {
    let dialogues = store.dialogues().await;
    let statement = dialogues.usual_statement();
    // More than are wrapped anew in one transaction.
    for n in 0..600 {
        let new = dialogue(&dialogues, &format!("{n}"), &format!("{n}"), &["kept"]);
        dialogues.grant(&new, &statement).await.unwrap();
    }
    let maria = dialogue(&dialogues, "7", "x", &[]).customer_ref;
    let file = store.path().join(FILE);
    let old = std::fs::read_to_string(&file).unwrap();
    let new = "11".repeat(32);
    std::fs::write(&file, format!("{new}\n{old}")).unwrap();
    assert_eq!(texts(&store.dialogues().await).await.len(), 600);
    let masters = "SELECT COUNT(DISTINCT master_id) FROM dialogues_keys";
    assert_eq!(number(&store.keys_db().await, masters).await, 1);
    std::fs::write(&file, new).unwrap();
    let after = store.dialogues().await;
    assert_eq!(texts(&after).await.len(), 600);
    let same = dialogue(&after, "7", "x", &[]).customer_ref;
    assert_eq!(same, maria, "pseudonyms stay");
}

/// Servers on one main database that had different keys would each drop the texts of the other, and an erasure that says that
/// all is done would leave them. Two main databases that shared the keys would erase each other's.
async fn texts_and_keys_belong_together(store: &Store) {
    drop(store.dialogues().await);
    let file = |name: &str| format!("sqlite:{}", store.path().join(name).display());
    let with_keys = |keys_url: String| Config {
        keys_url,
        ..Config::default()
    };
    for _ in 0..2 {
        let other = store.open(with_keys(file("other-keys.db"))).await;
        let other = other.map(drop).unwrap_err();
        assert!(matches!(other, KeysError::Others { .. }), "{other}");
    }
    let url = match store.is_sqlite() {
        true => file("keys.db"),
        false => store.url.clone(),
    };
    let second = Db::open(&file("second.db")).await.unwrap();
    Store::prepare(&second).await;
    let open = async |keys_url: String| {
        let (clock, random) = (store.clock.clone(), Random::system());
        let config = with_keys(keys_url);
        let opened = Dialogues::open(second.clone(), config, store.path(), clock, random).await;
        opened.map(drop)
    };
    let shared = open(url).await.unwrap_err();
    assert!(matches!(shared, KeysError::OfOthers { .. }), "{shared}");
    // What was refused before may be anybody's.
    open(file("other-keys.db")).await.unwrap();
    drop(store.dialogues().await);
}
