//! What each subcommand does.

mod clients;
mod doctor;
mod health;
mod keys;
mod models;
mod predict;
mod serve;
mod tokens;
mod users;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use auspex_identity::Identity;
use auspex_kernel::config::ConfigError;
use auspex_kernel::db::{Db, DbError};
use auspex_kernel::{Clock, Random};

use crate::cli::{Cli, Command, ConfigCommand};
use crate::config::{self, Config};
use crate::services;
use crate::settings::{self, Loaded};

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) code: u8,
}

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            message: error.to_string(),
            code: 1,
        }
    }
}

type Outcome = Result<ExitCode, Failure>;

/// Runs the command line.
pub(crate) fn run(cli: Cli) -> Outcome {
    let Cli { global, command } = cli;
    let listen = match &command {
        Command::Serve { listen, .. } | Command::Health { listen, .. } => listen.clone(),
        _ => None,
    };
    let load = || load(&global.overrides(listen.as_deref()));
    match command {
        Command::Serve { no_migrate, .. } => serve::run(&load()?.config, !no_migrate),
        Command::Migrate => migrate(&load()?.config),
        Command::Predict { package } => predict::run(&package),
        Command::Models(command) => models::run(&command),
        Command::Bench { package, json } => models::bench(&package, json),
        Command::Keys(command) => keys::run(&load()?.config, command),
        Command::Users(command) => users::run(&load()?.config, command),
        Command::Tokens(command) => tokens::run(&load()?.config, command),
        Command::Clients(command) => clients::run(&load()?.config, command),
        Command::Config(ConfigCommand::Defaults) => print(&settings::defaults()),
        Command::Config(ConfigCommand::Show) => print(&load()?.layers.show()),
        Command::Config(ConfigCommand::Check) => {
            load()?;
            print("the configuration is valid\n")
        }
        Command::Openapi => openapi(&load()?.config),
        Command::Doctor => doctor::run(&load()?.config),
        Command::Health { ready, .. } => health::run(&load()?.config, ready),
    }
}

fn load(overrides: &settings::Overrides) -> Result<Loaded, Failure> {
    // A variable that is not UTF-8 is not one of our settings.
    let env = || {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    };
    settings::load(overrides, env).map_err(|error: ConfigError| Failure {
        message: error.to_string(),
        code: 2,
    })
}

fn openapi(config: &Config) -> Outcome {
    let document = crate::app::document(config)?;
    print(&format!("{}\n", serde_json::to_string_pretty(&document)?))
}

fn migrate(config: &Config) -> Outcome {
    control_runtime()?.block_on(async {
        let db = open_db(config).await?;
        services::migrate(&db).await?;
        print("the database is up to date\n")
    })
}

/// Opens the database that the settings name.
async fn open_db(config: &Config) -> Result<Db, DbError> {
    let call_timeout = config::ms(config.storage.call_timeout_ms);
    Db::open_with(&config.storage_url(), call_timeout).await
}

/// Opens the database, brings it up to date and loads its users and keys.
async fn open_identity(config: &Config) -> Result<Arc<Identity>, Failure> {
    let db = open_db(config).await?;
    services::migrate(&db).await?;
    let (settings, issuer) = (config.identity.clone(), config.public_url());
    Ok(Identity::open(db, Clock::system(), Random::system(), settings, &issuer).await?)
}

/// The runtime of everything that is not a prediction: database, probes, signals.
fn control_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("auspex-control")
        .enable_all()
        .build()
}

/// Writes to standard output; a reader that has gone away ends the command quietly.
fn print(text: &str) -> Outcome {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
