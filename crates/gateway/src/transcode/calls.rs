//! The messages of an answer of gRPC, as they come, and how it ends.

use auspex_kernel::ApiError;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;

use super::frame::{Frames, Unframed};
use super::status::{self, Status};
use crate::error::Failure;

/// The messages of one answer.
pub(super) struct Messages {
    body: Body,
    frames: Frames,
    end: Option<Result<(), Status>>,
}

/// Why there is no message more.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The service says so.
    Failed(Status),
    /// What it sent is no answer of gRPC.
    Invalid,
    TooLong,
    CutOff,
}

impl Messages {
    /// # Errors
    /// [`Trouble`]: the head says that there will be none.
    pub(super) fn of(answer: Response, bytes_max: usize) -> Result<(HeaderMap, Self), Trouble> {
        let (mut head, body) = answer.into_parts();
        let kind = head
            .headers
            .get(header::CONTENT_TYPE)
            .map(HeaderValue::as_bytes);
        let is_grpc = kind.is_some_and(|kind| kind.starts_with(b"application/grpc"));
        let end = status::of(&head.headers);
        if let Some(Err(status)) = end {
            return Err(Trouble::Failed(status));
        }
        if head.status != StatusCode::OK || !is_grpc {
            return Err(Trouble::Invalid);
        }
        strip(&mut head.headers);
        let frames = Frames::new(bytes_max);
        Ok((head.headers, Self { body, frames, end }))
    }

    /// The next message; `None`: the call has succeeded. Whoever stops waiting has lost nothing.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            if let Some(message) = self.frames.next()? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                self.frames.end()?;
                return match self.end.take() {
                    Some(Ok(())) => Ok(None),
                    Some(Err(status)) => Err(Trouble::Failed(status)),
                    None => Err(Trouble::CutOff),
                };
            };
            let frame = frame.map_err(|_| Trouble::CutOff)?;
            match frame.into_data() {
                Ok(piece) => self.frames.push(&piece),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    self.end = status::of(&trailers);
                }
            }
        }
    }

    /// The only message.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) async fn only(&mut self) -> Result<Bytes, Trouble> {
        let message = self.next().await?.ok_or(Trouble::Invalid)?;
        match self.next().await? {
            None => Ok(message),
            Some(_) => Err(Trouble::Invalid),
        }
    }
}

/// Takes off what is of gRPC.
fn strip(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_TYPE);
    headers.remove(header::CONTENT_LENGTH);
    let names: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("grpc-"))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

impl From<Unframed> for Trouble {
    fn from(unframed: Unframed) -> Self {
        match unframed {
            Unframed::Compressed => Trouble::Invalid,
            Unframed::TooLong => Trouble::TooLong,
            Unframed::CutOff => Trouble::CutOff,
        }
    }
}

impl Trouble {
    /// The answer to the client.
    pub(super) fn answer(&self, service: &str) -> ApiError {
        let (reason, what) = match self {
            Trouble::Failed(status) => return status.answer(service),
            Trouble::CutOff => return Failure::CutOff.answer(service),
            Trouble::Invalid => ("invalid", "is no answer of gRPC that its descriptors allow"),
            Trouble::TooLong => ("too_long", "is longer than 4 MiB"),
        };
        let message = format!("what the service {service} sent {what}");
        ApiError::new(StatusCode::BAD_GATEWAY, "BAD_GATEWAY", message).with_detail("reason", reason)
    }
}
