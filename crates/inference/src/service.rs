//! How this service meets the composition root.

use std::sync::Arc;

use auspex_kernel::Clock;
use auspex_kernel::audit::Action as _;
use auspex_kernel::config::ConfigError;
use auspex_kernel::policy::{Policy, Runs};
use auspex_kernel::service::{
    Boxed, Context, Documented, Greeting, HealthCheck, OpenError, Routes, Running, Service,
    StopSignal, Warning,
};
use prometheus_client::registry::Registry;

use crate::audit::Action;
use crate::http::Tools;
use crate::reads::Reads;
use crate::registry::{self, Layout};
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
    const ACTIONS: &'static [&'static str] = Action::TEXTS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), ConfigError> {
        config.check()
    }

    fn check_surroundings(config: &Config) -> Result<(), ConfigError> {
        let models = &config.models;
        let scanned = registry::scan(models, Layout::of(models), &Reads::default());
        scanned.map(drop).map_err(|error| {
            ConfigError::wrong("inference.models", format!("cannot be used: {error}"))
        })
    }

    fn document(config: &Config) -> Result<Documented, OpenError> {
        let inference = Inference::load(config, Clock::system())?;
        Ok(documented(&inference))
    }

    async fn open(config: Config, context: Context) -> Result<Arc<Self>, OpenError> {
        let inference = Inference::load(&config, context.clock.clone())?;
        Ok(Arc::new(Self { inference, context }))
    }
}

impl Running for InferenceService {
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
        Routes::new(router, documented(&self.inference)).with_policy(&PREDICTIONS, inline)
    }

    fn health_checks(&self) -> Vec<HealthCheck<'_>> {
        let has_models = self.inference.models().ready().next().is_some();
        vec![HealthCheck::new("models", std::future::ready(has_models))]
    }

    fn register_metrics(&self, registry: &mut Registry) {
        self.inference.register_metrics(registry);
    }

    fn background(self: Arc<Self>, stop: StopSignal) -> Boxed<'static, ()> {
        let publisher = self.context.publisher.clone();
        Box::pin(self.inference.clone().watch(publisher, stop))
    }

    fn warnings(&self) -> Vec<Warning> {
        let models = self.inference.models();
        let failed: Vec<String> = models
            .all()
            .iter()
            .flat_map(|model| model.failed().map(|package| (model.name(), package)))
            .map(|(model, package)| format!("{model} {package}"))
            .collect();
        let mut warnings = Vec::new();
        if !failed.is_empty() {
            let failed = failed.join(", ");
            warnings.push(Warning {
                code: "MODEL_FAILED",
                message: format!(
                    "these packages cannot be loaded as they are on disk: {failed}; GET /v1/models \
                     says why"
                ),
            });
        }
        if models.ready().next().is_none() {
            warnings.push(Warning {
                code: "NO_MODEL",
                message: "no model is served; put one into the models folder".into(),
            });
        }
        let folder = self.inference.folder.load();
        if !folder.is_readable {
            warnings.push(Warning {
                code: "MODELS_FOLDER_UNREADABLE",
                message:
                    "the models folder cannot be read, or holds no package any more; what was \
                          loaded is served on until a restart, and the log has the reason"
                        .into(),
            });
        }
        if !folder.problems.is_empty() {
            warnings.push(Warning {
                code: "MODELS_SKIPPED",
                message: folder.problems.join("; "),
            });
        }
        let rivals = self.inference.rivals(&models);
        if !rivals.is_empty() {
            let now = match models.default_name() {
                Some(name) => format!("{name} stays the default model until the next start"),
                None => "none of them is the default model".to_owned(),
            };
            warnings.push(Warning {
                code: "DEFAULT_MODEL_UNCLEAR",
                message: format!(
                    "{} all say default = true, so {now}; let one say it, or set [inference] \
                     default_model",
                    rivals.join(", ")
                ),
            });
        }
        if let (Some(name), None) = (models.default_name(), models.default_model()) {
            warnings.push(Warning {
                code: "DEFAULT_MODEL_AWAY",
                message: format!(
                    "the default model, {name}, is not served, and POST /predict is 503; put it back, \
                     or let another say default = true"
                ),
            });
        }
        warnings
    }

    fn greet(&self, greeting: &mut Greeting) {
        let models = self.inference.models();
        let names = models.ready().map(|model| model.name().to_owned());
        greeting.serves.extend(names);
        if greeting.serves.is_empty() {
            greeting.serves.push("no model yet".into());
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
