//! The operators that are computed. Each is read from its node into a function of tensors.
//!
//! Types and shapes are checked when it runs, and a graph runs once before it is loaded.

mod cast;
mod classes;
mod distance;
mod encode;
mod fill;
mod functions;
mod linear;
mod math;
mod products;
mod reduce;
mod scale;
mod shapes;
mod svm;
mod texts;
mod trees;

use std::cell::Cell;

use super::proto::Node;
use super::tensor::Tensor;
use crate::document::Fault;

pub(super) use classes::{Labels, labels};

/// Values and multiplications that a run may take.
const STEPS_MAX: usize = 1 << 28;

/// What an operator computes.
pub(super) type Run =
    Box<dyn Fn(&[Option<&Tensor>], &Context) -> Result<Vec<Tensor>, Fault> + Send + Sync>;

/// What a run knows beside the tensors.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// Whether the values are made up, so that a category may be unknown.
    pub(super) is_trial: bool,
    /// Whether trees that know no missing values give none for one.
    pub(super) missing_stays: bool,
    steps: Cell<usize>,
}

impl Context {
    /// For values that are made up.
    pub(super) fn of_trial(missing_stays: bool) -> Self {
        Self {
            is_trial: true,
            missing_stays,
            steps: Cell::default(),
        }
    }

    /// Notes so much work, before it is done.
    pub(super) fn spend(&self, steps: usize) -> Result<(), Fault> {
        let spent = self.steps.get().saturating_add(steps);
        self.steps.set(spent);
        match spent > STEPS_MAX {
            true => Err(Fault(format!("more than {STEPS_MAX} steps of computation"))),
            false => Ok(()),
        }
    }

    pub(super) fn spent(&self) -> usize {
        self.steps.get()
    }
}

/// The operator of a node, in the version of its set.
pub(super) fn build(node: &Node<'_>, opset: i64) -> Result<Run, Fault> {
    let built = match (node.domain, node.operator) {
        ("ai.onnx.ml", _) => ml(node)?.map(refuse_narrow),
        ("", "Cast") => Some(cast::cast(node)?),
        ("", "CastLike") => Some(cast::cast_like()),
        ("", _) => plain(node, opset)?.map(widen),
        ("com.microsoft", "Tokenizer") => Some(texts::tokenizer(node)?),
        ("com.microsoft", "CDist") => Some(distance::between(node)?),
        _ => None,
    };
    built.ok_or_else(|| {
        Fault::new(
            "is not supported: graphs of tables and texts are, as skl2onnx and onnxmltools make them. Convert the \
             model without it, or give the scikit-learn, XGBoost, LightGBM or CatBoost model itself",
        )
    })
}

/// Computes with values of fewer bits as with those they stand in, and makes what comes out fit again.
fn widen(run: Run) -> Run {
    Box::new(move |inputs, context| {
        let mut made = run(inputs, context)?;
        let narrow = inputs.iter().flatten().find_map(|tensor| tensor.narrow);
        for tensor in &mut made {
            tensor.narrow = narrow
                .or(tensor.narrow)
                .filter(|narrow| narrow.stands_in(&tensor.data));
            if let Some(narrow) = tensor.narrow {
                narrow.fit(&mut tensor.data)?;
            }
        }
        Ok(made)
    })
}

fn refuse_narrow(run: Run) -> Run {
    Box::new(move |inputs, context| {
        let narrow = inputs
            .iter()
            .flatten()
            .find(|tensor| tensor.narrow.is_some());
        match narrow {
            Some(tensor) => Err(tensor.wrong_type()),
            None => run(inputs, context),
        }
    })
}

fn ml(node: &Node<'_>) -> Result<Option<Run>, Fault> {
    Ok(Some(match node.operator {
        "ArrayFeatureExtractor" => shapes::array_feature_extractor(),
        "Binarizer" => scale::binarizer(node),
        "CategoryMapper" => encode::category_mapper(node)?,
        "FeatureVectorizer" => shapes::feature_vectorizer(node)?,
        "Imputer" => scale::imputer(node)?,
        "LabelEncoder" => encode::label_encoder(node)?,
        "LinearClassifier" => linear::classifier(node)?,
        "LinearRegressor" => linear::regressor(node)?,
        "Normalizer" => scale::normalizer(node)?,
        "OneHotEncoder" => encode::one_hot(node)?,
        "SVMClassifier" => svm::classifier(node)?,
        "SVMRegressor" => svm::regressor(node)?,
        "Scaler" => scale::scaler(node)?,
        "TreeEnsemble" => trees::ensemble(node)?,
        "TreeEnsembleClassifier" => trees::classifier(node)?,
        "TreeEnsembleRegressor" => trees::regressor(node)?,
        // The map is a row of what its keys are, and `ZipMap`'s is made of the labels that the signature has.
        "DictVectorizer" | "ZipMap" => math::identity(),
        _ => return Ok(None),
    }))
}

fn plain(node: &Node<'_>, opset: i64) -> Result<Option<Run>, Fault> {
    if let Some(built) = functions::build(node) {
        return Ok(Some(built));
    }
    if let Some(built) = math::build(node, opset)? {
        return Ok(Some(built));
    }
    if let Some(built) = reduce::build(node)? {
        return Ok(Some(built));
    }
    Ok(Some(match node.operator {
        "ArgMax" | "ArgMin" => reduce::arg(node),
        "Concat" => shapes::concat(node)?,
        "BatchNormalization" => scale::batch_normalization(node, opset)?,
        "ConstantOfShape" => fill::constant_of_shape(node)?,
        "CumSum" => reduce::running_sum(node),
        "Expand" => fill::expand(),
        "EyeLike" => fill::eye_like(node)?,
        "Flatten" => shapes::flatten(node),
        "Gather" => shapes::gather(node),
        "GatherElements" => shapes::gather_elements(node),
        "Gemm" => products::gemm(node),
        "LogSoftmax" => products::softmax(node, opset, true),
        "LpNormalization" => reduce::normalization(node)?,
        "MatMul" => products::matmul(),
        "Range" => fill::range(),
        "Reshape" => shapes::reshape(node),
        "Shape" => fill::shape(node),
        "Size" => fill::size(),
        "Slice" => shapes::slice(node),
        "Softmax" => products::softmax(node, opset, false),
        "Split" => shapes::split(node),
        "Squeeze" => shapes::squeeze(node),
        "StringNormalizer" => texts::normalizer(node)?,
        "TfIdfVectorizer" => texts::tf_idf(node)?,
        "Tile" if opset >= 6 => fill::tile(),
        "TopK" => reduce::top_k(node, opset),
        "Transpose" => shapes::transpose(node),
        "Unsqueeze" => shapes::unsqueeze(node),
        _ => return Ok(None),
    }))
}

/// An input that must be there.
pub(super) fn input<'t>(inputs: &[Option<&'t Tensor>], index: usize) -> Result<&'t Tensor, Fault> {
    inputs
        .get(index)
        .copied()
        .flatten()
        .ok_or_else(|| Fault(format!("its input {index} is missing")))
}

/// Whole numbers from an attribute, or since a newer version of the operator from an input.
fn integers(
    own: &[i64],
    inputs: &[Option<&Tensor>],
    index: usize,
) -> Result<Option<Vec<i64>>, Fault> {
    match inputs.get(index).copied().flatten() {
        Some(tensor) => tensor.to_integers().map(Some),
        None => Ok(Some(own.to_vec()).filter(|own| !own.is_empty())),
    }
}
