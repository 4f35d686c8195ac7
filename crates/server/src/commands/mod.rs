//! What each subcommand does.

mod backup;
mod bench;
mod clients;
mod databases;
mod dialogues;
mod doctor;
mod health;
mod jobs;
mod keys;
mod lambda;
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
use auspex_kernel::db::Db;
use auspex_kernel::{Clock, Random};

use self::backup::Which;
use self::databases::IfMissing;
use crate::cli::{Cli, Command, ConfigCommand};
use crate::config::Config;
use crate::overview::setting_warnings;
use crate::services;
use crate::settings::{self, Loaded};

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) code: u8,
}

impl Failure {
    /// A setting is wrong, or what it names cannot be used.
    fn of_settings(error: &ConfigError) -> Self {
        Self {
            message: error.to_string(),
            code: 2,
        }
    }
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
    let overrides = global.overrides(&command);
    let load = || load(&overrides);
    match command {
        Command::Serve {
            no_migrate, create, ..
        } => serve::run(load()?, overrides.clone(), !no_migrate, if_missing(create)),
        Command::Lambda => lambda::run(load()?),
        Command::Migrate { create } => migrate(&load()?.config, if_missing(create)),
        Command::Backup {
            keys,
            service,
            file,
        } => {
            let which = match service {
                Some(service) => Which::Of(service),
                None if keys => Which::Keys,
                None => Which::Main,
            };
            backup::back_up(&load()?.config, &which, &file)
        }
        Command::Restore { file } => backup::restore(&load()?.config, &file),
        Command::Predict {
            package,
            explain,
            runtime,
        } => {
            runtime.load()?;
            predict::run(&package, explain.map(Option::unwrap_or_default))
        }
        Command::Models(command) => models::run(&command),
        Command::Bench {
            package,
            json,
            runtime,
        } => {
            runtime.load()?;
            bench::run(&package, json)
        }
        Command::Keys(command) => keys::run(&load()?.config, command),
        Command::Users(command) => users::run(&load()?.config, command),
        Command::Tokens(command) => tokens::run(&load()?.config, command),
        Command::Clients(command) => clients::run(&load()?.config, command),
        Command::Jobs(command) => jobs::run(&load()?.config, command),
        Command::Dialogues(command) => dialogues::run(&load()?.config, command),
        Command::Config(ConfigCommand::Defaults) => print(&settings::defaults()),
        Command::Config(ConfigCommand::Show) => print(&load()?.layers.show()),
        Command::Config(ConfigCommand::Check) => {
            let loaded = load()?;
            loaded
                .check_surroundings()
                .map_err(|error| Failure::of_settings(&error))?;
            for variable in &loaded.ignored {
                eprintln!("auspex: {variable} is no setting and changes nothing");
            }
            for warning in setting_warnings(&loaded.config) {
                eprintln!("auspex: {}", warning.message);
            }
            print("the configuration is valid\n")
        }
        Command::Openapi => openapi(&load()?.config),
        Command::Doctor => doctor::run(&load()?.config),
        Command::Health { ready, .. } => health::run(&load()?.config, ready),
    }
}

/// For what makes the database of a first start.
fn if_missing(create: bool) -> IfMissing {
    match create {
        true => IfMissing::Make,
        false => IfMissing::MakeTheFirst,
    }
}

fn load(overrides: &settings::Overrides) -> Result<Loaded, Failure> {
    settings::load(overrides, settings::environment).map_err(|error| Failure::of_settings(&error))
}

fn openapi(config: &Config) -> Outcome {
    let document = crate::app::document(config)?;
    print(&format!("{}\n", serde_json::to_string_pretty(&document)?))
}

fn migrate(config: &Config, if_missing: IfMissing) -> Outcome {
    control_runtime()?.block_on(async {
        let db = databases::open(config, if_missing).await?;
        let names = databases::bring_up_to_date(config, &db, if_missing).await?;
        databases::note_apart(config, &db).await?;
        db.close().await;
        let lines = names
            .iter()
            .map(|name| format!("the database is up to date: {name}\n"));
        print(&lines.collect::<String>())
    })
}

/// Opens the database, says which, brings it up to date and loads its users and keys.
async fn open_identity(config: &Config, create: bool) -> Result<Arc<Identity>, Failure> {
    let db = open_for_command(config, create).await?;
    let (settings, issuer) = (config.identity.clone(), config.public_url());
    Ok(Identity::open(db, Clock::system(), Random::system(), settings, &issuer).await?)
}

/// Opens the database, says which and brings it up to date. Unless it is to be created, there must be
/// one: a command on the wrong folder would seem to succeed.
async fn open_for_command(config: &Config, create: bool) -> Result<Db, Failure> {
    let if_missing = match create {
        true => IfMissing::Make,
        false => IfMissing::Fail,
    };
    let db = databases::open(config, if_missing).await?;
    eprintln!("auspex: the database is {}", db.name());
    services::migrate(config, &db).await?;
    Ok(db)
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
    is_read(std::io::stdout().lock().write_all(text.as_bytes()))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether somebody still reads what is written; if not, the command ends quietly.
fn is_read(written: std::io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(format!("the output cannot be written: {error}").into()),
    }
}
