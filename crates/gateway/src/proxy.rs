//! A request, passed on to a service, and its answer, passed back.

use std::sync::Arc;
use std::time::Instant;

use auspex_kernel::caller::Vouch;
use auspex_kernel::clock::{Clock, monotonic};
use auspex_kernel::service::{Boxed, Handle};
use auspex_kernel::{ApiError, Caller, OverTls, Peer, RequestId, Via};
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;

use crate::balance::{KeySource, Service};
use crate::counts::Begun;
use crate::error::Failure;
use crate::exchange::{Answer, Exchange};
use crate::headers::{self, Told, X_REQUEST_TIMEOUT_MS};
use crate::path;
use crate::patience::Patience;
use crate::plan::{LeadsTo, PlannedRoute};
use crate::upstream::{Endpoint, Outgoing, Protocol, Upload};
use crate::websocket;

const X_GATEWAY_RETRIES: HeaderName = HeaderName::from_static("x-gateway-retries");

/// What answers a route that leads to a service.
pub(crate) struct Proxy {
    service: Arc<Service>,
    strip_prefix: String,
    forward_credentials: bool,
    preserve_host: bool,
    websocket: bool,
    /// Shows another process of this server who passes its requests on.
    secret: Option<HeaderValue>,
    /// Where its requests have the value that decides which endpoint is asked.
    key: Option<KeySource>,
    /// Tells services who calls.
    voucher: Option<Arc<dyn Vouch>>,
    clock: Clock,
}

impl Proxy {
    pub(crate) fn new(
        route: &PlannedRoute,
        service: Arc<Service>,
        clock: Clock,
        voucher: Option<Arc<dyn Vouch>>,
    ) -> Self {
        // Parts and calls have paths of their own.
        let path = match &route.leads_to {
            LeadsTo::Service(_) => route.path.as_str(),
            LeadsTo::Aggregate(_) | LeadsTo::Calls(..) => "",
        };
        Self {
            clock,
            voucher,
            key: KeySource::of(&service.plan.balance, path),
            service,
            strip_prefix: route.strip_prefix.clone(),
            forward_credentials: route.forward_credentials,
            preserve_host: route.preserve_host,
            websocket: route.websocket,
            secret: route.remote_role.as_ref().map(|role| role.secret.clone()),
        }
    }

    /// In one future, for each within another would copy the request once more.
    async fn pass(&self, request: Request<Body>) -> Result<Response, ApiError> {
        let (mut parts, body) = request.into_parts();
        path::check(parts.uri.path())?;
        headers::via::check(&parts.headers)?;
        let client = self.asked(&mut parts);
        let begin = monotonic();
        let patience = Patience::of(&parts.headers, self.service.plan.timeout, begin)?;
        let begun = self.begin(begin);
        let mut exchange = Exchange::new(self, &self.service, &self.clock, (parts, body), patience);
        let (end, retries) = exchange.run().await;
        begun.end(&end);
        self.shown(end, retries, client)
    }

    /// Of the value that decides which endpoint is asked.
    pub(crate) fn key_of(&self, parts: &Parts) -> Option<u64> {
        self.key.as_ref()?.key(parts)
    }

    /// What the service is shown of who calls, if anybody is known and it is to be told.
    ///
    /// # Errors
    /// [`Failure::Untold`].
    pub(crate) async fn authorization(
        &self,
        service: &Service,
        parts: &Parts,
    ) -> Result<Option<HeaderValue>, Failure> {
        let caller = parts.extensions.get::<Arc<Caller>>();
        let (Some(voucher), Some(audience), Some(caller), false) = (
            &self.voucher,
            &service.plan.audience,
            caller,
            self.forward_credentials,
        ) else {
            return Ok(None);
        };
        if let Some(known) = voucher.remembered(caller, audience, self.clock.now()) {
            return Ok(Some(known));
        }
        let made = voucher.clone().vouch(caller.clone(), audience.clone());
        made.await.map(Some).map_err(|error| {
            let service = service.plan.name.as_str();
            let cause = error.cause().unwrap_or_default();
            tracing::error!(service, cause, "a service cannot be told who calls");
            Failure::Untold
        })
    }

