//! Gaussian processes: a record is compared with all fitted rows by a kernel that is made of others.
//!
//! Classifiers follow Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), Algorithm 3.2; the
//! integral at its end is that of the library, which takes five error functions for the logistic function
//! (Williams and Barber, 1998, Appendix A).

use std::f64::consts::PI;

use super::build::table;
use super::link::{of_classes, share};
use super::steps::{Predictor, refuse_missing};
use crate::document::{Fault, named};
use crate::pickle::View;
use crate::signature::Output;
use crate::{RowRefusal, Rows};

/// How many fitted rows a model may have. The work of a classifier grows with the square of it.
const ROWS_MAX: usize = 4096;
/// How many kernels a kernel may be made of, and how deeply.
const KERNELS_MAX: usize = 64;
/// What the library makes the logistic function of: how steep each error function is, and how much it counts.
const ERROR_FUNCTIONS: [(f64, f64); 5] = [
    (0.41, -1854.8214151),
    (0.4, 3516.89893646),
    (0.37, 221.29346712),
    (0.44, 128.12323805),
    (0.39, -2010.49422654),
];

#[derive(Debug)]
enum Kernel {
    Constant(f64),
    /// Only between a row and itself.
    White(f64),
    Rbf(Vec<f64>),
    Matern(Smoothness, Vec<f64>),
    RationalQuadratic {
        alpha: f64,
        scale: f64,
    },
    DotProduct(f64),
    ExpSineSquared {
        period: f64,
        scale: f64,
    },
    Sum(Box<[Kernel; 2]>),
    Product(Box<[Kernel; 2]>),
    Power(Box<Kernel>, f64),
}

/// How often functions of a Matérn kernel can be differentiated, and a half more.
#[derive(Clone, Copy, Debug)]
enum Smoothness {
    Half,
    OneAndHalf,
    TwoAndHalf,
    Infinite,
}

impl Kernel {
    fn read(view: View<'_, '_>, width: usize, left: &mut usize) -> Result<Self, Fault> {
        *left = left
            .checked_sub(1)
            .ok_or_else(|| Fault(format!("a kernel made of more than {KERNELS_MAX} others")))?;
        let class = view.class().unwrap_or_default();
        let name = class.strip_prefix("sklearn.gaussian_process.kernels.");
        let name = name.ok_or_else(|| view.expected("a kernel of scikit-learn"))?;
        let mut inner = |part: &str| {
            let kernel = Self::read(view.required(part)?, width, left);
            kernel.map_err(named(part))
        };
        let positive = |part: &str| match view.number(part)? {
            number if number > 0.0 => Ok(number),
            _ => Err(Fault(format!("`{part}`: expected a positive number"))),
        };
        Ok(match name {
            "Sum" => Self::Sum(Box::new([inner("k1")?, inner("k2")?])),
            "Product" => Self::Product(Box::new([inner("k1")?, inner("k2")?])),
            "Exponentiation" => Self::Power(Box::new(inner("kernel")?), view.number("exponent")?),
            "ConstantKernel" => Self::Constant(view.number("constant_value")?),
            "WhiteKernel" => Self::White(view.number("noise_level")?),
            "RBF" => Self::Rbf(scales(view, width)?),
            "Matern" => {
                let smoothness = match view.number("nu")? {
                    0.5 => Smoothness::Half,
                    1.5 => Smoothness::OneAndHalf,
                    2.5 => Smoothness::TwoAndHalf,
                    f64::INFINITY => Smoothness::Infinite,
                    other => {
                        return Err(Fault(format!(
                            "Matern: `nu`: {other} is not supported; 0.5, 1.5, 2.5 and infinity are"
                        )));
                    }
                };
                Self::Matern(smoothness, scales(view, width)?)
            }
            "RationalQuadratic" => Self::RationalQuadratic {
                alpha: positive("alpha")?,
                scale: positive("length_scale")?,
            },
            "DotProduct" => Self::DotProduct(view.number("sigma_0")?),
            "ExpSineSquared" => Self::ExpSineSquared {
                period: positive("periodicity")?,
                scale: positive("length_scale")?,
            },
            _ => return Err(Fault(format!("the kernel `{name}` is not supported"))),
        })
    }

