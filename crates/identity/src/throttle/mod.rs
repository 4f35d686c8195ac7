//! How guesses at passwords are slowed down without anybody being locked out by strangers.
//!
//! - **Address** (IPv6: its /64): the first failures in a window are free. After them every refusal
//!   comes late, and passwords are tried in turns: one at a time and account, and so many a second
//!   from the whole address. A right one succeeds as soon as it is tried.
//! - **Account**, by name, whether or not it exists: an attempt waits the longer the more attempts
//!   have failed lately, two seconds at most, and never is it refused.
//! - **Both together**: an address that has logged in to the account within a day does not wait, and
//!   its passwords are hashed before those of strangers. It has an allowance of its own, so that
//!   nothing that others do at the address concerns it.
//!
//! An attempt counts from the moment it begins; one that succeeds, or was never tried, is taken
//! back. Beyond the allowance, accounts that do not exist, that failed before, and all others have
//! turns apart, so that neither made-up names nor repeated guesses take the turn of a newcomer.
//! Whose turn it is shows in no answer: a right password aside, all of them take [`REFUSED_AFTER`].
//!
//! All memory is bounded. Filling a table makes it forget, and never makes it refuse others:
//! a shared count for those who do not fit, as [`auspex_kernel::quota`] has, would let strangers with
//! enough addresses lock newcomers out, which is why it is not used here. Forgetting is not cheap
//! to bring about either: an address has an allowance for few entries, and what is least under
//! suspicion goes first.
//!
//! Codes of devices are guessed by users who are logged in. Each has an allowance for them, beyond which
//! nothing is looked up; wrong ones count for the address as well.
//!
//! Names are kept as hashes under a key of this process alone.

mod bounded;

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use auspex_kernel::clock::Steady;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::password::Lane;
use bounded::Bounded;

const ENTRIES_MAX: usize = 100_000;
/// From how many addresses an account is known; the latest stay.
const KNOWN_ADDRESSES_MAX: usize = 8;
const KNOWN_FOR: Duration = Duration::from_hours(24);

/// Beyond the allowance of an address: the time between two passwords for one account, and the
/// longest that one of them waits for its turn.
const TURN: Duration = Duration::from_secs(2);
/// The time between two passwords for accounts that have not failed from this address lately.
const FIRST_TURN: Duration = Duration::from_millis(125);
/// The time between two passwords for accounts that have, or that do not exist.
const OTHER_TURN: Duration = Duration::from_millis(500);
/// When a refusal beyond the allowance is answered: after any turn, with time to hash.
pub(crate) const REFUSED_AFTER: Duration = Duration::from_millis(2_500);

/// `[identity.throttle]`: how much is borne.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Free failures per address and window.
    pub(crate) failures_max: u32,
    /// Length of the window.
    pub(crate) window_s: u32,
    /// The longest an attempt at an account waits because of others at that account.
    pub(crate) delay_max_ms: u32,
}

/// An attempt that has begun and was counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    address: u64,
    account: u64,
    at: Steady,
    /// The account was logged in to from there lately.
    pub(crate) is_known: bool,
    /// To be waited because of others at that account.
    delay: Duration,
    /// By how much it made the account suspect.
    suspicion: Duration,
    /// Why a refusal is to be answered late and by 429: the address has no allowance left.
    pub(crate) beyond: Option<RetryAfter>,
}

/// When and how the password of an attempt is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// To be waited before the password is hashed.
    pub(crate) delay: Duration,
    /// Where it is to be hashed.
    pub(crate) lane: Lane,
}

impl Turn {
    fn at_once(lane: Lane) -> Self {
        let delay = Duration::ZERO;
        Self { delay, lane }
    }
}

/// The address has failed too often. To be answered by 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many failed logins from this address; try again in {} seconds", self.seconds())]
pub struct RetryAfter(pub(crate) Duration);

impl RetryAfter {
    /// For the header: whole seconds, never too few.
    pub(crate) fn seconds(&self) -> u64 {
        self.0.as_secs() + u64::from(self.0.subsec_nanos() > 0)
    }
}

/// Remembers attempts and successes, in memory.
#[derive(Debug)]
pub(crate) struct Throttle {
    failures_max: u32,
    window: Duration,
    delay_max: Duration,
    keys: RandomState,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the free attempts of each address began, oldest first, and those of each account at an
    /// address that is known there. `failures_max` of them at most.
    begun: Bounded<VecDeque<Steady>>,
    /// When the next turn is: of an account at an address, and of each kind of turn at an address.
    turns: Bounded<Steady>,
    /// Until when each account is under suspicion.
    accounts: Bounded<Steady>,
    /// From which addresses each account was logged in to, and when, oldest first. Strangers cannot
    /// add to this, and an owner only to what is known of their own account.
    known: Bounded<VecDeque<(u64, Steady)>>,
}

