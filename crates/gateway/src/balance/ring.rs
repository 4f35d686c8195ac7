//! A ring of points, many of each endpoint (consistent hashing). A key belongs to the next point, so that an
//! endpoint that comes or goes moves the keys of its own points alone, and every replica sends a key to the same
//! endpoint. Finding it costs a binary search, however many endpoints there are.

use super::Share;

/// Of an endpoint of the usual weight: shares then differ by less than a tenth, mostly.
const POINTS: usize = 160;
/// Of the heaviest.
const POINTS_MAX: usize = 10 * POINTS;

#[derive(Debug)]
pub(super) struct Ring(Vec<(u64, u32)>);

impl Ring {
    /// Of endpoints by their names, and weights.
    pub(super) fn new<'n>(endpoints: impl Iterator<Item = (String, &'n Share)>) -> Self {
        let endpoints: Vec<_> = endpoints.collect();
        let sum: usize = endpoints.iter().map(|(_, share)| share.parts()).sum();
        let mut points = Vec::with_capacity(endpoints.len() * POINTS);
        for (place, (name, share)) in endpoints.iter().enumerate() {
            let own = POINTS * share.parts() * endpoints.len() / sum.max(1);
            let first = hash(name.as_bytes());
            for n in 0..own.clamp(1, POINTS_MAX) as u64 {
                points.push((mix(first ^ mix(n + 1)), place as u32));
            }
        }
        points.sort_unstable();
        Self(points)
    }

    /// The places of endpoints in the order in which a key may go to them; some come more than once.
    pub(super) fn from(&self, key: u64) -> impl Iterator<Item = usize> {
        let first = self.0.partition_point(|(point, _)| *point < key);
        let (before, after) = self.0.split_at(first);
        after.iter().chain(before).map(|(_, place)| *place as usize)
    }
}

/// FNV-1a, mixed. The same in every process, for ever: it decides where keys are.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The finish of SplitMix64: every bit of the input moves every one of the output.
fn mix(number: u64) -> u64 {
    let mut mixed = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(names: &[usize], weight: impl Fn(usize) -> u16) -> Ring {
        let shares: Vec<Share> = names
            .iter()
            .map(|name| Share {
                weight: weight(*name),
                priority: 0,
            })
            .collect();
        let named = names.iter().map(|name| format!("10.0.0.{name}:80"));
        Ring::new(named.collect::<Vec<_>>().into_iter().zip(&shares))
    }

    fn owners(ring: &Ring, names: &[usize]) -> Vec<usize> {
        let keys = (0..10_000_u32).map(|key| hash(&key.to_be_bytes()));
        let owner = |key| ring.from(key).next().map(|place| names[place]);
        keys.map(|key| owner(key).expect("one")).collect()
    }

    #[test]
    fn keys_are_spread_and_a_lost_endpoint_moves_its_own_alone() {
        let names: Vec<usize> = (0..10).collect();
        let before = owners(&ring(&names, |_| 1), &names);
        for name in &names {
            let count = before.iter().filter(|owner| *owner == name).count();
            assert!((700..1_400).contains(&count), "{name} has {count}");
        }
        let fewer: Vec<usize> = names.iter().copied().filter(|name| *name != 3).collect();
        let after = owners(&ring(&fewer, |_| 1), &fewer);
        let mut taken = vec![0; 10];
        for (old, new) in before.iter().zip(&after) {
            match old {
                3 => taken[*new] += 1,
                _ => assert_eq!(old, new, "a key moved that had no reason to"),
            }
        }
        assert_eq!(
            taken.iter().filter(|count| **count > 0).count(),
            9,
            "{taken:?}"
        );
    }

    #[test]
    fn a_key_goes_on_from_an_endpoint_to_every_other() {
        let names: Vec<usize> = (0..5).collect();
        let ring = ring(&names, |_| 1);
        let mut places: Vec<usize> = ring.from(hash(b"x")).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places, names);
    }

    #[test]
    fn weights_are_shares() {
        let names = [0, 1];
        let owners = owners(&ring(&names, |name| if name == 0 { 3 } else { 1 }), &names);
        let heavy = owners.iter().filter(|owner| **owner == 0).count();
        assert!((6_500..8_500).contains(&heavy), "{heavy} of 10000");
    }

    /// They decide where keys are: other numbers would move all of them at an upgrade.
    #[test]
    fn hashes_stay_what_they_are() {
        assert_eq!(hash(b""), 0xf52a15e9a9b5e89b);
        assert_eq!(hash(b"d7"), 0x8d223605a59e5429);
    }
}
