//! Rows read one by one, so that a damaged one does not hide the others.

use auspex_kernel::db::DbError;
use sea_orm::{ConnectionTrait, DbErr, QueryResult, QueryTrait, TryGetableMany};

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
            let id = row.try_get_by_index::<Vec<u8>>(0).unwrap_or_default();
            let id = String::from_utf8_lossy(&id);
            tracing::error!(table, %id, %error, "a row cannot be read and is left out; `auspex doctor` finds such rows");
            None
        }
    });
    Ok(readable.collect())
}

/// A row as a tuple, column by column.
pub(super) fn tuple<T: TryGetableMany>(row: &QueryResult) -> Result<T, DbErr> {
    Ok(T::try_get_many_by_index(row)?)
}
