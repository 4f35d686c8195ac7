//! The routes of the OAuth 2.0 provider. [`crate::oauth`] makes the decisions.

mod account;
mod browser;
mod clients;
mod device;
mod error;
mod form;
mod leave;
mod metadata;
mod own_form;
mod pages;
mod sign_in;
mod sign_out;
mod token;
mod views;

use utoipa_axum::router::OpenApiRouter;

use super::Handles;

#[cfg(test)]
pub(super) use clients::{ClientBody, ClientPatchBody};
pub(crate) use error::render as render_error;
pub(crate) use pages::render as render_page;
pub(super) use token::presented_token;
pub(crate) use views::Pages;

const TAG: &str = "oauth";

/// Endpoints that clients ask directly, those that run in a browser too, with errors as in RFC 6749.
pub(crate) const CLIENT_ENDPOINTS: [&str; 2] = ["exchange_token", "revoke_token"];

/// The same where devices begin, which has a limit of its own.
pub(crate) const DEVICE_ENDPOINTS: [&str; 1] = ["authorize_device"];

/// The same for clients that run on a server.
pub(crate) const SERVER_ENDPOINTS: [&str; 1] = ["introspect_token"];

/// What clients read, those that run in a browser too.
pub(crate) const CLIENT_READS: [&str; 5] = [
    "get_userinfo",
    "post_userinfo",
    "get_openid_configuration",
    "get_authorization_server",
    "get_jwks",
];

/// What people open in a browser: errors are pages too.
pub(crate) const PAGES: [&str; 12] = [
    "authorize",
    "post_authorize",
    "show_login",
    "submit_login",
    "submit_consent",
    "submit_logout",
    "continue_on",
    "change_account",
    "show_device",
    "decide_device",
    "end_session",
    "post_end_session",
];

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new()
        .merge(sign_in::routes())
        .merge(sign_out::routes())
        .merge(account::routes())
        .merge(device::routes())
        .merge(leave::routes())
        .merge(pages::routes())
        .merge(token::routes())
        .merge(metadata::routes())
        .merge(clients::routes())
}
