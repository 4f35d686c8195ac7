//! The code that people copy from a device to the page where they allow it (RFC 8628 §6.1).

use std::fmt;

use auspex_kernel::Random;

/// Letters that are not mistaken for one another, and no vowels, so that they make no words.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const LENGTH: usize = 8;

/// Eight letters, shown as `WDJB-MJHT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserCode(String);

impl UserCode {
    /// One of 20⁸, all equally likely but for one part in a hundred million.
    pub(crate) fn random(random: &Random) -> Result<Self, getrandom::Error> {
        let mut rest = u64::from_le_bytes(random.bytes::<8>()?);
        let letters = (0..LENGTH).map(|_| {
            let letter = LETTERS[(rest % 20) as usize];
            rest /= 20;
            char::from(letter)
        });
        Ok(Self(letters.collect()))
    }

    /// Reads one as people write it: in either case, with any dashes and blanks.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_dash = |c: char| c == '-' || ('\u{2010}'..='\u{2015}').contains(&c);
        let written = text.chars().filter(|c| !c.is_whitespace() && !is_dash(*c));
        let letters: String = written
            .take(LENGTH + 1)
            .map(|c| c.to_ascii_uppercase())
            .collect();
        let is_code = letters.len() == LENGTH && letters.bytes().all(|b| LETTERS.contains(&b));
        is_code.then_some(Self(letters))
    }

    /// One that was stored.
    pub(crate) fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The letters alone.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_at_checked(LENGTH / 2) {
            Some((begin, end)) => write!(f, "{begin}-{end}"),
            None => f.write_str(&self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_use_all_letters_and_are_read_as_they_are_shown() {
        let random = Random::system();
        let mut used = BTreeSet::new();
        for _ in 0..200 {
            let code = UserCode::random(&random).unwrap();
            used.extend(code.as_str().bytes());
            let shown = code.to_string();
            assert_eq!((shown.len(), &shown[4..5]), (9, "-"));
            assert_eq!(UserCode::parse(&shown), Some(code));
        }
        assert_eq!(used.len(), LETTERS.len());
    }

    #[test]
    fn codes_are_read_however_people_write_them() {
        let code = UserCode::parse("WDJB-MJHT");
        assert!(code.is_some());
        for text in [
            "wdjbmjht",
            " wdjb mjht\n",
            "W-D-J-B-m-j-h-t",
            "WDJB\u{2013}MJHT",
        ] {
            assert_eq!(UserCode::parse(text), code, "{text}");
        }
        for text in [
            "",
            "WDJB-MJH",
            "WDJB-MJHTT",
            "WDJB-MJHA",
            "WDJB-MJH1",
            "WDJB_MJHT",
        ] {
            assert_eq!(UserCode::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_no_code(text in ".{0,40}") {
            if let Some(code) = UserCode::parse(&text) {
                prop_assert_eq!(UserCode::parse(&code.to_string()), Some(code));
            }
        }
    }
}
