//! Linear models of `ai.onnx.ml`.

use super::classes::{Transform, greatest, required_labels};
use super::{Context, Run, input};
use crate::document::Fault;
use crate::onnx::proto::Node;
use crate::onnx::tensor::{Tensor, bounded};

/// Factors, a row of them for each sum, and what the sums start from.
#[derive(Debug)]
struct Sums {
    factors: Vec<f32>,
    starts: Vec<f32>,
    width: usize,
}

impl Sums {
    fn new(node: &Node<'_>, sums: usize) -> Result<Self, Fault> {
        let factors = node.floats("coefficients").to_vec();
        let mut starts = node.floats("intercepts").to_vec();
        if starts.is_empty() {
            starts = vec![0.0; sums];
        }
        if sums == 0
            || factors.is_empty()
            || !factors.len().is_multiple_of(sums)
            || starts.len() != sums
        {
            return Err(Fault(format!(
                "`coefficients`: {} numbers and {} intercepts for {sums} sums",
                factors.len(),
                starts.len()
            )));
        }
        let width = factors.len() / sums;
        Ok(Self {
            factors,
            starts,
            width,
        })
    }

    fn of(&self, given: &Tensor, context: &Context) -> Result<(usize, Vec<f32>), Fault> {
        let (rows, columns) = given.as_rows()?;
        if columns != self.width {
            return Err(Fault(format!(
                "{columns} columns for a model of {}",
                self.width
            )));
        }
        bounded(&[rows, self.starts.len()])?;
        context.spend(rows.saturating_mul(self.factors.len()))?;
        let values = given.to_floats()?;
        let mut made = Vec::with_capacity(rows * self.starts.len());
        for row in values.chunks_exact(columns) {
            for (factors, start) in self.factors.chunks_exact(columns).zip(&self.starts) {
                let products = factors
                    .iter()
                    .zip(row)
                    .map(|(factor, value)| factor * value);
                made.push(products.sum::<f32>() + start);
            }
        }
        Ok((rows, made))
    }
}

pub(super) fn regressor(node: &Node<'_>) -> Result<Run, Fault> {
    let targets = usize::try_from(node.integer("targets").unwrap_or(1)).unwrap_or(0);
    let (sums, transform) = (Sums::new(node, targets)?, Transform::read(node)?);
    Ok(Box::new(move |inputs, context| {
        let (rows, mut made) = sums.of(input(inputs, 0)?, context)?;
        made.chunks_exact_mut(targets)
            .for_each(|row| transform.apply(row));
        Ok(vec![Tensor::floats(vec![rows, targets], made)])
    }))
}

/// With one sum for two classes, the first has what is left to 1.
pub(super) fn classifier(node: &Node<'_>) -> Result<Run, Fault> {
    let (labels, transform) = (required_labels(node)?, Transform::read(node)?);
    let count = match node.floats("intercepts").len() {
        0 => labels.len(),
        count => count,
    };
    let sums = Sums::new(node, count)?;
    let is_single = count == 1 && labels.len() == 2;
    if !is_single && count != labels.len() {
        return Err(Fault(format!("{count} sums for {} classes", labels.len())));
    }
    Ok(Box::new(move |inputs, context| {
        let (rows, made) = sums.of(input(inputs, 0)?, context)?;
        let (mut chosen, mut scores) = (Vec::with_capacity(rows), Vec::with_capacity(rows * 2));
        for row in made.chunks_exact(count) {
            if let ([sum], true) = (row, is_single) {
                chosen.push(usize::from(*sum > 0.0));
                let mut one = [*sum];
                match transform {
                    Transform::Logistic | Transform::Probit => transform.apply(&mut one),
                    _ => {}
                }
                scores.extend([1.0 - one[0], one[0]]);
            } else {
                chosen.push(greatest(row));
                let start = scores.len();
                scores.extend_from_slice(row);
                transform.apply(&mut scores[start..]);
            }
        }
        let width = scores.len().checked_div(rows).unwrap_or(count);
        Ok(vec![
            labels.of(chosen),
            Tensor::floats(vec![rows, width], scores),
        ])
    }))
}
