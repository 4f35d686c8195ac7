//! Files that hold secrets, such as the database: only their owner may read them, whatever the folder
//! and the umask say.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// The mode of a file that only its owner may read and write.
pub const PRIVATE: u32 = 0o600;
/// What a group and others may do.
const SHARED: u32 = 0o077;
/// Names of users, one a line, before the first colon; the id is after the second.
const USERS: &str = "/etc/passwd";

/// Makes an empty private file where there is none, or else narrows the one that is there.
pub fn make_private(path: &Path) {
    let mut file = OpenOptions::new();
    // One that is there is not opened: closing any descriptor of a file gives up all locks that this
    // process has on it, SQLite's too.
    file.create_new(true).write(true).mode(PRIVATE);
    // Whoever opens it next reports the error.
    if let Ok(made) = file.open(path) {
        give_to_owner_of_folder(&made, path);
    } else if !path.exists() {
        // A link to where there is no file yet counts as one that is there.
        let _ = file.create_new(false).create(true).open(path);
    }
    narrow(path);
}

/// What root has just made becomes the folder's owner's, who may be the user of a service and could not
/// use it otherwise. SQLite does the same with the files beside a database.
pub fn give_to_owner_of_folder(made: &File, path: &Path) {
    let Some(folder) = path.parent().and_then(|folder| fs::metadata(folder).ok()) else {
        return;
    };
    if rustix::process::geteuid().is_root() && folder.uid() != 0 {
        // By its descriptor: what its name leads to may be another file by now.
        let given = fchown(made, Some(folder.uid()), Some(folder.gid()));
        if let Err(error) = given {
            let (file, owner) = (path.display(), folder.uid());
            tracing::warn!(%file, %error, "this file belongs to root, and its folder to user {owner}; chown it");
        }
    }
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
    // No more than its owner may do already.
    let own = meta.permissions().mode() & PRIVATE;
    match fs::set_permissions(path, Permissions::from_mode(own)) {
        Ok(()) => tracing::warn!(%file, "others could read this file; now only its owner can"),
        Err(error) => {
            tracing::warn!(%file, %error, "others can read this file; run chmod 600 on it as its owner");
        }
    }
}

/// What is there in place of a file, for messages; `None` for a file.
pub fn what_is_no_file(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("a folder"),
        () if kind.is_fifo() => Some("a pipe"),
        () if kind.is_socket() => Some("a socket"),
        () => Some("a device"),
    }
}

/// Why this process may not write a file or into a folder, or look at it, and what to do.
#[derive(Debug)]
pub struct Obstacle {
    path: PathBuf,
    cause: io::Error,
    wanted: Access,
    owner: u32,
    mode: u32,
    is_folder: bool,
}

impl Obstacle {
    /// What keeps this process from writing `path`, if it is there.
    pub fn to_writing(path: &Path) -> Option<Self> {
        Self::to(Access::READ_OK | Access::WRITE_OK, path)
    }

