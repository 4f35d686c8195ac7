//! An answer that has to be asked for, and what of it is kept.

use std::pin::Pin;
use std::task::{Context, Poll};

use auspex_kernel::ApiError;
use auspex_kernel::clock::Steady;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode, Version, header};
use http_body::Frame;

use super::conditional::{self, ASKING};
use super::store::{Fetch, Fetched};
use super::stored::{Asking, Law, Stored, is_keepable};
use super::{Cached, Found, Question, not_modified, show, tell};
use crate::counts::FromCache;
use crate::error::Failure;
use crate::exchange::Answer;
use crate::gather::{End, gather};
use crate::proxy::tell_retries;

impl Cached {
    /// Asks the service. `fetch`: others wait for what comes of it.
    pub(super) async fn fetch(
        &self,
        question: &Question<'_>,
        found: Found,
        fetch: Option<Fetch>,
    ) -> Result<Response, ApiError> {
        let asked_at = self.clock.steady();
        let sent = (asked(question, &found), Body::empty());
        let asking = self.proxy.ask(sent, question.begin, question.patience);
        let (end, retries) = asking.await;
        let failed = match &end {
            Ok(answer) => answer.response.status().is_server_error(),
            Err(failure) => *failure != Failure::Deadline,
        };
        let now = self.clock.steady();
        let stored = found.stored.as_ref();
        if let Some(stored) = stored.filter(|one| failed && one.stands_in(now)) {
            end_with(fetch, Fetched::Failed);
            self.count(FromCache::Stale);
            let status = format!("hit; ttl={}; detail=stale-if-error", stored.left(now));
            return Ok(show(stored, question, now, &status));
        }
        let answered = match end {
            Ok(answer) => Ok(self.take(question, &found, fetch, asked_at, answer).await),
            Err(failure) => {
                self.count(FromCache::Miss);
                // Another may wait longer than this client.
                if failure != Failure::Deadline {
                    end_with(fetch, Fetched::Failed);
                }
                Err(failure.answer(&self.proxy.service().plan.name))
            }
        };
        tell_retries(answered, retries)
    }

    /// Keeps an answer if it may be kept, and shows it.
    async fn take(
        &self,
        question: &Question<'_>,
        found: &Found,
        fetch: Option<Fetch>,
        asked_at: Steady,
        answer: Answer,
    ) -> Response {
        let is_whole_known = says_its_end(&answer);
        let response = self.proxy.response_of(answer);
        let status = response.status();
        let stored = found.stored.as_deref().filter(|_| !found.is_passing);
        let confirmed = stored.filter(|_| status == StatusCode::NOT_MODIFIED);
        self.count(match confirmed {
            Some(_) => FromCache::Revalidated,
            None => FromCache::Miss,
        });
        let response = match confirmed {
            None => response,
            Some(stored) => {
                let headers = stored.confirmed(response.headers());
                let mut response = Response::new(Body::from(stored.body.clone()));
                (*response.status_mut(), *response.headers_mut()) = (stored.status, headers);
                response
            }
        };
        let word = match stored {
            Some(_) => format!("fwd={}; fwd-status={}", found.forward, status.as_u16()),
            None => format!("fwd={}", found.forward),
        };
        let (now, date) = (self.clock.steady(), self.clock.now());
        let asking = Asking {
            headers: &question.parts.headers,
            has_caller: question.own.is_some(),
            has_forwarded: self.has_forwarded(&question.parts.headers),
            ttl: question.ttl,
        };
        let law = Law::of(&asking, response.status(), response.headers(), date);
        let law = law.filter(|_| is_whole_known || confirmed.is_some());
        let max = self.store.limits.entry_bytes_max;
        let Some(law) = law.filter(|_| length_of(response.headers()) <= max) else {
            match may_pass(response.status()) {
                true => end_with(fetch, Fetched::Failed),
                false => self.give_up(found, fetch),
            }
            return shown(response, question, &word);
        };
        let (head, mut body) = response.into_parts();
        let mut pieces = Vec::new();
        let gathering = gather(&mut body, &mut pieces, max);
        let rest = match question.patience.wait(gathering).await {
            Ok(End::Whole) => {
                let body = Bytes::from(pieces.concat());
                let head = (head.status, head.headers);
                let stored = Stored::new(law, head, body, &asking, asked_at, (now, date));
                let key = match &question.own {
                    Some(own) if !law.is_shared => own,
                    _ => &question.shared,
                };
                let stored = self.store.keep(key, stored);
                let is_theirs = *key == found.key || *key == question.shared;
                let is_for_all_who_wait = is_theirs && !law.lifetime.is_zero();
                end_with(
                    fetch,
                    match is_for_all_who_wait {
                        true => Fetched::Kept,
                        false => Fetched::NotKept,
                    },
                );
                return show(
                    &stored,
                    question,
                    self.clock.steady(),
                    &format!("{word}; stored"),
                );
            }
            Ok(End::Broken(error)) => {
                end_with(fetch, Fetched::Failed);
                Rest::Breaks(error)
            }
            // Another may wait longer than this client, and has the next turn.
            Err(Failure::Deadline) => {
                drop(fetch);
                Rest::Goes(body)
            }
            Ok(End::TooLong) | Err(_) => {
                self.give_up(found, fetch);
                Rest::Goes(body)
            }
        };
        let begun = Body::new(Resumed {
            pieces: pieces.into_iter(),
            rest,
        });
        shown(Response::from_parts(head, begun), question, &word)
    }
}

