//! Dialogues that were decided.

use std::collections::HashSet;

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait as _,
    ExprTrait as _, PaginatorTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    QueryTrait as _, Set,
};

use super::entity::dialogues::{ActiveModel, Column, Entity, Model};
use super::{customer_of, dialogue_of, padded, pieces};
use crate::ids::{CustomerRef, DialogueRef};
use crate::types::{DecidedDialogue, Status};

/// What is stored of one.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) decided: DecidedDialogue,
    pub(crate) key_id: Option<Vec<u8>>,
    /// Where its ids are sealed.
    pub(crate) ids_id: Option<i64>,
}

impl TryFrom<Model> for Row {
    type Error = DbErr;

    fn try_from(row: Model) -> Result<Self, DbErr> {
        let status = Status::from_stored(&row.status)
            .ok_or_else(|| DbErr::Custom("the status of a dialogue is unknown".into()))?;
        Ok(Self {
            decided: DecidedDialogue {
                dialogue: dialogue_of(&row.dialogue)?,
                customer: customer_of(&row.customer)?,
                status,
                texts: row.texts.unsigned_abs(),
                began_at: row.began_at,
                decided_at: row.decided_at,
            },
            key_id: row.key_id,
            ids_id: row.ids_id,
        })
    }
}

fn rows(models: Vec<Model>) -> Result<Vec<Row>, DbError> {
    Ok(models
        .into_iter()
        .map(Row::try_from)
        .collect::<Result<_, _>>()?)
}

pub(crate) async fn find(
    connection: &impl ConnectionTrait,
    dialogue: DialogueRef,
) -> Result<Option<Row>, DbError> {
    let found = Entity::find_by_id(dialogue.as_bytes().to_vec());
    let found = found.one(connection).await?;
    Ok(found.map(Row::try_from).transpose()?)
}

/// Those of these that were decided.
pub(crate) async fn find_all(
    connection: &impl ConnectionTrait,
    dialogues: &[DialogueRef],
) -> Result<Vec<Row>, DbError> {
    let wanted = dialogues
        .iter()
        .map(|dialogue| dialogue.as_bytes().to_vec());
    let found = Entity::find()
        .filter(Column::Dialogue.is_in(padded(wanted.collect())))
        .all(connection)
        .await?;
    rows(found)
}

/// The sealed ids of some dialogues that have any.
pub(crate) async fn sealed_ids(
    connection: &impl ConnectionTrait,
    dialogues: impl Iterator<Item = DialogueRef>,
) -> Result<Vec<(DialogueRef, Vec<u8>)>, DbError> {
    let wanted = dialogues.map(|dialogue| dialogue.as_bytes().to_vec());
    let places: Vec<(Vec<u8>, i64)> = Entity::find()
        .select_only()
        .columns([Column::Dialogue, Column::IdsId])
        .filter(Column::Dialogue.is_in(wanted))
        .filter(Column::IdsId.is_not_null())
        .into_tuple()
        .all(connection)
        .await?;
    let ids: Vec<i64> = places.iter().map(|(_, id)| *id).collect();
    let sealed = super::sealed::find(connection, &ids).await?;
    let mut found = Vec::new();
    for (dialogue, id) in places {
        if let Ok(place) = sealed.binary_search_by_key(&id, |(id, _)| *id) {
            found.push((dialogue_of(&dialogue)?, sealed[place].1.clone()));
        }
    }
    Ok(found)
}

/// Adds those that are not there; which they were.
pub(crate) async fn insert_absent(
    transaction: &DatabaseTransaction,
    new: Vec<Row>,
) -> Result<HashSet<DialogueRef>, DbError> {
    let mut added = HashSet::new();
    for some in pieces(new) {
        let rows = some.into_iter().map(|row| ActiveModel {
            dialogue: Set(row.decided.dialogue.as_bytes().to_vec()),
            customer: Set(row.decided.customer.as_bytes().to_vec()),
            key_id: Set(row.key_id),
            status: Set(row.decided.status.as_str().to_owned()),
            texts: Set(row.decided.texts.cast_signed()),
            began_at: Set(row.decided.began_at),
            decided_at: Set(row.decided.decided_at),
            ids_id: Set(row.ids_id),
        });
        let keep_the_first = OnConflict::column(Column::Dialogue).do_nothing().to_owned();
        let mut insert = Entity::insert_many(rows)
            .on_conflict(keep_the_first)
            .into_query();
        insert.returning_col(Column::Dialogue);
        for row in transaction.query_all(&insert).await? {
            let dialogue: Vec<u8> = row.try_get_by_index(0)?;
            added.insert(dialogue_of(&dialogue)?);
        }
    }
    Ok(added)
}

