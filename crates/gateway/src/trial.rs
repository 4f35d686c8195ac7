//! One request at one endpoint: begun when the endpoint was chosen, and told of to its circuit and its load when
//! it is known how it ended. Dropped before that, because the client has left, it says nothing of the endpoint.

use std::sync::Arc;

use auspex_kernel::clock::{Clock, Steady};
use auspex_kernel::random::per_thread;
use http::StatusCode;

use crate::circuit::{Outcome, Permit, State};
use crate::error::Failure;
use crate::gate::Chosen;
use crate::load::InHand;
use crate::upstream::Endpoint;

/// A request that is at an endpoint.
pub(crate) struct Trial<'s> {
    pub(crate) endpoint: Arc<Endpoint>,
    permit: Permit,
    in_hand: InHand,
    clock: &'s Clock,
    begun: Steady,
}

impl<'s> Trial<'s> {
    pub(crate) fn begin(chosen: Chosen, clock: &'s Clock, begun: Steady) -> Self {
        Self {
            in_hand: chosen.in_hand,
            endpoint: chosen.endpoint,
            permit: chosen.permit,
            clock,
            begun,
        }
    }

    /// It ended without an answer.
    pub(crate) fn end(self, failure: Failure) -> Failure {
        self.tell(failure.outcome(), failure.reason());
        failure
    }

    /// An answer has begun. It counts as work of the endpoint until it is read.
    pub(crate) fn answered(self, status: StatusCode) -> InHand {
        match status.is_server_error() {
            true => self.tell(Outcome::Failure, status.as_str()),
            false => self.tell(Outcome::Success, ""),
        }
    }

    fn tell(self, outcome: Outcome, cause: &str) -> InHand {
        let now = self.clock.steady();
        let load = &self.endpoint.load;
        if outcome != Outcome::Neutral {
            load.tell(now.since(self.begun), outcome.is_failure(), now);
        }
        if let Some(State::Closed) = self.permit.tell(outcome, cause, now, chance()) {
            load.forget();
        }
        self.in_hand
    }
}

/// A random number from [0, 1).
pub(crate) fn chance() -> f64 {
    // The upper bits are a float below 1.
    (per_thread() >> 11) as f64 / (1_u64 << 53) as f64
}
