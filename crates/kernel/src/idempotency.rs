//! Requests that are carried out once, however often they are sent: `Idempotency-Key`.
//!
//! What is remembered of a request is written in the transaction that carries it out: both are stored
//! or neither is, whatever is killed and whenever. So the work gets a [`Receipt`], and can succeed only
//! by what its [`Receipt::keep`] returns. Of equal requests at once the first to commit wins; the
//! others are rolled back and given its answer.
//!
//! Keys are stored as digests, and bodies not at all: the digest that distinguishes them is mixed with
//! the key, so that somebody who reads the database cannot check guesses at what a body was.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::Body as _;
use sea_orm::DbErr;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use crate::clock::Clock;
use crate::db::{Db, DbError, Transaction};
use crate::error::{ApiError, FieldError};
use crate::fields::optional_parameter;
use crate::store::idempotency::{self as store, Found, Key, StoredAnswer};

pub use crate::store::idempotency::{forget_answers, prune};

/// The request header.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks an answer that was given before.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// How long answers are kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
const KEY_CHARS_MAX: usize = 255;
/// Longer bodies are not kept; no answer to a change is that long.
const BODY_BYTES_MAX: u64 = 256 << 10;
const PRUNE_PAUSE: Duration = Duration::from_secs(60);
const PRUNED_AT_ONCE: u64 = 500;
const PRUNES_MAX: usize = 10;

/// Remembers which requests were carried out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Idempotency {
    db: Db,
    clock: Clock,
    /// In steady microseconds.
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

type Render<T> = Box<dyn FnOnce(&T) -> Response + Send>;

/// What is to be remembered of a request that makes a `T`.
pub struct Receipt<T> {
    /// None: it will not be repeated.
    key: Option<Key>,
    answer: Answer,
    render: Render<T>,
    clock: Clock,
    /// Set when the key is found in the database, stored by this request or by an equal one.
    is_stored: Arc<AtomicBool>,
}

