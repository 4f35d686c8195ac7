//! Ids, pseudonyms and languages: what is taken keeps its bounds, and its canonical form is its own.

#![no_main]

use auspex_dialogues::{CustomerId, CustomerRef, DialogId, DialogueRef, ID_BYTES_MAX, Language};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let is_id = CustomerId::parse(text).is_ok();
    assert_eq!(is_id, DialogId::parse(text).is_ok());
    assert!(!is_id || (1..=ID_BYTES_MAX).contains(&text.len()));
    if let Some(reference) = CustomerRef::parse(text) {
        assert_eq!(reference.to_string(), text);
    }
    if let Some(reference) = DialogueRef::parse(text) {
        assert_eq!(reference.to_string(), text);
    }
    if let Ok(language) = Language::parse(text) {
        assert_eq!(Language::parse(language.as_str()), Ok(language));
        assert_eq!(
            Language::parse(language.primary().as_str()),
            Ok(language.primary())
        );
    }
});
