//! Removes what has ended.

use auspex_kernel::Timestamp;
use auspex_kernel::audit;
use auspex_kernel::db::DbError;
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Query};
use sea_orm::{ConnectionTrait, DatabaseTransaction, EntityName as _};

use super::entity::{changes, codes, grants, logins, revoked_tokens, sessions};

/// Rows of a kind removed in one transaction, so that it stays short.
const ROWS_MAX: u64 = 1_000;

/// Until when each kind of row is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) now: Timestamp,
    pub(crate) changes_before: Timestamp,
    pub(crate) logins_before: Timestamp,
    pub(crate) audit_before: Timestamp,
}

/// Removes up to [`ROWS_MAX`] rows of each kind. Whether there may be more.
pub(crate) async fn remove(
    transaction: &DatabaseTransaction,
    ended: Ended,
) -> Result<bool, DbError> {
    let mut may_be_more = false;
    for (table, key, time, before) in [
        (
            changes::Entity.table_name(),
            "generation",
            "at",
            ended.changes_before,
        ),
        (logins::Entity.table_name(), "id", "at", ended.logins_before),
        // A code that comes again after it has ended is refused anyway, but should still be noticed.
        (
            codes::Entity.table_name(),
            "digest",
            "expires_at",
            ended.changes_before,
        ),
        (
            sessions::Entity.table_name(),
            "digest",
            "expires_at",
            ended.now,
        ),
        (
            revoked_tokens::Entity.table_name(),
            "jti",
            "expires_at",
            ended.now,
        ),
        (
            grants::Entity.table_name(),
            "id",
            "expires_at",
            ended.logins_before,
        ),
    ] {
        let (table, key) = (Alias::new(table), Alias::new(key));
        let some = Query::select()
            .column(key.clone())
            .from(table.clone())
            .and_where(Expr::col(Alias::new(time)).lt(before))
            .limit(ROWS_MAX)
            .to_owned();
        let delete = Query::delete()
            .from_table(table)
            .and_where(Expr::col(key).in_subquery(some))
            .to_owned();
        let removed = transaction.execute(&delete).await?.rows_affected();
        may_be_more |= removed >= ROWS_MAX;
    }
    let removed = audit::remove_before(transaction, ended.audit_before, ROWS_MAX).await?;
    Ok(may_be_more || removed >= ROWS_MAX)
}
