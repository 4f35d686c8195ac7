//! OAuth clients.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::id::ClientId;
use auspex_kernel::page::{Found, Slice};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, Order, QueryFilter, Set,
};

use super::entity::{clients, codes};
use super::{consents, devices};
use crate::types::client::{Client, GrantType, KnownSecrets};
use crate::types::scope::ClientScopes;

impl From<clients::Model> for Client {
    fn from(row: clients::Model) -> Self {
        let words = |text: &str| -> Vec<String> {
            text.split_ascii_whitespace().map(str::to_owned).collect()
        };
        Self {
            id: row.id,
            name: row.name,
            redirect_uris: words(&row.redirect_uris),
            post_logout_redirect_uris: words(&row.post_logout_redirect_uris),
            // What a newer version wrote gives nothing.
            grant_types: row
                .grant_types
                .split_ascii_whitespace()
                .filter_map(GrantType::parse)
                .collect(),
            scopes: ClientScopes::from_stored(&row.scopes),
            public: row.secret_digest.is_none(),
            created_at: row.created_at,
            created_by: row.created_by,
        }
    }
}

/// Adds a client.
pub(crate) async fn insert(
    transaction: &DatabaseTransaction,
    client: &Client,
    secret_digest: Option<Vec<u8>>,
) -> Result<(), DbError> {
    let grant_types: Vec<&str> = client
        .grant_types
        .iter()
        .map(|kind| kind.as_str())
        .collect();
    let row = clients::ActiveModel {
        id: Set(client.id.clone()),
        name: Set(client.name.clone()),
        secret_digest: Set(secret_digest),
        old_secret_digest: Set(None),
        old_secret_until: Set(None),
        redirect_uris: Set(client.redirect_uris.join(" ")),
        post_logout_redirect_uris: Set(client.post_logout_redirect_uris.join(" ")),
        grant_types: Set(grant_types.join(" ")),
        scopes: Set(client.scopes.to_string()),
        created_at: Set(client.created_at),
        created_by: Set(client.created_by.clone()),
    };
    clients::Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// The client with this id.
pub(crate) async fn by_id(
    connection: &impl ConnectionTrait,
    id: &ClientId,
) -> Result<Option<Client>, DbError> {
    let found = with_secret(connection, id).await?;
    Ok(found.map(|(client, _)| client))
}

/// The same, with what is kept of its secrets.
pub(crate) async fn with_secret(
    connection: &impl ConnectionTrait,
    id: &ClientId,
) -> Result<Option<(Client, KnownSecrets)>, DbError> {
    let row = clients::Entity::find_by_id(id.clone())
        .one(connection)
        .await?;
    Ok(row.map(|mut row| {
        // The digests need not travel further than this.
        let current = row.secret_digest.clone();
        row.secret_digest = current.as_ref().map(|_| Vec::new());
        let old = row.old_secret_digest.take().zip(row.old_secret_until);
        (Client::from(row), KnownSecrets { current, old })
    }))
}

/// Clients, oldest first.
pub(crate) async fn page(
    connection: &impl ConnectionTrait,
    slice: Slice,
) -> Result<Found<Client>, DbError> {
    let query = clients::Entity::find();
    let by_id = slice.by_id(connection, query, clients::Column::Id, Order::Asc);
    let (rows, total) = by_id.await?;
    Ok((rows.into_iter().map(Client::from).collect(), total))
}

/// Stores a client's new state.
pub(crate) async fn update(
    transaction: &DatabaseTransaction,
    client: &Client,
) -> Result<(), DbError> {
    let row = clients::ActiveModel {
        name: Set(client.name.clone()),
        redirect_uris: Set(client.redirect_uris.join(" ")),
        post_logout_redirect_uris: Set(client.post_logout_redirect_uris.join(" ")),
        scopes: Set(client.scopes.to_string()),
        ..Default::default()
    };
    clients::Entity::update_many()
        .set(row)
        .filter(clients::Column::Id.eq(&client.id))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Gives a client another secret; the old one is taken until then.
pub(crate) async fn replace_secret(
    transaction: &DatabaseTransaction,
    id: &ClientId,
    digest: Vec<u8>,
    old_digest: Vec<u8>,
    old_until: Timestamp,
) -> Result<(), DbError> {
    let row = clients::ActiveModel {
        secret_digest: Set(Some(digest)),
        old_secret_digest: Set(Some(old_digest)),
        old_secret_until: Set(Some(old_until)),
        ..Default::default()
    };
    clients::Entity::update_many()
        .set(row)
        .filter(clients::Column::Id.eq(id))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Removes a client's codes, and the devices that wait to act by it.
pub(crate) async fn delete_codes(
    transaction: &DatabaseTransaction,
    id: &ClientId,
) -> Result<(), DbError> {
    codes::Entity::delete_many()
        .filter(codes::Column::ClientId.eq(id))
        .exec(transaction)
        .await?;
    devices::delete_of_client(transaction, id).await
}

/// Removes a client, its codes, its devices and what users agreed to. Whether it was there.
pub(crate) async fn delete(
    transaction: &DatabaseTransaction,
    id: &ClientId,
) -> Result<bool, DbError> {
    delete_codes(transaction, id).await?;
    consents::delete_of_client(transaction, id).await?;
    let deleted = clients::Entity::delete_by_id(id.clone())
        .exec(transaction)
        .await?;
    Ok(deleted.rows_affected > 0)
}
