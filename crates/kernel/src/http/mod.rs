//! What the HTTP routes of every service repeat: who sent a request, work that is done once, lists
//! in pages, and the error answers in the OpenAPI document.
//!
//! It knows no database and decides nothing.

mod creation;
mod errors;
mod list;
mod requester;

use http::HeaderValue;

pub use creation::{Creation, created};
pub use errors::{
    ChangeErrors, CreateErrors, ListErrors, ReadErrors, add_error_schemas, error_responses,
};
pub use list::List;
pub use requester::Requester;

/// The content type of JSON.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
