//! What every request passes before its handler and every answer after it.
//!
//! One service of small steps instead of a stack of layers, because boxing a future per layer costs
//! six times as much as the work itself. Their order decides which refusal wins; ARCHITECTURE.md has it
//! as a table ("The edge's order"), and [`Edge::handle_for`], `pass` and `admit` have it as code.

mod access;
mod cors;
mod credentials;
mod forwarded;
mod headers;
mod host;
mod routes;
mod stream;
mod timeout;
mod unheard;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use auspex_kernel::body::{self, Budget, Share};
use auspex_kernel::clock::{Steady, monotonic};
use auspex_kernel::policy::{Access, Answer, RenderError, Runs};
use auspex_kernel::quota::{Decision, Quota};
use auspex_kernel::service::StopSignal;
use auspex_kernel::{
    ApiError, Authenticate, Caller, Clock, Control, Credential, Peer, RequestId, Scope, Timestamp,
    Verdict,
};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode, Version, header};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;

pub(crate) use access::Observers;
pub(crate) use cors::{Cors, CorsConfig};
pub(crate) use forwarded::{ForwardedHeader, Proxies};
pub(crate) use headers::{Fixed as FixedHeaders, Kept, Stamp};
pub(crate) use host::{Hosts, check_names};
pub(crate) use routes::{Declared, Limits, Route, RouteError, RouteTable, Target, Usual, declared};
pub(crate) use stream::Admitted;

use cors::Page;
use stream::{Admission, Ending};
use unheard::Unheard;

const X_API_KEY: header::HeaderName = header::HeaderName::from_static("x-api-key");
const X_REQUEST_ID: header::HeaderName = header::HeaderName::from_static("x-request-id");

/// Everything a request needs that does not change between requests.
pub(crate) struct Edge {
    /// Replaced as a whole when routes change. A request keeps the table that it began with.
    pub(crate) routes: ArcSwap<RouteTable>,
    pub(crate) identity: Arc<dyn Authenticate>,
    pub(crate) callers: Quota,
    pub(crate) addresses: Quota,
    pub(crate) clock: Clock,
    /// Where handlers run that are not inline.
    pub(crate) control: Control,
    pub(crate) observers: Arc<Observers>,
    pub(crate) headers: headers::Fixed,
    pub(crate) cors: Cors,
    /// Limits of requests for which no route was found.
    pub(crate) limits: Limits,
    /// `host[:port]` of the public URL, as a `Host` header names it.
    pub(crate) public_authority: String,
    /// Under which names pages are shown.
    pub(crate) hosts: Hosts,
    /// Who is believed about the addresses of clients.
    pub(crate) proxies: Proxies,
    /// The server is about to stop: answers on HTTP/1.1 are the last of their connections.
    pub(crate) leaving: Arc<AtomicBool>,
    /// Ends streams when the server stops.
    pub(crate) stop: StopSignal,
    /// Memory for the bodies of requests that are not answered yet.
    pub(crate) bodies: Arc<Budget>,
}

/// How a request arrives.
pub(crate) struct Arrival<'c> {
    /// Who has opened the connection.
    pub(crate) peer: IpAddr,
    /// Its body is here, short, and of the length that its head states.
    pub(crate) has_whole_body: bool,
    /// Set to true if the request is of no use to anybody once its client has closed the connection, even
    /// for sending alone.
    pub(crate) ends_with_client: &'c AtomicBool,
}

/// What is known about a request when its answer is sent.
struct Passage<'t> {
    started: Instant,
    /// The same as times of the clock: for what ends at a date, and for limits.
    now: Timestamp,
    steady: Steady,
    route: Option<&'t Arc<Route>>,
    /// The form of an error before there is a route.
    render_error: RenderError,
    /// What a page of another origin may do, if the request is of one.
    page: Page,
    has_whole_body: bool,
    ends_with_client: &'t AtomicBool,
    caller: Option<Arc<Caller>>,
    quota: Option<Decision>,
    /// Of a stream or another protocol: what keeps it open.
    admission: Option<Admission>,
}

impl Edge {
    /// [`Edge::handle_for`] without a connection.
    pub(crate) async fn handle(&self, request: Request<Body>, peer: IpAddr) -> Response {
        let arrival = Arrival {
            peer,
            has_whole_body: false,
            ends_with_client: &AtomicBool::new(false),
        };
        let (mut response, stamp) = self.handle_for(request, arrival).await;
        stamp.put(response.headers_mut());
        response
    }

