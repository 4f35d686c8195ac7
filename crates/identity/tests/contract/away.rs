//! A database that fails just after a change was committed.

use std::sync::Arc;
use std::time::Duration;

use auspex_identity::{Identity, NewUser};
use auspex_kernel::clock::monotonic;
use auspex_kernel::db::{Db, DbError, Limits};
use auspex_kernel::{Random, ScopeSet};
use sea_orm::ConnectionTrait as _;

use crate::ask::{actor, as_user};
use crate::person::{add, disable};
use crate::store::{ISSUER, Store, config, execute};
use crate::{OPERATOR, knows, soon, while_watching};

contract! {
    what_was_committed_is_confirmed_and_comes_into_force_later
    changes_at_once_wait_together_and_not_one_after_another
}

fn new_user(name: &str) -> NewUser {
    NewUser {
        name: name.into(),
        email: format!("{name}@example.org"),
        ..NewUser::default()
    }
}

async fn what_was_committed_is_confirmed_and_comes_into_force_later(store: &Store) {
    let identity = store.identity().await;
    let id = add(&identity, "ann", "admin").await;
    add(&identity, "bob", "admin").await;
    let ann = identity.users().get(&id).await.unwrap();
    let by = actor(&as_user(&ann));
    let key = identity.keys().create(&by, "hers", ScopeSet::all(), None);
    let key = key.await.unwrap();
    let rename = async |from: &str, to: &str| {
        let sql = format!("ALTER TABLE {from} RENAME TO {to}");
        execute(&store.db().await, sql).await;
    };
    // No statement of the changes below needs the table; the one that brings them into force does.
    rename("identity_api_keys", "away").await;
    disable(&identity, &id).await;
    let new = identity.users().create(&OPERATOR, new_user("new")).await;
    let new = new.unwrap();
    rename("away", "identity_api_keys").await;
    assert!(identity.users().get(&new.id).await.is_ok());
    while_watching(&identity, async {
        soon("the change", || !knows(&identity, &key)).await;
    })
    .await;
}

async fn changes_at_once_wait_together_and_not_one_after_another(store: &Store) {
    if store.folder.is_some() {
        // SQLite knows no lock that lets a change through and keeps readers out.
        return;
    }
    let limit = Duration::from_secs(1);
    drop(store.identity().await);
    let db = Db::open_with(&store.url, Limits::within(limit))
        .await
        .unwrap();
    let (clock, random) = (store.clock.clone(), Random::system());
    let identity = Identity::open(db, clock, random, config(), ISSUER);
    let identity = identity.await.unwrap();
    let elsewhere = store.db().await;
    let locked = elsewhere.write(async |transaction| -> Result<_, DbError> {
        let lock = "LOCK TABLE identity_api_keys IN ACCESS EXCLUSIVE MODE";
        transaction.execute_unprepared(lock).await?;
        let begin = monotonic();
        let mut changes = tokio::task::JoinSet::new();
        for n in 0..8 {
            let identity = Arc::clone(&identity);
            let new = new_user(&format!("user{n}"));
            changes.spawn(async move { identity.users().create(&OPERATOR, new).await });
        }
        for made in changes.join_all().await {
            made.unwrap();
        }
        Ok(begin.elapsed())
    });
    let took = locked.await.unwrap();
    assert!(took < 3 * limit, "{took:?}");
}
