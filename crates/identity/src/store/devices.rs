//! Devices that wait for somebody to let them act.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::id::{ClientId, UserId};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, PaginatorTrait, QueryFilter,
    QuerySelect, Set,
};

use super::entity::devices;
use crate::types::grant::{Decision, Device};
use crate::types::user_code::UserCode;

impl From<devices::Model> for Device {
    fn from(row: devices::Model) -> Self {
        let allowed = row.user_id.zip(row.authenticated_at);
        Self {
            digest: row.digest,
            user_code: UserCode::from_stored(row.user_code),
            client_id: row.client_id,
            scopes: row.scopes,
            expires_at: row.expires_at,
            interval_s: row.interval_s,
            polled_at: row.polled_at,
            decision: match allowed {
                _ if row.denied => Some(Decision::Denied),
                Some((user_id, authenticated_at)) => Some(Decision::Allowed {
                    user_id,
                    authenticated_at,
                }),
                None => None,
            },
        }
    }
}

/// Adds a device that nobody has decided about.
pub(crate) async fn insert(
    transaction: &DatabaseTransaction,
    device: Device,
) -> Result<(), DbError> {
    let row = devices::ActiveModel {
        digest: Set(device.digest),
        user_code: Set(device.user_code.as_str().to_owned()),
        client_id: Set(device.client_id),
        scopes: Set(device.scopes),
        expires_at: Set(device.expires_at),
        interval_s: Set(device.interval_s),
        polled_at: Set(device.polled_at),
        denied: Set(false),
        user_id: Set(None),
        authenticated_at: Set(None),
    };
    devices::Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// The device with this digest.
pub(crate) async fn by_digest(
    connection: &impl ConnectionTrait,
    digest: Vec<u8>,
) -> Result<Option<Device>, DbError> {
    let row = devices::Entity::find_by_id(digest).one(connection);
    Ok(row.await?.map(Device::from))
}

/// The device with this user code, whether or not it still waits.
pub(crate) async fn by_user_code(
    connection: &impl ConnectionTrait,
    code: &UserCode,
) -> Result<Option<Device>, DbError> {
    let row = devices::Entity::find()
        .filter(devices::Column::UserCode.eq(code.as_str()))
        .one(connection);
    Ok(row.await?.map(Device::from))
}

/// How many end after `after` and not after `until`: of one client, or of all.
pub(crate) async fn count(
    connection: &impl ConnectionTrait,
    client_id: Option<&ClientId>,
    after: Timestamp,
    until: Timestamp,
) -> Result<u64, DbError> {
    let mut wanted = devices::Entity::find()
        .select_only()
        .column(devices::Column::ExpiresAt)
        .filter(devices::Column::ExpiresAt.gt(after))
        .filter(devices::Column::ExpiresAt.lte(until));
    if let Some(client_id) = client_id {
        wanted = wanted.filter(devices::Column::ClientId.eq(client_id));
    }
    Ok(wanted.count(connection).await?)
}

/// Notes that a device has asked, and how long it is to wait now.
pub(crate) async fn set_polled(
    transaction: &DatabaseTransaction,
    digest: Vec<u8>,
    at: Timestamp,
    interval_s: i64,
) -> Result<(), DbError> {
    devices::Entity::update_many()
        .col_expr(devices::Column::PolledAt, Expr::value(at))
        .col_expr(devices::Column::IntervalS, Expr::value(interval_s))
        .filter(devices::Column::Digest.eq(digest))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Keeps what somebody decided, with the scopes that they allowed.
pub(crate) async fn decide(
    transaction: &DatabaseTransaction,
    digest: Vec<u8>,
    scopes: String,
    decision: Decision,
) -> Result<(), DbError> {
    let (denied, user_id, authenticated_at) = match decision {
        Decision::Denied => (true, None, None),
        Decision::Allowed {
            user_id,
            authenticated_at,
        } => (false, Some(user_id), Some(authenticated_at)),
    };
    let row = devices::ActiveModel {
        scopes: Set(scopes),
        denied: Set(denied),
        user_id: Set(user_id),
        authenticated_at: Set(authenticated_at),
        ..Default::default()
    };
    devices::Entity::update_many()
        .set(row)
        .filter(devices::Column::Digest.eq(digest))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Takes a device for a grant. Of any number who try, in whatever processes, exactly one is told yes.
pub(crate) async fn take(
    transaction: &DatabaseTransaction,
    digest: Vec<u8>,
) -> Result<bool, DbError> {
    let taken = devices::Entity::delete_by_id(digest).exec(transaction);
    Ok(taken.await?.rows_affected == 1)
}

/// Removes the devices of a client.
pub(crate) async fn delete_of_client(
    transaction: &DatabaseTransaction,
    client_id: &ClientId,
) -> Result<(), DbError> {
    devices::Entity::delete_many()
        .filter(devices::Column::ClientId.eq(client_id))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Removes the devices that a user has allowed.
pub(crate) async fn delete_of_user(
    transaction: &DatabaseTransaction,
    user_id: &UserId,
) -> Result<(), DbError> {
    devices::Entity::delete_many()
        .filter(devices::Column::UserId.eq(user_id))
        .exec(transaction)
        .await?;
    Ok(())
}

/// The same, of one client. Whether there were any.
pub(crate) async fn delete_of(
    transaction: &DatabaseTransaction,
    user_id: &UserId,
    client_id: &ClientId,
) -> Result<bool, DbError> {
    let deleted = devices::Entity::delete_many()
        .filter(devices::Column::UserId.eq(user_id))
        .filter(devices::Column::ClientId.eq(client_id))
        .exec(transaction)
        .await?;
    Ok(deleted.rows_affected > 0)
}
