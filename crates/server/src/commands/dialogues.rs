//! `auspex dialogues`: for operators, beside a running server or without one.

use std::io::Write as _;
use std::process::ExitCode;

use auspex_dialogues::{
    Consent, CustomerId, CustomerRef, Dialogues, Expired, Export, Message, Receipt, Withdrawal,
};
use auspex_kernel::apart::Apart;
use auspex_kernel::audit::Actor;
use auspex_kernel::db::Db;
use auspex_kernel::{Clock, Random, Timestamp};
use serde_json::{Value, json};

use super::databases::{self, IfMissing};
use super::{Failure, Outcome, control_runtime, is_read, open_for_command, print};
use crate::cli::DialoguesCommand;
use crate::config::Config;

pub(super) fn run(config: &Config, command: DialoguesCommand) -> Outcome {
    control_runtime()?.block_on(async {
        let db = open_for_command(config, false).await?;
        databases::bring_up_to_date(config, &db, IfMissing::Fail).await?;
        let own = databases::open_of(config, &db, "dialogues").await?;
        let dialogues = open(config, own.as_ref().unwrap_or(&db)).await?;
        let outcome = carry_out(&dialogues, command).await;
        dialogues.close().await;
        if let Some(own) = own {
            carry_record(&own, &db).await;
            own.close().await;
        }
        db.close().await;
        outcome
    })
}

/// What was done is done: where it cannot be carried on now, the next start of the server does.
async fn carry_record(own: &Db, main: &Db) {
    let apart = Apart {
        own: own.clone(),
        main: main.clone(),
        clock: Clock::system(),
    };
    if let Err(error) = apart.carry_once().await {
        eprintln!("auspex: the audit record waits in {}: {error}", own.name());
    }
}

async fn open(config: &Config, db: &Db) -> Result<Dialogues, Failure> {
    let (clock, random) = (Clock::system(), Random::system());
    let settings = config.dialogues.clone();
    let data_dir = &config.server.data_dir;
    Ok(Dialogues::open(db.clone(), settings, data_dir, clock, random).await?)
}

async fn carry_out(dialogues: &Dialogues, command: DialoguesCommand) -> Outcome {
    let operator = Actor::operator();
    match command {
        DialoguesCommand::Export { customer } => {
            let customer = read_customer(dialogues, &customer)?;
            let export = dialogues.export(&operator, customer).await?;
            if export.dialogues.is_empty() && !export.has_key && export.erasures.is_empty() {
                nothing_is_held();
            }
            print_export(customer, export).await
        }
        DialoguesCommand::Withdraw { customer } => {
            let customer = read_customer(dialogues, &customer)?;
            let statement = dialogues.usual_statement();
            let withdrawn = dialogues.withdraw_all(&operator, customer, &statement);
            let withdrawn = withdrawn.await?;
            if withdrawn.dialogues == 0 {
                nothing_is_held();
            }
            print_json(&json!({
                "customer": customer.to_string(),
                "dialogues": withdrawn.dialogues,
                "texts": withdrawn.texts,
                "log_truncated": withdrawn.log_truncated,
            }))
        }
        DialoguesCommand::Erase { customer } => {
            let customer = read_customer(dialogues, &customer)?;
            let receipt = dialogues.erase(&operator, customer).await?;
            if receipt.messages == 0 && receipt.dialogues == 0 {
                nothing_is_held();
            }
            print_json(&receipt_json(&receipt))
        }
        DialoguesCommand::ReplayErasures => {
            let replayed = dialogues.replay_erasures().await?;
            print_json(&json!({
                "erasures": replayed.erasures,
                "texts": replayed.texts,
                "keys": replayed.keys,
            }))
        }
        DialoguesCommand::Retention { dry_run: true } => {
            print_json(&expired_json(&dialogues.expired().await?))
        }
        DialoguesCommand::Retention { dry_run: false } => {
            let expired = dialogues.apply_retention(&operator).await?;
            dialogues.compact().await?;
            print_json(&expired_json(&expired))
        }
    }
}

/// A mistyped id is that of a customer of whom nothing is known.
fn nothing_is_held() {
    eprintln!(
        "auspex: the databases held nothing of this customer that could be found; check the id"
    );
}