    /// What it makes of two rows.
    fn between(&self, x: &[f64], y: &[f64]) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::White(_) => 0.0,
            Self::Rbf(scales) => (-0.5 * square(x, y, scales)).exp(),
            Self::Matern(smoothness, scales) => {
                let distance = square(x, y, scales).sqrt();
                match smoothness {
                    Smoothness::Half => (-distance).exp(),
                    Smoothness::OneAndHalf => {
                        let far = distance * 3f64.sqrt();
                        (1.0 + far) * (-far).exp()
                    }
                    Smoothness::TwoAndHalf => {
                        let far = distance * 5f64.sqrt();
                        (1.0 + far + far * far / 3.0) * (-far).exp()
                    }
                    Smoothness::Infinite => (-(distance * distance) / 2.0).exp(),
                }
            }
            Self::RationalQuadratic { alpha, scale } => {
                let far = square(x, y, &[1.0]) / (2.0 * alpha * scale * scale);
                (1.0 + far).powf(-alpha)
            }
            Self::DotProduct(constant) => {
                let products = x.iter().zip(y).map(|(x, y)| x * y);
                products.sum::<f64>() + constant * constant
            }
            Self::ExpSineSquared { period, scale } => {
                let sine = (PI * (square(x, y, &[1.0]).sqrt() / period)).sin() / scale;
                (-2.0 * sine * sine).exp()
            }
            Self::Sum(parts) => parts[0].between(x, y) + parts[1].between(x, y),
            Self::Product(parts) => parts[0].between(x, y) * parts[1].between(x, y),
            Self::Power(kernel, exponent) => kernel.between(x, y).powf(*exponent),
        }
    }

    /// What it makes of a row and itself.
    fn within(&self, x: &[f64]) -> f64 {
        match self {
            Self::Constant(value) | Self::White(value) => *value,
            Self::DotProduct(_) => self.between(x, x),
            Self::Sum(parts) => parts[0].within(x) + parts[1].within(x),
            Self::Product(parts) => parts[0].within(x) * parts[1].within(x),
            Self::Power(kernel, exponent) => kernel.within(x).powf(*exponent),
            _ => 1.0,
        }
    }
}

/// One length for all columns, or one for each.
fn scales(view: View<'_, '_>, width: usize) -> Result<Vec<f64>, Fault> {
    const NAME: &str = "length_scale";
    let scales = per_target(view, NAME)?;
    match scales.len() {
        count if count != 1 && count != width => Err(Fault(format!(
            "`{NAME}`: {count} numbers for {width} columns"
        ))),
        _ if scales.iter().all(|scale| *scale > 0.0) => Ok(scales),
        _ => Err(Fault(format!("`{NAME}`: expected positive numbers"))),
    }
}

/// A number, or an array of them.
fn per_target(view: View<'_, '_>, name: &str) -> Result<Vec<f64>, Fault> {
    let value = view.required(name)?;
    match (value.as_number(), value.as_list()) {
        (Some(number), _) => Ok(vec![number]),
        (_, Some(items)) => {
            let numbers: Option<Vec<f64>> = items.iter().map(|item| item.as_number()).collect();
            numbers
                .ok_or_else(|| value.expected("numbers"))
                .map_err(named(name))
        }
        _ => view.numbers(name),
    }
}

/// The square of the distance between two rows, in their scales.
fn square(x: &[f64], y: &[f64], scales: &[f64]) -> f64 {
    let pairs = x.iter().zip(y).zip(scales.iter().cycle());
    pairs
        .map(|((x, y), scale)| x / scale - y / scale)
        .map(|difference| difference * difference)
        .sum()
}

/// The rows that a model was fitted to, and how others are compared with them.
#[derive(Debug)]
struct Kept {
    kernel: Kernel,
    rows: Vec<f64>,
    width: usize,
}

