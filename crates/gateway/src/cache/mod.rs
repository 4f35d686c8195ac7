//! Answers that are kept for the next who ask, as RFC 9111 lets a cache do that many share.
//!
//! Nobody is shown what another's credential was asked with: an answer to a caller is kept for that caller alone, unless it
//! says that it is for everybody. While one request fetches an answer, equal ones wait for it.

mod conditional;
mod directives;
mod fetch;
mod store;
mod stored;

use std::sync::Arc;
use std::time::{Duration, Instant};

use auspex_kernel::clock::{Clock, Steady, monotonic};
use auspex_kernel::service::{Boxed, Handle};
use auspex_kernel::{ApiError, Caller};
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body::Body as _;

use self::directives::Directives;
use self::store::{Fetched, Known, Turn, outcome};
use self::stored::{Stored, is_credential};
use crate::counts::FromCache;
use crate::headers::{self, via};
use crate::path;
use crate::patience::Patience;
use crate::proxy::Proxy;

pub(crate) use store::{Limits, Store};

/// RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// How often a request waits for others that fetch what it does not fit, or that fail.
const WAITS_MAX: u32 = 2;

/// Answers a route that leads to a service, from what is kept where it may.
pub(crate) struct Cached {
    /// Unlike that of any other route whose answers are in the store.
    route: u64,
    proxy: Proxy,
    /// How long an answer is fresh that says nothing of it. `None`: nothing is kept, but changes are told of.
    ttl: Option<Duration>,
    forwards_credentials: bool,
    store: Arc<Store>,
    clock: Clock,
}

/// A request that what is kept may answer.
struct Question<'r> {
    parts: &'r Parts,
    wants: Directives,
    begin: Instant,
    patience: Patience,
    ttl: Duration,
    /// What it asks for, whoever asks.
    place: String,
    /// The key of answers for everybody.
    shared: String,
    /// The key of those for this caller.
    own: Option<String>,
}

/// A request that may change what is at a place. Without an answer, also when its client has left, it may have been carried out.
struct Change<'c> {
    /// `None`: nothing is changed.
    place: Option<String>,
    store: &'c Store,
    clock: &'c Clock,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            self.store.change(place, self.clock.steady());
        }
    }
}

/// What is kept for a request.
struct Found {
    stored: Option<Arc<Stored>>,
    /// Where the next answer is likely to be kept.
    key: String,
    /// Whose answers are alike: the same key, and whether the service sees credentials.
    turn: String,
    /// Tells apart what answers vary by.
    sort: String,
    /// Its answers could not be kept lately.
    is_passing: bool,
    /// Why it has to be asked for.
    forward: &'static str,
}

