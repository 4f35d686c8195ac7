//! A request, passed on to a service, and its answer, passed back.

use std::sync::Arc;

use auspex_kernel::clock::{Clock, monotonic};
use auspex_kernel::service::{Boxed, Handle};
use auspex_kernel::{ApiError, OverTls, Peer, RequestId, Via};
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body::Body as _;

use crate::balance::Service;
use crate::exchange::{Answer, Exchange};
use crate::headers::{self, Told, X_REQUEST_TIMEOUT_MS};
use crate::path;
use crate::patience::Patience;
use crate::plan::PlannedRoute;
use crate::upstream::{Endpoint, Protocol, Upload};
use crate::websocket;

const X_GATEWAY_RETRIES: HeaderName = HeaderName::from_static("x-gateway-retries");

/// What answers a route of the gateway.
pub(crate) struct Proxy {
    service: Arc<Service>,
    strip_prefix: String,
    forward_credentials: bool,
    preserve_host: bool,
    websocket: bool,
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
            websocket: route.websocket,
        }
    }

    async fn pass(&self, request: Request<Body>) -> Result<Response, ApiError> {
        let (mut parts, body) = request.into_parts();
        if path::leads_elsewhere(parts.uri.path()) {
            let message = "the path must not have the segments . and .., however they are written";
            return Err(ApiError::malformed(message));
        }
        let service = &*self.service;
        // HTTP/2 has no such thing.
        let may_switch = self.websocket && service.plan.protocol == Protocol::Http1;
        let client = websocket::asked(&mut parts, may_switch);
        let begin = monotonic();
        let patience = Patience::of(&parts.headers, service.plan.timeout, begin)?;
        let begun = service.counts.begin(begin);
        let budget = &service.counts.budget;
        budget.deposit(self.clock.steady_at(begin));
        let exchange = Exchange::new(self, service, &self.clock, (parts, body), patience);
        let (end, retries) = exchange.run().await;
        match end {
            Ok(answer) => {
                begun.answered(answer.response.status());
                let is_switching = answer.response.status() == StatusCode::SWITCHING_PROTOCOLS;
                let mut response = match client.filter(|_| is_switching) {
                    Some(client) => websocket::join(client, answer),
                    None => self.response_of(answer),
                };
                if retries > 0 {
                    let headers = response.headers_mut();
                    headers.insert(X_GATEWAY_RETRIES, retries.into());
                }
                Ok(response)
            }
            Err(failure) => {
                begun.failed(failure);
                let error = failure.answer(&service.plan.name);
                Err(match retries {
                    0 => error,
                    _ => error.with_header(X_GATEWAY_RETRIES, retries.into()),
                })
            }
        }
    }

    fn response_of(&self, answer: Answer) -> Response {
        let Answer {
            mut response,
            endpoint,
            in_hand,
        } = answer;
        *response.version_mut() = Version::HTTP_11;
        headers::for_client(response.headers_mut());
        if !self.strip_prefix.is_empty() {
            let authority = endpoint.authority();
            headers::restore_prefix(response.headers_mut(), &self.strip_prefix, authority);
        }
        response.map(|body| Body::new(body.holding(in_hand)))
    }

    /// The request as an endpoint gets it.
    pub(crate) fn request_for(
        &self,
        endpoint: &Endpoint,
        parts: &Parts,
        upload: Upload,
        patience: &Patience,
    ) -> Request<Upload> {
        let client = parts.extensions.get().map(|Peer(address)| *address);
        let target_host = parts.uri.authority();
        let target_host = target_host.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        let told = Told {
            client: client.expect("the edge says where a request is from"),
            via: parts.extensions.get::<Via>().copied(),
            id: parts.extensions.get::<RequestId>(),
            host: (!self.preserve_host).then_some(endpoint.host()),
            target_host: target_host.as_ref(),
            prefix: &self.strip_prefix,
            with_credentials: self.forward_credentials,
            length: upload.size_hint().exact(),
            is_secured: parts.extensions.get::<OverTls>().is_some(),
            switches: websocket::is_asked(parts),
            is_http2: endpoint.protocol() == Protocol::Http2,
            has_body: [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method),
        };
        let mut request = Request::new(upload);
        *request.headers_mut() = headers::for_service(&parts.headers, &told);
        if let Some(left) = patience.stated() {
            let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            let headers = request.headers_mut();
            headers.insert(X_REQUEST_TIMEOUT_MS, HeaderValue::from(ms));
        }
        *request.uri_mut() = self.target(&parts.uri);
        *request.method_mut() = parts.method.clone();
        request
    }

    fn target(&self, uri: &Uri) -> Uri {
        match uri.path_and_query() {
            Some(target) if self.strip_prefix.is_empty() => Uri::from(target.clone()),
            Some(target) => Uri::from(path::without_prefix(target, &self.strip_prefix)),
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
