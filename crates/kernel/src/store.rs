//! The SQL of this crate and nothing else.

pub(crate) mod secrets;
