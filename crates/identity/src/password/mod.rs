//! Passwords: what may be one, and how it is hashed and checked.
//!
//! Argon2id (RFC 9106) takes tens of milliseconds of a core and megabytes of memory for each
//! password, by design. It therefore runs on a few threads of its own behind three bounded queues, and
//! never on a thread that serves requests. A name that does not exist costs as much as one that does.
//!
//! From the moment a request is read, a password is a [`Password`], which nothing prints and which is
//! overwritten when it is dropped; so are the members of a JSON body and the parameters of a form
//! that it is taken from. What came over the network is not: the bytes of the body, the header
//! `Authorization`, and the copy that the JSON reader makes of a text with escapes.

mod argon2id;
mod hasher;
mod kind;

use std::fmt;
use std::ops::RangeInclusive;

use auspex_kernel::FieldError;
use zeroize::Zeroizing;

use crate::canonical;

pub(crate) use argon2id::{Parameters, Verified};
pub(crate) use hasher::{Busy, Hasher, Lane};
pub(crate) use kind::{chosen, presented};

/// How many characters a password that is chosen may have.
pub(crate) const CHARS: RangeInclusive<usize> = 8..=1024;

/// A password as somebody typed it: any text, for what may be chosen today says nothing about what
/// could be chosen when a stored one was. Overwritten when dropped; Debug output hides it.
#[derive(Clone, Default)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// The form in which it is hashed; `None` for what cannot be chosen.
    pub(crate) fn canonical(&self) -> Option<Self> {
        canonical::password(&self.0).map(Self)
    }

    /// The form of a password that may be chosen by `username`: 8 to 1024 characters, none that is
    /// not seen, not the name itself. No rules of composition: they make passwords worse (NIST SP
    /// 800-63B).
    ///
    /// # Errors
    /// What is wrong, for the field `password`.
    pub(crate) fn check_choice(&self, username: &str) -> Result<Self, FieldError> {
        let canonical = self.canonical();
        let text = canonical.as_ref().unwrap_or(self);
        let wrong = if !CHARS.contains(&text.0.chars().count()) {
            "must be 8 to 1024 characters long"
        } else if canonical.is_none() {
            "must not contain control or invisible characters"
        } else if lower(&text.0).eq(lower(username)) {
            "must differ from the username"
        } else {
            return Ok(text.clone());
        };
        Err(FieldError {
            field: "password".into(),
            message: wrong.into(),
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

/// Character by character: a copy of a password would not be overwritten.
fn lower(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::from(text)
    }

    #[test]
    fn what_may_be_chosen() {
        let check = |text: &str| password(text).check_choice("Ada@example.org").map(|_| ());
        let long = ["x".repeat(1024), "ä".repeat(1024)];
        for good in ["12345678", "correct horse", "pässwörd", &long[0], &long[1]] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "1234567",
            "äöüß",
            &"x".repeat(1025),
            "12345678\n",
            "1234\u{0}5678",
            "1234\u{200b}5678",
            "ada@EXAMPLE.org",
        ] {
            let error = check(bad).expect_err(bad);
            assert_eq!(error.field, "password");
            assert!(bad.is_empty() || !error.message.contains(bad));
        }
    }

    #[test]
    fn debug_output_hides_it() {
        let shown = format!("{:?}", password("correct horse"));
        assert_eq!(shown, "Password(hidden)");
    }
}
