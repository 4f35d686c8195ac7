//! Functions of one number: of each value of a column, or of what a regressor predicts.

use super::build::{Builder, Built, Columns, per_column, table};
use super::compose::{is_passed, only_checks, steps};
use super::steps::{Chain, Predictor, Transform, missing_or_beyond};
use super::zeros::Zeros;
use crate::document::Fault;
use crate::pickle::View;
use crate::signature::Output;
use crate::{RowRefusal, Rows};

/// How near to 0 and 1 a share may be to have a place in a normal distribution, as in the library.
const SHARE_MIN: f64 = 1e-7;
/// The greatest share, and what the library subtracts from the least one.
const SHARE_MAX: f64 = 1.0 - (SHARE_MIN - f64::EPSILON);

/// A function of one number; what is missing stays missing.
#[derive(Clone, Debug)]
enum Curve {
    Function(fn(f64) -> f64),
    Add(f64),
    Multiply(f64),
    Divide(f64),
    /// Yeo and Johnson, 2000, by its exponent.
    YeoJohnson(f64),
    /// Box and Cox, 1964, by its exponent.
    BoxCox(f64),
    FromYeoJohnson(f64),
    FromBoxCox(f64),
    /// The share of training values below a value.
    ToShare(Quantiles),
    FromShare(Quantiles),
    /// From a share to a value of the normal distribution.
    ToNormal,
    FromNormal,
}

impl Curve {
    fn apply(&self, x: f64) -> f64 {
        match self {
            Self::Function(function) => function(x),
            Self::Add(number) => x + number,
            Self::Multiply(number) => x * number,
            Self::Divide(number) => x / number,
            Self::YeoJohnson(power) if x >= 0.0 => raised(x.ln_1p(), *power),
            Self::YeoJohnson(power) => -raised((-x).ln_1p(), 2.0 - power),
            Self::BoxCox(power) => raised(x.ln(), *power),
            Self::FromYeoJohnson(power) if x >= 0.0 => lowered(x, *power) - 1.0,
            Self::FromYeoJohnson(power) => 1.0 - lowered(-x, 2.0 - power),
            Self::FromBoxCox(power) => lowered(x, *power),
            Self::ToShare(quantiles) => quantiles.share(x),
            Self::FromShare(quantiles) => quantiles.value(x),
            Self::ToNormal => normal_quantile(x.clamp(SHARE_MIN - f64::EPSILON, SHARE_MAX)),
            Self::FromNormal => 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2),
        }
    }
}

/// `(exp(logarithm · power) - 1) / power`, which for the power 0 is the logarithm.
fn raised(logarithm: f64, power: f64) -> f64 {
    match power.abs() < f64::EPSILON {
        true => logarithm,
        false => (power * logarithm).exp_m1() / power,
    }
}

/// What `raised` was given the logarithm of.
fn lowered(x: f64, power: f64) -> f64 {
    match power.abs() < f64::EPSILON {
        true => x.exp(),
        false => (x * power + 1.0).powf(1.0 / power),
    }
}

/// The value at `x` of the line through points, whose places ascend; beyond them, that of the last.
fn interpolated(x: f64, places: &[f64], values: &[f64]) -> f64 {
    let after = places.partition_point(|place| *place <= x);
    match after {
        _ if x.is_nan() => x,
        0 => values[0],
        _ if after == places.len() || places[after - 1] == x => values[after - 1],
        _ => {
            let (before, run) = (after - 1, places[after] - places[after - 1]);
            (values[after] - values[before]) / run * (x - places[before]) + values[before]
        }
    }
}

/// The value of the standard normal distribution with this share of it below, of at least 1e-10 on either side
/// (Wichura, algorithm AS 241, 1988).
fn normal_quantile(share: f64) -> f64 {
    const NEAR: [[f64; 8]; 2] = [
        [
            3.387_132_872_796_366_6,
            133.141_667_891_784_38,
            1_971.590_950_306_551_4,
            13_731.693_765_509_46,
            45_921.953_931_549_87,
            67_265.770_927_008_7,
            33_430.575_583_588_13,
            2_509.080_928_730_122_7,
        ],
        [
            1.0,
            42.313_330_701_600_91,
            687.187_007_492_057_9,
            5_394.196_021_424_751,
            21_213.794_301_586_597,
            39_307.895_800_092_71,
            28_729.085_735_721_943,
            5_226.495_278_852_854,
        ],
    ];
    const FAR: [[f64; 8]; 2] = [
        [
            1.423_437_110_749_683_5,
            4.630_337_846_156_546,
            5.769_497_221_460_691,
            3.647_848_324_763_204_5,
            1.270_458_252_452_368_4,
            0.241_780_725_177_450_6,
            0.022_723_844_989_269_184,
            7.745_450_142_783_414e-4,
        ],
        [
            1.0,
            2.053_191_626_637_759,
            1.676_384_830_183_803_8,
            0.689_767_334_985_1,
            0.148_103_976_427_480_08,
            0.015_198_666_563_616_457,
            5.475_938_084_995_345e-4,
            1.050_750_071_644_416_9e-9,
        ],
    ];
    let ratio = |[above, below]: [[f64; 8]; 2], x: f64| {
        let polynomial = |all: [f64; 8]| all.into_iter().rev().fold(0.0, |sum, one| sum * x + one);
        polynomial(above) / polynomial(below)
    };
    let distance = share - 0.5;
    match distance.abs() <= 0.425 {
        true => distance * ratio(NEAR, 0.180_625 - distance * distance),
        false => {
            let least = share.min(1.0 - share);
            ratio(FAR, (-least.ln()).sqrt() - 1.6).copysign(distance)
        }
    }
}

