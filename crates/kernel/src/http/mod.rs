//! What the HTTP routes of every service repeat: who sent a request, work that is done once, lists
//! in pages, and the error answers in the OpenAPI document.
//!
//! It knows no database and decides nothing.

mod creation;
mod errors;
mod formats;
pub mod head;
mod list;
mod query;
mod requester;
mod segment;
mod unversioned;

use http::HeaderValue;

pub use creation::{Creation, created};
pub use errors::{
    ChangeErrors, CreateErrors, ListErrors, ReadErrors, add_error_schemas, error_responses,
};
pub use formats::{CSV, accepts, csv_cell, preferred};
pub use list::List;
pub use query::pairs;
pub use requester::Requester;
pub use segment::segment;
pub use unversioned::rename_unversioned;

/// The content type of JSON.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
