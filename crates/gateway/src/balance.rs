//! Which endpoint of a service gets a request.
//!
//! Two are drawn and the less loaded one is asked ("power of two choices"): nearly as even as asking the
//! least loaded of all, without looking at all. Whether an endpoint may be asked is decided by its circuit alone; where
//! that refuses, the next is tried. An endpoint whose circuit wants a probe goes first, or its load, which its failures
//! raised, would keep the probe away.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use auspex_kernel::clock::Steady;

use crate::circuit::{Permit, Verdict};
use crate::counts::Counts;
use crate::error::Failure;
use crate::journal::{Journal, Watchers};
use crate::plan::ServicePlan;
use crate::source::Source;
use crate::upstream::{Endpoint, Manner, Place};

/// Servers that do the same. Which these are may change at any time; a request asks one of those that
/// there were at some moment.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) plan: ServicePlan,
    /// Of all services that have followed one another under this name.
    pub(crate) counts: Arc<Counts>,
    endpoints: ArcSwap<Endpoints>,
    watchers: Watchers,
}

type Endpoints = Vec<Arc<Endpoint>>;

/// An endpoint that a request may be sent to.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) permit: Permit,
}

impl Service {
    /// The service of a plan, with the endpoints of the one that it replaces as far as they fit: their circuits, loads
    /// and connections live on. If nothing has changed it is the same.
    pub(crate) fn replacing(
        mut plan: ServicePlan,
        old: Option<&Arc<Self>>,
        watchers: &Watchers,
    ) -> Arc<Self> {
        if let Some(same) = old.filter(|old| old.plan == plan) {
            return same.clone();
        }
        // Its endpoints have it already, and it goes on following its files.
        let tls = old.map(|old| &old.plan.tls).filter(|tls| **tls == plan.tls);
        if let Some(same) = tls {
            plan.tls = same.clone();
        }
        let service = Self {
            counts: old.map(|old| old.counts.clone()).unwrap_or_default(),
            endpoints: ArcSwap::default(),
            watchers: watchers.clone(),
            plan,
        };
        let known = old.map(|old| old.endpoints());
        let known = known.as_deref().map_or(&[][..], Vec::as_slice);
        match &service.plan.source {
            Source::Fixed(places) => service.keep(places, known),
            // What was discovered is true until more is known.
            _ if old.is_some_and(|old| old.plan.source.is_discovered()) => {
                let places = known.iter().map(|one| one.place().clone());
                service.keep(&places.collect::<Vec<_>>(), known);
            }
            _ => {}
        }
        Arc::new(service)
    }

    /// Those that there are now.
    pub(crate) fn endpoints(&self) -> Arc<Endpoints> {
        self.endpoints.load_full()
    }

    /// Requests that begin from now on go to these. Those that were there already live on.
    pub(crate) fn set(&self, places: &[Place]) {
        let known = self.endpoints();
        let is_same = known.iter().map(|one| one.place()).eq(places);
        if !is_same {
            self.keep(places, &known);
        }
    }

    fn keep(&self, places: &[Place], known: &[Arc<Endpoint>]) {
        let ServicePlan {
            limits,
            law,
            ref tls,
            ..
        } = self.plan;
        let manner = Manner {
            protocol: self.plan.protocol,
            tls: tls.clone(),
        };
        let endpoint = |place: &Place| {
            let fits = |one: &&Arc<Endpoint>| one.is(place, limits, &manner, law);
            let known = known.iter().find(fits).cloned();
            known.unwrap_or_else(|| {
                let journal =
                    Journal::new(&self.plan.name, &place.to_string(), self.watchers.clone());
                Arc::new(Endpoint::new(
                    place.clone(),
                    limits,
                    manner.clone(),
                    law,
                    journal,
                ))
            })
        };
        let endpoints = places.iter().map(endpoint).collect();
        self.endpoints.store(Arc::new(endpoints));
    }

    /// Whether no endpoint is to be asked now.
    pub(crate) fn refuses(&self, now: Steady) -> bool {
        let endpoints = self.endpoints.load();
        endpoints.iter().all(|one| one.circuit.refuses(now))
    }

    /// One of the endpoints that were not tried yet. `bits` are random.
    ///
    /// # Errors
    /// [`Failure::NoEndpoint`]; [`Failure::CircuitOpen`] where all circuits are.
    pub(crate) fn choose(&self, now: Steady, bits: u64, tried: &[u64]) -> Result<Chosen, Failure> {
        let endpoints = self.endpoints.load();
        if endpoints.is_empty() {
            return Err(Failure::NoEndpoint);
        }
        let mut wait = Duration::MAX;
        for index in order(&endpoints, now, bits) {
            let endpoint = &endpoints[index];
            if tried.contains(&endpoint.id()) {
                continue;
            }
            match endpoint.circuit.admit(now) {
                Verdict::Pass(permit) => {
                    let endpoint = endpoint.clone();
                    return Ok(Chosen { endpoint, permit });
                }
                Verdict::Refuse(left) => wait = wait.min(left),
            }
        }
        Err(Failure::CircuitOpen(wait))
    }
}

