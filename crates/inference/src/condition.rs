//! Whether all is well with the models, as health, warnings and a strict start want to know it.

use std::borrow::Cow;

use auspex_kernel::error::shown;
use auspex_kernel::service::{Condition, Warning};

use crate::Inference;
use crate::registry::InferenceError;

impl Inference {
    /// For health, which is public: no names.
    pub(crate) fn condition(&self) -> Condition {
        let (models, folder) = (self.models(), self.folder.load());
        if models.ready().next().is_none() {
            return Condition::Fails;
        }
        let mut reasons: Vec<Cow<'static, str>> = Vec::new();
        if !folder.is_readable {
            reasons.push("the models folder cannot be read, or is empty".into());
        } else if folder.has_unreadable {
            reasons.push("the folder of a model cannot be read".into());
        }
        match models.failed().count() {
            0 => {}
            1 => reasons.push("a package cannot be loaded".into()),
            count => reasons.push(format!("{count} packages cannot be loaded").into()),
        }
        match reasons.is_empty() {
            true => Condition::Works,
            false => Condition::Impaired(reasons.join("; ").into()),
        }
    }

    /// What a strict start requires: that all in the models folder is served.
    ///
    /// # Errors
    /// What is not, and why.
    pub(crate) fn check_strictly(&self) -> Result<(), InferenceError> {
        let models = self.models();
        let failed = models.failed().map(|(model, package)| {
            let reason = package.reason.as_deref().unwrap_or_default();
            format!(
                "{} {}: {reason}",
                shown(model.name()),
                shown(&package.version)
            )
        });
        let mut wrong: Vec<String> = failed.collect();
        wrong.extend(self.folder.load().problems.iter().cloned());
        if wrong.is_empty() && models.ready().next().is_none() {
            wrong.push("there is no model in it".into());
        }
        if let (Some(name), None) = (models.default_name(), models.default_model()) {
            wrong.push(format!("the default model, {name}, is not in it"));
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(InferenceError::Strict {
                folder: self.config.models.display().to_string(),
                wrong,
            }),
        }
    }

    /// What an operator should look at.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let models = self.models();
        let failed: Vec<String> = models
            .failed()
            .map(|(model, package)| format!("{} {}", model.name(), package.version))
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
        let folder = self.folder.load();
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
        let rivals = self.rivals(&models);
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
}
