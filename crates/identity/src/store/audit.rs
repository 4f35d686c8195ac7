//! The audit record.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::page::{Found, Slice};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait, Order, QueryFilter,
    Set,
};

use super::entity::audit;
use super::new_id;
use crate::audit::{Actor, AuditFilter, AuditLine, Event, address_prefix};

/// Adds a line.
pub(crate) async fn record(
    transaction: &DatabaseTransaction,
    actor: &Actor,
    event: Event,
    now: Timestamp,
) -> Result<(), DbError> {
    let row = audit::ActiveModel {
        id: Set(new_id(now)?),
        at: Set(now),
        actor: Set(actor.subject.clone()),
        action: Set(event.action.as_str().to_owned()),
        target: Set(event.target),
        outcome: Set(event.outcome.as_str().to_owned()),
        detail: Set(event.detail),
        address: Set(actor.address.map(address_prefix)),
        request_id: Set(actor.request_id.clone()),
    };
    audit::Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// Lines, newest first.
pub(crate) async fn page(
    connection: &impl ConnectionTrait,
    filter: AuditFilter,
    slice: Slice,
) -> Result<Found<AuditLine>, DbError> {
    let action = filter.action.map(|action| action.as_str().to_owned());
    let outcome = filter.outcome.map(|outcome| outcome.as_str().to_owned());
    let mut wanted = Condition::all();
    for (column, value) in [
        (audit::Column::Actor, filter.actor),
        (audit::Column::Action, action),
        (audit::Column::Target, filter.target),
        (audit::Column::Outcome, outcome),
    ] {
        wanted = wanted.add_option(value.map(|value| column.eq(value)));
    }
    let query = audit::Entity::find().filter(wanted);
    let by_id = slice.by_id(connection, query, audit::Column::Id, Order::Desc);
    let (rows, total) = by_id.await?;
    let line = |row: audit::Model| AuditLine {
        id: row.id,
        at: row.at,
        actor: row.actor,
        action: row.action,
        target: row.target,
        outcome: row.outcome,
        detail: row.detail,
        address: row.address,
        request_id: row.request_id,
    };
    Ok((rows.into_iter().map(line).collect(), total))
}
