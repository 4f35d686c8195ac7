//! Whether a request that failed is sent once more, and after how long.
//!
//! The waits grow by the power of two, each drawn from the whole range between nothing and that ("full jitter"), so that
//! many clients of a service that was away do not come back at once. A budget for each service keeps retries a small
//! share of its requests: one that is overloaded must not get three times the load for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::clock::Steady;
use http::{HeaderMap, Method, StatusCode, header};
use parking_lot::Mutex;

use crate::headers::{IDEMPOTENCY_KEY, is_overriding};
use crate::window::Window;

/// What a budget is counted over.
const WINDOW: Duration = Duration::from_secs(10);
/// Retries within the window that need no requests to be made up for: 10 a second.
const FREE: u64 = 100;

/// How often a request is sent again, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryLaw {
    /// Beside the first time.
    pub(crate) retries_max: u32,
    /// Before the first retry; twice as long before each next one.
    pub(crate) base_delay: Duration,
    /// Of the requests of the last 10 s, and 10 a second.
    pub(crate) budget_percent: u32,
    /// Whether a wait is drawn from what lies between nothing and its length.
    pub(crate) has_jitter: bool,
}

/// Whether a request may be sent a second time when the first may have been carried out (RFC 9110 §9.2.2).
pub(crate) fn is_repeatable(method: &Method, headers: &HeaderMap) -> bool {
    let idempotent = [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PUT,
        Method::DELETE,
    ];
    let is_idempotent = idempotent.contains(method) && !is_overriding(headers);
    let has_key = || {
        headers
            .get(IDEMPOTENCY_KEY)
            .is_some_and(|key| !key.is_empty())
    };
    is_idempotent || has_key()
}

/// Answers of a service, or of a proxy before it, that cannot serve at the moment.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    [
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ]
    .contains(&status)
}

/// How long a service wants to be left alone, if it says so by a number of seconds or by a date.
pub(crate) fn stated_wait(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let stated = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = stated.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(stated).ok()?;
    let since = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    let seconds = i64::try_from(since.as_secs()).ok()?;
    Some(Timestamp::from_unix_seconds(seconds).since(now))
}

/// What retries of a service are allowed to cost.
#[derive(Debug)]
pub(crate) struct Budget {
    requests: Window,
    /// Locked by whoever takes, so that it is not spent twice.
    spent: Mutex<Window>,
    made: AtomicU64,
    refused: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            requests: Window::new(WINDOW),
            spent: Mutex::new(Window::new(WINDOW)),
            made: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

impl Budget {
    /// A request has come.
    pub(crate) fn deposit(&self, now: Steady) {
        self.requests.add(now);
    }

    fn withdraw(&self, percent: u32, now: Steady) -> bool {
        let spent = self.spent.lock();
        let allowed = FREE + self.requests.sum(now) * u64::from(percent) / 100;
        let is_left = spent.sum(now) < allowed;
        if is_left {
            spent.add(now);
        }
        drop(spent);
        let counted = if is_left { &self.made } else { &self.refused };
        counted.fetch_add(1, Ordering::Relaxed);
        is_left
    }

    /// Retries since the start.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Retries that there was nothing left for.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// The retries of one request.
#[derive(Debug)]
pub(crate) struct Retries<'s> {
    law: RetryLaw,
    budget: &'s Budget,
    made: u32,
}

/// What the next wait depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occasion {
    pub(crate) now: Steady,
    /// Until nobody waits for an answer any more.
    pub(crate) left: Duration,
    /// What the service asked for.
    pub(crate) stated: Option<Duration>,
    /// It failed by a connection that had been at rest, which says little of the service.
    pub(crate) is_stale: bool,
    /// From [0, 1).
    pub(crate) chance: f64,
}

impl<'s> Retries<'s> {
    pub(crate) fn new(law: RetryLaw, budget: &'s Budget) -> Self {
        Self {
            law,
            budget,
            made: 0,
        }
    }

    /// Whether there may be one at all.
    pub(crate) fn are_left(&self) -> bool {
        self.made < self.law.retries_max
    }

    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// How long to wait before the next one, which is counted; `None`: there is none.
    pub(crate) fn next(&mut self, occasion: Occasion) -> Option<Duration> {
        if !self.are_left() {
            return None;
        }
        let wait = match occasion.is_stale && self.made == 0 {
            true => Duration::ZERO,
            false => self.delay(occasion.chance),
        };
        let wait = wait.max(occasion.stated.unwrap_or_default());
        if wait >= occasion.left {
            return None;
        }
        let is_allowed = self.budget.withdraw(self.law.budget_percent, occasion.now);
        is_allowed.then(|| {
            self.made += 1;
            wait
        })
    }

    fn delay(&self, chance: f64) -> Duration {
        let doubled = 1_u32.checked_shl(self.made).unwrap_or(u32::MAX);
        let longest = self.law.base_delay.saturating_mul(doubled);
        match self.law.has_jitter {
            true => longest.mul_f64(chance),
            false => longest,
        }
    }
}

