//! Answers without end, and connections that leave HTTP: they end when their credential is no longer in
//! force and when the server stops.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use auspex_kernel::policy::Access;
use auspex_kernel::service::StopSignal;
use auspex_kernel::{Authenticate, Clock, Verdict};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::Frame;

use super::{X_API_KEY, credentials};

/// How often it is asked whether the credential of a stream is still in force.
const REVIEW_PERIOD: Duration = Duration::from_secs(1);
/// What holds a credential.
const SHOWN_IN: [HeaderName; 2] = [X_API_KEY, header::AUTHORIZATION];

/// What a stream or another protocol was admitted with.
pub(super) struct Admission {
    /// `X-API-Key` and `Authorization`.
    shown: [Option<HeaderValue>; 2],
    peer: IpAddr,
    access: Access,
    identity: Arc<dyn Authenticate>,
    clock: Clock,
}

impl Admission {
    pub(super) fn new(
        headers: &HeaderMap,
        peer: IpAddr,
        access: Access,
        identity: Arc<dyn Authenticate>,
        clock: Clock,
    ) -> Self {
        Self {
            shown: SHOWN_IN.map(|name| headers.get(name).cloned()),
            peer,
            access,
            identity,
            clock,
        }
    }

    /// Ends when the credential is no longer in force, or may no longer do this.
    async fn ended(&self) {
        if self.access == Access::Public {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(REVIEW_PERIOD).await;
            if !self.holds().await {
                return;
            }
        }
    }

    async fn holds(&self) -> bool {
        let shown = SHOWN_IN.into_iter().zip(&self.shown);
        let shown = shown.filter_map(|(name, value)| Some((name, value.clone()?)));
        let shown = HeaderMap::from_iter(shown);
        let Ok(Some(credential)) = credentials::find(&shown) else {
            return false;
        };
        let known = match self.identity.authenticate(credential, self.clock.now()) {
            Verdict::Known(caller) => Ok(caller),
            Verdict::Refused => return false,
            Verdict::Unverified => {
                let verifying = self.identity.clone().verify(credential, self.peer);
                verifying.await
            }
        };
        match known {
            Ok(caller) => self.access.allows(caller.scopes),
            // It was valid before, and cannot be verified now because the server is busy.
            Err(error) => error.status() != StatusCode::UNAUTHORIZED,
        }
    }
}

/// In the extensions of an answer after which the connection leaves HTTP.
#[derive(Clone)]
pub(crate) struct Admitted(Arc<Admission>);

impl Admitted {
    pub(super) fn new(admission: Admission) -> Self {
        Self(Arc::new(admission))
    }

    /// Ends when the credential is no longer in force, or may no longer do this.
    pub(crate) async fn ended(&self) {
        self.0.ended().await;
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").finish_non_exhaustive()
    }
}

/// A body that ends when it has to.
pub(super) struct Ending {
    body: Body,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_over: bool,
}

impl Ending {
    pub(super) fn new(body: Body, admission: Admission, mut stop: StopSignal) -> Self {
        let end = async move {
            tokio::select! {
                () = admission.ended() => {}
                () = stop.stop_requested() => {}
            }
        };
        Self {
            body,
            end: Box::pin(end),
            is_over: false,
        }
    }
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.is_over && self.end.as_mut().poll(cx).is_ready() {
            self.is_over = true;
            // Dropping the body tells its producer that nobody reads it any more.
            self.body = Body::empty();
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use auspex_kernel::policy::{Answer, Policy};
    use axum::routing::get;
    use futures_util::StreamExt as _;
    use http::Request;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::edge::tests::{Revocable, edge, table_with};
    use crate::edge::{Edge, RouteTable};

    /// A stream whose second piece never comes.
    fn stream_table() -> RouteTable {
        let handler = get(async || {
            let one = futures_util::stream::iter([Ok::<_, std::io::Error>("one")]);
            Body::from_stream(one.chain(futures_util::stream::pending()))
        });
        let policy = Policy {
            answer: Answer::Stream,
            ..Policy::default()
        };
        table_with(handler, policy)
    }

    async fn open_stream(edge: &Edge) -> Body {
        edge.routes.store(Arc::new(stream_table()));
        let request = Request::get("/x")
            .header("host", "x")
            .header("x-api-key", "good");
        let request = request.body(Body::empty()).expect("valid");
        let mut body = edge
            .handle(request, Ipv4Addr::LOCALHOST.into())
            .await
            .into_body();
        let first = body.frame().await.expect("a frame").expect("no error");
        assert_eq!(first.into_data().expect("data"), "one");
        body
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_the_credential_is_no_longer_in_force() {
        let identity = Arc::new(Revocable::default());
        let edge = Edge {
            identity: identity.clone(),
            ..edge(None)
        };
        let mut body = open_stream(&edge).await;
        let waiting = tokio::time::timeout(Duration::from_secs(300), body.frame()).await;
        assert!(waiting.is_err(), "it goes on while the key is in force");
        identity.revoke();
        let end = tokio::time::timeout(Duration::from_secs(2), body.frame()).await;
        assert!(end.expect("soon").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_the_server_stops() {
        let (stop, signal) = StopSignal::new();
        let edge = Edge {
            stop: signal,
            ..edge(None)
        };
        let mut body = open_stream(&edge).await;
        stop.send_replace(true);
        let end = tokio::time::timeout(Duration::from_secs(2), body.frame()).await;
        assert!(end.expect("at once").is_none());
    }
}
