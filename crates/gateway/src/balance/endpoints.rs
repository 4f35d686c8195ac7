//! The endpoints of a service at one moment, with what their circuits and checks say. It is made anew when
//! any of that changes, so that a request looks at few of them, however many there are.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::clock::Steady;

use super::ring::Ring;
use crate::error::Failure;
use crate::gate::Standing;
use crate::upstream::Endpoint;

/// How much of the requests an endpoint gets (RFC 2782).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Share {
    /// Those with a greater number get some only when no other can be asked.
    pub(crate) priority: u16,
    /// Among those of its priority.
    pub(crate) weight: u16,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            priority: 0,
            weight: 1,
        }
    }
}

impl Share {
    /// None is nothing: those of weight 0 get little.
    pub(super) fn parts(self) -> usize {
        usize::from(self.weight.max(1))
    }
}

/// Some that follow one another of the parts that an endpoint has as many of as its weight says, of those with the best
/// priority.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    first: u32,
    pub(super) count: u32,
}

pub(super) type Members = Arc<[(Arc<Endpoint>, Share)]>;

#[derive(Debug)]
pub(crate) struct Endpoints {
    pub(super) all: Members,
    /// Places of those that are asked, by priority.
    pub(super) asked: Vec<usize>,
    /// How many of these have the best priority that any has.
    pub(super) best: usize,
    /// Whether each of all is one of these.
    is_best: Vec<bool>,
    /// Of these, unless they are alike.
    pub(super) weights: Option<Weights>,
    /// Of all; where keys decide.
    pub(super) ring: Option<Arc<Ring>>,
    /// When the first circuit that is not closed lets a request try its endpoint.
    pub(super) probe_at: Steady,
    /// Why none is asked.
    refusal: Failure,
    /// The turn that it was made at.
    pub(super) turn: u64,
}

impl Endpoints {
    /// `turn` was read before.
    pub(super) fn new(all: Members, ring: Option<Arc<Ring>>, turn: u64) -> Self {
        let mut asked = Vec::with_capacity(all.len());
        let mut probe_at = Steady(i64::MAX);
        let mut unhealthy = None;
        for (place, (endpoint, _)) in all.iter().enumerate() {
            match endpoint.standing() {
                Standing::Asked => asked.push(place),
                Standing::Open { until } | Standing::HalfOpen { until } => {
                    probe_at = probe_at.min(until);
                }
                Standing::Unhealthy { wait } => unhealthy = Some(wait),
            }
        }
        let priority = |place: &usize| all[*place].1.priority;
        asked.sort_by_key(priority);
        let first = asked.first().map(priority);
        let best = asked.partition_point(|place| Some(priority(place)) == first);
        let mut is_best = vec![false; all.len()];
        asked[..best]
            .iter()
            .for_each(|place| is_best[*place] = true);
        let refusal = unhealthy.map_or(Failure::NoEndpoint, Failure::Unhealthy);
        Self {
            weights: Weights::of(asked[..best].iter().map(|place| all[*place].1)),
            all,
            asked,
            best,
            is_best,
            ring,
            probe_at,
            refusal,
            turn,
        }
    }

    /// The same at another turn.
    pub(super) fn again(&self, turn: u64) -> Self {
        Self::new(self.all.clone(), self.ring.clone(), turn)
    }

    pub(super) fn is_best(&self, place: usize) -> bool {
        self.is_best[place]
    }

    /// All of them.
    pub(super) fn parts(&self) -> Parts {
        let count = match &self.weights {
            Some(weights) => weights.total(),
            None => self.best,
        };
        Parts {
            first: 0,
            count: u32::try_from(count).unwrap_or(u32::MAX),
        }
    }

    /// Those of about so many endpoints, from one on.
    pub(super) fn some_parts(&self, first: usize, endpoints: usize) -> Parts {
        let each = |endpoints: usize| {
            let parts = u64::from(self.parts().count) * endpoints as u64;
            parts.div_ceil(self.best as u64) as u32
        };
        Parts {
            first: each(first % self.best),
            count: each(endpoints),
        }
    }

    /// Which endpoint a random number draws from some parts, as an index of those that are asked.
    pub(super) fn draw(&self, among: Parts, bits: u32) -> usize {
        let part = u64::from(among.first) + u64::from(bits % among.count);
        let part = (part % u64::from(self.parts().count)) as usize;
        self.weights
            .as_ref()
            .map_or(part, |weights| weights.at(part))
    }

    /// What is said where none is asked.
    pub(super) fn refusal(&self, now: Steady) -> Failure {
        match self.probe_at {
            Steady(i64::MAX) => self.refusal,
            at => Failure::CircuitOpen(at.since(now).max(Duration::from_millis(1))),
        }
    }
}

/// Weights of endpoints that are not alike.
#[derive(Debug)]
pub(super) struct Weights {
    /// The weights of each and those before it, together.
    sums: Vec<usize>,
    /// Each weight as a part of what is usual.
    relative: Vec<f64>,
    /// One place after the other goes on by so many parts, which comes past all of them, well mixed.
    step: usize,
}

impl Weights {
    fn of(shares: impl Iterator<Item = Share>) -> Option<Self> {
        let parts: Vec<usize> = shares.map(Share::parts).collect();
        if parts.windows(2).all(|two| two[0] == two[1]) {
            return None;
        }
        let mut total = 0;
        let sums: Vec<usize> = parts
            .iter()
            .map(|part| {
                total += part;
                total
            })
            .collect();
        let usual = total as f64 / parts.len() as f64;
        // About the golden section, without a divisor in common.
        let near = (total as f64 * 0.618) as usize;
        let step = (near..).find(|step| gcd(*step, total) == 1).unwrap_or(1);
        Some(Self {
            sums,
            relative: parts.iter().map(|part| *part as f64 / usual).collect(),
            step,
        })
    }

    fn total(&self) -> usize {
        self.sums.last().copied().unwrap_or(1)
    }

    /// Which of them has this part.
    fn at(&self, part: usize) -> usize {
        self.sums.partition_point(|sum| *sum <= part)
    }

    /// Which of them has this turn.
    pub(super) fn turn(&self, number: usize) -> usize {
        let total = self.total();
        self.at((number % total) * self.step % total)
    }

    pub(super) fn relative(&self, index: usize) -> f64 {
        self.relative[index]
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(weights: &[u16]) -> Option<Weights> {
        let share = |weight: &u16| Share {
            weight: *weight,
            ..Share::default()
        };
        Weights::of(weights.iter().map(share))
    }

    #[test]
    fn turns_are_shares_and_well_mixed() {
        assert!(weights(&[]).is_none() && weights(&[5]).is_none() && weights(&[7; 3]).is_none());
        let weights = weights(&[3, 1]).expect("not alike");
        let turns: Vec<usize> = (0..8).map(|number| weights.turn(number)).collect();
        assert_eq!(
            turns.iter().filter(|turn| **turn == 1).count(),
            2,
            "{turns:?}"
        );
        assert!(!turns.windows(2).any(|two| two == [1, 1]), "{turns:?}");
        assert!(weights.turn(usize::MAX) < 2);
        assert_eq!((weights.relative(0), weights.relative(1)), (1.5, 0.5));
    }

    #[test]
    fn parts_are_shares() {
        let weights = weights(&[0, 10, 30]).expect("not alike");
        let mut counts = [0; 3];
        (0..weights.total()).for_each(|part| counts[weights.at(part)] += 1);
        assert_eq!(counts, [1, 10, 30]);
    }
}
