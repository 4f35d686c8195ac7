//! Categorical features: what trees ask about them becomes columns behind the features of a row.
//!
//! A category is a text, known by its hash. A column is 1 where a feature has one category and 0 where it has
//! another (the library calls that one-hot), or a number from the statistics in [`super::ctr`].

use std::collections::HashMap;

use super::city;
use super::ctr::{self, Combination, Formula, Table};
use super::parts::{FloatFeature, Parts, Position};
use crate::document::Fault;
use crate::{RowRefusal, Rows};

/// Columns that a row may have, features included.
const COLUMNS_MAX: usize = 1 << 20;

/// The border of columns that are 0 or 1.
pub(super) const IS_IT: f32 = 0.5;

/// How to compute the columns of a row.
#[derive(Debug)]
pub(super) struct Categories {
    /// Features of a row.
    width: usize,
    /// The categorical features that something is computed from: where each is in a row, and its name.
    used: Vec<(usize, String)>,
    one_hots: Vec<OneHot>,
    /// Columns of all of them.
    one_hot_columns: usize,
    groups: Vec<Group>,
    tables: Vec<Table>,
    ctr_columns: usize,
}

/// A feature, by its place among those that are used, and the columns of its categories by their hashes.
#[derive(Debug)]
struct OneHot {
    category: usize,
    columns: HashMap<i32, usize>,
}

/// Columns that share a combination, and so its hash.
#[derive(Debug)]
struct Group {
    /// Places among the features that are used.
    categories: Vec<usize>,
    floats: Vec<FloatQuestion>,
    /// Place of a feature, and the hash it is asked for.
    one_hots: Vec<(usize, i32)>,
    lookups: Vec<Lookup>,
}

/// Whether a numeric feature is above a border.
#[derive(Debug)]
struct FloatQuestion {
    feature: usize,
    border: f32,
    missing_is_above: bool,
}

/// Columns that share counts.
#[derive(Debug)]
struct Lookup {
    table: usize,
    columns: Vec<(Formula, usize)>,
}

/// Numbers the features that are used as they are met.
struct Collector<'p> {
    /// Of the features in the order of a row.
    names: &'p [String],
    floats: HashMap<i32, &'p FloatFeature>,
    categories: HashMap<i32, &'p Position>,
    places: HashMap<i32, usize>,
    used: Vec<(usize, String)>,
}

impl<'p> Collector<'p> {
    fn new(parts: &'p Parts, names: &'p [String]) -> Self {
        let floats = parts.floats.iter();
        let categories = parts.categories.iter();
        Self {
            names,
            floats: floats.map(|float| (float.position.index, float)).collect(),
            categories: categories
                .map(|category| (category.index, category))
                .collect(),
            places: HashMap::new(),
            used: Vec::new(),
        }
    }

    fn category(&mut self, index: i32) -> Result<usize, Fault> {
        if let Some(place) = self.places.get(&index) {
            return Ok(*place);
        }
        let category = self.categories.get(&index);
        let category =
            category.ok_or_else(|| Fault(format!("there is no categorical feature {index}")))?;
        let place = self.used.len();
        let name = self.names[category.flat].clone();
        self.used.push((category.flat, name));
        self.places.insert(index, place);
        Ok(place)
    }

    fn group(&mut self, combination: &Combination) -> Result<Group, Fault> {
        let categories = combination.categories.iter();
        let categories = categories.map(|index| self.category(*index));
        let categories = categories.collect::<Result<_, _>>()?;
        let one_hots = combination.one_hots.iter();
        let one_hots = one_hots.map(|&(index, hash)| Ok((self.category(index)?, hash)));
        let one_hots = one_hots.collect::<Result<_, Fault>>()?;
        let floats = combination.floats.iter().map(|&(index, border)| {
            let float = self.floats.get(&index);
            let float =
                float.ok_or_else(|| Fault(format!("there is no numeric feature {index}")))?;
            Ok(FloatQuestion {
                feature: float.position.flat,
                border: f32::from_bits(border),
                missing_is_above: float.missing_is_above,
            })
        });
        Ok(Group {
            categories,
            floats: floats.collect::<Result<_, Fault>>()?,
            one_hots,
            lookups: Vec::new(),
        })
    }
}

