//! Looks at a SQLite file without changing anything in it, for `auspex doctor`.

use std::path::Path;

use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::sqlite::SqliteConnectOptions;
use sea_orm::sqlx::{ConnectOptions as _, Sqlite};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, RuntimeErr, Statement};
use sea_orm_migration::{IntoSchemaManagerConnection, MigratorTrait, SchemaManager};

use super::sqlite::{check_log, log_of};
use super::{Connection, Db, DbError};

const ROWS_AT_ONCE: usize = 10_000;

/// The migrations that a crate of this program knows.
#[derive(Clone, Debug)]
pub struct KnownMigrations {
    /// The record of those that ran.
    pub(super) table: String,
    names: Vec<String>,
}

/// How the tables of a crate differ from what this program knows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Migrations that did not run.
    pub pending: Vec<String>,
    /// Migrations that ran and that this program does not know.
    pub unknown: Vec<String>,
}

impl KnownMigrations {
    /// Those of a migrator.
    pub fn of<M: MigratorTrait>() -> Self {
        let migrations = M::migrations();
        Self {
            table: M::migration_table_name().to_string(),
            names: migrations.iter().map(|one| one.name().to_owned()).collect(),
        }
    }

    /// Compares them with those that ran.
    pub(super) async fn compare<'c, C>(&self, connection: &'c C) -> Result<Difference, DbErr>
    where
        C: ConnectionTrait,
        &'c C: IntoSchemaManagerConnection<'c>,
    {
        let mut ran: Vec<String> = Vec::new();
        if SchemaManager::new(connection)
            .has_table(&self.table)
            .await?
        {
            let versions = format!("SELECT version FROM \"{}\"", self.table);
            let backend = connection.get_database_backend();
            let versions = Statement::from_string(backend, versions);
            for row in connection.query_all_raw(versions).await? {
                ran.push(row.try_get_by_index(0)?);
            }
        }
        let named = |name: &String| format!("{}.{name}", self.table);
        let pending = self.names.iter().filter(|name| !ran.contains(name));
        let unknown = ran.iter().filter(|name| !self.names.contains(name));
        Ok(Difference {
            pending: pending.map(named).collect(),
            unknown: unknown.map(named).collect(),
        })
    }
}

/// Whether any of these migrations ever ran there.
///
/// # Errors
/// As of [`Db::read`].
pub async fn has_run(db: &Db, known: &KnownMigrations) -> Result<bool, DbError> {
    db.read(async |connection| {
        Ok(SchemaManager::new(connection)
            .has_table(&known.table)
            .await?)
    })
    .await
}

/// How the tables of all these crates differ from what this program knows.
///
/// # Errors
/// As of [`Db::read`].
pub async fn compare(db: &Db, known: &[KnownMigrations]) -> Result<Difference, DbError> {
    db.read(async |connection| Ok(compare_all(connection, known).await?))
        .await
}

pub(super) async fn compare_all(
    connection: &Connection,
    known: &[KnownMigrations],
) -> Result<Difference, DbErr> {
    let mut all = Difference::default();
    for one in known {
        let Difference { pending, unknown } = one.compare(connection).await?;
        all.pending.extend(pending);
        all.unknown.extend(unknown);
    }
    Ok(all)
}

/// A SQLite file that is only read.
#[derive(Debug)]
pub struct Inspection(Connection);

impl Inspection {
    /// Opens a file that is there.
    ///
    /// # Errors
    /// [`DbError::Database`], [`DbError::ForeignLog`].
    pub async fn open(path: &Path) -> Result<Self, DbError> {
        // Without a log nobody has it open; SQLite then needs no files of its own beside it.
        let is_alone = !log_of(path).exists();
        Self::connect(path, is_alone).await
    }

    /// The same for as long as it takes: others may open it meanwhile.
    pub(super) async fn beside_others(path: &Path) -> Result<Self, DbError> {
        Self::connect(path, false).await
    }

