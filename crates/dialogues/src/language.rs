//! Languages of texts: BCP 47 tags whose primary language ISO 639 knows, in one canonical form, so that
//! a text is found by the tag it was pushed with, however that was written.

use std::fmt;

use isolang::Language as Iso639;
use oxilangtag::LanguageTag;

/// What RFC 5646, section 4.4.1, asks of every program; longer tags are refused.
pub(crate) const BYTES_MAX: usize = 35;

/// A language, such as `pt` or `zh-Hant-TW`. It is small and copied freely, since every text has one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Language {
    bytes: [u8; BYTES_MAX],
    length: u8,
}

/// Not a language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a language tag of at most {BYTES_MAX} characters such as en or pt-BR, which begins with a code of ISO 639"
)]
pub struct NoLanguage;

impl Language {
    /// Reads a tag in any case. A three-letter code becomes the two-letter one of the same language
    /// where there is one, as RFC 5646, section 2.2.1, wants it: `spa` and `es` are one.
    ///
    /// # Errors
    /// [`NoLanguage`].
    pub fn parse(text: &str) -> Result<Self, NoLanguage> {
        if text.len() > BYTES_MAX {
            return Err(NoLanguage);
        }
        let tag = LanguageTag::parse_and_normalize(text).map_err(|_| NoLanguage)?;
        let primary = tag.primary_language();
        let known = match primary.len() {
            2 => Iso639::from_639_1(primary),
            3 => Iso639::from_639_3(primary),
            _ => None,
        };
        let known = known.ok_or(NoLanguage)?;
        let shortest = known.to_639_1().unwrap_or(primary);
        Ok(Self::of(&[shortest, &tag.as_str()[primary.len()..]]))
    }

    /// Its primary language alone: `pt` of `pt-BR`.
    #[must_use]
    pub fn primary(&self) -> Self {
        let tag = self.as_str();
        Self::of(&[tag.split_once('-').map_or(tag, |(primary, _)| primary)])
    }

    /// Whether it is a primary language and nothing more, which as a filter stands for all its variants.
    pub fn is_primary(&self) -> bool {
        !self.as_str().contains('-')
    }

    /// The canonical tag.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).expect("tags are ASCII")
    }

    /// From the text of [`Self::as_str`].
    pub(crate) fn canonical(tag: &str) -> Self {
        Self::of(&[tag])
    }

    /// Of the parts of a tag, which together are not longer than one that was read.
    fn of(parts: &[&str]) -> Self {
        let mut bytes = [0; BYTES_MAX];
        let mut length = 0;
        for part in parts {
            bytes[length..length + part.len()].copy_from_slice(part.as_bytes());
            length += part.len();
        }
        let length = u8::try_from(length).expect("at most BYTES_MAX");
        Self { bytes, length }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Language({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<String> {
        Language::parse(text)
            .ok()
            .map(|language| language.to_string())
    }

    #[test]
    fn tags_become_canonical() {
        for (written, canonical) in [
            ("es", "es"),
            ("ES", "es"),
            ("pt-br", "pt-BR"),
            ("PT-BR", "pt-BR"),
            ("zh-hANT-tw", "zh-Hant-TW"),
            ("spa", "es"),
            ("CAT-es", "ca-ES"),
            ("gsw-ch", "gsw-CH"),
            ("zh-CMN-hans", "zh-cmn-Hans"),
            ("sl-ROZAJ-biske", "sl-rozaj-biske"),
            ("es-419", "es-419"),
            ("en-US-U-CA-Gregory", "en-US-u-ca-gregory"),
            ("en-X-HotelBot", "en-x-hotelbot"),
            ("mul", "mul"),
            ("und", "und"),
        ] {
            assert_eq!(read(written).as_deref(), Some(canonical), "{written}");
        }
    }

    #[test]
    fn what_is_no_language_is_refused() {
        for text in [
            "",
            " ",
            "e",
            "xx",
            "qzz",
            "english",
            "es_ES",
            "es-",
            "-es",
            "es--ES",
            "es-ES-",
            "i-klingon",
            "x-private",
            "es ",
            "es\0",
            "es\n",
            "ës",
            "日本",
            "🇪🇸",
            "12",
            "en-a",
            "en-abcdefghi",
            "*",
            "en;q=0.5",
            "en,es",
        ] {
            assert_eq!(Language::parse(text), Err(NoLanguage), "{text:?}");
        }
        let longest = "en-x-aaaaaaaa-bbbbbbbb-cccccccc-ddd";
        assert_eq!(longest.len(), BYTES_MAX);
        assert_eq!(read(longest).as_deref(), Some(longest));
        assert_eq!(read(&format!("{longest}d")), None);
    }

    #[test]
    fn the_primary_language_stands_for_all_its_variants() {
        let brazilian = Language::parse("pt-BR").expect("a language");
        let portuguese = Language::parse("por").expect("a language");
        assert_eq!(brazilian.primary(), portuguese);
        assert_eq!(portuguese.primary(), portuguese);
        assert!(portuguese.is_primary() && !brazilian.is_primary());
    }

    proptest! {
        #[test]
        fn garbage_is_refused_or_canonical(text in "\\PC{0,40}") {
            if let Ok(language) = Language::parse(&text) {
                prop_assert_eq!(Language::parse(language.as_str()), Ok(language));
            }
        }

        #[test]
        fn tags_are_the_same_in_every_case(
            tag in "[a-zA-Z]{2,3}(-[a-zA-Z]{4})?(-([a-zA-Z]{2}|[0-9]{3}))?(-[a-zA-Z0-9]{5,8})?(-[xX](-[a-zA-Z0-9]{1,8}){1,2})?",
        ) {
            let language = Language::parse(&tag);
            prop_assert_eq!(Language::parse(&tag.to_uppercase()), language);
            prop_assert_eq!(Language::parse(&tag.to_lowercase()), language);
            if let Ok(language) = language {
                prop_assert!(language.as_str().eq_ignore_ascii_case(&tag) || tag.find('-').unwrap_or(tag.len()) == 3);
                prop_assert_eq!(Language::parse(language.as_str()), Ok(language));
                prop_assert_eq!(language.primary().primary(), language.primary());
            }
        }
    }
}
