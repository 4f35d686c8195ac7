//! Who sends a request, as the operations want to know it, and whether he sends it again.

use std::future::Future;
use std::sync::Arc;

use auspex_kernel::idempotency::{Answer, Idempotency, Keyed};
use auspex_kernel::{ApiError, Caller, Peer, RequestId};
use axum::extract::{Extension, FromRequestParts, OriginalUri};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::Response;

use crate::audit::Actor;

/// The caller that the edge has recognized.
pub(super) struct By {
    pub(super) caller: Arc<Caller>,
    pub(super) actor: Actor,
}

impl<S: Send + Sync> FromRequestParts<S> for By {
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

/// A request that makes something, and is carried out once however often it is sent.
pub(super) struct Creation {
    pub(super) by: By,
    pub(super) headers: HeaderMap,
    /// As it was sent, with the version.
    pub(super) path: String,
    method: Method,
    idempotency: Idempotency,
}

impl<S: Send + Sync> FromRequestParts<S> for Creation {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let by = By::from_request_parts(parts, state).await?;
        let idempotency = Extension::from_request_parts(parts, state).await;
        let Extension(idempotency) = idempotency.map_err(ApiError::internal)?;
        let OriginalUri(uri) = match OriginalUri::from_request_parts(parts, state).await {
            Ok(uri) => uri,
            Err(never) => match never {},
        };
        Ok(Self {
            by,
            headers: parts.headers.clone(),
            path: uri.path().to_owned(),
            method: parts.method.clone(),
            idempotency,
        })
    }
}

impl Creation {
    /// Carries out `work`, unless its `Idempotency-Key` says that this was done.
    pub(super) async fn once(
        &self,
        body: &[u8],
        answer: Answer,
        work: impl Future<Output = Result<Response, ApiError>> + Send + 'static,
    ) -> Result<Response, ApiError> {
        let request = Keyed {
            caller: &self.by.caller.subject,
            method: &self.method,
            path: &self.path,
            headers: &self.headers,
            body,
        };
        self.idempotency.once(request, answer, work).await
    }
}
