//! Headers of the PROXY protocol, read from a stream as the server reads them.

#![no_main]

#[path = "../../crates/server/src/connection/proxy_header.rs"]
mod proxy_header;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut taken = 0;
    while let Some(read) = bytes.get(..taken) {
        match proxy_header::missing(read) {
            Ok(0) => {
                let _ = proxy_header::read(read);
                return;
            }
            Ok(more) => taken += more,
            Err(_) => return,
        }
        assert!(taken <= 16 + 4096, "more is read than any header has");
    }
});
