//! The routes: parse, call, render.

mod auth;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::Identity;

type Handle = Arc<Identity>;

impl Identity {
    /// Every route of this service.
    pub fn router(self: Arc<Self>) -> OpenApiRouter {
        OpenApiRouter::new().merge(auth::routes()).with_state(self)
    }
}
