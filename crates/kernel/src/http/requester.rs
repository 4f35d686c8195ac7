//! Who sent a request.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::audit::Actor;
use crate::{ApiError, Caller, Peer, RequestId};

/// The caller that the edge has recognized, and the request they sent.
#[derive(Clone, Debug)]
pub struct Requester {
    /// Who calls.
    pub caller: Arc<Caller>,
    /// The address they call from.
    pub peer: Peer,
    /// The id of the request.
    pub request_id: Option<RequestId>,
}

impl Requester {
    /// Who acts, for operations and the audit record.
    pub fn actor(&self) -> Actor {
        Actor::caller(&self.caller, self.peer, self.request_id.as_ref())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Requester {
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
            peer: *peer,
            request_id: extensions.get().cloned(),
        })
    }
}