impl Cached {
    pub(crate) fn new(
        route: u64,
        proxy: Proxy,
        ttl: Option<Duration>,
        store: Arc<Store>,
        clock: Clock,
    ) -> Self {
        Self {
            route,
            forwards_credentials: proxy.forwards_credentials(),
            proxy,
            ttl,
            store,
            clock,
        }
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response, ApiError> {
        let begin = monotonic();
        let (parts, body) = request.into_parts();
        path::check(parts.uri.path())?;
        via::check(&parts.headers)?;
        let limit = self.proxy.service().plan.timeout;
        let patience = Patience::of(&parts.headers, limit, begin)?;
        let is_read = [Method::GET, Method::HEAD].contains(&parts.method);
        let wants = Directives::of_request(&parts.headers);
        let forward = match self.ttl {
            Some(_) if !is_read => "method",
            Some(ttl) if !wants.no_store && body.is_end_stream() => {
                if !conditional::needs_service(&parts.headers) {
                    let question = self.question(&parts, wants, begin, patience, ttl);
                    return self.look(&question).await;
                }
                "bypass"
            }
            _ => "bypass",
        };
        self.pass((parts, body), begin, patience, forward).await
    }

    /// Passes a request on as if nothing were kept, and remembers what it changes.
    async fn pass(
        &self,
        (parts, body): (Parts, Body),
        begin: Instant,
        patience: Patience,
        forward: &str,
    ) -> Result<Response, ApiError> {
        let safe = [Method::GET, Method::HEAD, Method::OPTIONS];
        let is_safe = safe.contains(&parts.method) && !headers::is_overriding(&parts.headers);
        let mut change = Change {
            place: (!is_safe).then(|| place(&parts)),
            store: &self.store,
            clock: &self.clock,
        };
        let mut answer = self.proxy.answer((parts, body), begin, patience).await;
        let is_refused = |answer: &Response| {
            answer.status().is_client_error() || answer.status().is_server_error()
        };
        if answer.as_ref().is_ok_and(is_refused) {
            change.place = None;
        }
        drop(change);
        if let (Some(_), Ok(answer)) = (self.ttl, &mut answer) {
            self.count(FromCache::Bypass);
            tell(answer.headers_mut(), &format!("fwd={forward}"));
        }
        answer
    }

    fn question<'r>(
        &self,
        parts: &'r Parts,
        wants: Directives,
        begin: Instant,
        patience: Patience,
        ttl: Duration,
    ) -> Question<'r> {
        let place = place(parts);
        // A service may lead those to https who came by http.
        let is_secure = headers::tells_secure(parts);
        let shared = format!("{} {is_secure}\n{place}", self.route);
        let caller = parts.extensions.get::<Arc<Caller>>();
        let own = caller.map(|caller| {
            // What a service is told of them.
            let client = caller.client_id.as_ref().map(ToString::to_string);
            let client = client.unwrap_or_default();
            format!("{shared}\n{}\n{}\n{client}", caller.subject, caller.scopes)
        });
        Question {
            parts,
            wants,
            begin,
            patience,
            ttl,
            place,
            shared,
            own,
        }
    }

    /// From what is kept, or else from the service, which one asks for all who ask the same.
    async fn look(&self, question: &Question<'_>) -> Result<Response, ApiError> {
        let (mut waits, mut collapsed) = (0, None);
        loop {
            let now = self.clock.steady();
            let found = self.find(question, now);
            let stored = found.stored.as_ref();
            if let Some(stored) = stored.filter(|one| one.is_fresh_for(&question.wants, now)) {
                let (result, status) = match collapsed {
                    Some(why) => (FromCache::Collapsed, format!("fwd={why}; collapsed")),
                    None => (FromCache::Hit, format!("hit; ttl={}", stored.left(now))),
                };
                self.count(result);
                return Ok(show(stored, question, now, &status));
            }
            if question.wants.only_if_cached {
                let message = "there is no answer that could be shown without asking the service";
                let status = StatusCode::GATEWAY_TIMEOUT;
                return Err(ApiError::new(status, "NOT_CACHED", message));
            }
            if question.parts.method == Method::HEAD {
                let own = (question.parts.clone(), Body::empty());
                return self
                    .pass(own, question.begin, question.patience, "method")
                    .await;
            }
            // Of another's answer there would be no use.
            let asks_itself = question.wants.no_cache
                || question.wants.max_age == Some(0)
                || stored.is_some_and(|one| one.law.lifetime.is_zero());
            if asks_itself || found.is_passing || waits > WAITS_MAX {
                return self.fetch(question, found, None).await;
            }
            match self.store.turn(format!("{}{}", found.turn, found.sort)) {
                Turn::Own(fetch) => return self.fetch(question, found, Some(fetch)).await,
                Turn::Others(told) => match question.patience.wait(outcome(told)).await {
                    // Whoever fetched has left: the next one.
                    Ok(None) => {}
                    Ok(Some(Fetched::Kept)) => {
                        (waits, collapsed) = (waits + 1, Some(found.forward));
                    }
                    Ok(Some(Fetched::Failed)) => waits += 1,
                    Ok(Some(Fetched::NotKept)) => return self.fetch(question, found, None).await,
                    Err(late) => return Err(late.answer(&self.proxy.service().plan.name)),
                },
            }
        }
    }

    /// The best of what is kept: fresh for the client, or else the newest.
    fn find(&self, question: &Question<'_>, now: Steady) -> Found {
        let headers = &question.parts.headers;
        let own = question.own.as_deref();
        let shared = self.store.known(&question.shared);
        let others = own.and_then(|own| self.store.known(own));
        let all = [&shared, &others].into_iter().flatten();
        let variants = all.filter_map(|known| match known {
            Known::Variants(variants) => Some(variants.iter()),
            Known::Passing(_) => None,
        });
        let variants: Vec<&Arc<Stored>> = variants
            .flatten()
            .filter(|one| self.store.is_valid(&question.place, one))
            .collect();
        let has_forwarded = self.has_forwarded(headers);
        let fitting = variants.iter().filter(|one| {
            // Whoever shows a credential to the service wants their own.
            let is_theirs = !has_forwarded || one.law.is_public;
            is_theirs && one.fits(headers)
        });
        let stored = fitting
            .max_by_key(|one| (one.is_fresh_for(&question.wants, now), one.asked_at))
            .map(|one| Arc::clone(one));
        let forward = match (&stored, variants.is_empty()) {
            (Some(one), _) if one.is_fresh_for(&Directives::default(), now) => "request",
            (Some(_), _) => "stale",
            (None, false) => "vary-miss",
            (None, true) => "uri-miss",
        };
        let is_shared = matches!(shared, Some(Known::Variants(_)));
        let (key, known) = match own {
            Some(own) if !is_shared => (own, others),
            _ => (question.shared.as_str(), shared),
        };
        let sort = known.as_ref().map(|known| known.sort_of(headers));
        let (turn, known) = match has_forwarded {
            false => (key.to_owned(), known),
            true => {
                let turn = format!("{key}\ncredentials");
                let known = self.store.known(&turn);
                (turn, known)
            }
        };
        Found {
            key: key.to_owned(),
            turn,
            sort: sort.unwrap_or_default(),
            is_passing: matches!(known, Some(Known::Passing(until)) if now < until),
            stored,
            forward,
        }
    }

    /// Whether the service gets a credential of the client.
    fn has_forwarded(&self, headers: &HeaderMap) -> bool {
        self.forwards_credentials && headers.keys().any(is_credential)
    }

    fn count(&self, result: FromCache) {
        self.proxy.service().counts.add_cached(result);
    }
}

