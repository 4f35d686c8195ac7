//! Results, whole or from a byte on.

use std::collections::BTreeMap;
use std::ops::Range;

use auspex_kernel::ApiError;
use auspex_kernel::fields::{Kind as _, one_of};
use auspex_kernel::http::{Requester, error_responses, preferred};
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::unfold;
use tokio::sync::mpsc;
use utoipa::IntoResponses;
use utoipa::openapi::{RefOr, Response as Documented};

use super::{Desk, Id, TAG, content_type, job_id, parameters, reach};
use crate::error::JobsError;
use crate::types::Form;

/// Pieces that are read ahead of the client.
const PIECES_AHEAD: usize = 1;
const FORMS: [(&str, Form); 2] = [
    ("text/csv", Form::Csv),
    ("application/x-ndjson", Form::Ndjson),
];

struct OutcomeErrors;

impl IntoResponses for OutcomeErrors {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses(&[304, 401, 403, 404, 422, 429, 500, 503])
    }
}

/// Read the result of a job
///
/// A line for each row of the input, in their order: the prediction, or the error of a row that was wrong. It is there once the job has succeeded,
/// and never changes, so that an answer that broke off is continued by `Range`.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/result", tag = TAG,
    params(
        ("id" = String, Path, description = "Id of the job"),
        ("format" = Option<String>, Query, description = "`ndjson` or `csv`; by default what `Accept` names, or else the form of the input", pattern = "^(ndjson|csv)$"),
        ("Range" = Option<String>, Header, description = "Bytes to send, such as `bytes=4096-`"),
    ),
    responses(
        (status = 200, description = "The whole result", content((String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 206, description = "The bytes that `Range` names", content((String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 409, description = "It has no result, yet or at all"),
        (status = 416, description = "The result ends before these bytes"),
        OutcomeErrors
    ),
    security(("api_key" = ["jobs:read"]), ("bearer" = ["jobs:read"]))
)]
pub(super) async fn get_job_result(
    State(desk): State<Desk>,
    requester: Requester,
    id: Id,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let [format] = parameters(query.as_deref(), ["format"])?;
    let form = match format {
        Some(text) => Some(read_form(&text)?),
        None => preferred(&headers, &FORMS).copied(),
    };
    let id = job_id(id)?;
    let (job, outcome) = desk.jobs.outcome(&reach(&requester), &id, form).await?;
    let length = outcome.bytes();
    let ended = job.ended_at.map_or(0, |at| at.0);
    let tag = format!("\"{id}-{ended}-{}\"", outcome.form().as_str());
    let tag = HeaderValue::try_from(tag).map_err(ApiError::internal)?;
    if auspex_kernel::etag::is_known(&headers, &tag) {
        return Ok(answer(StatusCode::NOT_MODIFIED, &tag, Body::empty()));
    }
    let (status, range) = match wanted(&headers, &tag, length) {
        Wanted::All => (StatusCode::OK, 0..length),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => {
            let mut response = answer(StatusCode::RANGE_NOT_SATISFIABLE, &tag, Body::empty());
            set(
                &mut response,
                header::CONTENT_RANGE,
                format!("bytes */{length}"),
            );
            return Ok(response);
        }
    };
    let kind = content_type(outcome.form());
    let (pieces, body) = pieces();
    let mut reading = outcome.read(range.clone());
    tokio::spawn(async move {
        loop {
            let piece = match reading.next().await {
                Ok(Some(piece)) => Ok(piece),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "the result of a job was broken off");
                    Err(error)
                }
            };
            let is_broken = piece.is_err();
            // The client may have gone.
            if pieces.send(piece).await.is_err() || is_broken {
                return;
            }
        }
    });
    let mut response = answer(status, &tag, body);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    let bytes = range.end - range.start;
    set(&mut response, header::CONTENT_LENGTH, bytes.to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let (first, last) = (range.start, range.end - 1);
        let place = format!("bytes {first}-{last}/{length}");
        set(&mut response, header::CONTENT_RANGE, place);
    }
    Ok(response)
}

fn read_form(text: &str) -> Result<Form, ApiError> {
    let kind = one_of(Form::ALL, Form::as_str);
    kind.read(&text.into()).map_err(|why| {
        ApiError::validation(vec![auspex_kernel::FieldError {
            field: "format".into(),
            message: why.into_owned(),
        }])
    })
}

fn answer(status: StatusCode, tag: &HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag.clone());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-cache"),
    );
    response
}

fn set(response: &mut Response, name: header::HeaderName, value: String) {
    // Numbers and fixed words.
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

pub(super) type Pieces = mpsc::Sender<Result<Bytes, JobsError>>;

/// A body that is written while it is read, and breaks off with an error.
pub(super) fn pieces() -> (Pieces, Body) {
    let (pieces, written) = mpsc::channel(PIECES_AHEAD);
    let read = unfold(written, async |mut written: mpsc::Receiver<_>| {
        written.recv().await.map(|piece| (piece, written))
    });
    (pieces, Body::from_stream(read))
}

/// Which bytes a request wants.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Range<u64>),
    /// Bytes that there are none of.
    Nothing,
}

/// RFC 9110, 14.2: what is no range of bytes, or several, is as good as none; so is one that is meant for another
/// version (`If-Range`).
fn wanted(headers: &HeaderMap, tag: &HeaderValue, length: u64) -> Wanted {
    let Some(range) = headers.get(header::RANGE) else {
        return Wanted::All;
    };
    if headers
        .get(header::IF_RANGE)
        .is_some_and(|only| only != tag)
    {
        return Wanted::All;
    }
    let range = range
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|text| text.trim().split_once('-')) else {
        return Wanted::All;
    };
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // One that is too large to be read is larger than any result.
        is_number.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Some(first), None) if last.is_empty() => first..length,
        (None, Some(count)) if first.is_empty() => length.saturating_sub(count)..length,
        _ => return Wanted::All,
    };
    match range.start < range.end {
        true => Wanted::Part(range),
        false => Wanted::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_read_and_all_else_is_none() {
        let tag = HeaderValue::from_static("\"a\"");
        let of = |range: &str| {
            let range = HeaderValue::try_from(range).unwrap();
            wanted(&HeaderMap::from_iter([(header::RANGE, range)]), &tag, 100)
        };
        assert_eq!(of("bytes=0-0"), Wanted::Part(0..1));
        assert_eq!(of("bytes=10-"), Wanted::Part(10..100));
        assert_eq!(of("bytes=90-1000"), Wanted::Part(90..100));
        assert_eq!(of("bytes=-30"), Wanted::Part(70..100));
        assert_eq!(of("bytes=-300"), Wanted::Part(0..100));
        for none in ["bytes=100-", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(of(none), Wanted::Nothing, "{none}");
        }
        for other in [
            "bytes=5-2",
            "bytes=0-1,3-4",
            "rows=1-2",
            "bytes=",
            "bytes=-",
            "bytes=+1-2",
        ] {
            assert_eq!(of(other), Wanted::All, "{other}");
        }
    }

    #[test]
    fn a_range_of_another_version_is_none() {
        let tag = HeaderValue::from_static("\"a\"");
        let of = |only: &'static str| {
            let headers = [
                (header::RANGE, HeaderValue::from_static("bytes=5-")),
                (header::IF_RANGE, HeaderValue::from_static(only)),
            ];
            wanted(&HeaderMap::from_iter(headers), &tag, 100)
        };
        assert_eq!(of("\"a\""), Wanted::Part(5..100));
        assert_eq!(of("\"b\""), Wanted::All);
    }
}
