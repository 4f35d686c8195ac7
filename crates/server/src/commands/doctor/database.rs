//! The database: a SQLite file, which is read to its end, or PostgreSQL.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use auspex_kernel::db::{Db, DbError, Fault, Inspection, KnownMigrations, compare, missing_rights};
use auspex_kernel::files::Obstacle;

use super::super::{control_runtime, open_db};
use super::Findings;
use crate::config::Config;
use crate::services;

pub(super) fn look_at_file(file: &Path, known: &[KnownMigrations], findings: &mut Findings) {
    let shown = file.display();
    let log = PathBuf::from(format!("{shown}-wal"));
    let index = PathBuf::from(format!("{shown}-shm"));
    let (there, log_there) = (fs::metadata(file), fs::metadata(&log));
    for (path, found) in [(file, &there), (&log, &log_there)] {
        match found {
            // Told already.
            Ok(metadata) if !metadata.is_file() => return,
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return findings.unknown(path, error);
            }
            _ => {}
        }
    }
    let log_bytes = log_there.map_or(0, |metadata| metadata.len());
    if there.is_err() {
        return match log_bytes {
            0 => findings.good(format!(
                "{shown} is not there yet; the first start makes it"
            )),
            _ => findings.bad(
                format!("{shown} is not there, but its log is"),
                "put the database back beside its log, or restore a backup",
            ),
        };
    }
    for path in [file, &log, &index] {
        if let Some(obstacle) = Obstacle::to_looking(path) {
            let what = format!("{} cannot be looked at", path.display());
            return findings.bad(what, obstacle);
        }
    }
    if log_bytes > 0 {
        let text = format!(
            "{} holds {log_bytes} bytes that belong to the database",
            log.display()
        );
        findings.good(format!("{text}; keep it, the next start needs it"));
    }
    let looked = match control_runtime() {
        Ok(runtime) => runtime.block_on(look_inside(file, known, findings)),
        Err(error) => return findings.unknown(file, &error),
    };
    match looked {
        Ok(()) => {}
        Err(error) if error.fault() == Some(Fault::Damaged) => {
            let remedy = "keep a copy of the damaged file and its log";
            findings.bad(format!("{shown} cannot be read: {error}"), remedy);
        }
        Err(error) => {
            let remedy =
                "run this as the user of the server, or as root; nothing is known to be damaged";
            findings.bad(format!("{shown} cannot be looked at: {error}"), remedy);
        }
    }
}

async fn look_inside(
    file: &Path,
    known: &[KnownMigrations],
    findings: &mut Findings,
) -> Result<(), DbError> {
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
    let unknown = inspection.unknown_migrations(known).await?;
    look_at_version(&unknown, findings);
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

fn look_at_version(unknown: &[String], findings: &mut Findings) {
    if unknown.is_empty() {
        findings.good("its tables are of a version that this program knows");
    } else {
        let remedy = "run the newer version of auspex that brought them up to date";
        findings.all_bad("its tables are of a newer version", unknown, remedy);
    }
}

pub(super) fn look_at_postgres(config: &Config, findings: &mut Findings) {
    let looked = match control_runtime() {
        Ok(runtime) => runtime.block_on(async {
            let db = open_db(config).await?;
            let looked = look_at_rights(&db, findings).await;
            db.close().await;
            looked
        }),
        Err(error) => return findings.unknown(Path::new("PostgreSQL"), &error),
    };
    if let Err(error) = looked {
        findings.bad(error, "start PostgreSQL there, or set storage.url");
    }
}

async fn look_at_rights(db: &Db, findings: &mut Findings) -> Result<(), DbError> {
    findings.good(format!("{} answers", db.name()));
    if !db.takes_changes().await? {
        let remedy = "name the primary in storage.url, or see default_transaction_read_only there";
        findings.bad("it takes no changes", remedy);
    }
    let known = services::known_migrations();
    let missing = missing_rights(db, &known).await?;
    for right in &missing {
        let remedy = format!("let the owner of the database run: {}", right.grant);
        findings.bad(&right.what, remedy);
    }
    if missing.is_empty() {
        findings.good("its role may do what the server has to");
        look_at_version(&compare(db, &known).await?.unknown, findings);
    }
    Ok(())
}
