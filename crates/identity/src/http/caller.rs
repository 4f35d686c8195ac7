//! Who sends a request, as the operations want to know it.

use std::sync::Arc;

use auspex_kernel::{ApiError, Caller, Peer, RequestId};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::audit::Actor;

/// The caller that the edge has recognized.
pub(super) struct By {
    pub(super) caller: Arc<Caller>,
    pub(super) actor: Actor,
}

impl<S: Sync> FromRequestParts<S> for By {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let extensions = &parts.extensions;
        let known = extensions
            .get::<Arc<Caller>>()
            .zip(extensions.get::<Peer>());
        let (caller, peer) =
            known.ok_or_else(|| ApiError::unauthenticated("this needs a credential"))?;
        Ok(Self {
            caller: Arc::clone(caller),
            actor: Actor::caller(caller, *peer, extensions.get::<RequestId>()),
        })
    }
}
