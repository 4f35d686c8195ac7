//! The SQL of this crate and nothing else. Functions that change something take a transaction, for
//! their caller decides what belongs together.

pub(crate) mod changes;
pub(crate) mod clients;
pub(crate) mod codes;
pub(crate) mod consents;
pub(crate) mod devices;
pub(crate) mod ended;
mod entity;
pub(crate) mod grants;
pub(crate) mod keys;
pub(crate) mod logins;
mod readable;
pub(crate) mod sessions;
pub(crate) mod signing_keys;
pub(crate) mod tokens;
pub(crate) mod user_rows;
pub(crate) mod users;

pub(crate) use changes::{Kind, lock, record_change};
pub(crate) use readable::Revoked;
