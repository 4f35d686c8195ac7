//! The SQL of this crate and nothing else. Functions that change something take a transaction, for
//! their caller decides what belongs together.

use auspex_kernel::Timestamp;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, DbErr,
    DerivePartialModel, EntityTrait, QueryFilter, QueryOrder, QuerySelect, SelectExt, Set,
};

use crate::api_key::{ApiKey, Digest, KeyId, read_scopes};

mod api_keys {
    use auspex_kernel::Timestamp;
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_api_keys")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) id: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) name: String,
        pub(crate) digest: Vec<u8>,
        #[sea_orm(column_type = "Text")]
        pub(crate) scopes: String,
        pub(crate) created_at: Timestamp,
        pub(crate) expires_at: Option<Timestamp>,
        pub(crate) revoked_at: Option<Timestamp>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod key_sets {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_key_sets")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) id: i32,
        pub(crate) generation: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

const THE_KEY_SET: i32 = 1;

/// A row without its hash.
#[derive(DerivePartialModel)]
#[sea_orm(entity = "api_keys::Entity")]
struct KeyRow {
    id: String,
    name: String,
    scopes: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl From<KeyRow> for ApiKey {
    fn from(row: KeyRow) -> Self {
        Self {
            id: KeyId(row.id),
            name: row.name,
            scopes: read_scopes(&row.scopes, |_| ()),
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        }
    }
}

#[derive(DerivePartialModel)]
#[sea_orm(entity = "api_keys::Entity")]
struct LiveRow {
    id: String,
    digest: Vec<u8>,
    scopes: String,
    expires_at: Option<Timestamp>,
}

/// What recognises a key that is in force.
pub(crate) struct LiveKey {
    pub(crate) id: KeyId,
    pub(crate) digest: Vec<u8>,
    pub(crate) scopes: String,
    pub(crate) expires_at: Option<Timestamp>,
}

/// How often the keys have changed. Equal numbers mean equal keys.
pub(crate) async fn generation(connection: &impl ConnectionTrait) -> Result<i64, DbErr> {
    key_sets::Entity::find_by_id(THE_KEY_SET)
        .one(connection)
        .await?
        .map(|set| set.generation)
        .ok_or_else(no_key_set)
}

/// Makes every other change of the keys wait until this transaction ends. SQLite has one writer as
/// it is; PostgreSQL needs the row lock, or two could each find no key and both make the first.
pub(crate) async fn lock_keys(transaction: &DatabaseTransaction) -> Result<(), DbErr> {
    key_sets::Entity::find_by_id(THE_KEY_SET)
        .lock_exclusive()
        .one(transaction)
        .await?
        .map(|_| ())
        .ok_or_else(no_key_set)
}

/// Tells every process that the keys are others once this transaction commits.
pub(crate) async fn count_change(transaction: &DatabaseTransaction) -> Result<(), DbErr> {
    let generation = key_sets::Column::Generation;
    key_sets::Entity::update_many()
        .col_expr(generation, Expr::col(generation).add(1))
        .filter(key_sets::Column::Id.eq(THE_KEY_SET))
        .exec(transaction)
        .await
        .map(|_| ())
}

fn no_key_set() -> DbErr {
    DbErr::RecordNotFound("the row of identity_key_sets".into())
}

/// Whether there is a key, in force or not.
pub(crate) async fn has_keys(connection: &impl ConnectionTrait) -> Result<bool, DbErr> {
    api_keys::Entity::find().exists(connection).await
}

/// Adds a key.
pub(crate) async fn insert_key(
    transaction: &DatabaseTransaction,
    key: &ApiKey,
    digest: &Digest,
) -> Result<(), DbErr> {
    let row = api_keys::ActiveModel {
        id: Set(key.id.as_str().to_owned()),
        name: Set(key.name.clone()),
        digest: Set(digest.as_bytes().to_vec()),
        scopes: Set(key.scopes.to_string()),
        created_at: Set(key.created_at),
        expires_at: Set(key.expires_at),
        revoked_at: Set(key.revoked_at),
    };
    api_keys::Entity::insert(row)
        .exec_without_returning(transaction)
        .await
        .map(|_| ())
}

/// Every key, newest first.
pub(crate) async fn list_keys(connection: &impl ConnectionTrait) -> Result<Vec<ApiKey>, DbErr> {
    find(connection, Condition::all(), None).await
}

/// The key with this id.
pub(crate) async fn key_by_id(
    connection: &impl ConnectionTrait,
    id: &KeyId,
) -> Result<Option<ApiKey>, DbErr> {
    let has_id = Condition::all().add(api_keys::Column::Id.eq(id.as_str()));
    Ok(find(connection, has_id, Some(1)).await?.pop())
}

/// Keys with this name that are revoked, or are not; newest first, at most `limit`.
pub(crate) async fn keys_by_name(
    connection: &impl ConnectionTrait,
    name: &str,
    revoked: bool,
    limit: u64,
) -> Result<Vec<ApiKey>, DbErr> {
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
) -> Result<Vec<ApiKey>, DbErr> {
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

/// Marks a key as revoked.
pub(crate) async fn set_revoked_at(
    transaction: &DatabaseTransaction,
    id: &KeyId,
    revoked_at: Timestamp,
) -> Result<(), DbErr> {
    let row = api_keys::ActiveModel {
        id: Set(id.as_str().to_owned()),
        revoked_at: Set(Some(revoked_at)),
        ..Default::default()
    };
    row.update_without_returning(transaction).await.map(|_| ())
}

/// The keys that are neither revoked nor expired.
pub(crate) async fn live_keys(
    connection: &impl ConnectionTrait,
    now: Timestamp,
) -> Result<Vec<LiveKey>, DbErr> {
    let unexpired = Condition::any()
        .add(api_keys::Column::ExpiresAt.is_null())
        .add(api_keys::Column::ExpiresAt.gt(now));
    let rows = api_keys::Entity::find()
        .filter(api_keys::Column::RevokedAt.is_null())
        .filter(unexpired)
        .into_partial_model::<LiveRow>()
        .all(connection)
        .await?;
    let live = |row: LiveRow| LiveKey {
        id: KeyId(row.id),
        digest: row.digest,
        scopes: row.scopes,
        expires_at: row.expires_at,
    };
    Ok(rows.into_iter().map(live).collect())
}
