//! The SQL of this crate and nothing else.

pub(crate) mod audit;
pub mod deleted_users;
pub(crate) mod idempotency;
pub(crate) mod secrets;
mod slice;
pub(crate) mod write_proof;
