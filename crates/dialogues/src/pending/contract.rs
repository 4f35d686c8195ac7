//! What every [`Pending`] must do, once for all of them: in memory always, in Redis where it is installed.

use std::time::Duration;

use auspex_kernel::redis::{Redis, RedisConfig};
use auspex_kernel::{Clock, Random, Timestamp};

use super::{
    Away, Before, Dialogue, Dropped, Held as _, Limits, Look, Mark, Marks, Memory, NewText,
    Outcome, Pending, PushError, Pushed, Shared, State, Taken,
};
use crate::ids::{CustomerId, CustomerRef, DialogId};
use crate::language::Language;
use redis_server::RedisServer;

#[path = "../../../kernel/tests/it/redis/server.rs"]
mod redis_server;

const START: Timestamp = Timestamp(1_769_335_200_000_000);
const EXPIRY: Duration = Duration::from_hours(24);
const END_OF_TIME: Timestamp = Timestamp(i64::MAX);
const SECOND: Duration = Duration::from_secs(1);

pub(super) fn limits() -> Limits {
    Limits {
        texts_max: 5,
        bytes_max: 100_000,
        expiry: EXPIRY,
    }
}

/// What makes and keeps the buffer under test.
trait Kind {
    type Pending: Pending;

    fn make(&self, limits: Limits, clock: Clock) -> impl Future<Output = Self::Pending>;
}

struct InMemory;

impl Kind for InMemory {
    type Pending = Memory;

    async fn make(&self, limits: Limits, clock: Clock) -> Memory {
        Memory::new(limits, clock)
    }
}

impl Kind for RedisServer {
    type Pending = Shared;

    async fn make(&self, limits: Limits, clock: Clock) -> Shared {
        shared(self, limits, clock).await
    }
}

/// What a replica has.
async fn shared(server: &RedisServer, limits: Limits, clock: Clock) -> Shared {
    let config = RedisConfig {
        url: server.url(),
        prefix: "test:".into(),
        timeout_ms: 1_000,
    };
    let redis = Redis::open(&config).await.expect("a usable URL");
    let shared = Shared::new(redis, &[7; 32], limits, clock, Random::system());
    shared.by_clock(Duration::from_millis(300))
}

/// A buffer, and short words for what tests do with it.
struct Bench<P> {
    pending: P,
    clock: Clock,
    marks: Marks,
}

fn dialogue(id: &str) -> DialogId {
    DialogId::parse(id).expect("an id")
}

fn customer(id: &str) -> CustomerId {
    CustomerId::parse(id).expect("an id")
}

/// A pseudonym for tests, of the first byte of the id.
fn pseudonym(id: &str) -> CustomerRef {
    CustomerRef::from_bytes(&[id.as_bytes()[0]; 16]).expect("16 bytes")
}

impl<P: Pending> Bench<P> {
    async fn new(kind: &impl Kind<Pending = P>, limits: Limits) -> Self {
        let clock = Clock::manual(START);
        Self {
            pending: kind.make(limits, clock.clone()).await,
            clock,
            marks: Marks::new(&Random::system()).expect("random bytes"),
        }
    }

    async fn push_as(
        &self,
        (whose, id): (&str, &str),
        text: &str,
        mark: Option<Mark>,
        may_begin: bool,
    ) -> Result<Pushed, PushError> {
        let new = NewText {
            customer: &customer(whose),
            dialogue: &dialogue(id),
            text,
            language: Language::parse("es").expect("a language"),
            mark,
        };
        let begin = may_begin.then(|| pseudonym(whose));
        self.pending.push(new, begin).await
    }

    /// Pushes a text of Ann's that may begin its dialogue.
    async fn push(&self, id: &str, text: &str) -> Result<Pushed, PushError> {
        self.push_as(("ann", id), text, None, true).await
    }

    async fn take(&self, id: &str) -> P::Held {
        match self.pending.take(&dialogue(id)).await {
            Taken::Held(held) => held,
            Taken::Busy => panic!("{id} is busy"),
            Taken::Unknown => panic!("{id} is unknown"),
            Taken::Away => panic!("the buffer is away"),
        }
    }