/// What a request asks for: under which host, and where.
fn place(parts: &Parts) -> String {
    // The service is told the host of the target, if there is one.
    let authority = parts.uri.authority().map(|one| one.as_str().as_bytes());
    let header = || parts.headers.get(header::HOST).map(HeaderValue::as_bytes);
    let host = authority.or_else(header).unwrap_or_default();
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    format!("{}{target}", host.to_ascii_lowercase().escape_ascii())
}

/// An answer that is kept, to a client that may have it already.
fn show(stored: &Stored, question: &Question<'_>, now: Steady, status: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = stored.headers.clone();
    *response.status_mut() = stored.status;
    let asked = &question.parts.headers;
    if stored.status == StatusCode::OK && conditional::is_known(asked, &stored.headers) {
        not_modified(&mut response);
    } else if question.parts.method == Method::GET {
        *response.body_mut() = Body::from(stored.body.clone());
    }
    let headers = response.headers_mut();
    let age = stored.age(now).as_secs();
    if age > 0 || status.starts_with("hit") {
        headers.insert(header::AGE, age.into());
    }
    tell(headers, status);
    response
}

/// The client has it.
fn not_modified(response: &mut Response) {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.body_mut() = Body::empty();
    for name in [
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
    ] {
        response.headers_mut().remove(name);
    }
}

/// Says what the cache did, after what caches before it said.
fn tell(headers: &mut HeaderMap, status: &str) {
    if let Ok(status) = HeaderValue::try_from(format!("auspex; {status}")) {
        headers.append(CACHE_STATUS, status);
    }
}

impl Handle for Cached {
    fn handle(self: Arc<Self>, request: Request<Body>) -> Boxed<'static, Response> {
        Box::pin(async move {
            let answer = self.answer(request).await;
            answer.unwrap_or_else(ApiError::into_response)
        })
    }
}