impl Kept {
    fn read(view: View<'_, '_>, width: usize) -> Result<Self, Fault> {
        let count = match *view.array("X_train_")?.shape() {
            [count, _] if (1..=ROWS_MAX).contains(&count) => count,
            [count, _] => {
                return Err(Fault(format!(
                    "it keeps {count} rows, and up to {ROWS_MAX} are supported"
                )));
            }
            _ => {
                return Err(Fault::new(
                    "`X_train_`: expected an array of two dimensions",
                ));
            }
        };
        let kernel = Kernel::read(view.required("kernel_")?, width, &mut { KERNELS_MAX });
        Ok(Self {
            kernel: kernel.map_err(named("kernel_"))?,
            rows: table(view, "X_train_", &[count, width])?,
            width,
        })
    }

    fn len(&self) -> usize {
        self.rows.len() / self.width
    }

    /// What the kernel makes of a row and each of these.
    fn compare(&self, row: &[f64]) -> Vec<f64> {
        let rows = self.rows.chunks_exact(self.width);
        rows.map(|kept| self.kernel.between(row, kept)).collect()
    }
}

/// Numbers from a process for each target.
#[derive(Debug)]
struct Regression {
    kept: Kept,
    /// How much each kept row counts for each target.
    factors: Vec<f64>,
    scales: Vec<f64>,
    means: Vec<f64>,
}

impl Predictor for Regression {
    fn output(&self) -> Output {
        Output::Numbers {
            count: self.means.len(),
        }
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        let targets = self.means.len();
        for (index, out) in out.chunks_exact_mut(targets).enumerate() {
            out.fill(0.0);
            let near = self.kept.compare(rows.row(index));
            for (near, factors) in near.iter().zip(self.factors.chunks_exact(targets)) {
                for (out, factor) in out.iter_mut().zip(factors) {
                    *out += near * factor;
                }
            }
            for (out, (scale, mean)) in out.iter_mut().zip(self.scales.iter().zip(&self.means)) {
                *out = scale * *out + mean;
            }
        }
        Ok(())
    }
}

/// The probability of a class against all others.
#[derive(Debug)]
struct Judge {
    kept: Kept,
    /// What training was wrong by at each kept row.
    residuals: Vec<f64>,
    /// The root of how certain it was there.
    certainties: Vec<f64>,
    /// A triangle of factors, column by column, each from the diagonal on.
    columns: Vec<f64>,
}

impl Judge {
    fn read(view: View<'_, '_>, width: usize) -> Result<Self, Fault> {
        let kept = Kept::read(view, width)?;
        let count = kept.len();
        let wanted = table(view, "y_train_", &[count])?;
        let given = table(view, "pi_", &[count])?;
        let lower = table(view, "L_", &[count, count])?;
        let column = |place: usize| (place..count).map(move |row| (row, place));
        let places = (0..count).flat_map(column);
        Ok(Self {
            residuals: wanted.iter().zip(&given).map(|(y, p)| y - p).collect(),
            certainties: table(view, "W_sr_", &[count])?,
            columns: places
                .map(|(row, place)| lower[row * count + place])
                .collect(),
            kept,
        })
    }

    fn probability(&self, row: &[f64]) -> f64 {
        let near = self.kept.compare(row);
        let mean: f64 = near.iter().zip(&self.residuals).map(|(k, r)| k * r).sum();
        let parts = near.iter().zip(&self.certainties);
        let mut rest: Vec<f64> = parts.map(|(near, certainty)| certainty * near).collect();
        let (mut left, mut columns, mut known) = (&mut rest[..], &self.columns[..], 0.0);
        while let [first, others @ ..] = left {
            let (factors, later) = columns.split_at(1 + others.len());
            let solved = *first / factors[0];
            known += solved * solved;
            for (rest, factor) in others.iter_mut().zip(&factors[1..]) {
                *rest -= factor * solved;
            }
            (left, columns) = (others, later);
        }
        let variance = self.kept.kernel.within(row) - known;
        let alpha = 1.0 / (2.0 * variance);
        let area = |steepness: f64| {
            let inside = steepness * mean * (alpha / (alpha + steepness * steepness)).sqrt();
            (PI / alpha).sqrt() * libm::erf(inside) / (2.0 * (variance * 2.0 * PI).sqrt())
        };
        let areas = ERROR_FUNCTIONS
            .iter()
            .map(|(steepness, share)| share * area(*steepness));
        let shares = ERROR_FUNCTIONS.iter().map(|(_, share)| share);
        areas.sum::<f64>() + 0.5 * shares.sum::<f64>()
    }
}

