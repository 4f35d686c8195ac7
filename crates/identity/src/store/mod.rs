//! The SQL of this crate and nothing else. Functions that change something take a transaction, for
//! their caller decides what belongs together.

pub(crate) mod changes;
pub(crate) mod clients;
pub(crate) mod codes;
pub(crate) mod consents;
pub(crate) mod ended;
mod entity;
pub(crate) mod grants;
pub(crate) mod keys;
pub(crate) mod logins;
pub(crate) mod sessions;
pub(crate) mod signing_keys;
pub(crate) mod tokens;
pub(crate) mod user_rows;
pub(crate) mod users;

pub(crate) use changes::{Kind, lock, record_change};

use auspex_kernel::db::DbError;
use auspex_kernel::{Clock, id};

/// A new id, as an error of the database where there is no chance to be had.
pub(crate) fn new_id(clock: &Clock) -> Result<String, DbError> {
    Ok(id::new_id(clock)?)
}