#[cfg(test)]
mod tests {
    use auspex_kernel::Clock;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LAW: RetryLaw = RetryLaw {
        retries_max: 3,
        base_delay: Duration::from_millis(100),
        budget_percent: 20,
        has_jitter: false,
    };
    const OCCASION: Occasion = Occasion {
        now: Steady(0),
        left: Duration::from_secs(30),
        stated: None,
        is_stale: false,
        chance: 0.5,
    };

    fn waits(law: RetryLaw, occasion: Occasion) -> Vec<u128> {
        let budget = Budget::default();
        let mut retries = Retries::new(law, &budget);
        let waits = std::iter::from_fn(|| retries.next(occasion));
        waits.map(|wait| wait.as_millis()).collect()
    }

    #[test]
    fn waits_double_and_jitter_takes_a_share_of_each() {
        assert_eq!(waits(LAW, OCCASION), [100, 200, 400]);
        let jittered = RetryLaw {
            has_jitter: true,
            ..LAW
        };
        let by_chance = |chance| waits(jittered, Occasion { chance, ..OCCASION });
        assert_eq!(by_chance(0.5), [50, 100, 200]);
        assert_eq!(by_chance(0.0), [0, 0, 0]);
        let none = RetryLaw {
            retries_max: 0,
            ..LAW
        };
        assert_eq!(waits(none, OCCASION), [0_u128; 0]);
        let many = RetryLaw {
            retries_max: 100,
            ..LAW
        };
        let patient = Occasion {
            left: Duration::MAX,
            ..OCCASION
        };
        assert_eq!(waits(many, patient).len(), 100, "and no sum overflows");
    }

    #[test]
    fn what_the_service_asks_for_is_the_least_and_the_deadline_the_most() {
        let stated = |ms: u32| Occasion {
            stated: Some(ms * MS),
            ..OCCASION
        };
        assert_eq!(waits(LAW, stated(150)), [150, 200, 400]);
        assert_eq!(waits(LAW, stated(1_000)), [1_000; 3]);
        assert_eq!(waits(LAW, stated(30_000)), [0_u128; 0]);
        let hurried = Occasion {
            left: 200 * MS,
            ..OCCASION
        };
        assert_eq!(waits(LAW, hurried), [100], "200 ms would end too late");
        let stale = Occasion {
            is_stale: true,
            ..OCCASION
        };
        assert_eq!(waits(LAW, stale), [0, 200, 400]);
    }

    #[test]
    fn retries_are_a_share_of_the_requests_and_a_few_more() {
        let budget = Budget::default();
        let clock = Clock::manual(Timestamp::from_unix_seconds(1_769_335_200));
        let mut made = 0;
        // All of 500 requests a second fail, and want to be sent three times more.
        for _ in 0..60 * 500 {
            clock.advance(2 * MS);
            let now = clock.steady();
            budget.deposit(now);
            let mut retries = Retries::new(LAW, &budget);
            made += std::iter::from_fn(|| retries.next(Occasion { now, ..OCCASION })).count();
        }
        let floor = 60 * 10 + FREE as usize;
        let share = 60 * 500 / 5;
        assert!(made <= share + floor, "{made}");
        assert!(made >= share, "{made}");
        assert_eq!(budget.made(), made as u64);
        assert!(budget.refused() > 0);
        // A service that nobody asks much can retry: at once 100 times, and then 10 times a second.
        let quiet = Budget::default();
        let retries = |now| (0..1_000).filter(|_| quiet.withdraw(20, now)).count();
        assert_eq!(retries(Steady(0)), 100);
        assert_eq!(retries(Steady(1_000_000)), 0);
        assert_eq!(retries(Steady(10_000_000)), 100);
    }

    #[test]
    fn waits_are_stated_in_seconds_or_as_dates() {
        let now = Timestamp::from_unix_seconds(784_111_777);
        let stated = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().expect("a value"));
            stated_wait(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(stated("7"), Some(7));
        assert_eq!(stated("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10));
        assert_eq!(stated("Sun, 06 Nov 1994 08:49:27 GMT"), Some(0));
        for nonsense in ["", "-1", "soon", "1.5", "99999999999999999999999"] {
            assert_eq!(stated(nonsense), None, "{nonsense}");
        }
        assert_eq!(stated_wait(&HeaderMap::new(), now), None);
    }

    #[test]
    fn what_may_have_been_carried_out_is_repeated_only_where_that_is_safe() {
        let mut headers = HeaderMap::new();
        let safe = |headers: &HeaderMap| {
            [
                "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH", "LOCK", "get",
            ]
            .map(|name| is_repeatable(&name.parse().expect("a method"), headers))
        };
        let by_method = [true, true, true, true, true, false, false, false, false];
        assert_eq!(safe(&headers), by_method);
        // Its service may carry out another one.
        let overriding = [("x-http-method-override", "POST")].map(|(name, value)| {
            (
                http::HeaderName::from_static(name),
                value.parse().expect("a value"),
            )
        });
        assert_eq!(safe(&overriding.into_iter().collect()), [false; 9]);
        headers.insert(IDEMPOTENCY_KEY, "k".parse().expect("a value"));
        assert_eq!(safe(&headers), [true; 9]);
    }
}
