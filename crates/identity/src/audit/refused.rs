//! What is refused, recorded within bounds: some lines each, then counts. Strangers are kept apart from
//! callers, who could fill the record as well.
//!
//! Anybody can be refused any number of times, and from many addresses. Of either kind, in a window of ten minutes
//! [`LINES_MAX`] refusals have a line of their own, no more than [`LINES_OF_ONE_MAX`] of them alike
//! and from one network. The rest are counted, and the counts become lines after the window: one for
//! each of [`KINDS_MAX`] kinds and networks, and one for all others. That makes at most
//! 96 + 32 + 1 lines in ten minutes and 18,576 a day, which take less than 20 MB with their indexes.

use std::collections::HashMap;
use std::time::Duration;

use auspex_kernel::audit::{Action as _, address_prefix};
use auspex_kernel::clock::Steady;

use super::{Action, Actor, Event};

const WINDOW: Duration = Duration::from_mins(10);
const LINES_MAX: u32 = 96;
/// As many as an address is answered before it is throttled.
const LINES_OF_ONE_MAX: u32 = 20;
const KINDS_MAX: usize = 32;

/// Refusals that are told together.
#[derive(PartialEq, Eq, Hash)]
struct Kind {
    actor: String,
    action: &'static str,
    target: Option<String>,
    detail: Option<String>,
    network: Option<String>,
}

/// How often one kind was refused.
struct Counted {
    actor: Actor,
    event: Event,
    lines: u32,
    more: u64,
}

/// The refusals of one window.
#[derive(Default)]
pub(super) struct Refused {
    since: Option<Steady>,
    lines: u32,
    kinds: HashMap<Kind, Counted>,
    /// Those beyond [`KINDS_MAX`].
    others: u64,
}

impl Refused {
    /// Whether this refusal is to have a line of its own. Otherwise it is counted.
    pub(super) fn has_line(&mut self, actor: &Actor, event: &Event, now: Steady) -> bool {
        self.since.get_or_insert(now);
        let kind = Kind {
            actor: actor.subject.to_string(),
            action: event.action.as_str(),
            target: event.target.clone(),
            detail: event.detail.clone(),
            network: actor.address.map(address_prefix),
        };
        if self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(&kind) {
            self.others += 1;
            return false;
        }
        let counted = self.kinds.entry(kind).or_insert_with(|| Counted {
            actor: Actor {
                request_id: None,
                ..actor.clone()
            },
            event: event.clone(),
            lines: 0,
            more: 0,
        });
        if self.lines < LINES_MAX && counted.lines < LINES_OF_ONE_MAX {
            self.lines += 1;
            counted.lines += 1;
            return true;
        }
        counted.more += 1;
        false
    }

    /// The lines about what was counted, and a new window, if this one is over by now.
    pub(super) fn end(&mut self, now: Steady) -> Vec<(Actor, Event)> {
        match self.since {
            Some(since) if now >= since + WINDOW => self.counts(),
            Some(_) | None => Vec::new(),
        }
    }

    /// The same without waiting for the end of the window.
    pub(super) fn counts(&mut self) -> Vec<(Actor, Event)> {
        let ended = std::mem::take(self);
        let counted = ended.kinds.into_values().filter(|kind| kind.more > 0);
        let mut lines: Vec<_> = counted
            .map(
                |Counted {
                     actor, event, more, ..
                 }| {
                    let detail = match &event.detail {
                        Some(detail) => format!("{detail}, {more} more"),
                        None => format!("{more} more"),
                    };
                    (actor, event.with(detail))
                },
            )
            .collect();
        if ended.others > 0 {
            let more = format!("{} more refusals of others", ended.others);
            let nobody = Actor {
                subject: auspex_kernel::Subject::Anonymous,
                ..Actor::operator()
            };
            lines.push((nobody, Event::denied(Action::Login, None).with(more)));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use auspex_kernel::Peer;

    use super::*;

    fn from(network: u32) -> Actor {
        let address = (0x0a00_0000 + (network << 8)).to_be_bytes();
        Actor::anonymous(Peer(IpAddr::from(address)), None)
    }

    fn wrong() -> Event {
        Event::denied(Action::Login, None).with("password")
    }

    fn at(seconds: u64) -> Steady {
        Steady::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_refusals_have_lines_and_the_rest_a_count() {
        let mut refused = Refused::default();
        let lines = (0..300).filter(|_| refused.has_line(&from(1), &wrong(), at(0)));
        assert_eq!(lines.count(), 20);
        assert!(refused.end(at(599)).is_empty());
        let counts = refused.end(at(600));
        assert_eq!(counts.len(), 1);
        assert_eq!(counts[0].1.detail.as_deref(), Some("password, 280 more"));
        assert!(refused.end(at(9_999)).is_empty());
        assert!(refused.has_line(&from(1), &wrong(), at(600)));
    }

    #[test]
    fn strangers_from_everywhere_make_no_more_lines_than_are_allowed() {
        let mut refused = Refused::default();
        let mut lines = 0_usize;
        let mut counted = 0_u64;
        for second in (0..86_400).step_by(10) {
            for n in 0..20 {
                lines += usize::from(refused.has_line(
                    &from(second * 20 + n),
                    &wrong(),
                    at(second.into()),
                ));
            }
            let ended = refused.end(at(second.into()));
            lines += ended.len();
            counted += ended.len() as u64;
        }
        assert!(lines <= 18_576, "{lines}");
        assert!(counted > 0);
    }
}
