//! The master key of dialogues: whether it is the one that has wrapped what stands in the keys database.

use std::path::Path;

use auspex_dialogues::{KeysError, MasterKeyState, keys_url, look_at_master_key};
use auspex_kernel::db::{Connection, Inspection, sqlite_file};

use super::super::{control_runtime, databases};
use super::Findings;
use crate::config::Config;

pub(super) fn look(config: &Config, findings: &mut Findings) {
    let looked = match control_runtime() {
        Ok(runtime) => runtime.block_on(ask(config)),
        Err(error) => return findings.unknown(Path::new("the master key"), &error),
    };
    match looked {
        Ok(MasterKeyState::InForce(place)) => {
            findings.good(format!(
                "the master key in {place} has wrapped the customers' keys"
            ));
        }
        Ok(MasterKeyState::Unused(place)) => {
            findings.good(format!(
                "the master key is in {place}; nothing is wrapped by it yet"
            ));
        }
        Ok(MasterKeyState::NotMade(file)) => findings.good(format!(
            "the first start makes the master key, {}",
            file.display()
        )),
        // What is wrong with the database is told where that is looked at.
        Err(KeysError::Database(_)) => {}
        Err(error) => findings.bad(
            error,
            "no text can be read or stored, and no server starts, until then",
        ),
    }
}

async fn ask(config: &Config) -> Result<MasterKeyState, KeysError> {
    let tables_url = match config.storage_url_of("dialogues") {
        Some(url) => url.to_owned(),
        None => config.storage_url(),
    };
    let is_sqlite = sqlite_file(&tables_url).is_some();
    let url = keys_url(&config.dialogues, is_sqlite, &config.server.data_dir);
    let url = url.unwrap_or(tables_url);
    let state = async |stored: Option<(&Connection, &str)>| {
        look_at_master_key(&config.dialogues, &config.server.data_dir, stored).await
    };
    match sqlite_file(&url) {
        Some(file) if databases::what_is_missing(&file).is_some() => state(None).await,
        Some(file) => {
            let inspection = Inspection::open(&file).await?;
            let name = file.display().to_string();
            let found = state(Some((inspection.connection(), &name))).await;
            inspection.close().await;
            found
        }
        None => {
            let db = databases::connect(config, &url).await?;
            let name = db.name();
            let found = db.read(async |connection| state(Some((connection, &name))).await);
            let found = found.await;
            db.close().await;
            found
        }
    }
}
