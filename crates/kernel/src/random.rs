//! Chance as a parameter, so that a test can have the same ids and secrets again. `clippy.toml`
//! forbids asking the operating system elsewhere, so whatever is drawn is found by looking for the
//! callers of this. Only libraries have sources of their own: the cryptographic one for the keys that
//! it makes, the standard one for hash maps.

use std::cell::Cell;
use std::sync::Arc;

use parking_lot::Mutex;

/// Where random bytes come from.
#[derive(Clone, Debug)]
pub struct Random(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Seeded(Arc<Mutex<u64>>),
}

impl Random {
    /// The operating system: fit for keys.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// The same bytes in the same order for the same seed, shared by all clones. For tests: nothing
    /// of it is secret.
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(seed))))
    }

    /// The next bytes.
    ///
    /// # Errors
    /// The operating system gave none.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], getrandom::Error> {
        let mut bytes = [0; N];
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the source")]
            Source::System => getrandom::fill(&mut bytes)?,
            Source::Seeded(state) => {
                let mut state = state.lock();
                for some in bytes.chunks_mut(8) {
                    let next = split_mix(&mut state).to_le_bytes();
                    some.copy_from_slice(&next[..some.len()]);
                }
            }
        }
        Ok(bytes)
    }
}

/// Some random bits from a stream that each thread has of its own, seeded by the operating system: for what
/// is drawn on every request and is no secret.
pub fn per_thread() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(seed());
    }
    let mut state = STATE.get();
    let random = split_mix(&mut state);
    STATE.set(state);
    random
}

fn seed() -> u64 {
    u64::from_ne_bytes(Random::system().bytes().expect("the OS has randomness"))
}

/// The next number of SplitMix64 (Steele, Lea, Flood 2014). Not fit for secrets.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_again_and_never_repeats_them() {
        let (one, same, other) = (Random::seeded(1), Random::seeded(1), Random::seeded(2));
        let draw = |random: &Random| random.bytes::<20>().expect("bytes");
        let first = draw(&one);
        assert_eq!(draw(&same), first);
        assert_ne!(draw(&other), first);
        assert_ne!(draw(&one.clone()), first, "a clone goes on");
        assert_eq!(
            draw(&same),
            Random::seeded(1).bytes::<44>().expect("bytes")[24..]
        );
    }

    #[test]
    fn the_system_gives_other_bytes_each_time() {
        let draw = || Random::system().bytes::<16>().expect("bytes");
        assert_ne!(draw(), draw());
    }
}
