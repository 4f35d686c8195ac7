//! Requests that are carried out once, however often they are sent: `Idempotency-Key`.
//!
//! The first request with a key claims it, does its work and stores its answer, which later requests
//! get. The work runs to its end even if the client has disconnected, because that client will ask
//! again. Keys are stored as digests, and bodies not at all: the digest that distinguishes them is
//! mixed with the key, so that somebody who reads the database cannot check guesses at what a body was.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::Body as _;
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use crate::clock::{Clock, Timestamp};
use crate::control::passed_on;
use crate::db::{Db, DbError};
use crate::error::{ApiError, FieldError};
use crate::fields::optional_parameter;
use crate::random;
use crate::store::idempotency::{self as store, Claim, Found, StoredAnswer};

/// The request header.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks an answer that was given before.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// How long answers are kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a key stays claimed when the process that claimed it was killed.
const CLAIMED: Duration = Duration::from_secs(60);
/// The work must end well before its claim does, or it could be done twice.
const WORK_TIMEOUT: Duration = Duration::from_secs(50);
const KEY_CHARS_MAX: usize = 255;
/// Longer bodies are not kept; no answer to a change is that long.
const BODY_BYTES_MAX: u64 = 256 << 10;
const PRUNE_PAUSE: Duration = Duration::from_secs(60);
const PRUNED_AT_ONCE: u64 = 500;
const PRUNES_MAX: usize = 10;
const RETRY_AFTER_S: u64 = 1;

type Work = Pin<Box<dyn Future<Output = Result<Response, ApiError>> + Send>>;

/// Remembers which requests were carried out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Idempotency {
    db: Db,
    clock: Clock,
    /// Microseconds.
    prune_at: Arc<AtomicI64>,
}

/// What distinguishes a request from others.
#[derive(Clone, Copy, Debug)]
pub struct Keyed<'r> {
    /// Who sent it, such as the text of [`crate::Caller::subject`]: callers cannot use each
    /// other's keys.
    pub caller: &'r str,
    /// Its method.
    pub method: &'r Method,
    /// Its path.
    pub path: &'r str,
    /// Its headers, which may contain the key.
    pub headers: &'r HeaderMap,
    /// Its whole body.
    pub body: &'r [u8],
}

/// What is kept of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Everything a client needs; it is given again.
    Stored,
    /// The answer contains a credential: its body is not kept, and asking again is a conflict.
    Secret,
}

/// The header, for the document.
#[derive(Debug)]
pub struct IdempotencyParams;

impl IntoParams for IdempotencyParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let about = "A name that the client gives to this request, so that it is carried out once \
                     however often it is sent within 24 hours";
        let schema = json!({
            "type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX, "pattern": "^[!-~]+$",
        });
        let key = optional_parameter(ParameterIn::Header, "Idempotency-Key", about, schema);
        vec![key]
    }
}

impl Idempotency {
    /// Remembers in a database whose tables are up to date.
    pub fn new(db: Db, clock: Clock) -> Self {
        Self {
            db,
            clock,
            prune_at: Arc::default(),
        }
    }

    /// Carries out `work`, unless the request has a key with which it was carried out before. Only
    /// success is remembered: after an error, a panic or a crash the key is free again.
    ///
    /// # Errors
    /// What `work` says; 422 for a malformed key, or one that was used with another body; 409 while
    /// the first request is running, and for an answer that is not kept; 503 where the work takes
    /// longer than 50 s.
    ///
    /// # Panics
    /// If `work` does.
    pub fn once<'a>(
        &'a self,
        request: Keyed<'a>,
        answer: Answer,
        work: impl Future<Output = Result<Response, ApiError>> + Send + 'static,
    ) -> impl Future<Output = Result<Response, ApiError>> + Send + 'a {
        // Work on the database is a large future, and it is handed on twice from here.
        let work: Work = Box::pin(work);
        self.once_boxed(request, answer, work)
    }

    async fn once_boxed(
        &self,
        request: Keyed<'_>,
        answer: Answer,
        work: Work,
    ) -> Result<Response, ApiError> {
        let Some(key) = read_key(request.headers)? else {
            return work.await;
        };
        let now = self.clock.now();
        let claim = claim(&request, key, now).map_err(ApiError::internal)?;
        let this = self.clone();
        // From the claim to the answer in one piece, even if the client disconnects.
        let running = self.db.control().run(async move {
            this.prune(now).await;
            match this.claim(&claim, now).await? {
                Found::Free => this.run(claim, answer, work).await,
                Found::Taken {
                    fingerprint,
                    answer,
                } if fingerprint == claim.fingerprint => replay(answer),
                Found::Taken { .. } => Err(wrong_key("was used with another body before")),
            }
        });
        running.await?
    }

    async fn run(&self, claim: Claim, answer: Answer, work: Work) -> Result<Response, ApiError> {
        let working = tokio::time::timeout(WORK_TIMEOUT, tokio::spawn(work));
        let response = match working.await {
            Ok(Ok(Ok(response))) if response.status().is_success() => response,
            Ok(ended) => {
                self.release(claim).await;
                return ended.unwrap_or_else(|ended| Err(passed_on(ended)));
            }
            // It may still come to its end, so that the key is not free before the claim expires.
            Err(_) => {
                let message = "it takes too long; ask later whether it was done";
                return Err(ApiError::unavailable(message, CLAIMED.as_secs()));
            }
        };
        let (response, body) = match answer {
            Answer::Stored => read_body(response).await?,
            Answer::Secret => (response, None),
        };
        self.keep(claim, stored(&response, body)).await;
        Ok(response)
    }

    async fn claim(&self, claim: &Claim, now: Timestamp) -> Result<Found, DbError> {
        let claim = claim.clone();
        self.db
            .write(async |transaction| store::claim(transaction, &claim, now).await)
            .await
    }

    /// Without it a repetition would only be carried out again, as without a key; the request
    /// itself has succeeded.
    async fn keep(&self, claim: Claim, answer: StoredAnswer) {
        let expires_at = self.clock.now() + KEPT;
        let kept = self
            .db
            .write(async |transaction| store::keep(transaction, &claim, answer, expires_at).await);
        if let Err(error) = kept.await {
            tracing::warn!(%error, "the answer to an Idempotency-Key was not kept");
        }
    }

    async fn release(&self, claim: Claim) {
        let released = self
            .db
            .write(async |transaction| store::release(transaction, &claim).await);
        if let Err(error) = released.await {
            tracing::warn!(%error, "an Idempotency-Key stays taken for a minute");
        }
    }

    /// Deletes expired keys, from time to time and within bounds.
    async fn prune(&self, now: Timestamp) {
        let due = self.prune_at.load(Ordering::Relaxed);
        let next = (now + PRUNE_PAUSE).0;
        let order = Ordering::Relaxed;
        if now.0 < due
            || self
                .prune_at
                .compare_exchange(due, next, order, order)
                .is_err()
        {
            return;
        }
        for _ in 0..PRUNES_MAX {
            let pruned = self
                .db
                .write(async |transaction| store::prune(transaction, now, PRUNED_AT_ONCE).await);
            match pruned.await {
                Ok(PRUNED_AT_ONCE) => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "expired Idempotency-Keys were not forgotten");
                    return;
                }
            }
        }
    }
}