/// A pseudonym, or else an id.
fn read_customer(dialogues: &Dialogues, text: &str) -> Result<CustomerRef, Failure> {
    if let Some(customer) = CustomerRef::parse(text) {
        return Ok(customer);
    }
    let id = CustomerId::parse(text).map_err(|error| format!("the customer's id {error}"))?;
    Ok(dialogues.pseudonyms().customer(&id))
}

fn print_json(value: &Value) -> Outcome {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// The texts come last and are written while they are read: they may be many.
async fn print_export(customer: CustomerRef, export: Export) -> Outcome {
    let dialogues = export.dialogues.iter().map(|(decided, ids)| {
        json!({
            "dialogue": decided.dialogue.to_string(),
            "customer_id": ids.as_ref().map(|ids| ids.customer.expose()),
            "dialog_id": ids.as_ref().map(|ids| ids.dialogue.expose()),
            "status": decided.status.as_str(),
            "texts": decided.texts,
            "began_at": decided.began_at.to_rfc3339(),
            "decided_at": decided.decided_at.to_rfc3339(),
        })
    });
    let head = json!({
        "customer": customer.to_string(),
        "has_key": export.has_key,
        "dialogues": dialogues.collect::<Vec<_>>(),
        "consents": export.consents.iter().map(consent_json).collect::<Vec<_>>(),
        "withdrawals": export.withdrawals.iter().map(withdrawal_json).collect::<Vec<_>>(),
        "erasures": export.erasures.iter().map(receipt_json).collect::<Vec<_>>(),
    });
    let head = serde_json::to_string(&head)?;
    let head = head.strip_suffix('}').unwrap_or(&head);
    let mut messages = export.messages;
    let written = async {
        let mut out = std::io::stdout().lock();
        let mut is_wanted = is_read(write!(out, "{head},\"messages\":["))?;
        let mut separator = "\n";
        while is_wanted && let Some(some) = messages.next().await? {
            for message in &some {
                let message = message_json(message);
                is_wanted = is_wanted && is_read(write!(out, "{separator}{message}"))?;
                separator = ",\n";
            }
        }
        is_read(writeln!(out, "\n]}}"))?;
        Ok::<_, Failure>(ExitCode::SUCCESS)
    };
    written.await
}

fn message_json(message: &Message) -> Value {
    let ids = message.ids.as_ref();
    json!({
        "id": message.id.to_string(),
        "customer": message.customer.to_string(),
        "dialogue": message.dialogue.to_string(),
        "customer_id": ids.map(|ids| ids.customer.expose()),
        "dialog_id": ids.map(|ids| ids.dialogue.expose()),
        "language": message.language,
        "purpose": message.purpose,
        "text": message.text.as_str(),
        "received_at": message.received_at.to_rfc3339(),
    })
}

fn consent_json(consent: &Consent) -> Value {
    json!({
        "dialogue": consent.dialogue.to_string(),
        "decision": consent.decision.as_str(),
        "decided_at": consent.decided_at.to_rfc3339(),
        "channel": consent.statement.channel,
        "policy_version": consent.statement.policy_version,
        "purpose": consent.statement.purpose,
    })
}

fn withdrawal_json(withdrawal: &Withdrawal) -> Value {
    json!({
        "dialogue": withdrawal.dialogue.to_string(),
        "reason": withdrawal.reason.as_str(),
        "at": withdrawal.at.to_rfc3339(),
    })
}

fn receipt_json(receipt: &Receipt) -> Value {
    json!({
        "id": receipt.id_text(),
        "customer": receipt.customer.to_string(),
        "erased_at": receipt.erased_at.to_rfc3339(),
        "completed_at": receipt.completed_at.map(Timestamp::to_rfc3339),
        "texts": receipt.messages,
        "dialogues": receipt.dialogues,
        "pending_texts": receipt.pending_texts,
        "log_truncated": receipt.log_truncated,
    })
}

fn expired_json(expired: &[Expired]) -> Value {
    let expired = expired.iter().map(|expired| {
        json!({
            "what": if expired.rule.is_some() { "texts" } else { "decisions" },
            "language": expired.rule.as_ref().and_then(|rule| rule.language.as_deref()),
            "purpose": expired.rule.as_ref().and_then(|rule| rule.purpose.as_deref()),
            "before": expired.before.to_rfc3339(),
            "count": expired.count,
        })
    });
    expired.collect()
}
