//! Support vector machines, as libsvm has them.

use super::build::{class_count, table};
use super::decay::decay;
use super::link::{greatest, of_classes};
use super::steps::{Predictor, Transform, refuse_missing};
use super::vectors::{Vectors, is_sparse};
use crate::document::{Fault, named, shorten};
use crate::pickle::View;
use crate::signature::Output;
use crate::{RowRefusal, Rows};

/// How near to 0 or 1 the probability of one of two classes may be.
const NEAREST: f64 = 1e-7;

/// Of how many classes probabilities are found, whose work grows with the cube of it.
const CLASSES_MAX: usize = 1024;

#[derive(Clone, Copy, Debug)]
enum Kernel {
    Linear,
    Poly(i32),
    Rbf,
    Sigmoid,
}

/// The vectors that rows are compared with.
#[derive(Debug)]
struct Support {
    vectors: Vectors,
    kernel: Kernel,
    gamma: f64,
    coef0: f64,
}

impl Support {
    fn read(view: View<'_, '_>, width: usize) -> Result<Self, Fault> {
        let kernel = view.required("kernel")?;
        let kernel = match kernel.as_text() {
            Some("linear") => Kernel::Linear,
            Some("poly") => {
                let degree = view.required("degree")?;
                let whole = degree
                    .as_integer()
                    .and_then(|degree| i32::try_from(degree).ok());
                let whole = whole.filter(|degree| *degree >= 0);
                Kernel::Poly(whole.ok_or_else(|| degree.expected("a whole number"))?)
            }
            Some("rbf") => Kernel::Rbf,
            Some("sigmoid") => Kernel::Sigmoid,
            Some(other) => {
                return Err(Fault(format!(
                    "the kernel `{}` is not supported",
                    shorten(other)
                )));
            }
            None => return Err(kernel.expected("the name of a kernel")),
        };
        let gamma = view.number("_gamma")?;
        if matches!(kernel, Kernel::Rbf) && !(0.0..f64::INFINITY).contains(&gamma) {
            return Err(Fault::new("`_gamma`: expected a number of at least 0"));
        }
        Ok(Self {
            vectors: Vectors::read(view, "support_vectors_", width)?,
            kernel,
            gamma,
            coef0: view.number("coef0")?,
        })
    }

    /// What the kernel makes of a row and each vector.
    fn kernels(&self, row: &[f64], made: &mut Vec<f64>) {
        let given = self.vectors.given(row);
        *made = match self.kernel {
            Kernel::Rbf => self
                .vectors
                .fold(&given, |sum, x, y| sum + (x - y) * (x - y)),
            _ => self.vectors.products(&given),
        };
        let change = |made: &mut [f64], change: &dyn Fn(f64) -> f64| {
            made.iter_mut().for_each(|made| *made = change(*made));
        };
        let inside = |made: f64| self.gamma * made + self.coef0;
        match self.kernel {
            Kernel::Linear => {}
            Kernel::Poly(degree) => change(made, &|made| inside(made).powi(degree)),
            Kernel::Sigmoid => change(made, &|made| inside(made).tanh()),
            Kernel::Rbf => {
                made.iter_mut().for_each(|made| *made *= -self.gamma);
                decay(made);
            }
        }
    }
}

/// The factors of the vectors, in rows of which each has one for every vector.
fn factors(view: View<'_, '_>, rows: usize, count: usize) -> Result<Vec<f64>, Fault> {
    const NAME: &str = "_dual_coef_";
    let matrix = view.required(NAME)?;
    if !is_sparse(matrix) {
        return table(view, NAME, &[rows, count]);
    }
    // All are there, one row after the other.
    let factors = table(matrix, "data", &[rows * count]).map_err(named(NAME))?;
    let places = matrix.array("indices")?.integers().map_err(named(NAME))?;
    let is_full = places
        .iter()
        .zip((0..count as i64).cycle())
        .all(|(place, at)| *place == at);
    match is_full {
        true => Ok(factors),
        false => Err(Fault(format!("`{NAME}`: some vectors have no factor"))),
    }
}

/// A sum of kernels.
#[derive(Debug)]
struct Sum {
    support: Support,
    factors: Vec<f64>,
    constant: f64,
}

impl Predictor for Sum {
    fn output(&self) -> Output {
        Output::Numbers { count: 1 }
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        let mut kernels = Vec::new();
        for (index, out) in out.iter_mut().enumerate() {
            self.support.kernels(rows.row(index), &mut kernels);
            let products = self.factors.iter().zip(&kernels);
            *out = products
                .map(|(factor, kernel)| factor * kernel)
                .sum::<f64>()
                + self.constant;
        }
        Ok(())
    }
}