/// The values below which there are some shares of the training values, both ascending.
#[derive(Clone, Debug)]
struct Quantiles {
    values: Vec<f64>,
    shares: Vec<f64>,
    /// Both negated, from the last to the first.
    mirrored: [Vec<f64>; 2],
    /// How far from the ends something still counts as one of them.
    margin: f64,
}

impl Quantiles {
    fn new(values: Vec<f64>, shares: Vec<f64>, margin: f64) -> Result<Self, Fault> {
        let is_fine = !values.is_empty()
            && values.len() == shares.len()
            && [&values, &shares]
                .iter()
                .all(|all| all.iter().all(|one| one.is_finite()) && all.is_sorted());
        if !is_fine {
            return Err(Fault::new(
                "`quantiles_` and `references_`: not as many of both, or they do not ascend",
            ));
        }
        let mirror = |all: &[f64]| all.iter().rev().map(|one| -one).collect();
        Ok(Self {
            mirrored: [mirror(&values), mirror(&shares)],
            values,
            shares,
            margin,
        })
    }

    /// In the middle of the shares that a value has, if training had it many times.
    fn share(&self, x: f64) -> f64 {
        let (first, last) = (self.values[0], self.values[self.values.len() - 1]);
        let is_near = |distance: f64| distance == 0.0 || distance < self.margin;
        if is_near(x - first) || x < first {
            return 0.0;
        }
        if is_near(last - x) || x > last {
            return 1.0;
        }
        let [values, shares] = &self.mirrored;
        let from_above = interpolated(-x, values, shares);
        0.5 * (interpolated(x, &self.values, &self.shares) - from_above)
    }

    fn value(&self, share: f64) -> f64 {
        let ends = [self.values[0], self.values[self.values.len() - 1]];
        match share {
            share if share < self.margin => ends[0],
            share if 1.0 - share < self.margin => ends[1],
            share => interpolated(share, &self.shares, &self.values),
        }
    }
}

/// Functions for each column, one after the other.
#[derive(Debug)]
struct Curves {
    columns: Vec<Vec<Curve>>,
    takes_missing: bool,
    /// Whether only what is above 0 has a value.
    is_positive: bool,
    /// Whether what is 0 remains so, since a sparse matrix leaves it out.
    keeps_zeros: bool,
}

impl Transform for Curves {
    fn width(&self) -> usize {
        self.columns.len()
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        let refused = missing_or_beyond(f64::MAX);
        let reason = |value: f64| match value {
            value if value.is_nan() && self.takes_missing => None,
            value if value <= 0.0 && self.is_positive => {
                Some("has a number that is not above 0, which the model does not take")
            }
            value => refused(value),
        };
        for index in 0..rows.len() {
            for (curves, value) in self.columns.iter().zip(rows.row(index)) {
                if let Some(reason) = reason(*value) {
                    return Err(RowRefusal {
                        row: index,
                        reason: reason.into(),
                    });
                }
                let value = match self.keeps_zeros && *value == 0.0 {
                    true => 0.0,
                    false => curves
                        .iter()
                        .fold(*value, |value, curve| curve.apply(value)),
                };
                out.push(value);
            }
        }
        Ok(())
    }
}

/// The function of NumPy that has this name, if it is one of a number.
fn function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name.strip_prefix("numpy.")? {
        "abs" | "absolute" | "fabs" => f64::abs,
        "arcsin" => f64::asin,
        "arcsinh" => f64::asinh,
        "arctan" => f64::atan,
        "cbrt" => f64::cbrt,
        "ceil" => f64::ceil,
        "cos" => f64::cos,
        "exp" => f64::exp,
        "exp2" => f64::exp2,
        "expm1" => f64::exp_m1,
        "floor" => f64::floor,
        "log" => f64::ln,
        "log10" => f64::log10,
        "log1p" => f64::ln_1p,
        "log2" => f64::log2,
        "negative" => |x| -x,
        "reciprocal" => f64::recip,
        "rint" => f64::round_ties_even,
        "sin" => f64::sin,
        "sinh" => f64::sinh,
        "sqrt" => f64::sqrt,
        "square" => |x| x * x,
        "tan" => f64::tan,
        "tanh" => f64::tanh,
        "trunc" => f64::trunc,
        _ => return None,
    })
}

