//! The audit record.

use auspex_kernel::Timestamp;
use sea_orm::{DatabaseTransaction, DbErr, EntityTrait, Set};

use super::entity::audit;
use super::new_id;
use crate::audit::{Actor, Event, address_prefix};

/// Adds a line.
pub(crate) async fn record(
    transaction: &DatabaseTransaction,
    actor: &Actor,
    event: Event,
    now: Timestamp,
) -> Result<(), DbErr> {
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
        .await
        .map(|_| ())
}
