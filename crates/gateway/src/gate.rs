//! Whether an endpoint may be asked: one gate for its health, its room and its circuit, so that whoever
//! chooses and whoever looks see the same.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::clock::Steady;

use crate::circuit::{Permit, State, Verdict};
use crate::health::Health;
use crate::load::InHand;
use crate::upstream::Endpoint;

/// An endpoint that a request may be sent to.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) permit: Permit,
    pub(crate) in_hand: InHand,
}

/// What the gate says of the next request.
#[derive(Debug)]
pub(crate) enum Admission {
    Chosen(Chosen),
    /// It has as many requests in hand as it may.
    Full,
    /// Its checks have it left alone.
    Unhealthy,
    /// Its circuit has, for so long at most.
    Open(Duration),
}

/// Why an endpoint is asked or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Asked,
    /// Its circuit is open.
    Open {
        until: Steady,
    },
    /// One request tries it, and after so long another one.
    HalfOpen {
        until: Steady,
    },
    /// Its checks fail, and will for so long at least.
    Unhealthy {
        wait: Duration,
    },
}

impl Endpoint {
    pub(crate) fn standing(&self) -> Standing {
        if let Some(health) = self.health.as_ref().filter(|health| health.is_down()) {
            let wait = health.recovery();
            return Standing::Unhealthy { wait };
        }
        match self.circuit.state() {
            State::Closed => Standing::Asked,
            State::Open { until } => Standing::Open { until },
            State::HalfOpen { until } => Standing::HalfOpen { until },
        }
    }

    /// Lets one more request through, if it has fewer than `requests_max`.
    pub(crate) fn admit(self: &Arc<Self>, now: Steady, requests_max: u32) -> Admission {
        if self.health.as_ref().is_some_and(Health::is_down) {
            return Admission::Unhealthy;
        }
        let Some(in_hand) = self.load.begin(requests_max) else {
            return Admission::Full;
        };
        match self.circuit.admit(now) {
            Verdict::Refuse(wait) => Admission::Open(wait),
            Verdict::Pass(permit) => Admission::Chosen(Chosen {
                endpoint: self.clone(),
                permit,
                in_hand,
            }),
        }
    }
}
