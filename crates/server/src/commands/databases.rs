//! The databases that the settings name: opened, made where that is meant, and brought up to date.

use std::path::{Path, PathBuf};

use auspex_kernel::db::{
    Db, DbError, KnownMigrations, compare, has_run, log_of, missing_rights, sqlite_file,
};
use auspex_kernel::service::OwnDatabase;

use super::Failure;
use crate::config::{self, Config};
use crate::services;

/// What becomes of a database that is not there, or that holds no tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfMissing {
    /// It is not made: a command on the wrong folder would seem to succeed.
    Fail,
    /// It is made, unless there are traces of one: a server that begins anew would look as if it had lost everything, and hide
    /// that it did.
    MakeTheFirst,
    /// It is made.
    Make,
}

/// Opens the database of all services.
pub(super) async fn open(config: &Config, if_missing: IfMissing) -> Result<Db, Failure> {
    let file = sqlite_file(&config.storage_url());
    if let Some(found) = file.as_deref().and_then(what_is_missing) {
        check_may_be_made(config, if_missing, &found)?;
    }
    let db = connect(config, &config.storage_url()).await?;
    if !auspex_kernel::is_migrated(&db).await? {
        // Tables that its role may not use look as if they were not there.
        let missing = missing_rights(&db, &services::known_migrations()).await?;
        if let Some(missing) = missing.first() {
            return Err(format!("{}: {missing}", db.name()).into());
        }
        let found = format!("{} holds no tables", db.name());
        check_may_be_made(config, if_missing, &found)?;
    }
    Ok(db)
}

pub(super) async fn connect(config: &Config, url: &str) -> Result<Db, DbError> {
    Db::open_with(url, config::ms(config.storage.call_timeout_ms)).await
}

/// Brings the tables of all databases up to date. Which they are.
pub(super) async fn bring_up_to_date(
    config: &Config,
    db: &Db,
    if_missing: IfMissing,
) -> Result<Vec<String>, Failure> {
    services::migrate(db).await?;
    let mut names = vec![db.name()];
    for own in services::own_databases(config) {
        let other = open_own(config, db, &own, if_missing).await?;
        own.migrations.run(other.as_ref().unwrap_or(db)).await?;
        if let Some(other) = other {
            names.push(other.name());
            other.close().await;
        }
    }
    Ok(names)
}

/// Opens a database of a service's own; `None` if its tables are in that of all.
async fn open_own(
    config: &Config,
    db: &Db,
    own: &OwnDatabase,
    if_missing: IfMissing,
) -> Result<Option<Db>, Failure> {
    let file = own.url.as_deref().and_then(sqlite_file);
    let may_be_made = if_missing == IfMissing::Make || !db.read(own.is_missed).await?;
    match file.as_deref().and_then(what_is_missing) {
        Some(found) if !may_be_made => return Err(begun_anew(&found, own, db)),
        _ => {}
    }
    let other = match &own.url {
        Some(url) => Some(connect(config, url).await?),
        None => None,
    };
    let opened = other.as_ref().unwrap_or(db);
    if !may_be_made && !has_run(opened, &own.migrations.known).await? {
        let found = format!("{} holds no tables for it", opened.name());
        return Err(begun_anew(&found, own, db));
    }
    Ok(other)
}

fn begun_anew(found: &str, own: &OwnDatabase, db: &Db) -> Failure {
    Failure::from(format!(
        "{found}, but {} holds what is of no use without {}; restore a backup of it with `auspex restore`. To go on \
         without, run `auspex migrate --create`",
        db.name(),
        own.holds
    ))
}

/// Checks that no database is behind this program, for a server that brings none up to date.
pub(super) async fn check_up_to_date(config: &Config, db: &Db) -> Result<(), Failure> {
    let mut of_main = services::known_migrations();
    for own in services::own_databases(config) {
        let Some(url) = own.url else {
            of_main.push(own.migrations.known);
            continue;
        };
        if let Some(found) = sqlite_file(&url).as_deref().and_then(what_is_missing) {
            return Err(behind(&found));
        }
        let other = connect(config, &url).await?;
        let checked = check_one(&other, &[own.migrations.known]).await;
        other.close().await;
        checked?;
    }
    check_one(db, &of_main).await
}

async fn check_one(db: &Db, known: &[KnownMigrations]) -> Result<(), Failure> {
    let found = compare(db, known).await?;
    found.tell_of_newer(&db.name());
    if found.pending.is_empty() {
        return Ok(());
    }
    // Tables that its role may not use look as if they were not there.
    match missing_rights(db, known)
        .await?
        .into_iter()
        .find(|right| !right.is_to_create)
    {
        Some(missing) => Err(format!("{}: {missing}", db.name()).into()),
        None => Err(behind(&format!("{}: tables are not up to date", db.name()))),
    }
}

fn behind(found: &str) -> Failure {
    format!("{found}; run `auspex migrate`, or start without --no-migrate").into()
}

/// That a SQLite file is not there or holds nothing. A log beside it is told by whoever opens it.
pub(super) fn what_is_missing(file: &Path) -> Option<String> {
    if log_of(file).exists() {
        return None;
    }
    match file.metadata() {
        Ok(found) if found.is_file() && found.len() == 0 => {
            Some(format!("{} is empty", file.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(format!("{} does not exist", file.display()))
        }
        _ => None,
    }
}

/// What shows that there was a database of all services.
pub(super) fn traces(config: &Config) -> Vec<PathBuf> {
    let main = sqlite_file(&config.storage_url());
    let own = services::own_databases(config).into_iter();
    let files = own.filter_map(|own| sqlite_file(own.url.as_deref()?));
    let files = files.filter(|file| Some(file) != main.as_ref());
    let keys = ["admin.key", "dialogues.key"].map(|name| config.server.data_dir.join(name));
    let is_trace = |file: &PathBuf| file.metadata().is_ok_and(|it| it.is_file() && it.len() > 0);
    files.chain(keys).filter(is_trace).collect()
}

/// In one line.
pub(super) fn listed(files: &[PathBuf]) -> String {
    let files: Vec<_> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    files.join(", ")
}

fn check_may_be_made(config: &Config, if_missing: IfMissing, found: &str) -> Result<(), Failure> {
    match if_missing {
        IfMissing::Make => Ok(()),
        IfMissing::Fail => Err(no_database(found)),
        IfMissing::MakeTheFirst => match traces(config).as_slice() {
            [] => Ok(()),
            traces => Err(Failure::from(format!(
                "the database {found}, but there was one: {} would not be here otherwise. Restore a backup with \
                 `auspex restore`, or name the database with storage.url; to begin with a new one, add --create",
                listed(traces)
            ))),
        },
    }
}

fn no_database(found: &str) -> Failure {
    Failure::from(format!(
        "the database {found}; name the server's data folder with --data-dir, or its database with \
         storage.url. To make a new one, start the server or run `auspex migrate` first, or add \
         --create"
    ))
}