/// A machine for each pair of classes.
#[derive(Debug)]
struct Pairs {
    support: Support,
    classes: usize,
    /// Where the vectors of each class begin, and where the last ones end.
    starts: Vec<usize>,
    factors: Vec<f64>,
    constants: Vec<f64>,
    /// What makes probabilities of the sums, if anything does.
    sigmoids: Option<Vec<(f64, f64)>>,
    /// Whether classes that have as many votes are told apart by the sums.
    breaks_ties: bool,
    /// Whether the decision is one for each class, in place of each pair.
    is_by_class: bool,
}

impl Pairs {
    /// The sum of each pair; above 0 it is for the first class.
    fn sums(&self, row: &[f64], kernels: &mut Vec<f64>) -> Vec<f64> {
        self.support.kernels(row, kernels);
        let part = |row: usize, class: usize| {
            let range = self.starts[class]..self.starts[class + 1];
            let factors = &self.factors[row * kernels.len()..][range.clone()];
            let products = factors.iter().zip(&kernels[range]);
            products
                .map(|(factor, kernel)| factor * kernel)
                .sum::<f64>()
        };
        let pairs = pairs(self.classes).zip(&self.constants);
        pairs
            .map(|((i, j), constant)| part(j - 1, i) + part(i, j) + constant)
            .collect()
    }

    /// The class that most pairs are for.
    fn choose_by(&self, sums: &[f64]) -> usize {
        if self.breaks_ties && self.classes > 2 {
            return greatest(&self.by_class(sums));
        }
        greatest(&self.votes(sums))
    }

    fn votes(&self, sums: &[f64]) -> Vec<f64> {
        let mut votes = vec![0.0; self.classes];
        for ((i, j), sum) in pairs(self.classes).zip(sums) {
            votes[if *sum > 0.0 { i } else { j }] += 1.0;
        }
        votes
    }

    /// For each class its votes, and less than a vote by how sure they are.
    fn by_class(&self, sums: &[f64]) -> Vec<f64> {
        let mut votes = vec![0.0; self.classes];
        let mut sure = vec![0.0; self.classes];
        for ((i, j), sum) in pairs(self.classes).zip(sums) {
            votes[if *sum < 0.0 { j } else { i }] += 1.0;
            sure[i] += sum;
            sure[j] -= sum;
        }
        let parts = votes.iter().zip(sure);
        parts
            .map(|(votes, sure): (&f64, f64)| votes + sure / (3.0 * (sure.abs() + 1.0)))
            .collect()
    }
}

/// All pairs of so many classes.
fn pairs(classes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..classes).flat_map(move |i| (i + 1..classes).map(move |j| (i, j)))
}

/// Probabilities of all classes from those of pairs (Wu, Lin and Weng, 2004), as libsvm finds them.
fn coupled(classes: usize, sums: &[f64], sigmoids: &[(f64, f64)]) -> Vec<f64> {
    let mut of_pair = vec![0.0; classes * classes];
    for (((i, j), sum), (a, b)) in pairs(classes).zip(sums).zip(sigmoids) {
        let inner = sum * a + b;
        let own: f64 = match inner >= 0.0 {
            true => (-inner).exp() / (1.0 + (-inner).exp()),
            false => 1.0 / (1.0 + inner.exp()),
        };
        let own = own.clamp(NEAREST, 1.0 - NEAREST);
        (of_pair[i * classes + j], of_pair[j * classes + i]) = (own, 1.0 - own);
    }
    let mut q = vec![0.0; classes * classes];
    for i in 0..classes {
        for j in (0..classes).filter(|j| *j != i) {
            let (to, from) = (of_pair[j * classes + i], of_pair[i * classes + j]);
            q[i * classes + i] += to * to;
            q[i * classes + j] = -to * from;
        }
    }
    settle(&q, classes)
}

/// The distribution `p` that makes `p Q p` least, as far as libsvm goes.
fn settle(q: &[f64], classes: usize) -> Vec<f64> {
    let mut p = vec![1.0 / classes as f64; classes];
    for _ in 0..classes.max(100) {
        let products = q.chunks_exact(classes);
        let products = products.map(|row| row.iter().zip(&p).map(|(q, p)| q * p).sum());
        let mut qp: Vec<f64> = products.collect();
        let mut pqp: f64 = p.iter().zip(&qp).map(|(p, qp)| p * qp).sum();
        let error = qp.iter().map(|qp| (qp - pqp).abs()).fold(0.0, f64::max);
        if error < 0.005 / classes as f64 {
            break;
        }
        for i in 0..classes {
            let own = q[i * classes + i];
            let step = (pqp - qp[i]) / own;
            p[i] += step;
            pqp = (pqp + step * (step * own + 2.0 * qp[i])) / (1.0 + step) / (1.0 + step);
            for j in 0..classes {
                qp[j] = (qp[j] + step * q[i * classes + j]) / (1.0 + step);
                p[j] /= 1.0 + step;
            }
        }
    }
    p
}

