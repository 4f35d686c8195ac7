//! CatBoost models in the library's own format and in JSON.
//!
//! `cargo +nightly fuzz run catboost fuzz/corpus/catboost crates/engine/tests/golden/catboost`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| auspex_fuzz::load_and_predict(bytes));
