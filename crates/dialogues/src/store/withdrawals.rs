//! Dialogues whose texts readers must delete from their copies.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::page::{Found, Slice};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait as _,
    ExprTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Select, Set,
};

use super::entity::withdrawals::{ActiveModel, Column, Entity, Model};
use super::{customer_of, dialogue_of, lock_bytes};
use crate::ids::CustomerRef;
use crate::types::{Reason, RowId, Withdrawal, parse_position};

impl TryFrom<Model> for Withdrawal {
    type Error = DbErr;

    fn try_from(row: Model) -> Result<Self, DbErr> {
        let reason = Reason::from_stored(&row.reason)
            .ok_or_else(|| DbErr::Custom("the reason of a withdrawal is unknown".into()))?;
        Ok(Self {
            id: RowId(row.id),
            dialogue: dialogue_of(&row.dialogue)?,
            customer: customer_of(&row.customer)?,
            reason,
            at: row.at,
        })
    }
}

/// Whoever adds some holds this until the end of their transaction.
const LOCK: [u8; 16] = *b"withdrawals list";

/// Adds some, each later than all that were added before: whoever has read the list up to a time finds all that follow after
/// that time, whichever clock and transaction they came from.
pub(crate) async fn insert(
    transaction: &DatabaseTransaction,
    mut withdrawals: Vec<Withdrawal>,
) -> Result<(), DbError> {
    if withdrawals.is_empty() {
        return Ok(());
    }
    lock_bytes(transaction, &LOCK).await?;
    let newest: Option<Option<Timestamp>> = Entity::find()
        .select_only()
        .column_as(Column::At.max(), "newest")
        .into_tuple()
        .one(transaction)
        .await?;
    if let Some(newest) = newest.flatten() {
        for withdrawal in &mut withdrawals {
            withdrawal.at = Ord::max(withdrawal.at, Timestamp(newest.0 + 1));
        }
    }
    let rows = withdrawals.into_iter().map(|withdrawal| ActiveModel {
        id: Set(withdrawal.id.0),
        dialogue: Set(withdrawal.dialogue.as_bytes().to_vec()),
        customer: Set(withdrawal.customer.as_bytes().to_vec()),
        reason: Set(withdrawal.reason.as_str().to_owned()),
        at: Set(withdrawal.at),
    });
    Entity::insert_many(rows)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// Those since a time, the oldest first.
pub(crate) async fn page(
    connection: &impl ConnectionTrait,
    since: Option<Timestamp>,
    slice: Slice,
) -> Result<Found<Withdrawal>, DbError> {
    let mut query = Entity::find()
        .order_by_asc(Column::At)
        .order_by_asc(Column::Id);
    if let Some(since) = since {
        query = query.filter(Column::At.gte(since));
    }
    let after = |query: Select<_>, place: &str| {
        let place = parse_position(place);
        let (at, id) = place.ok_or_else(|| DbErr::Custom("a position among withdrawals".into()))?;
        let place = Expr::tuple([Expr::value(at.0), Expr::value(id.0)]);
        Ok(query.filter(Expr::tuple([Expr::col(Column::At), Expr::col(Column::Id)]).gt(place)))
    };
    let (query, total) = slice.limit(connection, query, after).await?;
    let rows = query.all(connection).await?.into_iter();
    let rows = rows.map(Withdrawal::try_from);
    Ok((rows.collect::<Result<_, _>>()?, total))
}

/// Removes up to `count` lines that are older; how many.
pub(crate) async fn delete_before(
    transaction: &DatabaseTransaction,
    before: Timestamp,
    count: u64,
) -> Result<u64, DbError> {
    let old: Vec<i64> = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::At.lt(before))
        .limit(count)
        .into_tuple()
        .all(transaction)
        .await?;
    if old.is_empty() {
        return Ok(0);
    }
    let deleted = Entity::delete_many()
        .filter(Column::Id.is_in(old))
        .exec(transaction)
        .await?;
    Ok(deleted.rows_affected)
}

/// All of a customer.
pub(crate) async fn of_customer(
    connection: &impl ConnectionTrait,
    customer: CustomerRef,
) -> Result<Vec<Withdrawal>, DbError> {
    let rows = Entity::find()
        .filter(Column::Customer.eq(customer.as_bytes().to_vec()))
        .order_by_asc(Column::Id)
        .all(connection)
        .await?;
    let rows = rows.into_iter().map(Withdrawal::try_from);
    Ok(rows.collect::<Result<_, _>>()?)
}
