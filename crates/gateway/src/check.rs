//! What is found out of endpoints beside requests: by health checks, where the settings say so, and whether one that
//! took no connection takes them again. One that does not answer holds up no other: each check has its own bound, and
//! those that wait longest go first.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::Clock;
use auspex_kernel::clock::Steady;
use auspex_kernel::service::StopSignal;
use axum::body::Body;
use http::{HeaderValue, Method, header};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::error::Failure;
use crate::health::{Health, HealthLaw};
use crate::live::Live;
use crate::trial::chance;
use crate::upstream::{Connection, Endpoint, Outgoing, Protocol, Unanswered, Upload};

const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// At once, of all services.
const CHECKS_MAX: usize = 512;
const CONNECTS_MAX: usize = 64;
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!(
    "auspex/",
    env!("CARGO_PKG_VERSION"),
    " health check"
));

/// Checks what is due, until a stop is requested. It has a thread for itself, for connections belong to one.
pub(crate) async fn watch(live: Arc<Live>, clock: Clock, stop: StopSignal) {
    let watching = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(watch_here(&live, &clock, stop)),
            Err(error) => tracing::error!(%error, "health checks cannot be made"),
        }
    });
    if let Err(error) = watching.await
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

async fn watch_here(live: &Live, clock: &Clock, mut stop: StopSignal) {
    let mut looks = tokio::time::interval(LOOK_PAUSE);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut checks, mut connects) = (JoinSet::new(), JoinSet::new());
    loop {
        tokio::select! {
            biased;
            () = stop.stop_requested() => return,
            _ = looks.tick() => {}
        }
        while checks.try_join_next().is_some() {}
        let now = clock.steady();
        let mut due = due(live, now);
        due.sort_unstable_by_key(|(since, _)| *since);
        due.truncate(CHECKS_MAX - checks.len());
        for (_, endpoint) in due {
            checks.spawn(check(endpoint, clock.clone()));
        }
        while connects.try_join_next().is_some() {}
        let mut due = unreachable(live, now);
        due.sort_unstable_by_key(|(since, _)| *since);
        due.truncate(CONNECTS_MAX - connects.len());
        for (_, endpoint) in due {
            endpoint.circuit.begin_look(now);
            connects.spawn(connect(endpoint, clock.clone()));
        }
    }
}

/// Endpoints to be checked now, and since when.
fn due(live: &Live, now: Steady) -> Vec<(Steady, Arc<Endpoint>)> {
    let gateway = live.now();
    let services = gateway.services.values();
    let checked = services.filter(|service| service.plan.health.is_some());
    let endpoints = checked.flat_map(|service| service.endpoints());
    let due = endpoints.filter_map(|endpoint| {
        let since = endpoint.health.as_ref()?.due_since(now, chance())?;
        Some((since, endpoint))
    });
    due.collect()
}

/// Endpoints that took no connection and are to be looked at now, and since when.
fn unreachable(live: &Live, now: Steady) -> Vec<(Steady, Arc<Endpoint>)> {
    let gateway = live.now();
    let endpoints = gateway.services.values();
    let endpoints = endpoints.flat_map(|service| service.endpoints());
    let due = endpoints.filter_map(|endpoint| {
        let since = endpoint.circuit.look_due_since(now)?;
        Some((since, endpoint))
    });
    due.collect()
}

async fn connect(endpoint: Arc<Endpoint>, clock: Clock) {
    if endpoint.connect().await.is_ok() {
        endpoint.circuit.takes_connections(clock.steady());
    }
}

async fn check(endpoint: Arc<Endpoint>, clock: Clock) {
    let Some(health) = &endpoint.health else {
        return;
    };
    let running = health.begin(clock.steady(), chance());
    let asking = tokio::time::timeout(health.law.timeout, ask(&endpoint, health));
    let failure = match asking.await {
        Ok(Ok(status)) if status.is_success() => None,
        Ok(Ok(status)) => Some(status.as_str().to_owned()),
        Ok(Err(failure)) => Some(failure.reason().to_owned()),
        Err(_) => Some(Failure::Timeout.reason().to_owned()),
    };
    running.tell(failure.as_deref(), clock.steady());
}

/// The status of its answer. A connection of HTTP/1.1 is not used again: that the endpoint takes new ones is a part of
/// the question.
async fn ask(endpoint: &Arc<Endpoint>, health: &Health) -> Result<http::StatusCode, Failure> {
    let connection = Connection::to(endpoint).await?;
    let request = request(endpoint, &health.law);
    match connection.send(Box::new(request)).await {
        Ok(response) => Ok(response.status()),
        Err(Unanswered::Unsent(_)) => Err(Failure::Refused),
        Err(Unanswered::Failed(failure)) => Err(failure),
    }
}

fn request(endpoint: &Endpoint, law: &HealthLaw) -> Outgoing {
    let mut fields = vec![
        (header::HOST, endpoint.host().clone()),
        (header::USER_AGENT, USER_AGENT),
    ];
    if endpoint.protocol() == Protocol::Http1 {
        fields.push((header::CONNECTION, HeaderValue::from_static("close")));
    }
    let (nothing, _) = Upload::new(Body::empty(), false, false);
    Outgoing {
        method: Method::GET,
        target: law.path.clone().into(),
        fields,
        body: nothing,
    }
}
