//! What runs at this moment: the services and routes of a plan. Another plan takes its place whole, and what it leaves as
//! it was lives on: circuits, loads, connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use auspex_kernel::Clock;
use auspex_kernel::policy::{Access, Answer, Policy, Runs};
use auspex_kernel::service::{StopSignal, UndocumentedRoute};
use tokio::time::MissedTickBehavior;

use crate::balance::Service;
use crate::journal::Watchers;
use crate::plan::{Plan, PlannedRoute};
use crate::proxy::Proxy;

const CERTIFICATES_PAUSE: Duration = Duration::from_secs(1);

/// What runs.
pub(crate) struct Live {
    clock: Clock,
    /// Whoever watches the circuits.
    pub(crate) watchers: Watchers,
    now: ArcSwap<Gateway>,
}

/// The services and routes of one plan.
pub(crate) struct Gateway {
    pub(crate) services: BTreeMap<String, Arc<Service>>,
    pub(crate) routes: Vec<UndocumentedRoute>,
    pub(crate) dns_servers: Vec<SocketAddr>,
}

impl Live {
    pub(crate) fn new(plan: Plan, clock: Clock) -> Self {
        let watchers = Watchers::new();
        let gateway = Gateway::replacing(plan, None, &clock, &watchers);
        Self {
            now: ArcSwap::from_pointee(gateway),
            watchers,
            clock,
        }
    }

    pub(crate) fn now(&self) -> Arc<Gateway> {
        self.now.load_full()
    }

    /// Replaces what runs, and returns it. The root has to be told, for it serves the routes.
    pub(crate) fn apply(&self, plan: Plan) -> Arc<Gateway> {
        let new = Gateway::replacing(plan, Some(&self.now()), &self.clock, &self.watchers);
        self.now.swap(Arc::new(new))
    }

    /// Looks at the certificates of services once a second, until a stop is requested.
    pub(crate) async fn watch_certificates(self: Arc<Self>, mut stop: StopSignal) {
        let mut looks = tokio::time::interval(CERTIFICATES_PAUSE);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.stop_requested() => return,
                _ = looks.tick() => {}
            }
            let gateway = self.now();
            if gateway.services.values().all(|one| one.plan.tls.is_none()) {
                continue;
            }
            let looking = tokio::task::spawn_blocking(move || {
                for (name, service) in &gateway.services {
                    service.plan.tls.iter().for_each(|tls| tls.look(name));
                }
            });
            let _ = looking.await;
        }
    }

    /// Takes back what [`Live::apply`] did.
    pub(crate) fn restore(&self, old: Arc<Gateway>) {
        self.now.store(old);
    }
}

impl Gateway {
    /// What a plan comes to. What did not change since `old` is taken over from it.
    pub(crate) fn replacing(
        plan: Plan,
        old: Option<&Self>,
        clock: &Clock,
        watchers: &Watchers,
    ) -> Self {
        let services = plan.services.into_iter().map(|(name, plan)| {
            let old = old.and_then(|old| old.services.get(&name));
            (name, Service::replacing(plan, old, watchers))
        });
        let services: BTreeMap<_, _> = services.collect();
        let routes = plan.routes.iter().map(|route| {
            let service = services[&route.service].clone();
            serve(route, service, clock)
        });
        let routes = routes.collect();
        Self {
            services,
            routes,
            dns_servers: plan.dns_servers,
        }
    }
}

/// The route as the edge serves it: on the thread of its connection, without bounds but the gateway's own.
fn serve(planned: &PlannedRoute, service: Arc<Service>, clock: &Clock) -> UndocumentedRoute {
    let (caller_limit, address_limit) = match planned.access {
        Access::Public => (None, planned.limit),
        Access::Scopes(_) => (planned.limit, None),
    };
    UndocumentedRoute {
        key: planned.key.clone(),
        path: planned.path.clone(),
        methods: planned.methods.clone(),
        access: planned.access,
        policy: Policy {
            runs: Runs::Inline,
            answer: Answer::PassedOn,
            streams_body: true,
            request_timeout: Some(Duration::MAX),
            caller_limit,
            address_limit,
            ..Policy::default()
        },
        handler: Arc::new(Proxy::new(planned, service, clock.clone())),
    }
}
