//! Which endpoint of a service gets a request.
//!
//! Usually two are drawn and the less loaded one is asked ("power of two choices"): nearly as even as asking the
//! least loaded of all, without looking at all. Whether an endpoint may be asked is decided by its gate alone;
//! where that refuses, another is tried. An endpoint whose circuit wants a probe goes first, or its load, which its
//! failures raised, would keep the probe away.
//!
//! A connection that was used a moment ago is fast, because caches still have what belongs to it, and one that was not
//! used for long may be closed. So of many endpoints only some are near, each of them in its turn, and a request goes to
//! one of these that has nothing in hand, if it finds one. Over some seconds all get as many.

mod endpoints;
mod policy;
mod ring;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use auspex_kernel::clock::Steady;

use endpoints::Parts;
pub(crate) use endpoints::{Endpoints, Share};
pub(crate) use policy::{KeySource, Policy};

use crate::counts::Counts;
use crate::error::Failure;
use crate::gate::{Admission, Chosen};
use crate::journal::{Journal, Turns, Watchers};
use crate::plan::ServicePlan;
use crate::source::Source;
use crate::upstream::{Endpoint, Manner, Place};
use ring::Ring;

/// So many are compared where one is looked for among many.
const SAMPLE: usize = 8;
/// Of many endpoints only so many, which follow one another, are near; where these are busy the next ones are, twice as
/// many, and so on,
const NEAR: usize = 64;
/// up to so many times, and up to half of all.
const NEAR_GROUPS: u32 = 4;
/// Within this time all have been near: less than connections usually rest before they are closed.
const NEAR_ROUND: Duration = Duration::from_secs(3);
/// Points of the ring that are looked at for a key. Behind so many of endpoints that cannot be asked another way
/// leads on.
const POINTS_MAX: usize = 64;
/// Of more endpoints not every request looks for the last one that has room:
const SEARCHED_MAX: usize = 64;
/// when one has found none, others believe it for so long.
const SEARCH_PAUSE: Duration = Duration::from_millis(1);

