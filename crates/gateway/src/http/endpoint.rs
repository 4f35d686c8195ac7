//! One endpoint as everybody who looks sees it.

use auspex_kernel::clock::Steady;
use serde::Serialize;
use utoipa::ToSchema;

use super::Desk;
use crate::balance::Service;
use crate::circuit::State;
use crate::gate::Standing;
use crate::journal::{Change, What};
use crate::upstream::Endpoint;

/// A server that does what a service does.
#[derive(Serialize, ToSchema)]
#[schema(as = GatewayEndpoint)]
pub(super) struct EndpointView {
    #[schema(example = "http://127.0.0.1:9001")]
    url: String,
    health: HealthView,
    /// What its health checks say; null if it is not checked
    check: Option<CheckView>,
    circuit: CircuitView,
    /// When one request is let through to try it; null unless the circuit is open
    #[schema(format = DateTime)]
    open_until: Option<String>,
    /// Requests that it has not answered, or whose answers are being read
    in_hand: u32,
    /// Within the last `circuit_breaker.window_s`
    requests: u64,
    /// Of these, those that failed
    failures: u64,
    /// How long an answer is believed to take: what was slow lately counts most, and a failure as four times as long, or as up to 5 seconds after several
    expected_latency_ms: f64,
    /// The last changes of its circuit and its health, newest first, 20 at most
    changes: Vec<ChangeView>,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[schema(as = EndpointHealth)]
#[serde(rename_all = "lowercase")]
enum HealthView {
    /// It gets requests
    Healthy,
    /// It failed, or its checks did, and is left alone
    Unhealthy,
    /// One request tries it
    Probing,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[schema(as = CircuitState)]
#[serde(rename_all = "snake_case")]
enum CircuitView {
    /// It is asked
    Closed,
    /// It is left alone
    Open,
    /// One request tries it
    HalfOpen,
}

/// What the health checks of an endpoint say.
#[derive(Serialize, ToSchema)]
#[schema(as = EndpointCheck)]
struct CheckView {
    /// Whether it gets requests, as far as they say
    is_healthy: bool,
    /// When the last one ended; null if there was none
    #[schema(format = DateTime)]
    at: Option<String>,
    /// Why that failed: a status, or a reason such as `timeout`; null if it did not
    #[schema(example = "503")]
    failure: Option<String>,
}

/// A circuit has gone from one state to another, or checks say the opposite of before.
#[derive(Serialize, ToSchema)]
#[schema(as = EndpointChange)]
pub(super) struct ChangeView {
    #[schema(format = DateTime)]
    at: String,
    kind: ChangeKind,
    from: StateView,
    to: StateView,
    /// Until when a circuit is open; null otherwise
    #[schema(format = DateTime)]
    open_until: Option<String>,
    /// For people
    #[schema(example = "5 failures in a row, the last: timeout")]
    cause: String,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[schema(as = EndpointChangeKind)]
#[serde(rename_all = "lowercase")]
enum ChangeKind {
    Circuit,
    Health,
}

/// Of a circuit the first three, of health the last two
#[derive(Clone, Copy, Serialize, ToSchema)]
#[schema(as = EndpointState)]
#[serde(rename_all = "snake_case")]
enum StateView {
    Closed,
    Open,
    HalfOpen,
    Healthy,
    Unhealthy,
}

impl From<State> for CircuitView {
    fn from(state: State) -> Self {
        match state {
            State::Closed => Self::Closed,
            State::Open { .. } => Self::Open,
            State::HalfOpen { .. } => Self::HalfOpen,
        }
    }
}

impl From<State> for StateView {
    fn from(state: State) -> Self {
        match state {
            State::Closed => Self::Closed,
            State::Open { .. } => Self::Open,
            State::HalfOpen { .. } => Self::HalfOpen,
        }
    }
}

impl From<bool> for StateView {
    fn from(is_healthy: bool) -> Self {
        match is_healthy {
            true => Self::Healthy,
            false => Self::Unhealthy,
        }
    }
}

/// One moment on the two clocks, to tell the date of others.
#[derive(Clone, Copy)]
pub(super) struct Dates {
    now: auspex_kernel::Timestamp,
    steady: Steady,
}

impl Desk {
    pub(super) fn dates(&self) -> Dates {
        Dates {
            now: self.clock.now(),
            steady: self.clock.steady(),
        }
    }
}

impl Dates {
    fn of(self, moment: Steady) -> String {
        let date = self.now - self.steady.since(moment) + moment.since(self.steady);
        date.to_rfc3339()
    }

    fn open_until(self, state: State) -> Option<String> {
        match state {
            State::Open { until } => Some(self.of(until)),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }
}

impl EndpointView {
    pub(super) fn new(service: &Service, endpoint: &Endpoint, dates: Dates) -> Self {
        let state = endpoint.circuit.state();
        let (requests, failures) = endpoint.circuit.counts(dates.steady);
        let changes = endpoint.journal.changes().into_iter().rev();
        let check = endpoint.health.as_ref().map(|health| {
            let last = health.last();
            CheckView {
                is_healthy: !health.is_down(),
                at: last.as_ref().map(|last| dates.of(last.at)),
                failure: last.and_then(|last| last.failure),
            }
        });
        Self {
            url: url(Some(service), &endpoint.place().to_string()),
            health: match endpoint.standing() {
                Standing::Asked => HealthView::Healthy,
                Standing::Open { .. } | Standing::Unhealthy { .. } => HealthView::Unhealthy,
                Standing::HalfOpen { .. } => HealthView::Probing,
            },
            check,
            circuit: state.into(),
            open_until: dates.open_until(state),
            in_hand: endpoint.load.in_hand(),
            requests,
            failures,
            expected_latency_ms: endpoint.load.latency(dates.steady).as_secs_f64() * 1e3,
            changes: changes
                .map(|change| ChangeView::new(change, dates))
                .collect(),
        }
    }
}

impl ChangeView {
    pub(super) fn new(change: Change, dates: Dates) -> Self {
        let (kind, from, to, open_until) = match change.what {
            What::Circuit { from, to } => {
                let until = dates.open_until(to);
                (ChangeKind::Circuit, from.into(), to.into(), until)
            }
            What::Health { is_healthy } => {
                let (from, to) = (!is_healthy, is_healthy);
                (ChangeKind::Health, from.into(), to.into(), None)
            }
        };
        Self {
            at: dates.of(change.at),
            kind,
            from,
            to,
            open_until,
            cause: change.cause,
        }
    }

    /// The name of its event.
    pub(super) fn event(&self) -> &'static str {
        match self.kind {
            ChangeKind::Circuit => "circuit",
            ChangeKind::Health => "health",
        }
    }
}

/// Of an endpoint at `host:port`.
pub(super) fn url(service: Option<&Service>, authority: &str) -> String {
    let scheme = service.map_or("http", |service| service.plan.scheme());
    format!("{scheme}://{authority}")
}
