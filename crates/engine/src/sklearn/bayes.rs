//! Naive Bayes.

use super::build::{class_count, table};
use super::factors::Factors;
use super::link::{of_classes, probabilities};
use super::sparse::SparseRows;
use super::steps::{Predictor, predict_dense, refuse_missing};
use crate::document::Fault;
use crate::pickle::{Array, View};
use crate::signature::Output;
use crate::{RowRefusal, Rows};

/// Logarithms of likelihoods, added column by column.
#[derive(Debug)]
struct Bayes {
    /// What each class has without any column.
    constants: Vec<f64>,
    likelihood: Likelihood,
}

/// What a column adds; tables have a row for each class.
#[derive(Debug)]
enum Likelihood {
    Normal {
        means: Vec<f64>,
        variances: Vec<f64>,
    },
    /// Each value times its factor; of the value only whether it is above a threshold, if there is one.
    Factors {
        factors: Factors,
        threshold: Option<f64>,
    },
    /// A table for each column, with a number for each category.
    Categories(Vec<Vec<f64>>),
}

impl Likelihood {
    /// Adds what a row has to the sum of each class.
    fn add(&self, row: &[f64], sums: &mut [f64]) -> Result<(), String> {
        match self {
            Self::Normal { means, variances } => {
                let tables = means.chunks_exact(row.len());
                let tables = tables.zip(variances.chunks_exact(row.len()));
                for ((means, variances), sum) in tables.zip(sums) {
                    let parts = row.iter().zip(means).zip(variances);
                    let squares = parts.map(|((x, mean), variance)| (x - mean).powi(2) / variance);
                    *sum -= 0.5 * squares.sum::<f64>();
                }
            }
            Self::Factors { factors, threshold } => {
                let mut made = vec![0.0; sums.len()];
                match threshold {
                    None => factors.write(row, &mut made),
                    Some(threshold) => {
                        let above = |value: &f64| f64::from(u8::from(value > threshold));
                        let row: Vec<f64> = row.iter().map(above).collect();
                        factors.write(&row, &mut made);
                    }
                }
                sums.iter_mut()
                    .zip(made)
                    .for_each(|(sum, made)| *sum += made);
            }
            Self::Categories(columns) => {
                for (table, value) in columns.iter().zip(row) {
                    let count = table.len() / sums.len();
                    let category = value.trunc();
                    if !(0.0..count as f64).contains(&category) {
                        return Err("has a category that the model does not know".into());
                    }
                    for (numbers, sum) in table.chunks_exact(count).zip(&mut *sums) {
                        *sum += numbers[category as usize];
                    }
                }
            }
        }
        Ok(())
    }
}

impl Predictor for Bayes {
    fn output(&self) -> Output {
        of_classes(self.constants.len())
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        let mut sums = Vec::new();
        let width = self.output().width();
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            sums.clear();
            sums.extend_from_slice(&self.constants);
            let added = self.likelihood.add(rows.row(row), &mut sums);
            added.map_err(|reason| RowRefusal { row, reason })?;
            probabilities(&mut sums, out);
        }
        Ok(())
    }

    fn takes_sparse(&self) -> bool {
        matches!(
            self.likelihood,
            Likelihood::Factors {
                threshold: None,
                ..
            }
        )
    }

    fn predict_sparse(
        &self,
        rows: &SparseRows,
        width: usize,
        out: &mut [f64],
    ) -> Result<(), RowRefusal> {
        let Likelihood::Factors {
            factors,
            threshold: None,
        } = &self.likelihood
        else {
            return predict_dense(self, rows, width, out);
        };
        rows.refuse_missing()?;
        let mut sums = vec![0.0; self.constants.len()];
        let width = self.output().width();
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            factors.write_sparse(rows.row(row), &mut sums);
            let constants = sums.iter_mut().zip(&self.constants);
            constants.for_each(|(sum, constant)| *sum += constant);
            probabilities(&mut sums, out);
        }
        Ok(())
    }
}

