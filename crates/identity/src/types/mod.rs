//! The things that this service is about, without a word of SQL or HTTP.

pub(crate) mod api_key;
pub(crate) mod claims;
pub(crate) mod client;
pub(crate) mod grant;
pub(crate) mod page_session;
pub(crate) mod redirect;
pub(crate) mod role;
pub(crate) mod scope;
pub(crate) mod signing_key;
pub(crate) mod user;
pub(crate) mod user_code;
