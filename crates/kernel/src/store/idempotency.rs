//! Keys of requests that must not be carried out twice, and what was answered to them.

use crate::db::DbError;
use sea_orm::sea_query::{Expr, ExprTrait as _, LockBehavior, LockType, OnConflict};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, Iterable as _,
    QueryFilter, QuerySelect as _, Set,
};

use crate::clock::Timestamp;

mod rows {
    use sea_orm::entity::prelude::*;

    use crate::clock::Timestamp;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "kernel_idempotency_keys")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) digest: Vec<u8>,
        pub(crate) fingerprint: Vec<u8>,
        pub(crate) expires_at: Timestamp,
        pub(crate) status: i32,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) location: Option<String>,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) etag: Option<String>,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) content_type: Option<String>,
        pub(crate) body: Option<Vec<u8>>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// An `Idempotency-Key`.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// Stands for the key, and for who sent it where.
    pub(crate) digest: [u8; 32],
    /// Stands for the body.
    pub(crate) fingerprint: [u8; 32],
}

/// A request that was carried out.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) answer: StoredAnswer,
}

/// What was answered.
#[derive(Clone, Debug)]
pub(crate) struct StoredAnswer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) etag: Option<String>,
    pub(crate) content_type: Option<String>,
    /// Absent where it is not kept.
    pub(crate) body: Option<Vec<u8>>,
}

/// The request that was carried out with this key, unless that is forgotten.
pub(crate) async fn find(
    connection: &impl ConnectionTrait,
    key: &Key,
    now: Timestamp,
) -> Result<Option<Found>, DbError> {
    let row = rows::Entity::find_by_id(key.digest.to_vec())
        .filter(rows::Column::ExpiresAt.gt(now))
        .one(connection)
        .await?;
    let found = |row: rows::Model| {
        let status = u16::try_from(row.status);
        Ok(Found {
            fingerprint: row.fingerprint,
            answer: StoredAnswer {
                status: status.map_err(|_| DbErr::Type(format!("the status {}", row.status)))?,
                location: row.location,
                etag: row.etag,
                content_type: row.content_type,
                body: row.body,
            },
        })
    };
    row.map(found).transpose()
}

/// Keeps what was answered. Whether it could: not if the key has been used meanwhile.
pub(crate) async fn keep(
    transaction: &DatabaseTransaction,
    key: &Key,
    answer: StoredAnswer,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<bool, DbError> {
    let row = rows::ActiveModel {
        digest: Set(key.digest.to_vec()),
        fingerprint: Set(key.fingerprint.to_vec()),
        expires_at: Set(expires_at),
        status: Set(answer.status.into()),
        location: Set(answer.location),
        etag: Set(answer.etag),
        content_type: Set(answer.content_type),
        body: Set(answer.body),
    };
    let columns = rows::Column::iter().filter(|column| !matches!(column, rows::Column::Digest));
    // On PostgreSQL this waits for the transaction that is using the key.
    let instead_of_an_expired_one = OnConflict::column(rows::Column::Digest)
        .update_columns(columns)
        .action_and_where(Expr::col((rows::Entity, rows::Column::ExpiresAt)).lte(now))
        .to_owned();
    let kept = rows::Entity::insert(row)
        .on_conflict(instead_of_an_expired_one)
        .exec_without_returning(transaction)
        .await?;
    Ok(kept > 0)
}

/// Forgets at most so many expired keys; returns how many. Those that another process is just
/// forgetting are left to it.
///
/// # Errors
/// [`DbError::Database`].
pub async fn prune(
    transaction: &DatabaseTransaction,
    now: Timestamp,
    rows_max: u64,
) -> Result<u64, DbError> {
    let expired: Vec<Vec<u8>> = rows::Entity::find()
        .select_only()
        .column(rows::Column::Digest)
        .filter(rows::Column::ExpiresAt.lte(now))
        .limit(rows_max)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .into_tuple()
        .all(transaction)
        .await?;
    if expired.is_empty() {
        return Ok(0);
    }
    let deleted = rows::Entity::delete_many()
        .filter(rows::Column::Digest.is_in(expired))
        .exec(transaction)
        .await?;
    Ok(deleted.rows_affected)
}

/// Forgets what was answered to the requests that made the things at these places. That they were
/// carried out stays known, so that none is carried out again.
///
/// # Errors
/// [`DbError::Database`].
pub async fn forget_answers(
    transaction: &DatabaseTransaction,
    locations: impl IntoIterator<Item = String>,
) -> Result<(), DbError> {
    rows::Entity::update_many()
        .col_expr(rows::Column::Body, Expr::value(None::<Vec<u8>>))
        .filter(rows::Column::Location.is_in(locations))
        .exec(transaction)
        .await?;
    Ok(())
}
