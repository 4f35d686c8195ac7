//! `auspex keys`: for operators, beside a running server or without one.

use std::process::ExitCode;
use std::time::Duration;

use auspex_identity::{Actor, ApiKey, RoleSet};
use auspex_kernel::id::{KeyId, UserId};
use auspex_kernel::{Clock, Scope, ScopeSet, Timestamp};
use serde_json::json;

use super::{Failure, Outcome, control_runtime, open_identity, print};
use crate::cli::{KeysCommand, OnDatabase};
use crate::config::Config;

pub(super) fn run(config: &Config, command: OnDatabase<KeysCommand>) -> Outcome {
    let OnDatabase { create, command } = command;
    control_runtime()?.block_on(async {
        let identity = open_identity(config, create).await?;
        match command {
            KeysCommand::Create {
                name,
                scopes,
                roles,
                expires_at,
            } => {
                let roles: RoleSet = roles.into_iter().collect();
                let scopes = scopes.into_iter().collect::<ScopeSet>();
                let scopes = scopes.union(roles.scopes());
                let new = identity
                    .keys()
                    .create(&Actor::operator(), &name, scopes, expires_at)
                    .await?;
                print(&format!("{}\n", new.secret.expose()))
            }
            KeysCommand::List { json } => {
                let keys = identity.keys().list().await?;
                print(&if json {
                    as_json(&keys)?
                } else {
                    as_table(&keys)
                })
            }
            KeysCommand::Rotate { key, overlap_s } => {
                let overlap = Duration::from_secs(overlap_s);
                let new = identity
                    .keys()
                    .rotate(&Actor::operator(), &key, overlap)
                    .await?;
                print(&format!("{}\n", new.secret.expose()))
            }
            KeysCommand::Revoke { key } => {
                let revoked = identity.keys().revoke(&Actor::operator(), &key).await?;
                eprintln!("revoked {} ({})", revoked.id, revoked.name);
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

fn as_table(keys: &[ApiKey]) -> String {
    let now = Clock::system().now();
    let time = |at: Option<Timestamp>, none: &str| match at {
        Some(Timestamp(us)) => Timestamp(us / 1_000_000 * 1_000_000).to_rfc3339(),
        None => none.to_owned(),
    };
    let line = |columns: [&str; 7]| {
        let [id, state, created, expires, used, owner, name] = columns;
        format!("{id:<18}{state:<9}{created:<22}{expires:<22}{used:<22}{owner:<18}{name}\n")
    };
    let mut text = line([
        "ID",
        "STATE",
        "CREATED",
        "EXPIRES",
        "LAST USED",
        "OWNER",
        "NAME",
    ]);
    for key in keys {
        text.push_str(&line([
            key.id.as_str(),
            key.state(now).as_str(),
            &time(Some(key.created_at), ""),
            &time(key.expires_at, "never"),
            &time(key.last_used_at, "never"),
            key.owner_id.as_ref().map_or("-", UserId::as_str),
            &key.name,
        ]));
        text.push_str(&format!("{:18}{}\n", "", key.scopes));
    }
    text
}

fn as_json(keys: &[ApiKey]) -> Result<String, Failure> {
    let now = Clock::system().now();
    let keys: Vec<_> = keys
        .iter()
        .map(|key| {
            json!({
                "id": key.id.to_string(),
                "name": key.name,
                "scopes": key.scopes.iter().map(Scope::as_str).collect::<Vec<_>>(),
                "state": key.state(now).as_str(),
                "owner_id": key.owner_id,
                "created_at": key.created_at.to_rfc3339(),
                "expires_at": key.expires_at.map(Timestamp::to_rfc3339),
                "revoked_at": key.revoked_at.map(Timestamp::to_rfc3339),
                "last_used_at": key.last_used_at.map(Timestamp::to_rfc3339),
                "replaced_by": key.replaced_by.as_ref().map(KeyId::as_str),
            })
        })
        .collect();
    Ok(format!("{}\n", serde_json::to_string_pretty(&keys)?))
}
