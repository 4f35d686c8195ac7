//! Steps that hold others: pipelines, and parts of the columns side by side.

use std::collections::HashMap;

use super::build::{Builder, Built, Columns};
use super::sparse::SparseRows;
use super::steps::{Chain, Transform};
use super::zeros::Zeros;
use crate::document::{Fault, named};
use crate::pickle::{Array, View};
use crate::{RowRefusal, Rows};

/// A step of a pipeline.
#[derive(Clone, Copy)]
pub(super) struct Step<'p, 'a> {
    pub(super) name: &'p str,
    pub(super) estimator: View<'p, 'a>,
}

/// Steps on parts of the columns; what they make stands side by side.
#[derive(Debug)]
struct SideBySide {
    parts: Vec<Part>,
    width: usize,
}

#[derive(Debug)]
struct Part {
    /// Which columns it gets.
    columns: Vec<u32>,
    step: Box<dyn Transform>,
}

impl Transform for SideBySide {
    fn width(&self) -> usize {
        self.width
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        let mut given = Vec::new();
        let mut made = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let mut values = Vec::with_capacity(rows.len() * part.step.width());
            part.step.apply(part.of(rows, &mut given), &mut values)?;
            made.push(values);
        }
        for index in 0..rows.len() {
            for (part, values) in self.parts.iter().zip(&made) {
                let width = part.step.width();
                out.extend_from_slice(&values[index * width..][..width]);
            }
        }
        Ok(())
    }

    fn is_sparse(&self) -> bool {
        self.parts.iter().any(|part| part.step.is_sparse())
    }

    fn apply_sparse(&self, rows: Rows<'_>, out: &mut SparseRows) -> Result<(), RowRefusal> {
        let mut given = Vec::new();
        let mut made = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let mut own = SparseRows::default();
            part.step
                .apply_sparse(part.of(rows, &mut given), &mut own)?;
            made.push(own);
        }
        for index in 0..rows.len() {
            let mut first = 0;
            for (part, own) in self.parts.iter().zip(&made) {
                let own = own.row(index).iter();
                out.entries
                    .extend(own.map(|(column, value)| (first + column, *value)));
                first += part.step.width() as u32;
            }
            out.end_row();
        }
        Ok(())
    }
}

impl Part {
    /// The columns it gets of some rows.
    fn of<'g>(&self, rows: Rows<'g>, given: &'g mut Vec<f64>) -> Rows<'g> {
        given.clear();
        for index in 0..rows.len() {
            let row = rows.row(index);
            given.extend(self.columns.iter().map(|column| row[*column as usize]));
        }
        rows.reshaped(given, self.columns.len())
    }
}

impl SideBySide {
    fn new(parts: Vec<Part>) -> Self {
        let width = parts.iter().map(|part| part.step.width()).sum();
        Self { parts, width }
    }
}

/// Whether a step is one that does nothing.
pub(super) fn is_passed(step: View<'_, '_>) -> bool {
    step.is_none() || step.as_text() == Some("passthrough")
}

/// The steps of a pipeline.
pub(super) fn steps<'p, 'a>(view: View<'p, 'a>) -> Result<Vec<Step<'p, 'a>>, Fault> {
    steps_of(view, "steps")
}

/// Estimators and their names.
pub(super) fn steps_of<'p, 'a>(view: View<'p, 'a>, list: &str) -> Result<Vec<Step<'p, 'a>>, Fault> {
    let step = |step: &View<'p, 'a>| match step.as_list().as_deref() {
        Some([name, estimator]) => name.as_text().map(|name| Step {
            name,
            estimator: *estimator,
        }),
        _ => None,
    };
    let steps: Option<Vec<_>> = view.list(list)?.iter().map(step).collect();
    steps.ok_or_else(|| {
        Fault(format!(
            "`{list}`: expected pairs of a name and an estimator"
        ))
    })
}

/// Reads steps that make rows of others, one after the other.
pub(super) fn chain(
    builder: &mut Builder,
    steps: &[Step<'_, '_>],
    columns: &Columns,
) -> Result<(Chain, Columns), Fault> {
    let (mut read, mut after) = (Vec::new(), columns.clone());
    for step in steps.iter().filter(|step| !is_passed(step.estimator)) {
        let built = builder.transform(step.estimator, &after);
        let (transform, columns) =
            built.map_err(|fault| fault.inside(format_args!("step `{}`", step.name)))?;
        read.push(transform);
        after = columns;
    }
    Ok((Chain::new(read, columns.len()), after))
}

