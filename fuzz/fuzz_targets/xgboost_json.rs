//! XGBoost models in JSON.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // What begins like UBJSON is the other target's.
    if !matches!(bytes, [b'{', b'i' | b'U' | b'I' | b'l' | b'L', ..]) {
        auspex_fuzz::load_and_predict(bytes);
    }
});
