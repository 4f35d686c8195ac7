//! Support vector machines, as libsvm has them.

use super::classes::{Labels, Transform, greatest, logistic, required_labels};
use super::{Context, Run, input};
use crate::document::Fault;
use crate::onnx::proto::Node;
use crate::onnx::tensor::{Tensor, bounded};

/// How near to 0 or 1 the probability of one of two classes may be.
const NEAREST: f32 = 1e-7;

/// Classes between whose pairs a machine may decide.
const CLASSES_MAX: usize = 1024;

#[derive(Debug, Clone, Copy)]
enum Kernel {
    Linear,
    Poly,
    Rbf,
    Sigmoid,
}

/// Vectors that a row is compared with.
#[derive(Debug)]
struct Vectors {
    values: Vec<f32>,
    count: usize,
    kernel: Kernel,
    gamma: f32,
    coef0: f32,
    degree: f32,
}

impl Vectors {
    fn new(node: &Node<'_>, name: &str, count: usize, is_linear: bool) -> Result<Self, Fault> {
        let values = node.floats(name).to_vec();
        if count == 0 || values.is_empty() || !values.len().is_multiple_of(count) {
            return Err(Fault(format!(
                "`{name}`: {} numbers for {count} vectors",
                values.len()
            )));
        }
        let kernel = match node.text("kernel_type")? {
            _ if is_linear => Kernel::Linear,
            None | Some("LINEAR") => Kernel::Linear,
            Some("POLY") => Kernel::Poly,
            Some("RBF") => Kernel::Rbf,
            Some("SIGMOID") => Kernel::Sigmoid,
            Some(_) => return Err(Fault::new("`kernel_type` is none that is known")),
        };
        let parameter = |index: usize| {
            node.floats("kernel_params")
                .get(index)
                .copied()
                .unwrap_or(0.0)
        };
        let [gamma, coef0, degree] = [0, 1, 2].map(parameter);
        Ok(Self {
            values,
            count,
            kernel,
            gamma,
            coef0,
            degree,
        })
    }

    /// What the kernel makes of each row and each vector.
    fn of(&self, given: &Tensor, context: &Context) -> Result<(usize, Vec<f32>), Fault> {
        let ((rows, columns), width) = (given.as_rows()?, self.values.len() / self.count);
        if columns != width {
            return Err(Fault(format!("{columns} columns for a model of {width}")));
        }
        bounded(&[rows, self.count])?;
        context.spend(rows.saturating_mul(self.values.len()))?;
        let values = given.to_floats()?;
        let mut made = Vec::with_capacity(rows * self.count);
        for row in values.chunks_exact(width) {
            let vectors = self.values.chunks_exact(width);
            made.extend(vectors.map(|vector| self.kernel(vector.iter().zip(row))));
        }
        Ok((rows, made))
    }

    fn kernel<'v>(&self, pairs: impl Iterator<Item = (&'v f32, &'v f32)>) -> f32 {
        if let Kernel::Rbf = self.kernel {
            let distance: f32 = pairs.map(|(a, b)| (a - b) * (a - b)).sum();
            return (-self.gamma * distance).exp();
        }
        let product: f32 = pairs.map(|(a, b)| a * b).sum();
        let inside = self.gamma * product + self.coef0;
        match self.kernel {
            Kernel::Poly => inside.powf(self.degree),
            Kernel::Sigmoid => inside.tanh(),
            Kernel::Linear | Kernel::Rbf => product,
        }
    }
}