pub(super) fn pipeline(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
) -> Result<Built, Fault> {
    let (chain, columns) = chain(builder, &steps(view)?, columns)?;
    Ok((Box::new(chain), columns))
}

/// Whether a function is the library's check of numbers that takes missing ones, which changes none.
pub(super) fn only_checks(function: View<'_, '_>) -> bool {
    let arguments = function.arguments();
    let [checked] = arguments[..] else {
        return false;
    };
    let keywords = function.state().and_then(View::as_list);
    let keywords = keywords
        .and_then(|state| state.get(2)?.as_dict())
        .unwrap_or_default();
    let takes_missing = keywords.iter().any(|[name, value]| {
        let is_it = matches!(
            name.as_text(),
            Some("ensure_all_finite" | "force_all_finite")
        );
        is_it && value.as_bool() == Some(false)
    });
    function.class() == Some("functools.partial")
        && checked.as_name() == Some("sklearn.utils.validation.check_array")
        && takes_missing
}

pub(super) fn column_transformer(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
) -> Result<Built, Fault> {
    refuse_weights(view)?;
    let names = match view.get("feature_names_in_") {
        Some(names) => Array::read(names)?.texts().unwrap_or_default(),
        None => Vec::new(),
    };
    let places = names.iter().enumerate();
    let names: HashMap<&str, usize> = places.map(|(place, name)| (&**name, place)).collect();
    let mut zeros = match view.boolean("sparse_output_")? {
        true => Zeros::LeftOut,
        false => Zeros::Written,
    };
    let (mut parts, mut after) = (Vec::new(), Vec::new());
    for part in view.list("transformers_")? {
        let list = part.as_list();
        let Some([name, step, chosen]) = list.as_deref() else {
            return Err(part.expected("a name, a transformer and columns"));
        };
        if step.as_text() == Some("drop") {
            continue;
        }
        let name = name.as_text().unwrap_or_default();
        let inside = |fault: Fault| fault.inside(format_args!("`{name}`"));
        let find = |text: &str| names.get(text).copied();
        let chosen = select(*chosen, columns.len(), &find).map_err(inside)?;
        if chosen.is_empty() {
            continue;
        }
        builder.spend(chosen.len())?;
        let given = columns.at(&chosen);
        let (step, made): Built = match is_passed(*step) {
            true => (Box::new(Chain::new(Vec::new(), given.len())), given),
            false => builder.transform(*step, &given).map_err(inside)?,
        };
        if zeros != Zeros::Written {
            zeros = zeros.max(made.zeros);
        }
        after.extend(made.list);
        parts.push(Part {
            columns: chosen,
            step,
        });
    }
    let after = Columns { list: after, zeros };
    Ok((Box::new(SideBySide::new(parts)), after))
}

pub(super) fn feature_union(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
) -> Result<Built, Fault> {
    refuse_weights(view)?;
    let (mut parts, mut after, mut zeros) = (Vec::new(), Vec::new(), Zeros::Written);
    for part in view.list("transformer_list")? {
        let list = part.as_list();
        let Some([name, step]) = list.as_deref() else {
            return Err(part.expected("a name and a transformer"));
        };
        if step.as_text() == Some("drop") {
            continue;
        }
        builder.spend(columns.len())?;
        let (step, made): Built = match is_passed(*step) {
            true => (
                Box::new(Chain::new(Vec::new(), columns.len())),
                columns.clone(),
            ),
            false => builder.transform(*step, columns).map_err(|fault| {
                fault.inside(format_args!("`{}`", name.as_text().unwrap_or_default()))
            })?,
        };
        zeros = zeros.max(made.zeros);
        after.extend(made.list);
        parts.push(Part {
            columns: (0..columns.len() as u32).collect(),
            step,
        });
    }
    let after = Columns { list: after, zeros };
    Ok((Box::new(SideBySide::new(parts)), after))
}

