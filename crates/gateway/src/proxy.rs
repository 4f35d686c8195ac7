//! A request, passed on to a service, and its answer, passed back.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::clock::{Clock, monotonic};
use auspex_kernel::random::per_thread;
use auspex_kernel::service::{Boxed, Handle};
use auspex_kernel::{ApiError, Peer, RequestId, Via};
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body::Body as _;

use crate::balance::Service;
use crate::error::Failure;
use crate::headers::{self, Told, X_REQUEST_TIMEOUT_MS};
use crate::path;
use crate::plan::PlannedRoute;
use crate::trial::Trial;
use crate::upstream::{Connection, Endpoint, Upload};

/// Endpoints that are tried for one request until one takes a connection.
const CONNECTS_MAX: usize = 3;

/// What answers a route of the gateway.
pub(crate) struct Proxy {
    service: Arc<Service>,
    strip_prefix: String,
    forward_credentials: bool,
    preserve_host: bool,
    clock: Clock,
}

impl Proxy {
    pub(crate) fn new(route: &PlannedRoute, service: Arc<Service>, clock: Clock) -> Self {
        Self {
            clock,
            service,
            strip_prefix: route.strip_prefix.clone(),
            forward_credentials: route.forward_credentials,
            preserve_host: route.preserve_host,
        }
    }

    async fn pass(&self, request: Request<Body>) -> Result<Response, ApiError> {
        let (parts, body) = request.into_parts();
        if path::leads_elsewhere(parts.uri.path()) {
            let message = "the path must not have the segments . and .., however they are written";
            return Err(ApiError::malformed(message));
        }
        let patience = Patience::of(&parts, self.service.plan.timeout)?;
        let answered = self.exchange(parts, body, &patience).await;
        answered.map_err(|failure| failure.answer(&self.service.plan.name))
    }

    /// Asks an endpoint. As long as nothing has been sent any other will do.
    async fn exchange(
        &self,
        parts: Parts,
        body: Body,
        patience: &Patience,
    ) -> Result<Response, Failure> {
        let (mut tried, mut failed) = (Vec::new(), None);
        loop {
            let now = self.clock.steady();
            let chosen = self.service.choose(now, per_thread(), &tried);
            let chosen = chosen.map_err(|refused| failed.unwrap_or(refused))?;
            let trial = Trial::begin(&self.service, chosen, &self.clock, now);
            let connecting = patience.wait(Connection::to(&trial.endpoint)).await;
            match connecting.and_then(|connected| connected) {
                Ok(connection) => return self.send(parts, body, patience, trial, connection).await,
                Err(Failure::Deadline) => return Err(trial.end(Failure::Deadline)),
                Err(failure) => {
                    tried.push(trial.endpoint.id());
                    failed = Some(trial.end(failure));
                    if tried.len() == CONNECTS_MAX {
                        return Err(failure);
                    }
                }
            }
        }
    }

    async fn send(
        &self,
        parts: Parts,
        body: Body,
        patience: &Patience,
        trial: Trial<'_>,
        connection: Box<Connection>,
    ) -> Result<Response, Failure> {
        let (upload, progress) = Upload::new(body);
        let endpoint = trial.endpoint.clone();
        let request = self.request_for(&endpoint, parts, upload, patience);
        let mut sending = pin!(connection.send(request));
        let mut seen = 0;
        let sent = loop {
            match patience.wait(sending.as_mut()).await {
                Ok(sent) => break sent,
                Err(late) => {
                    let goes_on = progress.as_ref().is_some_and(|one| one.goes_on(&mut seen));
                    if late == Failure::Deadline || !goes_on {
                        break Err(late);
                    }
                }
            }
        };
        let mut response = match sent {
            // Nobody asked for another protocol.
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(trial.end(Failure::Invalid));
            }
            Ok(response) => response,
            Err(_) if progress.is_some_and(|progress| progress.has_failed()) => {
                return Err(trial.end(Failure::Body));
            }
            Err(failure) => return Err(trial.end(failure)),
        };
        let in_hand = trial.answered(response.status());
        *response.version_mut() = Version::HTTP_11;
        headers::for_client(response.headers_mut());
        if !self.strip_prefix.is_empty() {
            let authority = endpoint.authority();
            headers::restore_prefix(response.headers_mut(), &self.strip_prefix, authority);
        }
        Ok(response.map(|body| Body::new(body.holding(in_hand))))
    }

    fn request_for(
        &self,
        endpoint: &Endpoint,
        parts: Parts,
        upload: Upload,
        patience: &Patience,
    ) -> Request<Upload> {
        let client = parts.extensions.get().map(|Peer(address)| *address);
        let told = Told {
            client: client.expect("the edge says where a request is from"),
            via: parts.extensions.get::<Via>().copied(),
            id: parts.extensions.get::<RequestId>(),
            host: (!self.preserve_host).then_some(endpoint.host()),
            prefix: &self.strip_prefix,
            with_credentials: self.forward_credentials,
            length: upload.size_hint().exact(),
            has_body: [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method),
        };
        let mut request = Request::new(upload);
        *request.headers_mut() = headers::for_service(parts.headers, &told);
        if let Some(left) = patience.left() {
            let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            let headers = request.headers_mut();
            headers.insert(X_REQUEST_TIMEOUT_MS, HeaderValue::from(ms));
        }
        *request.uri_mut() = self.target(parts.uri);
        *request.method_mut() = parts.method;
        request
    }

    fn target(&self, uri: Uri) -> Uri {
        let mut parts = uri.into_parts();
        let target = parts.path_and_query.take();
        match target {
            Some(target) if self.strip_prefix.is_empty() => Uri::from(target),
            Some(target) => Uri::from(path::without_prefix(&target, &self.strip_prefix)),
            None => Uri::default(),
        }
    }
}

impl Handle for Proxy {
    fn handle(self: Arc<Self>, request: Request<Body>) -> Boxed<'static, Response> {
        Box::pin(async move {
            let passed = self.pass(request).await;
            passed.unwrap_or_else(ApiError::into_response)
        })
    }
}

/// How long an answer may take to begin.
struct Patience {
    limit: Duration,
    /// When the client no longer waits, if it said so.
    deadline: Option<std::time::Instant>,
}

impl Patience {
    /// A client may shorten the time that its service has.
    ///
    /// # Errors
    /// 400 for a time that is none.
    fn of(parts: &Parts, limit: Duration) -> Result<Self, ApiError> {
        let Some(stated) = parts.headers.get(X_REQUEST_TIMEOUT_MS) else {
            return Ok(Self {
                limit,
                deadline: None,
            });
        };
        let ms = stated.to_str().ok().and_then(|text| text.parse().ok());
        let ms = ms.filter(|ms| *ms > 0).ok_or_else(|| {
            ApiError::malformed("X-Request-Timeout-Ms must be a whole number of milliseconds")
        })?;
        let stated = Duration::from_millis(ms);
        let deadline = (stated < limit).then(|| monotonic() + stated);
        Ok(Self { limit, deadline })
    }

    /// What is left of the time that the client gave.
    fn left(&self) -> Option<Duration> {
        let deadline = self.deadline?;
        Some(deadline.saturating_duration_since(monotonic()))
    }

    /// # Errors
    /// Whose patience has ended.
    async fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let (limit, late) = match self.left() {
            Some(left) => (left, Failure::Deadline),
            None => (self.limit, Failure::Timeout),
        };
        tokio::time::timeout(limit, work).await.map_err(|_| late)
    }
}
