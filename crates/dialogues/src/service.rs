//! How this service meets the composition root.

use std::sync::Arc;

use auspex_kernel::config::ConfigError;
use auspex_kernel::service::{
    Context, Documented, Migrations, OpenError, Routes, Running, Service,
};
use utoipa::openapi::OpenApi;

use crate::{Config, migration};

/// The dialogues service, open.
pub struct DialoguesService {
    _context: Context,
}

impl Service for DialoguesService {
    const NAME: &'static str = "dialogues";
    const DEFAULTS: &'static str = crate::config::DEFAULTS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), ConfigError> {
        config.check()
    }

    fn migrations() -> Option<Migrations> {
        Some(Migrations::of::<migration::Migrator>())
    }

    fn document(_: &Config) -> Result<Documented, OpenError> {
        Ok(documented())
    }

    async fn open(_: Config, context: Context) -> Result<Arc<Self>, OpenError> {
        Ok(Arc::new(Self { _context: context }))
    }
}

impl Running for DialoguesService {
    fn routes(self: Arc<Self>) -> Routes {
        Routes::new(axum::Router::new(), documented())
    }
}

fn documented() -> Documented {
    Documented::new(OpenApi::default())
}
