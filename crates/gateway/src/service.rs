//! How this service meets the composition root.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::Clock;
use auspex_kernel::config::ConfigError;
use auspex_kernel::policy::{Access, Answer, Policy, Runs};
use auspex_kernel::service::{
    Context, Documented, OpenError, Routes, Running, Service, UndocumentedRoute,
};
use utoipa::openapi::OpenApi;

use crate::Config;
use crate::plan::{Plan, PlannedRoute};
use crate::proxy::Proxy;

/// The gateway, open.
pub struct GatewayService {
    routes: Vec<UndocumentedRoute>,
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
        let routes = plan
            .routes
            .iter()
            .map(|planned| route(planned, &context.clock));
        let routes = routes.collect();
        Ok(Arc::new(Self { routes }))
    }
}

impl Running for GatewayService {
    fn routes(self: Arc<Self>) -> Routes {
        let routes = self.routes.clone();
        Routes::new(axum::Router::new(), documented()).with_undocumented(routes)
    }
}

fn documented() -> Documented {
    Documented::new(OpenApi::default())
}

/// The route as the edge serves it: on the thread of its connection, without bounds but the gateway's own.
fn route(planned: &PlannedRoute, clock: &Clock) -> UndocumentedRoute {
    let (caller_limit, address_limit) = match planned.access {
        Access::Public => (None, planned.limit),
        Access::Scopes(_) => (planned.limit, None),
    };
    UndocumentedRoute {
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
        handler: Arc::new(Proxy::new(planned, clock.clone())),
    }
}
