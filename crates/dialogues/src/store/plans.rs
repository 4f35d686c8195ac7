//! Every list, with every filter, reads no more rows than it shows, in the order of an index, however
//! many there are: databases are asked how they would go about it.

use auspex_kernel::Timestamp;
use auspex_kernel::db::{Connection, Db, DbError};
use auspex_kernel::page::Slice;
use parking_lot::Mutex;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement};
use sea_orm_migration::prelude::async_trait;

use super::{consents, dialogues, keys, messages, statistics, withdrawals};
use crate::ids::{CustomerId, DialogId, Pseudonyms};
use crate::types::{MessageFilter, RowId, Status, position};

/// A connection that notes the plan of each statement.
struct Planned<'c> {
    connection: &'c Connection,
    /// Each with its plan.
    noted: Mutex<Vec<(String, String)>>,
}

impl Planned<'_> {
    async fn note(&self, statement: &Statement) -> Result<(), DbErr> {
        let backend = self.get_database_backend();
        let explain = match backend {
            DbBackend::Sqlite => "EXPLAIN QUERY PLAN",
            _ => "EXPLAIN",
        };
        let explained = Statement::from_string(backend, format!("{explain} {statement}"));
        let rows = self.connection.query_all_raw(explained).await?;
        let mut plan = String::new();
        for row in rows {
            let line: String = match backend {
                DbBackend::Sqlite => row.try_get("", "detail")?,
                _ => row.try_get_by_index(0)?,
            };
            plan += &format!("{line}\n");
        }
        self.noted.lock().push((statement.to_string(), plan));
        Ok(())
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Planned<'_> {
    fn get_database_backend(&self) -> DbBackend {
        self.connection.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.note(&statement).await?;
        self.connection.execute_raw(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.connection.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.note(&statement).await?;
        self.connection.query_one_raw(statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.note(&statement).await?;
        self.connection.query_all_raw(statement).await
    }
}

/// Asks for every list with every filter.
async fn ask_everything(connection: &Planned<'_>) -> Result<(), DbError> {
    let pseudonyms = Pseudonyms::new(&[7; 32]);
    let customer = pseudonyms.customer(&CustomerId::parse("c").unwrap());
    let dialogue = pseudonyms.dialogue(&DialogId::parse("d").unwrap());
    let now = Timestamp(1_769_335_200_000_000);
    let (count, place) = (100, position(now, RowId(7)));
    let seek = |after: Option<&str>| Slice::Seek {
        after: after.map(str::to_owned),
        count,
    };
    let skip = || Slice::Skip { offset: 10, count };
    for chosen in 0..48 {
        let is_chosen = |bit: u32| chosen >> bit & 1 == 1;
        let filter = MessageFilter {
            language: [None, Some("pt"), Some("pt-BR")][chosen / 16].map(str::to_owned),
            customer: is_chosen(0).then_some(customer),
            dialogue: is_chosen(1).then_some(dialogue),
            from: is_chosen(2).then_some(now),
            to: is_chosen(3).then_some(now),
        };
        for slice in [seek(None), seek(Some(&place)), skip()] {
            messages::page(connection, &filter, slice).await?;
        }
    }
    for (language, purpose) in [(None, None), (Some("pt"), Some("x")), (Some("pt-BR"), None)] {
        let old = messages::Old {
            language,
            purpose,
            before: now,
        };
        old.count(connection).await?;
        old.some(connection, count).await?;
    }
    messages::count(connection, customer).await?;
    messages::has_any(connection, dialogue).await?;
    messages::language_of(connection, dialogue).await?;
    for slice in [seek(None), seek(Some("7")), skip()] {
        consents::page(connection, customer, slice).await?;
    }
    for since in [None, Some(now)] {
        for slice in [seek(None), seek(Some(&place)), skip()] {
            withdrawals::page(connection, since, slice).await?;
        }
    }
    withdrawals::of_customer(connection, customer).await?;
    for status in [None, Some(Status::Consented)] {
        for after in [None, Some(dialogue)] {
            dialogues::of_customer(connection, customer, status, after, count).await?;
        }
    }
    dialogues::find(connection, dialogue).await?;
    dialogues::count(connection, customer, Status::Consented).await?;
    dialogues::sealed_ids(connection, std::iter::once(dialogue)).await?;
    for after in [None, Some((now, dialogue))] {
        dialogues::decided_before(connection, now, after, count).await?;
    }
    let receipt = format!("{}.{}", now.0, "ab".repeat(16));
    for customer in [None, Some(customer)] {
        for slice in [seek(None), seek(Some(&receipt)), skip()] {
            keys::receipts(connection, customer, slice).await?;
        }
    }
    keys::find(connection, customer).await?;
    keys::last_erasures(connection, &[(customer, now), (customer, now)]).await?;
    keys::erasures_after(connection, (now, [0; 16]), count).await?;
    keys::count_erasures(connection, customer).await?;
    statistics::between(connection, 0, 400).await?;
    Ok(())
}

/// The statements whose plan reads all rows of a table, or sorts what it has read.
async fn bad_plans(db: &Db) -> Vec<String> {
    db.migrate::<crate::migration::Migrator>().await.unwrap();
    db.migrate::<crate::migration::KeysMigrator>()
        .await
        .unwrap();
    let noted = db.read(async |connection| -> Result<_, DbError> {
        if connection.get_database_backend() == DbBackend::Postgres {
            // As with many rows: none of these is taken where there is another way.
            for way in ["seqscan", "bitmapscan", "sort", "hashjoin", "mergejoin"] {
                let off = format!("SET enable_{way} = off");
                connection.execute_unprepared(&off).await?;
            }
        }
        let planned = Planned {
            connection,
            noted: Mutex::default(),
        };
        ask_everything(&planned).await?;
        Ok(planned.noted.into_inner())
    });
    let noted = noted.await.unwrap();
    assert!(noted.len() > 150, "{}", noted.len());
    let is_bad = |plan: &str| {
        plan.lines().any(|line| {
            let is_scan = line.starts_with("SCAN") && !line.contains("USING");
            is_scan
                || ["TEMP B-TREE", "Seq Scan", "Sort"]
                    .iter()
                    .any(|bad| line.contains(bad))
        })
    };
    let bad = noted.into_iter().filter(|(_, plan)| is_bad(plan));
    bad.map(|(sql, plan)| format!("{sql}\n{plan}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_finds_every_list_by_an_index_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("x.db").display());
    let bad = bad_plans(&Db::open(&url).await.unwrap()).await;
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_finds_every_list_by_an_index_in_its_order() {
    let Ok(url) = std::env::var("AUSPEX_TEST_POSTGRES_URL") else {
        return;
    };
    let schema = format!("dialogues_plans_{}", std::process::id());
    let admin = Db::open(&url).await.unwrap();
    let execute = async |sql: String| {
        let write = admin.write(async |transaction| -> Result<_, DbError> {
            Ok(transaction.execute_unprepared(&sql).await?)
        });
        write.await.unwrap();
    };
    execute(format!("CREATE SCHEMA {schema}")).await;
    let sign = if url.contains('?') { '&' } else { '?' };
    let own = format!("{url}{sign}options=-c%20search_path%3D{schema}");
    let bad = bad_plans(&Db::open(&own).await.unwrap()).await;
    execute(format!("DROP SCHEMA {schema} CASCADE")).await;
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
