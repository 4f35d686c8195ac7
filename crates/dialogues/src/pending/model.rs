//! The buffer against a model so simple that it can be seen to be right, in any order of calls, and
//! from many threads at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use auspex_kernel::{Clock, Timestamp};
use proptest::prelude::*;

use super::contract::limits;
use super::memory::Held;
use super::{
    Before, Held as _, Limits, Memory, NewText, Outcome, Pending as _, PushError, State, Taken,
};
use crate::ids::{CustomerId, CustomerRef, DialogId};
use crate::language::Language;

const CUSTOMERS: usize = 2;
const DIALOGUES: usize = 3;
const DECIDED_KEPT_H: u32 = 1;

#[derive(Clone, Copy, Debug)]
enum Call {
    Push {
        customer: usize,
        dialogue: usize,
        may_begin: bool,
    },
    Take(usize),
    DropTexts(usize),
    Settle(usize, Outcome),
    Abandon(usize),
    DropCustomer(usize),
    Expire,
    Look(usize),
    PassHours(u32),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let outcome = prop_oneof![
        Just(Outcome::Decided),
        Just(Outcome::Back),
        Just(Outcome::Unsure),
        Just(Outcome::Refused),
        Just(Outcome::Gone),
    ];
    let call = prop_oneof![
        6 => (0..CUSTOMERS, 0..DIALOGUES, any::<bool>())
            .prop_map(|(customer, dialogue, may_begin)| Call::Push { customer, dialogue, may_begin }),
        3 => (0..DIALOGUES).prop_map(Call::Take),
        1 => (0..DIALOGUES).prop_map(Call::DropTexts),
        3 => (0..DIALOGUES, outcome).prop_map(|(dialogue, outcome)| Call::Settle(dialogue, outcome)),
        1 => (0..DIALOGUES).prop_map(Call::Abandon),
        1 => (0..CUSTOMERS).prop_map(Call::DropCustomer),
        1 => Just(Call::Expire),
        2 => (0..DIALOGUES).prop_map(Call::Look),
        1 => (1..30u32).prop_map(Call::PassHours),
    ];
    prop::collection::vec(call, 1..60)
}

fn customer(number: usize) -> CustomerId {
    CustomerId::parse(&format!("customer {number}")).expect("an id")
}

fn pseudonym(number: usize) -> CustomerRef {
    CustomerRef::from_bytes(&[u8::try_from(number).expect("few"); 16]).expect("16 bytes")
}

fn dialogue(number: usize) -> DialogId {
    DialogId::parse(&format!("dialogue {number}")).expect("an id")
}

/// What is known of a dialogue.
#[derive(Clone, Debug)]
enum Known {
    Here {
        customer: usize,
        before: Before,
        texts: Vec<String>,
        count: usize,
        expires_h: u32,
        is_held: bool,
        is_dropped: bool,
    },
    /// Decided by this customer, until this hour.
    Decided(usize, u32),
}

#[derive(Default)]
struct Model {
    hour: u32,
    known: HashMap<usize, Known>,
}

impl Model {
    fn live(&mut self, dialogue: usize) -> Option<&mut Known> {
        let hour = self.hour;
        self.known.get_mut(&dialogue).filter(|known| match known {
            Known::Here {
                is_held, expires_h, ..
            } => *is_held || *expires_h > hour,
            Known::Decided(_, until) => *until > hour,
        })
    }

    fn push(
        &mut self,
        customer: usize,
        dialogue: usize,
        may_begin: bool,
        text: &str,
    ) -> Result<(), PushError> {
        let hour = self.hour;
        match self.live(dialogue) {
            None if !may_begin => return Err(PushError::Unknown),
            None => {
                let begun = Known::Here {
                    customer,
                    before: Before::Open,
                    texts: Vec::new(),
                    count: 0,
                    expires_h: hour + 24,
                    is_held: false,
                    is_dropped: false,
                };
                self.known.insert(dialogue, begun);
            }
            Some(_) => {}
        }
        match self.live(dialogue) {
            Some(Known::Decided(..)) | None => Err(PushError::Decided),
            Some(Known::Here {
                customer: whose, ..
            }) if *whose != customer => Err(PushError::OtherCustomer),
            Some(Known::Here { is_held: true, .. }) => Err(PushError::Deciding),
            Some(Known::Here {
                before: Before::Unsure,
                ..
            }) => Err(PushError::Unsure),
            Some(Known::Here {
                before: Before::Refused,
                ..
            }) => Err(PushError::Decided),
            Some(Known::Here {
                texts,
                count,
                expires_h,
                ..
            }) => {
                if *count == limits().texts_max {
                    return Err(PushError::TooManyTexts(limits().texts_max));
                }
                texts.push(text.to_owned());
                *count += 1;
                *expires_h = hour + 24;
                Ok(())
            }
        }
    }

