//! The history of logins.

use auspex_kernel::db::DbError;
use auspex_kernel::id::UserId;
use auspex_kernel::page::{Found, Slice};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, Order, QueryFilter};

use super::entity::logins;
use crate::types::user::Login;

/// The logins of a user, newest first.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    user_id: UserId,
    slice: Slice,
) -> Result<Found<Login>, DbError> {
    let of_user = logins::Entity::find().filter(logins::Column::UserId.eq(user_id));
    let by_id = slice.by_id(connection, of_user, logins::Column::Id, Order::Desc);
    let (rows, total) = by_id.await?;
    let login = |row: logins::Model| Login {
        id: row.id,
        at: row.at,
        method: row.method,
        address: row.address,
    };
    Ok((rows.into_iter().map(login).collect(), total))
}
