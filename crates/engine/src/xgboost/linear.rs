//! The `gblinear` booster: one weight per feature and output, and one bias per output.

use crate::Rows;
use crate::document::{Fault, Object};

/// Weights of a linear model.
#[derive(Debug)]
pub(super) struct Linear {
    /// `weights[feature * outputs + output]`; the biases follow the last feature.
    weights: Vec<f32>,
    /// Whether it was boosted at all.
    pub(super) is_fitted: bool,
}

impl Linear {
    /// Reads `gradient_booster` for rows of `width` features and `outputs` outputs.
    pub(super) fn read(booster: &Object<'_>, width: usize, outputs: usize) -> Result<Self, Fault> {
        let model = booster.object("model")?;
        let mut weights = model.floats("weights")?;
        let expected = (width + 1) * outputs;
        let rounds = model.parameter("boosted_rounds")?;
        if rounds == Some(0) && weights.is_empty() {
            weights = vec![0.0; expected];
        }
        if weights.len() != expected {
            return Err(Fault(format!(
                "`weights`: {} of them where {width} features and {outputs} outputs need {expected}",
                weights.len()
            )));
        }
        match weights.iter().position(|weight| !weight.is_finite()) {
            Some(index) => Err(Fault(format!("`weights`: number {index} is not finite"))),
            None => Ok(Self {
                weights,
                is_fitted: rounds != Some(0),
            }),
        }
    }

    /// Number of weights and biases.
    pub(super) fn weights(&self) -> usize {
        self.weights.len()
    }

    /// Adds bias and weighted values to the sums of every row; missing values add nothing.
    pub(super) fn add(&self, rows: Rows<'_>, sums: &mut [f32], outputs: usize) {
        let (weights, biases) = self.weights.split_at(self.weights.len() - outputs);
        for (index, sums) in sums.chunks_exact_mut(outputs).enumerate() {
            for (sum, bias) in sums.iter_mut().zip(biases) {
                *sum += bias;
            }
            for (value, weights) in rows.row(index).iter().zip(weights.chunks_exact(outputs)) {
                let value = *value as f32;
                if value.is_nan() {
                    continue;
                }
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum += value * weight;
                }
            }
        }
    }
}

impl Linear {
    /// Writes what each feature adds to an output, and after those of each row the output's bias.
    pub(super) fn contributions(
        &self,
        rows: Rows<'_>,
        output: usize,
        outputs: usize,
        out: &mut [f64],
    ) {
        let weights = self.weights[output..].iter().step_by(outputs);
        for (index, out) in out.chunks_exact_mut(rows.width() + 1).enumerate() {
            // The bias takes the place of a value that is 1.
            let values = rows
                .row(index)
                .iter()
                .map(|value| *value as f32)
                .chain([1.0]);
            for (out, (value, weight)) in out.iter_mut().zip(values.zip(weights.clone())) {
                *out = match value.is_nan() {
                    true => 0.0,
                    false => f64::from(value) * f64::from(*weight),
                };
            }
        }
    }
}
