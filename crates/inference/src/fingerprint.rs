//! How a package looks from outside, to tell when it has changed and when it is complete.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::files::is_part;

/// Every file in a package's folder: name, size, times and inode. Hidden and temporary ones count
/// too, because a copy often writes those first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<File>);

/// The files of a [`Fingerprint`] that are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts(Vec<File>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    name: String,
    numbers: [i64; 7],
    is_part: bool,
}

impl Fingerprint {
    /// That of the files in a folder, or of one file. What cannot be looked at has an empty one;
    /// loading it then tells why.
    pub(crate) fn of(path: &Path) -> Self {
        Self(files(path).unwrap_or_default())
    }

    pub(crate) fn parts(&self) -> Parts {
        Parts(self.0.iter().filter(|file| file.is_part).cloned().collect())
    }
}

fn files(path: &Path) -> io::Result<Vec<File>> {
    let meta = fs::metadata(path)?;
    if meta.is_file() {
        return Ok(vec![File::new(path, Some(&meta), true)]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        // A link to nowhere, or a file that has just gone, has no numbers.
        let meta = fs::metadata(&path).ok();
        files.push(File::new(&path, meta.as_ref(), is_part(&path)));
    }
    files.sort();
    Ok(files)
}

impl File {
    fn new(path: &Path, meta: Option<&Metadata>, is_part: bool) -> Self {
        let name = path.file_name().unwrap_or_default();
        let numbers = |meta: &Metadata| {
            [
                i64::try_from(meta.len()).unwrap_or(i64::MAX),
                meta.mtime(),
                meta.mtime_nsec(),
                meta.ctime(),
                meta.ctime_nsec(),
                meta.ino().cast_signed(),
                meta.dev().cast_signed(),
            ]
        };
        Self {
            name: name.to_string_lossy().into_owned(),
            numbers: meta.map(numbers).unwrap_or_default(),
            is_part,
        }
    }
}
