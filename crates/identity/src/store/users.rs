//! Users.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::id::UserId;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter,
    QuerySelect, Set,
};

use super::entity::{logins, users};
use super::{Kind, record_change};
use crate::canonical;
use crate::types::role::RoleSet;
use crate::types::user::{LoginMethod, User};
use auspex_kernel::audit::{Actor, address_prefix};

impl From<users::Model> for User {
    fn from(row: users::Model) -> Self {
        Self {
            id: row.id,
            name: row.name,
            email: row.email,
            email_verified: row.email_verified,
            username: row.username,
            age: row.age,
            roles: RoleSet::from_stored(&row.roles),
            disabled_at: row.disabled_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
            last_login_at: row.last_login_at,
            login_count: row.login_count,
            version: row.version,
            has_password: row.password_hash.is_some(),
        }
    }
}

/// The user with this id.
pub(crate) async fn by_id(
    connection: &impl ConnectionTrait,
    id: &UserId,
) -> Result<Option<User>, DbError> {
    let row = users::Entity::find_by_id(id.clone())
        .one(connection)
        .await?;
    Ok(row.map(User::from))
}

/// The hash of a user's password, if they have one.
pub(crate) async fn password_hash(
    connection: &impl ConnectionTrait,
    id: &UserId,
) -> Result<Option<String>, DbError> {
    let hash = users::Entity::find_by_id(id.clone())
        .select_only()
        .column(users::Column::PasswordHash)
        .into_tuple::<Option<String>>()
        .one(connection)
        .await?;
    Ok(hash.flatten())
}

/// The user who logs in with this username or e-mail address, in whatever form, and the hash of their password.
/// No user has the address of another as their name.
pub(crate) async fn by_login_name(
    connection: &impl ConnectionTrait,
    name: &str,
) -> Result<Option<(User, Option<String>)>, DbError> {
    // PostgreSQL takes no NUL, and no username has one.
    if name.contains('\0') {
        return Ok(None);
    }
    let written = canonical::old_key(name);
    let keys = [canonical::key(name), written.clone()];
    let is_theirs = Condition::any()
        .add(users::Column::UsernameKey.is_in(keys.clone()))
        .add(users::Column::EmailKey.is_in(keys.clone()));
    let rows = users::Entity::find()
        .filter(is_theirs)
        .all(connection)
        .await?;
    // Names from before they had one form may be the same as another, or as the address of another.
    let row = rows.into_iter().max_by_key(|row| {
        let is_name = keys.contains(&row.username_key);
        (is_name, row.username_key == written)
    });
    Ok(row.map(|row| {
        let hash = row.password_hash.clone();
        (User::from(row), hash)
    }))
}

/// The hash of the password of a user who is not disabled, and neither can change until this
/// transaction ends.
pub(crate) async fn lock_password(
    transaction: &DatabaseTransaction,
    id: &UserId,
) -> Result<Option<Option<String>>, DbError> {
    Ok(users::Entity::find_by_id(id.clone())
        .select_only()
        .column(users::Column::PasswordHash)
        .filter(users::Column::DisabledAt.is_null())
        .lock_shared()
        .into_tuple()
        .one(transaction)
        .await?)
}

/// Counts a login of a user who is not disabled and whose password is still the one checked, and
/// stores its new hash if there is one. The user as they are now, or `None`.
pub(crate) async fn count_login(
    transaction: &DatabaseTransaction,
    id: &UserId,
    had: Option<String>,
    rehashed: Option<String>,
    now: Timestamp,
) -> Result<Option<User>, DbError> {
    let count = users::Column::LoginCount;
    let mut update = users::Entity::update_many()
        .col_expr(count, Expr::col(count).add(1))
        .col_expr(users::Column::LastLoginAt, Expr::value(now));
    let changes_hash = rehashed.is_some();
    if let Some(hash) = rehashed {
        update = update.col_expr(users::Column::PasswordHash, Expr::value(hash));
    }
    let done = update
        .filter(users::Column::Id.eq(id))
        .filter(users::Column::DisabledAt.is_null())
        .filter(users::Column::PasswordHash.eq(had))
        .exec(transaction)
        .await?;
    if done.rows_affected == 0 {
        return Ok(None);
    }
    if changes_hash {
        record_change(transaction, Kind::User, id, now).await?;
    }
    by_id(transaction, id).await
}

/// Adds a line to a user's history.
pub(crate) async fn insert_login(
    transaction: &DatabaseTransaction,
    id: String,
    user_id: &UserId,
    method: LoginMethod,
    actor: &Actor,
    now: Timestamp,
) -> Result<(), DbError> {
    let row = logins::ActiveModel {
        id: Set(id),
        user_id: Set(user_id.to_owned()),
        at: Set(now),
        method: Set(method.as_str().to_owned()),
        address: Set(actor.address.map(address_prefix).unwrap_or_default()),
    };
    logins::Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}
