//! What is encrypted, apart from what says whose it is.
//!
//! SQLite zeroes what is deleted, but not the copies that it leaves in a page when rows move to another:
//! those of others' rows, which may be erased later. So in this table no row ever moves. New ones come
//! at its end; an erased one is overwritten where it stands, by as many zeros; and what stays of
//! it is removed by [`compact`] only where all rows around it are zeros too. PostgreSQL deletes: there
//! the erased key is the whole promise.

use auspex_kernel::db::DbError;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, Set, Statement,
};

use super::Inserts;
use super::entity::sealed::{ActiveModel, Column, Entity};
use crate::types::RowId;

/// Both databases bind more values than so many rows have.
const AT_ONCE: usize = 1_000;
/// Erased rows that stay beside one that is not: they fill more pages than SQLite balances at once,
/// with the shortest rows that there are.
const MARGIN: usize = 600;

/// The newest row: later ones must come after it.
pub(crate) async fn newest(transaction: &DatabaseTransaction) -> Result<RowId, DbError> {
    let last = Entity::find()
        .select_only()
        .column(Column::Id)
        .order_by_desc(Column::Id)
        .limit(1)
        .into_tuple();
    let newest: Option<i64> = last.one(transaction).await?;
    Ok(RowId(newest.unwrap_or_default()))
}

/// Adds rows in the order of their ids, which come after all there are.
pub(crate) fn insert<'a>(inserts: &mut Inserts, new: impl Iterator<Item = (RowId, &'a Vec<u8>)>) {
    inserts.add(new.map(|(id, sealed)| ActiveModel {
        id: Set(id.0),
        is_erased: Set(0),
        sealed: Set(sealed.clone()),
    }));
}

/// Some rows, in the order of their ids.
pub(crate) async fn find(
    connection: &impl ConnectionTrait,
    ids: &[i64],
) -> Result<Vec<(i64, Vec<u8>)>, DbError> {
    let mut found = Vec::with_capacity(ids.len());
    for some in ids.chunks(AT_ONCE) {
        let rows = Entity::find()
            .filter(Column::Id.is_in(some.iter().copied()))
            .order_by_asc(Column::Id)
            .all(connection)
            .await?;
        found.extend(rows.into_iter().map(|row| (row.id, row.sealed)));
    }
    found.sort_unstable_by_key(|(id, _)| *id);
    Ok(found)
}

/// Erases rows.
pub(crate) async fn erase(transaction: &DatabaseTransaction, ids: &[i64]) -> Result<(), DbError> {
    for some in ids.chunks(AT_ONCE) {
        let is_one = Column::Id.is_in(some.iter().copied());
        if transaction.get_database_backend() == DbBackend::Postgres {
            let delete = Entity::delete_many().filter(is_one);
            delete.exec(transaction).await?;
            continue;
        }
        Entity::update_many()
            .filter(is_one)
            .col_expr(Column::IsErased, Expr::value(1))
            .col_expr(Column::Sealed, Expr::cust("zeroblob(length(sealed))"))
            .exec(transaction)
            .await?;
    }
    Ok(())
}

/// Where [`compact`] goes on.
pub(crate) enum Compacted {
    /// After this row; so many were removed.
    Until(i64, u64),
    /// There is nothing more to look at.
    All,
}

/// Removes what is left of erased rows from the next run of them after a row, but for a margin.
pub(crate) async fn compact(
    transaction: &DatabaseTransaction,
    after: i64,
) -> Result<Compacted, DbError> {
    if transaction.get_database_backend() == DbBackend::Postgres {
        return Ok(Compacted::All);
    }
    let first =
        "SELECT id FROM dialogues_sealed WHERE is_erased = 1 AND id > $1 ORDER BY id LIMIT 1";
    let Some(first) = one(transaction, first, [after.into()]).await? else {
        return Ok(Compacted::All);
    };
    // No more than can be removed in one transaction; the next run begins where this ends.
    let run = "SELECT id, is_erased FROM dialogues_sealed WHERE id >= $1 ORDER BY id LIMIT 4000";
    let run = Statement::from_sql_and_values(DbBackend::Sqlite, run, [first.into()]);
    let mut ids = Vec::new();
    for row in transaction.query_all_raw(run).await? {
        if row.try_get_by_index::<i32>(1)? == 0 {
            break;
        }
        ids.push(row.try_get_by_index::<i64>(0)?);
    }
    let last = *ids.last().unwrap_or(&first);
    if ids.len() <= 2 * MARGIN {
        return Ok(Compacted::Until(last, 0));
    }
    let inner = &ids[MARGIN..ids.len() - MARGIN];
    let mut removed = 0;
    for some in inner.chunks(AT_ONCE) {
        let delete = Entity::delete_many().filter(Column::Id.is_in(some.iter().copied()));
        removed += delete.exec(transaction).await?.rows_affected;
    }
    // The margin at the end may belong to a longer run.
    let place = inner.last().copied().unwrap_or(last);
    Ok(Compacted::Until(place, removed))
}

async fn one(
    transaction: &DatabaseTransaction,
    sql: &str,
    values: [sea_orm::Value; 1],
) -> Result<Option<i64>, DbError> {
    let backend = transaction.get_database_backend();
    let query = Statement::from_sql_and_values(backend, sql, values);
    let row = transaction.query_one_raw(query).await?;
    Ok(row.map(|row| row.try_get_by_index(0)).transpose()?)
}
