//! An answer made of the answers of several services, asked at the same time.
//!
//! A part is all or nothing: what a service says that is no success, or no JSON, never becomes part of the answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use auspex_kernel::ApiError;
use auspex_kernel::clock::monotonic;
use auspex_kernel::http::pairs;
use auspex_kernel::service::{Boxed, Handle};
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use futures_util::future::try_join_all;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::upgrade::OnUpgrade;
use serde_json::value::RawValue;

use crate::error::Failure;
use crate::gather::{End, gather};
use crate::headers::{OVERRIDES, via};
use crate::path;
use crate::patience::Patience;
use crate::proxy::Proxy;
use crate::template::Template;

const X_GATEWAY_COMPLETED: HeaderName = HeaderName::from_static("x-gateway-completed");
const X_GATEWAY_PARTS: HeaderName = HeaderName::from_static("x-gateway-parts");

/// Answers a route by the parts of its answer.
pub(crate) struct Aggregate {
    /// The route's path, to find its parameters.
    path: matchit::Router<()>,
    parts: Vec<Part>,
    /// Of each part.
    bytes_max: usize,
}

/// One part.
pub(crate) struct Part {
    /// The field.
    pub(crate) name: String,
    pub(crate) proxy: Proxy,
    pub(crate) template: Template,
    pub(crate) is_optional: bool,
}

/// What came of a part.
struct Outcome {
    /// For whoever looks: a status, or why there is none.
    word: Cow<'static, str>,
    /// `None`: it is missing.
    json: Option<Box<RawValue>>,
}

/// Why a part is missing.
enum Missing {
    /// Its service gave no answer.
    Failed(Failure),
    /// It refused the request.
    Refused(Response),
    /// It answered with another status than success.
    Status(StatusCode),
    NotJson,
    TooLong,
}

impl Aggregate {
    pub(crate) fn new(path: &str, parts: Vec<Part>, bytes_max: usize) -> Self {
        let mut router = matchit::Router::new();
        // The table of routes has the same path, and tells what is wrong with it.
        let _ = router.insert(path, ());
        Self {
            path: router,
            parts,
            bytes_max,
        }
    }

    async fn answer(&self, mut asked: Parts) -> Result<Response, Response> {
        let begin = monotonic();
        via::check(&asked.headers).map_err(ApiError::into_response)?;
        let targets = self.targets(&asked.uri).map_err(ApiError::into_response)?;
        prepare(&mut asked);
        let mut asking = Vec::new();
        for (part, target) in self.parts.iter().zip(targets) {
            let limit = part.proxy.service().plan.timeout;
            let patience = Patience::of(&asked.headers, limit, begin);
            let patience = patience.map_err(ApiError::into_response)?;
            let mut own = asked.clone();
            own.uri = path::at(&asked.uri, target);
            asking.push(part.outcome(own, begin, patience, self.bytes_max));
        }
        Ok(self.compose(try_join_all(asking).await?))
    }

    /// What each part is asked.
    fn targets(&self, uri: &Uri) -> Result<Vec<PathAndQuery>, ApiError> {
        let at = self.path.at(uri.path());
        let at = at.map_err(|_| ApiError::not_found("the path is none of this route"))?;
        let fields = pairs(uri.query().unwrap_or_default())?;
        let parameter = |name: &str| at.params.get(name).unwrap_or_default();
        let field = |name: &str| {
            let found = fields.clone().find(|(known, _)| known == name);
            found.map(|(_, value)| value).unwrap_or_default()
        };
        let targets = self.parts.iter().map(|part| {
            part.template.fill(parameter, field).ok_or_else(|| {
                ApiError::malformed(
                    "the path must not have the segments . and .., however they are written, and must \
                     not be too long",
                )
            })
        });
        targets.collect()
    }

    fn compose(&self, outcomes: Vec<Outcome>) -> Response {
        let (mut body, mut words) = (String::from("{"), String::new());
        let is_completed = outcomes.iter().all(|outcome| outcome.json.is_some());
        for (part, outcome) in self.parts.iter().zip(outcomes) {
            if !words.is_empty() {
                body.push(',');
                words.push_str(", ");
            }
            let json = outcome.json.as_deref().map_or("null", RawValue::get);
            // Names are plain.
            body.extend(["\"", &part.name, "\":", json]);
            words.extend([&part.name, "=", &*outcome.word]);
        }
        body.push('}');
        let mut response = Response::new(Body::from(body));
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        // It is of this caller and this moment.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let completed = if is_completed { "true" } else { "false" };
        headers.insert(X_GATEWAY_COMPLETED, HeaderValue::from_static(completed));
        if let Ok(words) = HeaderValue::try_from(words) {
            headers.insert(X_GATEWAY_PARTS, words);
        }
        response
    }
}

