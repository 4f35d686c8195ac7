//! Users.

use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter};

use super::entity::users;
use crate::role::RoleSet;
use crate::user::User;

impl From<users::Model> for User {
    fn from(row: users::Model) -> Self {
        Self {
            id: row.id,
            name: row.name,
            email: row.email,
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
    id: &str,
) -> Result<Option<User>, DbErr> {
    let row = users::Entity::find_by_id(id).one(connection).await?;
    Ok(row.map(User::from))
}

/// The user who logs in with this name, whatever its case, and the hash of his password.
pub(crate) async fn by_username(
    connection: &impl ConnectionTrait,
    username: &str,
) -> Result<Option<(User, Option<String>)>, DbErr> {
    let row = users::Entity::find()
        .filter(users::Column::UsernameKey.eq(username.to_lowercase()))
        .one(connection)
        .await?;
    Ok(row.map(|row| {
        let hash = row.password_hash.clone();
        (User::from(row), hash)
    }))
}
