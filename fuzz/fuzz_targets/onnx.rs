//! Models in ONNX.
//!
//! `cargo +nightly fuzz run onnx fuzz/corpus/onnx crates/engine/tests/golden/onnx`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| auspex_fuzz::load_and_predict(bytes));
