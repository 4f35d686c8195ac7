//! Time as a parameter, so that no test waits for it to pass.

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const MICROS_PER_SECOND: i64 = 1_000_000;

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
        let micros = self.0.saturating_sub(earlier.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or_default())
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

/// Where the time comes from.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { start: Instant, start_wall_us: i64 },
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock. Monotonic within the process: it starts from wall time and never jumps.
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the source")]
        let wall = SystemTime::now();
        let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Source::System {
            start: Instant::now(),
            start_wall_us: micros(wall),
        })
    }

    /// A clock that stands still until [`Clock::advance`] is called. For tests.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start.0))))
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        Timestamp(match &self.0 {
            Source::System {
                start,
                start_wall_us,
            } => start_wall_us.saturating_add(micros(start.elapsed())),
            Source::Manual(now) => now.load(Ordering::Relaxed),
        })
    }

    /// Moves a manual clock on; every clone of it sees the new time.
    ///
    /// # Panics
    /// On the system clock.
    pub fn advance(&self, by: Duration) {
        let Source::Manual(now) = &self.0 else {
            panic!("only a manual clock can be moved")
        };
        now.fetch_add(micros(by), Ordering::Relaxed);
    }
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
}