    async fn is_unknown(&self, id: &str) -> bool {
        matches!(self.pending.take(&dialogue(id)).await, Taken::Unknown)
    }

    async fn state(&self, id: &str) -> Option<(State, usize)> {
        let look = self
            .pending
            .look(&dialogue(id))
            .await
            .expect("it answers")?;
        Some((look.state, look.texts))
    }

    /// Drops what somebody decides, and waits until that is noticed.
    async fn abandon(&self, id: &str, held: P::Held) {
        drop(held);
        while matches!(self.state(id).await, Some((State::Deciding, _))) {
            tokio::task::yield_now().await;
        }
    }

    async fn expire(&self) -> Dropped {
        self.pending.expire().await.expect("it answers")
    }

    async fn settle(&self, id: &str, outcome: Outcome) {
        self.take(id).await.settle(outcome).await;
    }
}

fn texts(dialogue: &Dialogue) -> Vec<&str> {
    dialogue.texts.iter().map(|text| text.said()).collect()
}

async fn a_dialogue_is_taken_with_its_texts_in_order(kind: &impl Kind) {
    let bench = Bench::new(kind, limits()).await;
    assert_eq!(
        bench.push_as(("ann", "d"), "one", None, false).await,
        Err(PushError::Unknown),
        "the database was not asked"
    );
    assert_eq!(bench.state("d").await, None);
    let pushed = bench.push("d", "one").await.expect("room");
    assert_eq!(pushed.expires_at, START + EXPIRY);
    // The wall clock is set back meanwhile.
    bench.clock.step(START - EXPIRY);
    bench
        .push_as(("ann", "d"), "two", None, false)
        .await
        .expect("room");
    bench.push("other", "elsewhere").await.expect("room");
    assert_eq!(bench.state("d").await, Some((State::Open, 2)));
    let held = bench.take("d").await;
    let dialogue = held.dialogue();
    assert_eq!(texts(dialogue), ["one", "two"]);
    assert_eq!(
        (dialogue.id.expose(), dialogue.customer.expose()),
        ("d", "ann")
    );
    assert_eq!((dialogue.began_at, dialogue.count), (START, 2));
    assert_eq!(dialogue.texts[1].language().as_str(), "es");
    assert!(dialogue.texts[1].received_at() > dialogue.texts[0].received_at());
    assert_eq!(held.before(), Before::Open);
}

async fn nothing_is_added_during_or_after_a_decision(kind: &impl Kind) {
    let bench = Bench::new(kind, limits()).await;
    bench.push("d", "one").await.expect("room");
    let held = bench.take("d").await;
    assert_eq!(bench.push("d", "late").await, Err(PushError::Deciding));
    assert_eq!(bench.state("d").await, Some((State::Deciding, 1)));
    held.settle(Outcome::Decided).await;
    assert_eq!(bench.push("d", "late").await, Err(PushError::Decided));
    assert_eq!(bench.state("d").await, None, "the database knows");
    assert!(bench.is_unknown("d").await);
    bench.clock.advance(Duration::from_mins(1));
    assert_eq!(
        bench.push_as(("ann", "d"), "late", None, false).await,
        Err(PushError::Unknown)
    );
    bench.expire().await;
    assert_eq!(bench.pending.size().await.bytes, 0);
}

async fn a_dialogue_belongs_to_one_customer(kind: &impl Kind) {
    let bench = Bench::new(kind, limits()).await;
    bench.push("d", "one").await.expect("room");
    let foreign = bench.push_as(("bob", "d"), "two", None, true).await;
    assert_eq!(foreign, Err(PushError::OtherCustomer));
    assert_eq!(texts(bench.take("d").await.dialogue()), ["one"]);
}

