//! Which endpoint of a service gets a request.
//!
//! Two are drawn and the less loaded one is asked ("power of two choices"): nearly as even as asking the
//! least loaded of all, without looking at all. Whether an endpoint may be asked is decided by its circuit alone; where
//! that refuses, the next is tried. An endpoint whose circuit wants a probe goes first, or its load, which its failures
//! raised, would keep the probe away.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::clock::Steady;

use crate::circuit::{Permit, Verdict};
use crate::upstream::Endpoint;

/// Servers that do the same.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    pub(crate) timeout: Duration,
}

/// An endpoint that a request may be sent to.
#[derive(Debug)]
pub(crate) struct Chosen<'s> {
    /// Its place in the service.
    pub(crate) index: usize,
    pub(crate) endpoint: &'s Arc<Endpoint>,
    pub(crate) permit: Permit,
}

impl Service {
    /// One of the endpoints that were not tried yet. `bits` are random.
    ///
    /// # Errors
    /// All circuits are open: how long until the first may be tried.
    pub(crate) fn choose(
        &self,
        now: Steady,
        bits: u64,
        tried: &[usize],
    ) -> Result<Chosen<'_>, Duration> {
        let mut wait = Duration::MAX;
        for index in self.order(now, bits) {
            if tried.contains(&index) {
                continue;
            }
            let endpoint = &self.endpoints[index];
            match endpoint.circuit.admit(now) {
                Verdict::Pass(permit) => {
                    return Ok(Chosen {
                        index,
                        endpoint,
                        permit,
                    });
                }
                Verdict::Refuse(left) => wait = wait.min(left),
            }
        }
        Err(wait)
    }

    /// All places, the better of two drawn ones first.
    fn order(&self, now: Steady, bits: u64) -> impl Iterator<Item = usize> {
        let count = self.endpoints.len();
        let (mut first, mut second) = (0, 0);
        if count > 1 {
            let (high, low) = ((bits >> 32) as usize, bits as u32 as usize);
            first = high % count;
            // Any but the first.
            second = (first + 1 + low % (count - 1)) % count;
            if self.score(second, now) < self.score(first, now) {
                std::mem::swap(&mut first, &mut second);
            }
        }
        let rest = (0..count).filter(move |index| *index != first && *index != second);
        let second = (second != first).then_some(second);
        std::iter::once(first).chain(second).chain(rest)
    }

    fn score(&self, index: usize, now: Steady) -> f64 {
        let endpoint = &self.endpoints[index];
        match endpoint.circuit.wants_probe(now) {
            true => -1.0,
            false => endpoint.load.score(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuit::{Law, Outcome};
    use crate::upstream::Limits;

    const MS: Duration = Duration::from_millis(1);

    fn service(count: usize) -> Service {
        let limits = Limits {
            connect_timeout: MS,
            idle_timeout: MS,
            idle_connections_max: 1,
        };
        let law = Law {
            failure_threshold: 3,
            failure_percent: 50,
            window: Duration::from_secs(10),
            requests_min: 20,
            recovery_timeout: Duration::from_secs(30),
        };
        let endpoint = |n| Arc::new(Endpoint::new(format!("127.0.0.1:{n}"), limits, law));
        Service {
            name: "x".into(),
            endpoints: (1..=count).map(endpoint).collect(),
            timeout: MS,
        }
    }

    fn at(seconds: i64) -> Steady {
        Steady(seconds * 1_000_000)
    }

    /// Asks often, each time for so long per endpoint; how many each was asked, and then answers with success.
    fn asked(service: &Service, rounds: u64, took: &[Duration], now: Steady) -> Vec<usize> {
        let mut counts = vec![0; service.endpoints.len()];
        for round in 0..rounds {
            let bits = round.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let Ok(chosen) = service.choose(now, bits, &[]) else {
                panic!("none");
            };
            counts[chosen.index] += 1;
            chosen.endpoint.load.tell(took[chosen.index], false, now);
            let _ = chosen.permit.tell(Outcome::Success, now, 0.5);
        }
        counts
    }

    fn break_endpoint(service: &Service, index: usize, now: Steady) {
        let others: Vec<usize> = (0..service.endpoints.len())
            .filter(|i| *i != index)
            .collect();
        for _ in 0..3 {
            let chosen = service.choose(now, 7, &others).expect("closed until now");
            chosen.endpoint.load.tell(MS / 10, true, now);
            let _ = chosen.permit.tell(Outcome::Failure, now, 0.5);
        }
    }

    #[test]
    fn equals_get_equal_shares_and_slow_ones_less() {
        let counts = asked(&service(3), 3000, &[MS; 3], at(0));
        assert!(
            counts.iter().all(|count| (700..1300).contains(count)),
            "{counts:?}"
        );
        let counts = asked(&service(3), 3000, &[MS, MS, 10 * MS], at(0));
        assert!(counts[2] < 30, "{counts:?}");
    }

    #[test]
    fn one_bad_endpoint_of_three_is_left_alone_and_the_service_stays_whole() {
        let service = service(3);
        break_endpoint(&service, 1, at(0));
        let counts = asked(&service, 1000, &[MS; 3], at(1));
        assert_eq!(counts[1], 0, "{counts:?}");
    }

    #[test]
    fn an_endpoint_whose_time_has_come_is_probed_in_spite_of_its_load() {
        let service = service(2);
        break_endpoint(&service, 1, at(0));
        assert_eq!(asked(&service, 100, &[MS; 2], at(29))[1], 0);
        let probe = service.choose(at(30), 7, &[]).expect("one");
        assert_eq!(probe.index, 1);
        assert_eq!(asked(&service, 100, &[MS; 2], at(30))[1], 0, "one probe");
    }

    #[test]
    fn when_all_are_open_it_says_for_how_long() {
        let service = service(2);
        break_endpoint(&service, 0, at(0));
        break_endpoint(&service, 1, at(10));
        let wait = service.choose(at(11), 7, &[]).expect_err("none");
        assert_eq!(wait, Duration::from_secs(19));
    }
}