impl Predictor for Pairs {
    fn output(&self) -> Output {
        match self.sigmoids {
            Some(_) => of_classes(self.classes),
            None => Output::Class {
                classes: self.classes,
            },
        }
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        let mut kernels = Vec::new();
        let width = self.output().width();
        for (index, out) in out.chunks_exact_mut(width).enumerate() {
            let sums = self.sums(rows.row(index), &mut kernels);
            match &self.sigmoids {
                Some(sigmoids) => {
                    let all = coupled(self.classes, &sums, sigmoids);
                    out.copy_from_slice(&all[self.classes - width..]);
                }
                None => out[0] = self.choose_by(&sums) as f64,
            }
        }
        Ok(())
    }

    fn choose(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        let mut kernels = Vec::new();
        for (index, out) in out.iter_mut().enumerate() {
            *out = self.choose_by(&self.sums(rows.row(index), &mut kernels)) as f64;
        }
        Ok(())
    }

    fn decision(&self) -> Option<&dyn Transform> {
        Some(self)
    }
}

/// The decision: of two classes one number, above 0 for the second.
impl Transform for Pairs {
    fn width(&self) -> usize {
        match (self.classes, self.is_by_class) {
            (2, _) => 1,
            (classes, true) => classes,
            (_, false) => self.constants.len(),
        }
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        let mut kernels = Vec::new();
        for index in 0..rows.len() {
            let sums = self.sums(rows.row(index), &mut kernels);
            match (&sums[..], self.is_by_class) {
                ([sum], _) => out.push(-sum),
                (_, true) => out.extend(self.by_class(&sums)),
                (_, false) => out.extend(sums),
            }
        }
        Ok(())
    }
}

/// Reads a support vector machine; none if the estimator is none.
pub(super) fn read(
    view: View<'_, '_>,
    name: &str,
    width: usize,
) -> Result<Option<Box<dyn Predictor>>, Fault> {
    Ok(Some(match name {
        "SVC" | "NuSVC" => Box::new(classifier(view, width)?),
        "SVR" | "NuSVR" => Box::new(regressor(view, width)?),
        _ => return Ok(None),
    }))
}

fn regressor(view: View<'_, '_>, width: usize) -> Result<Sum, Fault> {
    let support = Support::read(view, width)?;
    let [constant] = table(view, "_intercept_", &[1])?[..] else {
        return Err(Fault::new("`_intercept_`: expected one number"));
    };
    Ok(Sum {
        factors: factors(view, 1, support.vectors.len())?,
        support,
        constant,
    })
}

fn classifier(view: View<'_, '_>, width: usize) -> Result<Pairs, Fault> {
    let (support, classes) = (Support::read(view, width)?, class_count(view)?);
    let count = support.vectors.len();
    let constants = view.numbers("_intercept_")?;
    let all = classes.checked_mul(classes - 1).map(|twice| twice / 2);
    if Some(constants.len()) != all {
        return Err(Fault(format!(
            "`_intercept_`: {} numbers for {classes} classes",
            constants.len()
        )));
    }
    let mut starts = vec![0];
    for own in view
        .array("_n_support")?
        .integers()
        .map_err(named("_n_support"))?
    {
        let end = usize::try_from(own)
            .ok()
            .and_then(|own| own.checked_add(starts[starts.len() - 1]));
        starts.push(end.ok_or_else(|| Fault::new("`_n_support`: no number of vectors"))?);
    }
    if starts.len() != classes + 1 || starts[classes] != count {
        return Err(Fault(format!(
            "`_n_support`: it does not tell of which of {classes} classes each of {count} vectors is"
        )));
    }
    // 1.9 and newer may leave it to a step around it.
    let has_probabilities = view.get("probability").and_then(View::as_bool) == Some(true);
    let sigmoids = match has_probabilities {
        true if classes > CLASSES_MAX => {
            return Err(Fault(format!(
                "probabilities of more than {CLASSES_MAX} classes"
            )));
        }
        true => {
            let slopes = table(view, "_probA", &[constants.len()])?;
            let places = table(view, "_probB", &[constants.len()])?;
            Some(slopes.into_iter().zip(places).collect())
        }
        false => None,
    };
    let is_by_class = match view.text("decision_function_shape")? {
        "ovr" => true,
        "ovo" => false,
        _ => {
            return Err(Fault::new(
                "`decision_function_shape` is none that is known",
            ));
        }
    };
    Ok(Pairs {
        factors: factors(view, classes - 1, count)?,
        support,
        classes,
        starts,
        constants,
        sigmoids,
        breaks_ties: is_by_class && view.boolean("break_ties")?,
        is_by_class,
    })
}
