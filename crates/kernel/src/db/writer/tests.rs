//! Transactions that share a commit, and what happens to the others when one of them goes wrong.

use sea_orm::ConnectionTrait as _;
use tokio::task::JoinHandle;

use super::*;
use crate::db::{CALL_TIMEOUT, Fault};

struct Database {
    writer: Arc<Writer>,
    _folder: tempfile::TempDir,
}

impl Database {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let connector = Connector {
            path: folder.path().join("x.db"),
            call_timeout: CALL_TIMEOUT,
        };
        let writer = Writer::open(connector).await.unwrap();
        let database = Self {
            writer,
            _folder: folder,
        };
        let tables = "CREATE TABLE things (id INTEGER PRIMARY KEY); \
             CREATE TABLE blobs (content BLOB); \
             CREATE TABLE parts (thing INTEGER REFERENCES things DEFERRABLE INITIALLY DEFERRED)";
        database.execute(tables).await.unwrap();
        database
    }

    async fn execute(&self, sql: &str) -> Result<(), DbError> {
        execute(&self.writer, sql).await
    }

    /// Begins these transactions while the writer is busy, and waits for them. They are one group.
    async fn execute_together(&self, statements: &[String]) -> Vec<Result<(), DbError>> {
        let turn = self.writer.turn.lock().await;
        let running: Vec<_> = statements.iter().map(|sql| self.begin(sql)).collect();
        soon(async || self.writer.waiting.load(Ordering::SeqCst) == running.len()).await;
        drop(turn);
        let mut results = Vec::new();
        for one in running {
            results.push(one.await.unwrap());
        }
        results
    }

    fn begin(&self, sql: &str) -> JoinHandle<Result<(), DbError>> {
        let (writer, sql) = (Arc::clone(&self.writer), sql.to_owned());
        tokio::spawn(async move { execute(&writer, &sql).await })
    }

    /// What another connection sees, which is what is stored.
    async fn ids(&self) -> Vec<i64> {
        let reader = self.writer.places.connector.next().await.unwrap();
        let rows = reader.query_all_raw(sea_orm::Statement::from_string(
            sea_orm::DbBackend::Sqlite,
            "SELECT id FROM things ORDER BY id",
        ));
        let ids = rows.await.unwrap();
        ids.iter()
            .map(|row| row.try_get_by_index(0).unwrap())
            .collect()
    }
}

async fn execute(writer: &Arc<Writer>, sql: &str) -> Result<(), DbError> {
    let work = async |transaction: &Transaction| {
        transaction.execute_unprepared(sql).await?;
        Ok(())
    };
    write(writer, work, &AtomicBool::new(false)).await
}

async fn write(
    writer: &Arc<Writer>,
    work: impl AsyncFnOnce(&Transaction) -> Result<(), DbError>,
    committing: &AtomicBool,
) -> Result<(), DbError> {
    let open = writer.begin(true).await?;
    let result = work(open.transaction()).await;
    let ended = open.end(result.is_ok(), committing).await;
    result.and(ended)
}

/// Waits until it is so.
async fn soon(is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    let waited = timeout(Duration::from_secs(10), waiting).await;
    waited.expect("bounded");
}

fn insert(id: usize) -> String {
    format!("INSERT INTO things VALUES ({id})")
}

