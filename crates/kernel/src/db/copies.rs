//! Copies of SQLite files: made beside those who use them, and put back. A copy is whole or not there, and only its owner may
//! read it.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::sqlite::{beside, make_folder};
use super::{DbError, Inspection};
use crate::files::{PRIVATE, give_to_owner_of_folder};

/// For all of a file.
const COPY_TIMEOUT: Duration = Duration::from_hours(6);
/// What SQLite keeps beside a file. The log comes first: beside another file it would be replayed into that.
const BESIDE: [&str; 3] = ["-wal", "-journal", "-shm"];

/// Copies all that a SQLite file and its log hold at this moment to a file that is not there yet.
///
/// # Errors
/// [`DbError::Copy`], [`DbError::ForeignLog`], [`DbError::TimedOut`], [`DbError::Database`].
pub async fn copy_sqlite(from: &Path, to: &Path) -> Result<(), DbError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |cause| DbError::Copy { path, cause }
    };
    let to = &std::path::absolute(to).map_err(failed(to))?;
    if to.symlink_metadata().is_ok() {
        return Err(failed(to)(ErrorKind::AlreadyExists.into()));
    }
    let part = beside(to, ".part");
    let text = part.to_str().ok_or(ErrorKind::InvalidFilename.into());
    let text = text.map_err(failed(to))?;
    let mut empty = OpenOptions::new();
    empty.create_new(true).write(true).mode(PRIVATE);
    let made = empty.open(&part).map_err(failed(&part))?;
    give_to_owner_of_folder(&made, &part);
    let copied = async {
        let inspection = Inspection::beside_others(from).await?;
        let written = timeout(COPY_TIMEOUT, inspection.write_to(text)).await;
        inspection.close().await;
        written.unwrap_or_else(|_| {
            Err(DbError::TimedOut {
                database: from.display().to_string(),
                limit: COPY_TIMEOUT,
            })
        })?;
        made.sync_all().map_err(failed(&part))?;
        fs::rename(&part, to).map_err(failed(to))?;
        sync_folder_of(to).map_err(failed(to))
    };
    let copied = copied.await;
    if copied.is_err() {
        let _ = fs::remove_file(&part);
    }
    copied
}

/// Puts a copy in the place of a SQLite file that nobody uses. What stood there is kept beside it with its log, under the name
/// that is returned.
///
/// # Errors
/// As of [`copy_sqlite`]; what stood there stays, or is at that name.
pub async fn restore_sqlite(copy: &Path, file: &Path) -> Result<Option<PathBuf>, DbError> {
    let kept = beside(file, ".replaced");
    let failed = |path: &Path, cause| DbError::Copy {
        path: path.to_owned(),
        cause,
    };
    if kept.symlink_metadata().is_ok() {
        return Err(failed(&kept, ErrorKind::AlreadyExists.into()));
    }
    make_folder(file)?;
    let new = beside(file, ".restored");
    // Of a restore that was cut off.
    let _ = fs::remove_file(&new);
    copy_sqlite(copy, &new).await?;
    let moved = || {
        for suffix in BESIDE {
            move_if_there(&beside(file, suffix), &beside(&kept, suffix))?;
        }
        let had_one = move_if_there(file, &kept)?;
        sync_folder_of(file).map_err(|cause| failed(file, cause))?;
        fs::rename(&new, file).map_err(|cause| failed(file, cause))?;
        sync_folder_of(file).map_err(|cause| failed(file, cause))?;
        Ok(had_one.then_some(kept))
    };
    moved()
}

fn move_if_there(from: &Path, to: &Path) -> Result<bool, DbError> {
    match fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(DbError::Copy {
            path: from.to_owned(),
            cause,
        }),
    }
}

