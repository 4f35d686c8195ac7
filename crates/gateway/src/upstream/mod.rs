//! Connections to endpoints. Each belongs to one thread, in use and at rest.

mod connection;
mod driven;
mod http1;
mod http2;
mod lines;
mod outgoing;
mod pool;
mod socket;
mod tls;
mod upload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use http::uri::Scheme;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::circuit::{Circuit, Law};
use crate::error::Failure;
use crate::health::{Health, HealthLaw};
use crate::journal::Journal;
use crate::load::Load;

use socket::Transport;

pub(crate) use connection::{Connection, Received, Unanswered};
pub(crate) use driven::Switched;
pub(crate) use outgoing::{Fields, Outgoing};
pub(crate) use tls::{Terms, Tls, is_refusal, log_refusal, name_of};
pub(crate) use upload::{Progress, Upload};

/// Fields of the head of an answer of HTTP/1.1; hyper's default is 100. Each costs every answer a little.
pub(crate) const HEADERS_MAX: usize = 160;
/// Bytes of the head of an answer, and of what is read ahead of its body.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;

/// The version of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Protocol {
    #[default]
    Http1,
    /// From the first byte on.
    Http2,
}

/// How the endpoints of a service are spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    pub(crate) protocol: Protocol,
    pub(crate) tls: Option<Tls>,
}

/// Bounds of connections to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) idle_connections_max: usize,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// `host:port`, as in a URL.
    pub(crate) authority: String,
    /// Where that leads, unless it is to be looked up for each connection.
    pub(crate) address: Option<SocketAddr>,
}

impl Place {
    /// One that needs no looking up, or is looked up each time.
    pub(crate) fn named(authority: String) -> Self {
        Self {
            address: authority.parse().ok(),
            authority,
        }
    }
}

/// Names it alone among the servers of a service.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str(&self.authority),
        }
    }
}

/// A server that requests are passed on to.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Unlike that of any other in this process, so that connections at rest are never taken for those
    /// of another.
    id: u64,
    place: Place,
    host: HeaderValue,
    limits: Limits,
    manner: Manner,
    /// Whom it has to be, if it is called by TLS.
    name: Option<ServerName<'static>>,
    pub(crate) circuit: Arc<Circuit>,
    /// Where it is checked.
    pub(crate) health: Option<Health>,
    pub(crate) load: Arc<Load>,
    pub(crate) journal: Arc<Journal>,
}

impl Endpoint {
    pub(crate) fn new(
        place: Place,
        limits: Limits,
        manner: Manner,
        law: Law,
        health: Option<HealthLaw>,
        journal: Journal,
    ) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let journal = Arc::new(journal);
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            host: HeaderValue::from_str(&place.authority).expect("the host of a URL is ASCII"),
            name: name_of(&place.authority),
            place,
            limits,
            manner,
            circuit: Circuit::new(law, journal.clone()),
            health: health.map(|law| Health::new(law, journal.clone())),
            load: Arc::default(),
            journal,
        }
    }

    /// Whether it is the server at this place, treated so.
    pub(crate) fn is(
        &self,
        place: &Place,
        limits: Limits,
        manner: &Manner,
        law: Law,
        health: Option<&HealthLaw>,
    ) -> bool {
        let is_checked_so = self.health.as_ref().map(|health| &health.law) == health;
        let is_there = self.place == *place && self.limits == limits;
        is_there && self.manner == *manner && self.circuit.law() == law && is_checked_so
    }

    /// Unlike that of any other.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn authority(&self) -> &str {
        &self.place.authority
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.manner.protocol
    }

    fn scheme(&self) -> Scheme {
        match self.manner.tls {
            Some(_) => Scheme::HTTPS,
            None => Scheme::HTTP,
        }
    }

    /// Its `Host`.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// A connection to it, encrypted if it has to be. Nothing of a request has been sent.
    ///
    /// # Errors
    /// [`Failure::Refused`], [`Failure::ConnectTimeout`], [`Failure::Tls`].
    pub(crate) async fn connect(&self) -> Result<Transport, Failure> {
        let connecting = async {
            let connected = match self.place.address {
                Some(address) => TcpStream::connect(address).await,
                None => TcpStream::connect(&self.place.authority).await,
            };
            let stream = connected.map_err(|_| Failure::Refused)?;
            // Without it a request may wait for the acknowledgement of another; that is all.
            let _ = stream.set_nodelay(true);
            let Some(tls) = &self.manner.tls else {
                return Ok(Transport::Plain(stream));
            };
            // Names that none can have are found by the settings, or else by DNS.
            let name = self.name.as_ref().ok_or(Failure::Tls)?;
            let securing = tls.secure(stream, name, self.authority());
            let secured = Box::pin(securing).await?;
            Ok(Transport::Secured(Box::new(secured)))
        };
        let connected = tokio::time::timeout(self.limits.connect_timeout, connecting).await;
        connected.unwrap_or(Err(Failure::ConnectTimeout))
    }
}