async fn a_decision_that_fails_leaves_all_as_it_was(kind: &impl Kind) {
    let bench = Bench::new(kind, limits()).await;
    bench.push("d", "one").await.expect("room");
    bench.settle("d", Outcome::Back).await;
    bench.push("d", "two").await.expect("room");
    let held = bench.take("d").await;
    assert_eq!(texts(held.dialogue()), ["one", "two"]);
    // Kept beyond the decision, as by a write that is abandoned.
    let kept = held.dialogue().clone();
    held.settle(Outcome::Back).await;
    bench.push("d", "three").await.expect("room");
    assert_eq!(texts(&kept), ["one", "two"]);
    assert_eq!(
        texts(bench.take("d").await.dialogue()),
        ["one", "two", "three"]
    );
}

async fn a_decision_that_nobody_knows_of_is_settled_by_the_next(kind: &impl Kind) {
    let bench = Bench::new(kind, limits()).await;
    bench.push("d", "one").await.expect("room");
    bench.abandon("d", bench.take("d").await).await;
    assert_eq!(bench.push("d", "two").await, Err(PushError::Unsure));
    assert_eq!(bench.state("d").await, Some((State::Unsure, 1)));
    let held = bench.take("d").await;
    assert_eq!(held.before(), Before::Unsure);
    assert_eq!(texts(held.dialogue()), ["one"]);
    held.settle(Outcome::Back).await;
    assert_eq!(bench.take("d").await.before(), Before::Unsure);
    bench.settle("d", Outcome::Decided).await;
    assert!(bench.is_unknown("d").await);
}

async fn a_refusal_drops_the_texts_before_it_is_recorded(kind: &impl Kind) {
    let bench = Bench::new(kind, limits()).await;
    // Whatever the write comes to.
    for outcome in [
        None,
        Some(Outcome::Back),
        Some(Outcome::Unsure),
        Some(Outcome::Refused),
    ] {
        bench.push("d", "one").await.expect("room");
        let before = bench.pending.size().await.bytes;
        let mut held = bench.take("d").await;
        held.drop_texts().await.expect("it answers");
        assert!(bench.pending.size().await.bytes < before);
        assert_eq!((held.dialogue().texts.len(), held.dialogue().count), (0, 1));
        match outcome {
            Some(outcome) => held.settle(outcome).await,
            None => bench.abandon("d", held).await,
        }
        assert_eq!(bench.push("d", "two").await, Err(PushError::Decided));
        assert_eq!(bench.state("d").await, Some((State::Refused, 1)));
        let held = bench.take("d").await;
        assert_eq!(held.before(), Before::Refused);
        assert_eq!((held.dialogue().texts.len(), held.dialogue().count), (0, 1));
        bench.abandon("d", held).await;
        assert_eq!(bench.state("d").await, Some((State::Refused, 1)));
        bench.settle("d", Outcome::Gone).await;
    }
    assert_eq!(bench.pending.size().await.bytes, 0);
}

async fn of_two_decisions_one_waits_for_the_other(kind: &impl Kind) {
    let bench = Bench::new(kind, limits()).await;
    bench.push("d", "one").await.expect("room");
    let (id, held) = (dialogue("d"), bench.take("d").await);
    let (second, ()) = tokio::join!(bench.pending.take(&id), held.settle(Outcome::Back));
    let Taken::Held(second) = second else {
        panic!("the dialogue was given back");
    };
    let (third, ()) = tokio::join!(bench.pending.take(&id), second.settle(Outcome::Decided));
    assert!(matches!(third, Taken::Unknown), "it is decided");
    bench.push("e", "one").await.expect("room");
    let _held = bench.take("e").await;
    let waiting = bench.pending.take(&dialogue("e")).await;
    assert!(matches!(waiting, Taken::Busy), "it does not wait for ever");
}

async fn a_dialogue_expires_unless_texts_renew_it(kind: &impl Kind) {
    let bench = Bench::new(kind, limits()).await;
    bench.push("d", "one").await.expect("room");
    bench.clock.advance(EXPIRY - SECOND);
    bench.push("d", "two").await.expect("room");
    bench.clock.advance(EXPIRY - SECOND);
    assert_eq!(bench.expire().await, Dropped::default());
    // A wall clock that steps ends nothing.
    bench.clock.step(START + 10 * EXPIRY);
    assert_eq!(bench.state("d").await, Some((State::Open, 2)));
    bench.clock.advance(SECOND);
    assert_eq!(bench.state("d").await, None);
    assert!(bench.is_unknown("d").await);
    assert_eq!(
        bench.push_as(("ann", "d"), "three", None, false).await,
        Err(PushError::Unknown)
    );
    bench
        .push_as(("bob", "d"), "three", None, true)
        .await
        .expect("begins anew");
    assert_eq!(texts(bench.take("d").await.dialogue()), ["three"]);
}