/// The curve of a function, none for none.
fn of_function(view: Option<View<'_, '_>>) -> Result<Vec<Curve>, Fault> {
    let Some(view) = view.filter(|view| !view.is_none() && !only_checks(*view)) else {
        return Ok(Vec::new());
    };
    let name = view.as_name();
    let known = name.and_then(function).map(Curve::Function);
    let known = known.ok_or_else(|| {
        Fault(format!(
            "a function is not supported here{}",
            name.map_or(String::new(), |name| format!(" (`{name}`)"))
        ))
    });
    known.map(|curve| vec![curve])
}

/// Reads one of these steps; none if it is another.
pub(super) fn read(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    name: &str,
) -> Result<Option<Built>, Fault> {
    let width = columns.len();
    let (made, takes_missing) = match name {
        "FunctionTransformer" => {
            let curves = of_function(view.get("func"))?;
            if curves.is_empty() {
                let chain = Chain::new(Vec::new(), width);
                return Ok(Some((Box::new(chain), columns.clone())));
            }
            refuse_arguments(view, "kw_args")?;
            (vec![curves; width], !view.boolean("validate")?)
        }
        "PowerTransformer" => (powers(view, columns, false)?, true),
        "QuantileTransformer" if columns.zeros == Zeros::Unknown => {
            return Err(Fault::new(
                "it gets a sparse matrix, of which it changes the zeros that are written and not those that are left \
                 out, and it is not known which are; have the steps before make a dense matrix, and fit the model again",
            ));
        }
        "QuantileTransformer" => (quantiles(view, width, false)?, true),
        _ => return Ok(None),
    };
    builder.take_numbers(columns)?;
    let step = Curves {
        columns: made,
        takes_missing,
        is_positive: name == "PowerTransformer" && view.text("method")? == "box-cox",
        keeps_zeros: columns.zeros != Zeros::Written,
    };
    let (step, after) = (Box::new(step), columns.changed());
    if name != "PowerTransformer" || !view.boolean("standardize")? {
        return Ok(Some((step, after)));
    }
    let (scaler, after) = builder.transform(view.required("_scaler")?, &after)?;
    let chain = Chain::new(vec![step, scaler], width);
    Ok(Some((Box::new(chain), after)))
}

fn refuse_arguments(view: View<'_, '_>, name: &str) -> Result<(), Fault> {
    let given = view.get(name).and_then(View::as_dict).unwrap_or_default();
    match given.is_empty() {
        true => Ok(()),
        false => Err(Fault(format!(
            "`{name}`: functions with arguments are not supported"
        ))),
    }
}

/// The curves of a power transformer, without what standardizes; or what undoes them.
fn powers(
    view: View<'_, '_>,
    columns: &Columns,
    is_undone: bool,
) -> Result<Vec<Vec<Curve>>, Fault> {
    let curve = match (view.text("method")?, is_undone) {
        ("yeo-johnson", false) => Curve::YeoJohnson,
        ("yeo-johnson", true) => Curve::FromYeoJohnson,
        ("box-cox", false) => Curve::BoxCox,
        ("box-cox", true) => Curve::FromBoxCox,
        _ => return Err(Fault::new("`method` is unknown")),
    };
    let powers = per_column(view, "lambdas_", columns)?.into_iter();
    Ok(powers.map(|power| vec![curve(power)]).collect())
}

/// The curves of a quantile transformer, or what undoes them.
fn quantiles(view: View<'_, '_>, width: usize, is_undone: bool) -> Result<Vec<Vec<Curve>>, Fault> {
    let is_normal = match view.text("output_distribution")? {
        "normal" => true,
        "uniform" => false,
        _ => return Err(Fault::new("`output_distribution` is unknown")),
    };
    let margin = if is_normal { SHARE_MIN } else { 0.0 };
    let shares = view.numbers("references_")?;
    let all = table(view, "quantiles_", &[shares.len(), width])?;
    let curves = |column: usize| {
        let values = all.iter().skip(column).step_by(width).copied();
        let quantiles = Quantiles::new(values.collect(), shares.clone(), margin)?;
        Ok(match (is_undone, is_normal) {
            (false, false) => vec![Curve::ToShare(quantiles)],
            (false, true) => vec![Curve::ToShare(quantiles), Curve::ToNormal],
            (true, false) => vec![Curve::FromShare(quantiles)],
            (true, true) => vec![Curve::FromNormal, Curve::FromShare(quantiles)],
        })
    };
    (0..width).map(curves).collect()
}

