//! `auspex backup` and `auspex restore`: copies of SQLite databases, made beside a running server, and put back without one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use auspex_kernel::db::{DbError, Inspection, copy_sqlite, restore_sqlite, sqlite_file};

use super::databases::what_is_missing;
use super::{Failure, Outcome, control_runtime, serve};
use crate::config::Config;
use crate::services::{self, DatabaseApart};

/// Which database is copied.
pub(super) enum Which {
    /// That of all services.
    Main,
    /// That of the customers' keys.
    Keys,
    /// That which a service has for all of its tables.
    Of(String),
}

pub(super) fn back_up(config: &Config, which: &Which, to: &Path) -> Outcome {
    let file = match which {
        Which::Main => main_file(config)?,
        Which::Keys => keys_file(config)?,
        Which::Of(service) => {
            let apart =
                databases_apart(config).find(|apart| apart.tables_of == Some(service.as_str()));
            let apart = apart.ok_or_else(|| {
                Failure::from(format!(
                    "{service} has no database for itself; without --service the one of all services is copied"
                ))
            })?;
            file_of(&apart)?
        }
    };
    if let Some(found) = what_is_missing(&file) {
        let text =
            "name the server's data folder with --data-dir, or its database with storage.url";
        return Err(format!("the database {found}; {text}").into());
    }
    control_runtime()?.block_on(copy_sqlite(&file, to))?;
    eprintln!("auspex: {} is a copy of {}", to.display(), file.display());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn restore(config: &Config, copy: &Path) -> Outcome {
    if let Some(found) = what_is_missing(copy) {
        return Err(format!("the backup {found}").into());
    }
    let _lock = serve::lock(&config.server.data_dir)?;
    control_runtime()?.block_on(async {
        let file = target_of(config, copy).await?;
        let kept = restore_sqlite(copy, &file).await?;
        eprintln!("auspex: {} is as in {}", file.display(), copy.display());
        if let Some(kept) = kept {
            let kept = kept.display();
            eprintln!("auspex: what was there is {kept}; remove it, and {kept}-wal if there is one, when all is well");
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The file whose copy it is, told by its tables. A copy that a server could not use is refused.
async fn target_of(config: &Config, copy: &Path) -> Result<PathBuf, Failure> {
    let shown = copy.display();
    let inspection = Inspection::open(copy).await;
    let unusable = |error: DbError| format!("{shown}: {}; take another backup", error.finding());
    let inspection = inspection.map_err(unusable)?;
    let looked = async {
        let damage = inspection.damage().await.map_err(unusable)?;
        if let Some(first) = damage.first() {
            return Err(format!("{shown} is damaged: {first}; take another backup").into());
        }
        let of_main = services::known_migrations(config);
        let apart: Vec<_> = databases_apart(config).collect();
        let of_others = apart.iter().flat_map(|apart| &apart.database.migrations);
        let of_others: Vec<_> = of_others.map(|one| one.known.clone()).collect();
        let unknown = inspection.unknown_migrations(&of_main).await?;
        let unknown_to_others = inspection.unknown_migrations(&of_others).await?;
        if let Some(first) = unknown.iter().chain(&unknown_to_others).next() {
            let text = "run the version of auspex that it was made with, or a newer one";
            return Err(format!("{shown} is of a newer version ({first}); {text}").into());
        }
        // All that have the tables of the kernel may hold the keys of customers too: those that are alone tell last.
        let (of_services, of_keys): (Vec<_>, Vec<_>) = apart
            .iter()
            .filter(|apart| apart.database.url.is_some())
            .partition(|apart| apart.tables_of.is_some());
        for apart in of_services {
            if has_run_all(&inspection, apart).await? {
                return file_of(apart);
            }
        }
        let of_services = auspex_kernel::migrations_apart().known;
        if inspection.has_run(&of_services).await? {
            let text =
                "is a copy of a database of single services; name that in [storage.services] first";
            return Err(format!("{shown} {text}").into());
        }
        if inspection
            .has_run(&auspex_kernel::known_migrations())
            .await?
        {
            return main_file(config);
        }
        for apart in of_keys {
            if has_run_all(&inspection, apart).await? {
                return file_of(apart);
            }
        }
        Err(Failure::from(format!(
            "{shown} is no copy of a database of this program"
        )))
    };
    let looked = looked.await;
    inspection.close().await;
    looked
}

fn main_file(config: &Config) -> Result<PathBuf, Failure> {
    sqlite_file(&config.storage_url()).ok_or_else(|| postgres("storage.url"))
}

fn keys_file(config: &Config) -> Result<PathBuf, Failure> {
    let mut apart = databases_apart(config);
    let keys = apart.find(|apart| apart.tables_of.is_none() && apart.database.url.is_some());
    keys.map_or_else(
        || Err(postgres("dialogues.keys_url")),
        |keys| file_of(&keys),
    )
}

fn file_of(apart: &DatabaseApart) -> Result<PathBuf, Failure> {
    let file = apart.database.url.as_deref().and_then(sqlite_file);
    file.ok_or_else(|| postgres(&apart.setting))
}

fn databases_apart(config: &Config) -> impl Iterator<Item = DatabaseApart> {
    services::databases_apart(config).into_iter()
}

async fn has_run_all(inspection: &Inspection, apart: &DatabaseApart) -> Result<bool, DbError> {
    for migrations in &apart.database.migrations {
        if !inspection.has_run(&migrations.known).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn postgres(setting: &str) -> Failure {
    Failure::from(format!(
        "{setting} names no SQLite file; PostgreSQL is backed up by its own pg_dump, and restored by pg_restore"
    ))
}
