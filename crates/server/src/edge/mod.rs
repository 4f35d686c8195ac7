//! What every request passes before its handler and every answer after it.
//!
//! One service of small steps instead of a stack of layers, for boxing a future per layer costs six
//! times the work itself. The order, from outer to inner: request id → access log, trace, metrics →
//! catch panic → CORS preflight → route (404, 405) → body limit → address limit → authentication → caller limit →
//! scope → deadline → handler.

mod access;
mod cors;
mod credentials;
mod headers;
mod routes;
mod timeout;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use auspex_kernel::body::{self, Bounded, Budget};
use auspex_kernel::config::ConfigError;
use auspex_kernel::quota::{Decision, SlidingWindow};
use auspex_kernel::{
    ApiError, Authenticate, Caller, Clock, Control, Peer, RequestId, Timestamp, Verdict,
};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode, Version, header};
use http_body::Body as _;
use serde::Deserialize;
use tower_service::Service;

pub(crate) use access::Observers;
pub(crate) use cors::{Cors, CorsConfig};
pub(crate) use headers::Fixed as FixedHeaders;
pub(crate) use routes::{Access, Route, RouteTable};

const X_REQUEST_ID: header::HeaderName = header::HeaderName::from_static("x-request-id");

/// Everything a request needs that does not change between requests.
pub(crate) struct Edge {
    /// Replaced as a whole when routes change. A request keeps the table that it began with.
    pub(crate) routes: ArcSwap<RouteTable>,
    pub(crate) identity: Arc<dyn Authenticate>,
    pub(crate) callers: SlidingWindow,
    pub(crate) addresses: SlidingWindow,
    pub(crate) clock: Clock,
    /// Where handlers run, except those that predict.
    pub(crate) control: Control,
    pub(crate) observers: Observers,
    pub(crate) headers: headers::Fixed,
    pub(crate) cors: Cors,
    pub(crate) limits: Limits,
    /// Memory for bodies that are still coming.
    pub(crate) bodies: Arc<Budget>,
}

/// Bounds of one request.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) body_bytes_max: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) request_timeout: Duration,
    /// `host[:port]` of the public URL, as `Host` would say it.
    pub(crate) public_authority: String,
}

/// How many requests are let through: `[server.rate_limit]`, `[server.address_limit]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateLimit {
    max: u32,
    window_s: u32,
    callers_max: usize,
}

impl RateLimit {
    /// What types alone cannot say; `section` is where these settings are.
    pub(crate) fn check(&self, section: &str) -> Result<(), ConfigError> {
        for (key, value) in [("max", self.max), ("window_s", self.window_s)] {
            if value == 0 {
                let key = format!("{section}.{key}");
                return Err(ConfigError::wrong(&key, "must be at least 1"));
            }
        }
        Ok(())
    }

    pub(crate) fn window(&self) -> SlidingWindow {
        SlidingWindow::new(self.max, self.window_s, self.callers_max)
    }
}

/// What is known of a request when its answer leaves.
struct Passage<'t> {
    route: Option<&'t Route>,
    caller: Option<Arc<Caller>>,
    quota: Option<Decision>,
}

impl Edge {
    /// Answers one request. Never fails, never panics.
    pub(crate) async fn handle(&self, request: Request<Body>, peer: IpAddr) -> Response {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let id = parts
            .headers
            .get(&X_REQUEST_ID)
            .and_then(RequestId::from_client)
            .unwrap_or_else(RequestId::generate);
        let trace = self.observers.begin(&parts.headers);
        let method = parts.method.clone();
        let origin = parts.headers.get(header::ORIGIN).cloned();
        let ambiguous_length = parts.headers.contains_key(header::TRANSFER_ENCODING)
            && parts.headers.contains_key(header::CONTENT_LENGTH);

        let table = self.routes.load();
        let mut passage = Passage {
            route: None,
            caller: None,
            quota: None,
        };
        let request = Request::from_parts(parts, body);
        let passing = self.pass(&table, request, peer, &id, &mut passage);
        let mut response = match AssertUnwindSafe(passing).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => ApiError::internal(panic_message(&*panic)).into_response(),
        };

