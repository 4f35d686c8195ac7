//! Categories that become numbers.

use std::collections::HashMap;

use super::build::{Builder, Built, Column, Columns, Use};
use super::is_none;
use super::steps::Transform;
use crate::document::{Fault, named};
use crate::pickle::{Array, View};
use crate::{RowRefusal, Rows};

/// From here on not every whole number is one of `f64`, as which values come.
const WHOLE_MAX: u64 = 1 << 53;

/// The categories of a column, and the place of each.
#[derive(Debug, Default)]
struct Categories {
    /// By the bits of a number, or of the number of a word.
    places: HashMap<u64, u32>,
    /// The places of NaN and of `None`.
    missing: Option<u32>,
    none: Option<u32>,
    count: usize,
}

/// Bits that are the same for numbers that are equal.
fn key(value: f64) -> u64 {
    (value + 0.0).to_bits()
}

impl Categories {
    fn place(&self, value: f64) -> Option<u32> {
        match value.is_nan() {
            true if is_none(value) => self.none,
            true => self.missing,
            false => self.places.get(&key(value)).copied(),
        }
    }

    /// Reads what a column may have; `is_strict` is whether anything else is an error.
    fn read(
        builder: &mut Builder,
        array: &Array<'_, '_>,
        column: Column,
        is_strict: bool,
    ) -> Result<Self, Fault> {
        builder.spend(array.len())?;
        let mut categories = Self {
            count: array.len(),
            ..Self::default()
        };
        let (mut texts, mut kind, mut first) = (Vec::new(), None, None);
        for index in 0..array.len() {
            if array
                .integer(index)
                .is_some_and(|whole| whole.unsigned_abs() >= WHOLE_MAX)
            {
                return Err(Fault::new(
                    "a category is a whole number of 2^53 or more, which other numbers would be taken for; make texts of \
                     them in the data, and fit the model again",
                ));
            }
            let (value, found) = match (array.text(index), array.number(index)) {
                (Some(text), _) => {
                    texts.push(text.clone().into_owned());
                    (builder.word(&text), Use::Text)
                }
                (None, _) if let Some(flag) = array.boolean(index) => {
                    (f64::from(u8::from(flag)), Use::Boolean)
                }
                (None, Some(number)) if !number.is_nan() => (number, Use::Number),
                (None, Some(_)) if categories.missing.is_none() => {
                    categories.missing = Some(index as u32);
                    continue;
                }
                (None, None) if array.is_none(index) && categories.none.is_none() => {
                    categories.none = Some(index as u32);
                    continue;
                }
                _ => {
                    return Err(Fault::new(
                        "a category of an unknown type, or one that is there twice; make texts of them in the data, and \
                         fit the model again",
                    ));
                }
            };
            if kind
                .replace(found.clone())
                .is_some_and(|kind| kind != found)
            {
                return Err(Fault::new(
                    "categories of which some are texts and some are not",
                ));
            }
            if categories.places.insert(key(value), index as u32).is_some() {
                return Err(Fault::new("a category that is there twice"));
            }
            first.get_or_insert(value);
        }
        if categories.none.is_some() {
            if categories.missing.is_some() {
                return Err(Fault::new(
                    "both None and NaN are categories of a column, and null can stand for one of them only; replace \
                     one by the other in the data, and fit the model again",
                ));
            }
            builder.take_none(column);
        }
        builder.take(column, kind.unwrap_or(Use::Number))?;
        if is_strict {
            builder.limit(column, texts, first);
        }
        Ok(categories)
    }
}

