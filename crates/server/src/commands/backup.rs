//! `auspex backup` and `auspex restore`: copies of SQLite databases, made beside a running server, and put back without one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use auspex_kernel::db::{DbError, Inspection, copy_sqlite, restore_sqlite, sqlite_file};
use auspex_kernel::service::OwnDatabase;

use super::databases::what_is_missing;
use super::{Failure, Outcome, control_runtime, serve};
use crate::config::Config;
use crate::services;

pub(super) fn back_up(config: &Config, keys: bool, to: &Path) -> Outcome {
    let file = match keys {
        true => keys_file(config)?,
        false => main_file(config)?,
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
        let main = services::known_migrations();
        let of_own: Vec<_> = own_databases(config)
            .map(|own| own.migrations.known)
            .collect();
        let unknown = inspection.unknown_migrations(&main).await?;
        let unknown_to_own = inspection.unknown_migrations(&of_own).await?;
        if let Some(first) = unknown.iter().chain(&unknown_to_own).next() {
            let text = "run the version of auspex that it was made with, or a newer one";
            return Err(format!("{shown} is of a newer version ({first}); {text}").into());
        }
        if inspection
            .has_run(&auspex_kernel::known_migrations())
            .await?
        {
            return main_file(config);
        }
        for own in &of_own {
            if inspection.has_run(own).await? {
                return keys_file(config);
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

/// The one database that a service has for itself.
fn keys_file(config: &Config) -> Result<PathBuf, Failure> {
    let url = own_databases(config).find_map(|own| own.url);
    let file = url.as_deref().and_then(sqlite_file);
    file.ok_or_else(|| postgres("dialogues.keys_url"))
}

fn own_databases(config: &Config) -> impl Iterator<Item = OwnDatabase> {
    services::own_databases(config).into_iter()
}

fn postgres(setting: &str) -> Failure {
    Failure::from(format!(
        "{setting} names no SQLite file; PostgreSQL is backed up by its own pg_dump, and restored by pg_restore"
    ))
}