async fn expired_dialogues_give_their_room_back(kind: &impl Kind) {
    let bench = Bench::new(kind, limits()).await;
    for id in ["open", "unsure", "refused", "held"] {
        bench.push(id, "one").await.expect("room");
        bench.push(id, "two").await.expect("room");
    }
    bench.settle("unsure", Outcome::Unsure).await;
    bench.settle("refused", Outcome::Refused).await;
    bench.clock.advance(EXPIRY - SECOND);
    let held = bench.take("held").await;
    bench.clock.advance(SECOND);
    let dropped = bench.expire().await;
    assert_eq!((dropped.dialogues, dropped.texts), (3, 4));
    assert_eq!(bench.state("held").await, Some((State::Deciding, 2)));
    held.settle(Outcome::Back).await;
    let dropped = bench.expire().await;
    assert_eq!((dropped.dialogues, dropped.texts), (1, 2));
    assert_eq!(
        (
            bench.pending.size().await.dialogues,
            bench.pending.size().await.bytes
        ),
        (0, 0)
    );
}

async fn every_bound_holds_and_keeps_what_is_there(kind: &impl Kind) {
    let bench = Bench::new(kind, limits()).await;
    for _ in 0..5 {
        bench.push("d", "text").await.expect("room");
    }
    assert_eq!(
        bench.push("d", "text").await,
        Err(PushError::TooManyTexts(5))
    );
    let long = "x".repeat(10_000);
    let mut ids = 0;
    let refused = loop {
        match bench.push(&format!("long{ids}"), &long).await {
            Ok(_) => ids += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, PushError::Full);
    assert!((8..10).contains(&ids), "{ids} long texts");
    let full = bench.pending.size().await;
    assert_eq!(bench.push("long0", &long).await, Err(PushError::Full));
    assert_eq!(
        bench.pending.size().await,
        full,
        "what is refused costs nothing"
    );
    assert!(full.bytes <= limits().bytes_max);
    bench.push("long0", "a short one").await.expect("room");
    assert_eq!(bench.state("d").await, Some((State::Open, 5)));
    bench.settle("long1", Outcome::Decided).await;
    bench.push("long0", &long).await.expect("room");
}

async fn a_text_counts_once_for_its_idempotency_key(kind: &impl Kind) {
    let bench = Bench::new(kind, limits()).await;
    let mark =
        |key: &str, body: &str| Some(bench.marks.mark("job", key.as_bytes(), body.as_bytes()));
    let push = async |key, body| {
        bench
            .push_as(("ann", "d"), body, mark(key, body), true)
            .await
    };
    let first = push("1", "one").await.expect("room");
    bench.clock.advance(SECOND);
    let again = push("1", "one").await.expect("known");
    assert!(!first.is_repeated && again.is_repeated);
    assert_eq!(again.expires_at, first.expires_at, "it is no new text");
    assert_eq!(push("1", "other").await, Err(PushError::KeyReused));
    push("2", "one").await.expect("another text");
    assert_eq!(bench.state("d").await, Some((State::Open, 2)));
    for _ in 2..5 {
        bench.push("d", "more").await.expect("room");
    }
    assert!(
        push("1", "one").await.expect("known").is_repeated,
        "also when it is full"
    );
    bench.settle("d", Outcome::Decided).await;
    assert_eq!(push("1", "one").await, Err(PushError::Decided));
}

async fn a_customer_is_found_and_forgotten(kind: &impl Kind) {
    let bench = Bench::new(kind, limits()).await;
    for id in ["a1", "a2", "a3"] {
        bench.push(id, id).await.expect("room");
    }
    bench
        .push_as(("bob", "b"), "bob's", None, true)
        .await
        .expect("room");
    let held = bench.take("a2").await;
    bench.push("a4", "decided").await.expect("room");
    bench.settle("a4", Outcome::Decided).await;
    let ann = pseudonym("ann");
    let mut found = bench.pending.of_customer(ann).await.expect("it answers");
    found.sort_by(|one, other| one.id.expose().cmp(other.id.expose()));
    let found: Vec<_> = found
        .iter()
        .map(|dialogue| texts(dialogue).concat())
        .collect();
    assert_eq!(found, ["a1", "a2", "a3"]);
    let earlier = bench.pending.drop_customer(ann, START - SECOND).await;
    assert_eq!(earlier, Ok(Dropped::default()), "they began later");
    assert_eq!(bench.state("a1").await, Some((State::Open, 1)));
    let dropped = bench.pending.drop_customer(ann, END_OF_TIME).await;
    let dropped = dropped.expect("it answers");
    assert_eq!((dropped.dialogues, dropped.texts), (2, 2), "but for a2");
    assert_eq!(
        bench.pending.drop_customer(ann, END_OF_TIME).await,
        Ok(Dropped::default())
    );
    assert_eq!(bench.state("a1").await, None);
    held.settle(Outcome::Back).await;
    assert!(bench.is_unknown("a2").await, "it does not come back");
    assert_eq!(bench.state("b").await, Some((State::Open, 1)));
    assert!(
        bench
            .pending
            .of_customer(ann)
            .await
            .expect("it answers")
            .is_empty()
    );
    bench
        .push("a1", "anew")
        .await
        .expect("the person may come back");
    bench.push("a4", "anew").await.expect("also with this id");
    bench.settle("a1", Outcome::Gone).await;
    bench.settle("a4", Outcome::Gone).await;
    bench.settle("b", Outcome::Gone).await;
    assert_eq!(bench.pending.size().await.bytes, 0);
}

/// The suite for every kind of buffer.
macro_rules! suites {
    ($($test:ident)*) => {
        mod memory {
            use super::*;

            $(#[tokio::test(start_paused = true)]
            async fn $test() {
                super::$test(&InMemory).await;
            })*
        }

        mod redis {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn $test() {
                let Some(server) = RedisServer::start() else { return };
                super::$test(&server).await;
            })*
        }
    };
}