impl Part {
    /// # Errors
    /// The answer to the client: the part is needed and not to be had.
    async fn outcome(
        &self,
        asked: Parts,
        begin: Instant,
        patience: Patience,
        bytes_max: usize,
    ) -> Result<Outcome, Response> {
        let asking = self.proxy.ask((asked, Body::empty()), begin, patience);
        let missing = match asking.await.0 {
            Ok(answer) => match read(self.proxy.response_of(answer), patience, bytes_max).await {
                Ok(outcome) => return Ok(outcome),
                Err(missing) => missing,
            },
            Err(failure) => Missing::Failed(failure),
        };
        match self.is_optional {
            true => Ok(Outcome {
                word: missing.word(),
                json: None,
            }),
            false => Err(missing.answer(self)),
        }
    }
}

/// The part that an answer holds.
async fn read(answer: Response, patience: Patience, bytes_max: usize) -> Result<Outcome, Missing> {
    let status = answer.status();
    if status.is_client_error() {
        return Err(Missing::Refused(answer));
    }
    if !status.is_success() {
        return Err(Missing::Status(status));
    }
    if is_encoded(answer.headers()) {
        return Err(Missing::NotJson);
    }
    let (mut body, mut pieces) = (answer.into_body(), Vec::new());
    let reading = gather(&mut body, &mut pieces, bytes_max);
    match patience.wait(reading).await.map_err(Missing::Failed)? {
        End::Whole => {}
        End::TooLong => return Err(Missing::TooLong),
        End::Broken(_) => return Err(Missing::Failed(Failure::CutOff)),
    }
    let json = match status {
        StatusCode::NO_CONTENT => RawValue::NULL.to_owned(),
        _ => serde_json::from_slice(&pieces.concat()).map_err(|_| Missing::NotJson)?,
    };
    Ok(Outcome {
        word: status.as_u16().to_string().into(),
        json: Some(json),
    })
}

/// Whether it is written in another way than it was asked for.
fn is_encoded(headers: &HeaderMap) -> bool {
    let encoding = headers.get(header::CONTENT_ENCODING);
    encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Makes the request one that each part can be asked by: it reads, and wants the whole, as JSON.
fn prepare(asked: &mut Parts) {
    asked.method = Method::GET;
    // No part becomes a WebSocket.
    asked.extensions.remove::<OnUpgrade>();
    let others = [
        header::ACCEPT_ENCODING,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_LOCATION,
        header::CONTENT_TYPE,
        header::IF_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        header::IF_UNMODIFIED_SINCE,
        header::RANGE,
    ];
    for name in others.into_iter().chain(OVERRIDES) {
        asked.headers.remove(name);
    }
    let json = HeaderValue::from_static("application/json");
    asked.headers.insert(header::ACCEPT, json);
}

impl Missing {
    fn word(&self) -> Cow<'static, str> {
        match self {
            Missing::Failed(failure) => failure.reason().into(),
            Missing::Refused(answer) => answer.status().as_u16().to_string().into(),
            Missing::Status(status) => status.as_u16().to_string().into(),
            Missing::NotJson => "not_json".into(),
            Missing::TooLong => "too_long".into(),
        }
    }

    /// The answer to the client, where the part was needed.
    fn answer(self, part: &Part) -> Response {
        let word = self.word();
        let service = &part.proxy.service().plan.name;
        let problem = match self {
            Missing::Refused(mut answer) => {
                if let Ok(words) = HeaderValue::try_from(format!("{}={word}", part.name)) {
                    answer.headers_mut().insert(X_GATEWAY_PARTS, words);
                }
                return answer;
            }
            Missing::Failed(failure) => {
                let error = failure.answer(service).with_detail("part", &part.name);
                return error.into_response();
            }
            Missing::Status(status) => format!("answered with status {status}"),
            Missing::NotJson => "answered, but not with JSON".to_owned(),
            Missing::TooLong => "answered with more than gateway.part_bytes_max".to_owned(),
        };
        let message = format!("the service {service} {problem}, and its part is needed");
        ApiError::new(StatusCode::BAD_GATEWAY, "BAD_GATEWAY", message)
            .with_detail("reason", &word)
            .with_detail("part", &part.name)
            .into_response()
    }
}

impl Handle for Aggregate {
    fn handle(self: Arc<Self>, request: Request<Body>) -> Boxed<'static, Response> {
        Box::pin(async move {
            let (asked, _) = request.into_parts();
            self.answer(asked).await.unwrap_or_else(|answer| answer)
        })
    }
}
