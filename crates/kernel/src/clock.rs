//! Time as a parameter, so that no test waits for it to pass.
//!
//! The wall clock may step at any time: by an administrator, a late answer of a time server, a machine
//! that was suspended. So there are three kinds of time, and each user of a [`Clock`] asks for the one
//! that it needs:
//!
//! | kind | what it does when the wall clock steps | for |
//! |---|---|---|
//! | [`Clock::now`], a [`Timestamp`] | steps with it, both ways | dates: what is shown, stored or signed, and when a thing ends |
//! | [`Clock::steady`], a [`Steady`] | nothing | how long something lasts in this process: rate limits, throttling, pauses, caches |
//! | [`Clock::for_id`], an [`IdTime`] | goes on forwards, never back | ids, whose order is that of their creation |
//!
//! A thing that ends at a date also begins at one. Where its life is short, it counts only between
//! the two ([`Timestamp::is_during`]), so that a step back does not make it last longer.

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const MICROS_PER_SECOND: i64 = 1_000_000;
/// How far the clocks of processes that share a database may be apart.
const SKEW_MAX: Duration = Duration::from_mins(1);
/// Less is a correction and no step.
const STEP_MIN: Duration = Duration::from_secs(1);

/// A point in time, microseconds since the Unix epoch, UTC. Stored as `i64`: text times sort wrongly
/// in SQLite, and PostgreSQL cuts to microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, sea_orm::DeriveValueType)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The beginning of this second of Unix time, as tokens and cookies count it.
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Whole seconds of Unix time.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }

    /// How long ago `earlier` was; zero where it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }

    /// Whether this time is before `end`, and not before `begin` by more than clocks may be apart.
    pub fn is_during(self, begin: Self, end: Self) -> bool {
        self < end && begin <= self + SKEW_MAX
    }

    /// RFC 3339 in UTC, e.g. `2026-01-25T10:00:00.5Z`.
    pub fn to_rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000)
            .ok()
            .and_then(|t| t.format(&Rfc3339).ok())
            .unwrap_or_else(|| "out of range".into())
    }

    /// Reads RFC 3339; `None` if it is not.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let nanos = OffsetDateTime::parse(text, &Rfc3339)
            .ok()?
            .unix_timestamp_nanos();
        i64::try_from(nanos.div_euclid(1_000)).ok().map(Self)
    }
}

/// Saturating.
impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

/// Saturating.
impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A point in time of this process, in microseconds. It never steps and cannot be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Steady(pub i64);

impl Steady {
    /// How long ago `earlier` was; zero where it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }
}

/// Saturating.
impl Add<Duration> for Steady {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

/// Saturating.
impl Sub<Duration> for Steady {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

/// When an id is made, in microseconds: as the wall clock says, but later than for any id before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdTime(pub(crate) i64);

impl IdTime {
    /// Microseconds since the Unix epoch.
    pub fn micros(self) -> i64 {
        self.0
    }
}

/// Where the time comes from. Clones are one clock.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
struct Source {
    kind: Kind,
    /// Of the last id.
    id_us: AtomicI64,
}

#[derive(Debug)]
enum Kind {
    System {
        start: Instant,
    },
    Manual {
        wall_us: AtomicI64,
        steady_us: AtomicI64,
    },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        let start = monotonic();
        Self::of(Kind::System { start })
    }

    /// A clock that stands still until [`Clock::advance`] or [`Clock::step`] is called. For tests.
    pub fn manual(start: Timestamp) -> Self {
        Self::of(Kind::Manual {
            wall_us: AtomicI64::new(start.0),
            steady_us: AtomicI64::new(0),
        })
    }

    fn of(kind: Kind) -> Self {
        let id_us = AtomicI64::new(i64::MIN);
        Self(Arc::new(Source { kind, id_us }))
    }

    /// The date and time of the wall clock.
    pub fn now(&self) -> Timestamp {
        Timestamp(match &self.0.kind {
            Kind::System { .. } => {
                #[expect(clippy::disallowed_methods, reason = "this is the source")]
                let wall = SystemTime::now();
                micros(wall.duration_since(UNIX_EPOCH).unwrap_or_default())
            }
            Kind::Manual { wall_us, .. } => wall_us.load(Ordering::Relaxed),
        })
    }

