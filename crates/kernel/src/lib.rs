//! The words two or more services share: errors and their envelope, callers and scopes, time, limits,
//! configuration and the database handle.
//!
//! It depends on no other crate of the workspace and holds nothing that only one service uses.

pub mod apart;
pub mod audit;
pub mod body;
pub mod caller;
pub mod clock;
pub mod config;
mod control;
pub mod db;
pub mod durations;
pub mod error;
pub mod etag;
pub mod fields;
pub mod files;
pub mod http;
pub mod id;
pub mod idempotency;
pub mod looks;
mod migration;
pub mod outward;
pub mod page;
pub mod policy;
pub mod predict;
pub mod quota;
pub mod random;
pub mod records;
pub mod redis;
pub mod request_id;
pub mod secrets;
pub mod service;
mod store;
mod subject;
pub mod tls;

pub use caller::{Authenticate, Caller, Credential, OverTls, Peer, Scope, ScopeSet, Verdict, Via};
pub use clock::{Clock, Timestamp};
pub use control::Control;
pub use error::{ApiError, FieldError, FieldErrors};
pub use fields::Fields;
pub use migration::{is_migrated, known_migrations, migrate, migrations, migrations_apart};
pub use page::CursorKey;
pub use random::Random;
pub use request_id::RequestId;
pub use store::deleted_users;
pub use subject::Subject;