fn read_key(headers: &HeaderMap) -> Result<Option<&[u8]>, ApiError> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next().map(HeaderValue::as_bytes) else {
        return Ok(None);
    };
    if keys.next().is_some() {
        return Err(wrong_key("is given more than once"));
    }
    let is_key = (1..=KEY_CHARS_MAX).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    if !is_key {
        return Err(wrong_key(
            "must be 1 to 255 visible ASCII characters, without spaces",
        ));
    }
    Ok(Some(key))
}

fn wrong_key(message: &str) -> ApiError {
    ApiError::validation(vec![FieldError {
        field: "Idempotency-Key".into(),
        message: message.into(),
    }])
}

fn claim(request: &Keyed<'_>, key: &[u8], now: Timestamp) -> Result<Claim, getrandom::Error> {
    let id = random::bytes()?;
    let (caller, path) = (request.caller.as_bytes(), request.path.as_bytes());
    Ok(Claim {
        digest: digest(&[caller, request.method.as_str().as_bytes(), path, key]),
        fingerprint: digest(&[key, request.body]),
        id,
        expires_at: now + CLAIMED,
    })
}

/// SHA-256 over the parts, each preceded by its length, so that they cannot be split in another way.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The response, and its body if it is to be kept.
async fn read_body(response: Response) -> Result<(Response, Option<Vec<u8>>), ApiError> {
    let length = response.body().size_hint().exact();
    if length.is_none_or(|length| length > BODY_BYTES_MAX) {
        return Ok((response, None));
    }
    let (parts, body) = response.into_parts();
    let bytes = crate::body::read(body).await?;
    let kept = bytes.to_vec();
    Ok((Response::from_parts(parts, Body::from(bytes)), Some(kept)))
}

fn stored(response: &Response, body: Option<Vec<u8>>) -> StoredAnswer {
    let text = |name| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    StoredAnswer {
        status: response.status().as_u16(),
        location: text(header::LOCATION),
        etag: text(header::ETAG),
        content_type: text(header::CONTENT_TYPE),
        body,
    }
}

fn replay(answer: Option<StoredAnswer>) -> Result<Response, ApiError> {
    let Some(answer) = answer else {
        let message = "a request with this Idempotency-Key is being carried out; ask again soon";
        let wait = HeaderValue::from(RETRY_AFTER_S);
        return Err(ApiError::conflict(message).with_header(header::RETRY_AFTER, wait));
    };
    let headers = [
        (header::LOCATION, answer.location),
        (header::ETAG, answer.etag),
        (header::CONTENT_TYPE, answer.content_type),
    ];
    let headers = headers.into_iter().filter_map(|(name, value)| {
        let value = HeaderValue::try_from(value?).ok()?;
        Some((name, value))
    });
    let Some(body) = answer.body else {
        let message = "the request with this Idempotency-Key was carried out; its answer is not \
                       kept and cannot be given again; use another key to do it once more";
        // Where the thing is that was made then, which may have to be ended.
        let location = headers.filter(|(name, _)| name == header::LOCATION);
        let conflict = ApiError::conflict(message);
        return Err(location.fold(conflict, |error, (name, value)| {
            error.with_header(name, value)
        }));
    };
    let status = StatusCode::from_u16(answer.status).map_err(ApiError::internal)?;
    let mut response = (status, Body::from(body)).into_response();
    response.headers_mut().extend(headers);
    let replayed = HeaderValue::from_static("true");
    response
        .headers_mut()
        .insert(IDEMPOTENCY_REPLAYED, replayed);
    Ok(response)
}
