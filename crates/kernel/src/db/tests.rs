//! What holds for a database as a whole, whichever it is.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

async fn ping(db: &Db) -> Result<(), DbError> {
    db.read(async |connection| Ok(connection.ping().await?))
        .await
}

async fn execute(db: &Db, sql: &'static str) -> Result<(), DbError> {
    db.write(async |transaction| {
        transaction.execute_unprepared(sql).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn sqlite_paths_are_taken_as_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["%41", "a?b", "a#b", "a b", "file:x", "é"] {
        let file = folder.path().join(name).join("x?y.db");
        let db = Db::open(&url(&file)).await.unwrap();
        execute(&db, "CREATE TABLE IF NOT EXISTS t (a)")
            .await
            .unwrap();
        ping(&db).await.unwrap();
        assert!(file.is_file(), "{name}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 6);
}

#[tokio::test]
async fn a_file_that_is_no_database_stays_as_it_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "hello").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    Db::open(&url(&file)).await.unwrap_err();
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hello");
}

#[tokio::test]
async fn a_sqlite_database_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = Db::open(&url(folder.path())).await.unwrap_err().to_string();
    assert!(error.contains(" is a folder; "), "{error}");
    for url in [
        "sqlite:",
        "sqlite://",
        "sqlite::memory:",
        "sqlite::",
        "sqlite://:memory:",
    ] {
        let error = Db::open(url).await.unwrap_err();
        assert!(matches!(error, DbError::NoFile), "{url}: {error}");
    }
}

#[tokio::test]
async fn passwords_are_not_told() {
    for url in [
        "postgres://u:hunter2@127.0.0.1:99999/x",
        "postgres://u:hunter2/y@127.0.0.1/x",
        "postgres://u:1/hunter2@127.0.0.1/x",
        "postgres://u:1?hunter2@127.0.0.1/x",
        "postgres://u:1#hunter2@127.0.0.1/x",
        "postgres://u:hunter2@127.0.0.1/x?sslmode=no",
        "postgres://u@127.0.0.1:1/x?password=p&hunter2",
        "mysql://u:hunter2@127.0.0.1/x",
        "hunter2",
    ] {
        let error = Db::open(url).await.unwrap_err();
        let is_refused = matches!(error, DbError::InvalidUrl | DbError::ForeignUrl(_));
        assert!(is_refused, "{url}: {error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}");
    }
    for name in ["sslrootcert", "ssl-ca", "ssl%63ert", "sslkey"] {
        let url =
            format!("postgres://u:hunter2@127.0.0.1:1/x?sslmode=verify-full&{name}=no/such.pem");
        let error = Db::open(&url).await.unwrap_err();
        assert!(matches!(error, DbError::TlsFile { .. }), "{url}: {error}");
        let text = format!("{error} {error:?}");
        assert!(
            text.contains("no/such.pem") && !text.contains("hunter2"),
            "{text}"
        );
    }
    let endless = "postgres://u@127.0.0.1:1/x?sslmode=verify-full&sslrootcert=/dev/zero";
    let error = Db::open(endless).await.unwrap_err();
    assert!(matches!(error, DbError::TlsFile { .. }), "{error}");
    // The driver would log it.
    for name in ["sslpassword", "ssl%70assword", "options[x"] {
        let url = format!("postgres://u@127.0.0.1:1/x?user=u&{name}=hunter2#f");
        let error = Db::open(&url).await.unwrap_err();
        assert!(
            matches!(error, DbError::UnknownParameter { .. }),
            "{url}: {error}"
        );
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2"), "{text}");
        let name = name.replace("%70", "p");
        assert!(text.contains(&name) && text.contains("sslmode"), "{text}");
    }
    // Nobody listens there.
    let known = "host=/nowhere&sslmode=disable&options%5Ba%5D=b";
    let error = Db::open(&format!("postgres://u:hunter2@h/x?{known}")).await;
    let error = error.unwrap_err();
    assert!(matches!(error, DbError::Unreachable { .. }));
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_replaced_or_removed_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.db");
    let moved = folder.path().join("moved.db");
    let db = Db::open(&url(&file)).await.unwrap();
    let mut watch = db.watch().await.unwrap();
    let is_lost = |result: Result<(), DbError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, DbError::Replaced { .. }), "{error}");
        assert!(error.to_string().contains("restart the server"));
    };

    std::fs::rename(&file, &moved).unwrap();
    for replacement in [None, Some("another")] {
        if let Some(content) = replacement {
            std::fs::write(&file, content).unwrap();
        }
        is_lost(ping(&db).await);
        is_lost(execute(&db, "CREATE TABLE t (a)").await);
        is_lost(watch.changed().await.map(|_| ()));
        is_lost(db.watch().await.map(|_| ()));
        assert_eq!(file.exists(), replacement.is_some());
    }

    std::fs::rename(&moved, &file).unwrap();
    ping(&db).await.unwrap();
    execute(&db, "CREATE TABLE t (a)").await.unwrap();
    assert!(watch.changed().await.unwrap());
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "on the control runtime alone")]
fn use_on_another_runtime_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let url = url(&folder.path().join("x.db"));
    let [control, other] = [(); 2].map(|()| tokio::runtime::Runtime::new().unwrap());
    let db = control.block_on(Db::open(&url)).unwrap();
    let _ = other.block_on(ping(&db));
}

