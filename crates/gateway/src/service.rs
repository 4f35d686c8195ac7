//! How this service meets the composition root.

use std::sync::Arc;

use auspex_kernel::audit::Action as _;
use auspex_kernel::config::ConfigError;
use auspex_kernel::db::Db;
use auspex_kernel::policy::{Answer, Policy};
use auspex_kernel::service::{
    Boxed, Condition, Context, Documented, HealthCheck, Migrations, OpenError, Publisher, Routes,
    Running, Service, StopSignal, UndocumentedRoute, Warning,
};
use auspex_kernel::{Clock, CursorKey};
use tokio::sync::Mutex;
use utoipa::openapi::OpenApi;

use crate::audit::Action;
use crate::discovery::Discovery;
use crate::http::{self, Desk};
use crate::live::{Gateway, Live, Means};
use crate::metrics::ServiceMetrics;
use crate::plan::Plan;
use crate::registry::Registry;
use crate::{Config, check, migration, watch};

const TAG: &str =
    "Services behind the gateway, how they are, and the servers that register for them";

/// The gateway, open.
pub struct GatewayService {
    desk: Desk,
    discovery: Mutex<Discovery>,
    db: Db,
    cursors: CursorKey,
    publisher: Publisher,
}

impl Service for GatewayService {
    const NAME: &'static str = "gateway";
    const DEFAULTS: &'static str = crate::config::DEFAULTS;
    const ACTIONS: &'static [&'static str] = Action::TEXTS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), ConfigError> {
        Plan::new(config).map(drop)
    }

    fn migrations() -> Option<Migrations> {
        Some(Migrations::of::<migration::Migrator>())
    }

    fn operations() -> OpenApi {
        http::document()
    }

    fn undocumented(config: &Config) -> Result<Vec<UndocumentedRoute>, ConfigError> {
        let means = Means::new(Clock::system(), None);
        Ok(Gateway::replacing(Plan::new(config)?, None, &means).routes)
    }

    fn document(_: &Config) -> Result<Documented, OpenError> {
        Ok(documented())
    }

    async fn open(config: Config, context: Context) -> Result<Arc<Self>, OpenError> {
        let plan = Plan::new(&config)?;
        let Context {
            db,
            clock,
            random,
            reloads,
            voucher,
            redis,
            ..
        } = context;
        let live = Arc::new(Live::new(plan, Means::new(clock.clone(), voucher)));
        let registry = Registry::open(db.clone(), clock.clone(), random, live.clone()).await?;
        if let Some(redis) = redis {
            registry.share(redis);
        }
        let mut discovery = Discovery::new(live.clone(), clock.clone());
        discovery.round().await;
        let desk = Desk {
            live,
            registry: Arc::new(registry),
            clock,
            reloads,
        };
        Ok(Arc::new(Self {
            desk,
            discovery: Mutex::new(discovery),
            db,
            cursors: context.cursors,
            publisher: context.publisher,
        }))
    }

    const IS_RECONFIGURABLE: bool = true;

    async fn reconfigure(self: Arc<Self>, config: Config) -> Result<(), OpenError> {
        let Desk { live, registry, .. } = &self.desk;
        let old = live.apply(Plan::new(&config)?);
        registry.publish_all();
        self.discovery.lock().await.round().await;
        let published = self.publisher.publish().await;
        if published.is_err() {
            live.restore(old);
            registry.publish_all();
        }
        Ok(published?)
    }
}

impl Running for GatewayService {
    fn routes_change(&self) -> bool {
        true
    }

    fn routes(self: Arc<Self>) -> Routes {
        let router = http::router(self.desk.clone(), self.cursors.clone());
        let routes = self.desk.live.now().routes.clone();
        let stream = Policy {
            answer: Answer::Stream,
            ..Policy::default()
        };
        Routes::new(router, documented())
            .with_policy(&http::STREAMS, stream)
            .with_undocumented(routes)
    }

    /// Much else goes on without a service behind the gateway, so the server is ready all the same. Everybody may
    /// ask, so no service is named.
    fn health_checks(&self) -> Vec<HealthCheck<'_>> {
        let gateway = self.desk.live.now();
        let count = gateway.services.len();
        if count == 0 {
            return Vec::new();
        }
        let services = gateway.services.values();
        let condition = match services.filter(|service| service.asked().0 == 0).count() {
            0 => Condition::Works,
            away => Condition::Impaired(format!("{away} of {count} services are away").into()),
        };
        vec![HealthCheck {
            needed: false,
            ..HealthCheck::with("gateway", std::future::ready(condition))
        }]
    }

    fn warnings(&self) -> Vec<Warning> {
        let gateway = self.desk.live.now();
        let secured = gateway
            .services
            .values()
            .filter_map(|one| one.plan.tls.as_ref());
        let refused = secured.filter_map(|tls| tls.refused());
        let warning = |reason| Warning {
            code: "GATEWAY_CERTIFICATES_REFUSED",
            message: format!(
                "certificates were changed and cannot be used, so those from before are in force: {reason}"
            ),
        };
        refused.map(warning).collect()
    }

    fn register_metrics(&self, registry: &mut prometheus_client::registry::Registry) {
        registry.register_collector(Box::new(ServiceMetrics(self.desk.live.clone())));
    }

    fn background(self: Arc<Self>, stop: StopSignal) -> Boxed<'static, ()> {
        Box::pin(async move {
            tokio::join!(
                watch::watch(&self.desk.registry, &self.db, stop.clone()),
                Discovery::watch(&self.discovery, stop.clone()),
                self.desk.live.clone().watch_certificates(stop.clone()),
                check::watch(self.desk.live.clone(), self.desk.clock.clone(), stop),
            );
        })
    }
}

fn documented() -> Documented {
    Documented::new(http::document()).with_tags(&[(http::TAG, TAG)])
}