pub(super) fn regressor(node: &Node<'_>) -> Result<Run, Fault> {
    let count = usize::try_from(node.integer("n_supports").unwrap_or(0)).unwrap_or(0);
    let is_linear = count == 0;
    let vectors = match is_linear {
        true => Vectors::new(node, "coefficients", 1, true)?,
        false => Vectors::new(node, "support_vectors", count, false)?,
    };
    let factors = if is_linear {
        vec![1.0]
    } else {
        node.floats("coefficients").to_vec()
    };
    let [rho] = node.floats("rho")[..] else {
        return Err(Fault::new("`rho`: not one number"));
    };
    if factors.len() != vectors.count {
        return Err(Fault(format!(
            "`coefficients`: {} for {count} vectors",
            factors.len()
        )));
    }
    let is_one_class = node.integer("one_class").unwrap_or(0) != 0;
    if Transform::read(node)? != Transform::None {
        return Err(Fault::new("is not supported with a `post_transform`"));
    }
    Ok(Box::new(move |inputs, context| {
        let (rows, kernels) = vectors.of(input(inputs, 0)?, context)?;
        let sum = |row: &[f32]| {
            let sum = row
                .iter()
                .zip(&factors)
                .map(|(value, factor)| value * factor)
                .sum::<f32>()
                + rho;
            match (is_one_class, sum > 0.0) {
                (false, _) => sum,
                (true, true) => 1.0,
                (true, false) => -1.0,
            }
        };
        let made = kernels.chunks_exact(factors.len()).map(sum).collect();
        Ok(vec![Tensor::floats(vec![rows, 1], made)])
    }))
}

/// A machine for each pair of classes.
#[derive(Debug)]
struct Pairs {
    labels: Labels,
    classes: usize,
    /// Where the vectors of each class begin, and where the last ones end.
    starts: Vec<usize>,
    factors: Vec<f32>,
    rho: Vec<f32>,
    /// Probabilities, where the model has them.
    sigmoid: Option<(Vec<f32>, Vec<f32>)>,
}

impl Pairs {
    fn new(node: &Node<'_>) -> Result<Self, Fault> {
        let labels = required_labels(node)?;
        let classes = labels.len();
        if !(2..=CLASSES_MAX).contains(&classes) {
            return Err(Fault(format!(
                "{classes} classes; 2 to {CLASSES_MAX} are supported"
            )));
        }
        let mut starts = vec![0usize];
        for count in node.integers("vectors_per_class") {
            let last = starts[starts.len() - 1];
            let next = usize::try_from(*count)
                .ok()
                .and_then(|count| last.checked_add(count));
            starts.push(next.ok_or_else(|| Fault::new("`vectors_per_class`: a number below 0"))?);
        }
        let pairs = classes * (classes - 1) / 2;
        let vectors = starts[starts.len() - 1];
        let (factors, rho) = (
            node.floats("coefficients").to_vec(),
            node.floats("rho").to_vec(),
        );
        let (a, b) = (
            node.floats("prob_a").to_vec(),
            node.floats("prob_b").to_vec(),
        );
        let fits = starts.len() == classes + 1
            && Some(factors.len()) == vectors.checked_mul(classes - 1)
            && rho.len() == pairs
            && a.len() == b.len()
            && (a.is_empty() || a.len() == pairs);
        if !fits {
            return Err(Fault(format!(
                "lists that do not fit {classes} classes and {vectors} vectors"
            )));
        }
        let sigmoid = (!a.is_empty()).then_some((a, b));
        Ok(Self {
            labels,
            classes,
            starts,
            factors,
            rho,
            sigmoid,
        })
    }

    /// The sum of each pair, and the class that most pairs decide for.
    fn decide(&self, kernels: &[f32]) -> (Vec<f32>, usize) {
        let mut sums = Vec::with_capacity(self.rho.len());
        let mut votes = vec![0f32; self.classes];
        for i in 0..self.classes {
            for j in i + 1..self.classes {
                let part = |row: usize, class: usize| {
                    let range = self.starts[class]..self.starts[class + 1];
                    let factors = &self.factors[row * kernels.len()..][range.clone()];
                    let products = factors.iter().zip(&kernels[range]);
                    products
                        .map(|(factor, value)| f64::from(factor * value))
                        .sum::<f64>()
                };
                let sum = part(j - 1, i) + part(i, j) + f64::from(self.rho[sums.len()]);
                votes[if sum > 0.0 { i } else { j }] += 1.0;
                sums.push(sum as f32);
            }
        }
        (sums, greatest(&votes))
    }

