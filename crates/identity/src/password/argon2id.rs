//! How a password becomes what is stored of it, and is compared with that.
//!
//! What is stored is not trusted to be cheap, or to be a hash at all.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use auspex_kernel::Random;
use serde::Deserialize;

use super::Password;

const SALT_BYTES: usize = 16;
/// Shorter results could be met by chance.
const OUTPUT_BYTES_MIN: usize = 16;

/// What a hash costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Memory a hash takes, in KiB.
    pub(crate) memory_kib: u32,
    /// Passes over that memory.
    pub(crate) iterations: u32,
    /// Lanes the memory is cut into. They are computed one after another.
    pub(crate) parallelism: u32,
}

/// The least that OWASP's password storage cheat sheet asks of Argon2id.
impl Default for Parameters {
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            iterations: 2,
            parallelism: 1,
        }
    }
}

impl Parameters {
    /// Beyond this a single login would be an attack on the machine.
    const MAX: Self = Self {
        memory_kib: 1_048_576,
        iterations: 16,
        parallelism: 16,
    };

    /// # Errors
    /// What the settings must be.
    pub(crate) fn check(self) -> Result<(), String> {
        let least = Self::default();
        if self.is_weaker_than(least) || Self::MAX.is_weaker_than(self) {
            let most = Self::MAX;
            return Err(format!(
                "a password hash takes {} to {} KiB of memory, {} to {} iterations and a \
                 parallelism of {} to {}",
                least.memory_kib,
                most.memory_kib,
                least.iterations,
                most.iterations,
                least.parallelism,
                most.parallelism,
            ));
        }
        Ok(())
    }

    /// Whether any of the three is lower.
    fn is_weaker_than(self, other: Self) -> bool {
        self.memory_kib < other.memory_kib
            || self.iterations < other.iterations
            || self.parallelism < other.parallelism
    }

    fn of(stored: &PasswordHash) -> Option<Self> {
        let params = Params::try_from(stored).ok()?;
        Some(Self {
            memory_kib: params.m_cost(),
            iterations: params.t_cost(),
            parallelism: params.p_cost(),
        })
    }

    fn argon2(self) -> Option<Argon2<'static>> {
        let params = Params::new(self.memory_kib, self.iterations, self.parallelism, None).ok()?;
        Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }

    /// The result in the PHC string format; `None` if the machine gives no memory or no randomness.
    pub(super) fn hash(self, password: &Password, random: &Random) -> Option<String> {
        let salt: [u8; SALT_BYTES] = random.bytes().ok()?;
        let hash = self
            .argon2()?
            .hash_password_with_salt(password.bytes(), &salt);
        Some(hash.ok()?.to_string())
    }

    /// `None` if the machine gives no memory: then nothing is known of the password.
    pub(super) fn verify(
        self,
        password: &Password,
        stored: Option<&str>,
        random: &Random,
    ) -> Option<Verified> {
        let Some((stored, cost)) = stored.and_then(read_stored) else {
            self.hash(password, random)?;
            return Some(Verified {
                matches: false,
                rehashed: None,
            });
        };
        use argon2::password_hash::Error;
        let matches = match self.argon2()?.verify_password(password.bytes(), &stored) {
            Ok(()) => true,
            Err(Error::PasswordInvalid) => false,
            Err(_) => return None,
        };
        let outdated = matches && cost.is_weaker_than(self);
        Some(Verified {
            matches,
            rehashed: outdated.then(|| self.hash(password, random)).flatten(),
        })
    }
}

/// Reads what is stored, unless it is no Argon2id hash or would cost more than a login may: who can
/// write to the database shall not be able to stop the service with it.
fn read_stored(stored: &str) -> Option<(PasswordHash, Parameters)> {
    let hash = PasswordHash::new(stored).ok()?;
    let cost = Parameters::of(&hash)?;
    let usable = hash.algorithm == argon2::ARGON2ID_IDENT
        && hash.version == Some(Version::V0x13.into())
        && hash.salt.is_some()
        && hash.hash.as_ref()?.as_bytes().len() >= OUTPUT_BYTES_MIN
        && !Parameters::MAX.is_weaker_than(cost);
    usable.then_some((hash, cost))
}

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Whether it is the stored password.
    pub(crate) matches: bool,
    /// The same password at today's parameters, to be stored in place of a weaker hash.
    pub(crate) rehashed: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn password(text: &str) -> Password {
        Password::from(text)
    }

    #[test]
    fn absurd_or_foreign_hashes_are_not_run() {
        let salt_and_hash = "c2FsdHNhbHRzYWx0$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";
        let stored = |head: &str| read_stored(&format!("{head}${salt_and_hash}")).is_some();
        assert!(stored("$argon2id$v=19$m=19456,t=2,p=1"));
        assert!(stored("$argon2id$v=19$m=1048576,t=16,p=16"));
        for head in [
            "$argon2id$v=19$m=1048577,t=2,p=1",
            "$argon2id$v=19$m=4294967295,t=2,p=1",
            "$argon2id$v=19$m=19456,t=4294967295,p=1",
            "$argon2id$v=19$m=19456,t=17,p=1",
            "$argon2id$v=19$m=19456,t=2,p=17",
            "$argon2id$v=19$m=0,t=0,p=0",
            "$argon2id$v=16$m=19456,t=2,p=1",
            "$argon2i$v=19$m=19456,t=2,p=1",
            "$argon2d$v=19$m=19456,t=2,p=1",
            "$scrypt$ln=16,r=8,p=1",
        ] {
            assert!(!stored(head), "{head}");
        }
        assert!(
            read_stored("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$MTIzNDU2Nzg5MDEy")
                .is_none()
        );
        assert!(read_stored("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0").is_none());
        assert!(read_stored("").is_none());
    }

    /// Time this thread has spent on a processor, whatever else the machine does.
    #[cfg(target_os = "linux")]
    fn processor_time() -> Duration {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_unknown_name_costs_as_much_as_a_known_one() {
        let parameters = Parameters::default();
        let known = parameters
            .hash(&password("correct horse"), &Random::system())
            .unwrap();
        let mut least = [Duration::MAX; 3];
        let cases = [Some(known.as_str()), None, Some("garbage")];
        for _ in 0..8 {
            for (least, stored) in least.iter_mut().zip(cases) {
                let start = processor_time();
                let verified = parameters.verify(&password("wrong one"), stored, &Random::system());
                *least = (*least).min(processor_time() - start);
                assert!(!verified.expect("memory").matches);
            }
        }
        let [known, unknown, garbage] = least;
        for other in [unknown, garbage] {
            let (less, more) = (known.min(other), known.max(other));
            assert!(less * 3 > more * 2, "{least:?}");
        }
    }

    proptest! {
        #[test]
        fn stored_text_of_any_kind_is_read_or_refused(text in ".{0,200}") {
            let _ = read_stored(&text);
            let _ = read_stored(&format!("$argon2id$v=19${text}"));
        }
    }
}