/// Turns beyond the allowance do not take from one another if they differ in this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// No such account.
    Unknown,
    /// Tried there before.
    Again,
    /// Not yet.
    First,
    /// Logged in to from there lately.
    Known,
}

impl Kind {
    /// The time between two turns at one address.
    fn every(self) -> Duration {
        match self {
            Kind::Known => Duration::ZERO,
            Kind::First => FIRST_TURN,
            Kind::Again | Kind::Unknown => OTHER_TURN,
        }
    }
}

impl Throttle {
    /// Starts with nothing remembered.
    pub(crate) fn new(settings: Settings) -> Self {
        Self::with_entries_max(settings, ENTRIES_MAX)
    }

    fn with_entries_max(settings: Settings, entries_max: usize) -> Self {
        Self {
            failures_max: settings.failures_max.max(1),
            window: Duration::from_secs(settings.window_s.max(1).into()),
            delay_max: Duration::from_millis(settings.delay_max_ms.into()),
            keys: RandomState::new(),
            state: Mutex::new(State {
                begun: Bounded::new(entries_max),
                turns: Bounded::new(entries_max),
                accounts: Bounded::new(entries_max),
                known: Bounded::new(entries_max),
            }),
        }
    }

    /// Counts an attempt at `account`, in the form in which names are compared, from `address`.
    pub(crate) fn begin(&self, address: IpAddr, account: &str, now: Steady) -> Attempt {
        let mut state = self.state.lock();
        let (address, account) = (self.address_key(address), self.account_key(account));
        // A right password succeeds with the next turn, long before the window ends.
        let taken = self.take(&mut state, address, now);
        let beyond = taken.is_err().then_some(RetryAfter(TURN));
        let is_known = state.knows(address, account, now);
        let (delay, suspicion) = match beyond {
            None => self.suspect(&mut state, account, now),
            // Its turn says how long it waits.
            Some(_) => (Duration::ZERO, Duration::ZERO),
        };
        Attempt {
            address,
            account,
            at: now,
            is_known,
            delay,
            suspicion,
            beyond,
        }
    }

    /// Whether so many wait for a turn at that account already that nothing need be looked up.
    pub(crate) fn is_hopeless(&self, attempt: &Attempt, now: Steady) -> bool {
        let pair = self.pair_key(attempt);
        let may_wait = |turn: &Steady| *turn <= now + TURN;
        let is_bounded = attempt.beyond.is_some() && !attempt.is_known;
        is_bounded && !self.state.lock().turns.get(pair).is_none_or(may_wait)
    }

    /// When and how the password may be tried; `None` if not at all. `exists`: whether there is such
    /// an account.
    pub(crate) fn turn(&self, attempt: &Attempt, exists: bool, now: Steady) -> Option<Turn> {
        let mut state = self.state.lock();
        let is_known = attempt.is_known;
        if attempt.beyond.is_none() {
            return Some(match is_known {
                true => Turn::at_once(Lane::Known),
                false => Turn {
                    delay: attempt.delay,
                    lane: Lane::Stranger,
                },
            });
        }
        let pair = self.pair_key(attempt);
        if is_known && self.take(&mut state, pair, attempt.at).is_ok() {
            return Some(Turn::at_once(Lane::Known));
        }
        let own = state.turns.get(pair).copied();
        let kind = match own {
            _ if is_known => Kind::Known,
            _ if !exists => Kind::Unknown,
            Some(next) if now < next + self.window => Kind::Again,
            Some(_) | None => Kind::First,
        };
        let shared = self.key((attempt.address, kind));
        let own = own.unwrap_or(now).max(now);
        let of_all = state.turns.get(shared).copied().unwrap_or(now).max(now);
        let turn = own.max(of_all);
        if turn > now + TURN {
            return None;
        }
        self.suspect(&mut state, attempt.account, now);
        state.next_turn(pair, turn + TURN, self.window);
        state.next_turn(shared, of_all + kind.every(), Duration::ZERO);
        Some(Turn {
            delay: turn.since(now),
            lane: Lane::Suspect,
        })
    }

    /// Counts a failure that was told at once, as that of a secret too long to be guessed.
    ///
    /// # Errors
    /// [`RetryAfter`] if the address has failed too often.
    pub(crate) fn failed(&self, address: IpAddr, now: Steady) -> Result<(), RetryAfter> {
        let address = self.address_key(address);
        self.take(&mut self.state.lock(), address, now)
    }

