//! `auspex tokens`: for operators, beside a running server or without one.

use std::process::ExitCode;

use auspex_identity::{Actor, Identity};

use super::{Failure, Outcome, control_runtime, open_identity};
use crate::cli::{OnDatabase, Revoked, TokensCommand};
use crate::config::Config;

pub(super) fn run(config: &Config, command: OnDatabase<TokensCommand>) -> Outcome {
    let OnDatabase { create, command } = command;
    control_runtime()?.block_on(async {
        let identity = open_identity(config, create).await?;
        let done = match command {
            TokensCommand::Revoke(which) => revoke(&identity, which).await?,
            TokensCommand::RotateKey { drop_others } => rotate(&identity, drop_others).await?,
        };
        eprintln!("{done}");
        Ok(ExitCode::SUCCESS)
    })
}

async fn revoke(identity: &Identity, which: Revoked) -> Result<String, Failure> {
    let operator = Actor::operator();
    let Revoked { user, session, jti } = which;
    if let Some(user) = user {
        let (id, count) = identity
            .sessions()
            .revoke_all_of_user(&operator, &user)
            .await?;
        return Ok(format!("ended {count} sessions of {id}"));
    }
    if let Some(session) = session {
        let was_in_force = identity.sessions().revoke(&operator, &session).await?;
        return Ok(if was_in_force {
            "ended the session".into()
        } else {
            "the session had been ended before".into()
        });
    }
    identity
        .sessions()
        .revoke_jti(&operator, &jti.unwrap_or_default())
        .await?;
    Ok("revoked the token".into())
}

async fn rotate(identity: &Identity, drop_others: bool) -> Result<String, Failure> {
    let operator = Actor::operator();
    let kid = identity
        .signing_keys()
        .rotate(&operator, drop_others)
        .await?;
    Ok(if drop_others {
        format!("the key {kid} signs from now on; tokens signed before are refused")
    } else {
        format!("the key {kid} is published, and signs after identity.tokens.signing_key_lead_s")
    })
}