    /// The time that has passed in this process.
    pub fn steady(&self) -> Steady {
        self.steady_at(monotonic())
    }

    /// The same at a moment that was read before, without reading it again. A manual clock has only
    /// its own moments.
    pub fn steady_at(&self, moment: Instant) -> Steady {
        Steady(match &self.0.kind {
            Kind::System { start } => micros(moment.saturating_duration_since(*start)),
            Kind::Manual { steady_us, .. } => steady_us.load(Ordering::Relaxed),
        })
    }

    /// The time for the next id.
    pub fn for_id(&self) -> IdTime {
        let now = self.now().0;
        let next = |last: i64| now.max(last.saturating_add(1));
        let last = self
            .0
            .id_us
            .update(Ordering::Relaxed, Ordering::Relaxed, next);
        IdTime(next(last))
    }

    /// The latest date that was ever shown by this clock or told by an id: for what must not be
    /// forgotten too early, such as a revocation of what may have been made before a step back.
    pub fn latest(&self) -> Timestamp {
        let told = self.0.id_us.load(Ordering::Relaxed);
        Timestamp(self.now().0.max(told))
    }

    /// Makes later ids follow one of this time, the newest that a process made before. If it is ahead
    /// of the wall clock they begin in the next millisecond, for ids tell no less.
    pub fn follow_id(&self, last: IdTime) {
        if last.0 > self.now().0 {
            let end = last.0.saturating_add(999);
            self.0.id_us.fetch_max(end, Ordering::Relaxed);
        }
    }

    /// Makes later ids follow the microsecond that an id of another kind tells.
    pub fn follow_micros(&self, last: i64) {
        self.0.id_us.fetch_max(last, Ordering::Relaxed);
    }

    /// Lets time pass on a manual clock, for every clone of it.
    ///
    /// # Panics
    /// On the system clock.
    pub fn advance(&self, by: Duration) {
        let (wall_us, steady_us) = self.hands();
        wall_us.fetch_add(micros(by), Ordering::Relaxed);
        steady_us.fetch_add(micros(by), Ordering::Relaxed);
    }

    /// Sets the wall clock of a manual clock, forwards or back, while no time passes.
    ///
    /// # Panics
    /// On the system clock.
    pub fn step(&self, to: Timestamp) {
        self.hands().0.store(to.0, Ordering::Relaxed);
    }

    fn hands(&self) -> (&AtomicI64, &AtomicI64) {
        match &self.0.kind {
            Kind::Manual { wall_us, steady_us } => (wall_us, steady_us),
            Kind::System { .. } => panic!("only a manual clock can be moved"),
        }
    }
}

/// Notices that the wall clock was set back.
#[derive(Debug)]
pub struct StepsBack {
    /// By how much the wall clock was ahead of the steady one, in microseconds.
    ahead_us: i64,
}

impl StepsBack {
    /// Begins to watch a clock.
    pub fn of(clock: &Clock) -> Self {
        let ahead_us = clock.now().0.saturating_sub(clock.steady().0);
        Self { ahead_us }
    }

