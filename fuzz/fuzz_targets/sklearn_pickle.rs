//! Models of scikit-learn in pickles.
//!
//! `cargo +nightly fuzz run sklearn_pickle fuzz/corpus/sklearn_pickle crates/engine/tests/golden/sklearn-1.9`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| auspex_fuzz::load_and_predict(bytes));