#[tokio::test]
async fn an_error_of_the_work_rolls_back_and_ok_commits() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&url(&folder.path().join("x.db"))).await.unwrap();
    execute(&db, "CREATE TABLE t (a)").await.unwrap();
    for is_refused in [true, false] {
        let written = db.write(async |transaction| -> Result<(), DbError> {
            transaction
                .execute_unprepared("INSERT INTO t VALUES (1)")
                .await?;
            if is_refused {
                Err(DbError::NoFile)
            } else {
                Ok(())
            }
        });
        assert_eq!(written.await.is_err(), is_refused);
    }
    let rows = db.read(async |connection| -> Result<i64, DbError> {
        let count = sea_orm::Statement::from_string(DbBackend::Sqlite, "SELECT COUNT(*) FROM t");
        let row = connection.query_one_raw(count).await?.unwrap();
        Ok(row.try_get_by_index(0)?)
    });
    assert_eq!(rows.await.unwrap(), 1);
}

#[tokio::test]
async fn closing_moves_the_log_into_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.db");
    let db = Db::open(&url(&file)).await.unwrap();
    let mut watch = db.watch().await.unwrap();
    watch.changed().await.unwrap();
    execute(&db, "CREATE TABLE t (a)").await.unwrap();
    assert!(folder.path().join("x.db-wal").exists());
    watch.close().await;
    db.close().await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(ping(&db).await.is_err());
}

/// A database whose deadline passes soon.
async fn hasty(folder: &tempfile::TempDir) -> Db {
    let url = url(&folder.path().join("x.db"));
    let limits = Limits::within(Duration::from_millis(300));
    let db = Db::open_with(&url, limits).await.unwrap();
    execute(&db, "CREATE TABLE IF NOT EXISTS t (a)")
        .await
        .unwrap();
    db
}

async fn rows(db: &Db) -> i64 {
    let count = Statement::from_string(DbBackend::Sqlite, "SELECT COUNT(*) FROM t");
    let counted = db.read(async |connection| -> Result<i64, DbError> {
        let row = connection.query_one_raw(count).await?.unwrap();
        Ok(row.try_get_by_index(0)?)
    });
    counted.await.unwrap()
}

