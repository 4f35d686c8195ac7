//! The erasures of the keys database that were carried out in this one. It is copied with the texts,
//! so a restored backup knows which of them it has still to carry out.

use std::collections::HashSet;

use auspex_kernel::db::DbError;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Set,
};

use super::entity::erased::{ActiveModel, Column, Entity};
use super::{id_of, padded};

/// Whether an erasure was carried out.
pub(crate) async fn has(
    connection: &impl ConnectionTrait,
    erasure: &[u8; 16],
) -> Result<bool, DbError> {
    let found = Entity::find_by_id(erasure.to_vec()).one(connection).await?;
    Ok(found.is_some())
}

/// Which of these erasures were carried out.
pub(crate) async fn among(
    connection: &impl ConnectionTrait,
    erasures: impl Iterator<Item = [u8; 16]>,
) -> Result<Vec<[u8; 16]>, DbError> {
    let found = Entity::find()
        .filter(Column::ErasureId.is_in(erasures.map(|id| id.to_vec())))
        .all(connection)
        .await?;
    let ids = found.iter().map(|row| id_of(&row.erasure_id));
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Which of these keys were erased.
pub(crate) async fn keys_among(
    connection: &impl ConnectionTrait,
    keys: impl Iterator<Item = [u8; 16]>,
) -> Result<HashSet<[u8; 16]>, DbError> {
    let found: Vec<Vec<u8>> = Entity::find()
        .select_only()
        .column(Column::KeyId)
        .filter(Column::KeyId.is_in(padded(keys.map(|id| id.to_vec()).collect())))
        .into_tuple()
        .all(connection)
        .await?;
    Ok(found.iter().map(|id| id_of(id)).collect::<Result<_, _>>()?)
}

/// Keys that were erased, after a place: each with the place that follows.
pub(crate) async fn keys_after(
    connection: &impl ConnectionTrait,
    after: Option<[u8; 16]>,
    count: u64,
) -> Result<Vec<([u8; 16], Option<Vec<u8>>)>, DbError> {
    let mut query = Entity::find().order_by_asc(Column::ErasureId).limit(count);
    if let Some(after) = after {
        query = query.filter(Column::ErasureId.gt(after.to_vec()));
    }
    let rows = query.all(connection).await?;
    let rows = rows
        .into_iter()
        .map(|row| Ok((id_of(&row.erasure_id)?, row.key_id)));
    Ok(rows.collect::<Result<_, sea_orm::DbErr>>()?)
}

pub(crate) async fn insert(
    transaction: &DatabaseTransaction,
    erasure: &[u8; 16],
    key_id: Option<&[u8]>,
) -> Result<(), DbError> {
    let row = ActiveModel {
        erasure_id: Set(erasure.to_vec()),
        key_id: Set(key_id.map(<[u8]>::to_vec)),
    };
    Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}
