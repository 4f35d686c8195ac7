//! How this service meets the composition root.

use std::sync::Arc;

use auspex_kernel::Clock;
use auspex_kernel::config::ConfigError;
use auspex_kernel::service::{
    Context, Documented, OpenError, Publisher, Routes, Running, Service, UndocumentedRoute,
};
use utoipa::openapi::OpenApi;

use crate::Config;
use crate::live::{Gateway, Live};
use crate::plan::Plan;

/// The gateway, open.
pub struct GatewayService {
    live: Live,
    publisher: Publisher,
}

impl Service for GatewayService {
    const NAME: &'static str = "gateway";
    const DEFAULTS: &'static str = crate::config::DEFAULTS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), ConfigError> {
        Plan::new(config).map(drop)
    }

    fn operations() -> OpenApi {
        OpenApi::default()
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
        Ok(Arc::new(Self {
            live: Live::new(plan, context.clock),
            publisher: context.publisher,
        }))
    }

    const IS_RECONFIGURABLE: bool = true;

    async fn reconfigure(self: Arc<Self>, config: Config) -> Result<(), OpenError> {
        let old = self.live.apply(Plan::new(&config)?);
        if let Err(error) = self.publisher.publish().await {
            self.live.restore(old);
            return Err(error.into());
        }
        Ok(())
    }
}

impl Running for GatewayService {
    fn routes(self: Arc<Self>) -> Routes {
        let routes = self.live.now().routes.clone();
        Routes::new(axum::Router::new(), documented()).with_undocumented(routes)
    }
}

fn documented() -> Documented {
    Documented::new(GatewayService::operations())
}
