//! `auspex keys`: for operators, beside a running server or without one.

use std::process::ExitCode;

use auspex_identity::{Actor, ApiKey};
use auspex_kernel::{Clock, Scope, ScopeSet, Timestamp};
use serde_json::json;

use super::{Failure, Outcome, control_runtime, open_identity, print};
use crate::cli::KeysCommand;
use crate::config::Config;

pub(super) fn run(config: &Config, command: KeysCommand) -> Outcome {
    control_runtime()?.block_on(async {
        let (_, identity) = open_identity(config, &Clock::system(), true).await?;
        match command {
            KeysCommand::Create {
                name,
                scopes,
                expires_at,
            } => {
                let scopes = read_scopes(&scopes)?;
                let expires_at = expires_at.as_deref().map(read_time).transpose()?;
                let new = identity
                    .create_key(&Actor::operator(), &name, scopes, expires_at)
                    .await?;
                print(&format!("{}\n", new.secret.expose()))
            }
            KeysCommand::List { json } => {
                let keys = identity.list_keys().await?;
                print(&if json {
                    as_json(&keys)?
                } else {
                    as_table(&keys)
                })
            }
            KeysCommand::Revoke { key } => {
                let revoked = identity.revoke_key(&Actor::operator(), &key).await?;
                eprintln!("revoked {} ({})", revoked.id, revoked.name);
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

fn read_scopes(texts: &[String]) -> Result<ScopeSet, Failure> {
    texts
        .iter()
        .map(|text| text.parse::<Scope>().map_err(usage))
        .collect()
}

fn read_time(text: &str) -> Result<Timestamp, Failure> {
    Timestamp::parse_rfc3339(text)
        .ok_or_else(|| usage("--expires-at must be RFC 3339, e.g. 2027-01-31T00:00:00Z"))
}

fn usage(message: impl std::fmt::Display) -> Failure {
    Failure {
        message: message.to_string(),
        code: 2,
    }
}

fn state(key: &ApiKey) -> &'static str {
    let expired = key.expires_at.is_some_and(|at| at <= Clock::system().now());
    match (key.revoked_at, expired) {
        (Some(_), _) => "revoked",
        (None, true) => "expired",
        (None, false) => "active",
    }
}

fn as_table(keys: &[ApiKey]) -> String {
    let mut text = format!(
        "{:<18}{:<9}{:<26}{:<28}NAME\n",
        "ID", "STATE", "CREATED", "EXPIRES"
    );
    for key in keys {
        let expires = key
            .expires_at
            .map_or_else(|| "never".to_owned(), Timestamp::to_rfc3339);
        text.push_str(&format!(
            "{:<18}{:<9}{:<26}{:<28}{}\n{:18}{}\n",
            key.id.to_string(),
            state(key),
            Timestamp(key.created_at.0 / 1_000_000 * 1_000_000).to_rfc3339(),
            expires,
            key.name,
            "",
            key.scopes,
        ));
    }
    text
}

fn as_json(keys: &[ApiKey]) -> Result<String, Failure> {
    let keys: Vec<_> = keys
        .iter()
        .map(|key| {
            json!({
                "id": key.id.to_string(),
                "name": key.name,
                "scopes": key.scopes.iter().map(Scope::as_str).collect::<Vec<_>>(),
                "created_at": key.created_at.to_rfc3339(),
                "expires_at": key.expires_at.map(Timestamp::to_rfc3339),
                "revoked_at": key.revoked_at.map(Timestamp::to_rfc3339),
            })
        })
        .collect();
    Ok(format!("{}\n", serde_json::to_string_pretty(&keys)?))
}
