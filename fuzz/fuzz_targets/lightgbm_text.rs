//! LightGBM models in text.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // What begins otherwise is some other target's.
    if bytes.starts_with(b"tree") {
        auspex_fuzz::load_and_predict(bytes);
    }
});
