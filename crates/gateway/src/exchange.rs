//! A request at its service: asked of one endpoint after the other until one takes a connection, and once more
//! after a failure that may pass, until there is an answer or nothing to hope for.
//!
//! Between two tries it holds no place at any endpoint.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::clock::{Clock, Steady};
use auspex_kernel::random::per_thread;
use axum::body::Body;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};

use crate::balance::Service;
use crate::error::Failure;
use crate::gate::Chosen;
use crate::load::InHand;
use crate::patience::Patience;
use crate::proxy::Proxy;
use crate::retry::{Occasion, Retries, is_passing, is_repeatable, stated_wait};
use crate::trial::{Trial, chance};
use crate::upstream::{
    Connection, Endpoint, Progress, Protocol, Received, Unanswered, Upload, log_refusal,
};
use crate::websocket;

/// Endpoints that are asked for a connection in one try. Where many are away their circuits end it before long.
const CONNECTS_MAX: usize = 64;
/// Endpoints that take a connection and say that they have done nothing, in one try. Their circuits stay closed, and
/// where all are overloaded each request would go to all of them.
const UNPROCESSED_MAX: usize = 3;

/// One request and all that is tried for it.
pub(crate) struct Exchange<'p> {
    proxy: &'p Proxy,
    service: &'p Service,
    clock: &'p Clock,
    parts: Parts,
    /// What is to be sent; `None`: it has been.
    body: Option<Body>,
    /// How far the body is that was sent last; `None`: it is empty.
    progress: Option<Arc<Progress>>,
    patience: Patience,
    retries: Retries<'p>,
    is_repeatable: bool,
    /// Of the value that decides where it goes.
    key: Option<u64>,
    /// What the service is shown of who calls.
    authorization: Option<HeaderValue>,
    /// Endpoints where it failed: any other comes first.
    failed: Vec<u64>,
    /// The last try failed on a connection that had been at rest.
    is_stale: bool,
}

/// The answer of an endpoint, of which the head is there.
pub(crate) struct Answer {
    pub(crate) response: Response<Received>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) in_hand: Option<InHand>,
    /// The `Host` that the service was called by, where that is not its own.
    pub(crate) host: Option<HeaderValue>,
}

impl<'p> Exchange<'p> {
    pub(crate) fn new(
        proxy: &'p Proxy,
        service: &'p Service,
        clock: &'p Clock,
        (parts, body): (Parts, Body),
        patience: Patience,
    ) -> Self {
        Self {
            is_repeatable: is_repeatable(&parts.method, &parts.headers),
            key: proxy.key_of(&parts),
            authorization: None,
            retries: Retries::new(service.plan.retry, &service.counts.budget),
            proxy,
            service,
            clock,
            parts,
            body: Some(body),
            progress: None,
            patience,
            failed: Vec::new(),
            is_stale: false,
        }
    }

