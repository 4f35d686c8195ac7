//! Random secrets that every process on one database shares, such as the key of cursors.
//!
//! They are as safe as the database, and it is copied with them: nothing that must outlive a leaked
//! copy of it belongs here.

use sea_orm::DbErr;

use crate::clock::{Clock, Timestamp};
use crate::db::{Db, DbError};
use crate::random::Random;
use crate::store::secrets as store;

/// The secret of this name, drawn the first time that any process asks for it.
///
/// # Errors
/// [`DbError::Database`], also where the operating system gives no random bytes.
pub async fn load_or_create(
    db: &Db,
    clock: &Clock,
    random: &Random,
    name: &'static str,
) -> Result<[u8; 32], DbError> {
    let value = match find(db, name).await? {
        Some(value) => value,
        None => {
            let drawn: [u8; 32] = random.bytes()?;
            keep_first(db, name, &drawn, clock.now()).await?
        }
    };
    let bytes = <[u8; 32]>::try_from(value);
    bytes.map_err(|_| DbErr::Custom(format!("the secret {name} is not of 32 bytes")).into())
}

/// The secret of this name, if there is one.
///
/// # Errors
/// [`DbError::Database`].
pub async fn find(db: &Db, name: &'static str) -> Result<Option<Vec<u8>>, DbError> {
    db.read(async |connection| store::find(connection, name).await)
        .await
}

/// The secret of this name: what any process asked with first.
///
/// # Errors
/// [`DbError::Database`].
pub async fn keep_first(
    db: &Db,
    name: &'static str,
    value: &[u8],
    now: Timestamp,
) -> Result<Vec<u8>, DbError> {
    db.write(async |transaction| {
        store::insert_if_absent(transaction, name, value, now).await?;
        let kept = store::find(transaction, name).await?;
        Ok(kept.ok_or_else(|| DbErr::RecordNotFound(format!("the secret {name}")))?)
    })
    .await
}

/// Removes the secret of this name.
///
/// # Errors
/// [`DbError::Database`].
pub async fn forget(db: &Db, name: &'static str) -> Result<(), DbError> {
    db.write(async |transaction| store::remove(transaction, name).await)
        .await
}
