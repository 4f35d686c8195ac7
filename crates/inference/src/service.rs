//! How this service meets the composition root.

use std::sync::Arc;

use auspex_kernel::Clock;
use auspex_kernel::audit::Action as _;
use auspex_kernel::config::ConfigError;
use auspex_kernel::policy::{Policy, Runs};
use auspex_kernel::predict::Predict;
use auspex_kernel::service::{
    Boxed, Context, Documented, Greeting, HealthCheck, OpenError, Routes, Running, Service,
    StopSignal, Warning,
};
use prometheus_client::registry::Registry;
use utoipa::openapi::OpenApi;

use crate::audit::Action;
use crate::http::{Tools, handlers};
use crate::reads::Reads;
use crate::registry::{self, Layout};
use crate::{Config, Inference};

const TAGS: [(&str, &str); 2] = [("predictions", "Ask a model"), ("models", "What is loaded")];

/// The inference service, open.
pub struct InferenceService {
    inference: Arc<Inference>,
    context: Context,
}

impl Service for InferenceService {
    const NAME: &'static str = "inference";
    const DEFAULTS: &'static str = crate::config::DEFAULTS;
    const ACTIONS: &'static [&'static str] = Action::TEXTS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), ConfigError> {
        config.check()
    }

    fn check_surroundings(config: &Config) -> Result<(), ConfigError> {
        let loaded = config.load_onnxruntime();
        loaded.map_err(|error| ConfigError::wrong("inference.onnxruntime", error))?;
        let models = &config.models;
        let scanned = registry::scan(models, Layout::of(models), &Reads::default());
        scanned.map(drop).map_err(|error| {
            ConfigError::wrong("inference.models", format!("cannot be used: {error}"))
        })
    }

    fn operations() -> OpenApi {
        Inference::operations()
    }

    fn document(config: &Config) -> Result<Documented, OpenError> {
        let inference = Inference::load(config, Clock::system())?;
        Ok(documented(&inference))
    }

    async fn open(config: Config, context: Context) -> Result<Arc<Self>, OpenError> {
        let inference = Inference::load(&config, context.clock.clone())?;
        if config.strict {
            inference.check_strictly()?;
        }
        Ok(Arc::new(Self { inference, context }))
    }
}

impl Running for InferenceService {
    fn routes_change(&self) -> bool {
        true
    }

    fn routes(self: Arc<Self>) -> Routes {
        let Context {
            cursors,
            publisher,
            db,
            random,
            ..
        } = self.context.clone();
        let tools = Tools {
            cursors,
            publisher,
            db,
            random,
        };
        let inline = Policy {
            runs: Runs::Inline,
            ..Policy::default()
        };
        let router = self.inference.clone().router(tools);
        let mut routes = Routes::new(router, documented(&self.inference));
        for (operation, handler) in handlers(&self.inference) {
            // They answer from memory, on the thread of the connection.
            routes = routes
                .with_policy(&[operation], inline)
                .with_handler(&[operation], &handler);
        }
        routes
    }

    fn health_checks(&self) -> Vec<HealthCheck<'_>> {
        let condition = std::future::ready(self.inference.condition());
        vec![HealthCheck::with("models", condition)]
    }

    fn register_metrics(&self, registry: &mut Registry) {
        self.inference.register_metrics(registry);
    }

    fn background(self: Arc<Self>, stop: StopSignal) -> Boxed<'static, ()> {
        let publisher = self.context.publisher.clone();
        Box::pin(self.inference.clone().watch(publisher, stop))
    }

    fn warnings(&self) -> Vec<Warning> {
        self.inference.warnings()
    }

    fn predictor(self: Arc<Self>) -> Option<Arc<dyn Predict>> {
        Some(self.inference.clone())
    }

    fn greet(&self, greeting: &mut Greeting) {
        let models = self.inference.models();
        let names = models.ready().map(|model| model.name().to_owned());
        greeting.serves.extend(names);
        if greeting.serves.is_empty() {
            greeting.serves.push("no model yet".into());
        }
        let is_skipping = !self.inference.folder.load().problems.is_empty();
        if is_skipping || models.failed().next().is_some() {
            let line = "part of the models folder is not served; the log says why";
            greeting.lines.push(("But", line.into()));
        }
        let url = &self.context.public_url;
        let api = format!("POST {url}/predict   and {url}/v1/models/{{model}}/predict");
        greeting.lines.push(("API", api));
    }
}

fn documented(inference: &Inference) -> Documented {
    let mut documented = Documented::new(Inference::operations()).with_tags(&TAGS);
    inference.add_model_operations(&mut documented.shown);
    documented
}