/// Servers that do the same. Which these are may change at any time; a request asks one of those that
/// there were at some moment.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) plan: ServicePlan,
    /// Of all services that have followed one another under this name.
    pub(crate) counts: Arc<Counts>,
    turns: Turns,
    endpoints: ArcSwap<Endpoints>,
    /// Whose turn is next.
    next: AtomicUsize,
    /// Where those began that are near, as a part of all in 2³².
    near: u32,
    /// Nobody has room, as far as is known, until then.
    full_until: AtomicI64,
    watchers: Watchers,
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
            turns: old.map(|old| old.turns.clone()).unwrap_or_default(),
            endpoints: ArcSwap::from_pointee(Endpoints::new(Arc::default(), None, 0)),
            next: AtomicUsize::new(0),
            // Gateways are not to ask the same ones at the same time.
            near: RandomState::new().hash_one(()) as u32,
            full_until: AtomicI64::new(0),
            watchers: watchers.clone(),
            plan,
        };
        let known = old.map(|old| old.endpoints.load_full());
        let known = known.as_ref().map_or(&[][..], |known| &known.all[..]);
        match &service.plan.source {
            Source::Fixed(places) => {
                let usual = |place: &Place| (place.clone(), Share::default());
                service.keep(&places.iter().map(usual).collect::<Vec<_>>(), known);
            }
            // What was discovered is true until more is known.
            _ if old.is_some_and(|old| old.plan.source.is_discovered()) => {
                let places = known
                    .iter()
                    .map(|(one, share)| (one.place().clone(), *share));
                service.keep(&places.collect::<Vec<_>>(), known);
            }
            _ => {}
        }
        Arc::new(service)
    }

    /// Those that there are now.
    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let endpoints = self.endpoints.load();
        endpoints.all.iter().map(|(one, _)| one.clone()).collect()
    }

    /// Requests that begin from now on go to these. Those that were there already live on.
    pub(crate) fn set(&self, places: &[(Place, Share)]) {
        let known = self.endpoints.load_full();
        let are = known.all.iter().map(|(one, share)| (one.place(), *share));
        let is_same = are.eq(places.iter().map(|(place, share)| (place, *share)));
        if !is_same {
            self.keep(places, &known.all);
        }
    }

    fn keep(&self, places: &[(Place, Share)], known: &[(Arc<Endpoint>, Share)]) {
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
        let health = self.plan.health.as_ref();
        let member = |(place, share): &(Place, Share)| {
            let fits =
                |one: &&(Arc<Endpoint>, Share)| one.0.is(place, limits, &manner, law, health);
            let endpoint = known.iter().find(fits).map(|(one, _)| one.clone());
            let endpoint = endpoint.unwrap_or_else(|| {
                let (watchers, turns) = (self.watchers.clone(), self.turns.clone());
                let journal = Journal::new(&self.plan.name, &place.to_string(), watchers, turns);
                let health = health.cloned();
                let (place, manner) = (place.clone(), manner.clone());
                Arc::new(Endpoint::new(place, limits, manner, law, health, journal))
            });
            (endpoint, *share)
        };
        let all: Vec<_> = places.iter().map(member).collect();
        let ring = matches!(self.plan.balance, Policy::Hash(_)).then(|| {
            let named = all
                .iter()
                .map(|(one, share)| (one.place().to_string(), share));
            Arc::new(Ring::new(named))
        });
        let turn = self.turns.count();
        let endpoints = Endpoints::new(all.into(), ring, turn);
        self.endpoints.store(Arc::new(endpoints));
    }

    /// As they are now.
    fn current(&self) -> Guard<Arc<Endpoints>> {
        let endpoints = self.endpoints.load();
        let turn = self.turns.count();
        if endpoints.turn == turn {
            return endpoints;
        }
        self.endpoints.rcu(|known| known.again(turn));
        self.endpoints.load()
    }

    /// How many endpoints are asked, and of how many.
    pub(crate) fn asked(&self) -> (usize, usize) {
        let endpoints = self.current();
        (endpoints.asked.len(), endpoints.all.len())
    }

    /// Whether no endpoint is to be asked now.
    pub(crate) fn refuses(&self, now: Steady) -> bool {
        let endpoints = self.current();
        endpoints.asked.is_empty() && now < endpoints.probe_at
    }

    /// One of the endpoints that were not tried yet. `bits` are random; `key` is of the value that decides, where one
    /// does.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn choose(
        &self,
        now: Steady,
        bits: u64,
        key: Option<u64>,
        tried: &[u64],
    ) -> Result<Chosen, Failure> {
        let endpoints = self.current();
        let mut search = Search {
            endpoints: &endpoints,
            now,
            requests_max: self.plan.requests_max,
            tried,
            is_full: false,
            opens_in: None,
        };
        let key = key.filter(|_| matches!(self.plan.balance, Policy::Hash(_)));
        if let Some(chosen) = key.and_then(|key| search.by_key(key)) {
            return Ok(chosen);
        }
        // A request that belongs to one endpoint tries no other, unless there is none.
        let may_probe = key.is_none() || endpoints.asked.is_empty();
        if may_probe
            && now >= endpoints.probe_at
            && let Some(probe) = search.probe()
        {
            return Ok(probe);
        }
        if endpoints.asked.is_empty() {
            return Err(endpoints.refusal(now));
        }
        if self.full_until.load(Ordering::Relaxed) > now.0 {
            return Err(Failure::Overloaded);
        }
        // Those next to one that failed are often away with it.
        let groups = if tried.is_empty() { NEAR_GROUPS } else { 0 };
        let near = self.near(&endpoints, groups, now).find_map(|near| {
            let better = match self.plan.balance {
                Policy::P2c | Policy::Hash(_) => search.better_of_two(bits, near)?,
                Policy::LeastRequests => search.best_of_some(bits, near, Search::crowd),
                Policy::RoundRobin => return None,
            };
            match search.endpoint(better).load.in_hand() {
                0 => search.ask(better),
                _ => None,
            }
        });
        let chosen = near.or_else(|| {
            let all = endpoints.parts();
            match self.plan.balance {
                Policy::P2c | Policy::Hash(_) => {
                    let better = search.better_of_two(bits, all);
                    let chosen = better.and_then(|index| search.ask(index));
                    chosen.or_else(|| search.ask(search.best_of_some(bits, all, Search::load)))
                }
                Policy::LeastRequests => search.ask(search.best_of_some(bits, all, Search::crowd)),
                Policy::RoundRobin if !tried.is_empty() => None,
                Policy::RoundRobin => {
                    let next = self.next.fetch_add(1, Ordering::Relaxed);
                    search.ask(search.turn(next))
                }
            }
        });
        if let Some(chosen) = chosen.or_else(|| search.any(bits)) {
            return Ok(chosen);
        }
        if !search.is_full {
            // They have changed since they were looked at.
            let open = search.opens_in.map(Failure::CircuitOpen);
            return Err(open.unwrap_or_else(|| endpoints.refusal(now)));
        }
        if endpoints.asked.len() > SEARCHED_MAX && tried.is_empty() {
            self.full_until
                .store((now + SEARCH_PAUSE).0, Ordering::Relaxed);
        }
        Err(Failure::Overloaded)
    }

    /// The parts of those that are near at this moment, and of those that follow. None, where they are not many.
    fn near(&self, endpoints: &Endpoints, groups: u32, now: Steady) -> impl Iterator<Item = Parts> {
        let round = NEAR_ROUND.as_micros() as u64;
        let passed = ((now.0.unsigned_abs() % round) << 32) / round;
        let first = self
            .near
            .wrapping_add(passed as u32)
            .wrapping_add(place_of_thread());
        let first = ((u64::from(first) * endpoints.best as u64) >> 32) as usize;
        let counts = (0..groups).map(|group| NEAR << group);
        let counts = counts.take_while(|count| 2 * count <= endpoints.best);
        counts.map(move |count| endpoints.some_parts(first + count - NEAR, count))
    }
}

