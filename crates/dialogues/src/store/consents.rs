//! The record of decisions.

use auspex_kernel::db::DbError;
use auspex_kernel::page::{Found, Slice};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait as _,
    QueryFilter as _, QueryOrder as _, Select, Set,
};

use super::entity::consents::{ActiveModel, Column, Entity, Model};
use super::{Inserts, customer_of, dialogue_of};
use crate::ids::{CustomerRef, DialogueRef};
use crate::types::{Consent, Decision, RowId, Statement};

impl TryFrom<Model> for Consent {
    type Error = DbErr;

    fn try_from(row: Model) -> Result<Self, DbErr> {
        let decision = Decision::from_stored(&row.decision)
            .ok_or_else(|| DbErr::Custom("a recorded decision is unknown".into()))?;
        Ok(Self {
            id: RowId(row.id),
            dialogue: dialogue_of(&row.dialogue)?,
            customer: customer_of(&row.customer)?,
            decision,
            decided_at: row.decided_at,
            statement: Statement {
                channel: row.channel,
                policy_version: row.policy_version,
                purpose: row.purpose,
            },
        })
    }
}

pub(crate) fn insert<'a>(inserts: &mut Inserts, consents: impl Iterator<Item = &'a Consent>) {
    inserts.add(consents.map(|consent| ActiveModel {
        id: Set(consent.id.0),
        dialogue: Set(consent.dialogue.as_bytes().to_vec()),
        customer: Set(consent.customer.as_bytes().to_vec()),
        decision: Set(consent.decision.as_str().to_owned()),
        decided_at: Set(consent.decided_at),
        channel: Set(consent.statement.channel.clone()),
        policy_version: Set(consent.statement.policy_version.clone()),
        purpose: Set(consent.statement.purpose.clone()),
    }));
}

/// Those of a customer, the oldest first.
pub(crate) async fn page(
    connection: &impl ConnectionTrait,
    customer: CustomerRef,
    slice: Slice,
) -> Result<Found<Consent>, DbError> {
    let query = Entity::find()
        .filter(Column::Customer.eq(customer.as_bytes().to_vec()))
        .order_by_asc(Column::Id);
    let after = |query: Select<_>, place: &str| {
        let id: Result<i64, _> = place.parse();
        let id = id.map_err(|_| DbErr::Custom("a position among decisions".into()))?;
        Ok(query.filter(Column::Id.gt(id)))
    };
    let (query, total) = slice.limit(connection, query, after).await?;
    let rows = query.all(connection).await?.into_iter();
    let consents = rows.map(Consent::try_from);
    Ok((consents.collect::<Result<_, _>>()?, total))
}

/// Removes all lines of these dialogues.
pub(crate) async fn delete(
    transaction: &DatabaseTransaction,
    dialogues: impl Iterator<Item = DialogueRef>,
) -> Result<u64, DbError> {
    let wanted = dialogues.map(|dialogue| dialogue.as_bytes().to_vec());
    let deleted = Entity::delete_many()
        .filter(Column::Dialogue.is_in(wanted))
        .exec(transaction)
        .await?;
    Ok(deleted.rows_affected)
}
