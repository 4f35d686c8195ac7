//! Who may send the requests of a route, and how the edge treats them.
//!
//! A service declares a [`Policy`] next to its router where the usual one does not fit. It is code and
//! not a part of the OpenAPI document, which clients read.

use std::time::Duration;

use axum::response::Response;

use crate::caller::{Scope, ScopeSet};
use crate::error::ApiError;
use crate::quota::RateLimit;
use crate::request_id::RequestId;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// Callers that have all of these scopes; without scopes everybody who is logged in.
    Scopes(ScopeSet),
}

impl Access {
    /// Whether a caller with these scopes may call.
    pub fn allows(self, scopes: ScopeSet) -> bool {
        self.lacking(scopes).is_none()
    }

    /// The first scope that a caller with these scopes lacks.
    pub fn lacking(self, scopes: ScopeSet) -> Option<Scope> {
        match self {
            Access::Public => None,
            Access::Scopes(needed) => needed.iter().find(|scope| !scopes.contains(*scope)),
        }
    }
}

/// What is special about a route. The default is what nearly all routes have.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Where its handler runs.
    pub runs: Runs,
    /// What its answer is.
    pub answer: Answer,
    /// Whether its body goes on to somebody else as it comes. Then it is not counted against the
    /// memory for bodies, and has neither a limit nor a deadline but those set here.
    pub streams_body: bool,
    /// The longest body; `None`: `server.body_bytes_max`, and at most 64 KiB on a public route.
    pub body_bytes_max: Option<usize>,
    /// How long a body may take to arrive; `None`: `server.body_timeout_ms`.
    pub body_timeout: Option<Duration>,
    /// From the head of the request to that of the answer; `None`: `server.request_timeout_ms`. A
    /// connection on which nothing moves is closed after the server's two timeouts together, so a
    /// longer one has no effect. `Duration::MAX`: the handler sees to it.
    pub request_timeout: Option<Duration>,
    /// Its own count of each caller's requests in place of `server.rate_limit`.
    pub caller_limit: Option<RateLimit>,
    /// Its own count of anonymous and refused requests per address, in place of
    /// `server.address_limit`.
    pub address_limit: Option<RateLimit>,
    /// Whether limits of callers and addresses apply. An orchestrator would restart the program if
    /// its probes were refused. Only a public route may be without limits.
    pub is_limited: bool,
    /// Whether it is answered only under host names of this server: for pages, which would else be
    /// shown under any name that somebody makes lead here. The default leaves it to the credential.
    pub needs_own_host: bool,
    /// Whether pages of the origins that OAuth clients run at may call it and read its answers, without
    /// being named in `server.cors`. They send a token or nothing, so its handler must not go by
    /// cookies.
    pub is_for_clients: bool,
    /// The form of its errors, those of the edge included.
    pub render_error: RenderError,
}

/// Makes an answer of an error. [`ApiError::render`], the envelope, is one.
pub type RenderError = fn(&ApiError, &RequestId) -> Response;

/// Where a handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// As a task on the control runtime, to its end even if the client leaves. It may use the
    /// database.
    OnControl,
    /// On the thread of the connection: for short work in memory. It must neither block nor use the
    /// database, and is dropped when the client leaves.
    Inline,
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It comes to an end by itself.
    Whole,
    /// It may go on without end. The edge ends it when the credential of the request is no longer
    /// in force and when the server stops. A connection on which nothing moves is closed after a
    /// while, so send something at least every half minute.
    Stream,
    /// That of another server, with its own headers. It is a stream if that server says that it
    /// sends events. A client that closes its side of the connection has left, and so ends the request.
    /// As with `Upgrade` the connection may be handed over.
    PassedOn,
    /// As a stream. And the request may ask for another protocol (RFC 9110, 7.8): its extensions hold
    /// hyper's `OnUpgrade`, and after an answer of 101 the connection is the handler's. When it has to
    /// end, its reads and writes fail. HTTP/2 has no such thing.
    Upgrade,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            runs: Runs::OnControl,
            answer: Answer::Whole,
            streams_body: false,
            body_bytes_max: None,
            body_timeout: None,
            request_timeout: None,
            caller_limit: None,
            address_limit: None,
            is_limited: true,
            needs_own_host: false,
            is_for_clients: false,
            render_error: ApiError::render,
        }
    }
}
