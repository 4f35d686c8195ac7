//! Pickles as joblib and other programs compress them.

use std::error::Error;
use std::io::{self, Read};

use bzip2::read::MultiBzDecoder;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use lzma_rust2::{LzmaReader, XzReader};
use ruzstd::decoding::StreamingDecoder;

use super::others;
use crate::document::{CUT_OFF, Fault};
use crate::pickle::{unpacked_max, unpacked_too_large};

/// How much is decompressed to see what it is.
const SEEN_BYTES: u64 = 4096;

/// What xz and its predecessor may take to decompress; their densest setting takes 65 MiB.
const MEMORY_KIB: u32 = 128 << 10;

/// The pickle in a compressed file; none if the file is another.
pub(super) fn unpack(bytes: &[u8]) -> Option<Result<Vec<u8>, Fault>> {
    let mut head = Vec::new();
    // What is cut off may still show what it is.
    let _ = decoder(bytes)?.take(SEEN_BYTES).read_to_end(&mut head);
    others::is_pickle(&head).then(|| {
        let (mut pickle, max) = (Vec::new(), unpacked_max(bytes.len()));
        let decoder = decoder(bytes).expect("there was one");
        match decoder.take(max + 1).read_to_end(&mut pickle) {
            Ok(length) if length as u64 > max => Err(unpacked_too_large(max)),
            Ok(_) => Ok(pickle),
            Err(error) if is_cut_off(&error) => Err(Fault::new(CUT_OFF)),
            Err(error) => Err(Fault(format!("it cannot be decompressed: {error}"))),
        }
    })
}

fn decoder(bytes: &[u8]) -> Option<Box<dyn Read + '_>> {
    match bytes {
        [0x1F, 0x8B, ..] => Some(Box::new(MultiGzDecoder::new(bytes))),
        [0x78, ..] => Some(Box::new(ZlibDecoder::new(bytes))),
        [b'B', b'Z', b'h', ..] => Some(Box::new(MultiBzDecoder::new(bytes))),
        [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => {
            Some(Box::new(XzReader::new_mem_limit(bytes, true, MEMORY_KIB)))
        }
        // The decoder takes no window above 128 MiB.
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Some(Box::new(StreamingDecoder::new(bytes).ok()?)),
        _ if others::is_lzma(bytes) => {
            let decoder = LzmaReader::new_mem_limit(bytes, MEMORY_KIB, None).ok()?;
            Some(Box::new(decoder))
        }
        _ => None,
    }
}

/// Whether the reason is that bytes end too early.
fn is_cut_off(error: &io::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(each) = cause {
        let inner = each.downcast_ref::<io::Error>();
        if inner.is_some_and(|inner| inner.kind() == io::ErrorKind::UnexpectedEof) {
            return true;
        }
        cause = each.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_larger_than_is_needed_is_not_made() {
        let head = |size: u32| {
            let size = size.to_le_bytes();
            [&[0x5D][..], &size, &[0xFF; 8], &[0; 5]].concat()
        };
        assert!(decoder(&head(64 << 20)).is_some());
        assert!(decoder(&head(1 << 30)).is_none());
    }
}