#[tokio::test]
async fn each_member_of_a_group_keeps_its_own_success_or_failure() {
    let database = Database::new().await;
    // Twice the same id: the first wins, whichever it is.
    let statements: Vec<String> = (0..20).map(|n| insert(n / 2)).collect();
    let results = database.execute_together(&statements).await;
    for pair in results.chunks(2) {
        assert_eq!(pair.iter().filter(|result| result.is_ok()).count(), 1);
    }
    assert_eq!(database.ids().await, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn nobody_who_waits_for_the_disk_is_in_a_group_that_does_not() {
    const FULL: i32 = 2;
    let database = Database::new().await;
    let turn = database.writer.turn.lock().await;
    let mut running = Vec::new();
    for (id, is_synced) in [false, false, true, false, true].into_iter().enumerate() {
        let writer = Arc::clone(&database.writer);
        running.push(tokio::spawn(async move {
            let open = writer.begin(is_synced).await.unwrap();
            let mode = Statement::from_string(DbBackend::Sqlite, "PRAGMA synchronous");
            let mode = open.transaction().query_one_raw(mode).await.unwrap();
            let mode: i32 = mode.unwrap().try_get_by_index(0).unwrap();
            let (transaction, sql) = (open.transaction(), insert(id));
            transaction.execute_unprepared(&sql).await.unwrap();
            open.end(true, &AtomicBool::new(false)).await.unwrap();
            (is_synced, mode == FULL)
        }));
    }
    soon(async || database.writer.waiting.load(Ordering::SeqCst) == running.len()).await;
    drop(turn);
    let mut waited = 0;
    for one in running {
        let (is_synced, waits) = one.await.unwrap();
        assert!(waits || !is_synced);
        waited += usize::from(waits);
    }
    // The first two are a group that does not wait, and the others are one that does.
    assert_eq!(waited, 3);
    assert_eq!(database.ids().await, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn nobody_is_told_of_success_when_the_commit_fails() {
    let database = Database::new().await;
    // No statement of it fails; the commit does.
    let orphan = "INSERT INTO parts VALUES (99)".to_owned();
    let results = database
        .execute_together(&[insert(1), orphan, insert(2)])
        .await;
    assert!(results.iter().all(Result::is_err), "{results:?}");
    assert!(database.ids().await.is_empty());
    for id in 3..6 {
        database.execute(&insert(id)).await.unwrap();
    }
    assert_eq!(database.ids().await, [3, 4, 5]);
}

/// As SQLite does by itself after some errors, such as those of a disk.
#[tokio::test]
async fn a_transaction_that_sqlite_rolled_back_takes_its_group_with_it() {
    let database = Database::new().await;
    let rolled_back = "INSERT OR ROLLBACK INTO things VALUES (1)".to_owned();
    let together = [insert(1), rolled_back, insert(2)];
    let results = database.execute_together(&together).await;
    // The last one finds the group lost and gets a connection of its own.
    let succeeded: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(succeeded, [false, false, true]);
    // No fault of the one who was in its company.
    assert!(matches!(results[0], Err(DbError::Abandoned)), "{results:?}");
    database.execute(&insert(3)).await.unwrap();
    assert_eq!(database.ids().await, [2, 3]);
}

#[tokio::test]
async fn a_transaction_that_is_abandoned_halfway_leaves_nothing() {
    let database = Database::new().await;
    let committing = AtomicBool::new(false);
    let work = async |transaction: &Transaction| {
        transaction.execute_unprepared(&insert(1)).await?;
        std::future::pending::<Result<(), DbError>>().await
    };
    let never = write(&database.writer, work, &committing);
    assert!(timeout(Duration::from_millis(50), never).await.is_err());
    let writer = Arc::clone(&database.writer);
    let panics = tokio::spawn(async move {
        let work = async |transaction: &Transaction| -> Result<(), DbError> {
            transaction.execute_unprepared(&insert(2)).await?;
            panic!("a broken invariant")
        };
        write(&writer, work, &AtomicBool::new(false)).await
    });
    assert!(panics.await.unwrap_err().is_panic());
    database.execute(&insert(3)).await.unwrap();
    assert_eq!(database.ids().await, [3]);
}

#[tokio::test]
async fn a_group_is_committed_when_the_one_it_waits_for_gives_up() {
    let database = Database::new().await;
    let waiting = Waiting::begin(&database.writer);
    let left_open = database.begin(&insert(1));
    soon(async || matches!(&*database.writer.turn.lock().await, Turn::Open(..))).await;
    assert!(database.ids().await.is_empty());
    drop(waiting);
    let committed = timeout(Duration::from_secs(10), left_open).await;
    committed.expect("bounded").unwrap().unwrap();
    assert_eq!(database.ids().await, [1]);
}

#[tokio::test]
async fn a_connection_whose_begin_fails_is_replaced() {
    let database = Database::new().await;
    match &*database.writer.turn.lock().await {
        Turn::Idle(idle) => close(idle).await,
        turn => panic!("{turn:?}"),
    }
    assert!(database.execute(&insert(1)).await.is_err());
    database.execute(&insert(2)).await.unwrap();
    assert_eq!(database.ids().await, [2]);
}

#[tokio::test]
async fn a_closed_writer_takes_nothing() {
    let database = Database::new().await;
    database.writer.close().await;
    database.writer.close().await;
    assert!(database.execute(&insert(1)).await.is_err());
}

#[tokio::test]
async fn what_was_acknowledged_on_a_full_disk_is_stored() {
    let database = Database::new().await;
    let fill = |id: usize| format!("{}; INSERT INTO blobs VALUES (zeroblob(10000))", insert(id));
    let mut acknowledged = Vec::new();
    // SQLite answers "disk full" at its page limit too. A limit below the size of the file means that
    // it must not grow; a new connection begins without one.
    for id in 0..30 {
        let limit = if id % 3 == 1 { 1 } else { 100_000 };
        let together = [
            format!("PRAGMA max_page_count = {limit}"),
            fill(id),
            insert(100 + id),
        ];
        let results = database.execute_together(&together).await;
        for (id, result) in [id, 100 + id].into_iter().zip(&results[1..]) {
            if result.is_ok() {
                acknowledged.push(id as i64);
            }
        }
    }
    acknowledged.sort_unstable();
    assert!((30..60).contains(&acknowledged.len()), "{acknowledged:?}");
    assert_eq!(database.ids().await, acknowledged);
}

/// A connection whose driver counts one savepoint too many answers COMMIT by releasing a savepoint.
#[tokio::test]
async fn nothing_is_acknowledged_inside_a_transaction_that_goes_on() {
    let database = Database::new().await;
    let work = async |transaction: &Transaction| -> Result<(), DbError> {
        let nested = transaction.begin().await?;
        nested.execute_unprepared("ROLLBACK").await?;
        nested.commit().await.expect_err("its savepoint is gone");
        let again = "BEGIN IMMEDIATE; SAVEPOINT _sqlx_savepoint_1; SAVEPOINT member";
        transaction.execute_unprepared(again).await?;
        transaction.execute_unprepared(&insert(1)).await?;
        Ok(())
    };
    let committing = AtomicBool::new(false);
    let written = write(&database.writer, work, &committing).await;
    assert!(matches!(written, Err(DbError::Abandoned)), "{written:?}");
    database.execute(&insert(2)).await.unwrap();
    assert_eq!(database.ids().await, [2]);
}

/// How often this process has the file open.
fn descriptors(file: &std::path::Path) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
    targets.filter(|target| target == file).count()
}

/// A thread that waits for a lock stands still, as one does whose disk hangs.
#[tokio::test]
async fn threads_that_stand_still_are_few_and_refusals_fast() {
    let database = Database::new().await;
    let connector = &database.writer.places.connector;
    let holder = connector.next().await.unwrap();
    let before = descriptors(&connector.path);
    let held = Group::begin(&holder, true).await.unwrap();
    let mut refused = 0;
    for id in 0..40 {
        let insert = insert(id);
        match timeout(Duration::from_millis(50), database.execute(&insert)).await {
            Ok(Err(error)) => {
                assert_eq!(error.fault(), Some(Fault::Slow), "{error}");
                refused += 1;
            }
            Ok(Ok(())) => panic!("written past a lock"),
            Err(_) => {}
        }
    }
    // As many calls as there are places waited until they gave up; the others did not wait.
    assert_eq!(refused, 40 - CONNECTIONS_MAX);
    assert!(descriptors(&connector.path) < before + CONNECTIONS_MAX);
    drop(held);
    soon(async || database.execute(&insert(99)).await.is_ok()).await;
    assert_eq!(database.ids().await, [99]);
    soon(async || database.writer.places.free.available_permits() == CONNECTIONS_MAX - 1).await;
}
