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
    let find = db.read(async |connection| store::find(connection, name).await);
    let value = match find.await? {
        Some(value) => value,
        None => {
            let drawn = random.bytes()?;
            create(db, name, drawn, clock.now()).await?
        }
    };
    let bytes = <[u8; 32]>::try_from(value);
    bytes.map_err(|_| DbErr::Custom(format!("the secret {name} is not of 32 bytes")).into())
}

/// Of several processes at once one makes it, and all get that one.
async fn create(
    db: &Db,
    name: &'static str,
    drawn: [u8; 32],
    now: Timestamp,
) -> Result<Vec<u8>, DbError> {
    db.write(async |transaction| {
        store::insert_if_absent(transaction, name, &drawn, now).await?;
        let kept = store::find(transaction, name).await?;
        Ok(kept.ok_or_else(|| DbErr::RecordNotFound(format!("the secret {name}")))?)
    })
    .await
}