/// Where what is near to a thread begins, as a part of all in 2³²: far from where that of others does, for threads
/// have connections of their own, and where several ask the same endpoints each has several.
fn place_of_thread() -> u32 {
    static THREADS: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        /// Multiples of the golden section lie evenly.
        static PLACE: u32 = THREADS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9);
    }
    PLACE.with(|place| *place)
}

/// The choice for one request. Indices are of the endpoints that are asked.
struct Search<'s> {
    endpoints: &'s Endpoints,
    now: Steady,
    requests_max: u32,
    tried: &'s [u64],
    /// One that may be asked had no room.
    is_full: bool,
    /// The circuit of one was open, for so long.
    opens_in: Option<Duration>,
}

impl Search<'_> {
    fn endpoint(&self, index: usize) -> &Arc<Endpoint> {
        &self.endpoints.all[self.endpoints.asked[index]].0
    }

    fn ask(&mut self, index: usize) -> Option<Chosen> {
        self.ask_at(self.endpoints.asked[index])
    }

    fn ask_at(&mut self, place: usize) -> Option<Chosen> {
        let endpoint = &self.endpoints.all[place].0;
        if self.tried.contains(&endpoint.id()) {
            return None;
        }
        match endpoint.admit(self.now, self.requests_max) {
            Admission::Chosen(chosen) => Some(chosen),
            Admission::Full => {
                self.is_full = true;
                None
            }
            Admission::Open(wait) => {
                self.opens_in = Some(self.opens_in.map_or(wait, |known| known.min(wait)));
                None
            }
            Admission::Unhealthy => None,
        }
    }

    /// One whose circuit wants to be tried. That it is changes what there is, so this is not looked for again.
    fn probe(&mut self) -> Option<Chosen> {
        let (now, all) = (self.now, self.endpoints.all.iter().enumerate());
        let mut wanting = all.filter(|(_, (one, _))| one.circuit.wants_probe(now));
        wanting.find_map(|(place, _)| self.ask_at(place))
    }

    /// By load, of the best priority. `None`: one of them has no room, and of two there is no choice then.
    fn better_of_two(&self, bits: u64, among: Parts) -> Option<usize> {
        let (high, low) = ((bits >> 32) as u32, bits as u32);
        let (first, second) = match &self.endpoints.weights {
            None if among.count == 1 => return Some(self.endpoints.draw(among, 0)),
            None => {
                let first = high % among.count;
                // Any but the first.
                let second = first + 1 + low % (among.count - 1);
                (first, second)
            }
            // Perhaps the same twice, or of two they would always be these two.
            Some(_) => (high, low),
        };
        let first = self.endpoints.draw(among, first);
        let second = self.endpoints.draw(among, second);
        let (of_first, of_second) = (self.load(first), self.load(second));
        let better = if of_second < of_first { second } else { first };
        (of_first.max(of_second) < f64::INFINITY).then_some(better)
    }

    /// The best of some that follow one another from a random one on.
    fn best_of_some(&self, bits: u64, among: Parts, badness: fn(&Self, usize) -> f64) -> usize {
        let count = self.endpoints.best;
        let first = self.endpoints.draw(among, bits as u32);
        let some = (0..count.min(SAMPLE)).map(|offset| (first + offset) % count);
        let rated = some.map(|index| (index, badness(self, index)));
        // The first of equals.
        let best = rated.min_by(|(_, one), (_, other)| one.total_cmp(other));
        best.map_or(first, |(index, _)| index)
    }

    /// The first that may be asked, from a random one on, those of the best priority first.
    fn any(&mut self, bits: u64) -> Option<Chosen> {
        let first = self.endpoints.draw(self.endpoints.parts(), bits as u32);
        let count = self.endpoints.best;
        let best = (0..count).map(|offset| (first + offset) % count);
        let mut order = best.chain(count..self.endpoints.asked.len());
        order.find_map(|index| self.ask(index))
    }

    /// The endpoint that a key belongs to, or the next one on the ring that may be asked.
    fn by_key(&mut self, key: u64) -> Option<Chosen> {
        let (endpoints, now) = (self.endpoints, self.now);
        let may_be = |place: &usize| {
            endpoints.is_best(*place) || endpoints.all[*place].0.circuit.wants_probe(now)
        };
        let points = endpoints.ring.as_ref()?.from(key).take(POINTS_MAX);
        points.filter(may_be).find_map(|place| self.ask_at(place))
    }

    fn turn(&self, number: usize) -> usize {
        match &self.endpoints.weights {
            Some(weights) => weights.turn(number),
            None => number % self.endpoints.best,
        }
    }

    fn load(&self, index: usize) -> f64 {
        self.rate(index, |one, weight| one.load.score(weight, self.now))
    }

    fn crowd(&self, index: usize) -> f64 {
        self.rate(index, |one, weight| one.load.crowd(weight))
    }

    /// What is tried or full comes last.
    fn rate(&self, index: usize, rate: impl Fn(&Endpoint, f64) -> f64) -> f64 {
        let endpoint = self.endpoint(index);
        let is_full = endpoint.load.in_hand() >= self.requests_max;
        if is_full || self.tried.contains(&endpoint.id()) {
            return f64::INFINITY;
        }
        let weights = self.endpoints.weights.as_ref();
        rate(
            endpoint,
            weights.map_or(1.0, |weights| weights.relative(index)),
        )
    }
}

#[cfg(test)]
mod tests;
