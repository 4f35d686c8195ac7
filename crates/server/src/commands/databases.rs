//! The databases that the settings name: opened, made where that is meant, and brought up to date.

use std::path::{Path, PathBuf};

use std::time::Duration;

use auspex_kernel::apart;
use auspex_kernel::db::{
    Db, DbError, KnownMigrations, StandbyFound, compare, has_run, log_of, missing_rights,
    sqlite_file,
};
use auspex_kernel::{Clock, Random};
use tokio::time::Instant;

use super::Failure;
use crate::config::Config;
use crate::services::{self, DatabaseApart, OfServices};

/// How long a new standby may take to have what its primary has.
const STANDBY_LAG_MAX: Duration = Duration::from_secs(5);
const STANDBY_PAUSE: Duration = Duration::from_millis(200);

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
        let missing = missing_rights(&db, &services::known_migrations(config)).await?;
        if let Some(missing) = missing.first() {
            return Err(format!("{}: {missing}", db.name()).into());
        }
        let found = format!("{} holds no tables", db.name());
        check_may_be_made(config, if_missing, &found)?;
    }
    Ok(db)
}

pub(super) async fn connect(config: &Config, url: &str) -> Result<Db, DbError> {
    Db::open_with(url, config.database_limits()).await
}

/// Brings the tables of all databases up to date. Which they are.
pub(super) async fn bring_up_to_date(
    config: &Config,
    db: &Db,
    if_missing: IfMissing,
) -> Result<Vec<String>, Failure> {
    auspex_kernel::migrate(db).await?;
    for service in services::in_main(config) {
        if !is_noted(db, service).await? {
            continue;
        }
        if if_missing != IfMissing::Make {
            return Err(moved_back(service, &db.name()).into());
        }
        apart::forget(db, service).await?;
    }
    services::migrate(config, db).await?;
    let mut names = vec![db.name()];
    for apart in services::databases_apart(config) {
        let beside = match &apart.beside {
            None => None,
            Some(url) => Some(connect(config, url).await?),
        };
        let opened = async {
            let beside = beside.as_ref().unwrap_or(db);
            let other = open_apart(config, beside, &apart, if_missing).await?;
            let own = other.as_ref().unwrap_or(db);
            for migrations in &apart.database.migrations {
                migrations.run(own).await?;
            }
            if if_missing == IfMissing::Make {
                let texts = if apart.tables_of.is_some() {
                    own
                } else {
                    beside
                };
                (apart.database.release)(texts, own).await?;
            }
            Ok::<_, Failure>(other)
        };
        let other = opened.await;
        if let Some(beside) = beside {
            beside.close().await;
        }
        let other = other?;
        if let Some(other) = other {
            if let Some(service) = apart.tables_of {
                let takes_over = if_missing == IfMissing::Make;
                let drawing = (&Clock::system(), &Random::system());
                if !apart::hand_over(db, &other, service, drawing, takes_over).await? {
                    return Err(of_others(&apart, &other.name(), &db.name()));
                }
            }
            names.push(other.name());
            other.close().await;
        }
    }
    Ok(names)
}

fn of_others(apart: &DatabaseApart, own: &str, main: &str) -> Failure {
    Failure::from(format!(
        "{own} belongs to another database than {main}: users and keys of both would see what it holds; name another in {}. \
         If {main} was begun anew, take it over by `auspex migrate --create`",
        apart.setting
    ))
}

/// Notes which services have a database for themselves, once that is known to be good.
pub(super) async fn note_apart(config: &Config, db: &Db) -> Result<(), DbError> {
    for service in tables_apart(config).filter_map(|apart| apart.tables_of) {
        apart::note(db, service, Clock::system().now()).await?;
    }
    Ok(())
}

/// What services that have a database for themselves have left behind in that of all.
pub(super) async fn left_behind(config: &Config, db: &Db) -> Result<Vec<&'static str>, DbError> {
    let mut services = Vec::new();
    for apart in tables_apart(config) {
        if db.read(apart.database.is_missed).await? {
            services.extend(apart.tables_of);
        }
    }
    Ok(services)
}

/// The databases that services have for all of their tables.
fn tables_apart(config: &Config) -> impl Iterator<Item = DatabaseApart> {
    let apart = services::databases_apart(config).into_iter();
    apart.filter(|apart| apart.tables_of.is_some())
}

/// Opens a database of a service's own; `None` if its tables are in that of all. `beside` tells whether it is missed.
async fn open_apart(
    config: &Config,
    beside: &Db,
    apart: &DatabaseApart,
    if_missing: IfMissing,
) -> Result<Option<Db>, Failure> {
    let own = &apart.database;
    let file = own.url.as_deref().and_then(sqlite_file);
    let was_there = match apart.tables_of {
        Some(service) => is_noted(beside, service).await?,
        None => false,
    };
    let is_missed = was_there || beside.read(own.is_missed).await?;
    let may_be_made = if_missing == IfMissing::Make || !is_missed;
    let begun_anew = |found: &str| Failure::from(missed(found, apart, &beside.name(), was_there));
    match file.as_deref().and_then(what_is_missing) {
        Some(found) if !may_be_made => return Err(begun_anew(&found)),
        _ => {}
    }
    let other = match &own.url {
        Some(url) => Some(connect(config, url).await?),
        None => None,
    };
    let opened = other.as_ref().unwrap_or(beside);
    if apart.tables_of.is_some() && services::is_main(opened).await? {
        // It would carry its own record to itself.
        return Err(Failure::from(format!(
            "{} names {}, which has the tables of users and keys; name another database, or leave it empty",
            apart.setting,
            opened.name()
        )));
    }
    if !may_be_made && !have_run(opened, apart).await? {
        return Err(begun_anew(&format!(
            "{} holds no tables for it",
            opened.name()
        )));
    }
    Ok(other)
}