    /// Probabilities of all classes from those of pairs (Wu, Lin and Weng, 2004), as libsvm finds them.
    fn probabilities(&self, sums: &[f32], (a, b): &(Vec<f32>, Vec<f32>)) -> Vec<f32> {
        let count = self.classes;
        let mut of_pair = vec![0f32; count * count];
        let mut index = 0;
        for i in 0..count {
            for j in i + 1..count {
                let own = 1.0 - logistic(sums[index] * a[index] + b[index]);
                let own = own.clamp(NEAREST, 1.0 - NEAREST);
                (of_pair[i * count + j], of_pair[j * count + i]) = (own, 1.0 - own);
                index += 1;
            }
        }
        let mut q = vec![0f32; count * count];
        for i in 0..count {
            for j in (0..count).filter(|j| *j != i) {
                let (to, from) = (of_pair[j * count + i], of_pair[i * count + j]);
                q[i * count + i] += to * to;
                q[i * count + j] = -to * from;
            }
        }
        settle(&q, count)
    }
}

/// The distribution `p` that makes `p Q p` least.
fn settle(q: &[f32], count: usize) -> Vec<f32> {
    let mut p = vec![1.0 / count as f32; count];
    for _ in 0..100 {
        let mut qp: Vec<f32> = q
            .chunks_exact(count)
            .map(|row| row.iter().zip(&p).map(|(q, p)| q * p).sum())
            .collect();
        let mut pqp: f32 = p.iter().zip(&qp).map(|(p, qp)| p * qp).sum();
        let error = qp.iter().map(|qp| (qp - pqp).abs()).fold(0.0, f32::max);
        if error < 0.005 / count as f32 {
            break;
        }
        for i in 0..count {
            let own = q[i * count + i];
            let step = (pqp - qp[i]) / own;
            p[i] += step;
            pqp = (pqp + step * (step * own + 2.0 * qp[i])) / (1.0 + step) / (1.0 + step);
            for j in 0..count {
                qp[j] = (qp[j] + step * q[i * count + j]) / (1.0 + step);
                p[j] /= 1.0 + step;
            }
        }
    }
    p
}

pub(super) fn classifier(node: &Node<'_>) -> Result<Run, Fault> {
    if node.integers("vectors_per_class").is_empty() {
        return Err(Fault::new(
            "is supported with support vectors only; convert the linear model as such",
        ));
    }
    let (pairs, transform) = (Pairs::new(node)?, Transform::read(node)?);
    let count = pairs.starts[pairs.classes];
    let vectors = Vectors::new(node, "support_vectors", count, false)?;
    Ok(Box::new(move |inputs, context| {
        let (rows, kernels) = vectors.of(input(inputs, 0)?, context)?;
        context.spend(rows.saturating_mul(pairs.factors.len()))?;
        let (mut chosen, mut scores) = (Vec::with_capacity(rows), Vec::new());
        for kernels in kernels.chunks_exact(count) {
            let (sums, class) = pairs.decide(kernels);
            chosen.push(class);
            let mut own = match &pairs.sigmoid {
                Some(sigmoid) => pairs.probabilities(&sums, sigmoid),
                None => match sums[..] {
                    [sum] if transform == Transform::None => vec![-sum, sum],
                    [sum] => vec![1.0 - sum, sum],
                    _ => sums,
                },
            };
            if own.len() != 2 || pairs.sigmoid.is_some() {
                transform.apply(&mut own);
            }
            scores.extend(own);
        }
        let width = scores.len().checked_div(rows).unwrap_or(pairs.classes);
        bounded(&[rows, width])?;
        Ok(vec![
            pairs.labels.of(chosen),
            Tensor::floats(vec![rows, width], scores),
        ])
    }))
}
