//! Zip archives, as skops and SciPy write them: entries by their names, checked and bounded.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::io::Read;

use bzip2::read::BzDecoder;
use flate2::read::DeflateDecoder;
use rawzip::{
    CompressionMethod, Error, ZipArchive, ZipArchiveEntryWayfinder, ZipSliceArchive,
    ZipVerification, crc32,
};

use super::unpacked_too_large;
use crate::document::{CUT_OFF, Fault, shorten};

/// An archive that borrows the file's bytes.
pub(crate) struct Archive<'f> {
    archive: ZipSliceArchive<&'f [u8]>,
    /// How many bytes it has itself.
    pub(super) size: usize,
    entries: HashMap<Box<str>, Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    place: ZipArchiveEntryWayfinder,
    method: CompressionMethod,
}

/// Bytes that may still be read, of all archives of a file together, however often an entry is.
#[derive(Debug)]
pub(super) struct Left {
    max: u64,
    bytes: Cell<u64>,
}

impl Left {
    pub(super) fn new(max: u64) -> Self {
        let bytes = Cell::new(max);
        Self { max, bytes }
    }

    pub(super) fn read(&self) -> u64 {
        self.max - self.bytes.get()
    }

    fn spend(&self, bytes: usize) -> Result<(), Fault> {
        let rest = self.bytes.get().checked_sub(bytes as u64);
        self.bytes
            .set(rest.ok_or_else(|| unpacked_too_large(self.max))?);
        Ok(())
    }
}

impl<'f> Archive<'f> {
    /// Reads which entries there are.
    pub(crate) fn open(bytes: &'f [u8]) -> Result<Self, Fault> {
        let archive = ZipArchive::from_slice(bytes).map_err(broken)?;
        let mut entries = HashMap::new();
        for entry in archive.entries() {
            let entry = entry.map_err(broken)?;
            let name = std::str::from_utf8(entry.file_path().as_bytes());
            let name: Box<str> = name
                .map_err(|_| Fault::new("an entry of the archive whose name is not UTF-8"))?
                .into();
            let (place, method) = (entry.wayfinder(), entry.compression_method());
            if entries.contains_key(&name) {
                return Err(Fault(format!(
                    "the archive has the entry `{}` twice",
                    shorten(&name)
                )));
            }
            entries.insert(name, Entry { place, method });
        }
        Ok(Self {
            archive,
            size: bytes.len(),
            entries,
        })
    }

    /// Names of the entries.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(|name| &**name)
    }

    /// What an entry holds; where it is not compressed, in its place in the file.
    pub(super) fn read(&self, name: &str, left: &Left) -> Result<Cow<'_, [u8]>, Fault> {
        let entry = self.entries.get(name);
        let entry = entry.ok_or_else(|| Fault::new("the archive has no such entry"));
        entry
            .and_then(|entry| self.content(*entry, left))
            .map_err(|fault| fault.inside(format_args!("`{}`", shorten(name))))
    }

    fn content(&self, entry: Entry, left: &Left) -> Result<Cow<'_, [u8]>, Fault> {
        let packed = self.archive.get_entry(entry.place).map_err(broken)?;
        let data = packed.data();
        let content = match entry.method {
            CompressionMethod::STORE => {
                left.spend(data.len())?;
                Cow::Borrowed(data)
            }
            CompressionMethod::DEFLATE => unpack(DeflateDecoder::new(data), left)?.into(),
            CompressionMethod::BZIP2 => unpack(BzDecoder::new(data), left)?.into(),
            method => {
                return Err(Fault(format!(
                    "compressed with {method}, which is not read; write the file again with `compression=zipfile.ZIP_DEFLATED`"
                )));
            }
        };
        let found = ZipVerification {
            crc: crc32(&content),
            uncompressed_size: content.len() as u64,
        };
        packed.claim_verifier().valid(found).map_err(broken)?;
        Ok(content)
    }
}

fn unpack(decoder: impl Read, left: &Left) -> Result<Vec<u8>, Fault> {
    let mut content = Vec::new();
    let read = decoder.take(left.bytes.get() + 1).read_to_end(&mut content);
    read.map_err(|error| Fault(format!("it cannot be decompressed: {error}")))?;
    left.spend(content.len())?;
    Ok(content)
}

fn broken(error: Error) -> Fault {
    match error.kind() {
        rawzip::ErrorKind::Eof | rawzip::ErrorKind::MissingEndOfCentralDirectory => {
            Fault::new(CUT_OFF)
        }
        _ => Fault(format!("the archive is damaged: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// An archive of one compressed entry.
    fn packed(content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut archive = rawzip::ZipArchiveWriter::new(&mut bytes);
        let entry = archive.new_file("zeros");
        let entry = entry.compression_method(CompressionMethod::DEFLATE);
        let (mut entry, config) = entry.start().unwrap();
        let encoder = flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::best());
        let mut writer = config.wrap(encoder);
        writer.write_all(content).unwrap();
        let (encoder, descriptor) = writer.finish().unwrap();
        encoder.finish().unwrap();
        entry.finish(descriptor).unwrap();
        archive.finish().unwrap();
        bytes
    }

    /// As often as an entry is read, its bytes count.
    #[test]
    fn a_bomb_is_not_unpacked_beyond_what_is_left() {
        let bytes = packed(&[0; 100_000]);
        assert!(bytes.len() < 1000);
        let archive = Archive::open(&bytes).unwrap();
        let left = Left::new(250_000);
        assert_eq!(archive.read("zeros", &left).unwrap().len(), 100_000);
        assert_eq!(archive.read("zeros", &left).unwrap().len(), 100_000);
        assert_eq!(left.read(), 200_000);
        let fault = archive.read("zeros", &left).unwrap_err().0;
        assert!(
            fault.contains("decompressed, the file is larger"),
            "{fault}"
        );
    }

    #[test]
    fn what_is_damaged_is_found_by_its_checksum() {
        let mut bytes = packed(b"0123456789");
        let directory = bytes
            .windows(4)
            .position(|four| four == b"PK\x01\x02")
            .unwrap();
        bytes[directory + 16] ^= 1;
        let archive = Archive::open(&bytes).unwrap();
        let fault = archive.read("zeros", &Left::new(1000)).unwrap_err().0;
        assert!(fault.contains("the archive is damaged"), "{fault}");
    }
}
