//! What one replica holds of the permits of one caller: a state that changes by what happens, without
//! time, tasks or Redis of its own.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Decision;
use crate::clock::Steady;

/// Requests of one caller that may wait for one answer; those beyond are counted by this replica alone.
const WAITING_MAX: usize = 16_384;
/// How long a refusal is believed without asking again: another replica may give permits back.
const REFUSAL: Duration = Duration::from_millis(20);
/// The fewest permits taken in advance by a caller whose requests come one after the other.
const SPARE_MIN: u32 = 4;

/// How a request is counted.
#[derive(Debug)]
pub(super) enum Turn {
    /// Over all replicas.
    Shared(Decision),
    /// By this replica alone.
    Local,
}

/// What comes of asking for a permit.
#[derive(Debug)]
pub(super) enum Asked {
    /// It is known already.
    Now(Turn),
    /// The next answer tells.
    Soon(oneshot::Receiver<Turn>),
}

/// Permits of one caller.
#[derive(Debug)]
pub(super) struct Lease {
    grants: VecDeque<Grant>,
    waiting: VecDeque<oneshot::Sender<Turn>>,
    /// How many are taken in advance.
    spare: u32,
    spare_max: u32,
    /// They come to an end before they are given back.
    is_low: bool,
    /// Whether it has been asked for lately, and until when that is so.
    recent_until: Steady,
    refused_until: Steady,
    limit: u32,
    /// Left to all when it was last asked for, and when the next ones come.
    left: u32,
    frees_at: Steady,
}

/// Permits that came together.
#[derive(Debug)]
struct Grant {
    permits: Permits,
    /// After this they are not used any more.
    until: Steady,
}

/// A number of permits, as Redis has counted them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permits {
    pub(super) begun: i64,
    pub(super) slot: i64,
    pub(super) count: u32,
}

/// What to ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) needed: u32,
    pub(super) wanted: u32,
    pub(super) back: Vec<Permits>,
}

/// What was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) granted: Permits,
    pub(super) left: u32,
    pub(super) frees_in: Duration,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Ask(Ask),
    /// Nothing until then, unless it is woken.
    Rest(Steady),
    /// Nothing is held any more.
    End,
}

impl Lease {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            grants: VecDeque::new(),
            waiting: VecDeque::new(),
            spare: 0,
            spare_max: limit / 64,
            is_low: false,
            recent_until: Steady::default(),
            refused_until: Steady::default(),
            limit,
            left: 0,
            frees_at: Steady::default(),
        }
    }

    /// A permit, if one is held; whether to wake whoever asks for more is told beside it.
    pub(super) fn ask(&mut self, now: Steady) -> (Asked, bool) {
        if let Some(decision) = self.take(now) {
            let wakes = !self.is_low && self.has_few();
            self.is_low |= wakes;
            return (Asked::Now(Turn::Shared(decision)), wakes);
        }
        if now < self.refused_until {
            return (Asked::Now(Turn::Shared(self.decision(false, now))), false);
        }
        if self.waiting.len() >= WAITING_MAX {
            return (Asked::Now(Turn::Local), false);
        }
        let (sender, receiver) = oneshot::channel();
        self.waiting.push_back(sender);
        (Asked::Soon(receiver), true)
    }

    /// What is to be done by whoever asks for permits.
    pub(super) fn next(&mut self, now: Steady) -> Next {
        self.waiting.retain(|waiting| !waiting.is_closed());
        let back = self.ended(now);
        if !self.waiting.is_empty() || self.is_low {
            if now < self.recent_until {
                self.spare = (self.spare * 2).max(SPARE_MIN).min(self.spare_max);
            }
            return Next::Ask(Ask {
                needed: u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
                wanted: self.spare,
                back,
            });
        }
        if !back.is_empty() {
            return Next::Ask(Ask {
                needed: 0,
                wanted: 0,
                back,
            });
        }
        let rests = self.grants.front().map(|grant| grant.until);
        let others = [self.refused_until, self.recent_until];
        match rests
            .into_iter()
            .chain(others)
            .filter(|until| *until > now)
            .min()
        {
            Some(until) => Next::Rest(until),
            None => Next::End,
        }
    }

    /// Takes note of an answer, and lets those pass who wait for it. What was granted may be used until
    /// `until`.
    pub(super) fn answered(&mut self, ask: &Ask, answer: Answer, now: Steady, until: Steady) {
        self.left = answer.left;
        self.frees_at = now + answer.frees_in;
        let granted = answer.granted.count;
        if granted > 0 {
            let permits = answer.granted;
            self.grants.push_back(Grant { permits, until });
        }
        if ask.needed + ask.wanted > 0 {
            self.recent_until = until;
        }
        while let Some(waiting) = self.waiting.pop_front() {
            if waiting.is_closed() {
                continue;
            }
            match self.take(now) {
                Some(decision) => drop(waiting.send(Turn::Shared(decision))),
                None => {
                    self.waiting.push_front(waiting);
                    break;
                }
            }
        }
        self.is_low = self.has_few() && granted >= ask.needed + ask.wanted;
        if granted < ask.needed {
            self.refused_until = now + answer.frees_in.min(REFUSAL);
            for waiting in std::mem::take(&mut self.waiting) {
                let _ = waiting.send(Turn::Shared(self.decision(false, now)));
            }
        }
    }

    /// There is no answer: who waits is counted here, and what is held counts as lost.
    pub(super) fn failed(&mut self) {
        self.grants.clear();
        for waiting in std::mem::take(&mut self.waiting) {
            let _ = waiting.send(Turn::Local);
        }
    }

    fn take(&mut self, now: Steady) -> Option<Decision> {
        let usable = |grant: &&mut Grant| grant.permits.count > 0 && now < grant.until;
        let grant = self.grants.iter_mut().find(usable)?;
        grant.permits.count -= 1;
        Some(self.decision(true, now))
    }

    fn held(&self) -> u32 {
        self.grants.iter().map(|grant| grant.permits.count).sum()
    }

    fn has_few(&self) -> bool {
        self.spare >= SPARE_MIN && self.held() <= self.spare / 2
    }

    /// What is not used any more and can be given back.
    fn ended(&mut self, now: Steady) -> Vec<Permits> {
        let mut back = Vec::new();
        self.grants.retain(|grant| {
            let is_kept = now < grant.until && grant.permits.count > 0;
            if !is_kept && grant.permits.count > 0 {
                back.push(grant.permits);
            }
            is_kept
        });
        let unused: u32 = back.iter().map(|permits| permits.count).sum();
        self.spare = self.spare.saturating_sub(unused);
        back
    }

    fn decision(&self, allowed: bool, now: Steady) -> Decision {
        Decision {
            allowed,
            limit: self.limit,
            remaining: match allowed {
                true => self.left.saturating_add(self.held()).min(self.limit),
                false => 0,
            },
            reset_in: self.frees_at.since(now),
        }
    }
}
