//! The routes: parse, call, render.

mod auth;

use std::sync::Arc;

use auspex_kernel::CursorKey;
use axum::extract::Extension;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::Identity;

type Handle = Arc<Identity>;

fn routes() -> OpenApiRouter<Handle> {
    OpenApiRouter::new().merge(auth::routes())
}

/// What the routes document of themselves.
pub fn document() -> OpenApi {
    routes().into_openapi()
}

impl Identity {
    /// Every route of this service. `cursors` signs the pages of its lists.
    pub fn router(self: Arc<Self>, cursors: CursorKey) -> axum::Router {
        let router = axum::Router::from(routes().with_state(self));
        router.layer(Extension(cursors))
    }
}
