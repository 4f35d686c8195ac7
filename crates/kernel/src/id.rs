//! Ids of stored things: text that sorts by time of creation, so that a list can be paged by id. A
//! wall clock that is set back does not change that, see [`IdTime`].
//!
//! 16 characters of Crockford's base32 (digits and letters without I, L, O and U): 48 bits of Unix
//! milliseconds, then 32 random bits. Not a secret.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::clock::{Clock, IdTime};
use crate::random::Random;

/// In the order of its ASCII codes, so that texts sort as the numbers they write.
pub(crate) const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LENGTH: usize = 16;

/// A new id. Of ids made in one millisecond the order is by chance.
///
/// # Errors
/// The operating system gave no random bytes.
pub fn new_id(clock: &Clock, random: &Random) -> Result<String, getrandom::Error> {
    id_at(clock.for_id(), random)
}

fn id_at(time: IdTime, random: &Random) -> Result<String, getrandom::Error> {
    let millis = u64::try_from(time.0.div_euclid(1_000)).unwrap_or_default() & 0xFFFF_FFFF_FFFF;
    let bits = u128::from(millis) << 32 | u128::from(u32::from_ne_bytes(random.bytes()?));
    let digit = |place| ALPHABET[(bits >> (5 * place) & 31) as usize];
    Ok((0..LENGTH)
        .rev()
        .map(|place| char::from(digit(place)))
        .collect())
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// 16 characters of Crockford's base32. Not a secret.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sea_orm::DeriveValueType)]
        pub struct $name(String);

        impl $name {
            /// A new one, in the order of creation.
            ///
            /// # Errors
            /// The operating system gave no random bytes.
            pub fn new(clock: &Clock, random: &Random) -> Result<Self, getrandom::Error> {
                new_id(clock, random).map(Self)
            }

            /// From text in either case; `None` if it cannot be one.
            pub fn parse(text: &str) -> Option<Self> {
                parse_id(text).map(Self)
            }

            /// As it was stored, or as a token that we signed has it.
            pub fn from_stored(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Columns of a table have a width.
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl From<&$name> for sea_orm::Value {
            fn from(id: &$name) -> Self {
                id.as_str().into()
            }
        }

        /// No database counts these.
        impl sea_orm::TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, sea_orm::DbErr> {
                Err(sea_orm::DbErr::ConvertFromU64(stringify!($name)))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    )*};
}

ids! {
    /// Names a user.
    UserId;
    /// Names an API key. Unlike other ids it is drawn by chance alone.
    KeyId;
    /// Names an OAuth client.
    ClientId;
    /// Names a session: what one login or one consent gave.
    SessionId;
    /// Names a job.
    JobId;
}

impl KeyId {
    /// A new one, which tells nothing of when it was made.
    ///
    /// # Errors
    /// The operating system gave no random bytes.
    pub fn random(random: &Random) -> Result<Self, getrandom::Error> {
        let bytes: [u8; LENGTH] = random.bytes()?;
        let chars = bytes.iter().map(|byte| ALPHABET[usize::from(byte % 32)]);
        Ok(Self(chars.map(char::from).collect()))
    }
}

/// The millisecond in which [`new_id`] made this id; `None` if it did not.
pub fn time_of_id(id: &str) -> Option<IdTime> {
    let digit = |byte| ALPHABET.iter().position(|digit| *digit == byte);
    let add = |bits: u128, byte| Some(bits << 5 | digit(byte)? as u128);
    let bits = parse_id(id)?.bytes().try_fold(0, add)?;
    let millis = i64::try_from(bits >> 32).ok()?;
    Some(IdTime(millis.checked_mul(1_000)?))
}

/// An id as stored, from text in either case; `None` if it cannot be one.
pub fn parse_id(text: &str) -> Option<String> {
    let id = text.to_ascii_uppercase();
    let is_id = id.len() == LENGTH && id.bytes().all(|byte| ALPHABET.contains(&byte));
    is_id.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use proptest::prelude::*;

    fn id(clock: &Clock) -> String {
        new_id(clock, &Random::system()).expect("random bytes")
    }

    fn at(time: IdTime) -> String {
        id_at(time, &Random::system()).expect("random bytes")
    }

    #[test]
    fn ids_sort_by_creation_while_the_wall_clock_is_set_back() {
        let hour = 3_600_000_000;
        let clock = Clock::manual(Timestamp(500 * hour));
        let mut last = id(&clock);
        for back in [1, 240] {
            clock.step(Timestamp((500 - back) * hour));
            // Enough for the microseconds to reach the next millisecond.
            for _ in 0..1_000 {
                clock.for_id();
            }
            let next = id(&clock);
            assert!(next > last, "{last} {next}");
            last = next;
        }
        let restarted = Clock::manual(Timestamp(hour));
        restarted.follow_id(time_of_id(&last).expect("an id"));
        assert!(id(&restarted) > last);
    }

    #[test]
    fn ids_do_not_repeat_within_a_millisecond() {
        let ids: std::collections::HashSet<_> = (0..1_000).map(|_| at(IdTime(0))).collect();
        assert_eq!(ids.len(), 1_000);
        assert!(ids.iter().all(|id| id.starts_with("000000000")));
    }

    proptest! {
        #[test]
        fn ids_sort_by_time(one in 0i64..1 << 57, other in 0i64..1 << 57) {
            let (one, other) = (IdTime(one), IdTime(other));
            prop_assume!(one.0 / 1_000 != other.0 / 1_000);
            let (a, b) = (at(one), at(other));
            prop_assert_eq!(one.cmp(&other), a.cmp(&b));
            prop_assert_eq!(time_of_id(&a), Some(IdTime(one.0 / 1_000 * 1_000)));
        }

        #[test]
        fn ids_are_known_in_either_case_and_garbage_is_not(time in any::<i64>(), garbage in ".{0,20}") {
            let _ = time_of_id(&garbage);
            let id = id(&Clock::manual(Timestamp(time)));
            prop_assert_eq!(parse_id(&id.to_lowercase()), Some(id.clone()));
            prop_assert_eq!(parse_id(&id[1..]), None);
            prop_assert_eq!(parse_id(&id.replacen(&id[..1], "U", 1)), None);
            if let Some(id) = parse_id(&garbage) {
                prop_assert_eq!(id.len(), 16);
            }
        }
    }
}
