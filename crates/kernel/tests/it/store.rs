//! Databases, new and empty.

use auspex_kernel::db::{Db, DbError};
use sea_orm::{ConnectionTrait, Statement};

/// A database of a test's own. Each [`Store::db`] is what another process would open.
pub(crate) struct Store {
    pub(crate) url: String,
    _folder: Option<tempfile::TempDir>,
}

impl Store {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            url: format!("sqlite:{}", folder.path().join("auspex.db").display()),
            _folder: Some(folder),
        }
    }

    /// A schema of its own in the database at `url`.
    pub(crate) async fn postgres(url: &str, test: &str) -> Self {
        let schema = format!("kernel_{}_{test}", std::process::id());
        let admin = Db::open(url).await.unwrap();
        let create = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}");
        execute(&admin, create).await;
        let sign = if url.contains('?') { '&' } else { '?' };
        Self {
            url: format!("{url}{sign}options=-c%20search_path%3D{schema}"),
            _folder: None,
        }
    }

    pub(crate) async fn remove(self) {
        if let Some((_, schema)) = self.url.split_once("search_path%3D") {
            execute(&self.db().await, format!("DROP SCHEMA {schema} CASCADE")).await;
        }
    }

    /// Opened by a process of its own, and up to date.
    pub(crate) async fn db(&self) -> Db {
        let db = Db::open(&self.url).await.unwrap();
        auspex_kernel::migrate(&db).await.unwrap();
        db
    }
}

/// Runs `sql` as it is.
pub(crate) async fn execute(db: &Db, sql: String) {
    db.write(async |transaction| -> Result<_, DbError> {
        Ok(transaction.execute_unprepared(&sql).await?)
    })
    .await
    .unwrap();
}

/// The first column of the rows.
pub(crate) async fn texts(db: &Db, sql: &str) -> Vec<String> {
    db.read(async |connection| -> Result<_, DbError> {
        let query = Statement::from_string(connection.get_database_backend(), sql);
        let rows = connection.query_all_raw(query).await?;
        let texts = rows.iter().map(|row| row.try_get_by_index(0));
        Ok(texts.collect::<Result<_, _>>()?)
    })
    .await
    .unwrap()
}
