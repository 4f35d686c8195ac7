//! Texts and decisions as jobs send them: no body is taken for a yes that does not say so.

#![no_main]

use auspex_dialogues::fuzzing::{MEDIA_TYPES, headers, read_decision, read_text};
use percent_encoding::percent_decode;

const TEXT_BYTES_MAX: usize = 64;

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| {
    let (choice, body) = input;
    let media_type = MEDIA_TYPES[usize::from(choice) % MEDIA_TYPES.len()];
    let headers = headers(media_type);
    if let Some((text, language)) = read_text(&headers, body, TEXT_BYTES_MAX) {
        assert!((1..=TEXT_BYTES_MAX).contains(&text.len()));
        assert!(!language.as_str().is_empty());
    }
    if let Some(is_yes) = read_decision(&headers, body) {
        let wanted: &[u8] = if is_yes { b"true" } else { b"false" };
        let decoded: Vec<u8> = percent_decode(body).collect();
        let says_so = |bytes: &[u8]| bytes.windows(wanted.len()).any(|part| part == wanted);
        assert!(says_so(body) || says_so(&decoded));
    }
});
