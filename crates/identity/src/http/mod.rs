//! The routes: parse, call, render.

mod api_keys;
mod auth;
mod me;
mod oauth;
mod own;
mod own_keys;
#[cfg(test)]
mod tests;
mod user_body;
mod users;

use std::sync::Arc;

use auspex_kernel::CursorKey;
use auspex_kernel::http::{add_error_schemas, rename_unversioned};
use auspex_kernel::idempotency::Idempotency;
use axum::extract::{Extension, FromRef};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::api_keys::Keys;
use crate::oauth::{Clients, Devices, IssuedTokens, Own, TokenEndpoint};
use crate::sessions::Sessions;
use crate::tokens::Tokens;
use crate::users::Users;

pub(crate) use oauth::{
    CLIENT_ENDPOINTS, CLIENT_READS, DEVICE_ENDPOINTS, PAGES, Pages, SERVER_ENDPOINTS, render_error,
    render_page,
};

/// What the routes call, each as the state of those handlers that name it.
macro_rules! handles {
    ($($field:ident: $type:ty,)*) => {
        /// What the routes call. A handler takes the one that it needs.
        #[derive(Clone)]
        pub(crate) struct Handles { $(pub(crate) $field: $type,)* }

        $(impl FromRef<Handles> for $type {
            fn from_ref(handles: &Handles) -> Self {
                handles.$field.clone()
            }
        })*
    };
}

handles! {
    users: Users,
    keys: Keys,
    sessions: Sessions,
    clients: Clients,
    tokens: Arc<Tokens>,
    token_endpoint: TokenEndpoint,
    issued_tokens: IssuedTokens,
    devices: Devices,
    pages: Pages,
    own: Own,
}

fn routes() -> OpenApiRouter<Handles> {
    let versioned = users::routes()
        .merge(users::history_routes())
        .merge(me::routes())
        .merge(me::more_routes())
        .merge(own::routes())
        .merge(api_keys::routes())
        .merge(own_keys::routes());
    let mut unversioned = users::routes().merge(me::routes());
    rename_unversioned(unversioned.get_openapi_mut());
    let mut router = OpenApiRouter::new()
        .merge(auth::routes())
        .merge(oauth::routes())
        .nest("/v1", versioned)
        .merge(unversioned);
    add_error_schemas(router.get_openapi_mut());
    router
}

/// The part of the OpenAPI document that describes these routes.
pub(crate) fn document() -> OpenApi {
    routes().into_openapi()
}

/// Every route of this service. `cursors` signs the pages of its lists.
pub(crate) fn router(
    handles: Handles,
    cursors: CursorKey,
    idempotency: Idempotency,
) -> axum::Router {
    axum::Router::from(routes().with_state(handles))
        .layer(Extension(cursors))
        .layer(Extension(idempotency))
}