/// Reads a classifier by naive Bayes; none if the estimator is none.
pub(super) fn read(
    view: View<'_, '_>,
    name: &str,
    width: usize,
) -> Result<Option<Box<dyn Predictor>>, Fault> {
    let bayes = match name {
        "GaussianNB" => normal(view, width)?,
        "MultinomialNB" => counts(view, width, true)?,
        "ComplementNB" => counts(view, width, false)?,
        "BernoulliNB" => bernoulli(view, width)?,
        "CategoricalNB" => categories(view, width)?,
        _ => return Ok(None),
    };
    Ok(Some(Box::new(bayes)))
}

fn normal(view: View<'_, '_>, width: usize) -> Result<Bayes, Fault> {
    let classes = class_count(view)?;
    let means = table(view, "theta_", &[classes, width])?;
    let variances = table(view, "var_", &[classes, width])?;
    let priors = table(view, "class_prior_", &[classes])?;
    let constant = |(prior, variances): (&f64, &[f64])| {
        let spread = variances
            .iter()
            .map(|variance| (std::f64::consts::TAU * variance).ln());
        prior.ln() - 0.5 * spread.sum::<f64>()
    };
    let parts = priors.iter().zip(variances.chunks_exact(width));
    Ok(Bayes {
        constants: parts.map(constant).collect(),
        likelihood: Likelihood::Normal { means, variances },
    })
}

fn factors(
    view: View<'_, '_>,
    width: usize,
    has_priors: bool,
) -> Result<(Vec<f64>, Vec<f64>), Fault> {
    let classes = class_count(view)?;
    let constants = match has_priors {
        true => table(view, "class_log_prior_", &[classes])?,
        false => vec![0.0; classes],
    };
    let factors = table(view, "feature_log_prob_", &[classes, width])?;
    Ok((factors, constants))
}

fn of_factors(factors: &[f64], constants: Vec<f64>, threshold: Option<f64>) -> Bayes {
    Bayes {
        likelihood: Likelihood::Factors {
            factors: Factors::by_sum(factors, constants.len()),
            threshold,
        },
        constants,
    }
}

fn counts(view: View<'_, '_>, width: usize, has_priors: bool) -> Result<Bayes, Fault> {
    let (factors, constants) = factors(view, width, has_priors)?;
    Ok(of_factors(&factors, constants, None))
}

/// A column that is 0 counts too: all are taken to be, and those that are not make up for it.
fn bernoulli(view: View<'_, '_>, width: usize) -> Result<Bayes, Fault> {
    let threshold = match view.required("binarize")? {
        none if none.is_none() => None,
        _ => Some(view.number("binarize")?),
    };
    let (mut factors, mut constants) = factors(view, width, true)?;
    for (factors, constant) in factors.chunks_exact_mut(width).zip(&mut constants) {
        let mut absent = 0.0;
        for factor in factors {
            let without = (1.0 - factor.exp()).ln();
            *factor -= without;
            absent += without;
        }
        *constant += absent;
    }
    Ok(of_factors(&factors, constants, threshold))
}

fn categories(view: View<'_, '_>, width: usize) -> Result<Bayes, Fault> {
    const NAME: &str = "feature_log_prob_";
    let classes = class_count(view)?;
    let tables = view.list(NAME)?;
    if tables.len() != width {
        return Err(Fault(format!(
            "`{NAME}`: {} tables for {width} columns",
            tables.len()
        )));
    }
    let table_of = |view: View<'_, '_>| {
        let array = Array::read(view)?;
        match array.shape() {
            [rows, _] if *rows == classes => array.numbers(),
            shape => Err(Fault(format!(
                "`{NAME}`: an array of the shape {shape:?} for {classes} classes"
            ))),
        }
    };
    let tables: Result<Vec<_>, Fault> = tables.into_iter().map(table_of).collect();
    Ok(Bayes {
        constants: table(view, "class_log_prior_", &[classes])?,
        likelihood: Likelihood::Categories(tables?),
    })
}
