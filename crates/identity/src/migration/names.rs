//! Brings names that were stored before they had one form into that form. Where two users would have the
//! same name, neither is changed and the log says who they are: nobody can be merged with somebody else.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, QueryResult, Statement, Value};

use crate::canonical;

const USERS_AT_ONCE: u64 = 1_000;

pub(super) async fn bring_into_form(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let mut after = String::new();
    let mut conflicts = Vec::new();
    loop {
        let users = page(manager, after).await?;
        let Some(last) = users.last() else {
            break;
        };
        after = last.try_get("", "id")?;
        for user in &users {
            for name in ["username", "email"] {
                conflicts.extend(change(manager, user, name).await?);
            }
        }
    }
    if !conflicts.is_empty() {
        let users = conflicts.join(" ");
        tracing::warn!(
            users,
            "other users have names that look the same as those of these users; `auspex users conflicts` \
             lists them all, and PATCH /v1/users/ID gives another name"
        );
    }
    Ok(())
}

async fn page(manager: &SchemaManager<'_>, after: String) -> Result<Vec<QueryResult>, DbErr> {
    let connection = manager.get_connection();
    let columns = ["id", "username", "username_key", "email", "email_key"];
    let query = Query::select()
        .columns(columns)
        .from("identity_users")
        .and_where(Expr::col("id").gt(after))
        .order_by("id", Order::Asc)
        .limit(USERS_AT_ONCE)
        .to_owned();
    connection.query_all(&query).await
}

/// Gives one name its form; the user's id if another has that name.
async fn change(
    manager: &SchemaManager<'_>,
    user: &QueryResult,
    name: &str,
) -> Result<Option<String>, DbErr> {
    let (id, written): (String, String) = (user.try_get("", "id")?, user.try_get("", name)?);
    let old_key: String = user.try_get("", &format!("{name}_key"))?;
    let key = canonical::key(&written);
    let shown = canonical::name(&written).unwrap_or_else(|| written.clone());
    if key == old_key && shown == written {
        return Ok(None);
    }
    let connection = manager.get_connection();
    let sql = format!(
        "UPDATE identity_users SET {name} = $1, {name}_key = $2 WHERE id = $3 AND NOT EXISTS \
         (SELECT 1 FROM identity_users AS other WHERE other.{name}_key = $2 AND other.id <> $3)"
    );
    let values: [Value; 3] = [shown.into(), key.into(), id.clone().into()];
    let update = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    let done = connection.execute_raw(update).await?;
    Ok((done.rows_affected() == 0).then_some(id))
}