    /// `None`: not here. The caller does not take what is held.
    fn take(&mut self, dialogue: usize) -> Option<(Before, Vec<String>, usize)> {
        match self.live(dialogue)? {
            Known::Here {
                before,
                texts,
                count,
                is_held,
                ..
            } => {
                *is_held = true;
                Some((*before, texts.clone(), *count))
            }
            Known::Decided(..) => None,
        }
    }

    fn settle(&mut self, dialogue: usize, outcome: Outcome) {
        let until = self.hour + DECIDED_KEPT_H;
        let Some(Known::Here {
            customer,
            before,
            texts,
            count,
            is_held,
            is_dropped,
            ..
        }) = self.known.get_mut(&dialogue)
        else {
            panic!("it is held");
        };
        *is_held = false;
        let has_texts = texts.len() == *count;
        match outcome {
            Outcome::Decided => {
                let customer = *customer;
                self.known.insert(dialogue, Known::Decided(customer, until));
            }
            Outcome::Gone => {
                self.known.remove(&dialogue);
            }
            _ if *is_dropped => {
                self.known.remove(&dialogue);
            }
            Outcome::Back if has_texts => {}
            Outcome::Unsure if has_texts => *before = Before::Unsure,
            Outcome::Back | Outcome::Unsure | Outcome::Refused => {
                *before = Before::Refused;
                texts.clear();
            }
        }
    }

    fn drop_customer(&mut self, number: usize) {
        self.known.retain(|_, known| match known {
            Known::Here {
                customer,
                is_held,
                is_dropped,
                texts,
                ..
            } if *customer == number => {
                *is_dropped = true;
                texts.clear();
                *is_held
            }
            Known::Decided(customer, _) => *customer != number,
            _ => true,
        });
    }

    fn look(&mut self, dialogue: usize) -> Option<(State, usize)> {
        match self.live(dialogue)? {
            Known::Here {
                is_held: true,
                count,
                ..
            } => Some((State::Deciding, *count)),
            Known::Here { before, count, .. } => Some((
                match before {
                    Before::Open => State::Open,
                    Before::Unsure => State::Unsure,
                    Before::Refused => State::Refused,
                },
                *count,
            )),
            Known::Decided(..) => None,
        }
    }
}