/// All places, the better of two drawn ones first.
fn order(endpoints: &[Arc<Endpoint>], now: Steady, bits: u64) -> impl Iterator<Item = usize> {
    let count = endpoints.len();
    let (mut first, mut second) = (0, 0);
    if count > 1 {
        let (high, low) = ((bits >> 32) as usize, bits as u32 as usize);
        first = high % count;
        // Any but the first.
        second = (first + 1 + low % (count - 1)) % count;
        if score(&endpoints[second], now) < score(&endpoints[first], now) {
            std::mem::swap(&mut first, &mut second);
        }
    }
    let rest = (0..count).filter(move |index| *index != first && *index != second);
    let second = (second != first).then_some(second);
    std::iter::once(first).chain(second).chain(rest)
}

fn score(endpoint: &Endpoint, now: Steady) -> f64 {
    match endpoint.circuit.wants_probe(now) {
        true => -1.0,
        false => endpoint.load.score(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuit::{Law, Outcome};
    use crate::retry::RetryLaw;
    use crate::upstream::{Limits, Protocol};

    const MS: Duration = Duration::from_millis(1);

    fn plan(count: usize) -> ServicePlan {
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
        let retry = RetryLaw {
            retries_max: 0,
            base_delay: MS,
            budget_percent: 0,
            has_jitter: false,
        };
        let places = (1..=count).map(|n| Place::named(format!("127.0.0.1:{n}")));
        ServicePlan {
            name: "x".into(),
            source: Source::Fixed(places.collect()),
            timeout: MS,
            limits,
            protocol: Protocol::Http1,
            tls: None,
            law,
            retry,
        }
    }

    fn service(count: usize) -> Arc<Service> {
        Service::replacing(plan(count), None, &Watchers::new())
    }

    fn ids(service: &Service) -> Vec<u64> {
        service.endpoints().iter().map(|one| one.id()).collect()
    }

    fn place(service: &Service, chosen: &Chosen) -> usize {
        let mut ids = ids(service).into_iter();
        ids.position(|id| id == chosen.endpoint.id())
            .expect("one of them")
    }

    fn at(seconds: i64) -> Steady {
        Steady(seconds * 1_000_000)
    }

    /// Asks often, each time for so long per endpoint; how many each was asked, and then answers with success.
    fn asked(service: &Service, rounds: u64, took: &[Duration], now: Steady) -> Vec<usize> {
        let mut counts = vec![0; service.endpoints().len()];
        for round in 0..rounds {
            let bits = round.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let Ok(chosen) = service.choose(now, bits, &[]) else {
                panic!("none");
            };
            let index = place(service, &chosen);
            counts[index] += 1;
            chosen.endpoint.load.tell(took[index], false, now);
            let _ = chosen.permit.tell(Outcome::Success, "", now, 0.5);
        }
        counts
    }

    fn break_endpoint(service: &Service, index: usize, now: Steady) {
        let mut others = ids(service);
        others.remove(index);
        for _ in 0..3 {
            let chosen = service.choose(now, 7, &others).expect("closed until now");
            chosen.endpoint.load.tell(MS / 10, true, now);
            let _ = chosen.permit.tell(Outcome::Failure, "x", now, 0.5);
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
        assert_eq!(place(&service, &probe), 1);
        assert_eq!(asked(&service, 100, &[MS; 2], at(30))[1], 0, "one probe");
    }

    #[test]
    fn when_all_are_open_it_says_for_how_long() {
        let service = service(2);
        break_endpoint(&service, 0, at(0));
        break_endpoint(&service, 1, at(10));
        let refused = service.choose(at(11), 7, &[]).expect_err("none");
        assert_eq!(refused, Failure::CircuitOpen(Duration::from_secs(19)));
    }

    #[test]
    fn without_endpoints_it_says_so() {
        let refused = service(0).choose(at(0), 7, &[]).expect_err("none");
        assert_eq!(refused, Failure::NoEndpoint);
    }

    #[test]
    fn endpoints_that_did_not_change_live_on() {
        let old = service(2);
        assert!(Arc::ptr_eq(
            &old,
            &Service::replacing(plan(2), Some(&old), &old.watchers)
        ));
        let longer = ServicePlan {
            timeout: 2 * MS,
            ..plan(3)
        };
        let new = Service::replacing(longer, Some(&old), &old.watchers);
        assert_eq!(ids(&new)[..2], ids(&old));
        let mut stricter = plan(2);
        stricter.law.failure_threshold = 1;
        let stricter = Service::replacing(stricter, Some(&old), &old.watchers);
        assert!(ids(&stricter).iter().all(|id| !ids(&old).contains(id)));
    }
}
