//! What is carried between the database of one service and that of all.

use auspex_kernel::apart::Apart;
use auspex_kernel::audit::{self, Actor, Event};
use auspex_kernel::db::{Db, DbError};
use auspex_kernel::id::UserId;
use auspex_kernel::{Clock, Random, deleted_users};

use crate::on_every_database;
use crate::store::{Store, execute, texts};

auspex_kernel::audit_actions! {
    /// What the test does.
    pub(crate) enum Action {
        Done = "test.done";
    }
}

on_every_database! { lines_arrive_once_and_leave users_who_were_deleted_become_known }

/// The database of a service, in a file, and that of all, in this one.
async fn apart(store: &Store, folder: &tempfile::TempDir) -> Apart {
    let main = store.db().await;
    let own = format!("sqlite:{}", folder.path().join("own.db").display());
    let own = Db::open(&own).await.unwrap();
    auspex_kernel::migrate(&own).await.unwrap();
    for db in [&own, &main] {
        auspex_kernel::migrations_apart().run(db).await.unwrap();
    }
    let clock = Clock::system();
    Apart { own, main, clock }
}

async fn record(db: &Db, count: usize) {
    let (clock, random) = (Clock::system(), Random::system());
    let recorded = db.write(async |transaction| -> Result<(), DbError> {
        for number in 0..count {
            let event = Event::new(Action::Done, format!("thing:{number}"));
            let actor = Actor::operator();
            audit::record(transaction, &actor, event, &clock, &random).await?;
        }
        Ok(())
    });
    recorded.await.unwrap();
}

async fn lines(db: &Db) -> usize {
    let ids = texts(db, "SELECT id FROM identity_audit").await;
    ids.len()
}

async fn lines_arrive_once_and_leave(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let apart = apart(store, &folder).await;
    // More than are carried at once.
    record(&apart.own, 1_234).await;
    record(&apart.main, 1).await;
    apart.carry_once().await.unwrap();
    assert_eq!(
        (lines(&apart.own).await, lines(&apart.main).await),
        (0, 1_235)
    );
    // One that arrived before the process that carried it was killed.
    let newest = texts(&apart.main, "SELECT MAX(id) FROM identity_audit").await;
    let copied = format!(
        "INSERT INTO identity_audit (id, at, actor, action, outcome) \
         VALUES ('{}', 1, 'operator', 'test.done', 'success')",
        newest[0]
    );
    execute(&apart.own, copied).await;
    apart.carry_once().await.unwrap();
    assert_eq!(
        (lines(&apart.own).await, lines(&apart.main).await),
        (0, 1_235)
    );

    // While the one of all is away they wait.
    record(&apart.own, 2).await;
    execute(
        &apart.main,
        "ALTER TABLE identity_audit RENAME TO away".into(),
    )
    .await;
    assert!(apart.carry_once().await.is_err());
    assert_eq!(lines(&apart.own).await, 2);
    execute(
        &apart.main,
        "ALTER TABLE away RENAME TO identity_audit".into(),
    )
    .await;
    apart.carry_once().await.unwrap();
    assert_eq!(
        (lines(&apart.own).await, lines(&apart.main).await),
        (0, 1_237)
    );
}

async fn users_who_were_deleted_become_known(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let apart = apart(store, &folder).await;
    let known = async || {
        let sql = "SELECT subject FROM kernel_deleted_users ORDER BY subject";
        texts(&apart.own, sql).await
    };
    let delete = async |user: &str, ago_s: u64| {
        let user = UserId::from_stored(user);
        let at = apart.clock.now() - std::time::Duration::from_secs(ago_s);
        let deleted = apart
            .main
            .write(async |transaction| -> Result<(), DbError> {
                deleted_users::record(transaction, &user, at).await
            });
        deleted.await.unwrap();
    };
    apart.carry_once().await.unwrap();
    assert_eq!(known().await, [] as [&str; 0]);
    delete("b", 0).await;
    apart.carry_once().await.unwrap();
    assert_eq!(known().await, ["user:b"]);
    // One whose transaction began before and ended after.
    delete("a", 60).await;
    apart.carry_once().await.unwrap();
    apart.carry_once().await.unwrap();
    assert_eq!(known().await, ["user:a", "user:b"]);
    // More than are carried at once.
    let many: Vec<String> = (0..1_200)
        .map(|number| format!("('user:many{number}', {})", apart.clock.now().0 + number))
        .collect();
    let many = format!(
        "INSERT INTO kernel_deleted_users VALUES {}",
        many.join(", ")
    );
    execute(&apart.main, many).await;
    apart.carry_once().await.unwrap();
    assert_eq!(known().await.len(), 1_202);
}
