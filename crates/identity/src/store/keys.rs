//! API keys.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::id::{KeyId, UserId};
use auspex_kernel::page::{Found, Slice};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, DbErr,
    DerivePartialModel, EntityTrait, QueryFilter, QueryOrder, QuerySelect, SelectExt, Set,
};

use super::entity::api_keys;
use super::readable::{readable, tuple};
use crate::types::api_key::{ApiKey, Digest, LiveKey, read_scopes};

/// A row without its hash.
#[derive(DerivePartialModel)]
#[sea_orm(entity = "api_keys::Entity")]
struct KeyRow {
    id: KeyId,
    name: String,
    scopes: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    owner_id: Option<UserId>,
    replaced_by: Option<KeyId>,
    last_used_at: Option<Timestamp>,
}

impl From<KeyRow> for ApiKey {
    fn from(row: KeyRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            scopes: read_scopes(&row.scopes, |_| ()),
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            owner_id: row.owner_id,
            replaced_by: row.replaced_by,
            last_used_at: row.last_used_at,
        }
    }
}

/// Whether there is a key, in force or not.
pub(crate) async fn has_keys(connection: &impl ConnectionTrait) -> Result<bool, DbError> {
    Ok(api_keys::Entity::find().exists(connection).await?)
}

/// Adds a key.
pub(crate) async fn insert_key(
    transaction: &DatabaseTransaction,
    key: &ApiKey,
    digest: &Digest,
) -> Result<(), DbError> {
    let row = api_keys::ActiveModel {
        id: Set(key.id.clone()),
        name: Set(key.name.clone()),
        digest: Set(digest.as_array().to_vec()),
        scopes: Set(key.scopes.to_string()),
        created_at: Set(key.created_at),
        expires_at: Set(key.expires_at),
        revoked_at: Set(key.revoked_at),
        owner_id: Set(key.owner_id.clone()),
        replaced_by: Set(None),
        last_used_at: Set(None),
    };
    api_keys::Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// Every key, newest first.
pub(crate) async fn list_keys(connection: &impl ConnectionTrait) -> Result<Vec<ApiKey>, DbError> {
    find(connection, Condition::all(), None).await
}

/// The key with this id.
pub(crate) async fn key_by_id(
    connection: &impl ConnectionTrait,
    id: &KeyId,
) -> Result<Option<ApiKey>, DbError> {
    let has_id = Condition::all().add(api_keys::Column::Id.eq(id.as_str()));
    Ok(find(connection, has_id, Some(1)).await?.pop())
}

/// Keys with this name that are revoked, or are not; newest first, at most `limit`.
pub(crate) async fn keys_by_name(
    connection: &impl ConnectionTrait,
    name: &str,
    revoked: bool,
    limit: u64,
) -> Result<Vec<ApiKey>, DbError> {
    let revoked_at = api_keys::Column::RevokedAt;
    let has_name = Condition::all()
        .add(api_keys::Column::Name.eq(name))
        .add(if revoked {
            revoked_at.is_not_null()
        } else {
            revoked_at.is_null()
        });
    find(connection, has_name, Some(limit)).await
}

async fn find(
    connection: &impl ConnectionTrait,
    condition: Condition,
    limit: Option<u64>,
) -> Result<Vec<ApiKey>, DbError> {
    let rows = api_keys::Entity::find()
        .filter(condition)
        .order_by_desc(api_keys::Column::CreatedAt)
        .order_by_desc(api_keys::Column::Id)
        .limit(limit)
        .into_partial_model::<KeyRow>()
        .all(connection)
        .await?;
    Ok(rows.into_iter().map(ApiKey::from).collect())
}

/// Whose keys a list shows.
#[derive(Clone)]
pub(crate) enum KeysOf {
    User(UserId),
    /// The key by which somebody acts, if it is one: nothing else.
    Own(Option<KeyId>),
}

/// Keys that meet every condition, newest first; see [`ApiKey::position`].
pub(crate) async fn page(
    connection: &impl ConnectionTrait,
    whose: Vec<KeysOf>,
    slice: Slice,
) -> Result<Found<ApiKey>, DbError> {
    let (created_at, id) = (api_keys::Column::CreatedAt, api_keys::Column::Id);
    let mut query = api_keys::Entity::find();
    for whose in whose {
        query = query.filter(match whose {
            KeysOf::User(owner) => api_keys::Column::OwnerId.eq(owner),
            KeysOf::Own(own) => id.is_in(own.map(|own| own.as_str().to_owned())),
        });
    }
    let query = query.order_by_desc(created_at).order_by_desc(id);
    let (query, total) = slice
        .limit(connection, query, |query, position| {
            let last = position
                .split_once('.')
                .and_then(|(time, id)| Some((time.parse::<i64>().ok()?, id)));
            let (time, last_id) =
                last.ok_or_else(|| DbErr::Custom("a position in the list of keys".into()))?;
            let last = Expr::tuple([Expr::value(time), Expr::value(last_id)]);
            Ok(query.filter(Expr::tuple([Expr::col(created_at), Expr::col(id)]).lt(last)))
        })
        .await?;
    let rows = query.into_partial_model::<KeyRow>().all(connection).await?;
    Ok((rows.into_iter().map(ApiKey::from).collect(), total))
}

/// Names a key's successor, and lets it end at `until`.
pub(crate) async fn set_replaced(
    transaction: &DatabaseTransaction,
    id: &KeyId,
    successor: &KeyId,
    until: Timestamp,
) -> Result<(), DbError> {
    let row = api_keys::ActiveModel {
        id: Set(id.clone()),
        replaced_by: Set(Some(successor.clone())),
        expires_at: Set(Some(until)),
        ..Default::default()
    };
    row.update_without_returning(transaction).await?;
    Ok(())
}

/// Marks a key as revoked.
pub(crate) async fn set_revoked_at(
    transaction: &DatabaseTransaction,
    id: &KeyId,
    revoked_at: Timestamp,
) -> Result<(), DbError> {
    let row = api_keys::ActiveModel {
        id: Set(id.clone()),
        revoked_at: Set(Some(revoked_at)),
        ..Default::default()
    };
    row.update_without_returning(transaction).await?;
    Ok(())
}

/// Which keys to load.
pub(crate) enum KeysToLoad {
    All,
    /// Those with these ids.
    Changed(Vec<KeyId>),
}

/// Of the keys asked for, those that are neither revoked nor expired.
pub(crate) async fn live_keys(
    connection: &impl ConnectionTrait,
    which: KeysToLoad,
    now: Timestamp,
) -> Result<Vec<LiveKey>, DbError> {
    let unexpired = Condition::any()
        .add(api_keys::Column::ExpiresAt.is_null())
        .add(api_keys::Column::ExpiresAt.gt(now));
    let wanted = match which {
        KeysToLoad::All => Condition::all(),
        KeysToLoad::Changed(ids) => Condition::all().add(api_keys::Column::Id.is_in(ids)),
    };
    let query = api_keys::Entity::find()
        .select_only()
        .columns([
            api_keys::Column::Id,
            api_keys::Column::Digest,
            api_keys::Column::Scopes,
            api_keys::Column::ExpiresAt,
            api_keys::Column::OwnerId,
        ])
        .filter(api_keys::Column::RevokedAt.is_null())
        .filter(unexpired)
        .filter(wanted);
    let rows = readable(connection, "identity_api_keys", query, tuple).await?;
    let live = |(id, digest, scopes, expires_at, owner_id)| LiveKey {
        id,
        digest,
        scopes,
        expires_at,
        owner_id,
    };
    Ok(rows.into_iter().map(live).collect())
}

/// The ids of the keys of these users that are not revoked.
pub(crate) async fn ids_of_owners(
    connection: &impl ConnectionTrait,
    owners: Vec<UserId>,
) -> Result<Vec<KeyId>, DbError> {
    Ok(api_keys::Entity::find()
        .select_only()
        .column(api_keys::Column::Id)
        .filter(api_keys::Column::OwnerId.is_in(owners))
        .filter(api_keys::Column::RevokedAt.is_null())
        .into_tuple()
        .all(connection)
        .await?)
}

/// Notes when a key was last used.
pub(crate) async fn set_last_used_at(
    transaction: &DatabaseTransaction,
    id: &KeyId,
    at: Timestamp,
) -> Result<(), DbError> {
    let last = api_keys::Column::LastUsedAt;
    api_keys::Entity::update_many()
        .col_expr(last, Expr::value(at))
        .filter(api_keys::Column::Id.eq(id.as_str()))
        .filter(
            Condition::any()
                .add(last.is_null())
                .add(Expr::col(last).lt(at)),
        )
        .exec(transaction)
        .await?;
    Ok(())
}
