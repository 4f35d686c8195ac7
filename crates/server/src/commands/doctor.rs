//! `auspex doctor`: looks at a data folder and its database without changing anything, and says what
//! to do. What cannot be looked at is never called good, nor damaged.

mod database;
mod folder;
mod master_key;

use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use auspex_kernel::db::{KnownMigrations, sqlite_file};
use auspex_kernel::files::Obstacle;

use super::databases::Problem;
use super::{Failure, Outcome, print};
use crate::config::Config;
use crate::roles;
use crate::services::{self, DatabaseApart};

/// A file system answers within this, or not at all.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// For reading all of a database.
const READ_MAX: Duration = Duration::from_mins(30);
const SHOWN_MAX: usize = 20;

pub(super) fn run(config: &Config) -> Outcome {
    let mut findings = Findings::default();
    let data_dir = config.server.data_dir.clone();
    let shown = data_dir.display().to_string();
    let databases = Looked::all(config);
    let files = databases.iter().filter_map(|one| sqlite_file(&one.url));
    let files: Vec<_> = files.collect();
    // It belongs to the process that keeps texts.
    let keeps_texts = roles::are_needed(config, "dialogues");
    let master_key = auspex_dialogues::master_key_file(&config.dialogues, &data_dir);
    let master_key = master_key.filter(|_| keeps_texts);
    let has_answered = findings.look(&shown, LOOK_MAX, move |findings| {
        folder::look(&data_dir, &files, findings);
        if let Some(file) = master_key {
            folder::look_at_master_key(&file, &data_dir, findings);
        }
    });
    for database in databases {
        let config = config.clone();
        match sqlite_file(&database.url) {
            Some(file) if has_answered => {
                let shown = file.display().to_string();
                findings.look(&shown, READ_MAX, move |findings| {
                    database::look_at_file(&config, &file, &database, findings);
                });
            }
            Some(_) => {}
            None => {
                findings.look("PostgreSQL", READ_MAX, move |findings| {
                    database::look_at_postgres(&config, &database, findings);
                });
            }
        }
    }
    if has_answered && keeps_texts {
        let config = config.clone();
        findings.look("the master key", READ_MAX, move |findings| {
            master_key::look(&config, findings);
        });
    }
    print(&findings.text)?;
    match findings.problems {
        0 => Ok(ExitCode::SUCCESS),
        1 => Err(Failure::from("1 problem was found")),
        count => Err(Failure::from(format!("{count} problems were found"))),
    }
}

/// A database to be looked at.
struct Looked {
    url: String,
    /// What names it.
    setting: String,
    known: Vec<KnownMigrations>,
    /// Those that services have for themselves, and that would be missed by what stands in this one.
    others: Vec<DatabaseApart>,
    /// The services that have their tables here and could have a database for themselves.
    of_services: Vec<&'static str>,
    is_main: bool,
}

impl Looked {
    /// The database of all services, and those that services have for themselves.
    fn all(config: &Config) -> Vec<Self> {
        let main_url = config.storage_url();
        let mut all = vec![Self {
            url: main_url.clone(),
            setting: "storage.url".to_owned(),
            known: services::known_migrations(config),
            others: Vec::new(),
            of_services: services::in_main(config).collect(),
            is_main: true,
        }];
        for apart in services::databases_apart(config) {
            let known = apart
                .database
                .migrations
                .iter()
                .map(|one| one.known.clone());
            let url = apart.database.url.as_ref().unwrap_or(&main_url);
            match all.iter_mut().find(|looked| looked.url == *url) {
                Some(shared) => shared.known.extend(known),
                None => all.push(Self {
                    url: url.clone(),
                    setting: apart.setting.clone(),
                    known: known.collect(),
                    others: Vec::new(),
                    of_services: Vec::new(),
                    is_main: false,
                }),
            }
            let beside = apart.beside.as_ref().unwrap_or(&main_url);
            let beside = all.iter_mut().find(|looked| looked.url == *beside);
            if let (Some(beside), Some(_)) = (beside, &apart.database.url) {
                beside.others.push(apart);
            }
        }
        all
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

    fn problem(&mut self, problem: Problem) {
        self.bad(problem.what, problem.remedy);
    }

    /// One problem of several parts.
    fn all_bad(&mut self, what: &str, parts: &[String], remedy: &str) {
        self.bad(format!("{what}: {}", listed(parts)), remedy);
    }

    fn unknown(&mut self, path: &Path, error: &std::io::Error) {
        let what = format!("{} cannot be looked at: {error}", path.display());
        match Obstacle::to_looking(path) {
            Some(obstacle) => self.bad(what, obstacle),
            None => self.bad(what, "check the path and its file system"),
        }
    }

    /// Adds what `look` finds. It runs on a thread of its own, since a pipe or a file system that does
    /// not answer would hold it for ever. Whether it ended in time.
    fn look(
        &mut self,
        what: &str,
        limit: Duration,
        look: impl FnOnce(&mut Findings) + Send + 'static,
    ) -> bool {
        let (found, answer) = mpsc::channel();
        std::thread::spawn(move || {
            let mut findings = Findings::default();
            look(&mut findings);
            let _ = found.send(findings);
        });
        match answer.recv_timeout(limit) {
            Ok(found) => {
                self.text.push_str(&found.text);
                self.problems += found.problems;
                true
            }
            Err(_) => {
                let limit = limit.as_secs();
                let what =
                    format!("{what} cannot be looked at: there is no answer within {limit} s");
                self.bad(what, "check its file system and its disk");
                false
            }
        }
    }
}

/// In one line, which stays short.
fn listed(parts: &[String]) -> String {
    let shown = parts[..parts.len().min(SHOWN_MAX)].join("; ");
    match parts.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}
