//! What classifiers of `ai.onnx.ml` have in common: names of classes, and what becomes of sums.

use std::sync::Arc;

use crate::document::Fault;
use crate::onnx::proto::Node;
use crate::onnx::tensor::{Data, Tensor};

/// Names of the classes, as the classifier's first output gives them.
#[derive(Debug, Clone)]
pub(in crate::onnx) enum Labels {
    Texts(Vec<Arc<str>>),
    Numbers(Vec<i64>),
}

impl Labels {
    pub(in crate::onnx) fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Numbers(numbers) => numbers.len(),
        }
    }

    /// Names of the chosen classes, one for each row.
    pub(super) fn of(&self, chosen: Vec<usize>) -> Tensor {
        let shape = vec![chosen.len()];
        let data = match self {
            Self::Texts(texts) => Data::Text(
                chosen
                    .into_iter()
                    .map(|class| texts[class].clone())
                    .collect(),
            ),
            Self::Numbers(numbers) => {
                Data::Long(chosen.into_iter().map(|class| numbers[class]).collect())
            }
        };
        Tensor::new(shape, data)
    }
}

/// The names that a node has; none if it has none.
pub(in crate::onnx) fn labels(node: &Node<'_>) -> Result<Option<Labels>, Fault> {
    for name in [
        "classlabels_strings",
        "classlabels_int64s",
        "classlabels_ints",
    ] {
        let texts = node.texts(name)?;
        if !texts.is_empty() {
            return Ok(Some(Labels::Texts(texts)));
        }
        let numbers = node.integers(name);
        if !numbers.is_empty() {
            return Ok(Some(Labels::Numbers(numbers.to_vec())));
        }
    }
    Ok(None)
}

pub(super) fn required_labels(node: &Node<'_>) -> Result<Labels, Fault> {
    labels(node)?.ok_or_else(|| Fault::new("has no names of classes (`classlabels_…`)"))
}

/// What becomes of a row's sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transform {
    None,
    Logistic,
    Softmax,
    SoftmaxZero,
    Probit,
}

impl Transform {
    pub(super) fn read(node: &Node<'_>) -> Result<Self, Fault> {
        Ok(match node.text("post_transform")? {
            None | Some("NONE") => Self::None,
            Some("LOGISTIC") => Self::Logistic,
            Some("SOFTMAX") => Self::Softmax,
            Some("SOFTMAX_ZERO") => Self::SoftmaxZero,
            Some("PROBIT") => Self::Probit,
            Some(_) => return Err(Fault::new("`post_transform` is none that is known")),
        })
    }

    pub(super) fn apply(self, sums: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Logistic => sums.iter_mut().for_each(|sum| *sum = logistic(*sum)),
            Self::Probit => sums.iter_mut().for_each(|sum| *sum = probit(*sum)),
            Self::Softmax | Self::SoftmaxZero => {
                let greatest = sums.iter().copied().fold(f32::MIN, f32::max);
                let skips = |sum: f32| self == Self::SoftmaxZero && sum.abs() <= 1e-7;
                let mut all = 0.0;
                for sum in &mut *sums {
                    if skips(*sum) {
                        *sum *= (-greatest).exp();
                    } else {
                        *sum = (*sum - greatest).exp();
                        all += *sum;
                    }
                }
                sums.iter_mut().for_each(|sum| *sum /= all);
            }
        }
    }
}

pub(super) fn logistic(sum: f32) -> f32 {
    let positive = 1.0 / (1.0 + (-sum.abs()).exp());
    if sum < 0.0 { 1.0 - positive } else { positive }
}

/// The inverse of the normal distribution, by the approximation that ONNX Runtime takes too.
fn probit(probability: f32) -> f32 {
    const A: f32 = 0.147;
    let x = 2.0 * probability - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let half = 2.0 / (std::f32::consts::PI * A) + 0.5 * log;
    let inner = (half * half - log / A).sqrt() - half;
    std::f32::consts::SQRT_2 * inner.sqrt().copysign(x)
}

/// The place of the first of the greatest numbers.
pub(super) fn greatest(numbers: &[f32]) -> usize {
    let mut best = 0;
    for (place, number) in numbers.iter().enumerate() {
        if *number > numbers[best] {
            best = place;
        }
    }
    best
}
