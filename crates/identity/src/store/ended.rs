//! Removes what has ended. Each statement finds its rows by an index, and as few as it removes.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::{audit, idempotency};
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{
    ColumnTrait, Condition, DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect,
    TryGetableMany, Value,
};

use super::entity::{api_keys, changes, codes, devices, grants, logins, revoked_tokens, sessions};

/// Rows of a kind removed in one transaction, so that it stays short.
const ROWS_MAX: u64 = 1_000;

/// Until when each kind of row is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) now: Timestamp,
    pub(crate) changes_before: Timestamp,
    pub(crate) devices_before: Timestamp,
    /// Keys, grants, sessions, codes and revocations that ended before.
    pub(crate) ended_before: Timestamp,
    pub(crate) logins_before: Timestamp,
    pub(crate) audit_before: Timestamp,
}

/// Removes up to [`ROWS_MAX`] rows of each kind. Whether there may be more.
pub(crate) async fn remove(
    transaction: &DatabaseTransaction,
    ended: Ended,
) -> Result<bool, DbError> {
    let before = ended.ended_before;
    let mut removed = [
        remove_some::<changes::Entity, i64>(
            transaction,
            changes::Column::Generation,
            changes::Column::At.lt(ended.changes_before),
        )
        .await?,
        remove_some::<logins::Entity, String>(
            transaction,
            logins::Column::Id,
            logins::Column::At.lt(ended.logins_before),
        )
        .await?,
        remove_some::<codes::Entity, Vec<u8>>(
            transaction,
            codes::Column::Digest,
            codes::Column::ExpiresAt.lt(before),
        )
        .await?,
        remove_some::<devices::Entity, Vec<u8>>(
            transaction,
            devices::Column::Digest,
            devices::Column::ExpiresAt.lt(ended.devices_before),
        )
        .await?,
        remove_some::<sessions::Entity, Vec<u8>>(
            transaction,
            sessions::Column::Digest,
            sessions::Column::ExpiresAt.lt(before),
        )
        .await?,
        remove_some::<revoked_tokens::Entity, String>(
            transaction,
            revoked_tokens::Column::Jti,
            revoked_tokens::Column::ExpiresAt.lt(before),
        )
        .await?,
        audit::remove_before(transaction, ended.audit_before, ROWS_MAX).await?,
        idempotency::prune(transaction, ended.now, ROWS_MAX).await?,
    ]
    .to_vec();
    for has_ended in [
        Condition::all().add(grants::Column::ExpiresAt.lt(before)),
        Condition::all().add(grants::Column::RevokedAt.lt(before)),
    ] {
        let grant = grants::Column::Id;
        removed.push(remove_some::<grants::Entity, String>(transaction, grant, has_ended).await?);
    }
    let (revoked_at, expires_at) = (api_keys::Column::RevokedAt, api_keys::Column::ExpiresAt);
    for has_ended in [
        Condition::all().add(revoked_at.lt(before)),
        Condition::all()
            .add(revoked_at.is_null())
            .add(expires_at.lt(before)),
    ] {
        let key = api_keys::Column::Id;
        let has_ended = has_ended.add(is_not_the_first_key());
        removed.push(remove_some::<api_keys::Entity, String>(transaction, key, has_ended).await?);
    }
    Ok(removed.into_iter().any(|count| count >= ROWS_MAX))
}

/// The first one stays: while there is a key, in force or not, no start of the server makes another.
fn is_not_the_first_key() -> Expr {
    let first = Query::select()
        .column(api_keys::Column::Id)
        .from(api_keys::Entity)
        .order_by(api_keys::Column::CreatedAt, sea_orm::Order::Asc)
        .order_by(api_keys::Column::Id, sea_orm::Order::Asc)
        .limit(1)
        .to_owned();
    api_keys::Column::Id.not_in_subquery(first)
}

/// Two statements, because a database may prefer to read a whole table for a subquery of many rows.
async fn remove_some<E, K>(
    transaction: &DatabaseTransaction,
    key: E::Column,
    has_ended: impl Into<Condition>,
) -> Result<u64, DbError>
where
    E: EntityTrait,
    K: TryGetableMany + Into<Value>,
{
    let keys: Vec<K> = E::find()
        .select_only()
        .column(key)
        .filter(has_ended.into())
        .limit(ROWS_MAX)
        .into_tuple()
        .all(transaction)
        .await?;
    if keys.is_empty() {
        return Ok(0);
    }
    let removed = E::delete_many()
        .filter(key.is_in(keys))
        .exec(transaction)
        .await?;
    Ok(removed.rows_affected)
}