suites! {
    a_dialogue_is_taken_with_its_texts_in_order
    nothing_is_added_during_or_after_a_decision
    a_dialogue_belongs_to_one_customer
    a_decision_that_fails_leaves_all_as_it_was
    a_decision_that_nobody_knows_of_is_settled_by_the_next
    a_refusal_drops_the_texts_before_it_is_recorded
    of_two_decisions_one_waits_for_the_other
    a_dialogue_expires_unless_texts_renew_it
    expired_dialogues_give_their_room_back
    every_bound_holds_and_keeps_what_is_there
    a_text_counts_once_for_its_idempotency_key
    a_customer_is_found_and_forgotten
}

/// What Redis alone has.
mod replicas {
    use super::*;

    async fn pair(server: &RedisServer) -> [Bench<Shared>; 2] {
        let clock = Clock::manual(START);
        let marks = Shared::marks(&[7; 32]);
        let bench = async || Bench {
            pending: shared(server, limits(), clock.clone()).await,
            clock: clock.clone(),
            marks: marks.clone(),
        };
        [bench().await, bench().await]
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_dialogue_begins_on_one_and_is_decided_on_the_other() {
        let Some(server) = RedisServer::start() else {
            return;
        };
        let [one, other] = pair(&server).await;
        one.push("d", "one").await.expect("room");
        other.push("d", "two").await.expect("room");
        let held = other.take("d").await;
        assert_eq!(texts(held.dialogue()), ["one", "two"]);
        assert_eq!(one.push("d", "late").await, Err(PushError::Deciding));
        held.settle(Outcome::Decided).await;
        assert_eq!(one.push("d", "late").await, Err(PushError::Decided));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_replica_that_ends_while_it_decides_leaves_the_dialogue_to_others() {
        let Some(server) = RedisServer::start() else {
            return;
        };
        let [one, other] = pair(&server).await;
        one.push("d", "one").await.expect("room");
        std::mem::forget(one.take("d").await);
        assert_eq!(other.state("d").await, Some((State::Deciding, 1)));
        other.clock.advance(Duration::from_mins(2));
        assert_eq!(other.expire().await, Dropped::default());
        assert_eq!(other.state("d").await, Some((State::Unsure, 1)));
        let held = other.take("d").await;
        assert_eq!(
            (held.before(), texts(held.dialogue())),
            (Before::Unsure, vec!["one"])
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn texts_pushed_at_once_are_all_there_once() {
        let Some(server) = RedisServer::start() else {
            return;
        };
        let replicas = pair(&server).await;
        let push = async |replica: usize, place: usize| {
            let pushed = replicas[replica].push(&format!("d{place}"), "text").await;
            pushed.expect("room");
        };
        tokio::join!(
            async {
                for place in 0..20 {
                    push(0, place).await
                }
            },
            async {
                for place in 0..20 {
                    push(1, place).await
                }
            },
            async {
                for place in 0..20 {
                    push(1, place).await
                }
            },
        );
        for place in 0..20 {
            let state = replicas[0].state(&format!("d{place}")).await;
            assert_eq!(state, Some((State::Open, 3)));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn without_redis_nothing_is_accepted_that_could_be_lost() {
        let Some(mut server) = RedisServer::start() else {
            return;
        };
        let [one, _] = pair(&server).await;
        one.push("d", "one").await.expect("room");
        // It would drop texts to make room.
        server.say("CONFIG SET maxmemory-policy allkeys-lru");
        server.say("CONFIG SET maxmemory 100mb");
        let refused = async {
            while one.push("d", "two").await != Err(PushError::Away) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(3), refused).await;
        in_time.expect("it is noticed");
        server.kill();
        assert_eq!(one.push("e", "one").await, Err(PushError::Away));
        assert_eq!(one.pending.look(&dialogue("d")).await, Err(Away));
        assert!(matches!(
            one.pending.take(&dialogue("d")).await,
            Taken::Away
        ));
        let ann = pseudonym("ann");
        assert_eq!(one.pending.drop_customer(ann, END_OF_TIME).await, Err(Away));
        assert!(one.pending.of_customer(ann).await.is_err());
        // What it held ended with it; it is used again soon.
        server.start_again();
        assert_eq!(pushed_again(&one).await, None);
        server.freeze();
        assert_eq!(one.push("d", "two").await, Err(PushError::Away));
        server.thaw();
        assert_ne!(pushed_again(&one).await, None);
    }

    /// How the dialogue was just before a text could be pushed again.
    async fn pushed_again(bench: &Bench<Shared>) -> Option<Look> {
        let pushing = async {
            loop {
                let Ok(before) = bench.pending.look(&dialogue("d")).await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                if bench.push("d", "again").await.is_ok() {
                    return before;
                }
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(3), pushing).await;
        in_time.expect("it is noticed")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn redis_sees_neither_ids_nor_texts() {
        let Some(server) = RedisServer::start() else {
            return;
        };
        let [one, _] = pair(&server).await;
        let mark = one.marks.mark("job", b"secret-key", b"secret-body");
        let pushed = one.push_as(
            ("secret-ann", "secret-dialogue"),
            "secret-text",
            Some(mark),
            true,
        );
        pushed.await.expect("room");
        let folder = tempfile::tempdir().expect("a folder");
        server.say(&format!("CONFIG SET dir {}", folder.path().display()));
        server.say("CONFIG SET rdbcompression no");
        assert_eq!(server.say("SAVE"), "+OK");
        let saved = std::fs::read(folder.path().join("dump.rdb")).expect("saved");
        let holds = |text: &[u8]| saved.windows(text.len()).any(|found| found == text);
        assert!(holds(b"test:pending:"), "it is there");
        for secret in ["secret", "es\0", "ann"] {
            assert!(!holds(secret.as_bytes()), "{secret}");
        }
    }
}