/// A regressor that was fitted to a target that had been changed.
#[derive(Debug)]
struct Retargeted {
    regressor: Box<dyn Predictor>,
    undo: Vec<Curve>,
}

impl Predictor for Retargeted {
    fn output(&self) -> Output {
        self.regressor.output()
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        self.regressor.predict(rows, out)?;
        for value in out.iter_mut() {
            *value = self
                .undo
                .iter()
                .fold(*value, |value, curve| curve.apply(value));
        }
        Ok(())
    }

    fn detail(&self) -> Option<String> {
        self.regressor.detail()
    }
}

/// Reads a regressor of a changed target; none if it is another estimator.
pub(super) fn retargeted(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    name: &str,
) -> Result<Option<Box<dyn Predictor>>, Fault> {
    if name != "TransformedTargetRegressor" {
        return Ok(None);
    }
    let regressor = builder.predictor(view.required("regressor_")?, columns)?;
    let is_one = regressor.output() == Output::Numbers { count: 1 };
    if !is_one || !regressor.more().is_empty() {
        return Err(Fault::new("`regressor_`: only one number can be changed"));
    }
    let undo = undo(builder, view.required("transformer_")?)?;
    Ok(Some(Box::new(Retargeted { regressor, undo })))
}

/// What undoes a step that changed one number.
fn undo(builder: &mut Builder, view: View<'_, '_>) -> Result<Vec<Curve>, Fault> {
    let one = |name: &str| {
        let numbers = view.numbers(name)?;
        let one = numbers.first().copied().filter(|_| numbers.len() == 1);
        one.ok_or_else(|| {
            Fault(format!(
                "`{name}`: {} numbers for one target",
                numbers.len()
            ))
        })
    };
    let first = |curves: Vec<Vec<Curve>>| curves.into_iter().flatten().collect::<Vec<_>>();
    builder.within(view, |builder, name| {
        let mut curves = Vec::new();
        match name {
            "Pipeline" => {
                let steps = steps(view)?;
                let steps = steps.iter().rev().map(|step| step.estimator);
                for step in steps.filter(|step| !is_passed(*step)) {
                    curves.extend(undo(builder, step)?);
                }
            }
            "FunctionTransformer" => {
                refuse_arguments(view, "inv_kw_args")?;
                curves = of_function(view.get("inverse_func"))?;
            }
            "StandardScaler" => {
                if view.boolean("with_std")? {
                    curves.push(Curve::Multiply(one("scale_")?));
                }
                if view.boolean("with_mean")? {
                    curves.push(Curve::Add(one("mean_")?));
                }
            }
            "MinMaxScaler" => {
                curves.push(Curve::Add(-one("min_")?));
                curves.push(Curve::Divide(one("scale_")?));
            }
            "MaxAbsScaler" => curves.push(Curve::Multiply(one("scale_")?)),
            "RobustScaler" => {
                if view.boolean("with_scaling")? {
                    curves.push(Curve::Multiply(one("scale_")?));
                }
                if view.boolean("with_centering")? {
                    curves.push(Curve::Add(one("center_")?));
                }
            }
            "PowerTransformer" => {
                if view.boolean("standardize")? {
                    curves = undo(builder, view.required("_scaler")?)?;
                }
                curves.extend(first(powers(view, &Columns::inputs(1), true)?));
            }
            "QuantileTransformer" => curves = first(quantiles(view, 1, true)?),
            _ => return Err(Fault::new("this transformer of a target is not supported")),
        }
        Ok(curves)
    })
}

#[cfg(test)]
mod tests {
    use super::normal_quantile;

    /// Numbers of `scipy.stats.norm.ppf` of 1.17.
    #[test]
    fn quantiles_of_the_normal_distribution() {
        for (share, wanted) in [
            (9.999_999_977_795_539e-8, -5.199_337_582_605_575),
            (1e-5, -4.264_890_793_922_825),
            (0.01, -2.326_347_874_040_840_8),
            (0.074_999_9, -1.439_532_177_375_901),
            (0.075, -1.439_531_470_938_456_3),
            (0.3, -0.524_400_512_708_041),
            (0.5, 0.0),
            (0.6, 0.253_347_103_135_799_7),
            (0.925, 1.439_531_470_938_456_3),
            (0.99, 2.326_347_874_040_840_8),
            (0.999_999_9, 5.199_337_582_290_661),
        ] {
            let found = normal_quantile(share);
            assert!(
                (found - wanted).abs() <= 1e-14 * wanted.abs(),
                "{share}: {found}"
            );
        }
    }
}
