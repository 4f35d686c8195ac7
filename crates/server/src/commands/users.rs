//! `auspex users`: for operators, beside a running server or without one.

use std::io::BufRead as _;
use std::process::ExitCode;

use auspex_identity::{
    Actor, Expected, Identity, NameConflict, NewUser, Password, Role, User, UserChange, UserFilter,
};
use auspex_kernel::Timestamp;
use auspex_kernel::id::UserId;
use serde_json::json;

use super::{Failure, Outcome, control_runtime, open_identity, print};
use crate::cli::{OnDatabase, UsersCommand};
use crate::config::Config;

pub(super) fn run(config: &Config, command: OnDatabase<UsersCommand>) -> Outcome {
    let OnDatabase { create, command } = command;
    control_runtime()?.block_on(async {
        let identity = open_identity(config, create).await?;
        match command {
            UsersCommand::Add {
                name,
                email,
                username,
                age,
                roles,
                password_stdin,
            } => {
                let new = NewUser {
                    name,
                    email,
                    username,
                    age,
                    roles: roles.into_iter().collect(),
                    password: password_stdin.then(read_password).transpose()?,
                    ..NewUser::default()
                };
                let user = identity.users().create(&Actor::operator(), new).await?;
                print(&format!("{}\n", user.id))
            }
            UsersCommand::List { json } => {
                let users = identity.users().list(UserFilter::default()).await?;
                print(&if json {
                    as_json(&users)?
                } else {
                    as_table(&users)
                })
            }
            UsersCommand::Conflicts => {
                let conflicts = identity.users().name_conflicts().await?;
                for NameConflict { what, users } in &conflicts {
                    let ids: Vec<&str> = users.iter().map(UserId::as_str).collect();
                    print(&format!("{}  {what}\n", ids.join(" ")))?;
                }
                Ok(ExitCode::from(u8::from(!conflicts.is_empty())))
            }
            UsersCommand::Disable { user } => {
                let disable = UserChange {
                    disabled: Some(true),
                    ..UserChange::default()
                };
                change(&identity, &user, disable, "disabled").await
            }
            UsersCommand::Enable { user } => {
                let enable = UserChange {
                    disabled: Some(false),
                    ..UserChange::default()
                };
                change(&identity, &user, enable, "enabled").await
            }
            UsersCommand::SetPassword { user, .. } => {
                let password = UserChange {
                    password: Some(Some(read_password()?)),
                    ..UserChange::default()
                };
                change(&identity, &user, password, "set the password of").await
            }
            UsersCommand::Roles { user, roles, .. } => {
                let roles = UserChange {
                    roles: Some(roles.into_iter().collect()),
                    ..UserChange::default()
                };
                change(&identity, &user, roles, "set the roles of").await
            }
            UsersCommand::Delete { user } => {
                let id = identity.users().find(&user).await?.id;
                identity
                    .users()
                    .delete(&Actor::operator(), &id, Expected::Any)
                    .await?;
                eprintln!("removed {id}");
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

async fn change(identity: &Identity, user: &str, change: UserChange, done: &str) -> Outcome {
    let id = identity.users().find(user).await?.id;
    identity
        .users()
        .update(&Actor::operator(), &id, change, Expected::Any)
        .await?;
    eprintln!("{done} {id}");
    Ok(ExitCode::SUCCESS)
}

/// The first line of standard input: arguments would show in process lists and shell histories.
fn read_password() -> Result<Password, Failure> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let end = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(end);
    if line.is_empty() {
        return Err("standard input holds no password; give it in the first line".into());
    }
    Ok(line.into())
}

fn as_table(users: &[User]) -> String {
    let mut text = format!(
        "{:<18}{:<10}{:<22}{:<7}USERNAME\n",
        "ID", "STATE", "LAST LOGIN", "LOGINS"
    );
    for user in users {
        let state = if user.disabled_at.is_some() {
            "disabled"
        } else {
            "active"
        };
        let second = |at: Timestamp| Timestamp(at.0 / 1_000_000 * 1_000_000).to_rfc3339();
        let last = user.last_login_at.map_or_else(|| "never".into(), second);
        text.push_str(&format!(
            "{:<18}{state:<10}{last:<22}{:<7}{}\n{:18}{} <{}> {}\n",
            user.id, user.login_count, user.username, "", user.name, user.email, user.roles,
        ));
    }
    text
}

fn as_json(users: &[User]) -> Result<String, Failure> {
    let users: Vec<_> = users
        .iter()
        .map(|user| {
            json!({
                "id": user.id,
                "name": user.name,
                "email": user.email,
                "username": user.username,
                "age": user.age,
                "roles": user.roles.iter().map(Role::as_str).collect::<Vec<_>>(),
                "disabled": user.disabled_at.is_some(),
                "has_password": user.has_password,
                "created_at": user.created_at.to_rfc3339(),
                "updated_at": user.updated_at.to_rfc3339(),
                "last_login_at": user.last_login_at.map(Timestamp::to_rfc3339),
                "login_count": user.login_count,
            })
        })
        .collect();
    Ok(format!("{}\n", serde_json::to_string_pretty(&users)?))
}