    /// Whether it was set back since the last call, by more than clocks are corrected by now and then.
    pub fn happened(&mut self, clock: &Clock) -> bool {
        let before = std::mem::replace(self, Self::of(clock));
        before.ahead_us.saturating_sub(self.ahead_us) > micros(STEP_MIN)
    }
}

/// A moment to measure from, such as the begin of a piece of work or its deadline. What a test must
/// be able to let pass is measured by [`Clock::steady`].
pub fn monotonic() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the source")]
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let (early, second) = (Timestamp(5), Duration::from_secs(1));
        assert_eq!(early + second, Timestamp(1_000_005));
        assert_eq!(early - second, Timestamp(-999_995));
        assert_eq!(Timestamp(i64::MAX) + second, Timestamp(i64::MAX));
        assert_eq!(Timestamp(i64::MIN) - Duration::MAX, Timestamp(i64::MIN));
        assert_eq!((early + second).since(early), second);
        assert_eq!(early.since(early + second), Duration::ZERO);
        assert_eq!((early - second).unix_seconds(), -1);
        assert_eq!(Timestamp::from_unix_seconds(2).unix_seconds(), 2);
        assert_eq!(Timestamp::from_unix_seconds(i64::MAX), Timestamp(i64::MAX));
    }

    #[test]
    fn timestamps_survive_text() {
        let time = Timestamp(1_769_335_200_500_000);
        assert_eq!(time.to_rfc3339(), "2026-01-25T10:00:00.5Z");
        assert_eq!(Timestamp::parse_rfc3339(&time.to_rfc3339()), Some(time));
        assert_eq!(
            Timestamp::parse_rfc3339("2026-01-25T11:00:00.5+01:00"),
            Some(time)
        );
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
    }

    const HOUR: Duration = Duration::from_hours(1);
    const START: Timestamp = Timestamp(1_769_335_200_000_000);

    #[test]
    fn the_date_follows_the_wall_clock_and_what_passes_does_not() {
        let clock = Clock::manual(START);
        let begun = clock.steady();
        for to in [
            START + HOUR,
            START - HOUR,
            START + 240 * HOUR,
            START - 240 * HOUR,
        ] {
            clock.step(to);
            assert_eq!((clock.now(), clock.steady()), (to, begun));
        }
        clock.advance(HOUR);
        assert_eq!(clock.now(), START - 239 * HOUR);
        assert_eq!(clock.steady().since(begun), HOUR);
    }

    #[test]
    fn the_system_clock_shows_the_wall_clock_and_passes_steadily() {
        let clock = Clock::system();
        #[expect(clippy::disallowed_methods, reason = "what it must show")]
        let wall = || micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        let (before, shown, after) = (wall(), clock.now().0, wall());
        // Nobody steps the clock of this machine in between, or the next run will tell.
        assert!(
            before <= shown && shown <= after,
            "{before} {shown} {after}"
        );
        let begun = clock.steady();
        assert!(clock.steady() >= begun);
    }

    #[test]
    fn ids_are_timed_in_order_whatever_the_wall_clock_does() {
        let clock = Clock::manual(START);
        let mut last = clock.for_id();
        assert_eq!(last, IdTime(START.0));
        for to in [START, START - 240 * HOUR, START + HOUR, START - HOUR] {
            clock.step(to);
            for _ in 0..10 {
                let next = clock.clone().for_id();
                assert!(next > last);
                last = next;
            }
        }
        assert_eq!(
            last,
            IdTime((START + HOUR).0 + 19),
            "it waits for the wall clock"
        );
        assert_eq!(clock.now(), START - HOUR);
        let restarted = Clock::manual(START - HOUR);
        restarted.follow_id(last);
        assert_eq!(restarted.for_id(), IdTime(last.0 + 1_000));
        assert_eq!(restarted.latest(), Timestamp(last.0 + 1_000));
        restarted.follow_id(IdTime(START.0));
        assert_eq!(restarted.for_id(), IdTime(last.0 + 1_001), "never back");
    }

    #[test]
    fn steps_back_are_noticed_once() {
        let clock = Clock::manual(START);
        let mut steps = StepsBack::of(&clock);
        clock.advance(HOUR);
        clock.step(clock.now() + HOUR);
        assert!(!steps.happened(&clock), "time passes and steps forwards");
        clock.step(clock.now() - HOUR);
        assert!(steps.happened(&clock));
        assert!(!steps.happened(&clock));
    }

    #[test]
    fn what_is_short_lived_counts_from_its_begin_to_its_end() {
        let end = START + HOUR;
        let counts = |now: Timestamp| now.is_during(START, end);
        assert!(counts(START) && counts(end - Duration::from_micros(1)));
        assert!(!counts(end));
        assert!(
            counts(START - SKEW_MAX),
            "made by a process whose clock is ahead"
        );
        assert!(!counts(START - SKEW_MAX - Duration::from_micros(1)));
    }
}
