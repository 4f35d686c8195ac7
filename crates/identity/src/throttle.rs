//! How guesses at passwords are slowed down without anybody being locked out by strangers.
//!
//! - **Address** (IPv6: its /64): the first failures in a window cost nothing, then the address is
//!   refused until the oldest of them leaves the window.
//! - **Account**, by name, whether or not it exists: an attempt waits the longer the more attempts
//!   have failed lately, two seconds at most, and never is it refused.
//! - **Both together**: an address that has logged in to the account within a day does not wait, and
//!   its passwords are hashed before those of strangers.
//!
//! Only a wrong pair of name and password counts, which the caller reports once it has been hashed.
//! Attempts under way at the same moment are therefore not counted yet; how many those can be, the
//! hashing queue bounds.
//!
//! All memory is bounded. Filling a table makes it forget, and never makes it refuse others:
//! a shared count for those who do not fit, as [`auspex_kernel::quota`] has, would let strangers with
//! enough addresses lock newcomers out, which is why it is not used here. Forgetting is not cheap
//! to bring about either: each entry costs a failed Argon2 hash, 100,000 of them many core-minutes,
//! and what is least under suspicion goes first.
//!
//! Names are kept as hashes under a key of this process alone.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use auspex_kernel::clock::Steady;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::password::Lane;

const ENTRIES_MAX: usize = 100_000;
/// From how many addresses an account is known; the latest stay.
const KNOWN_ADDRESSES_MAX: usize = 8;
const KNOWN_FOR: Duration = Duration::from_hours(24);

/// `[identity.throttle]`: how much is borne.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Failures per address and window before it is refused.
    pub(crate) failures_max: u32,
    /// Length of the window.
    pub(crate) window_s: u32,
    /// The longest an attempt at an account waits.
    pub(crate) delay_max_ms: u32,
}

/// An attempt may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// To be waited before the password is hashed.
    pub(crate) delay: Duration,
    /// Where it is to be hashed.
    pub(crate) lane: Lane,
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

/// Remembers failures and successes, in memory.
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
    /// When each address failed, oldest first, `failures_max` times at most.
    addresses: Bounded<VecDeque<Steady>>,
    /// Until when each account is under suspicion.
    accounts: Bounded<Steady>,
    /// From which addresses each account was logged in to, and when, oldest first. Strangers cannot
    /// add to this, and an owner only to what is known of their own account.
    known: Bounded<VecDeque<(u64, Steady)>>,
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
                addresses: Bounded::new(entries_max),
                accounts: Bounded::new(entries_max),
                known: Bounded::new(entries_max),
            }),
        }
    }

    /// Whether a password for `account` may be tried from `address`, and how.
    ///
    /// # Errors
    /// [`RetryAfter`] if the address has failed too often.
    pub(crate) fn admit(
        &self,
        address: IpAddr,
        account: &str,
        now: Steady,
    ) -> Result<Admission, RetryAfter> {
        let (address, account) = (self.address_key(address), self.account_key(account));
        let state = self.state.lock();
        if let Some(failures) = state.addresses.get(address)
            && failures.len() >= self.failures_max as usize
            && let Some(oldest) = failures.front()
            && now < *oldest + self.window
        {
            return Err(RetryAfter((*oldest + self.window).since(now)));
        }
        let known = state.known.get(account).is_some_and(|addresses| {
            addresses
                .iter()
                .any(|(known, at)| *known == address && now < *at + KNOWN_FOR)
        });
        if known {
            return Ok(Admission {
                delay: Duration::ZERO,
                lane: Lane::Known,
            });
        }
        let suspected_until = state.accounts.get(account).copied().unwrap_or(now);
        let suspicion = suspected_until.since(now).min(self.window);
        Ok(Admission {
            delay: self
                .delay_max
                .mul_f64(suspicion.div_duration_f64(self.window)),
            lane: Lane::Stranger,
        })
    }

    /// A wrong name or password was tried.
    pub(crate) fn failed(&self, address: IpAddr, account: &str, now: Steady) {
        let (address, account) = (self.address_key(address), self.account_key(account));
        let mut state = self.state.lock();

        let failures = state.addresses.get_or_insert(address, now, VecDeque::new);
        failures.push_back(now);
        if failures.len() > self.failures_max as usize {
            failures.pop_front();
        }
        state.addresses.keep_until(address, now + self.window);

        // Each failure adds its share of the window, so that `failures_max` of them at once make
        // the longest delay, which then wears off over one window.
        let share = self.window / self.failures_max;
        let suspected_until = state.accounts.get_or_insert(account, now, || now);
        *suspected_until = (*suspected_until).max(now) + share;
        *suspected_until = (*suspected_until).min(now + self.window);
        let until = *suspected_until;
        state.accounts.keep_until(account, until);
    }

    /// The right password was given. Failures before it still count: an attacker with an account of
    /// their own could otherwise wash themselves clean.
    pub(crate) fn succeeded(&self, address: IpAddr, account: &str, now: Steady) {
        let (address, account) = (self.address_key(address), self.account_key(account));
        let mut state = self.state.lock();
        let addresses = state.known.get_or_insert(account, now, VecDeque::new);
        addresses.retain(|(known, at)| *known != address && now < *at + KNOWN_FOR);
        if addresses.len() >= KNOWN_ADDRESSES_MAX {
            addresses.pop_front();
        }
        addresses.push_back((address, now));
        state.known.keep_until(account, now + KNOWN_FOR);
    }

    /// A provider hands a whole /64 to one customer, who can use any address in it.
    fn address_key(&self, address: IpAddr) -> u64 {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.key((4, u128::from(v4.to_bits()))),
            IpAddr::V6(v6) => self.key((6, v6.to_bits() >> 64)),
        }
    }

    fn account_key(&self, account: &str) -> u64 {
        self.key(account.to_lowercase())
    }

    /// 64 bits under a random key: nobody can choose two names that meet.
    fn key(&self, of: impl Hash) -> u64 {
        self.keys.hash_one(of)
    }
}