/// It keeps neither its key nor its ids.
pub(crate) async fn set_withdrawn(
    transaction: &DatabaseTransaction,
    dialogue: DialogueRef,
    now: Timestamp,
) -> Result<(), DbError> {
    erase_ids(transaction, vec![dialogue.as_bytes().to_vec()]).await?;
    Entity::update_many()
        .filter(Column::Dialogue.eq(dialogue.as_bytes().to_vec()))
        .col_expr(Column::Status, Expr::value(Status::Withdrawn.as_str()))
        .col_expr(Column::DecidedAt, Expr::value(now.0))
        .col_expr(Column::KeyId, Expr::value(Option::<Vec<u8>>::None))
        .col_expr(Column::IdsId, Expr::value(Option::<i64>::None))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Some dialogues of a customer, in the order of their pseudonyms.
pub(crate) async fn of_customer(
    connection: &impl ConnectionTrait,
    customer: CustomerRef,
    status: Option<Status>,
    after: Option<DialogueRef>,
    count: u64,
) -> Result<Vec<Row>, DbError> {
    let mut query = Entity::find()
        .filter(Column::Customer.eq(customer.as_bytes().to_vec()))
        .order_by_asc(Column::Dialogue)
        .limit(count);
    if let Some(status) = status {
        query = query.filter(Column::Status.eq(status.as_str()));
    }
    if let Some(after) = after {
        query = query.filter(Column::Dialogue.gt(after.as_bytes().to_vec()));
    }
    rows(query.all(connection).await?)
}

/// How many dialogues of each status a customer has.
pub(crate) async fn count(
    connection: &impl ConnectionTrait,
    customer: CustomerRef,
    status: Status,
) -> Result<u64, DbError> {
    Ok(Entity::find()
        .filter(Column::Customer.eq(customer.as_bytes().to_vec()))
        .filter(Column::Status.eq(status.as_str()))
        .count(connection)
        .await?)
}

/// Of an erased customer: what was stored under the erased key, and what was decided until then.
fn erased(customer: CustomerRef, key_id: Option<&[u8]>, erased_at: Timestamp) -> Condition {
    let mut either = Condition::any().add(
        Column::KeyId
            .is_null()
            .and(Column::DecidedAt.lte(erased_at)),
    );
    if let Some(key_id) = key_id {
        either = either.add(Column::KeyId.eq(key_id.to_vec()));
    }
    Condition::all()
        .add(Column::Customer.eq(customer.as_bytes().to_vec()))
        .add(either)
}

/// Some dialogues that an erasure has to delete.
pub(crate) async fn to_erase(
    connection: &impl ConnectionTrait,
    customer: CustomerRef,
    key_id: Option<&[u8]>,
    erased_at: Timestamp,
    count: u64,
) -> Result<Vec<Row>, DbError> {
    let query = Entity::find().filter(erased(customer, key_id, erased_at));
    rows(query.limit(count).all(connection).await?)
}

pub(crate) async fn delete(
    transaction: &DatabaseTransaction,
    dialogues: impl Iterator<Item = DialogueRef>,
) -> Result<u64, DbError> {
    let wanted: Vec<_> = dialogues
        .map(|dialogue| dialogue.as_bytes().to_vec())
        .collect();
    erase_ids(transaction, wanted.clone()).await?;
    let deleted = Entity::delete_many()
        .filter(Column::Dialogue.is_in(wanted))
        .exec(transaction)
        .await?;
    Ok(deleted.rows_affected)
}

/// The real ids of these dialogues go; what was decided about them stays.
pub(crate) async fn forget_ids(
    transaction: &DatabaseTransaction,
    dialogues: &[DialogueRef],
) -> Result<(), DbError> {
    let wanted = dialogues
        .iter()
        .map(|dialogue| dialogue.as_bytes().to_vec());
    let wanted: Vec<_> = wanted.collect();
    erase_ids(transaction, wanted.clone()).await?;
    Entity::update_many()
        .filter(Column::Dialogue.is_in(wanted))
        .col_expr(Column::IdsId, Expr::value(Option::<i64>::None))
        .exec(transaction)
        .await?;
    Ok(())
}

async fn erase_ids(
    transaction: &DatabaseTransaction,
    dialogues: Vec<Vec<u8>>,
) -> Result<(), DbError> {
    let ids: Vec<i64> = Entity::find()
        .select_only()
        .column(Column::IdsId)
        .filter(Column::Dialogue.is_in(dialogues))
        .filter(Column::IdsId.is_not_null())
        .into_tuple()
        .all(transaction)
        .await?;
    super::sealed::erase(transaction, &ids).await
}

/// Dialogues that were decided before this time, the oldest first, after a place.
pub(crate) async fn decided_before(
    connection: &impl ConnectionTrait,
    before: Timestamp,
    after: Option<(Timestamp, DialogueRef)>,
    count: u64,
) -> Result<Vec<Row>, DbError> {
    let mut query = Entity::find()
        .filter(Column::DecidedAt.lt(before))
        .order_by_asc(Column::DecidedAt)
        .order_by_asc(Column::Dialogue)
        .limit(count);
    if let Some((at, dialogue)) = after {
        let place = Expr::tuple([Expr::value(at.0), Expr::value(dialogue.as_bytes().to_vec())]);
        let of_row = Expr::tuple([Expr::col(Column::DecidedAt), Expr::col(Column::Dialogue)]);
        query = query.filter(of_row.gt(place));
    }
    rows(query.all(connection).await?)
}
