//! Keys of requests that must not be carried out twice, and what was answered to them.

use crate::db::DbError;
use sea_orm::sea_query::{LockBehavior, LockType, OnConflict, Query};
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, Set};

use crate::clock::Timestamp;

mod rows {
    use sea_orm::entity::prelude::*;

    use crate::clock::Timestamp;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "kernel_idempotency_keys")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) digest: Vec<u8>,
        pub(crate) claim: Vec<u8>,
        pub(crate) fingerprint: Vec<u8>,
        pub(crate) expires_at: Timestamp,
        pub(crate) status: Option<i32>,
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

/// Somebody's right to carry out a request.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// Stands for the key, and for who sent it where.
    pub(crate) digest: [u8; 32],
    /// Stands for the body.
    pub(crate) fingerprint: [u8; 32],
    /// Tells this claim from one that took its place.
    pub(crate) id: [u8; 16],
    /// When another may take its place.
    pub(crate) expires_at: Timestamp,
}

/// What a key was found to be.
#[derive(Debug)]
pub(crate) enum Found {
    /// Free, and now taken by the claim.
    Free,
    /// Taken by a request with this body, and answered if that was carried out.
    Taken {
        fingerprint: Vec<u8>,
        answer: Option<StoredAnswer>,
    },
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

/// Takes a key if it is free or expired.
pub(crate) async fn claim(
    transaction: &DatabaseTransaction,
    claim: &Claim,
    now: Timestamp,
) -> Result<Found, DbError> {
    rows::Entity::delete_many()
        .filter(rows::Column::Digest.eq(claim.digest.to_vec()))
        .filter(rows::Column::ExpiresAt.lte(now))
        .exec(transaction)
        .await?;
    let row = rows::ActiveModel {
        digest: Set(claim.digest.to_vec()),
        claim: Set(claim.id.to_vec()),
        fingerprint: Set(claim.fingerprint.to_vec()),
        expires_at: Set(claim.expires_at),
        ..Default::default()
    };
    let keep_the_first = OnConflict::column(rows::Column::Digest)
        .do_nothing()
        .to_owned();
    let inserted = rows::Entity::insert(row)
        .on_conflict(keep_the_first)
        .exec_without_returning(transaction)
        .await?;
    if inserted > 0 {
        return Ok(Found::Free);
    }
    let row = rows::Entity::find_by_id(claim.digest.to_vec());
    // Who held the key may have freed it just now; it is taken a moment longer.
    let gone = || Found::Taken {
        fingerprint: claim.fingerprint.to_vec(),
        answer: None,
    };
    Ok(row.one(transaction).await?.map_or_else(gone, taken))
}

fn taken(row: rows::Model) -> Found {
    let status = row.status.and_then(|status| u16::try_from(status).ok());
    let answer = status.map(|status| StoredAnswer {
        status,
        location: row.location,
        etag: row.etag,
        content_type: row.content_type,
        body: row.body,
    });
    Found::Taken {
        fingerprint: row.fingerprint,
        answer,
    }
}

/// Keeps what was answered, if the claim still stands.
pub(crate) async fn keep(
    transaction: &DatabaseTransaction,
    claim: &Claim,
    answer: StoredAnswer,
    expires_at: Timestamp,
) -> Result<(), DbError> {
    let answered = rows::ActiveModel {
        expires_at: Set(expires_at),
        status: Set(Some(answer.status.into())),
        location: Set(answer.location),
        etag: Set(answer.etag),
        content_type: Set(answer.content_type),
        body: Set(answer.body),
        ..Default::default()
    };
    rows::Entity::update_many()
        .set(answered)
        .filter(rows::Column::Digest.eq(claim.digest.to_vec()))
        .filter(rows::Column::Claim.eq(claim.id.to_vec()))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Frees the key, if the claim still stands.
pub(crate) async fn release(
    transaction: &DatabaseTransaction,
    claim: &Claim,
) -> Result<(), DbError> {
    rows::Entity::delete_many()
        .filter(rows::Column::Digest.eq(claim.digest.to_vec()))
        .filter(rows::Column::Claim.eq(claim.id.to_vec()))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Forgets at most so many expired keys; returns how many. Those that another process is just
/// forgetting are left to it.
pub(crate) async fn prune(
    transaction: &DatabaseTransaction,
    now: Timestamp,
    rows_max: u64,
) -> Result<u64, DbError> {
    let expired = Query::select()
        .column(rows::Column::Digest)
        .from(rows::Entity)
        .and_where(rows::Column::ExpiresAt.lte(now))
        .limit(rows_max)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .to_owned();
    let deleted = rows::Entity::delete_many()
        .filter(rows::Column::Digest.in_subquery(expired))
        .exec(transaction)
        .await?;
    Ok(deleted.rows_affected)
}