async fn insert_and(db: &Db, then: impl AsyncFnOnce()) -> Result<(), DbError> {
    db.write(async |transaction| {
        transaction
            .execute_unprepared("INSERT INTO t VALUES (1)")
            .await?;
        then().await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_change_that_waits_too_long_for_its_turn_is_not_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    let db = hasty(&folder).await;
    let begin = Instant::now();
    let slow = tokio::spawn({
        let db = db.clone();
        async move { insert_and(&db, std::future::pending).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    // This one waits behind it, and gives up while the next one still has time.
    let is_carried_out = AtomicBool::new(false);
    let hasty = db.write(async |_| {
        is_carried_out.store(true, Ordering::Relaxed);
        Ok::<_, DbError>(())
    });
    let behind = timeout(Duration::from_millis(50), hasty).await;
    assert!(behind.is_err());
    insert_and(&db, async || {}).await.unwrap();
    assert!(!is_carried_out.load(Ordering::Relaxed));
    let error = slow.await.unwrap().unwrap_err();
    assert!(matches!(error, DbError::TimedOut { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!(told(error).0, 503);
    assert_eq!(rows(&db).await, 1);
}

#[tokio::test]
async fn a_change_behind_another_process_ends_in_time_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let db = hasty(&folder).await;
    let other = Db::open(&url(&folder.path().join("x.db"))).await.unwrap();
    let (release, released) = tokio::sync::oneshot::channel();
    let (hold, held) = tokio::sync::oneshot::channel();
    let holding = tokio::spawn(async move {
        let hold = async move || {
            hold.send(()).unwrap();
            released.await.unwrap();
        };
        insert_and(&other, hold).await
    });
    held.await.unwrap();
    let begin = Instant::now();
    let error = insert_and(&db, async || {}).await.unwrap_err();
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    let fault = error.fault().unwrap();
    assert!(matches!(fault, Fault::Busy | Fault::Slow), "{error}");
    release.send(()).unwrap();
    holding.await.unwrap().unwrap();
    assert_eq!(rows(&db).await, 1);
    insert_and(&db, async || {}).await.unwrap();
    assert_eq!(rows(&db).await, 2);
}

#[tokio::test]
async fn an_outcome_that_is_not_known_in_time_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let db = hasty(&folder).await;
    // The second one waits for its turn when the first one is done, which leaves it the commit.
    let begin = Instant::now();
    let quick = insert_and(&db, async || {
        tokio::time::sleep(Duration::from_millis(5)).await;
    });
    let slow = insert_and(&db, std::future::pending);
    let (quick, slow) = tokio::join!(quick, slow);
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert!(matches!(quick, Err(DbError::Abandoned)), "{quick:?}");
    assert!(matches!(slow, Err(DbError::TimedOut { .. })), "{slow:?}");
    assert_eq!(rows(&db).await, 0);
    insert_and(&db, async || {}).await.unwrap();
    assert_eq!(rows(&db).await, 1);
}

/// What a caller is told of an error, and what the log is.
fn told(error: DbError) -> (u16, String, String) {
    let error = crate::ApiError::from(error);
    let text = error.message().to_owned();
    if error.status() == 503 {
        assert!(error.headers().contains_key(http::header::RETRY_AFTER));
    }
    (
        error.status().as_u16(),
        text,
        error.cause().unwrap_or_default(),
    )
}

#[tokio::test]
async fn a_full_disk_is_named_in_the_log_alone() {
    let folder = tempfile::tempdir().unwrap();
    let db = hasty(&folder).await;
    // SQLite answers "disk full" at its page limit too.
    execute(&db, "PRAGMA max_page_count = 1").await.unwrap();
    let error = execute(&db, "INSERT INTO t VALUES (zeroblob(100000))").await;
    let error = error.unwrap_err();
    assert_eq!(error.fault().map(Fault::reason), Some("disk full"));
    let (status, text, cause) = told(error);
    assert_eq!(status, 503);
    assert!(!text.contains("disk"), "{text}");
    assert!(cause.contains("full"), "{cause}");
}

#[tokio::test]
async fn faults_of_sqlite_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let db = hasty(&folder).await;
    let refused = execute(&db, "PRAGMA query_only = ON; INSERT INTO t VALUES (1)").await;
    assert_eq!(refused.unwrap_err().fault(), Some(Fault::ReadOnly));
    // A connection that cannot begin is replaced.
    execute(&db, "PRAGMA query_only = OFF").await.unwrap_err();
    let wrong = execute(&db, "INSERT INTO nowhere VALUES (1)").await;
    let wrong = wrong.unwrap_err();
    assert_eq!(wrong.fault(), None);
    assert_eq!(told(wrong).0, 500);
    let file = folder.path().join("y.db");
    std::fs::write(&file, "no database, whatever its name says".repeat(1000)).unwrap();
    let error = Db::open(&url(&file)).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.fault(), Some(Fault::Damaged), "{error}");
    assert!(
        text.contains("y.db") && text.contains("auspex doctor"),
        "{text}"
    );
}

#[tokio::test]
async fn a_file_that_is_overwritten_or_cut_off_in_its_place_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.db");
    for damage in ["overwritten", "cut off", "emptied"] {
        let db = hasty(&folder).await;
        execute(&db, "INSERT INTO t VALUES (zeroblob(100000))")
            .await
            .unwrap();
        execute(&db, "INSERT INTO t VALUES (zeroblob(100000))")
            .await
            .unwrap();
        // So that all of it is in the file.
        let checkpoint = Statement::from_string(DbBackend::Sqlite, "PRAGMA wal_checkpoint");
        db.read(async |connection| Ok::<_, DbError>(connection.query_one_raw(checkpoint).await?))
            .await
            .unwrap();
        rows(&db).await;
        let bytes = std::fs::read(&file).unwrap();
        match damage {
            "overwritten" => std::fs::write(&file, "nothing ".repeat(bytes.len() / 8)).unwrap(),
            "cut off" => std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap(),
            _ => std::fs::write(&file, "").unwrap(),
        }
        for result in [
            ping(&db).await,
            execute(&db, "INSERT INTO t VALUES (1)").await,
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.fault(), Some(Fault::Damaged), "{damage}: {error}");
            assert!(error.to_string().contains("x.db"), "{damage}: {error}");
            assert_eq!(told(error).0, 503);
        }
        db.close().await;
        for name in ["x.db", "x.db-wal", "x.db-shm"] {
            let _ = std::fs::remove_file(folder.path().join(name));
        }
    }
}

#[tokio::test]
async fn a_database_that_vacuum_makes_smaller_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.db");
    let bytes = || std::fs::metadata(&file).unwrap().len();
    let checkpoint =
        || Statement::from_string(DbBackend::Sqlite, "PRAGMA wal_checkpoint(TRUNCATE)");
    let db = hasty(&folder).await;
    execute(&db, "INSERT INTO t VALUES (zeroblob(1000000))")
        .await
        .unwrap();
    db.read(async |connection| Ok::<_, DbError>(connection.query_one_raw(checkpoint()).await?))
        .await
        .unwrap();
    let before = bytes();
    execute(&db, "DELETE FROM t").await.unwrap();
    db.read(async |connection| -> Result<_, DbError> {
        connection.execute_unprepared("VACUUM").await?;
        Ok(connection.query_one_raw(checkpoint()).await?)
    })
    .await
    .unwrap();
    assert!(bytes() < before);
    assert_eq!(rows(&db).await, 0);
    execute(&db, "INSERT INTO t VALUES (1)").await.unwrap();
}

#[tokio::test]
async fn an_emptied_log_holds_nothing_that_was_deleted_before() {
    use sea_orm::TransactionTrait as _;
    let folder = tempfile::tempdir().unwrap();
    let db = hasty(&folder).await;
    let log = || std::fs::read(folder.path().join("x.db-wal")).unwrap();
    let holds = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"canary");
    execute(&db, "INSERT INTO t VALUES ('canary')")
        .await
        .unwrap();
    db.load(async |connection| -> Result<_, DbError> {
        let reading = connection.begin().await?;
        let query = Statement::from_string(DbBackend::Sqlite, "SELECT a FROM t");
        reading.query_one_raw(query).await?;
        execute(&db, "DELETE FROM t").await?;
        assert!(holds(&log()));
        assert!(!db.truncate_log().await?, "somebody reads what was there");
        Ok(reading.rollback().await?)
    })
    .await
    .unwrap();
    assert!(db.truncate_log().await.unwrap());
    assert_eq!(log().len(), 0);
    assert!(!holds(&std::fs::read(folder.path().join("x.db")).unwrap()));
    execute(&db, "INSERT INTO t VALUES (1)").await.unwrap();
}