        let error = response.extensions_mut().remove::<ApiError>();
        if let Some(error) = &error {
            response = error.render(&id);
        }
        let elapsed = started.elapsed();
        self.headers
            .add(response.headers_mut(), &id, elapsed, passage.quota.as_ref());
        self.cors.add(response.headers_mut(), origin.as_ref());
        if ambiguous_length {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        let finished = access::Finished {
            route: passage.route,
            method: &method,
            status: response.status(),
            quota: passage.quota.as_ref(),
            caller: passage.caller.as_deref(),
            error: error.as_ref(),
            id: &id,
            elapsed,
            trace,
        };
        // Whatever goes wrong in telling of it, the answer leaves.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| self.observers.end(&finished)));
        response
    }

    fn bounded(&self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Bounded::new(
            body,
            self.limits.body_bytes_max,
            self.limits.body_timeout,
            self.bodies.clone(),
        ))
    }

    async fn pass<'t>(
        &self,
        table: &'t RouteTable,
        request: Request<Body>,
        peer: IpAddr,
        id: &RequestId,
        passage: &mut Passage<'t>,
    ) -> Response {
        let (mut parts, body) = request.into_parts();
        if let Some(answer) = self.preflight(table, &parts, peer, passage) {
            return answer;
        }
        if let Err(error) = self.admit(table, &parts, peer, passage).await {
            // A sender still writing would see a reset connection instead of this answer.
            if !body.is_end_stream() && !parts.headers.contains_key(header::EXPECT) {
                body::drain(self.bounded(body)).await;
            }
            return error.into_response();
        }
        parts.extensions.insert(id.clone());
        parts.extensions.insert(Peer(peer));
        if let Some(caller) = &passage.caller {
            parts.extensions.insert(caller.clone());
        }
        let predicts = passage.route.is_some_and(Route::predicts);
        let request = Request::from_parts(parts, self.bounded(body));
        self.run(table, request, predicts).await
    }

    /// The answer to a browser that asks whether a page may send a request to a path there is.
    fn preflight(
        &self,
        table: &RouteTable,
        parts: &Parts,
        peer: IpAddr,
        passage: &mut Passage<'_>,
    ) -> Option<Response> {
        if !self.cors.is_preflight(parts) || check_host(parts).is_err() {
            return None;
        }
        let methods = table.methods(parts.uri.path())?;
        let charged = self.charge_address(address_key(peer), self.clock.now(), passage);
        Some(match charged {
            Ok(()) => self.cors.preflight(methods),
            Err(error) => error.into_response(),
        })
    }

    /// Decides whether the request may reach its handler.
    async fn admit<'t>(
        &self,
        table: &'t RouteTable,
        parts: &Parts,
        peer: IpAddr,
        passage: &mut Passage<'t>,
    ) -> Result<(), ApiError> {
        let now = self.clock.now();
        let address = address_key(peer);
        let route = match self.find(table, parts) {
            Ok(route) => route,
            Err(error) => {
                // The same answer for everybody, over the limit or not; but counted.
                passage.quota = Some(self.addresses.take(address, now));
                return Err(error);
            }
        };
        passage.route = Some(route);
        if route.is_probe {
            return Ok(());
        }
        let left = self.addresses.peek(address, now);
        if !left.allowed {
            passage.quota = Some(left);
            return Err(rate_limited(&left, now, "this address"));
        }
        if route.access == Access::Public {
            return self.charge_address(address, now, passage);
        }
        let caller = match self.identify(parts, peer, now).await {
            Ok(caller) => caller,
            Err(error) => {
                self.charge_address(address, now, passage)?;
                return Err(error);
            }
        };
        let taken = self.callers.take(caller.quota_key, now);
        passage.quota = Some(taken);
        let scopes = caller.scopes;
        passage.caller = Some(caller);
        if !taken.allowed {
            return Err(rate_limited(&taken, now, "this caller"));
        }
        match route.access {
            Access::Scope(scope) if !scopes.contains(scope) => Err(ApiError::forbidden(format!(
                "this needs the scope {scope}, which the caller does not have"
            ))),
            Access::Scope(_) | Access::Caller | Access::Public => Ok(()),
        }
    }

    /// The operation of a request that is well-formed enough to have one.
    fn find<'t>(&self, table: &'t RouteTable, parts: &Parts) -> Result<&'t Route, ApiError> {
        check_host(parts)?;
        let route = table.find(&parts.method, parts.uri.path())?;
        self.check_length(parts)?;
        Ok(route)
    }

    /// Counts an anonymous or refused request.
    fn charge_address(
        &self,
        address: u64,
        now: Timestamp,
        passage: &mut Passage<'_>,
    ) -> Result<(), ApiError> {
        let taken = self.addresses.take(address, now);
        passage.quota = Some(taken);
        if taken.allowed {
            return Ok(());
        }
        Err(rate_limited(&taken, now, "this address"))
    }

    async fn identify(
        &self,
        parts: &Parts,
        peer: IpAddr,
        now: Timestamp,
    ) -> Result<Arc<Caller>, ApiError> {
        let credential = credentials::find(&parts.headers)?.ok_or_else(|| {
            ApiError::unauthenticated(
                "send an API key as X-API-Key, or a key or token as Authorization: Bearer",
            )
        })?;
        let public = &self.limits.public_authority;
        let authority = parts.uri.authority();
        credentials::check_origin(&parts.headers, authority, public, &self.cors, credential)?;
        match self.identity.authenticate(credential, now) {
            Verdict::Known(caller) => Ok(caller),
            Verdict::Refused => Err(ApiError::unauthenticated(
                "the key or token is unknown, revoked or expired",
            )),
            Verdict::Unverified => self.identity.clone().verify(credential, peer).await,
        }
    }

    /// Refuses by `Content-Length` what would be refused anyway after reading it.
    fn check_length(&self, parts: &Parts) -> Result<(), ApiError> {
        let max = self.limits.body_bytes_max;
        let stated = parts
            .headers
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok());
        match stated.and_then(|text| text.parse::<u64>().ok()) {
            Some(length) if length > max as u64 => Err(body::BodyError::TooLarge(max).into()),
            _ => Ok(()),
        }
    }

    /// A prediction stays on the thread of its connection. Everything else runs on the control
    /// runtime and to its end: the deadline, or a client that leaves, ends only the waiting for it.
    async fn run(&self, table: &RouteTable, request: Request<Body>, predicts: bool) -> Response {
        let limit = self.limits.request_timeout;
        // An axum router is always ready.
        let handler = table.handlers.clone().call(request);
        let answered = if predicts {
            timeout::Lazy::new(handler, limit).await
        } else {
            let running = timeout::Lazy::new(self.control.run(handler), limit);
            running
                .await
                .map(|ended| ended.unwrap_or_else(|stopping| Ok(stopping.into_response())))
        };
        match answered {
            Some(Ok(response)) => response,
            Some(Err(never)) => match never {},
            None => ApiError::unavailable(format!("no answer within {} ms", limit.as_millis()), 1)
                .into_response(),
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without a message"))
}

/// RFC 9112 §3.2: an HTTP/1.1 request has exactly one `Host`. hyper lets others through.
fn check_host(parts: &Parts) -> Result<(), ApiError> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let present = hosts.next().is_some();
    if (parts.version == Version::HTTP_11 && !present) || hosts.next().is_some() {
        return Err(ApiError::malformed(
            "the request must have exactly one Host header",
        ));
    }
    Ok(())
}

fn rate_limited(decision: &Decision, now: Timestamp, whose: &str) -> ApiError {
    let wait_us = (decision.reset.0 - now.0).max(1);
    let seconds = wait_us.div_euclid(1_000_000) + i64::from(wait_us % 1_000_000 > 0);
    ApiError::new(
        StatusCode::TOO_MANY_REQUESTS,
        "RATE_LIMITED",
        format!(
            "{whose} has used its {} requests; try again in {seconds} s",
            decision.limit
        ),
    )
    .with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
}

/// IPv6 clients own at least a /64, so that is what counts as one address.
fn address_key(peer: IpAddr) -> u64 {
    match peer.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
pub(crate) mod tests;