/// The names in it are there after a crash, too.
fn sync_folder_of(file: &Path) -> std::io::Result<()> {
    match file.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

    use super::*;
    use crate::db::{Db, Fault};

    async fn open(file: &Path) -> Result<Db, DbError> {
        Db::open(&format!("sqlite:{}", file.display())).await
    }

    async fn insert(db: &Db, values: std::ops::Range<i64>) {
        let written = db.write(async |transaction| {
            let make = "CREATE TABLE IF NOT EXISTS t (a, b)";
            transaction.execute_unprepared(make).await?;
            for value in values {
                let insert = format!("INSERT INTO t VALUES ({value}, randomblob(1000))");
                transaction.execute_unprepared(&insert).await?;
            }
            Ok::<_, DbError>(())
        });
        written.await.unwrap();
    }

    async fn count(file: &Path) -> i64 {
        let db = open(file).await.unwrap();
        let count = Statement::from_string(DbBackend::Sqlite, "SELECT COUNT(*) FROM t");
        let counted = db.read(async |connection| -> Result<i64, DbError> {
            let row = connection.query_one_raw(count).await?.unwrap();
            Ok(row.try_get_by_index(0)?)
        });
        let counted = counted.await.unwrap();
        db.close().await;
        counted
    }

    /// The file and its log as they are on the disk, as a crash leaves them.
    fn crash(file: &Path, folder: &Path) {
        for suffix in ["", "-wal"] {
            fs::copy(beside(file, suffix), beside(&folder.join("x.db"), suffix)).unwrap();
        }
    }

    #[tokio::test]
    async fn a_copy_is_whole_and_private_and_never_replaces_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let [file, copy] = ["x.db", "copy"].map(|name| folder.path().join(name));
        let db = open(&file).await.unwrap();
        insert(&db, 0..100).await;
        copy_sqlite(&file, &copy).await.unwrap();
        insert(&db, 100..200).await;
        let mode = fs::metadata(&copy).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = copy_sqlite(&file, &copy).await.unwrap_err();
        assert!(again.to_string().contains("is there already"), "{again}");
        db.close().await;
        assert_eq!((count(&copy).await, count(&file).await), (100, 200));
        let nothing = folder.path().join("nothing");
        copy_sqlite(&nothing, &folder.path().join("y"))
            .await
            .unwrap_err();
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 2, "no part of a copy is left");
    }

    /// Both copies of a closed file and those of [`copy_sqlite`].
    #[tokio::test]
    async fn the_log_of_another_file_is_never_replayed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.db");
        let db = open(&file).await.unwrap();
        insert(&db, 0..50).await;
        db.close().await;
        let closed = folder.path().join("closed");
        fs::copy(&file, &closed).unwrap();
        let db = open(&file).await.unwrap();
        insert(&db, 50..100).await;
        let copied = folder.path().join("copied");
        copy_sqlite(&file, &copied).await.unwrap();
        insert(&db, 100..200).await;
        for (copy, rows) in [(closed, 50), (copied, 100)] {
            let crashed = tempfile::tempdir().unwrap();
            crash(&file, crashed.path());
            let target = crashed.path().join("x.db");
            fs::copy(&copy, &target).unwrap();
            let refused = open(&target).await.unwrap_err();
            assert_eq!(refused.fault(), Some(Fault::Damaged));
            assert!(refused.to_string().contains("auspex restore"), "{refused}");
            let looked = Inspection::open(&target).await.unwrap_err();
            assert!(matches!(looked, DbError::ForeignLog { .. }), "{looked}");
            fs::remove_file(beside(&target, "-wal")).unwrap();
            assert_eq!(count(&target).await, rows);
        }
        // Its own log is.
        let crashed = tempfile::tempdir().unwrap();
        crash(&file, crashed.path());
        assert_eq!(count(&crashed.path().join("x.db")).await, 200);
        db.close().await;
    }

    #[tokio::test]
    async fn a_log_without_its_database_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("y.db");
        let db = open(&file).await.unwrap();
        insert(&db, 0..10).await;
        crash(&file, folder.path());
        db.close().await;
        let file = folder.path().join("x.db");
        for is_empty in [false, true] {
            match is_empty {
                true => fs::write(&file, "").unwrap(),
                false => fs::remove_file(&file).unwrap(),
            }
            let refused = open(&file).await.unwrap_err();
            assert!(refused.to_string().contains("is not"), "{refused}");
            assert!(fs::metadata(beside(&file, "-wal")).unwrap().len() > 0);
        }
    }

    #[tokio::test]
    async fn a_restore_leaves_no_log_and_keeps_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let origin = folder.path().join("origin.db");
        let db = open(&origin).await.unwrap();
        insert(&db, 0..20).await;
        let copy = folder.path().join("copy");
        copy_sqlite(&origin, &copy).await.unwrap();
        insert(&db, 20..30).await;
        let crashed = tempfile::tempdir().unwrap();
        crash(&origin, crashed.path());
        let file = crashed.path().join("x.db");
        let kept = restore_sqlite(&copy, &file).await.unwrap().unwrap();
        assert!(!beside(&file, "-wal").exists());
        assert_eq!((count(&file).await, count(&kept).await), (20, 30));
        let again = restore_sqlite(&copy, &file).await.unwrap_err();
        assert!(again.to_string().contains(".replaced"), "{again}");
        let new = crashed.path().join("new").join("x.db");
        assert!(restore_sqlite(&copy, &new).await.unwrap().is_none());
        assert_eq!(count(&new).await, 20);
        db.close().await;
    }
}
