//! What the library's Python package left in a file about the training: `learner.attributes`.

use crate::document::{Fault, Object, named, parse_json};

/// Early stopping, and settings of the scikit-learn interface.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Training {
    /// The iteration at which early stopping found the best score, counted from 0.
    pub(super) best_iteration: Option<u32>,
    /// Trees per output up to that iteration. Written up to 1.7.
    pub(super) best_ntree_limit: Option<u32>,
    /// Trees per output in an iteration.
    pub(super) parallel_trees: Option<u32>,
    /// The number that stood for a missing value, besides NaN.
    pub(super) missing: Option<f32>,
}

impl Training {
    pub(super) fn read(learner: &Object<'_>) -> Result<Self, Fault> {
        let Some(attributes) = learner.get("attributes") else {
            return Ok(Self::default());
        };
        let attributes = attributes.as_object().map_err(named("attributes"))?;
        let count = |name: &str| {
            let value = attributes.parameter(name).map_err(named("attributes"))?;
            // The last of no iterations, which releases up to 1.7 write for a model that was not boosted.
            let value = value.filter(|value| *value != -1);
            let outside = |value| Fault(format!("`attributes`: `{name}`: {value} is no count"));
            value
                .map(|value| u32::try_from(value).map_err(|_| outside(value)))
                .transpose()
        };
        let mut training = Self {
            best_iteration: count("best_iteration")?,
            best_ntree_limit: count("best_ntree_limit")?,
            ..Self::default()
        };
        if let Some(settings) = attributes.get("scikit_learn") {
            let settings = settings.as_text().map_err(named("scikit_learn"));
            training.read_settings(settings.map_err(named("attributes"))?);
        }
        Ok(training)
    }

    /// Settings are JSON in a text. Anybody may store an attribute, so that one of another form
    /// says nothing and is no fault.
    fn read_settings(&mut self, text: &str) {
        let Ok(settings) = parse_json(text.as_bytes()) else {
            return;
        };
        let Ok(settings) = settings.as_object() else {
            return;
        };
        let parallel = settings.parameter("num_parallel_tree").ok().flatten();
        let parallel = parallel.and_then(|count| u32::try_from(count).ok());
        self.parallel_trees = parallel.filter(|&count| count > 0);
        let missing = settings
            .get("missing")
            .and_then(|value| value.as_float().ok());
        self.missing = missing.filter(|missing| missing.is_finite());
    }
}
