//! Models of XGBoost, LightGBM and CatBoost in pickles, which hold them in the formats of these libraries.

use std::sync::Arc;

use super::build::Columns;
use super::steps::{Predictor, Transform, choose_by_shares};
use super::zeros::Zeros;
use crate::document::{Fault, named};
use crate::explain::{Explain, Unexplained};
use crate::pickle::{Array, View};
use crate::signature::{ClassLabel, Output};
use crate::{
    Engine, FeatureKind, LoadOptions, RowRefusal, Rows, Signature, catboost, lightgbm, xgboost,
};

/// What LightGBM keeps since 4.7, the first version whose classifiers have a `decision_function`.
const SINCE_DECISIONS: &str = "_fitted_with_feature_names";

/// A model of one of these libraries, and what its pickle says beside it.
#[derive(Debug)]
pub(super) struct Booster {
    engine: Arc<dyn Engine>,
    /// The same, if the library has a `decision_function` for it.
    decision: Option<Arc<lightgbm::Model>>,
    signature: Signature,
    is_xgboost: bool,
    /// A number that stands for a missing value.
    missing: Option<f32>,
    /// Whether 0 does too, since a sparse matrix leaves it out.
    lacks_zeros: bool,
}

/// Whether a value is of one of these libraries.
pub(super) fn is_one(view: View<'_, '_>) -> bool {
    let class = view.class().unwrap_or_default();
    matches!(
        class.split_once('.'),
        Some(("xgboost" | "lightgbm" | "catboost", _))
    )
}

/// Reads a model; none if the value is none of these libraries.
pub(super) fn read(view: View<'_, '_>, options: &LoadOptions) -> Result<Option<Booster>, Fault> {
    let class = view.class().unwrap_or_default();
    let (library, name) = class.split_once('.').unwrap_or_default();
    let name = name.rsplit('.').next().unwrap_or(name);
    let booster = match library {
        "xgboost" => from_xgboost(view, options).and_then(|engine| {
            Ok(Booster {
                is_xgboost: true,
                ..Booster::new(view, engine.into())?
            })
        }),
        "lightgbm" => from_lightgbm(view, options).and_then(|model| {
            let model = Arc::new(model);
            let decides = name == "LGBMClassifier" && view.get(SINCE_DECISIONS).is_some();
            Ok(Booster {
                decision: decides.then(|| model.clone()),
                ..Booster::new(view, model)?
            })
        }),
        "catboost" => {
            from_catboost(view, options).and_then(|engine| Booster::new(view, engine.into()))
        }
        _ => return Ok(None),
    };
    booster.map(Some).map_err(|fault| fault.inside(name))
}

fn from_xgboost(view: View<'_, '_>, options: &LoadOptions) -> Result<Box<dyn Engine>, Fault> {
    let booster = fitted(view, "_Booster")?;
    let handle = booster.bytes("handle")?;
    xgboost::load_serialized(&handle, options)
}

/// Its interfaces predict with the iterations up to the best one, which the text does not have.
fn from_lightgbm(view: View<'_, '_>, options: &LoadOptions) -> Result<lightgbm::Model, Fault> {
    let booster = fitted(view, "_Booster")?;
    let text = booster.text(match booster.get("_handle") {
        Some(_) => "_handle",
        None => "handle",
    })?;
    let best = booster.get("best_iteration").and_then(View::as_integer);
    let best = best.and_then(|best| u32::try_from(best).ok());
    let mut options = options.clone();
    if let Some(best @ 1..) = best {
        options.iteration_range.get_or_insert((0, best));
    }
    lightgbm::read(text, &options)
}

fn from_catboost(view: View<'_, '_>, options: &LoadOptions) -> Result<Box<dyn Engine>, Fault> {
    if view.get("__model").is_none() {
        return Err(Fault::new("the model is not fitted"));
    }
    let model = view.bytes("__model")?;
    catboost::load_binary(&model, options)
}

/// What holds the model: the attribute, or the object itself if it is not within an interface of scikit-learn.
fn fitted<'p, 'a>(view: View<'p, 'a>, attribute: &str) -> Result<View<'p, 'a>, Fault> {
    match view.get(attribute) {
        Some(inner) if inner.class().is_some() => Ok(inner),
        None if view.get("handle").is_some() || view.get("_handle").is_some() => Ok(view),
        _ => Err(Fault::new("the model is not fitted")),
    }
}

impl Booster {
    fn new(view: View<'_, '_>, engine: Arc<dyn Engine>) -> Result<Self, Fault> {
        let mut signature = engine.signature().clone();
        if let Some(labels) = labels(view, signature.output)? {
            signature.class_labels = labels;
        }
        let missing = view.get("missing").and_then(View::as_number);
        Ok(Self {
            engine,
            decision: None,
            signature,
            is_xgboost: false,
            lacks_zeros: false,
            missing: missing
                .filter(|missing| !missing.is_nan())
                .map(|missing| missing as f32),
        })
    }