    /// What came of it, and after how many retries.
    pub(crate) async fn run(&mut self) -> (Result<Answer, Failure>, u32) {
        match self.proxy.authorization(self.service, &self.parts).await {
            Ok(value) => self.authorization = value,
            Err(failure) => return (Err(failure), 0),
        }
        // What came of the last try that was sent.
        let mut sent = None;
        loop {
            let end = self.attempt().await;
            let wait = self.wait_after(&end);
            let mut end = match (&end, sent) {
                (Err(failure), Some(sent)) if !failure.was_sent() => sent,
                _ => end,
            };
            let Some(wait) = wait else {
                return (end, self.retries.made());
            };
            if let Ok(answer) = &mut end {
                answer.in_hand = None;
            }
            sent = was_sent(&end).then_some(end);
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// How long until the next try; `None`: there is none.
    fn wait_after(&mut self, end: &Result<Answer, Failure>) -> Option<Duration> {
        let may_pass = match end {
            Ok(answer) => is_passing(answer.response.status()),
            Err(failure) => failure.may_pass(),
        };
        let is_safe = self.is_repeatable || !was_sent(end);
        if !may_pass || !is_safe || !self.retries.are_left() || !self.rewind() {
            return None;
        }
        let now = self.clock.steady();
        if self.service.refuses(now) {
            return None;
        }
        let headers = end.as_ref().ok().map(|answer| answer.response.headers());
        self.retries.next(Occasion {
            now,
            left: self.patience.left(),
            stated: headers.and_then(|headers| stated_wait(headers, self.clock.now())),
            is_stale: self.is_stale,
            chance: chance(),
        })
    }

    /// Whether the body can be sent once more.
    fn rewind(&mut self) -> bool {
        if self.body.is_none() {
            self.body = match self.progress.take() {
                None => Some(Body::empty()),
                Some(progress) => progress.whole().map(Body::from),
            };
        }
        self.body.is_some()
    }

    /// One try. As long as nothing has been sent any other endpoint will do.
    async fn attempt(&mut self) -> Result<Answer, Failure> {
        self.is_stale = false;
        let mut refused = None;
        let mut unprocessed = 0;
        for _ in 0..CONNECTS_MAX {
            let now = self.clock.steady();
            let chosen = self.choose(now, refused.is_none());
            let chosen = chosen.map_err(|none| refused.unwrap_or(none))?;
            let trial = Trial::begin(chosen, self.clock, now);
            let id = trial.endpoint.id();
            let end = self.ask(trial).await;
            match &end {
                Ok(answer) if !is_passing(answer.response.status()) => return end,
                _ => self.failed.push(id),
            }
            unprocessed += usize::from(matches!(end, Err(Failure::Unprocessed)));
            match end {
                Err(failure)
                    if !failure.was_sent()
                        && unprocessed < UNPROCESSED_MAX
                        && !self.patience.left().is_zero()
                        && self.rewind() =>
                {
                    refused = Some(failure);
                }
                _ => return end,
            }
        }
        Err(refused.unwrap_or(Failure::Refused))
    }

    fn choose(&self, now: Steady, is_first: bool) -> Result<Chosen, Failure> {
        let choose = |tried: &[u64]| self.service.choose(now, per_thread(), self.key, tried);
        let other = choose(&self.failed);
        match other.is_err() && is_first && !self.failed.is_empty() {
            // One that failed before is better than none.
            true => choose(&[]),
            false => other,
        }
    }

    async fn ask(&mut self, trial: Trial<'_>) -> Result<Answer, Failure> {
        loop {
            let connecting = match Connection::at_rest(&trial.endpoint) {
                Some(resting) => Ok(Ok(resting)),
                None => {
                    let connecting = Box::pin(Connection::to(&trial.endpoint));
                    self.patience.wait(connecting).await
                }
            };
            let connection = match connecting {
                Ok(Ok(connection)) => connection,
                Ok(Err(failure)) => return Err(trial.end(failure)),
                Err(Failure::Timeout) => return Err(trial.end(Failure::ConnectTimeout)),
                Err(late) => return Err(trial.end(late)),
            };
            let is_reused = connection.is_reused();
            match self.send(&trial.endpoint, connection).await {
                // Nobody asked for that protocol.
                Ok(response)
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS
                        && !(websocket::is_asked(&self.parts)
                            && websocket::is_chosen(response.headers())) =>
                {
                    return Err(trial.end(Failure::Invalid));
                }
                Ok(response) => {
                    return Ok(Answer {
                        endpoint: trial.endpoint.clone(),
                        in_hand: Some(trial.answered(response.status())),
                        host: self.proxy.kept_host(&self.parts),
                        response,
                    });
                }
                Err(Unanswered::Failed(failure)) => {
                    if failure == Failure::Tls {
                        log_refusal(trial.endpoint.authority());
                    }
                    self.is_stale = is_reused;
                    return Err(trial.end(failure));
                }
                Err(Unanswered::Unsent(upload)) => {
                    self.body = Some(upload.into_body());
                    if !is_reused {
                        return Err(trial.end(Failure::Refused));
                    }
                }
            }
        }
    }

    async fn send(
        &mut self,
        endpoint: &Endpoint,
        connection: Connection,
    ) -> Result<Response<Received>, Unanswered> {
        let body = self.body.take().expect("what is sent again was kept");
        let is_http2 = endpoint.protocol() == Protocol::Http2;
        // What a service of HTTP/2 says that it has not processed is repeatable too.
        let is_kept = (self.is_repeatable || is_http2) && self.retries.are_left();
        let (upload, progress) = Upload::new(body, is_kept, is_http2);
        let request = self.proxy.request_for(
            endpoint,
            &self.parts,
            upload,
            &self.patience,
            self.authorization.as_ref(),
        );
        let mut sending = pin!(connection.send(Box::new(request)));
        let sent = loop {
            match self.patience.wait(sending.as_mut()).await {
                Ok(sent) => break sent,
                Err(late) => {
                    let since = progress.as_ref().map(|progress| progress.waits_since());
                    if !since.is_some_and(|since| self.patience.renew(since)) {
                        break Err(Unanswered::Failed(late));
                    }
                }
            }
        };
        self.progress = progress;
        match (sent, &self.progress) {
            (Err(Unanswered::Failed(_)), Some(progress)) if progress.has_failed() => {
                Err(Unanswered::Failed(Failure::Body))
            }
            (sent, _) => sent,
        }
    }
}

fn was_sent(end: &Result<Answer, Failure>) -> bool {
    match end {
        Ok(_) => true,
        Err(failure) => failure.was_sent(),
    }
}