/// The answer to a request that is remembered as far as it asked for that.
#[derive(Debug)]
#[must_use = "the request is to be answered by it"]
pub struct Kept(Response);

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

    /// Carries out `work`, which makes a `T` that is answered by `render`, unless the request has a key
    /// with which it was carried out before. Only success is remembered: after an error the key is
    /// free again.
    ///
    /// # Errors
    /// What `work` says; 422 for a malformed key, or one that was used with another body or query; 409 for an
    /// answer that is not kept; what [`DbError`] becomes.
    pub async fn once<T>(
        &self,
        request: Keyed<'_>,
        answer: Answer,
        render: impl FnOnce(&T) -> Response + Send + 'static,
        work: impl AsyncFnOnce(Receipt<T>) -> Result<Kept, ApiError>,
    ) -> Result<Response, ApiError> {
        let deadline = Instant::now() + self.db.limits().call_timeout;
        let key = read_key(request.headers)?.map(|key| Key::of(&request, key));
        if let Some(key) = &key {
            let now = self.clock.now();
            let found = self
                .db
                .read(async |connection| store::find(connection, key, now).await);
            if let Some(found) = found.await? {
                return answer_again(found, key);
            }
        }
        let is_stored = Arc::new(AtomicBool::new(false));
        let receipt = Receipt {
            key: key.clone(),
            answer,
            render: Box::new(render),
            clock: self.clock.clone(),
            is_stored: is_stored.clone(),
        };
        // Boxed: work on the database is a large future.
        let done = Box::pin(work(receipt)).await;
        let Some(key) = key else {
            return done.map(|kept| kept.0);
        };
        match done {
            Ok(Kept(response)) => {
                self.prune().await;
                Ok(response)
            }
            Err(error) if is_stored.load(Ordering::Relaxed) || may_be_repeated(&error) => {
                match self.find_stored(&key, deadline).await {
                    Some(found) => answer_again(found, &key),
                    None => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// What an equal request has stored that was faster, or this one before it failed; `None` also if
    /// the database does not say so by `deadline`.
    async fn find_stored(&self, key: &Key, deadline: Instant) -> Option<Found> {
        if Instant::now() >= deadline {
            return None;
        }
        let now = self.clock.now();
        // Not a read: an equal request may share its commit with others and not be visible yet. What
        // a transaction finds is committed when the transaction is.
        let finding = self
            .db
            .write(async |transaction| store::find(transaction, key, now).await);
        timeout_at(deadline, finding).await.ok()?.ok()?
    }

    /// Deletes expired keys, from time to time and within bounds.
    async fn prune(&self) {
        let now = self.clock.steady();
        let order = Ordering::Relaxed;
        let later = |due| (now.0 >= due).then_some((now + PRUNE_PAUSE).0);
        if self.prune_at.fetch_update(order, order, later).is_err() {
            return;
        }
        let now = self.clock.now();
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

impl<T> Receipt<T> {
    /// For work that nobody repeats and that is not answered, such as that of a command.
    pub fn none() -> Self {
        Self {
            key: None,
            answer: Answer::Secret,
            render: Box::new(|_| Response::default()),
            clock: Clock::system(),
            is_stored: Arc::default(),
        }
    }

    /// Remembers what was made, in the transaction that made it.
    ///
    /// # Errors
    /// [`DbError::Repeated`] if an equal request was faster, [`DbError::Database`]: let the transaction
    /// end with this error.
    pub async fn keep(self, transaction: &Transaction, made: &T) -> Result<Kept, DbError> {
        let response = (self.render)(made);
        let Some(key) = self.key else {
            return Ok(Kept(response));
        };
        let (response, body) = match self.answer {
            Answer::Stored => read_body(response).await?,
            Answer::Secret => (response, None),
        };
        let now = self.clock.now();
        let answer = stored(&response, body);
        let is_new = store::keep(transaction, &key, answer, now, now + KEPT).await?;
        self.is_stored.store(true, Ordering::Relaxed);
        match is_new {
            true => Ok(Kept(response)),
            false => Err(DbError::Repeated),
        }
    }
}

impl<T> fmt::Debug for Receipt<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").finish_non_exhaustive()
    }
}

/// Whether it is what a repetition gets that comes too late: the name is taken, the key that is to be
/// rotated has ended, also if it is the caller's own.
fn may_be_repeated(error: &ApiError) -> bool {
    matches!(
        error.status(),
        StatusCode::CONFLICT | StatusCode::UNAUTHORIZED
    )
}

/// The key of a request, if it has one.
///
/// # Errors
/// 422 for a malformed one.
pub fn read_key(headers: &HeaderMap) -> Result<Option<&[u8]>, ApiError> {
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

/// 422, saying what is wrong with the key of a request.
pub fn wrong_key(message: &str) -> ApiError {
    ApiError::validation(vec![FieldError {
        field: "Idempotency-Key".into(),
        message: message.into(),
    }])
}

impl Key {
    fn of(request: &Keyed<'_>, key: &[u8]) -> Self {
        let (caller, path) = (request.caller.as_bytes(), request.path.as_bytes());
        Self {
            digest: digest(&[caller, request.method.as_str().as_bytes(), path, key]),
            fingerprint: digest(&[key, request.body]),
        }
    }
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
async fn read_body(response: Response) -> Result<(Response, Option<Vec<u8>>), DbError> {
    let length = response.body().size_hint().exact();
    if length.is_none_or(|length| length > BODY_BYTES_MAX) {
        return Ok((response, None));
    }
    let (parts, body) = response.into_parts();
    let bytes = crate::body::read(body).await;
    let bytes = bytes.map_err(|error| DbErr::Custom(error.message().to_owned()))?;
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

fn answer_again(found: Found, key: &Key) -> Result<Response, ApiError> {
    if found.fingerprint != key.fingerprint {
        return Err(wrong_key("was used with another body or query before"));
    }
    replay(found.answer)
}

fn replay(answer: StoredAnswer) -> Result<Response, ApiError> {
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
