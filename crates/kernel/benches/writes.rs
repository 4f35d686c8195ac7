//! How many small durable transactions per second SQLite's one writer takes from 64 clients.
//!
//! Prints the rate beside that of one client and of the disk's `fdatasync`, and fails below the
//! promise: 10,000 per second, or 20 times the disk where the disk is slow. `cargo bench -p
//! auspex-kernel`, or `scripts/prove writes`.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement is printed, and fails by panicking"
)]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use auspex_kernel::clock::monotonic;
use auspex_kernel::db::{Db, DbError, Transaction};
use sea_orm::ConnectionTrait as _;

const CLIENTS: usize = 64;
const ROUND: Duration = Duration::from_secs(3);
const PROMISED_PER_S: f64 = 10_000.0;
const PROMISED_PER_SYNC: f64 = 20.0;

fn main() -> ExitCode {
    let folder = tempfile::tempdir_in(".").unwrap();
    let syncs = syncs_per_s(&folder.path().join("sync"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (one, many) = runtime.block_on(async {
        let db = Db::open(&format!("sqlite:{}", folder.path().join("x.db").display())).await;
        let db = db.unwrap();
        execute(&db, "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)").await;
        (writes_per_s(&db, 1).await, writes_per_s(&db, CLIENTS).await)
    });
    println!("fdatasync of 4 KiB: {syncs:>7.0} per second");
    println!("one client:         {one:>7.0} transactions per second");
    println!("{CLIENTS} clients:         {many:>7.0} transactions per second");
    let promised = PROMISED_PER_S.min(PROMISED_PER_SYNC * syncs);
    if many >= promised {
        return ExitCode::SUCCESS;
    }
    println!("fewer than {promised:.0} per second");
    ExitCode::FAILURE
}

async fn execute(db: &Db, sql: &'static str) {
    let work = async |transaction: &Transaction| {
        transaction.execute_unprepared(sql).await?;
        Ok::<_, DbError>(())
    };
    db.write(work).await.unwrap();
}

async fn writes_per_s(db: &Db, clients: usize) -> f64 {
    let began = monotonic();
    let client = || {
        let db = db.clone();
        tokio::spawn(async move {
            let mut done = 0_u32;
            while began.elapsed() < ROUND {
                execute(
                    &db,
                    "INSERT INTO t (b) VALUES ('a value of some thirty bytes')",
                )
                .await;
                done += 1;
            }
            done
        })
    };
    let running: Vec<_> = (0..clients).map(|_| client()).collect();
    let mut done = 0;
    for client in running {
        done += client.await.unwrap();
    }
    f64::from(done) / began.elapsed().as_secs_f64()
}

fn syncs_per_s(path: &Path) -> f64 {
    let mut file = File::create(path).unwrap();
    let (began, mut done) = (monotonic(), 0_u32);
    while began.elapsed() < ROUND {
        file.write_all(&[0; 4096]).unwrap();
        file.sync_data().unwrap();
        done += 1;
    }
    f64::from(done) / began.elapsed().as_secs_f64()
}