    /// The answer to a request that began at this moment. Its path leads nowhere else than it seems to.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn answer(
        &self,
        (mut parts, body): (Parts, Body),
        begin: Instant,
        patience: Patience,
    ) -> Result<Response, ApiError> {
        let client = self.asked(&mut parts);
        let (end, retries) = self.ask((parts, body), begin, patience).await;
        self.shown(end, retries, client)
    }

    /// What came of it, and after how many retries.
    pub(crate) async fn ask(
        &self,
        request: (Parts, Body),
        begin: Instant,
        patience: Patience,
    ) -> (Result<Answer, Failure>, u32) {
        let begun = self.begin(begin);
        let mut exchange = Exchange::new(self, &self.service, &self.clock, request, patience);
        let (end, retries) = exchange.run().await;
        begun.end(&end);
        (end, retries)
    }

    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    pub(crate) fn forwards_credentials(&self) -> bool {
        self.forward_credentials
    }

    fn begin(&self, begin: Instant) -> Begun<'_> {
        let counts = &self.service.counts;
        counts.budget.deposit(self.clock.steady_at(begin));
        counts.begin(begin)
    }

    /// The connection of a client that asks for a WebSocket.
    fn asked(&self, parts: &mut Parts) -> Option<OnUpgrade> {
        // HTTP/2 has no such thing.
        let may_switch = self.websocket && self.service.plan.protocol == Protocol::Http1;
        websocket::asked(parts, may_switch)
    }

    /// What the client gets.
    fn shown(
        &self,
        end: Result<Answer, Failure>,
        retries: u32,
        client: Option<OnUpgrade>,
    ) -> Result<Response, ApiError> {
        let answered = match end {
            Ok(answer) => {
                let is_switching = answer.response.status() == StatusCode::SWITCHING_PROTOCOLS;
                Ok(match client.filter(|_| is_switching) {
                    Some(client) => websocket::join(client, answer),
                    None => self.response_of(answer),
                })
            }
            Err(failure) => Err(failure.answer(&self.service.plan.name)),
        };
        tell_retries(answered, retries)
    }

    /// The host of a request, where the service is called by it and may name it where it leads.
    pub(crate) fn kept_host(&self, parts: &Parts) -> Option<HeaderValue> {
        if !self.preserve_host || self.strip_prefix.is_empty() {
            return None;
        }
        let target = parts.uri.authority();
        let target = target.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        target.or_else(|| parts.headers.get(header::HOST).cloned())
    }

    /// The answer of the service as the client gets it.
    pub(crate) fn response_of(&self, answer: Answer) -> Response {
        let Answer {
            mut response,
            endpoint,
            in_hand,
            host,
        } = answer;
        *response.version_mut() = Version::HTTP_11;
        let status = response.status();
        headers::for_client(status, response.headers_mut());
        if !self.strip_prefix.is_empty() {
            let host = host.as_ref().and_then(|host| host.to_str().ok());
            let own = endpoint.authority();
            let names = [own, host.unwrap_or(own)];
            headers::restore_prefix(response.headers_mut(), &self.strip_prefix, &names);
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
        authorization: Option<&HeaderValue>,
    ) -> Outgoing {
        let client = parts.extensions.get().map(|Peer(address)| *address);
        let target_host = parts.uri.authority();
        let target_host = target_host.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        let told = Told {
            version: parts.version,
            client: client.expect("the edge says where a request is from"),
            via: parts.extensions.get::<Via>().copied(),
            id: parts.extensions.get::<RequestId>(),
            host: (!self.preserve_host).then_some(endpoint.host()),
            target_host: target_host.as_ref(),
            prefix: &self.strip_prefix,
            with_credentials: self.forward_credentials,
            secret: self.secret.as_ref(),
            length: upload.size_hint().exact(),
            is_secured: parts.extensions.get::<OverTls>().is_some(),
            switches: websocket::is_asked(parts),
            is_http2: endpoint.protocol() == Protocol::Http2,
            has_body: [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method),
        };
        let mut fields = headers::for_service(&parts.headers, &told);
        if let Some(value) = authorization {
            fields.push((header::AUTHORIZATION, value.clone()));
        }
        if let Some(left) = patience.stated() {
            // None is no time that a service takes.
            let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
            fields.push((X_REQUEST_TIMEOUT_MS, HeaderValue::from(ms)));
        }
        Outgoing {
            method: parts.method.clone(),
            target: self.target(&parts.uri),
            fields,
            body: upload,
        }
    }

    fn target(&self, uri: &Uri) -> Uri {
        match uri.path_and_query() {
            Some(target) if self.strip_prefix.is_empty() => Uri::from(target.clone()),
            Some(target) => Uri::from(path::without_prefix(target, &self.strip_prefix)),
            None => Uri::default(),
        }
    }
}

/// Says how often a request was sent again.
///
/// # Errors
/// The same.
pub(crate) fn tell_retries(
    answered: Result<Response, ApiError>,
    retries: u32,
) -> Result<Response, ApiError> {
    if retries == 0 {
        return answered;
    }
    match answered {
        Ok(mut response) => {
            response
                .headers_mut()
                .insert(X_GATEWAY_RETRIES, retries.into());
            Ok(response)
        }
        Err(error) => Err(error.with_header(X_GATEWAY_RETRIES, retries.into())),
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
