//! How this service meets the composition root.

use std::sync::Arc;

use auspex_kernel::audit::Action as _;
use auspex_kernel::config::ConfigError;
use auspex_kernel::db::Db;
use auspex_kernel::service::{
    Boxed, Context, Documented, Migrations, OpenError, Publisher, Routes, Running, Service,
    StopSignal, UndocumentedRoute,
};
use auspex_kernel::{Clock, CursorKey};
use utoipa::openapi::OpenApi;

use crate::audit::Action;
use crate::http::{self, Desk};
use crate::live::{Gateway, Live};
use crate::plan::Plan;
use crate::registry::Registry;
use crate::{Config, migration, watch};

const TAG: &str = "Services behind the gateway, and the servers that register for them";

/// The gateway, open.
pub struct GatewayService {
    desk: Desk,
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
        let gateway = Gateway::replacing(Plan::new(config)?, None, &Clock::system());
        Ok(gateway.routes)
    }

    fn document(_: &Config) -> Result<Documented, OpenError> {
        Ok(documented())
    }

    async fn open(config: Config, context: Context) -> Result<Arc<Self>, OpenError> {
        let plan = Plan::new(&config)?;
        let Context {
            db, clock, random, ..
        } = context;
        let live = Arc::new(Live::new(plan, clock.clone()));
        let registry = Registry::open(db.clone(), clock.clone(), random, live.clone()).await?;
        let desk = Desk {
            live,
            registry: Arc::new(registry),
            clock,
        };
        Ok(Arc::new(Self {
            desk,
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
        let published = self.publisher.publish().await;
        if published.is_err() {
            live.restore(old);
            registry.publish_all();
        }
        Ok(published?)
    }
}

impl Running for GatewayService {
    fn routes(self: Arc<Self>) -> Routes {
        let router = http::router(self.desk.clone(), self.cursors.clone());
        let routes = self.desk.live.now().routes.clone();
        Routes::new(router, documented()).with_undocumented(routes)
    }

    fn background(self: Arc<Self>, stop: StopSignal) -> Boxed<'static, ()> {
        Box::pin(async move { watch::watch(&self.desk.registry, &self.db, stop).await })
    }
}

fn documented() -> Documented {
    Documented::new(http::document()).with_tags(&[(http::TAG, TAG)])
}