/// A table that forgets, when it is full, first what has lost its meaning, then what loses it next.
#[derive(Debug)]
struct Bounded<V> {
    entries: HashMap<u64, (V, Steady)>,
    max: usize,
}

impl<V> Bounded<V> {
    fn new(max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            max: max.max(1),
        }
    }

    fn get(&self, key: u64) -> Option<&V> {
        self.entries.get(&key).map(|(value, _)| value)
    }

    fn get_or_insert(&mut self, key: u64, now: Steady, new: impl FnOnce() -> V) -> &mut V {
        if self.entries.len() >= self.max && !self.entries.contains_key(&key) {
            self.forget(now);
        }
        &mut self.entries.entry(key).or_insert_with(|| (new(), now)).0
    }

    /// Says until when the entry means anything.
    fn keep_until(&mut self, key: u64, until: Steady) {
        if let Some((_, kept_until)) = self.entries.get_mut(&key) {
            *kept_until = until;
        }
    }

    /// At least an eighth at once, so that looking through all is seldom needed.
    fn forget(&mut self, now: Steady) {
        let mut ends: Vec<Steady> = self.entries.values().map(|(_, until)| *until).collect();
        let eighth = self.max / 8;
        let (_, latest_forgotten, _) = ends.select_nth_unstable(eighth);
        let limit = now.max(*latest_forgotten);
        self.entries.retain(|_, (_, until)| *until > limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Default for Settings {
        fn default() -> Self {
            Self {
                failures_max: 20,
                window_s: 600,
                delay_max_ms: 2_000,
            }
        }
    }

    fn throttle() -> Throttle {
        Throttle::new(Settings::default())
    }

    fn at(seconds: i64) -> Steady {
        Steady::default() + Duration::from_secs(seconds.unsigned_abs())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admitted(delay_ms: u64, lane: Lane) -> Result<Admission, RetryAfter> {
        let delay = Duration::from_millis(delay_ms);
        Ok(Admission { delay, lane })
    }

    #[test]
    fn twenty_failures_are_free_then_the_address_waits_for_the_window() {
        let throttle = throttle();
        let (guesser, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for i in 0..20 {
            let account = format!("account {i}");
            let admission = throttle.admit(guesser, &account, at(i));
            assert_eq!(admission, admitted(0, Lane::Stranger), "{i}");
            throttle.failed(guesser, &account, at(i));
        }
        let refused = throttle.admit(guesser, "account 99", at(20)).unwrap_err();
        assert_eq!(refused.seconds(), 580);
        assert!(throttle.admit(other, "account 99", at(20)).is_ok());
        assert!(throttle.admit(guesser, "account 99", at(599)).is_err());
        assert!(throttle.admit(guesser, "account 99", at(600)).is_ok());
        throttle.failed(guesser, "account 99", at(600));
        assert_eq!(
            throttle.admit(guesser, "x", at(600)),
            Err(RetryAfter(Duration::from_secs(1)))
        );
    }

    #[test]
    fn addresses_of_one_customer_count_as_one() {
        let throttle = throttle();
        for i in 0..20 {
            throttle.failed(ip(&format!("2001:db8:0:1::{i}")), "ada", at(0));
            throttle.failed(ip("192.0.2.1"), "ada", at(0));
        }
        assert!(
            throttle
                .admit(ip("2001:db8:0:1:ffff::1"), "bob", at(1))
                .is_err()
        );
        assert!(throttle.admit(ip("2001:db8:0:2::1"), "bob", at(1)).is_ok());
        assert!(
            throttle
                .admit(ip("::ffff:192.0.2.1"), "bob", at(1))
                .is_err()
        );
    }

    #[test]
    fn an_account_under_attack_waits_and_its_owner_does_not() {
        let throttle = throttle();
        let (owner, elsewhere) = (ip("192.0.2.1"), ip("192.0.2.2"));
        throttle.succeeded(owner, "Ada", at(0));
        for i in 1..=40_u32 {
            throttle.failed(IpAddr::from((0x0a00_0000 + i).to_be_bytes()), "aDA", at(1));
            let delay_ms = u64::from(i.min(20)) * 100;
            let stranger = throttle.admit(elsewhere, "ada", at(1));
            assert_eq!(stranger, admitted(delay_ms, Lane::Stranger));
            assert_eq!(
                throttle.admit(owner, "ada", at(1)),
                admitted(0, Lane::Known)
            );
        }
        assert_eq!(
            throttle.admit(elsewhere, "ada", at(301)),
            admitted(1000, Lane::Stranger)
        );
        assert_eq!(
            throttle.admit(elsewhere, "ada", at(601)),
            admitted(0, Lane::Stranger)
        );
        assert_eq!(
            throttle.admit(elsewhere, "bob", at(1)),
            admitted(0, Lane::Stranger)
        );
    }

    #[test]
    fn a_success_is_remembered_for_a_day_at_that_account_alone() {
        let throttle = throttle();
        let owner = ip("192.0.2.1");
        throttle.succeeded(owner, "ada", at(0));
        let day = 24 * 60 * 60;
        assert_eq!(
            throttle.admit(owner, "ada", at(day - 1)),
            admitted(0, Lane::Known)
        );
        assert_eq!(
            throttle.admit(owner, "ada", at(day)),
            admitted(0, Lane::Stranger)
        );
        assert_eq!(
            throttle.admit(owner, "bob", at(0)),
            admitted(0, Lane::Stranger)
        );
    }

    #[test]
    fn a_success_does_not_wash_an_address_clean() {
        let throttle = throttle();
        let guesser = ip("192.0.2.1");
        for _ in 0..20 {
            throttle.failed(guesser, "ada", at(0));
            throttle.succeeded(guesser, "own", at(0));
        }
        assert!(throttle.admit(guesser, "own", at(1)).is_err());
    }

    #[test]
    fn only_the_latest_addresses_of_an_account_are_known() {
        let throttle = throttle();
        let address = |i: usize| IpAddr::from([192, 0, 2, i as u8]);
        for i in 0..=KNOWN_ADDRESSES_MAX {
            throttle.succeeded(address(i), "ada", at(i as i64));
        }
        let lane = |i| throttle.admit(address(i), "ada", at(60)).unwrap().lane;
        assert_eq!(lane(0), Lane::Stranger);
        assert!((1..=KNOWN_ADDRESSES_MAX).all(|i| lane(i) == Lane::Known));
    }

    #[test]
    fn a_full_table_refuses_nobody_new_and_keeps_whom_it_suspects_most() {
        let throttle = Throttle::with_entries_max(Settings::default(), 80);
        let victim = "ada";
        throttle.succeeded(ip("192.0.2.1"), victim, at(0));
        for i in 0..10_000_u32 {
            let address = IpAddr::from((0x0a00_0000 + i).to_be_bytes());
            if i % 20 == 0 {
                throttle.failed(address, victim, at(0));
            }
            assert!(throttle.admit(address, "x", at(0)).is_ok());
            throttle.failed(address, &format!("made up {i}"), at(0));
        }
        let state = throttle.state.lock();
        assert!(state.addresses.entries.len() <= 80 && state.accounts.entries.len() <= 80);
        drop(state);
        assert_eq!(
            throttle.admit(ip("192.0.2.9"), victim, at(0)),
            admitted(2000, Lane::Stranger)
        );
        assert_eq!(
            throttle.admit(ip("192.0.2.1"), victim, at(0)),
            admitted(0, Lane::Known)
        );
    }

    #[derive(Clone, Debug)]
    struct Attempt {
        gap_s: i64,
        address: u8,
        account: u8,
        right: bool,
    }

    fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
        let attempt = (0_i64..120, 0_u8..3, 0_u8..3, proptest::bool::weighted(0.1));
        let attempt = attempt.prop_map(|(gap_s, address, account, right)| Attempt {
            gap_s,
            address,
            account,
            right,
        });
        proptest::collection::vec(attempt, 1..300)
    }

    proptest! {
        #[test]
        fn no_window_holds_more_failures_than_allowed_and_no_owner_waits(attempts in attempts()) {
            let throttle = throttle();
            let mut now = 0;
            let mut failures: Vec<(u8, i64)> = Vec::new();
            let mut successes: Vec<(u8, u8, i64)> = Vec::new();
            for attempt in attempts {
                now += attempt.gap_s;
                let address = IpAddr::from([192, 0, 2, attempt.address]);
                let account = format!("account {}", attempt.account);
                let recent = failures
                    .iter()
                    .filter(|(who, when)| *who == attempt.address && now - when < 600)
                    .count();
                match throttle.admit(address, &account, at(now)) {
                    Err(retry) => {
                        prop_assert!(recent >= 20, "refused after {recent} failures");
                        prop_assert!((1..=600).contains(&retry.seconds()));
                        let then = at(now + retry.seconds() as i64);
                        prop_assert!(throttle.admit(address, &account, then).is_ok());
                    }
                    Ok(admission) => {
                        prop_assert!(recent < 20, "admitted after {recent} failures");
                        prop_assert!(admission.delay <= Duration::from_secs(2));
                        let known = successes.iter().any(|(who, whose, when)| {
                            (*who, *whose) == (attempt.address, attempt.account)
                                && now - when < 24 * 3600
                        });
                        prop_assert_eq!(admission.lane == Lane::Known, known);
                        prop_assert!(!known || admission.delay.is_zero());
                        if attempt.right {
                            throttle.succeeded(address, &account, at(now));
                            successes.push((attempt.address, attempt.account, now));
                        } else {
                            throttle.failed(address, &account, at(now));
                            failures.push((attempt.address, now));
                        }
                    }
                }
            }
        }

        #[test]
        fn any_name_is_taken(account in ".{0,50}", bits in any::<u128>()) {
            let throttle = throttle();
            let address = IpAddr::from(bits.to_be_bytes());
            throttle.failed(address, &account, at(0));
            let admission = throttle.admit(address, &account.to_uppercase().to_lowercase(), at(0));
            prop_assert!(admission.is_ok());
        }
    }
}