    /// The model as a step of scikit-learn's, which gets these columns.
    pub(super) fn step(mut self, columns: &Columns) -> Result<Self, Fault> {
        let width = columns.len();
        match columns.zeros {
            Zeros::Unknown if self.is_xgboost => {
                return Err(Fault::new(
                    "it gets a sparse matrix, in which zeros that are left out are missing values to XGBoost, and it is \
                     not known which are; have the steps before make a dense matrix (`sparse_output=False` of encoders \
                     and splines, `sparse_threshold=0` of a ColumnTransformer) or set `alternate_sign=False` of a \
                     HashingVectorizer, and fit the model again",
                ));
            }
            zeros => self.lacks_zeros = self.is_xgboost && zeros == Zeros::LeftOut,
        }
        let features = &self.signature.features;
        if features.len() != width {
            return Err(Fault(format!(
                "it was fitted to {} columns, and gets {width}",
                features.len()
            )));
        }
        let is_number = |kind: &FeatureKind| {
            matches!(
                kind,
                FeatureKind::Number | FeatureKind::Integer | FeatureKind::Boolean
            )
        };
        let other = features.iter().find(|feature| !is_number(&feature.kind));
        if let Some(feature) = other {
            return Err(Fault(format!(
                "the feature `{}` is categorical, which is only supported without other steps",
                feature.name
            )));
        }
        match self.signature.more_outputs.is_empty() {
            true => Ok(self),
            false => Err(Fault::new(
                "a model of several outputs is not supported here",
            )),
        }
    }
}

/// What the interface for scikit-learn calls the classes, where it keeps that.
fn labels(view: View<'_, '_>, output: Output) -> Result<Option<Vec<ClassLabel>>, Fault> {
    let count = match output {
        Output::Binary => 2,
        Output::Multiclass { classes } | Output::Class { classes } => classes,
        Output::Numbers { .. } => return Ok(None),
    };
    let places = [view.get("_classes"), view.get("classes_")];
    let encoder = view.get("_le").and_then(|encoder| encoder.get("classes_"));
    let mut places = places.into_iter().flatten().chain(encoder);
    match places.find(|classes| !classes.is_none()) {
        Some(classes) => {
            let classes = Array::read(classes).map_err(named("classes_"))?;
            super::labels_of(&classes, count).map(Some)
        }
        None => Ok(None),
    }
}

impl Booster {
    /// Refuses rows with missing values where the model takes none.
    fn refuse_missing(&self, rows: Rows<'_>) -> Result<(), RowRefusal> {
        for row in 0..rows.len() {
            let mut parts = self.signature.features.iter().zip(rows.row(row));
            if parts.any(|(feature, value)| value.is_nan() && !feature.takes_missing) {
                return Err(RowRefusal {
                    row,
                    reason: "has a missing value where the model takes none".into(),
                });
            }
        }
        Ok(())
    }

    fn takes_as_they_are(&self) -> bool {
        self.missing.is_none() && !self.lacks_zeros
    }

    /// Calls with the rows as the library takes them.
    fn with_rows<T>(&self, rows: Rows<'_>, call: impl FnOnce(Rows<'_>) -> T) -> T {
        if self.takes_as_they_are() {
            return call(rows);
        }
        let is_missing =
            |value: f64| self.lacks_zeros && value == 0.0 || self.missing == Some(value as f32);
        let mut values = Vec::with_capacity(rows.len() * rows.width());
        for index in 0..rows.len() {
            let row = rows.row(index).iter();
            values.extend(row.map(|value| match is_missing(*value) {
                true => f64::NAN,
                false => *value,
            }));
        }
        call(rows.reshaped(&values, rows.width()))
    }
}

impl Engine for Booster {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn description(&self) -> String {
        self.engine.description()
    }

    fn caution(&self) -> Option<String> {
        self.engine.caution()
    }

    fn explain(&self) -> Result<&dyn Explain, Unexplained> {
        match self.takes_as_they_are() {
            true => self.engine.explain(),
            false => self.engine.explain().map(|_| self as &dyn Explain),
        }
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        self.with_rows(rows, |rows| self.engine.predict(rows, out))
    }
}

/// The explanations of a model for which some number is a missing value.
impl Explain for Booster {
    fn margins(&self) -> usize {
        self.engine.explain().map_or(0, Explain::margins)
    }

    fn bytes(&self) -> usize {
        self.engine.explain().map_or(0, Explain::bytes)
    }

    fn contributions(
        &self,
        rows: Rows<'_>,
        margin: usize,
        out: &mut [f64],
    ) -> Result<(), RowRefusal> {
        let explain = self.engine.explain().expect("it explains");
        self.with_rows(rows, |rows| explain.contributions(rows, margin, out))
    }
}

impl Predictor for Booster {
    fn output(&self) -> Output {
        self.signature.output
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        self.refuse_missing(rows)?;
        Engine::predict(self, rows, out)
    }

    fn decision(&self) -> Option<&dyn Transform> {
        self.decision.as_ref().map(|_| self as &dyn Transform)
    }

    /// By the probabilities, also where there is a decision.
    fn choose(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        choose_by_shares(self, rows, out)
    }

    fn detail(&self) -> Option<String> {
        Some(self.engine.description())
    }

    fn labels(&self) -> Option<&[ClassLabel]> {
        Some(&self.signature.class_labels)
    }

    fn explain(&self) -> Option<&dyn Explain> {
        Engine::explain(self).ok()
    }
}

/// The decision of a classifier.
impl Transform for Booster {
    fn width(&self) -> usize {
        self.signature.output.width()
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        let Some(model) = &self.decision else {
            return Ok(());
        };
        self.refuse_missing(rows)?;
        let start = out.len();
        out.resize(start + rows.len() * Transform::width(self), 0.0);
        model.raw_scores(rows, &mut out[start..]);
        Ok(())
    }
}