/// Probabilities of classes, of which each is judged alone if there are more than two.
#[derive(Debug)]
struct Classification {
    judges: Vec<Judge>,
}

impl Predictor for Classification {
    fn output(&self) -> Output {
        of_classes(self.judges.len().max(2))
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        for (index, out) in out.chunks_exact_mut(self.judges.len()).enumerate() {
            for (judge, out) in self.judges.iter().zip(&mut *out) {
                *out = judge.probability(rows.row(index));
            }
            share(out);
            if out.iter().any(|probability| probability.is_nan()) {
                return Err(RowRefusal {
                    row: index,
                    reason: "has no probability, to the library neither".into(),
                });
            }
        }
        Ok(())
    }
}

/// Reads a Gaussian process; none if the estimator is none.
pub(super) fn read(
    view: View<'_, '_>,
    name: &str,
    width: usize,
) -> Result<Option<Box<dyn Predictor>>, Fault> {
    match name {
        "GaussianProcessRegressor" => regression(view, width).map(Some),
        "GaussianProcessClassifier" => classification(view, width).map(Some),
        _ => Ok(None),
    }
}

fn regression(view: View<'_, '_>, width: usize) -> Result<Box<dyn Predictor>, Fault> {
    let kept = Kept::read(view, width)?;
    let shape = view.array("alpha_")?.shape().to_vec();
    let targets = match shape[..] {
        [rows] if rows == kept.len() => 1,
        [rows, targets] if rows == kept.len() && targets > 0 => targets,
        _ => {
            return Err(Fault(format!(
                "`alpha_`: an array of the shape {shape:?} for {} rows",
                kept.len()
            )));
        }
    };
    let each = |name: &str| {
        let mut numbers = per_target(view, name)?;
        if numbers.len() == 1 {
            numbers.resize(targets, numbers[0]);
        }
        match numbers.len() == targets {
            true => Ok(numbers),
            false => Err(Fault(format!(
                "`{name}`: {} numbers for {targets} targets",
                numbers.len()
            ))),
        }
    };
    Ok(Box::new(Regression {
        factors: table(view, "alpha_", &shape)?,
        scales: each("_y_train_std")?,
        means: each("_y_train_mean")?,
        kept,
    }))
}

fn classification(view: View<'_, '_>, width: usize) -> Result<Box<dyn Predictor>, Fault> {
    let base = view.required("base_estimator_")?;
    let class = base.class().and_then(|class| class.rsplit('.').next());
    let parts = match class {
        Some("_BinaryGaussianProcessClassifierLaplace") => vec![base],
        Some("OneVsRestClassifier") => {
            base.list("estimators_").map_err(named("base_estimator_"))?
        }
        _ => {
            return Err(base.expected("classes that are judged one against the rest"))
                .map_err(named("base_estimator_"));
        }
    };
    let classes = super::build::class_count(view)?;
    if parts.len() != if classes == 2 { 1 } else { classes } {
        return Err(Fault(format!(
            "`base_estimator_`: {} processes for {classes} classes",
            parts.len()
        )));
    }
    let judges = parts.into_iter().enumerate().map(|(index, part)| {
        Judge::read(part, width).map_err(|fault| fault.inside(format_args!("process {index}")))
    });
    Ok(Box::new(Classification {
        judges: judges.collect::<Result<_, _>>()?,
    }))
}
