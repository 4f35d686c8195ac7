//! The database: a SQLite file, which is read to its end, or PostgreSQL.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use auspex_kernel::apart;
use auspex_kernel::db::{
    Connection, Db, DbError, Fault, Inspection, compare, missing_rights, sqlite_file,
};
use auspex_kernel::files::Obstacle;

use super::super::control_runtime;
use super::super::databases::{self, missed, moved_back, what_is_missing};
use super::{Findings, Looked, listed};
use crate::config::Config;

pub(super) fn look_at_file(
    config: &Config,
    file: &Path,
    database: &Looked,
    findings: &mut Findings,
) {
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
    if let Some(found) = what_is_missing(file) {
        // Of any other the database of all services tells whether it is missed.
        if database.is_main {
            look_for_traces(config, &found, findings);
        }
        return;
    }
    if there.is_err() {
        return findings.bad(
            format!("{shown} is not there, but its log is"),
            "put the database back beside its log, or restore a backup with `auspex restore`",
        );
    }
    for path in [file, &log, &index] {
        if let Some(obstacle) = Obstacle::to_looking(path) {
            let what = format!("{} cannot be looked at", path.display());
            return findings.bad(what, obstacle);
        }
    }
    if log_bytes > 0 {
        let text = format!(
            "{} holds {log_bytes} bytes. If a server or a crash left them there, they belong to the database and the next \
             start needs them; if the database was copied there since, move them away before",
            log.display()
        );
        findings.good(text);
    }
    let looked = match control_runtime() {
        Ok(runtime) => runtime.block_on(look_inside(file, database, findings)),
        Err(error) => return findings.unknown(file, &error),
    };
    match looked {
        Ok(()) => {}
        Err(DbError::ForeignLog { log, .. }) => {
            let what = format!("{} is the log of another file than {shown}", log.display());
            let remedy = "a copy was put in the place of a database that had not been closed: move the log away, or put \
                          the copy there with `auspex restore`";
            findings.bad(what, remedy);
        }
        Err(error) if error.fault() == Some(Fault::Damaged) => {
            let remedy = "stop the server, keep a copy of the damaged file and its log, and restore a backup with \
                          `auspex restore`";
            let what = format!("{shown} cannot be read: {}", error.finding());
            findings.bad(what, remedy);
        }
        Err(error) => {
            let remedy =
                "run this as the user of the server, or as root; nothing is known to be damaged";
            let what = format!("{shown} cannot be looked at: {}", error.finding());
            findings.bad(what, remedy);
        }
    }
}

/// A first start makes a database; a later one would hide that one is lost.
fn look_for_traces(config: &Config, found: &str, findings: &mut Findings) {
    let traces = databases::traces(config);
    if traces.is_empty() {
        return findings.good(format!("{found} yet; the first start makes it"));
    }
    let listed = databases::listed(&traces);
    findings.bad(
        format!("{found}, but there was one: {listed} would not be here otherwise"),
        "restore a backup with `auspex restore`, or begin with a new one by `auspex serve --create`",
    );
}

async fn look_inside(
    file: &Path,
    database: &Looked,
    findings: &mut Findings,
) -> Result<(), DbError> {
    let shown = file.display();
    let inspection = Inspection::open(file).await?;
    let damage = inspection.damage().await?;
    if !damage.is_empty() {
        let remedy = "stop the server, and restore a backup with `auspex restore`; what is still readable can be saved \
                      with `sqlite3 FILE .recover`";
        findings.all_bad(&format!("{shown} is damaged"), &damage, remedy);
        inspection.close().await;
        return Ok(());
    }
    findings.good(format!("{shown} is sound"));
    let unknown = inspection.unknown_migrations(&database.known).await?;
    look_at_version(&unknown, findings);
    let name = shown.to_string();
    look_for_missed(inspection.connection(), &name, database, findings).await?;
    let unreadable = inspection.unreadable_rows().await?;
    if unreadable.is_empty() {
        findings.good("all its texts are UTF-8");
    } else {
        let remedy = "the server leaves these rows out; restore a backup, or stop the server and delete them";
        findings.all_bad("texts are not UTF-8", &unreadable, remedy);
    }
    inspection.close().await;
    Ok(())
}

/// Databases that are not there, and without which what stands in this one, called `name`, is of no use.
async fn look_for_missed(
    connection: &Connection,
    name: &str,
    database: &Looked,
    findings: &mut Findings,
) -> Result<(), DbError> {
    for service in &database.of_services {
        if apart::is_noted(connection, service).await? {
            findings.problem(moved_back(service, name));
        }
    }
    for other in &database.others {
        let own = &other.database;
        let is_left = match other.tables_of {
            Some(_) => (own.is_missed)(connection).await?,
            None => false,
        };
        let file = own.url.as_deref().and_then(sqlite_file);
        let Some(found) = file.as_deref().and_then(what_is_missing) else {
            if let (Some(service), true) = (other.tables_of, is_left) {
                findings.bad(
                    format!("{name} holds {service} that nothing reaches, for they have a database of their own"),
                    "move or delete them as docs/OPERATIONS.md says",
                );
            }
            continue;
        };
        let was_there = match other.tables_of {
            Some(service) => apart::is_noted(connection, service).await?,
            None => false,
        };
        if was_there || (own.is_missed)(connection).await? {
            findings.problem(missed(&found, other, name, was_there));
        } else {
            findings.good(format!("{found} yet; the first start makes it"));
        }
    }
    Ok(())
}

fn look_at_version(unknown: &[String], findings: &mut Findings) {
    if unknown.is_empty() {
        findings.good("its tables are of a version that this program knows");
    } else {
        let newer = listed(unknown);
        findings.good(format!(
            "a newer version of auspex has brought its tables further, and this one serves with them: {newer}"
        ));
    }
}

pub(super) fn look_at_postgres(config: &Config, database: &Looked, findings: &mut Findings) {
    let looked = match control_runtime() {
        Ok(runtime) => runtime.block_on(async {
            let db = databases::connect(config, &database.url).await?;
            let looked = look_at_rights(config, &db, database, findings).await;
            db.close().await;
            looked
        }),
        Err(error) => return findings.unknown(Path::new("PostgreSQL"), &error),
    };
    if let Err(error) = looked {
        let remedy = format!("start PostgreSQL there, or set {}", database.setting);
        findings.bad(error.finding(), remedy);
    }
}

async fn look_at_rights(
    config: &Config,
    db: &Db,
    database: &Looked,
    findings: &mut Findings,
) -> Result<(), DbError> {
    findings.good(format!("{} answers", db.name()));
    if !db.takes_changes().await? {
        let remedy = format!(
            "name the primary in {}, or see default_transaction_read_only there",
            database.setting
        );
        findings.bad("it takes no changes", remedy);
    }
    let missing = missing_rights(db, &database.known).await?;
    for right in &missing {
        let remedy = format!("let the owner of the database run: {}", right.grant);
        findings.bad(&right.what, remedy);
    }
    if missing.is_empty() {
        findings.good("its role may do what the server has to");
        look_at_version(&compare(db, &database.known).await?.unknown, findings);
        if database.is_main && !auspex_kernel::is_migrated(db).await? {
            let found = format!("{} holds no tables", db.name());
            look_for_traces(config, &found, findings);
        }
    }
    let name = &db.name();
    db.read(async |connection| look_for_missed(connection, name, database, findings).await)
        .await
}
