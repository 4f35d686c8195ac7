//! Databases for the contract, new and empty, and a service that predicts by the looks of a row.

use std::sync::Arc;
use std::time::Duration;

use auspex_jobs::carrier::{Carrier, InDatabase, InRabbitMq, RabbitMqConfig};
use auspex_jobs::{Config, Jobs, migrate};
use auspex_kernel::db::{Db, DbError};
use auspex_kernel::predict::{Batch, NoPrediction, Pinned, Predict, Predicted, Predicting};
use auspex_kernel::{ApiError, Clock, Random};
use csv::StringRecord;
use sea_orm::ConnectionTrait as _;

use crate::START;

/// As the first migration of another service makes it.
const AUDIT: &str = "CREATE TABLE IF NOT EXISTS identity_audit (id text PRIMARY KEY, \
     at bigint NOT NULL, actor text NOT NULL, action text NOT NULL, target text, \
     outcome text NOT NULL, detail text, address text, request_id text)";

/// A database of a test's own. Each [`Store::jobs`] is what another process would open.
pub(crate) struct Store {
    url: String,
    pub(crate) clock: Clock,
    folder: tempfile::TempDir,
    /// What carries ids, where it is not the database.
    rabbitmq: Option<RabbitMqConfig>,
}

impl Store {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            url: format!("sqlite:{}", folder.path().join("auspex.db").display()),
            clock: Clock::manual(START),
            folder,
            rabbitmq: None,
        }
    }

    /// A schema of its own in the database at `url`.
    pub(crate) async fn postgres(url: &str, test: &str) -> Self {
        let schema = format!("jobs_{}_{test}", std::process::id());
        let admin = Db::open(url).await.unwrap();
        let create = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}");
        execute(&admin, &create).await;
        let sign = if url.contains('?') { '&' } else { '?' };
        Self {
            url: format!("{url}{sign}options=-c%20search_path%3D{schema}"),
            clock: Clock::manual(START),
            folder: tempfile::tempdir().unwrap(),
            rabbitmq: None,
        }
    }

    /// The same with RabbitMQ.
    pub(crate) fn with(self, rabbitmq: RabbitMqConfig) -> Self {
        Self {
            rabbitmq: Some(rabbitmq),
            ..self
        }
    }

    /// What carries ids for a process of its own.
    pub(crate) async fn carrier(&self, pause: Duration) -> Arc<dyn Carrier> {
        let db = self.migrated().await;
        match &self.rabbitmq {
            Some(config) => {
                let carrier = InRabbitMq::open(config.clone(), db, pause).await;
                Arc::new(carrier.unwrap())
            }
            None => Arc::new(InDatabase::new(db, pause)),
        }
    }

    pub(crate) async fn remove(self) {
        if let Some((_, schema)) = self.url.split_once("search_path%3D") {
            let drop = format!("DROP SCHEMA {schema} CASCADE");
            execute(&self.db().await, &drop).await;
        }
        drop(self.folder);
    }

    pub(crate) async fn db(&self) -> Db {
        Db::open(&self.url).await.unwrap()
    }

    /// A process of its own, with settings of its own.
    pub(crate) async fn open(&self, config: Config) -> Jobs {
        let db = self.migrated().await;
        let carrier = Arc::new(InDatabase::new(db.clone(), Duration::from_millis(20)));
        let (clock, random) = (self.clock.clone(), Random::system());
        let jobs = Jobs::open(db, config, carrier, Arc::new(ByLooks), clock, random);
        jobs.await.unwrap()
    }

    /// The database with its tables.
    pub(crate) async fn migrated(&self) -> Db {
        let db = self.db().await;
        auspex_kernel::migrate(&db).await.unwrap();
        execute(&db, AUDIT).await;
        migrate(&db).await.unwrap();
        db
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        let db = self.db().await;
        let counted: Result<i64, DbError> = db
            .read(async |connection| {
                let backend = connection.get_database_backend();
                let count = format!("SELECT COUNT(*) FROM {table}");
                let count = sea_orm::Statement::from_string(backend, count);
                let row = connection.query_one_raw(count).await?.unwrap();
                Ok(row.try_get_by_index(0)?)
            })
            .await;
        counted.unwrap()
    }
}

pub(crate) async fn execute(db: &Db, sql: &str) {
    let done: Result<(), DbError> = db
        .write(async |transaction| {
            transaction.execute_unprepared(sql).await?;
            Ok(())
        })
        .await;
    done.unwrap();
}

/// Answers a row with itself, unless it says that something goes wrong.
struct ByLooks;

impl Predict for ByLooks {
    fn pin(&self, model: Option<&str>, version: Option<&str>) -> Result<Pinned, ApiError> {
        Ok(Pinned {
            model: model.unwrap_or("looks").to_owned(),
            version: version.unwrap_or("1").to_owned(),
            content: Some("old".into()),
        })
    }

    fn check_header(&self, _: &Pinned, _: &StringRecord) -> Result<(), NoPrediction> {
        Ok(())
    }

    fn predict(self: Arc<Self>, pinned: Pinned, batch: Batch) -> Predicting {
        Box::pin(async move {
            let text = String::from_utf8_lossy(&batch.text);
            assert!(!text.contains("panic"), "as the row says");
            if text.contains("busy") {
                return Err(NoPrediction::Busy);
            }
            if text.contains("away") {
                return Err(NoPrediction::NotServed(pinned));
            }
            if text.contains("replaced") {
                return Err(NoPrediction::Replaced(pinned));
            }
            if text.contains("hang") {
                std::future::pending::<()>().await;
            }
            let mut predicted = Predicted::default();
            for row in text.lines() {
                predicted.rows += 1;
                let is_wrong = row.contains("wrong");
                predicted.wrong += u64::from(is_wrong);
                let line = match is_wrong {
                    true => r#"{"error":[{"field":"a","message":"is wrong"}]}"#.to_owned(),
                    false => format!("{{\"prediction\":{row}}}"),
                };
                predicted.lines.extend_from_slice(line.as_bytes());
                predicted.lines.push(b'\n');
            }
            Ok(predicted)
        })
    }
}
