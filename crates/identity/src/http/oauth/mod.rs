//! The routes of the OAuth 2.0 provider. [`crate::oauth`] makes the decisions.

mod browser;
mod clients;
mod form;
mod metadata;
mod pages;
mod sign_in;
mod token;

use utoipa_axum::router::OpenApiRouter;

use super::Handle;

#[cfg(test)]
pub(super) use clients::ClientBody;

const TAG: &str = "oauth";

pub(super) fn routes() -> OpenApiRouter<Handle> {
    OpenApiRouter::new()
        .merge(sign_in::routes())
        .merge(token::routes())
        .merge(metadata::routes())
        .merge(clients::routes())
}
