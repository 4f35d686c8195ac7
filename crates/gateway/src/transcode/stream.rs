//! Answers of several messages: a line of JSON for each, an event for each, or their bytes one after the other.

use std::io;

use auspex_kernel::http::accepts;
use auspex_kernel::{ApiError, RequestId};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::unfold;
use http::{HeaderMap, HeaderValue, header};

use super::api::{Binding, Shape};
use super::calls::{Messages, Trouble};
use super::output::{self, Shown};
use super::{FIRST_WAIT, Transcoded};
use crate::patience::Patience;

/// How messages stand one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Lines,
    Events,
    Raw,
}

/// An answer on its way.
struct Going {
    messages: Messages,
    first: Option<Result<Option<Bytes>, Trouble>>,
    shape: Shape,
    form: Form,
    service: String,
    id: Option<RequestId>,
    is_over: bool,
}

impl Form {
    /// What a client wants.
    pub(super) fn of(headers: &HeaderMap, shape: &Shape) -> Self {
        let wants_events = accepts(headers, "text/event-stream");
        match (shape.is_raw(), wants_events) {
            (true, _) => Form::Raw,
            (false, true) => Form::Events,
            (false, false) => Form::Lines,
        }
    }
}

/// A content type that a service says.
pub(super) fn kind_of(content_type: &str) -> HeaderValue {
    let usual = HeaderValue::from_static("application/octet-stream");
    match content_type {
        "" => usual,
        text => HeaderValue::try_from(text).unwrap_or(usual),
    }
}

impl Transcoded {
    pub(super) async fn stream(
        &self,
        (headers, mut messages): (HeaderMap, Messages),
        binding: &Binding,
        patience: Patience,
        form: Form,
        id: Option<RequestId>,
    ) -> Result<Response, ApiError> {
        let service = &self.proxy.service().plan.name;
        // Only its first message says of a raw answer what it is.
        let wait = match form {
            Form::Raw => patience.left(),
            Form::Lines | Form::Events => patience.left().min(FIRST_WAIT),
        };
        let first = tokio::time::timeout(wait, messages.next()).await.ok();
        let kind = match (&first, form) {
            (Some(Err(trouble)), _) => return Err(trouble.answer(service)),
            (Some(Ok(Some(message))), Form::Raw) => {
                match output::read(&binding.shape, message.clone()) {
                    Ok(Shown::Raw { content_type, .. }) => kind_of(&content_type),
                    _ => return Err(Trouble::Invalid.answer(service)),
                }
            }
            (_, Form::Raw) => kind_of(""),
            (_, Form::Lines) => HeaderValue::from_static("application/x-ndjson"),
            (_, Form::Events) => HeaderValue::from_static("text/event-stream"),
        };
        let going = Going {
            messages,
            first,
            shape: binding.shape.clone(),
            form,
            service: service.clone(),
            id,
            is_over: false,
        };
        let mut response = Response::new(Body::from_stream(unfold(going, Going::next)));
        *response.headers_mut() = headers;
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(response)
    }
}

impl Going {
    /// What the next message is for the client.
    async fn next(mut self) -> Option<(Result<Bytes, io::Error>, Self)> {
        if self.is_over {
            return None;
        }
        let message = match self.first.take() {
            Some(first) => first,
            None => self.messages.next().await,
        };
        let piece = match message {
            Ok(None) => return None,
            Ok(Some(message)) => self.piece(message).ok_or(Trouble::Invalid),
            Err(trouble) => Err(trouble),
        };
        let piece = piece.or_else(|trouble| {
            self.is_over = true;
            self.last_words(&trouble)
        });
        Some((piece, self))
    }

    fn piece(&self, message: Bytes) -> Option<Bytes> {
        match (output::read(&self.shape, message).ok()?, self.form) {
            (Shown::Json(mut json), Form::Lines) => {
                json.push(b'\n');
                Some(json.into())
            }
            (Shown::Json(json), Form::Events) => {
                Some([b"data: ", &json[..], b"\n\n"].concat().into())
            }
            (Shown::Raw { data, .. }, Form::Raw) => Some(data),
            _ => None,
        }
    }

    /// How an answer ends that fails. One that cannot say it breaks off.
    fn last_words(&self, trouble: &Trouble) -> Result<Bytes, io::Error> {
        let error = trouble.answer(&self.service);
        let id = self
            .id
            .as_ref()
            .filter(|_| matches!(trouble, Trouble::Failed(_)));
        let json = id.and_then(|id| serde_json::to_vec(&error.envelope(id)).ok());
        match (json, self.form) {
            (Some(json), Form::Lines) => Ok([&json[..], b"\n"].concat().into()),
            (Some(json), Form::Events) => Ok([b"event: error\ndata: ", &json[..], b"\n\n"]
                .concat()
                .into()),
            _ => Err(io::Error::other(error.message().to_owned())),
        }
    }
}
