//! The one form of names and passwords that look the same to people: PRECIS, RFC 8265.
//!
//! A name is one or more parts between single blanks, each as the profile `Username` has it: letters,
//! digits and signs of ASCII, nothing invisible, composed (NFC), no full-width forms. No word in it mixes
//! scripts. Names are compared
//! without regard to case. A password is as the profile `OpaqueString` has it: anything but control
//! and unassigned characters, composed, every blank the same.
//!
//! What was stored before this rule may have no such form; it is still found as it was written.

use std::borrow::Cow;

use auspex_kernel::fields::{Kind, Wrong};
use precis_profiles::precis_core::Error;
use precis_profiles::precis_core::profile::PrecisFastInvocation as _;
use precis_profiles::{OpaqueString, UsernameCaseMapped, UsernameCasePreserved};
use serde_json::Value;
use unicode_security::MixedScript as _;
use zeroize::Zeroizing;

/// Applying a rule may make another apply; this many times are enough for every text that ever
/// becomes stable (RFC 8264 §7).
const ROUNDS_MAX: usize = 4;

/// A name as it is shown: the canonical form with its case. `None` if the text can be no name.
pub(crate) fn name(text: &str) -> Option<String> {
    let name = stable(text, |text| {
        parts(text, |part| UsernameCasePreserved::enforce(part))
    });
    name.filter(|name| {
        name.split(|c: char| !c.is_alphanumeric())
            .all(is_of_one_script)
    })
}

/// Whether all letters of a word are of one script, or of those that one language is written in: a
/// Cyrillic letter in a Latin word looks like another name (Unicode Technical Standard 39, §5.1).
fn is_of_one_script(word: &str) -> bool {
    word.is_single_script()
}

/// What a name is found by: equal for names that look the same.
pub(crate) fn key(text: &str) -> String {
    let key = stable(text, |text| {
        parts(text, |part| UsernameCaseMapped::enforce(part))
    });
    key.unwrap_or_else(|| old_key(text))
}

/// What a name was found by before names had a canonical form.
pub(crate) fn old_key(text: &str) -> String {
    text.to_lowercase()
}

/// A password as it is hashed. `None` if the text can be no password.
pub(crate) fn password(text: &str) -> Option<Zeroizing<String>> {
    let password = |text: &str| Some(OpaqueString::enforce(text).ok()?.into_owned());
    stable(text, password).map(Zeroizing::new)
}

fn parts(
    text: &str,
    enforce: impl for<'a> Fn(&'a str) -> Result<Cow<'a, str>, Error>,
) -> Option<String> {
    let parts = text.split(' ').map(|part| enforce(part).ok());
    Some(parts.collect::<Option<Vec<_>>>()?.join(" "))
}

fn stable(text: &str, apply: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut before = apply(text)?;
    for _ in 0..ROUNDS_MAX {
        let after = apply(&before)?;
        if after == before {
            return Some(after);
        }
        before = after;
    }
    None
}

/// A field that is a name, read as another kind first.
pub(crate) struct Name<K>(pub(crate) K);

impl<K: Kind<Value = String>> Kind for Name<K> {
    type Value = String;

    fn read(&self, value: &Value) -> Result<String, Wrong> {
        let text = self.0.read(value)?;
        name(&text).ok_or_else(|| {
            "must be letters, digits and signs, with single blanks between them only, and no word of several scripts".into()
        })
    }

    fn schema(&self) -> Value {
        self.0.schema()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_word_mixes_scripts() {
        for good in [
            "ada",
            "\u{438}\u{432}\u{430}\u{43d}@example.org",
            "\u{5c71}\u{7530}\u{305f}\u{308d}\u{3046}",
            "Ada \u{418}\u{432}\u{430}\u{43d}",
            "\u{3b1}\u{3b2}_1",
        ] {
            assert_eq!(name(good).as_deref(), Some(good));
        }
        for bad in ["\u{430}dmin", "p\u{430}ul@example.org", "ad\u{3b1}"] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_that_look_the_same_are_one() {
        for (one, other) in [
            ("Ada", "aDA"),
            ("\u{e9}mile", "E\u{301}mile"),
            ("\u{ff21}\u{ff44}\u{ff41}", "ada"),
            ("Ada Lovelace", "ada lovelace"),
            ("ada@EXAMPLE.org", "Ada@example.org"),
        ] {
            assert!(name(one).is_some() && name(other).is_some(), "{one}");
            assert_eq!(key(one), key(other), "{one}");
        }
        assert_ne!(key("ada"), key("adah"));
        assert_eq!(
            name("Ad\u{e1} O'Neill+x").as_deref(),
            Some("Ad\u{e1} O'Neill+x")
        );
    }

    #[test]
    fn what_cannot_be_seen_is_in_no_name() {
        for text in [
            "",
            " ada",
            "ada ",
            "ada  lovelace",
            "ad\u{200b}a",
            "ad\u{ad}a",
            "ada\u{a0}",
            "ada\u{3000}",
            "a\u{200d}da",
            "ada\u{feff}",
            "ad\ta",
            "ada\u{0}",
            "ada\u{202e}",
        ] {
            assert_eq!(name(text), None, "{text:?}");
        }
    }

    #[test]
    fn passwords_have_one_form() {
        let form = |text: &str| password(text).map(|password| password.to_string());
        assert_eq!(form("e\u{301}5678 1234"), form("\u{e9}5678 1234"));
        assert_eq!(form("a\u{a0}b\u{3000}c"), Some("a b c".into()));
        assert_eq!(
            form(" Two Blanks  \u{1f40e} "),
            Some(" Two Blanks  \u{1f40e} ".into())
        );
        for text in ["", "1234\u{0}5678", "12345678\n", "1234\u{200b}5678"] {
            assert_eq!(form(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_form_of_a_form_is_itself(text in "\\PC{0,40}|[a-zA-Z0-9@. \u{e0}-\u{24f}\u{300}-\u{310}\u{ff21}-\u{ff5a}]{0,20}") {
            if let Some(shown) = name(&text) {
                prop_assert_eq!(name(&shown), Some(shown.clone()));
                prop_assert_eq!(key(&shown), key(&text));
                prop_assert!(!shown.starts_with(char::is_whitespace));
                prop_assert!(!shown.ends_with(char::is_whitespace));
            }
            let found_by = key(&text);
            prop_assert_eq!(key(&found_by), found_by);
            if let Some(form) = password(&text) {
                prop_assert_eq!(password(&form).map(|again| again.to_string()), Some(form.to_string()));
            }
        }
    }
}