    /// Counts a guess at the code of a device by a user, before the code is looked up.
    ///
    /// # Errors
    /// [`RetryAfter`] if they have been wrong too often.
    pub(crate) fn guess(&self, user: &str, now: Steady) -> Result<(), RetryAfter> {
        let user = self.key(("code", user));
        self.take(&mut self.state.lock(), user, now)
    }

    /// The guess that began then was right.
    pub(crate) fn guessed(&self, user: &str, begun: Steady) {
        let user = self.key(("code", user));
        self.state.lock().untake(user, begun);
    }

    /// The password of an attempt was not tried, for no fault of its own.
    pub(crate) fn untried(&self, attempt: &Attempt) {
        self.give_back(&mut self.state.lock(), attempt);
    }

    /// The right password was given. Other attempts still count: an attacker with an account of
    /// their own could otherwise wash themselves clean.
    pub(crate) fn succeeded(&self, attempt: &Attempt, now: Steady) {
        let mut state = self.state.lock();
        self.give_back(&mut state, attempt);
        let addresses = state
            .known
            .get_or_insert(attempt.account, now, VecDeque::new);
        addresses.retain(|(known, at)| *known != attempt.address && now < *at + KNOWN_FOR);
        if addresses.len() >= KNOWN_ADDRESSES_MAX {
            addresses.pop_front();
        }
        addresses.push_back((attempt.address, now));
        state.known.keep_until(attempt.account, now + KNOWN_FOR);
    }

    /// Takes one from an allowance.
    fn take(&self, state: &mut State, of: u64, now: Steady) -> Result<(), RetryAfter> {
        let begun = state.begun.get_or_insert(of, now, VecDeque::new);
        begun.retain(|at| now < *at + self.window);
        if let Some(oldest) = begun.front()
            && begun.len() >= self.failures_max as usize
        {
            return Err(RetryAfter((*oldest + self.window).since(now)));
        }
        begun.push_back(now);
        state.begun.keep_until(of, now + self.window);
        Ok(())
    }

    /// Takes an attempt back.
    fn give_back(&self, state: &mut State, attempt: &Attempt) {
        let of = match attempt.beyond {
            None => attempt.address,
            Some(_) => self.pair_key(attempt),
        };
        state.untake(of, attempt.at);
        if let Some(until) = state.accounts.get_mut(attempt.account) {
            *until = *until - attempt.suspicion;
        }
    }

    /// How long an attempt at the account waits, and how much longer the account is suspect for it.
    /// Each adds its share of the window, so that `failures_max` of them at once make the longest
    /// delay, which then wears off over one window.
    fn suspect(&self, state: &mut State, account: u64, now: Steady) -> (Duration, Duration) {
        let until = state.accounts.get_or_insert(account, now, || now);
        let before = (*until).max(now).min(now + self.window);
        let after = (before + self.window / self.failures_max).min(now + self.window);
        *until = after;
        state.accounts.keep_until(account, after);
        let share = before.since(now).div_duration_f64(self.window);
        (self.delay_max.mul_f64(share), after.since(before))
    }

    /// A provider hands a whole /64 to one customer, who can use any address in it.
    fn address_key(&self, address: IpAddr) -> u64 {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.key((4, u128::from(v4.to_bits()))),
            IpAddr::V6(v6) => self.key((6, v6.to_bits() >> 64)),
        }
    }

    fn account_key(&self, account: &str) -> u64 {
        self.key(account)
    }

    fn pair_key(&self, attempt: &Attempt) -> u64 {
        self.key((attempt.address, attempt.account))
    }

    /// 64 bits under a random key: nobody can choose two names that meet.
    fn key(&self, of: impl Hash) -> u64 {
        self.keys.hash_one(of)
    }
}

impl State {
    /// Whether the account was logged in to from there lately.
    fn knows(&self, address: u64, account: u64, now: Steady) -> bool {
        self.known.get(account).is_some_and(|addresses| {
            addresses
                .iter()
                .any(|(known, at)| *known == address && now < *at + KNOWN_FOR)
        })
    }

    /// Gives back what was taken from an allowance then.
    fn untake(&mut self, of: u64, at: Steady) {
        if let Some(begun) = self.begun.get_mut(of)
            && let Some(index) = begun.iter().position(|begun| *begun == at)
        {
            begun.remove(index);
        }
    }

    fn next_turn(&mut self, of: u64, next: Steady, kept: Duration) {
        *self.turns.get_or_insert(of, next, || next) = next;
        self.turns.keep_until(of, next + kept);
    }
}

#[cfg(test)]
mod tests;