/// Where a category goes in what is made of a column.
#[derive(Debug)]
struct OneHotColumn {
    categories: Categories,
    /// Place among the columns made, none where all are 0.
    targets: Vec<Option<u32>>,
    width: usize,
    unknown: Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Unknown {
    Refused,
    /// Place among the columns made, if one is for it.
    Target(Option<u32>),
}

/// A column for each category.
#[derive(Debug)]
struct OneHot {
    columns: Vec<OneHotColumn>,
    width: usize,
}

fn unknown_category(row: usize) -> RowRefusal {
    RowRefusal {
        row,
        reason: "has a category that the model does not know".into(),
    }
}

impl Transform for OneHot {
    fn width(&self) -> usize {
        self.width
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        for index in 0..rows.len() {
            for (column, value) in self.columns.iter().zip(rows.row(index)) {
                let target = match (column.categories.place(*value), column.unknown) {
                    (Some(place), _) => column.targets[place as usize],
                    (None, Unknown::Target(target)) => target,
                    (None, Unknown::Refused) => return Err(unknown_category(index)),
                };
                let start = out.len();
                out.resize(start + column.width, 0.0);
                if let Some(target) = target {
                    out[start + target as usize] = 1.0;
                }
            }
        }
        Ok(())
    }
}

/// A number for each category.
#[derive(Debug)]
struct Ordinal {
    /// With the number of each place, and that of what is unknown.
    columns: Vec<(Categories, Vec<f64>, Option<f64>)>,
}

impl Transform for Ordinal {
    fn width(&self) -> usize {
        self.columns.len()
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        for index in 0..rows.len() {
            for ((categories, numbers, unknown), value) in self.columns.iter().zip(rows.row(index))
            {
                let number = match categories.place(*value) {
                    Some(place) => Some(numbers[place as usize]),
                    None => *unknown,
                };
                out.push(number.ok_or_else(|| unknown_category(index))?);
            }
        }
        Ok(())
    }
}

/// The categories of an encoder, one array for each column.
fn categories<'p, 'a>(view: View<'p, 'a>, columns: &Columns) -> Result<Vec<Array<'p, 'a>>, Fault> {
    let lists = view.list("categories_")?;
    if lists.len() != columns.len() {
        return Err(Fault(format!(
            "`categories_`: {} lists for {} columns",
            lists.len(),
            columns.len()
        )));
    }
    let arrays: Result<Vec<_>, Fault> = lists.into_iter().map(Array::read).collect();
    arrays.map_err(named("categories_"))
}

/// For each column the place that a category has after those that are rare were put together, if that was done.
fn groups(view: View<'_, '_>, columns: &Columns) -> Result<Vec<Option<Vec<usize>>>, Fault> {
    const NAME: &str = "_default_to_infrequent_mappings";
    let nothing = || Ok(vec![None; columns.len()]);
    let Some(mappings) = view.get(NAME).filter(|mappings| !mappings.is_none()) else {
        return nothing();
    };
    if view.get("_infrequent_enabled").and_then(View::as_bool) == Some(false) {
        return nothing();
    }
    let mappings = mappings.as_list().unwrap_or_default();
    if mappings.len() != columns.len() {
        return Err(Fault(format!(
            "`{NAME}`: {} for {} columns",
            mappings.len(),
            columns.len()
        )));
    }
    let group = |mapping: View<'_, '_>| {
        if mapping.is_none() {
            return Ok(None);
        }
        let places = Array::read(mapping)?.integers()?.into_iter();
        let places: Result<Vec<usize>, _> = places.map(usize::try_from).collect();
        places.map(Some).map_err(|_| Fault::new("a place below 0"))
    };
    let groups: Result<_, Fault> = mappings.into_iter().map(group).collect();
    groups.map_err(named(NAME))
}

/// The place that each category has, and how many places there are.
fn places(group: Option<Vec<usize>>, count: usize) -> Result<(Vec<usize>, usize), Fault> {
    let Some(group) = group else {
        return Ok(((0..count).collect(), count));
    };
    let places = group.iter().max().map_or(0, |last| last + 1);
    match group.len() == count && places <= count {
        true => Ok((group, places)),
        false => Err(Fault(format!(
            "{} places for {count} categories",
            group.len()
        ))),
    }
}

/// Which place has no column, for each column.
fn dropped(view: View<'_, '_>, columns: &Columns) -> Result<Vec<Option<usize>>, Fault> {
    let after_grouping = view.get("_drop_idx_after_grouping");
    let Some(dropped) = after_grouping.or_else(|| view.get("drop_idx_")) else {
        return Ok(vec![None; columns.len()]);
    };
    if dropped.is_none() {
        return Ok(vec![None; columns.len()]);
    }
    let array = Array::read(dropped).map_err(named("drop_idx_"))?;
    if array.len() != columns.len() {
        return Err(Fault(format!(
            "`drop_idx_`: {} for {} columns",
            array.len(),
            columns.len()
        )));
    }
    let place = |index: usize| {
        array
            .integer(index)
            .and_then(|place| usize::try_from(place).ok())
    };
    Ok((0..array.len()).map(place).collect())
}

pub(super) fn one_hot(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
) -> Result<Built, Fault> {
    let unknown = view.text("handle_unknown")?;
    let (groups, dropped) = (groups(view, columns)?, dropped(view, columns)?);
    let mut read = Vec::with_capacity(columns.len());
    let parts = columns.list.iter().zip(groups).zip(dropped);
    for (array, ((column, group), dropped)) in categories(view, columns)?.iter().zip(parts) {
        let is_grouped = group.is_some();
        let categories = Categories::read(builder, array, *column, unknown == "error")?;
        let (places, count) = places(group, categories.count)?;
        let target = |place: usize| match dropped {
            Some(dropped) if place == dropped => None,
            Some(dropped) if place > dropped => Some(place as u32 - 1),
            _ => Some(place as u32),
        };
        let dropped_one = dropped.is_some_and(|dropped| dropped < count);
        read.push(OneHotColumn {
            categories,
            targets: places.into_iter().map(target).collect(),
            width: count - usize::from(dropped_one),
            unknown: match unknown {
                "error" => Unknown::Refused,
                "ignore" => Unknown::Target(None),
                // The rare ones stand last.
                "infrequent_if_exist" | "warn" if is_grouped => {
                    Unknown::Target(count.checked_sub(1).and_then(target))
                }
                "infrequent_if_exist" | "warn" => Unknown::Target(None),
                _ => return Err(Fault::new("`handle_unknown` is none that is known")),
            },
        });
    }
    let after = columns.repeated(read.iter().map(|column| column.width));
    let step = OneHot {
        width: after.len(),
        columns: read,
    };
    Ok((Box::new(step), after))
}

pub(super) fn ordinal(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
) -> Result<Built, Fault> {
    let unknown = match view.text("handle_unknown")? {
        "error" => None,
        "use_encoded_value" => Some(view.number("unknown_value")?),
        _ => return Err(Fault::new("`handle_unknown` is none that is known")),
    };
    let missing = view.get("encoded_missing_value").and_then(View::as_number);
    let mut read = Vec::with_capacity(columns.len());
    let parts = columns.list.iter().zip(groups(view, columns)?);
    for (array, (column, group)) in categories(view, columns)?.iter().zip(parts) {
        if group.is_some() {
            return Err(Fault::new(
                "rare categories that are put together are not supported here",
            ));
        }
        let categories = Categories::read(builder, array, *column, unknown.is_none())?;
        let mut numbers: Vec<f64> = (0..categories.count).map(|place| place as f64).collect();
        if let Some(place) = categories.missing {
            numbers[place as usize] = missing.unwrap_or(f64::NAN);
        }
        read.push((categories, numbers, unknown));
    }
    Ok((Box::new(Ordinal { columns: read }), columns.changed()))
}

/// Some numbers for each category.
#[derive(Debug)]
struct Encoded {
    /// With the numbers of each place, one place after the other.
    columns: Vec<(Categories, Vec<f64>)>,
    /// The numbers of what is unknown.
    unknown: Vec<f64>,
}

impl Transform for Encoded {
    fn width(&self) -> usize {
        self.columns.len() * self.unknown.len()
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        let count = self.unknown.len();
        for index in 0..rows.len() {
            for ((categories, numbers), value) in self.columns.iter().zip(rows.row(index)) {
                out.extend_from_slice(match categories.place(*value) {
                    Some(place) => &numbers[place as usize * count..][..count],
                    None => &self.unknown,
                });
            }
        }
        Ok(())
    }
}

/// Categories that become means of the target, of each class where there are three or more.
pub(super) fn target(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
) -> Result<Built, Fault> {
    let mean = view.required("target_mean_")?;
    let unknown = match mean.as_number() {
        Some(mean) => vec![mean],
        None => Array::read(mean)
            .and_then(|means| means.numbers())
            .map_err(named("target_mean_"))?,
    };
    let count = unknown.len();
    let encodings = view.list("encodings_")?;
    if count == 0 || encodings.len() != columns.len() * count {
        return Err(Fault(format!(
            "`encodings_`: {} for {} columns and {count} means",
            encodings.len(),
            columns.len()
        )));
    }
    let mut read = Vec::with_capacity(columns.len());
    let parts = columns.list.iter().zip(encodings.chunks_exact(count));
    for (array, (column, encodings)) in categories(view, columns)?.iter().zip(parts) {
        let categories = Categories::read(builder, array, *column, false)?;
        builder.spend(categories.count * count)?;
        let mut numbers = vec![0.0; categories.count * count];
        for (index, encoding) in encodings.iter().enumerate() {
            let means = Array::read(*encoding).and_then(|means| means.numbers());
            let means = means.map_err(named("encodings_"))?;
            if means.len() != categories.count {
                return Err(Fault(format!(
                    "`encodings_`: {} numbers for {} categories",
                    means.len(),
                    categories.count
                )));
            }
            let places = numbers.iter_mut().skip(index).step_by(count);
            places.zip(means).for_each(|(place, mean)| *place = mean);
        }
        read.push((categories, numbers));
    }
    let step = Encoded {
        columns: read,
        unknown,
    };
    let after = columns.repeated(std::iter::repeat(count));
    Ok((Box::new(step), after))
}