impl Cached {
    /// There is no use in waiting for answers like this one.
    fn give_up(&self, found: &Found, fetch: Option<Fetch>) {
        // One for which nobody could wait says nothing of the others.
        if let Some(fetch) = fetch {
            self.store.pass(&found.turn, self.clock.steady());
            fetch.end(Fetched::NotKept);
        }
    }
}

fn end_with(fetch: Option<Fetch>, fetched: Fetched) {
    if let Some(fetch) = fetch {
        fetch.end(fetched);
    }
}

/// The request as the service gets it: it asks for the whole, or whether what is kept is still so. Where nothing can be kept it is the
/// client's own.
fn asked(question: &Question<'_>, found: &Found) -> Parts {
    let mut asked = question.parts.clone();
    if found.is_passing {
        return asked;
    }
    let headers = &mut asked.headers;
    for name in ASKING {
        headers.remove(name);
    }
    if let Some(stored) = &found.stored {
        for (from, to) in [
            (header::ETAG, header::IF_NONE_MATCH),
            (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE),
        ] {
            if let Some(value) = stored.headers.get(from) {
                headers.insert(to, value.clone());
            }
        }
    }
    asked
}

/// Whether a request that is answered by this says nothing of the others: the service fails, or refuses what this one is like.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || (status.is_client_error() && !is_keepable(status))
}

/// Whether an answer that was cut off would not look whole.
fn says_its_end(answer: &Answer) -> bool {
    let response = &answer.response;
    response.version() == Version::HTTP_2
        || response.status() == StatusCode::NO_CONTENT
        || is_bounded(response.headers())
}

/// Whether the headers of HTTP/1.1 say where a body ends. Other codings than `chunked` end with the connection, whatever length is
/// said, or are not undone.
fn is_bounded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => headers.contains_key(header::CONTENT_LENGTH),
        (Some(coding), None) => coding
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// As it is stated.
fn length_of(headers: &HeaderMap) -> usize {
    let stated = headers.get(header::CONTENT_LENGTH);
    let stated = stated.and_then(|length| length.to_str().ok()?.parse().ok());
    stated.unwrap_or(0)
}

/// An answer that is not kept, to a client that may have it already.
fn shown(mut response: Response, question: &Question<'_>, word: &str) -> Response {
    let asked = &question.parts.headers;
    if response.status() == StatusCode::OK && conditional::is_known(asked, response.headers()) {
        not_modified(&mut response);
    }
    tell(response.headers_mut(), word);
    response
}

/// A body of which the begin has been read.
struct Resumed {
    pieces: std::vec::IntoIter<Bytes>,
    rest: Rest,
}

enum Rest {
    Goes(Body),
    /// What came before it is to be sent first.
    Breaks(axum::Error),
    Broken(Option<axum::Error>),
}

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(piece) = self.pieces.next() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match std::mem::replace(&mut self.rest, Rest::Broken(None)) {
            Rest::Goes(mut body) => {
                let frame = Pin::new(&mut body).poll_frame(cx);
                self.rest = Rest::Goes(body);
                frame
            }
            Rest::Breaks(error) => {
                self.rest = Rest::Broken(Some(error));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Rest::Broken(error) => Poll::Ready(error.map(Err)),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn a_body_ends_where_its_only_coding_or_its_length_says() {
        let bounded = |pairs: &[(HeaderName, &str)]| {
            let pairs = pairs.iter();
            let headers =
                pairs.map(|(name, value)| (name.clone(), value.parse().expect("a value")));
            is_bounded(&headers.collect())
        };
        let (coding, length) = (header::TRANSFER_ENCODING, header::CONTENT_LENGTH);
        assert!(bounded(&[(coding.clone(), "Chunked")]));
        assert!(bounded(&[(length.clone(), "3")]));
        assert!(!bounded(&[]));
        for other in ["identity", "chunked, gzip", "gzip, chunked", ""] {
            let both = [(coding.clone(), other), (length.clone(), "3")];
            assert!(!bounded(&both), "{other}");
        }
    }

    #[test]
    fn refusals_say_nothing_of_other_requests() {
        let of = |status: u16| may_pass(StatusCode::from_u16(status).expect("a status"));
        for status in [400, 401, 403, 408, 412, 429, 500, 503] {
            assert!(of(status), "{status}");
        }
        for status in [200, 206, 302, 404, 405, 410, 414] {
            assert!(!of(status), "{status}");
        }
    }
}
