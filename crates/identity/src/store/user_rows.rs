//! Users as they are added, changed, removed and listed.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::id::UserId;
use auspex_kernel::page::{Found, Slice};
use sea_orm::ActiveValue::NotSet;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait, Order, QueryFilter,
    SelectExt as _, Set,
};

use super::entity::{api_keys, logins, users};
use super::{Kind, codes, consents, devices, keys, record_change, sessions};
use crate::canonical;
use crate::types::role::Role;
use crate::types::user::{User, UserFilter};

/// Adds a user. Another's e-mail or name, in either case, is a violation of a unique index.
pub(crate) async fn insert(
    transaction: &DatabaseTransaction,
    user: &User,
    password_hash: Option<String>,
) -> Result<(), DbError> {
    let row = users::ActiveModel {
        id: Set(user.id.clone()),
        created_at: Set(user.created_at),
        last_login_at: Set(None),
        login_count: Set(0),
        password_hash: Set(password_hash),
        ..changeable(user)
    };
    users::Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// Stores a user's new state, and the password where it is given. Violations as in [`insert`].
pub(crate) async fn update(
    transaction: &DatabaseTransaction,
    before: &User,
    user: &User,
    password_hash: Option<Option<String>>,
) -> Result<(), DbError> {
    let mut row = changeable(user);
    // A name from before they had one form may be found by no other key.
    if before.username == user.username {
        row.username_key = NotSet;
    }
    if before.email == user.email {
        row.email_key = NotSet;
    }
    if let Some(hash) = password_hash {
        row.password_hash = Set(hash);
    }
    users::Entity::update_many()
        .set(row)
        .filter(users::Column::Id.eq(&user.id))
        .exec(transaction)
        .await?;
    Ok(())
}

/// What a change may touch: not the logins, which are counted meanwhile.
fn changeable(user: &User) -> users::ActiveModel {
    users::ActiveModel {
        name: Set(user.name.clone()),
        email: Set(user.email.clone()),
        email_verified: Set(user.email_verified),
        email_key: Set(canonical::key(&user.email)),
        username: Set(user.username.clone()),
        username_key: Set(canonical::key(&user.username)),
        age: Set(user.age),
        roles: Set(user.roles.to_string()),
        disabled_at: Set(user.disabled_at),
        updated_at: Set(user.updated_at),
        version: Set(user.version),
        ..Default::default()
    }
}

/// Whether another user's e-mail address is this one's username, or the other way round.
pub(crate) async fn is_name_of_another(
    transaction: &DatabaseTransaction,
    user: &User,
) -> Result<bool, DbError> {
    let taken = Condition::any()
        .add(users::Column::EmailKey.eq(canonical::key(&user.username)))
        .add(users::Column::UsernameKey.eq(canonical::key(&user.email)));
    // Commands and clients name users by either.
    let taken = match UserId::parse(&user.username) {
        Some(id) => taken.add(users::Column::Id.eq(id)),
        None => taken,
    };
    Ok(users::Entity::find()
        .filter(users::Column::Id.ne(&user.id))
        .filter(taken)
        .exists(transaction)
        .await?)
}

/// Whether anybody but this user is an administrator who is not disabled. One without a password
/// counts: they may have a key or a session, and a password is not the only way in.
pub(crate) async fn has_other_admin(
    transaction: &DatabaseTransaction,
    id: &UserId,
) -> Result<bool, DbError> {
    Ok(users::Entity::find()
        .filter(users::Column::Id.ne(id))
        .filter(users::Column::DisabledAt.is_null())
        .filter(has_role(Role::Admin))
        .exists(transaction)
        .await?)
}

/// Removes a user with everything of theirs but the grants, which must be revoked before: the record
/// of that makes their tokens be refused.
pub(crate) async fn delete(
    transaction: &DatabaseTransaction,
    id: &UserId,
    now: Timestamp,
) -> Result<(), DbError> {
    for key in keys::ids_of_owners(transaction, vec![id.to_owned()]).await? {
        record_change(transaction, Kind::Key, &key, now).await?;
    }
    api_keys::Entity::delete_many()
        .filter(api_keys::Column::OwnerId.eq(id))
        .exec(transaction)
        .await?;
    logins::Entity::delete_many()
        .filter(logins::Column::UserId.eq(id))
        .exec(transaction)
        .await?;
    consents::delete_of_user(transaction, id).await?;
    end_sessions(transaction, id).await?;
    users::Entity::delete_by_id(id.clone())
        .exec(transaction)
        .await?;
    record_change(transaction, Kind::User, id, now).await
}

/// Ends a user's sessions at the login page, and the codes and devices that one of them may just have
/// allowed.
pub(crate) async fn end_sessions(
    transaction: &DatabaseTransaction,
    user_id: &UserId,
) -> Result<(), DbError> {
    sessions::delete_of_user(transaction, user_id).await?;
    codes::delete_of_user(transaction, user_id).await?;
    devices::delete_of_user(transaction, user_id).await
}

/// Users in the order of creation.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    filter: UserFilter,
    slice: Slice,
) -> Result<Found<User>, DbError> {
    let mut wanted = Condition::all();
    if let Some(email) = filter.email {
        let keys = [canonical::key(&email), canonical::old_key(&email)];
        wanted = wanted.add(users::Column::EmailKey.is_in(keys));
    }
    if let Some(username) = filter.username {
        let keys = [canonical::key(&username), canonical::old_key(&username)];
        wanted = wanted.add(users::Column::UsernameKey.is_in(keys));
    }
    if let Some(role) = filter.role {
        wanted = wanted.add(has_role(role));
    }
    if let Some(disabled) = filter.disabled {
        let at = users::Column::DisabledAt;
        wanted = wanted.add(if disabled {
            at.is_not_null()
        } else {
            at.is_null()
        });
    }
    let query = users::Entity::find().filter(wanted);
    let by_id = slice.by_id(connection, query, users::Column::Id, Order::Asc);
    let (rows, total) = by_id.await?;
    Ok((rows.into_iter().map(User::from).collect(), total))
}

/// Roles are stored as words between single spaces. Exactly like this the condition stands in the
/// index of each role, which is not used otherwise; so nothing in it is a parameter.
fn has_role(role: Role) -> Expr {
    Expr::cust(format!("' ' || roles || ' ' LIKE '% {role} %'"))
}