    /// What keeps this process from looking at `path`, if it is there: itself, or a folder above it.
    pub fn to_looking(path: &Path) -> Option<Self> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Self::to(Access::READ_OK | Access::EXEC_OK, path),
            Ok(_) => Self::to(Access::READ_OK, path),
            Err(_) => path
                .ancestors()
                .skip(1)
                .find_map(|folder| Self::to(Access::EXEC_OK, folder)),
        }
    }

    fn to(wanted: Access, path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let denied = accessat(CWD, path, wanted, AtFlags::EACCESS).err()?;
        Some(Self {
            path: path.to_owned(),
            cause: denied.into(),
            wanted,
            owner: metadata.uid(),
            mode: metadata.mode() & 0o7777,
            is_folder: metadata.is_dir(),
        })
    }

    /// For chmod.
    fn letters(&self) -> String {
        let letters = [
            (Access::READ_OK, 'r'),
            (Access::WRITE_OK, 'w'),
            (Access::EXEC_OK, 'x'),
        ];
        let wanted = letters
            .iter()
            .filter(|(access, _)| self.wanted.contains(*access));
        wanted.map(|(_, letter)| *letter).collect()
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, me) = (self.path.display(), rustix::process::geteuid().as_raw());
        let (owner, mode) = (user(self.owner), self.mode);
        write!(f, "{path}: {}; ", self.cause)?;
        if self.cause.kind() == io::ErrorKind::ReadOnlyFilesystem {
            return write!(f, "mount its file system so that it can be written");
        }
        if self.wanted.contains(Access::EXEC_OK) && !self.is_folder {
            return write!(f, "it is a file, and a folder is needed");
        }
        if self.owner == me {
            let letters = self.letters();
            return write!(f, "it has mode {mode:04o}; run chmod u+{letters} {path}");
        }
        write!(
            f,
            "it belongs to {owner}, with mode {mode:04o}, and this process runs as {}; ",
            user(me)
        )?;
        if !self.wanted.contains(Access::WRITE_OK) {
            return write!(f, "run it as {owner}, or as root");
        }
        // A folder may be any that exists above the one to be made, such as the root.
        match self.is_folder {
            true => write!(
                f,
                "run it as {owner}, or give this user a folder of its own, as by install -d -m 700 -o {me} FOLDER"
            ),
            false => write!(f, "run it as {owner}, or run chown {me} {path}"),
        }
    }
}

/// `user NAME (ID)`, or `user ID` if it has no name here.
fn user(id: u32) -> String {
    let users = fs::read_to_string(USERS).unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)?.parse() == Ok(id)).then_some(name)
    });
    match name {
        Some(name) => format!("user {name} ({id})"),
        None => format!("user {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_behind_a_link_is_private_from_the_beginning() {
        let folder = tempfile::tempdir().expect("a folder");
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        make_private(&link);
        let mode = fs::metadata(&target).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE);
    }

    #[test]
    fn obstacles_are_told_with_advice_that_fits() {
        let obstacle = |wanted, owner, is_folder| Obstacle {
            path: "/data/x".into(),
            cause: io::ErrorKind::PermissionDenied.into(),
            wanted,
            owner,
            mode: 0o600,
            is_folder,
        };
        let me = rustix::process::geteuid().as_raw();
        let write = Access::READ_OK | Access::WRITE_OK;
        for (obstacle, advice) in [
            (
                obstacle(write, me, false),
                "run chmod u+rw /data/x".to_owned(),
            ),
            (
                obstacle(write, 4_000_001, false),
                format!("or run chown {me} /data/x"),
            ),
            (
                obstacle(write, 4_000_001, true),
                format!("install -d -m 700 -o {me} FOLDER"),
            ),
            (
                obstacle(Access::READ_OK, 4_000_001, false),
                "run it as user 4000001, or as root".into(),
            ),
            (
                obstacle(Access::EXEC_OK, me, true),
                "run chmod u+x /data/x".into(),
            ),
            (
                obstacle(Access::EXEC_OK, me, false),
                "it is a file, and a folder is needed".into(),
            ),
        ] {
            let text = obstacle.to_string();
            assert!(text.ends_with(&advice), "{text}: {advice}");
        }
    }

    #[test]
    fn narrowing_never_lets_anybody_do_more() {
        let folder = tempfile::tempdir().unwrap();
        for (before, after) in [
            (0o644, 0o600),
            (0o444, 0o400),
            (0o600, 0o600),
            (0o400, 0o400),
        ] {
            let file = folder.path().join(format!("{before:o}"));
            fs::write(&file, "x").unwrap();
            fs::set_permissions(&file, Permissions::from_mode(before)).unwrap();
            narrow(&file);
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, after);
        }
    }

    #[test]
    fn users_are_named_where_they_have_names() {
        assert_eq!(user(0), "user root (0)");
        assert_eq!(user(4_000_000_001), "user 4000000001");
    }
}