fn refuse_weights(view: View<'_, '_>) -> Result<(), Fault> {
    match view.get("transformer_weights") {
        Some(weights) if !weights.is_none() => {
            Err(Fault::new("`transformer_weights` are not supported"))
        }
        _ => Ok(()),
    }
}

/// The columns that are chosen by names, numbers, a slice or a mask.
fn select(
    chosen: View<'_, '_>,
    width: usize,
    find: &dyn Fn(&str) -> Option<usize>,
) -> Result<Vec<u32>, Fault> {
    if chosen.class() == Some("builtins.slice") {
        return slice(chosen, width, find);
    }
    // Columns of the remainder, in versions that warn where they are used.
    let chosen = match chosen.class() {
        Some(class) if class.ends_with("._RemainderColsList") => chosen.required("data")?,
        _ => chosen,
    };
    if let Ok(array) = Array::read(chosen) {
        if let Some(names) = array.texts() {
            let mut names = names.iter();
            return names.try_fold(Vec::new(), |mut all, name| {
                all.push(by_name(name, find)?);
                Ok(all)
            });
        }
        if array.is_boolean() {
            let mask = (0..array.len()).filter(|index| array.boolean(*index) == Some(true));
            return mask.map(|index| by_number(index as i64, width)).collect();
        }
        let numbers = array.integers()?;
        return numbers
            .into_iter()
            .map(|index| by_number(index, width))
            .collect();
    }
    let items = chosen.as_list().unwrap_or_else(|| vec![chosen]);
    if items.len() == width && items.iter().all(|item| item.as_bool().is_some()) {
        let mask = items.iter().enumerate();
        let mask = mask.filter(|(_, item)| item.as_bool() == Some(true));
        return mask
            .map(|(index, _)| by_number(index as i64, width))
            .collect();
    }
    items
        .into_iter()
        .map(|item| match (item.as_text(), item.as_integer()) {
            (Some(name), _) => by_name(name, find),
            (_, Some(index)) => by_number(index, width),
            _ => Err(item.expected(
                "columns as a list of names or numbers, a slice or a mask; give them to the ColumnTransformer so",
            )),
        })
        .collect()
}

fn by_name(name: &str, find: &dyn Fn(&str) -> Option<usize>) -> Result<u32, Fault> {
    let place = find(name).map(|place| place as u32);
    place.ok_or_else(|| {
        Fault(format!(
            "there is no column `{}`",
            crate::document::shorten(name)
        ))
    })
}

/// From the end where it is negative.
fn by_number(index: i64, width: usize) -> Result<u32, Fault> {
    let from_end = if index < 0 { width as i64 } else { 0 };
    let place = index.checked_add(from_end);
    let place = place.and_then(|place| u32::try_from(place).ok());
    let place = place.filter(|place| (*place as usize) < width);
    place.ok_or_else(|| Fault(format!("column {index} is outside the {width} there are")))
}

/// By Python's rules for numbers; the end is included where it is a name.
fn slice(
    chosen: View<'_, '_>,
    width: usize,
    find: &dyn Fn(&str) -> Option<usize>,
) -> Result<Vec<u32>, Fault> {
    let parts = chosen.arguments();
    let [start, stop, step] = parts[..] else {
        return Err(chosen.expected("a slice of three parts"));
    };
    let step = if step.is_none() {
        Some(1)
    } else {
        step.as_integer()
    };
    let step = step
        .and_then(|step| usize::try_from(step).ok())
        .filter(|step| *step > 0);
    let step = step.ok_or_else(|| Fault::new("a slice without a positive step"))?;
    let bound = |part: View<'_, '_>, absent: usize, beyond: usize| {
        if part.is_none() {
            return Ok(absent);
        }
        if let Some(name) = part.as_text() {
            return by_name(name, find).map(|place| place as usize + beyond);
        }
        let index = part.as_integer().ok_or_else(|| part.expected("a column"))?;
        let from_end = if index < 0 { width as i64 } else { 0 };
        Ok(index.saturating_add(from_end).clamp(0, width as i64) as usize)
    };
    let start = bound(start, 0, 0).map_err(named("start"))?;
    let stop = bound(stop, width, 1).map_err(named("stop"))?;
    Ok((start..stop)
        .step_by(step)
        .map(|column| column as u32)
        .collect())
}
