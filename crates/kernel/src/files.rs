//! Files that hold secrets, such as the database: only their owner may read them, whatever the folder
//! and the umask say.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// The mode of a file that only its owner may read and write.
pub const PRIVATE: u32 = 0o600;
/// What a group and others may do.
const SHARED: u32 = 0o077;

/// Makes an empty private file where there is none, or else narrows the one that is there.
pub fn make_private(path: &Path) {
    let mut file = OpenOptions::new();
    // One that is there is not opened: closing any descriptor of a file gives up all locks that this
    // process has on it, SQLite's too.
    file.create_new(true).write(true).mode(PRIVATE);
    // Whoever opens it next reports the error.
    let _ = file.open(path);
    narrow(path);
}

/// Takes a file away from everybody but its owner, and says so in the log if somebody else could read
/// or write it. A file that does not exist is left alone.
pub fn narrow(path: &Path) {
    let Ok(meta) = fs::metadata(path) else {
        return;
    };
    if !meta.is_file() || meta.permissions().mode() & SHARED == 0 {
        return;
    }
    let file = path.display();
    match fs::set_permissions(path, Permissions::from_mode(PRIVATE)) {
        Ok(()) => tracing::warn!(%file, "others could read this file; now only its owner can"),
        Err(error) => {
            tracing::warn!(%file, %error, "others can read this file; run chmod 600 on it as its owner");
        }
    }
}
