//! What must be known in memory, and what has changed of it.
//!
//! Every change of such a row adds one to a counter and a line to `identity_changes`, both under
//! the lock of the counter's row. So the numbers have no gaps, come in the order of the commits,
//! and a process that knows the state of number `n` needs only the lines after `n`.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::id::{ClientId, SessionId, UserId};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect, Set, Value,
};

use super::entity::{changes, clients, grants, key_sets, revoked_tokens, users};
use super::readable::{Revoked, readable, revoked, tuple};
use crate::config::REVOCATION_KEPT;
use crate::types::client::Origins;
use crate::types::redirect;
use crate::types::role::RoleSet;
use crate::types::user::{ActiveUser, password_mark};

const THE_KEY_SET: i32 = 1;
/// SQLite takes no more values in one statement than about 32,000.
pub(crate) const CHANGES_MAX: usize = 1_000;

/// What a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Key,
    User,
    Client,
    Grant,
    Token,
    SigningKey,
}

impl Kind {
    const ALL: [(Kind, &str); 6] = [
        (Kind::Key, "key"),
        (Kind::User, "user"),
        (Kind::Client, "client"),
        (Kind::Grant, "grant"),
        (Kind::Token, "token"),
        (Kind::SigningKey, "signing_key"),
    ];

    fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("", |(_, text)| text)
    }

    fn from_stored(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == text)
            .map(|(kind, _)| *kind)
    }
}

/// One line of the record. A kind that this version does not know is `None`.
pub(crate) struct Change {
    pub(crate) generation: i64,
    pub(crate) kind: Option<Kind>,
    pub(crate) subject: String,
}

/// How often anything has changed. Equal numbers mean equal rows.
pub(crate) async fn generation(connection: &impl ConnectionTrait) -> Result<i64, DbError> {
    key_sets::Entity::find_by_id(THE_KEY_SET)
        .one(connection)
        .await?
        .map(|set| set.generation)
        .ok_or_else(no_key_set)
}

/// Makes every other change wait until this transaction ends. SQLite has one writer as it is;
/// PostgreSQL needs the row lock, or two could each find no key and both make the first, or each
/// remove the last but one administrator.
pub(crate) async fn lock(transaction: &DatabaseTransaction) -> Result<(), DbError> {
    key_sets::Entity::find_by_id(THE_KEY_SET)
        .lock_exclusive()
        .one(transaction)
        .await?
        .map(|_| ())
        .ok_or_else(no_key_set)
}