impl Categories {
    /// Takes the tables out of the parts; none if no tree asks for a category. `names` are those of the
    /// features in the order of a row.
    pub(super) fn of(parts: &mut Parts, names: &[String]) -> Result<Option<Self>, Fault> {
        if parts.one_hots.is_empty() && parts.ctrs.is_empty() {
            return Ok(None);
        }
        let tables = std::mem::take(&mut parts.tables);
        let one_hot_columns: usize = parts.one_hots.iter().map(|one| one.hashes.len()).sum();
        let ctr_columns = parts.ctrs.len();
        let columns = names.len() + one_hot_columns + ctr_columns;
        if columns > COLUMNS_MAX {
            return Err(Fault(format!("{columns} columns, more than {COLUMNS_MAX}")));
        }
        let mut collector = Collector::new(parts, names);
        let mut column = names.len();
        let one_hots = parts.one_hots.iter().map(|one| {
            let numbered = one.hashes.iter().zip(column..);
            column += one.hashes.len();
            Ok(OneHot {
                category: collector.category(one.category)?,
                columns: numbered.map(|(hash, column)| (*hash, column)).collect(),
            })
        });
        let one_hots = one_hots.collect::<Result<_, Fault>>()?;
        // The last of several tables for the same counts.
        let by_base: HashMap<_, _> = tables
            .iter()
            .enumerate()
            .map(|(index, table)| (&table.base, index))
            .collect();
        let mut groups: Vec<Group> = Vec::new();
        let mut by_combination = HashMap::new();
        let mut by_table = HashMap::new();
        for (index, ctr) in parts.ctrs.iter().enumerate() {
            let placed = |fault: Fault| fault.inside(format_args!("CTR {index}"));
            let table = by_base.get(&ctr.base).copied();
            let table =
                table.ok_or_else(|| placed(Fault::new("its counts are not in the file")))?;
            tables[table].check(&ctr.formula).map_err(placed)?;
            let combination = &ctr.base.combination;
            let group = match by_combination.get(combination) {
                Some(group) => *group,
                None => {
                    groups.push(collector.group(combination).map_err(placed)?);
                    by_combination.insert(combination, groups.len() - 1);
                    groups.len() - 1
                }
            };
            let lookups = &mut groups[group].lookups;
            // A table has one combination, and so one group.
            let next = lookups.len();
            let lookup = *by_table.entry(table).or_insert(next);
            let column = (ctr.formula, names.len() + one_hot_columns + index);
            match lookups.get_mut(lookup) {
                Some(lookup) => lookup.columns.push(column),
                None => lookups.push(Lookup {
                    table,
                    columns: vec![column],
                }),
            }
        }
        Ok(Some(Self {
            width: names.len(),
            used: collector.used,
            one_hots,
            one_hot_columns,
            groups,
            tables,
            ctr_columns,
        }))
    }

    /// Whether a category of a feature was met in training, as far as trees ask for it alone.
    pub(super) fn has_met(&self, feature: usize, text: &str) -> bool {
        let Some(place) = self.used.iter().position(|(used, _)| *used == feature) else {
            return false;
        };
        let hash = city::category(text);
        let mut one_hots = self.one_hots.iter().filter(|one| one.category == place);
        let mut groups = self.groups.iter().filter(|group| group.is_of(place));
        one_hots.any(|one| one.columns.contains_key(&hash))
            || groups.any(|group| {
                let hash = ctr::extend(0, i64::from(hash) as u64);
                let mut lookups = group.lookups.iter();
                lookups.any(|lookup| self.tables[lookup.table].find(hash).is_some())
            })
    }

    /// Columns of a row with those that are computed.
    pub(super) fn columns(&self) -> usize {
        self.width + self.one_hot_columns + self.ctr_columns
    }

    /// Writes rows with their columns to `wide`. `first` is the number of the first in what was asked.
    pub(super) fn widen(
        &self,
        rows: Rows<'_>,
        first: usize,
        wide: &mut Vec<f64>,
    ) -> Result<(), RowRefusal> {
        let mut hashes = Vec::with_capacity(self.used.len());
        wide.clear();
        wide.resize(rows.len() * self.columns(), 0.0);
        for (index, wide) in wide.chunks_exact_mut(self.columns()).enumerate() {
            let row = rows.row(index);
            hashes.clear();
            for (feature, name) in &self.used {
                let Some(text) = rows.text(row[*feature]) else {
                    return Err(RowRefusal {
                        row: first + index,
                        reason: format!(
                            "has no `{name}`, and to CatBoost nothing is no category; send the text that stood \
                             for it in training"
                        ),
                    });
                };
                hashes.push(city::category(text));
            }
            wide[..self.width].copy_from_slice(row);
            for one in &self.one_hots {
                if let Some(column) = one.columns.get(&hashes[one.category]) {
                    wide[*column] = 1.0;
                }
            }
            for group in &self.groups {
                let hash = group.hash(row, &hashes);
                for lookup in &group.lookups {
                    let table = &self.tables[lookup.table];
                    let place = table.find(hash);
                    for (formula, column) in &lookup.columns {
                        wide[*column] = f64::from(table.number(formula, place));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Group {
    /// Whether it combines nothing with this category.
    fn is_of(&self, place: usize) -> bool {
        self.categories == [place] && self.floats.is_empty() && self.one_hots.is_empty()
    }

    fn hash(&self, row: &[f64], hashes: &[i32]) -> u64 {
        // The library extends signed numbers to 64 bits.
        let categories = self
            .categories
            .iter()
            .map(|place| i64::from(hashes[*place]) as u64);
        let floats = self
            .floats
            .iter()
            .map(|question| u64::from(question.is_above(row)));
        let one_hots = self
            .one_hots
            .iter()
            .map(|(place, hash)| u64::from(hashes[*place] == *hash));
        categories
            .chain(floats)
            .chain(one_hots)
            .fold(0, ctr::extend)
    }
}

impl FloatQuestion {
    fn is_above(&self, row: &[f64]) -> bool {
        let value = row[self.feature];
        match value.is_nan() {
            true => self.missing_is_above,
            false => value as f32 > self.border,
        }
    }
}
