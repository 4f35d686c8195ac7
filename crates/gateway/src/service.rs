//! How this service meets the composition root.

use std::sync::Arc;

use auspex_kernel::config::ConfigError;
use auspex_kernel::service::{Context, Documented, OpenError, Routes, Running, Service};
use utoipa::openapi::OpenApi;

use crate::Config;
use crate::live::Live;
use crate::plan::Plan;

/// The gateway, open.
pub struct GatewayService {
    live: Live,
}

impl Service for GatewayService {
    const NAME: &'static str = "gateway";
    const DEFAULTS: &'static str = crate::config::DEFAULTS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), ConfigError> {
        Plan::new(config).map(drop)
    }

    fn document(_: &Config) -> Result<Documented, OpenError> {
        Ok(documented())
    }

    async fn open(config: Config, context: Context) -> Result<Arc<Self>, OpenError> {
        let plan = Plan::new(&config)?;
        let live = Live::new(plan, &context.clock);
        Ok(Arc::new(Self { live }))
    }
}

impl Running for GatewayService {
    fn routes(self: Arc<Self>) -> Routes {
        let routes = self.live.now().routes.clone();
        Routes::new(axum::Router::new(), documented()).with_undocumented(routes)
    }
}

fn documented() -> Documented {
    Documented::new(OpenApi::default())
}