/// Tells every process of a change once this transaction commits. Takes the lock if [`lock`] has
/// not.
pub(crate) async fn record_change(
    transaction: &DatabaseTransaction,
    kind: Kind,
    subject: impl AsRef<str>,
    now: Timestamp,
) -> Result<(), DbError> {
    let generation = key_sets::Column::Generation;
    key_sets::Entity::update_many()
        .col_expr(generation, Expr::col(generation).add(1))
        .filter(key_sets::Column::Id.eq(THE_KEY_SET))
        .exec(transaction)
        .await?;
    let row = changes::ActiveModel {
        generation: Set(self::generation(transaction).await?),
        kind: Set(kind.as_str().to_owned()),
        subject: Set(subject.as_ref().to_owned()),
        at: Set(now),
    };
    changes::Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// The changes after a generation, in order; `None` where they are too many or no longer all there.
pub(crate) async fn changes_after(
    connection: &impl ConnectionTrait,
    known: i64,
) -> Result<Option<Vec<Change>>, DbError> {
    // The counter first: read after the rows, it would have moved with every change in between, and
    // everything would be loaded anew under load.
    if generation(connection).await? == known {
        return Ok(Some(Vec::new()));
    }
    let rows = changes::Entity::find()
        .filter(changes::Column::Generation.gt(known))
        .order_by_asc(changes::Column::Generation)
        .limit(CHANGES_MAX as u64 + 1)
        .all(connection)
        .await?;
    // None for an hour, or all of them removed while this process could not read.
    let complete = rows
        .first()
        .is_some_and(|first| first.generation == known + 1);
    if !complete || rows.len() > CHANGES_MAX {
        return Ok(None);
    }
    let change = |row: changes::Model| Change {
        generation: row.generation,
        kind: Kind::from_stored(&row.kind),
        subject: row.subject,
    };
    Ok(Some(rows.into_iter().map(change).collect()))
}

fn no_key_set() -> DbError {
    DbErr::RecordNotFound("the row of identity_key_sets".into()).into()
}

/// Rows with these ids, or all.
fn among<T: Into<Value>>(column: impl ColumnTrait, ids: Option<Vec<T>>) -> Condition {
    match ids {
        Some(ids) => Condition::all().add(column.is_in(ids)),
        None => Condition::all(),
    }
}

/// The users who are not disabled: all, or those with these ids.
pub(crate) async fn active_users(
    connection: &impl ConnectionTrait,
    ids: Option<Vec<UserId>>,
) -> Result<Vec<(UserId, ActiveUser)>, DbError> {
    let query = users::Entity::find()
        .select_only()
        .columns([
            users::Column::Id,
            users::Column::Roles,
            users::Column::PasswordHash,
        ])
        .filter(users::Column::DisabledAt.is_null())
        .filter(among(users::Column::Id, ids));
    let rows = readable(connection, "identity_users", query, tuple).await?;
    let active = |(id, roles, hash): (UserId, String, Option<String>)| {
        let roles = RoleSet::from_stored(&roles);
        let password_mark = password_mark(hash.as_deref());
        (
            id,
            ActiveUser {
                roles,
                password_mark,
            },
        )
    };
    Ok(rows.into_iter().map(active).collect())
}

/// The clients that exist, with the origins at which pages may be them: all, or those with these ids.
pub(crate) async fn clients(
    connection: &impl ConnectionTrait,
    ids: Option<Vec<ClientId>>,
) -> Result<Vec<(ClientId, Origins)>, DbError> {
    let query = clients::Entity::find()
        .select_only()
        .columns([
            clients::Column::Id,
            clients::Column::RedirectUris,
            clients::Column::SecretDigest,
        ])
        .filter(among(clients::Column::Id, ids));
    let rows = readable(connection, "identity_clients", query, tuple).await?;
    let client = |(id, uris, secret): (ClientId, String, Option<Vec<u8>>)| {
        // A client with a secret runs on a server.
        let of_pages = uris.split_ascii_whitespace().filter(|_| secret.is_none());
        (
            id,
            Origins::new(of_pages.filter_map(redirect::origin).collect()),
        )
    };
    Ok(rows.into_iter().map(client).collect())
}

/// Grants whose revocation must be known: all, or those with these ids; with the time until when.
pub(crate) async fn revoked_grants(
    connection: &impl ConnectionTrait,
    ids: Option<Vec<SessionId>>,
    now: Timestamp,
) -> Result<Revoked<SessionId>, DbError> {
    let query = grants::Entity::find()
        .select_only()
        .columns([grants::Column::Id, grants::Column::RevokedAt])
        .filter(grants::Column::RevokedAt.gte(now - REVOCATION_KEPT))
        .filter(among(grants::Column::Id, ids));
    let mut revoked = revoked(connection, "identity_grants", query, now).await?;
    for (_, at) in &mut revoked.known {
        *at = *at + REVOCATION_KEPT;
    }
    Ok(revoked)
}

/// Revoked tokens that have not ended, by their `jti`: all, or those with these; with the time they end.
pub(crate) async fn revoked_tokens(
    connection: &impl ConnectionTrait,
    jtis: Option<Vec<String>>,
    now: Timestamp,
) -> Result<Revoked<String>, DbError> {
    let query = revoked_tokens::Entity::find()
        .select_only()
        .columns([
            revoked_tokens::Column::Jti,
            revoked_tokens::Column::ExpiresAt,
        ])
        .filter(revoked_tokens::Column::ExpiresAt.gt(now))
        .filter(among(revoked_tokens::Column::Jti, jtis));
    let at_the_latest = now + REVOCATION_KEPT;
    revoked(connection, "identity_revoked_tokens", query, at_the_latest).await
}
