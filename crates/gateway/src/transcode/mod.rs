//! Requests with JSON, asked of services that speak gRPC, and their answers as JSON.
//!
//! What is asked for how is said by the `google.api.http` options of the service's own descriptors.

mod api;
mod calls;
mod frame;
mod input;
mod output;
mod pattern;
mod status;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::body::{self, check_json};
use auspex_kernel::clock::monotonic;
use auspex_kernel::service::{Boxed, Handle};
use auspex_kernel::{ApiError, RequestId};
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use prost_reflect::Kind;
use prost_reflect::prost::Message as _;

use self::api::{Binding, BodyOf, Found, HTTP_BODY};
use self::calls::{Messages, Trouble};
use self::frame::framed;
use self::output::Shown;
use self::pattern::PathValue;
use self::stream::Form;
use crate::headers::via;
use crate::path;
use crate::patience::Patience;
use crate::proxy::{Proxy, tell_retries};

pub(crate) use api::Api;

/// The body of a request: it is read on the thread of its connection.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// One message of an answer, as most of gRPC bounds it.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// How long a stream may take to begin with an error that is told by its status.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Answers a route by the calls of a service.
pub(crate) struct Transcoded {
    /// With the paths of calls as they are.
    proxy: Proxy,
    api: Arc<Api>,
    strip_prefix: String,
}

impl Transcoded {
    pub(crate) fn new(proxy: Proxy, api: Arc<Api>, strip_prefix: String) -> Self {
        Self {
            proxy,
            api,
            strip_prefix,
        }
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response, ApiError> {
        let begin = monotonic();
        let (parts, body) = request.into_parts();
        path::check(parts.uri.path())?;
        via::check(&parts.headers)?;
        let limit = self.proxy.service().plan.timeout;
        let patience = Patience::of(&parts.headers, limit, begin)?;
        let target = parts.uri.path_and_query().cloned();
        let target = target.unwrap_or(PathAndQuery::from_static("/"));
        let target = path::without_prefix(&target, &self.strip_prefix);
        let (binding, values) = self.binding(&parts.method, target.path())?;
        let body = read(binding, &parts.headers, body).await?;
        let kind = parts.headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let query = target.query().unwrap_or_default();
        let message = input::message(binding, &values, query, body, kind)?;
        let frame = framed(&message.encode_to_vec())
            .ok_or_else(|| ApiError::payload_too_large("the message is too long for gRPC"))?;

        let form = Form::of(&parts.headers, &binding.shape);
        let id = parts.extensions.get::<RequestId>().cloned();
        let sent = sent(parts, binding, patience)?;
        let asking = self.proxy.ask((sent, Body::from(frame)), begin, patience);
        let (end, retries) = asking.await;
        let service = &self.proxy.service().plan.name;
        let answered = match end {
            Err(failure) => Err(failure.answer(service)),
            Ok(answer) => {
                let answer = self.proxy.response_of(answer);
                match Messages::of(answer, MESSAGE_BYTES_MAX) {
                    Err(trouble) => Err(trouble.answer(service)),
                    Ok(answer) if binding.call.has_stream => {
                        self.stream(answer, binding, patience, form, id).await
                    }
                    Ok(answer) => self.single(answer, binding, patience).await,
                }
            }
        };
        tell_retries(answered, retries)
    }

    /// What a request asks for, with the values of its path.
    fn binding(
        &self,
        method: &Method,
        path: &str,
    ) -> Result<(&Binding, Vec<PathValue<'_>>), ApiError> {
        let found = match self.api.find(method, path) {
            Found::Call(..) => self.api.find(method, path),
            _ if method == Method::HEAD => self.api.find(&Method::GET, path),
            other => other,
        };
        match found {
            Found::Call(binding, _) if binding.call.wants_stream => {
                let message =
                    "calls to which clients send a stream cannot be made by JSON; use gRPC";
                let status = StatusCode::NOT_IMPLEMENTED;
                Err(ApiError::new(status, "UNIMPLEMENTED", message))
            }
            Found::Call(binding, values) => Ok((binding, values)),
            Found::OtherMethods(methods) => {
                let message = "the path takes other methods; Allow lists them";
                let status = StatusCode::METHOD_NOT_ALLOWED;
                let error = ApiError::new(status, "METHOD_NOT_ALLOWED", message);
                Err(error.with_header(header::ALLOW, methods))
            }
            Found::Nothing => Err(ApiError::not_found("no call has this path")),
        }
    }

    async fn single(
        &self,
        (headers, mut messages): (HeaderMap, Messages),
        binding: &Binding,
        patience: Patience,
    ) -> Result<Response, ApiError> {
        let service = &self.proxy.service().plan.name;
        let message = patience.wait(messages.only()).await;
        let message = message.map_err(|late| late.answer(service))?;
        let message = message.map_err(|trouble| trouble.answer(service))?;
        let shown = output::read(&binding.shape, message);
        let shown = shown.map_err(|_| Trouble::Invalid.answer(service))?;
        let (kind, body) = match shown {
            Shown::Json(json) => (
                HeaderValue::from_static("application/json"),
                Body::from(json),
            ),
            Shown::Raw { content_type, data } => (stream::kind_of(&content_type), Body::from(data)),
        };
        let mut response = Response::new(body);
        *response.headers_mut() = headers;
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(response)
    }
}

/// The body of a request, where its call wants one.
async fn read(binding: &Binding, headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let is_raw = match &binding.body {
        BodyOf::Nothing => return Ok(Bytes::new()),
        BodyOf::All => binding.call.input.full_name() == HTTP_BODY,
        BodyOf::Field(field) => match field.kind() {
            Kind::Message(message) => message.full_name() == HTTP_BODY,
            _ => false,
        },
    };
    let body = body::read(body).await?;
    if !is_raw && !body.is_empty() {
        check_json(headers)?;
    }
    Ok(body)
}

/// The request as the call is made.
fn sent(mut parts: Parts, binding: &Binding, patience: Patience) -> Result<Parts, ApiError> {
    parts.method = Method::POST;
    let target = PathAndQuery::try_from(binding.call.path.as_str());
    parts.uri = path::at(&parts.uri, target.map_err(ApiError::internal)?);
    // No call becomes a WebSocket.
    parts.extensions.remove::<OnUpgrade>();
    let headers = &mut parts.headers;
    for name in [
        header::ACCEPT,
        header::ACCEPT_ENCODING,
        header::CONTENT_ENCODING,
        header::IF_MODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::RANGE,
    ] {
        headers.remove(name);
    }
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, grpc);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.remove(GRPC_TIMEOUT);
    // A stream may go on for as long as its client wants.
    let left = match binding.call.has_stream {
        true => patience.stated(),
        false => Some(patience.left()),
    };
    if let Some(left) = left
        && let Ok(left) = HeaderValue::try_from(format!("{}m", left.as_millis().min(99_999_999)))
    {
        headers.insert(GRPC_TIMEOUT, left);
    }
    Ok(parts)
}

impl Handle for Transcoded {
    fn handle(self: Arc<Self>, request: Request<Body>) -> Boxed<'static, Response> {
        Box::pin(async move {
            let answer = self.answer(request).await;
            answer.unwrap_or_else(ApiError::into_response)
        })
    }
}
