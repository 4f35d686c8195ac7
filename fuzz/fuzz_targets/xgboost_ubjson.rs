//! XGBoost models in UBJSON.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if matches!(bytes, [b'{', b'i' | b'U' | b'I' | b'l' | b'L', ..]) {
        auspex_fuzz::load_and_predict(bytes);
    }
});
