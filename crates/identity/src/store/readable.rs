//! Rows read one by one, so that a damaged one does not hide the others.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use sea_orm::{ConnectionTrait, DbErr, QueryResult, QueryTrait, TryGetable, TryGetableMany};

/// The rows of a query that can be read, each by `read`. One that cannot, such as one with a text that
/// is not UTF-8, is reported and left out, so that it does not take all others with it.
pub(super) async fn readable<T>(
    connection: &impl ConnectionTrait,
    table: &'static str,
    query: impl QueryTrait,
    read: impl Fn(&QueryResult) -> Result<T, DbErr>,
) -> Result<Vec<T>, DbError> {
    let query = query.build(connection.get_database_backend());
    let rows = connection.query_all_raw(query).await?;
    let readable = rows.iter().filter_map(|row| match read(row) {
        Ok(value) => Some(value),
        Err(error) => {
            let id = first_column(row);
            let id = String::from_utf8_lossy(&id);
            tracing::error!(table, %id, %error, "a row cannot be read and is left out; `auspex doctor` finds such rows");
            None
        }
    });
    Ok(readable.collect())
}

/// What was revoked.
#[derive(Debug)]
pub(crate) struct Revoked<T> {
    /// With a time each.
    pub(crate) known: Vec<(T, Timestamp)>,
    /// What is left of the ids of damaged rows: something was revoked, and nobody can say what.
    pub(crate) unreadable: Vec<Vec<u8>>,
}

/// The rows of a query of an id and a time, each a revocation. None may be left out, or what it revoked
/// would be in force again: where the time cannot be read, `otherwise` takes its place.
pub(super) async fn revoked<T: TryGetable>(
    connection: &impl ConnectionTrait,
    table: &'static str,
    query: impl QueryTrait,
    otherwise: Timestamp,
) -> Result<Revoked<T>, DbError> {
    let query = query.build(connection.get_database_backend());
    let mut revoked = Revoked {
        known: Vec::new(),
        unreadable: Vec::new(),
    };
    for row in connection.query_all_raw(query).await? {
        match row.try_get_by_index(0) {
            Ok(id) => {
                let at = row.try_get_by_index(1).unwrap_or(otherwise);
                revoked.known.push((id, at));
            }
            Err(error) => {
                let id = first_column(&row);
                let shown = String::from_utf8_lossy(&id);
                tracing::error!(table, id = %shown, %error, "a revocation cannot be read; access tokens that were issued before this was found are refused");
                revoked.unreadable.push(id);
            }
        }
    }
    Ok(revoked)
}

/// The bytes of an id that may be no text.
fn first_column(row: &QueryResult) -> Vec<u8> {
    row.try_get_by_index(0).unwrap_or_default()
}

/// A row as a tuple, column by column.
pub(super) fn tuple<T: TryGetableMany>(row: &QueryResult) -> Result<T, DbErr> {
    Ok(T::try_get_many_by_index(row)?)
}
