//! How this service meets the composition root.

use std::sync::Arc;

use auspex_kernel::CursorKey;
use auspex_kernel::config::ConfigError;
use auspex_kernel::policy::{Policy, Runs};
use auspex_kernel::service::{
    Context, Documented, Greeting, HealthCheck, OpenError, Routes, Running, Service,
};
use prometheus_client::registry::Registry;

use crate::{Config, Inference};

const TAGS: [(&str, &str); 2] = [("predictions", "Ask a model"), ("models", "What is loaded")];

/// They answer from memory, on the thread of the connection.
const PREDICTIONS: [&str; 3] = ["predict_default", "predict_model", "predict_version"];

/// The inference service, open.
pub struct InferenceService {
    inference: Arc<Inference>,
    context: Context,
}

impl Service for InferenceService {
    const NAME: &'static str = "inference";
    const DEFAULTS: &'static str = crate::config::DEFAULTS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), ConfigError> {
        config.check()
    }

    fn document(config: &Config) -> Result<Documented, OpenError> {
        let inference = Inference::load(&config.models, config)?;
        // The document does not depend on the key.
        Ok(routes(&inference, CursorKey([0; 32])).documented)
    }

    async fn open(config: Config, context: Context) -> Result<Arc<Self>, OpenError> {
        let inference = Inference::load(&config.models, &config)?;
        Ok(Arc::new(Self { inference, context }))
    }
}

impl Running for InferenceService {
    fn routes(self: Arc<Self>) -> Routes {
        routes(&self.inference, self.context.cursors.clone())
    }

    fn health_checks(&self) -> Vec<HealthCheck<'_>> {
        let has_models = !self.inference.models().is_empty();
        vec![HealthCheck::new("models", std::future::ready(has_models))]
    }

    fn register_metrics(&self, registry: &mut Registry) {
        self.inference.register_metrics(registry);
    }

    fn greet(&self, greeting: &mut Greeting) {
        let names = self.inference.models().iter().map(|model| model.name());
        greeting.serves.extend(names.map(str::to_owned));
        let url = &self.context.public_url;
        let api = format!("POST {url}/predict   and {url}/v1/models/{{model}}/predict");
        greeting.lines.push(("API", api));
    }
}

fn routes(inference: &Arc<Inference>, cursors: CursorKey) -> Routes {
    let (router, operations) = inference.clone().router(cursors).split_for_parts();
    let mut documented = Documented::new(operations).with_tags(&TAGS);
    inference.add_model_operations(&mut documented.shown);
    let inline = Policy {
        runs: Runs::Inline,
        ..Policy::default()
    };
    Routes::new(router, documented).with_policy(&PREDICTIONS, inline)
}
