//! The routes: parse, call, render.

mod api_keys;
mod audit;
mod auth;
mod me;
mod oauth;
#[cfg(test)]
mod tests;
mod user_body;
mod users;

use std::sync::Arc;

use auspex_kernel::CursorKey;
use auspex_kernel::http::add_error_schemas;
use auspex_kernel::idempotency::Idempotency;
use axum::extract::Extension;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::Identity;

pub(crate) use oauth::{CLIENT_ENDPOINTS, render_error};

type Handle = Arc<Identity>;

fn routes() -> OpenApiRouter<Handle> {
    let versioned = users::routes()
        .merge(users::history_routes())
        .merge(me::routes())
        .merge(me::more_routes())
        .merge(api_keys::routes())
        .merge(audit::routes());
    let unversioned = renamed(users::routes().merge(me::routes()));
    let mut router = OpenApiRouter::new()
        .merge(auth::routes())
        .merge(oauth::routes())
        .nest("/v1", versioned)
        .merge(unversioned);
    add_error_schemas(router.get_openapi_mut());
    router
}

/// The same operations at other paths need ids of their own.
fn renamed(mut router: OpenApiRouter<Handle>) -> OpenApiRouter<Handle> {
    for item in router.get_openapi_mut().paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.post,
            &mut item.put,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            if let Some(id) = &mut operation.operation_id {
                id.push_str("_unversioned");
            }
        }
    }
    router
}

/// The part of the OpenAPI document that describes these routes.
pub(crate) fn document() -> OpenApi {
    routes().into_openapi()
}

impl Identity {
    /// Every route of this service. `cursors` signs the pages of its lists.
    pub fn router(self: Arc<Self>, cursors: CursorKey) -> axum::Router {
        let idempotency = Idempotency::new(self.db.clone(), self.clock.clone());
        axum::Router::from(routes().with_state(self))
            .layer(Extension(cursors))
            .layer(Extension(idempotency))
    }
}
