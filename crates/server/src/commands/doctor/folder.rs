//! The data folder: who may use what is in it, the free space, whether a server is running.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use auspex_kernel::files::{Obstacle, what_is_no_file};
use rustix::fs::StatVfsMountFlags;

use super::Findings;

/// Less than this, and a busy day may fill the disk.
const FREE_BYTES_MIN: u64 = 256 << 20;

pub(super) fn look(folder: &Path, databases: &[PathBuf], findings: &mut Findings) {
    let shown = folder.display();
    let metadata = match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            let remedy = "name another with --data-dir";
            return findings.bad(format!("{shown} is no folder"), remedy);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let remedy = "name the folder of the server with --data-dir; the first start makes it";
            return findings.bad(format!("the data folder {shown}: {error}"), remedy);
        }
        Err(error) => return findings.unknown(folder, &error),
    };
    if let Some(obstacle) = Obstacle::to_looking(folder) {
        let what = format!("what is in {shown} cannot be looked at");
        return findings.bad(what, obstacle);
    }
    look_at_owners(folder, &metadata, databases, findings);
    look_at_space(folder, findings);
    look_at_lock(folder, findings);
}

fn look_at_owners(
    folder: &Path,
    metadata: &Metadata,
    databases: &[PathBuf],
    findings: &mut Findings,
) {
    let (shown, problems) = (folder.display(), findings.problems);
    let (user, owner) = (rustix::process::geteuid().as_raw(), metadata.uid());
    if user != 0 && owner != user {
        let remedy = format!("run this as its owner, or: chown -R {user} {shown}");
        findings.bad(format!("{shown} belongs to user {owner}"), remedy);
    }
    if metadata.mode() & 0o022 != 0 {
        let what = format!("others than its owner may change what is in {shown}");
        findings.bad(what, format!("chmod go-w {shown}"));
    }
    let in_folder = ["admin.key", "serve.lock"].map(|name| folder.join(name));
    let of_databases = databases.iter().flat_map(|file| {
        let shown = file.display();
        ["", "-wal", "-shm"].map(|ending| PathBuf::from(format!("{shown}{ending}")))
    });
    for file in in_folder.into_iter().chain(of_databases) {
        look_at_secret(&file, owner, findings);
    }
    if findings.problems == problems {
        findings.good(format!("the files in {shown} are for their owner alone"));
    }
}

/// The file of the master key, which may be elsewhere and belong to a group. What it holds is looked at apart.
pub(super) fn look_at_master_key(file: &Path, folder: &Path, findings: &mut Findings) {
    let (Ok(metadata), Ok(in_folder)) = (fs::metadata(file), fs::metadata(folder)) else {
        return;
    };
    let shown = file.display();
    let (owner, service) = (metadata.uid(), in_folder.uid());
    let for_group_or_others = metadata.mode() & 0o044 != 0;
    if owner != service && service != 0 && !for_group_or_others {
        let what = format!(
            "the master key {shown} belongs to user {owner} alone, and the data folder to user {service}, who cannot read it"
        );
        findings.bad(what, format!("chown {service} {shown}"));
    } else {
        look_at_secret(file, owner, findings);
    }
}

fn look_at_secret(file: &Path, owner: u32, findings: &mut Findings) {
    let metadata = match fs::metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        Err(error) => return findings.unknown(file, &error),
    };
    let shown = file.display();
    if let Some(found) = what_is_no_file(&metadata) {
        let remedy =
            "move it away; --data-dir names the folder, and storage.url the file of the database";
        return findings.bad(format!("{shown} is {found}, not a file"), remedy);
    }
    if metadata.mode() & 0o077 != 0 {
        let what = format!("others than its owner may use {shown}");
        findings.bad(what, format!("chmod 600 {shown}"));
    }
    if metadata.uid() != owner {
        let what = format!("{shown} belongs to another user than the data folder");
        findings.bad(what, format!("chown {owner} {shown}"));
    }
}

fn look_at_space(folder: &Path, findings: &mut Findings) {
    let shown = folder.display();
    match rustix::fs::statvfs(folder) {
        Ok(space) if space.f_flag.contains(StatVfsMountFlags::RDONLY) => {
            let what = format!("{shown} is on a file system that is mounted read-only");
            findings.bad(
                what,
                "mount it so that it can be written; no server starts there",
            );
        }
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let text = format!("{} MB are free in {shown}", free >> 20);
            match free < FREE_BYTES_MIN {
                true => findings.bad(text, "free some: on a full disk nothing can be changed"),
                false => findings.good(text),
            }
        }
        Err(error) => {
            let what = format!("the free space in {shown} is not known: {error}");
            findings.bad(what, "check the file system");
        }
    }
}

fn look_at_lock(folder: &Path, findings: &mut Findings) {
    let path = folder.join("serve.lock");
    match fs::metadata(&path) {
        // Told already, and opening it might never end.
        Ok(metadata) if !metadata.is_file() => return,
        _ => {}
    }
    // Opened to be read, nothing is made.
    let locked = File::open(&path).map(|file| file.try_lock_shared());
    match locked {
        Ok(Err(TryLockError::WouldBlock)) => {
            findings.good("a server is running on this folder");
        }
        Ok(Ok(())) => findings.good("no server is running on this folder"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            findings.good("no server is running on this folder");
        }
        Ok(Err(TryLockError::Error(error))) | Err(error) => findings.unknown(&path, &error),
    }
}
