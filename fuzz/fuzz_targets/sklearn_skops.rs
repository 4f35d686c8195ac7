//! Models of scikit-learn in files of skops.
//!
//! `cargo +nightly fuzz run sklearn_skops fuzz/corpus/sklearn_skops crates/engine/tests/golden/sklearn-1.9`
//!
//! What stands in an entry of the archive is changed, and the archive written anew: bytes that are changed in
//! their place do not get past its checksums.

#![no_main]

use std::io::{Read, Write};

use flate2::read::DeflateDecoder;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use rawzip::{CompressionMethod, ZipArchive, ZipArchiveWriter};

/// By how much an entry may grow at once.
const GROWTH_BYTES: usize = 64;

struct Entry {
    name: String,
    content: Vec<u8>,
}

fuzz_target!(|bytes: &[u8]| {
    // What is no archive is another target's.
    if bytes.starts_with(b"PK") {
        auspex_fuzz::load_and_predict(bytes);
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let entries = unpack(&data[..size]).unwrap_or_default();
    let changed = match entries.is_empty() || seed.is_multiple_of(8) {
        true => None,
        false => pack(change(entries, seed as usize / 8)).filter(|bytes| bytes.len() <= max_size),
    };
    match changed {
        Some(bytes) => {
            data[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});

fn unpack(bytes: &[u8]) -> Option<Vec<Entry>> {
    let archive = ZipArchive::from_slice(bytes).ok()?;
    let mut entries = Vec::new();
    for entry in archive.entries() {
        let entry = entry.ok()?;
        let name = std::str::from_utf8(entry.file_path().as_bytes())
            .ok()?
            .to_owned();
        let packed = archive.get_entry(entry.wayfinder()).ok()?;
        let mut content = Vec::new();
        match entry.compression_method() {
            CompressionMethod::DEFLATE => {
                // A damaged rest is left out.
                let _ = DeflateDecoder::new(packed.data())
                    .take(1 << 20)
                    .read_to_end(&mut content);
            }
            CompressionMethod::STORE => content.extend_from_slice(packed.data()),
            _ => return None,
        }
        entries.push(Entry { name, content });
    }
    Some(entries)
}

/// Changes one entry, every other time the one that has the model.
fn change(mut entries: Vec<Entry>, choice: usize) -> Vec<Entry> {
    let schema = entries.iter().position(|entry| entry.name == "schema.json");
    let index = match schema {
        Some(schema) if choice.is_multiple_of(2) => schema,
        _ => choice / 2 % entries.len(),
    };
    let content = &mut entries[index].content;
    let size = content.len();
    content.resize(size + GROWTH_BYTES, 0);
    let size = fuzzer_mutate(content, size, size + GROWTH_BYTES);
    content.truncate(size);
    entries
}

fn pack(entries: Vec<Entry>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut archive = ZipArchiveWriter::new(&mut bytes);
    for Entry { name, content } in entries {
        let file = archive
            .new_file(name.as_str())
            .compression_method(CompressionMethod::STORE);
        let (mut entry, config) = file.start().ok()?;
        let mut writer = config.wrap(&mut entry);
        writer.write_all(&content).ok()?;
        let (_, descriptor) = writer.finish().ok()?;
        entry.finish(descriptor).ok()?;
    }
    archive.finish().ok()?;
    Some(bytes)
}