async fn agree(calls: Vec<Call>) {
    let clock = Clock::manual(Timestamp(0));
    let memory = Memory::new(limits(), clock.clone());
    let (mut model, mut held) = (Model::default(), HashMap::<usize, Held>::new());
    for (step, call) in calls.into_iter().enumerate() {
        match call {
            Call::Push {
                customer: whose,
                dialogue: id,
                may_begin,
            } => {
                let text = format!("text {step}");
                let new = NewText {
                    customer: &customer(whose),
                    dialogue: &dialogue(id),
                    text: &text,
                    language: Language::parse("es").expect("a language"),
                    mark: None,
                };
                let pushed = memory.push(new, may_begin.then(|| pseudonym(whose))).await;
                assert_eq!(
                    pushed.map(|_| ()),
                    model.push(whose, id, may_begin, &text),
                    "{call:?}"
                );
            }
            Call::Take(id) if held.contains_key(&id) => {}
            Call::Take(id) => {
                let found = match memory.take(&dialogue(id)).await {
                    Taken::Held(taken) => {
                        let texts = taken.dialogue().texts.iter();
                        let texts = texts.map(|text| text.said().to_owned()).collect();
                        let found = (taken.before(), texts, taken.dialogue().count);
                        held.insert(id, taken);
                        Some(found)
                    }
                    Taken::Unknown => None,
                    Taken::Busy | Taken::Away => panic!("nobody else decides"),
                };
                assert_eq!(found, model.take(id), "{call:?}");
            }
            Call::DropTexts(id) => {
                if let Some(held) = held.get_mut(&id) {
                    held.drop_texts().await.expect("it is here");
                    let Some(Known::Here { texts, .. }) = model.known.get_mut(&id) else {
                        panic!("it is held");
                    };
                    texts.clear();
                }
            }
            Call::Settle(id, outcome) => {
                if let Some(held) = held.remove(&id) {
                    held.settle(outcome).await;
                    model.settle(id, outcome);
                }
            }
            Call::Abandon(id) => {
                if held.remove(&id).is_some() {
                    model.settle(id, Outcome::Unsure);
                }
            }
            Call::DropCustomer(number) => {
                let dropped = memory
                    .drop_customer(pseudonym(number), Timestamp(i64::MAX))
                    .await;
                dropped.expect("it is here");
                model.drop_customer(number);
            }
            Call::Expire => {
                memory.expire().await.expect("it is here");
            }
            Call::Look(id) => {
                let look = memory.look(&dialogue(id)).await.expect("it is here");
                let look = look.map(|look| (look.state, look.texts));
                assert_eq!(look, model.look(id), "{call:?}");
            }
            Call::PassHours(hours) => {
                clock.advance(Duration::from_hours(hours.into()));
                model.hour += hours;
            }
        }
    }
    held.clear();
    clock.advance(Duration::from_hours(24));
    memory.expire().await.expect("it is here");
    let size = memory.size().await;
    assert_eq!(
        (size.dialogues, size.bytes),
        (0, 0),
        "all room is given back"
    );
}

proptest! {
    #[test]
    fn the_buffer_agrees_with_the_model(calls in calls()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(agree(calls));
    }
}

/// Threads push, decide and give back the same dialogues at the same time: every text that was accepted
/// is in one decision or still there, once.
#[test]
fn texts_are_in_one_decision_or_still_there_whatever_the_threads_do() {
    const THREADS: usize = 4;
    const TEXTS: usize = 4_000;
    let limits = Limits {
        texts_max: 1_000_000,
        bytes_max: 1 << 30,
        ..limits()
    };
    let memory = Memory::new(limits, Clock::system());
    let decided = parking_lot::Mutex::new(BTreeMap::<String, usize>::new());
    let accepted = AtomicUsize::new(0);
    let together = Barrier::new(THREADS);
    let run = |thread: usize| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let (memory, decided, accepted, together) = (&memory, &decided, &accepted, &together);
        runtime.expect("a runtime").block_on(async move {
            for number in 0..TEXTS {
                let id = number / 40;
                if number % 40 == 0 {
                    together.wait();
                }
                let text = format!("{thread}/{number}");
                let new = NewText {
                    customer: &customer(0),
                    dialogue: &dialogue(id),
                    text: &text,
                    language: Language::parse("es").expect("a language"),
                    mark: None,
                };
                match memory.push(new, Some(pseudonym(0))).await {
                    Ok(_) => {
                        accepted.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(PushError::Deciding | PushError::Decided) => {}
                    Err(error) => panic!("{error}"),
                }
                if number % 7 != thread {
                    continue;
                }
                if let Taken::Held(held) = memory.take(&dialogue(id)).await {
                    let is_last = number % 40 > 30;
                    let texts = held.dialogue().texts.clone();
                    tokio::task::yield_now().await;
                    if is_last {
                        let mut decided = decided.lock();
                        for text in texts.iter() {
                            *decided.entry(text.said().to_owned()).or_default() += 1;
                        }
                    }
                    held.settle(if is_last {
                        Outcome::Decided
                    } else {
                        Outcome::Back
                    })
                    .await;
                }
            }
        });
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || run(thread));
        }
    });
    let decided = decided.into_inner();
    assert!(decided.values().all(|count| *count == 1), "no text twice");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let left = runtime
        .expect("a runtime")
        .block_on(memory.of_customer(pseudonym(0)))
        .expect("it is here");
    let left: usize = left.iter().map(|dialogue| dialogue.texts.len()).sum();
    assert_eq!(
        decided.len() + left,
        accepted.into_inner(),
        "no text is lost"
    );
    assert!(decided.len() > TEXTS / 2, "much was decided");
}
