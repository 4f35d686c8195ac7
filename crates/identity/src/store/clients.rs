//! OAuth clients.

use auspex_kernel::db::DbError;
use auspex_kernel::id::ClientId;
use auspex_kernel::page::{Found, Slice};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, Order, QueryFilter, Set,
};

use super::entity::{clients, codes, consents};
use crate::types::client::{Client, GrantType};
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

/// The same, with the digest of its secret.
pub(crate) async fn with_secret(
    connection: &impl ConnectionTrait,
    id: &ClientId,
) -> Result<Option<(Client, Option<Vec<u8>>)>, DbError> {
    let row = clients::Entity::find_by_id(id.clone())
        .one(connection)
        .await?;
    Ok(row.map(|mut row| {
        let digest = row.secret_digest.clone();
        // The digest needs not travel further than this.
        row.secret_digest = digest.as_ref().map(|_| Vec::new());
        (Client::from(row), digest)
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

/// Removes a client, its codes and what users agreed to. Whether it was there.
pub(crate) async fn delete(
    transaction: &DatabaseTransaction,
    id: &ClientId,
) -> Result<bool, DbError> {
    codes::Entity::delete_many()
        .filter(codes::Column::ClientId.eq(id))
        .exec(transaction)
        .await?;
    consents::Entity::delete_many()
        .filter(consents::Column::ClientId.eq(id))
        .exec(transaction)
        .await?;
    let deleted = clients::Entity::delete_by_id(id.clone())
        .exec(transaction)
        .await?;
    Ok(deleted.rows_affected > 0)
}
