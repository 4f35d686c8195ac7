//! `auspex clients`: for operators, beside a running server or without one.

use std::process::ExitCode;
use std::time::Duration;

use auspex_identity::{Actor, Client, ClientChange, ClientDraft, ClientScopes};
use serde_json::{Value, json};

use super::{Failure, Outcome, control_runtime, open_identity, print};
use crate::cli::{ClientsCommand, OnDatabase};
use crate::config::Config;

pub(super) fn run(config: &Config, command: OnDatabase<ClientsCommand>) -> Outcome {
    let OnDatabase { create, command } = command;
    control_runtime()?.block_on(async {
        let identity = open_identity(config, create).await?;
        match command {
            ClientsCommand::Create {
                name,
                redirect_uris,
                post_logout_redirect_uris,
                grant_types,
                scopes,
                public,
            } => {
                let draft = ClientDraft {
                    name,
                    redirect_uris,
                    post_logout_redirect_uris,
                    grant_types,
                    scopes: read_scopes(&scopes)?,
                    public,
                };
                let new = identity.clients().create(&Actor::operator(), draft).await?;
                let secret = new.secret.as_ref().map(|secret| secret.expose());
                let shown = json!({"client_id": new.client.id, "client_secret": secret});
                print(&format!("{}\n", serde_json::to_string_pretty(&shown)?))
            }
            ClientsCommand::List { json } => {
                let clients = identity.clients().list().await?;
                print(&if json {
                    as_json(&clients)?
                } else {
                    as_table(&clients)
                })
            }
            ClientsCommand::Update {
                id,
                name,
                redirect_uris,
                post_logout_redirect_uris,
                scopes,
            } => {
                let change = ClientChange {
                    name,
                    redirect_uris,
                    post_logout_redirect_uris,
                    scopes: scopes.map(|names| read_scopes(&names)).transpose()?,
                };
                let operator = Actor::operator();
                let changed = identity.clients().update(&operator, &id, change, |_| true);
                let shown = client_as_json(&changed.await?);
                print(&format!("{}\n", serde_json::to_string_pretty(&shown)?))
            }
            ClientsCommand::RotateSecret { id, overlap_s } => {
                let overlap = Duration::from_secs(overlap_s);
                let operator = Actor::operator();
                let rotated = identity.clients().rotate_secret(&operator, &id, overlap);
                let secret = rotated.await?.secret;
                let secret = secret.as_ref().map_or("", |secret| secret.expose());
                print(&format!("{secret}\n"))
            }
            ClientsCommand::Delete { id } => {
                identity.clients().delete(&Actor::operator(), &id).await?;
                eprintln!("deleted the client and everything it was given");
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

fn read_scopes(names: &[String]) -> Result<ClientScopes, Failure> {
    names.join(" ").parse().map_err(|_| Failure {
        message: format!(
            "there is no such scope; known scopes: {}",
            ClientScopes::names().collect::<Vec<_>>().join(", ")
        ),
        code: 2,
    })
}

fn grant_types(client: &Client) -> Vec<&'static str> {
    client
        .grant_types
        .iter()
        .map(|kind| kind.as_str())
        .collect()
}

fn as_table(clients: &[Client]) -> String {
    let mut text = format!("{:<18}{:<14}NAME\n", "ID", "KIND");
    for client in clients {
        let kind = if client.public {
            "public"
        } else {
            "confidential"
        };
        let uris = client.redirect_uris.join(" ");
        text.push_str(&format!("{:<18}{kind:<14}{}\n", client.id, client.name));
        for line in [
            grant_types(client).join(" "),
            client.scopes.to_string(),
            uris,
        ] {
            if !line.is_empty() {
                text.push_str(&format!("{:18}{line}\n", ""));
            }
        }
    }
    text
}

fn as_json(clients: &[Client]) -> Result<String, Failure> {
    let clients: Vec<_> = clients.iter().map(client_as_json).collect();
    Ok(format!("{}\n", serde_json::to_string_pretty(&clients)?))
}

fn client_as_json(client: &Client) -> Value {
    json!({
        "client_id": client.id,
        "name": client.name,
        "redirect_uris": client.redirect_uris,
        "post_logout_redirect_uris": client.post_logout_redirect_uris,
        "grant_types": grant_types(client),
        "scopes": client.scopes.iter().collect::<Vec<_>>(),
        "public": client.public,
        "created_at": client.created_at.to_rfc3339(),
    })
}
