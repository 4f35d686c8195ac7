//! Requests that create something.

use axum::Json;
use axum::extract::{Extension, FromRequestParts, OriginalUri};
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use serde::Serialize;

use super::Requester;
use crate::ApiError;
use crate::idempotency::{Answer, Idempotency, Kept, Keyed, Receipt};

/// A request that creates something, and is carried out once however often it is sent. The router
/// must have [`Idempotency`] as an extension.
#[derive(Debug)]
pub struct Creation {
    /// Who sent it.
    pub requester: Requester,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its path as it was sent, with the version.
    pub path: String,
    method: Method,
    idempotency: Idempotency,
}

impl<S: Send + Sync> FromRequestParts<S> for Creation {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let requester = Requester::from_request_parts(parts, state).await?;
        let idempotency = Extension::from_request_parts(parts, state).await;
        let Extension(idempotency) = idempotency.map_err(ApiError::internal)?;
        let OriginalUri(uri) = match OriginalUri::from_request_parts(parts, state).await {
            Ok(uri) => uri,
            Err(never) => match never {},
        };
        Ok(Self {
            requester,
            headers: parts.headers.clone(),
            path: uri.path().to_owned(),
            method: parts.method.clone(),
            idempotency,
        })
    }
}

impl Creation {
    /// Carries out `work`, which makes a `T` that is answered by `render`, unless it was carried out for
    /// the request's `Idempotency-Key` before.
    ///
    /// # Errors
    /// As for [`Idempotency::once`].
    pub async fn once<T>(
        &self,
        body: &[u8],
        answer: Answer,
        render: impl FnOnce(&T) -> Response + Send + 'static,
        work: impl AsyncFnOnce(Receipt<T>) -> Result<Kept, ApiError>,
    ) -> Result<Response, ApiError> {
        let caller = self.requester.caller.subject.to_string();
        let request = Keyed {
            caller: &caller,
            method: &self.method,
            path: &self.path,
            headers: &self.headers,
            body,
        };
        self.idempotency.once(request, answer, render, work).await
    }
}

/// The answer 201 with the created thing and where it is.
pub fn created<T: Serialize>(location: String, view: &T) -> Response {
    let headers = [(header::LOCATION, location)];
    (StatusCode::CREATED, headers, Json(view)).into_response()
}
