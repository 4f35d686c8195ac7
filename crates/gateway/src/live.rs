//! What runs at this moment: the services and routes of a plan. Another plan takes its place whole, and what it leaves as
//! it was lives on: circuits, loads, connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use auspex_kernel::Clock;
use auspex_kernel::caller::Vouch;
use auspex_kernel::policy::{Access, Answer, Policy, Runs};
use auspex_kernel::service::{Handle, StopSignal, UndocumentedRoute};
use tokio::time::MissedTickBehavior;

use crate::balance::Service;
use crate::cache::{self, Cached, Store};
use crate::journal::Watchers;
use crate::plan::{LeadsTo, Plan, PlannedRoute};
use crate::proxy::Proxy;
use crate::transcode::{BODY_BYTES_MAX, Transcoded};

const CERTIFICATES_PAUSE: Duration = Duration::from_secs(1);

/// What runs.
pub(crate) struct Live {
    means: Means,
    now: ArcSwap<Gateway>,
}

/// What services and routes work with, whichever there are.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) clock: Clock,
    /// Whoever watches the endpoints.
    pub(crate) watchers: Watchers,
    /// Tells services who calls.
    pub(crate) voucher: Option<Arc<dyn Vouch>>,
}

impl Means {
    pub(crate) fn new(clock: Clock, voucher: Option<Arc<dyn Vouch>>) -> Self {
        Self {
            clock,
            watchers: Watchers::new(),
            voucher,
        }
    }
}

/// The services and routes of one plan.
pub(crate) struct Gateway {
    pub(crate) services: BTreeMap<String, Arc<Service>>,
    pub(crate) routes: Vec<UndocumentedRoute>,
    pub(crate) dns_servers: Vec<SocketAddr>,
    pub(crate) caches: Caches,
}

/// What is kept of answers, and by which routes. Those of a route that did not change, nor its service, live on.
pub(crate) struct Caches {
    pub(crate) store: Arc<Store>,
    /// In use now.
    routes: Vec<KeepingRoute>,
    /// In use before, and not taken over yet.
    old: Vec<KeepingRoute>,
}

#[derive(Clone)]
struct KeepingRoute {
    plan: PlannedRoute,
    service: Arc<Service>,
    id: u64,
}

impl Caches {
    fn replacing(limits: cache::Limits, old: Option<&Self>) -> Self {
        let store = match old.map(|old| &old.store) {
            Some(store) if store.limits == limits => store.clone(),
            Some(store) => store.with_limits(limits),
            None => Store::new(limits),
        };
        let old = old.filter(|old| Arc::ptr_eq(&old.store, &store));
        Self {
            store,
            routes: Vec::new(),
            old: old.map(|old| old.routes.clone()).unwrap_or_default(),
        }
    }

    /// The id of a route in the store.
    fn id_of(&mut self, route: &PlannedRoute, service: &Arc<Service>) -> u64 {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let is_same = |old: &KeepingRoute| {
            // Where it is written does not matter.
            let key = route.key.clone();
            let moved = PlannedRoute {
                key,
                ..old.plan.clone()
            };
            moved == *route && Arc::ptr_eq(&old.service, service)
        };
        let id = match self.old.iter().position(is_same) {
            Some(at) => self.old.swap_remove(at).id,
            None => NEXT_ID.fetch_add(1, Ordering::Relaxed),
        };
        self.routes.push(KeepingRoute {
            plan: route.clone(),
            service: service.clone(),
            id,
        });
        id
    }
}

impl Live {
    pub(crate) fn new(plan: Plan, means: Means) -> Self {
        Self {
            now: ArcSwap::from_pointee(Gateway::replacing(plan, None, &means)),
            means,
        }
    }

    /// Whoever watches the endpoints.
    pub(crate) fn watchers(&self) -> &Watchers {
        &self.means.watchers
    }

    pub(crate) fn now(&self) -> Arc<Gateway> {
        self.now.load_full()
    }

    /// Replaces what runs, and returns it. The root has to be told, for it serves the routes.
    pub(crate) fn apply(&self, plan: Plan) -> Arc<Gateway> {
        let new = Gateway::replacing(plan, Some(&self.now()), &self.means);
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
    pub(crate) fn replacing(plan: Plan, old: Option<&Self>, means: &Means) -> Self {
        let services = plan.services.into_iter().map(|(name, plan)| {
            let old = old.and_then(|old| old.services.get(&name));
            (name, Service::replacing(plan, old, &means.watchers))
        });
        let services: BTreeMap<_, _> = services.collect();
        let mut caches = Caches::replacing(plan.cache, old.map(|old| &old.caches));
        let is_kept = |path: &str| {
            let mut kept = plan.routes.iter().filter(|route| route.cache_ttl.is_some());
            kept.any(|route| route.path == path)
        };
        let routes = plan.routes.iter().map(|route| {
            let Means { clock, voucher, .. } = means;
            let proxy_of = |route: &PlannedRoute, name: &str| {
                Proxy::new(
                    route,
                    services[name].clone(),
                    clock.clone(),
                    voucher.clone(),
                )
            };
            let proxy = |name: &str| proxy_of(route, name);
            let handler: Arc<dyn Handle> = match &route.leads_to {
                // What is kept under its path another route may change.
                LeadsTo::Service(name) if is_kept(&route.path) => {
                    let id = caches.id_of(route, &services[name]);
                    let (store, clock) = (caches.store.clone(), clock.clone());
                    let cached = Cached::new(id, proxy(name), route.cache_ttl, store, clock);
                    Arc::new(cached)
                }
                LeadsTo::Service(name) => Arc::new(proxy(name)),
                LeadsTo::Aggregate(plan) => Arc::new(plan.handler(&route.path, proxy)),
                LeadsTo::Calls(name, api) => {
                    let prefix = route.strip_prefix.clone();
                    // Calls have paths of their own.
                    let bare = PlannedRoute {
                        strip_prefix: String::new(),
                        ..route.clone()
                    };
                    let proxy = proxy_of(&bare, name);
                    Arc::new(Transcoded::new(proxy, api.clone(), prefix))
                }
            };
            serve(route, handler)
        });
        let routes = routes.collect();
        Self {
            services,
            routes,
            dns_servers: plan.dns_servers,
            caches,
        }
    }
}

/// The route as the edge serves it: on the thread of its connection, without bounds but the gateway's own.
fn serve(planned: &PlannedRoute, handler: Arc<dyn Handle>) -> UndocumentedRoute {
    let (caller_limit, address_limit) = match planned.access {
        Access::Public => (None, planned.limit),
        Access::Scopes(_) => (planned.limit, None),
    };
    let remote = planned.remote_role.as_ref();
    let remote = remote.map_or_else(Policy::default, |role| role.route.policy);
    // A message is read as a whole.
    let body_bytes_max = match &planned.leads_to {
        LeadsTo::Calls(..) => Some(BODY_BYTES_MAX),
        LeadsTo::Service(_) | LeadsTo::Aggregate(_) => None,
    };
    UndocumentedRoute {
        key: planned.key.clone(),
        path: planned.path.clone(),
        methods: planned.methods.clone(),
        conditions: planned.conditions.clone(),
        access: planned.access,
        policy: Policy {
            runs: Runs::Inline,
            answer: Answer::PassedOn,
            streams_body: body_bytes_max.is_none(),
            body_bytes_max,
            request_timeout: Some(Duration::MAX),
            caller_limit,
            address_limit,
            is_limited: planned.remote_role.is_none(),
            is_for_clients: remote.is_for_clients,
            render_error: remote.render_error,
            ..Policy::default()
        },
        handler,
    }
}