async fn have_run(db: &Db, apart: &DatabaseApart) -> Result<bool, DbError> {
    for migrations in &apart.database.migrations {
        if !has_run(db, &migrations.known).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn is_noted(main: &Db, service: &str) -> Result<bool, DbError> {
    main.read(async |connection| apart::is_noted(connection, service).await)
        .await
}

/// What is wrong with a database, and what to do about it.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) what: String,
    pub(super) remedy: String,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::from(format!("{}; {}", problem.what, problem.remedy))
    }
}

/// That a database of a service's own is not there, or holds nothing, as the one called `main` shows.
pub(super) fn missed(found: &str, apart: &DatabaseApart, main: &str, was_there: bool) -> Problem {
    let holds = apart.database.holds;
    let (what, remedy) = match apart.tables_of {
        Some(service) if was_there => (
            format!(
                "{found}, but {service} had their tables in a database of their own, as {main} has noted"
            ),
            format!(
                "restore a backup of it, or correct {}. To begin with none, run `auspex migrate --create`",
                apart.setting
            ),
        ),
        Some(service) => (
            format!("{found}, but {main} holds {service}"),
            format!(
                "move them there as docs/OPERATIONS.md says, or leave {} empty. To begin with none, run `auspex migrate \
                 --create`",
                apart.setting
            ),
        ),
        None => (
            format!("{found}, but {main} holds what is of no use without {holds}"),
            format!(
                "restore a backup of it (a file with `auspex restore`), or correct {}. To go on without, run `auspex migrate \
                 --create`",
                apart.setting
            ),
        ),
    };
    Problem { what, remedy }
}

/// That a service has its tables in the database of all, which has noted that they were in another.
pub(super) fn moved_back(service: &str, main: &str) -> Problem {
    Problem {
        what: format!("{service} had their tables in a database of their own, as {main} has noted"),
        remedy: format!(
            "name it in storage.services.{service}. To go on with the tables in {main}, run `auspex migrate --create`"
        ),
    }
}

/// Opens the databases that services have for all of their tables. Services that name the same one share it.
pub(super) async fn open_of_services(config: &Config, db: &Db) -> Result<Vec<OfServices>, DbError> {
    let mut open: Vec<(String, OfServices)> = Vec::new();
    for apart in services::databases_apart(config) {
        let (Some(service), Some(url)) = (apart.tables_of, apart.database.url) else {
            continue;
        };
        let place = match open.iter().position(|(other, _)| *other == url) {
            Some(place) => place,
            None => {
                let db = connect(config, &url).await?.with_control_of(db);
                let services = Vec::new();
                open.push((url, OfServices { services, db }));
                open.len() - 1
            }
        };
        let shared = &mut open[place].1;
        shared.services.push(service);
        if let Some(standby) = config.standby_url_of(service) {
            shared.db = shared
                .db
                .clone()
                .with_standby(standby, config.database_limits())?;
        }
    }
    Ok(open.into_iter().map(|(_, opened)| opened).collect())
}

/// The database of all services, with the standby that answers its lists.
pub(super) fn with_standby(config: &Config, db: Db) -> Result<Db, DbError> {
    match config.standby_url() {
        Some(standby) => db.with_standby(standby, config.database_limits()),
        None => Ok(db),
    }
}

/// A standby of another database would answer with what is of no concern here. One that was just set up may be a moment
/// behind.
pub(super) async fn check_standby(db: &Db) -> Result<(), Failure> {
    let ends = Instant::now() + STANDBY_LAG_MAX;
    loop {
        match db.look_at_standby().await? {
            StandbyFound::Other(_) if Instant::now() < ends => {
                tokio::time::sleep(STANDBY_PAUSE).await;
            }
            StandbyFound::Other(why) => {
                return Err(Failure::from(format!(
                    "what [storage.standbys] names for {} is no standby of it: {why}; correct the URL, or leave it empty",
                    db.name()
                )));
            }
            StandbyFound::None | StandbyFound::Away | StandbyFound::Copy => return Ok(()),
        }
    }
}

/// Opens the database that a service has for all of its tables, if it has one.
pub(super) async fn open_of(
    config: &Config,
    db: &Db,
    service: &str,
) -> Result<Option<Db>, DbError> {
    match config.storage_url_of(service) {
        Some(url) => Ok(Some(connect(config, url).await?.with_control_of(db))),
        None => Ok(None),
    }
}

/// Checks that no database is behind this program, for a server that brings none up to date.
pub(super) async fn check_up_to_date(config: &Config, db: &Db) -> Result<(), Failure> {
    for service in services::in_main(config) {
        if is_noted(db, service).await? {
            return Err(moved_back(service, &db.name()).into());
        }
    }
    let mut of_main = services::known_migrations(config);
    for apart in services::databases_apart(config) {
        let own = apart.database;
        let known = own.migrations.into_iter().map(|one| one.known);
        let Some(url) = own.url else {
            of_main.extend(known);
            continue;
        };
        let known: Vec<_> = known.collect();
        if let Some(found) = sqlite_file(&url).as_deref().and_then(what_is_missing) {
            return Err(behind(&found));
        }
        let other = connect(config, &url).await?;
        let checked = check_one(&other, &known).await;
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
        Ok(found) if found.is_dir() => Some(format!("{} is a folder", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(format!("{} does not exist", file.display()))
        }
        _ => None,
    }
}

/// What shows that there was a database of all services.
pub(super) fn traces(config: &Config) -> Vec<PathBuf> {
    let main = sqlite_file(&config.storage_url());
    let apart = services::databases_apart(config).into_iter();
    let files = apart.filter_map(|apart| sqlite_file(apart.database.url.as_deref()?));
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