    async fn connect(path: &Path, is_alone: bool) -> Result<Self, DbError> {
        check_log(path).await?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .immutable(is_alone)
            .disable_statement_logging();
        let pool = PoolOptions::<Sqlite>::new().max_connections(1);
        let connected = pool.connect_with(options).await;
        let connected = connected.map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())));
        Ok(Self(connected?.into()))
    }

    /// What SQLite's own check finds; nothing in a sound file.
    ///
    /// # Errors
    /// [`DbError::Database`], also where the file is damaged so that it cannot be checked.
    pub async fn damage(&self) -> Result<Vec<String>, DbError> {
        let rows = self.query("PRAGMA quick_check(20)").await?;
        let lines = rows.iter().map(|row| row.try_get_by_index::<String>(0));
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }

    /// What it is read with.
    pub fn connection(&self) -> &Connection {
        &self.0
    }

    /// Writes all that it holds to a new file, as it is at this moment.
    pub(super) async fn write_to(&self, file: &str) -> Result<(), DbError> {
        let vacuum = "VACUUM INTO ?";
        let vacuum = Statement::from_sql_and_values(DbBackend::Sqlite, vacuum, [file.into()]);
        self.0.execute_raw(vacuum).await?;
        Ok(())
    }

    /// Whether any of these migrations ever ran.
    ///
    /// # Errors
    /// [`DbError::Database`].
    pub async fn has_run(&self, known: &KnownMigrations) -> Result<bool, DbError> {
        Ok(SchemaManager::new(&self.0).has_table(&known.table).await?)
    }

    /// Migrations that ran and that this program does not know.
    ///
    /// # Errors
    /// [`DbError::Database`].
    pub async fn unknown_migrations(
        &self,
        known: &[KnownMigrations],
    ) -> Result<Vec<String>, DbError> {
        Ok(compare_all(&self.0, known).await?.unknown)
    }

    /// Rows with a text that is not UTF-8: their table and number.
    ///
    /// # Errors
    /// [`DbError::Database`].
    pub async fn unreadable_rows(&self) -> Result<Vec<String>, DbError> {
        let mut unreadable = Vec::new();
        let tables =
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
        for table in self.query(tables).await? {
            let table: String = table.try_get_by_index(0)?;
            for column in self.columns(&table).await? {
                let rows = self.unreadable_texts(&table, &column).await?;
                let named = rows
                    .iter()
                    .map(|id| format!("{column} of row {id} in {table}"));
                unreadable.extend(named);
            }
        }
        Ok(unreadable)
    }

    /// The numbers of the rows that have such a text in this column.
    async fn unreadable_texts(&self, table: &str, column: &str) -> Result<Vec<i64>, DbError> {
        let (mut unreadable, mut last) = (Vec::new(), i64::MIN);
        loop {
            let texts = format!(
                "SELECT rowid, CAST(\"{column}\" AS BLOB) FROM \"{table}\" \
                 WHERE rowid > {last} AND typeof(\"{column}\") = 'text' \
                 ORDER BY rowid LIMIT {ROWS_AT_ONCE}"
            );
            let rows = self.query(&texts).await?;
            if rows.is_empty() {
                return Ok(unreadable);
            }
            for row in rows {
                last = row.try_get_by_index(0)?;
                let text: Vec<u8> = row.try_get_by_index(1)?;
                if std::str::from_utf8(&text).is_err() {
                    unreadable.push(last);
                }
            }
        }
    }

    /// Closes the file.
    pub async fn close(self) {
        super::close(&self.0).await;
    }

    async fn columns(&self, table: &str) -> Result<Vec<String>, DbError> {
        let names = format!("SELECT name FROM pragma_table_info('{table}')");
        let rows = self.query(&names).await?;
        let names = rows.iter().map(|row| row.try_get_by_index(0));
        Ok(names.collect::<Result<_, _>>()?)
    }

    async fn query(&self, sql: &str) -> Result<Vec<QueryResult>, DbError> {
        let query = Statement::from_string(DbBackend::Sqlite, sql);
        Ok(self.0.query_all_raw(query).await?)
    }
}
