//! What a role of PostgreSQL has to be granted.

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};

use super::inspect::compare_all;
use super::{Db, DbError, KnownMigrations};

/// What the role may not do and has to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; let the owner of the database run: {grant}")]
pub struct MissingRight {
    /// In words.
    pub what: String,
    /// The statement that grants it.
    pub grant: String,
    /// Whether it is the right to make tables, which only a role that brings them up to date needs.
    pub is_to_create: bool,
}

/// What the role of this database lacks to work with the tables of these crates, or to make them
/// where there are none. Nothing on SQLite.
///
/// # Errors
/// As of [`Db::read`].
pub async fn missing_rights(
    db: &Db,
    known: &[KnownMigrations],
) -> Result<Vec<MissingRight>, DbError> {
    let tables: Vec<&str> = known.iter().map(|one| one.table.as_str()).collect();
    db.read(async |connection| {
        if connection.get_database_backend() != DbBackend::Postgres {
            return Ok(Vec::new());
        }
        let missing_now = missing(connection, &tables, false).await?;
        // What it may not read looks as if it were not there.
        if !missing_now.is_empty() || compare_all(connection, known).await?.pending.is_empty() {
            return Ok(missing_now);
        }
        Ok(missing(connection, &tables, true).await?)
    })
    .await
}

/// The same by the names of their tables of migrations. `to_migrate`: it has to make tables in any
/// case.
pub(super) async fn missing(
    connection: &impl ConnectionTrait,
    migrations: &[&str],
    to_migrate: bool,
) -> Result<Vec<MissingRight>, DbErr> {
    let query = |sql: &str| Statement::from_string(DbBackend::Postgres, sql);
    let schema = "SELECT quote_ident(current_user), quote_ident(current_schema()), \
                  coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), \
                  current_setting('search_path')";
    let row = connection.query_one_raw(query(schema)).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("the role".into()))?;
    let role: String = row.try_get_by_index(0)?;
    let schema: Option<String> = row.try_get_by_index(1)?;
    let may_create: bool = row.try_get_by_index(2)?;
    let Some(schema) = schema else {
        // One that the role may not use does not count as there.
        let path: String = row.try_get_by_index(3)?;
        let last = path.rsplit(',').next().unwrap_or(&path).trim();
        return Ok(vec![MissingRight {
            what: format!("the role {role} may use no schema of its search_path, {path}"),
            grant: format!("GRANT USAGE, CREATE ON SCHEMA {last} TO {role}"),
            is_to_create: false,
        }]);
    };
    let rights = ["SELECT", "INSERT", "UPDATE", "DELETE"];
    let has_all = rights.map(|right| format!("has_table_privilege(c.oid, '{right}')"));
    // The tables of a service begin with its name.
    let names = migrations
        .iter()
        .map(|table| table.split('_').next().unwrap_or(table));
    let is_ours: Vec<_> = names
        .map(|name| format!("starts_with(c.relname::text, '{name}_')"))
        .collect();
    let tables = format!(
        "SELECT c.relname::text, {} FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND ({}) \
         ORDER BY c.relname",
        has_all.join(" AND "),
        is_ours.join(" OR ")
    );
    let tables = connection.query_all_raw(query(&tables)).await?;
    let mut denied: Vec<String> = Vec::new();
    for table in &tables {
        if !table.try_get_by_index::<bool>(1)? {
            denied.push(table.try_get_by_index(0)?);
        }
    }
    let mut missing = Vec::new();
    if !may_create && (to_migrate || tables.is_empty()) {
        missing.push(MissingRight {
            what: format!("the role {role} may not make tables in the schema {schema}"),
            grant: format!("GRANT CREATE ON SCHEMA {schema} TO {role}"),
            is_to_create: true,
        });
    }
    if let Some(first) = denied.first() {
        let count = denied.len();
        missing.push(MissingRight {
            what: format!(
                "the role {role} may not read and change all tables: {count} of them, such as {first}"
            ),
            grant: format!(
                "GRANT {} ON ALL TABLES IN SCHEMA {schema} TO {role}",
                rights.join(", ")
            ),
            is_to_create: false,
        });
    }
    Ok(missing)
}
