//! What the HTTP routes of every service repeat.
//!
//! It knows no database and decides nothing.

mod errors;

pub use errors::{
    ChangeErrors, CreateErrors, ListErrors, ReadErrors, add_error_schemas, error_responses,
};