    /// Answers one request. Never fails, never panics.
    pub(crate) async fn handle_for(
        &self,
        request: Request<Body>,
        arrival: Arrival<'_>,
    ) -> (Response, Stamp<'_>) {
        let started = monotonic();
        let (parts, body) = request.into_parts();
        let via = self.proxies.via(arrival.peer, &parts.headers);
        let peer = self.proxies.client(arrival.peer, &parts.headers);
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
            started,
            now: self.clock.now(),
            steady: self.clock.steady_at(started),
            route: None,
            render_error: ApiError::render,
            page: self.page(&table, &parts),
            has_whole_body: arrival.has_whole_body,
            ends_with_client: arrival.ends_with_client,
            caller: None,
            quota: None,
            admission: None,
        };
        let mut request = Request::from_parts(parts, body);
        if let Some(via) = via {
            request.extensions_mut().insert(via);
        }
        let passing = self.pass(&table, request, peer, &id, &mut passage);
        let mut response = match AssertUnwindSafe(passing).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => ApiError::internal(panic_message(&*panic)).into_response(),
        };

        let error = response.extensions_mut().remove::<ApiError>();
        if let Some(error) = &error {
            let render = match passage.route {
                Some(route) => route.policy.render_error,
                None => passage.render_error,
            };
            response = render(error, &id);
        } else if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let admitted = passage.admission.take().map(Admitted::new);
            if let Some(admitted) = admitted {
                response.extensions_mut().insert(admitted);
            }
        } else if let Some(admission) = passage.admission.take()
            && passage
                .route
                .is_some_and(|route| is_stream(route, &response))
        {
            let stop = self.stop.clone();
            response = response.map(|body| Body::new(Ending::new(body, admission, stop)));
        }
        let elapsed = started.elapsed();
        let is_passed_on = passage
            .route
            .is_some_and(|route| route.policy.answer == Answer::PassedOn);
        let is_for_clients = passage.route.is_some_and(|r| r.policy.is_for_clients);
        let origin = origin.as_ref();
        self.cors
            .add(response.headers_mut(), origin, passage.page, is_for_clients);
        if ambiguous_length {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        let finished = access::Finished {
            route: passage.route.map(Arc::as_ref),
            method: &method,
            status: response.status(),
            quota: passage.quota.as_ref(),
            caller: passage.caller.as_deref(),
            error: error.as_ref(),
            id: &id,
            elapsed,
            trace,
        };
        // The answer is sent even if logging or counting it fails.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| self.observers.end(&finished)));
        let stamp = Stamp {
            fixed: &self.headers,
            is_ours: error.is_some() || !is_passed_on,
            quota: passage.quota,
            now: passage.now,
            elapsed,
            id,
        };
        (response, stamp)
    }

    /// The body within its bounds, and its share of the memory for bodies.
    fn bounded(&self, body: Body, route: &Route) -> (Body, Option<Arc<Share>>) {
        if body.is_end_stream() || route.policy.streams_body {
            return (route.limits.bound(body, None), None);
        }
        let share = Some(Share::new(self.bodies.clone()));
        (route.limits.bound(body, share.clone()), share)
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
        if let Some(answer) = self.preflight(table, &parts, peer, passage).await {
            return answer;
        }
        let route = match self.admit(table, &parts, peer, passage).await {
            Ok(route) => route,
            Err(error) => {
                // A client that is still sending would see a reset connection instead of this answer.
                if !body.is_end_stream() && !parts.headers.contains_key(header::EXPECT) {
                    let limits = passage.route.map_or(&self.limits, |route| &route.limits);
                    body::drain(limits.bound(body, None)).await;
                }
                return error.into_response();
            }
        };
        if !matches!(route.policy.answer, Answer::Upgrade | Answer::PassedOn) {
            parts.extensions.remove::<OnUpgrade>();
        }
        if route.policy.answer != Answer::Whole {
            let (identity, clock) = (self.identity.clone(), self.clock.clone());
            let admission = Admission::new(&parts.headers, peer, route.access, identity, clock);
            passage.admission = Some(admission);
        }
        if route.policy.answer == Answer::PassedOn {
            passage.ends_with_client.store(true, Ordering::Relaxed);
        }
        parts.extensions.insert(id.clone());
        parts.extensions.insert(Peer(peer));
        if let Some(caller) = &passage.caller {
            parts.extensions.insert(caller.clone());
        }
        // The length that the head states was compared with what the route takes.
        let (body, share) = match passage.has_whole_body {
            true => (body, None),
            false => self.bounded(body, route),
        };
        // Over HTTP/2 an answer ends its own stream alone, and who waits to be told to send the body does not send it.
        let may_be_unread =
            parts.version < Version::HTTP_2 && !parts.headers.contains_key(header::EXPECT);
        let kept = share.clone().filter(|_| may_be_unread);
        let request = Request::from_parts(parts, body);
        let response = self.run(route, request, id, passage, share).await;
        if let Some(unread) = kept.and_then(|share| share.unread()) {
            body::drain(unread).await;
        }
        response
    }

    /// What the page that a request comes from may do.
    fn page(&self, table: &RouteTable, parts: &Parts) -> Page {
        let Some(origin) = parts.headers.get(header::ORIGIN) else {
            return Page::Other;
        };
        self.cors.page(origin, |origin| {
            table.is_for_clients(parts.uri.path()) && self.identity.is_origin_of_client(origin)
        })
    }

    /// The answer to a browser that asks whether a page may send a request to an existing path.
    async fn preflight(
        &self,
        table: &RouteTable,
        parts: &Parts,
        peer: IpAddr,
        passage: &mut Passage<'_>,
    ) -> Option<Response> {
        if !passage.page.is_preflight(parts) {
            return None;
        }
        let methods = table.methods(parts.uri.path(), host::of(parts).ok()?)?;
        let charged = self.charge_address(address_key(peer), passage).await;
        Some(match charged {
            Ok(()) => self.cors.preflight(&methods),
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
    ) -> Result<&'t Arc<Route>, ApiError> {
        let steady = passage.steady;
        let address = address_key(peer);
        let route = match self.find(table, parts, passage) {
            Ok(route) => route,
            Err(error) => {
                // The answer is the same for everybody, over the limit or not, but it is counted.
                passage.quota = Some(self.addresses(passage).take(address, steady).await);
                return Err(error);
            }
        };
        if !route.policy.is_limited {
            return Ok(route);
        }
        if route.access == Access::Public {
            self.charge_address(address, passage).await?;
            return Ok(route);
        }
        let caller = match self.identify(parts, peer, passage).await {
            Ok(caller) => caller,
            Err(error) => {
                self.charge_address(address, passage).await?;
                return Err(error);
            }
        };
        let callers = route.callers.as_deref().unwrap_or(&self.callers);
        let taken = callers.take(caller.quota_key, steady).await;
        passage.quota = Some(taken);
        let scopes = caller.scopes;
        passage.caller = Some(caller);
        if !taken.allowed {
            return Err(rate_limited(&taken, "this caller"));
        }
        match route.access.lacking(scopes) {
            Some(scope) => Err(lacking(scope)),
            None => Ok(route),
        }
    }

    /// The route of a request, if the request is well-formed enough to have one.
    fn find<'t>(
        &self,
        table: &'t RouteTable,
        parts: &Parts,
        passage: &mut Passage<'t>,
    ) -> Result<&'t Arc<Route>, ApiError> {
        let host = host::of(parts)?;
        let path = parts.uri.path();
        let target = Target {
            method: &parts.method,
            path,
            host,
            headers: &parts.headers,
        };
        let route = table.find(target).inspect_err(|_| {
            passage.render_error = table.render_error(path);
        })?;
        passage.route = Some(route);
        if route.policy.needs_own_host {
            self.hosts.check(host)?;
        }
        check_coding(parts)?;
        check_length(parts, route.limits.body_bytes_max)?;
        Ok(route)
    }

    /// What counts the requests of addresses: that of the route, or else that of the server.
    fn addresses<'w>(&'w self, passage: &Passage<'w>) -> &'w Quota {
        let own = passage.route.and_then(|route| route.addresses.as_deref());
        own.unwrap_or(&self.addresses)
    }

    /// Counts an anonymous or refused request.
    async fn charge_address(
        &self,
        address: u64,
        passage: &mut Passage<'_>,
    ) -> Result<(), ApiError> {
        let taken = self.addresses(passage).take(address, passage.steady).await;
        passage.quota = Some(taken);
        if taken.allowed {
            return Ok(());
        }
        Err(rate_limited(&taken, "this address"))
    }

    async fn identify(
        &self,
        parts: &Parts,
        peer: IpAddr,
        passage: &Passage<'_>,
    ) -> Result<Arc<Caller>, ApiError> {
        let credential = credentials::find(&parts.headers)?.ok_or_else(|| {
            ApiError::unauthenticated(
                "send an API key as X-API-Key, or a key or token as Authorization: Bearer",
            )
        })?;
        if let Some(origin) = parts.headers.get(header::ORIGIN)
            && !passage.page.may_send(credential)
        {
            credentials::check_origin(origin, host::of(parts)?, &self.public_authority)?;
        }
        let verified = match self.identity.authenticate(credential, passage.now) {
            Verdict::Known(caller) => Ok(caller),
            Verdict::Refused => Err(ApiError::unauthenticated(
                "the key or token is unknown, revoked or expired",
            )),
            Verdict::Unverified => self.identity.clone().verify(credential, peer).await,
        };
        verified.map_err(|error| match (error.status(), credential) {
            (StatusCode::UNAUTHORIZED, Credential::Token(_)) => error.with_header(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"auspex\", error=\"invalid_token\""),
            ),
            _ => error,
        })
    }

    /// An inline handler stays on the thread of its connection. Any other runs on the control
    /// runtime and to its end: the deadline, or a client that leaves, ends only the waiting for it.
    async fn run(
        &self,
        route: &Arc<Route>,
        request: Request<Body>,
        id: &RequestId,
        passage: &Passage<'_>,
        share: Option<Arc<Share>>,
    ) -> Response {
        let limit = route.limits.request_timeout;
        let method = request.method().clone();
        let handler = route.handler.clone().call(request);
        let late =
            || ApiError::unavailable(format!("no answer within {} ms", limit.as_millis()), 1);
        if route.policy.runs == Runs::Inline {
            return match timeout::Lazy::new(handler, limit).await {
                Some(response) => response,
                None => late().into_response(),
            };
        }
        let is_answered = Arc::new(AtomicBool::new(false));
        let unheard = Unheard {
            observers: self.observers.clone(),
            route: route.clone(),
            method,
            caller: passage.caller.clone(),
            id: id.clone(),
            started: passage.started,
            _share: share,
            is_answered: is_answered.clone(),
        };
        let running = self.control.run(unheard.run(handler));
        match timeout::Lazy::new(running, limit).await {
            Some(Ok(ended)) => ended.take(),
            Some(Err(stopping)) => stopping.into_response(),
            None => {
                is_answered.store(true, Ordering::Relaxed);
                late().into_response()
            }
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

/// Whether an answer is one that may go on without end.
fn is_stream(route: &Route, response: &Response) -> bool {
    match route.policy.answer {
        Answer::Whole => false,
        Answer::Stream | Answer::Upgrade => true,
        Answer::PassedOn => {
            let stated = response.headers().get(header::CONTENT_TYPE);
            stated.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
        }
    }
}

/// Chunks are taken apart here. A body that is coded otherwise too would lose that by it, and mean another thing.
fn check_coding(parts: &Parts) -> Result<(), ApiError> {
    let mut codings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    match codings.next().is_none_or(is_chunked) && codings.next().is_none() {
        true => Ok(()),
        false => Err(ApiError::malformed(
            "Transfer-Encoding must be chunked, and nothing else",
        )),
    }
}

/// Refuses by `Content-Length` what would be refused anyway after reading it.
fn check_length(parts: &Parts, max: usize) -> Result<(), ApiError> {
    let stated = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok());
    match stated.and_then(|text| text.parse::<u64>().ok()) {
        Some(length) if length > max as u64 => Err(body::BodyError::TooLarge(max).into()),
        _ => Ok(()),
    }
}

/// RFC 6750 §3.1 names the scope for programs.
fn lacking(scope: Scope) -> ApiError {
    let challenge =
        format!("Bearer realm=\"auspex\", error=\"insufficient_scope\", scope=\"{scope}\"");
    let error = ApiError::forbidden(format!(
        "this needs the scope {scope}, which the caller does not have"
    ));
    match HeaderValue::try_from(challenge) {
        Ok(challenge) => error.with_header(header::WWW_AUTHENTICATE, challenge),
        Err(_) => error,
    }
}

fn rate_limited(decision: &Decision, counted: &str) -> ApiError {
    let wait = decision.reset_in;
    let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
    ApiError::new(
        StatusCode::TOO_MANY_REQUESTS,
        "RATE_LIMITED",
        format!(
            "{counted} has used its {} requests; try again in {seconds} s",
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
