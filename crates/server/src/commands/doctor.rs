//! `auspex doctor`: looks at a data folder without changing anything, and says what to do.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use auspex_kernel::db::{Inspection, sqlite_file};

use super::{Failure, Outcome, control_runtime, open_db, print};
use crate::config::Config;
use crate::services;

/// Less than this, and a busy day may fill the disk.
const FREE_BYTES_MIN: u64 = 256 << 20;
const SHOWN_MAX: usize = 20;

pub(super) fn run(config: &Config) -> Outcome {
    let mut findings = Findings::default();
    let folder = &config.server.data_dir;
    let file = sqlite_file(&config.storage_url());
    look_at_folder(folder, file.as_deref(), &mut findings);
    control_runtime()?.block_on(async {
        match file {
            Some(file) => look_at_database(&file, &mut findings).await,
            None => match open_db(config).await {
                Ok(db) => {
                    findings.good("PostgreSQL answers");
                    db.close().await;
                }
                Err(error) => findings.bad(error, "start PostgreSQL there, or set storage.url"),
            },
        }
    });
    print(&findings.text)?;
    match findings.problems {
        0 => Ok(ExitCode::SUCCESS),
        1 => Err(Failure::from("1 problem was found")),
        count => Err(Failure::from(format!("{count} problems were found"))),
    }
}

/// What was found so far.
#[derive(Default)]
struct Findings {
    text: String,
    problems: usize,
}

impl Findings {
    fn good(&mut self, what: impl std::fmt::Display) {
        self.text.push_str(&format!("ok       {what}\n"));
    }

    fn bad(&mut self, what: impl std::fmt::Display, remedy: impl std::fmt::Display) {
        self.problems += 1;
        self.text
            .push_str(&format!("PROBLEM  {what}\n         {remedy}\n"));
    }

    /// One problem of several parts.
    fn all_bad(&mut self, what: &str, parts: &[String], remedy: &str) {
        let shown = parts[..parts.len().min(SHOWN_MAX)].join("; ");
        let more = match parts.len().saturating_sub(SHOWN_MAX) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        self.bad(format!("{what}: {shown}{more}"), remedy);
    }
}

fn look_at_folder(folder: &Path, database: Option<&Path>, findings: &mut Findings) {
    let shown = folder.display();
    let metadata = match std::fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            let remedy = "name another with --data-dir";
            return findings.bad(format!("{shown} is no folder"), remedy);
        }
        Err(error) => {
            let remedy = "name the folder of the server with --data-dir; the first start makes it";
            return findings.bad(format!("the data folder {shown}: {error}"), remedy);
        }
    };
    let problems = findings.problems;
    let (user, owner) = (rustix::process::geteuid().as_raw(), metadata.uid());
    if user != 0 && owner != user {
        let remedy = format!("run this as its owner, or: chown -R {user} {shown}");
        findings.bad(format!("{shown} belongs to user {owner}"), remedy);
    }
    if metadata.mode() & 0o022 != 0 {
        let what = format!("others than its owner may change what is in {shown}");
        findings.bad(what, format!("chmod go-w {shown}"));
    }
    let beside = |ending| database.map(|file| format!("{}{ending}", file.display()).into());
    let key = Some(folder.join("admin.key"));
    let secrets = [key, beside(""), beside("-wal"), beside("-shm")];
    for file in secrets.into_iter().flatten() {
        look_at_secret(&file, owner, findings);
    }
    if findings.problems == problems {
        findings.good(format!("the files in {shown} are for their owner alone"));
    }
    look_at_space(folder, findings);
    // Opened to be read, nothing is made.
    let is_running = File::open(folder.join("serve.lock"))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)));
    findings.good(match is_running {
        true => "a server is running on this folder",
        false => "no server is running on this folder",
    });
}

fn look_at_secret(file: &Path, owner: u32, findings: &mut Findings) {
    let Ok(metadata) = std::fs::metadata(file) else {
        return;
    };
    let shown = file.display();
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

async fn look_at_database(file: &Path, findings: &mut Findings) {
    let shown = file.display();
    let log = PathBuf::from(format!("{shown}-wal"));
    let log_bytes = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
    if !file.exists() {
        match log_bytes {
            0 => findings.good(format!(
                "{shown} is not there yet; the first start makes it"
            )),
            _ => findings.bad(
                format!("{shown} is not there, but its log is"),
                "put the database back beside its log, or restore a backup",
            ),
        }
        return;
    }
    if log_bytes > 0 {
        let text = format!(
            "{} holds {log_bytes} bytes that belong to the database",
            log.display()
        );
        findings.good(format!("{text}; keep it, the next start needs it"));
    }
    if let Err(error) = look_inside(file, findings).await {
        let remedy =
            "stop the server, and restore a backup; keep a copy of the damaged file and its log";
        findings.bad(format!("{shown} cannot be read: {error}"), remedy);
    }
}

async fn look_inside(
    file: &Path,
    findings: &mut Findings,
) -> Result<(), auspex_kernel::db::DbError> {
    let shown = file.display();
    let inspection = Inspection::open(file).await?;
    let damage = inspection.damage().await?;
    if !damage.is_empty() {
        let remedy = "stop the server, and restore a backup; what is still readable can be saved with \
                      `sqlite3 FILE .recover`";
        findings.all_bad(&format!("{shown} is damaged"), &damage, remedy);
        inspection.close().await;
        return Ok(());
    }
    findings.good(format!("{shown} is sound"));
    let unknown = inspection
        .unknown_migrations(&services::known_migrations())
        .await?;
    if unknown.is_empty() {
        findings.good("its tables are of a version that this program knows");
    } else {
        let remedy = "run the newer version of auspex that brought them up to date";
        findings.all_bad("its tables are of a newer version", &unknown, remedy);
    }
    let unreadable = inspection.unreadable_rows().await?;
    if unreadable.is_empty() {
        findings.good("all its texts can be read");
    } else {
        let remedy = "the server leaves these rows out; restore a backup, or stop the server and delete them";
        findings.all_bad("texts are not UTF-8", &unreadable, remedy);
    }
    inspection.close().await;
    Ok(())
}
