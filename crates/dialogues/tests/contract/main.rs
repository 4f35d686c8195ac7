//! What dialogues promise, on every database: SQLite always, PostgreSQL where
//! `AUSPEX_TEST_POSTGRES_URL` names one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use auspex_dialogues::{
    CustomerId, DialogId, Dialogue, Dialogues, Language, Message, MessageFilter, Text,
};
use auspex_kernel::Timestamp;
use auspex_kernel::audit::Actor;
use auspex_kernel::page::Slice;

use store::Store;

const START: Timestamp = Timestamp(1_769_335_200_000_000);
const TEST_MAX: Duration = Duration::from_mins(5);
static OPERATOR: LazyLock<Actor> = LazyLock::new(Actor::operator);

/// A dialogue that waits for a decision, as the buffer hands it over.
fn dialogue(dialogues: &Dialogues, customer: &str, id: &str, texts: &[&str]) -> Dialogue {
    let now = dialogues.now();
    let language = Language::parse("pt-BR").unwrap();
    let text = |(place, text): (i64, &&str)| Text::new(text, language, Timestamp(now.0 + place));
    let customer = CustomerId::parse(customer).unwrap();
    Dialogue {
        id: DialogId::parse(id).unwrap(),
        customer_ref: dialogues.pseudonyms().customer(&customer),
        customer,
        began_at: now,
        count: texts.len(),
        language,
        texts: Arc::new((0..).zip(texts).map(text).collect()),
    }
}

/// Everything that matches, newest first.
async fn read(dialogues: &Dialogues, filter: MessageFilter) -> Vec<Message> {
    let slice = Slice::Seek {
        after: None,
        count: 1_000,
    };
    let page = dialogues.messages(&OPERATOR, &filter, slice, true).await;
    page.unwrap().0
}

/// The texts of everything, in the order in which they came.
async fn texts(dialogues: &Dialogues) -> Vec<String> {
    let read = read(dialogues, MessageFilter::default()).await;
    read.iter()
        .rev()
        .map(|message| message.text.to_string())
        .collect()
}

/// A test that hangs is to fail by its name.
async fn in_time(test: impl Future<Output = ()>) {
    let ended = tokio::time::timeout(TEST_MAX, test).await;
    ended.expect("the test ends in time");
}

macro_rules! contract {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::in_time(async { super::$name(&crate::Store::sqlite()).await }).await;
            })*
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Ok(url) = std::env::var("AUSPEX_TEST_POSTGRES_URL") else { return };
                crate::in_time(async {
                    let store = crate::Store::postgres(&url, stringify!($name)).await;
                    super::$name(&store).await;
                    store.remove().await;
                })
                .await;
            })*
        }
    };
}

mod canary;
mod consents;
mod erasures;
mod intake;
mod keys;
mod reading;
mod retention;
