//! Categorical features: what their categories are called, and splits that ask for a set of them.
//!
//! A split by a set becomes one by a threshold on a column of its own, which follows the features in the
//! row: 1 where the category is in the set, 0 where it is not, missing where it is missing. The forest
//! knows of no categories.

use std::collections::HashMap;
use std::ops::Range;

use super::learner::Version;
use crate::Rows;
use crate::document::{Fault, Object, Value, named};

/// Categories from this number on are none to the library, which keeps them as `f32`.
const CATEGORIES_MAX: i64 = 1 << 24;

/// The threshold of the columns: what is in the set goes right.
pub(super) const IN_SET: f64 = 0.5;

/// The sets that splits ask for, each once, in the order of their columns.
#[derive(Debug)]
pub(super) struct Sets(Box<[Question]>);

/// Versions to which a category beyond a set's bits was missing, the last of which is not meant. To all others
/// it is not in the set.
const BEYOND_IS_MISSING: Range<Version> = [1, 6, 0]..[1, 7, 3];

/// Sets while trees are read, with their columns.
#[derive(Debug)]
pub(super) struct Collector {
    columns: HashMap<Set, u32>,
    beyond_is_missing: bool,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Set {
    feature: u32,
    /// Codes, ascending.
    codes: Box<[u32]>,
}

impl Collector {
    pub(super) fn new(version: Version) -> Self {
        Self {
            columns: HashMap::new(),
            beyond_is_missing: BEYOND_IS_MISSING.contains(&version),
        }
    }

    /// The column of a set, counted from the first behind the features.
    fn column(&mut self, feature: u32, mut codes: Vec<u32>) -> u32 {
        codes.sort_unstable();
        let next = self.columns.len() as u32;
        let codes = codes.into();
        let set = Set { feature, codes };
        *self.columns.entry(set).or_insert(next)
    }

    pub(super) fn finish(self) -> Sets {
        let mut sets: Vec<(Set, u32)> = self.columns.into_iter().collect();
        sets.sort_unstable_by_key(|(_, column)| *column);
        Sets(
            sets.into_iter()
                .map(|(set, _)| Question::new(set, self.beyond_is_missing))
                .collect(),
        )
    }
}

impl Sets {
    /// How many columns follow the features.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The feature behind each column, the features themselves included.
    pub(super) fn owners(&self, features: usize) -> Box<[u32]> {
        let own = self.0.iter().map(|question| question.feature);
        (0..features as u32).chain(own).collect()
    }

    /// Writes rows with their columns to `wide`.
    pub(super) fn widen(&self, rows: Rows<'_>, wide: &mut Vec<f64>) {
        wide.clear();
        for index in 0..rows.len() {
            let row = rows.row(index);
            wide.extend_from_slice(row);
            wide.extend(self.0.iter().map(|question| question.ask(row)));
        }
    }
}

/// A set in the form in which it is looked up.
#[derive(Debug)]
struct Question {
    feature: u32,
    members: Members,
    /// The code from which on a category is missing.
    missing_from: Option<u32>,
}

#[derive(Debug)]
enum Members {
    /// A bit for each code up to the last member.
    Bits(Box<[u64]>),
    /// Codes, ascending, where bits would take much more memory than the file.
    Codes(Box<[u32]>),
}

impl Question {
    fn new(set: Set, beyond_is_missing: bool) -> Self {
        // The library's bits come in words of 32.
        let bits = set.codes.last().map_or(0, |last| (last / 32 + 1) * 32);
        let words = set.codes.last().map_or(0, |last| *last as usize / 64 + 1);
        let members = match words <= 2 * set.codes.len() + 8 {
            true => {
                let mut bits = vec![0; words];
                for code in &set.codes {
                    bits[*code as usize / 64] |= 1 << (code % 64);
                }
                Members::Bits(bits.into())
            }
            false => Members::Codes(set.codes),
        };
        Self {
            feature: set.feature,
            members,
            missing_from: beyond_is_missing.then_some(bits),
        }
    }

    /// As the library does, a code is cut to a whole number, and what is no category is in no set.
    #[inline]
    fn ask(&self, row: &[f64]) -> f64 {
        let value = row[self.feature as usize] as f32;
        if value.is_nan() {
            return f64::NAN;
        }
        let is_code = value >= 0.0 && value < CATEGORIES_MAX as f32;
        let code = value as u32;
        if self
            .missing_from
            .is_some_and(|bits| !is_code || code >= bits)
        {
            return f64::NAN;
        }
        let is_member = match &self.members {
            Members::Bits(bits) => bits
                .get(code as usize / 64)
                .is_some_and(|word| word >> (code % 64) & 1 == 1),
            Members::Codes(codes) => codes.binary_search(&code).is_ok(),
        };
        f64::from(u8::from(is_code && is_member))
    }
}

/// The sets of one tree by node, as the file has them: all categories in one list, and which part of it
/// belongs to which node.
pub(super) struct OfTree {
    by_node: HashMap<usize, Vec<u32>>,
}

impl OfTree {
    pub(super) fn read(tree: &Object<'_>, nodes: usize) -> Result<Self, Fault> {
        let integers = |name: &str| match tree.get(name) {
            Some(values) => values.to_integers().map_err(named(name)),
            None => Ok(Vec::new()),
        };
        let categories = integers("categories")?;
        let [of, starts, sizes] = [
            integers("categories_nodes")?,
            integers("categories_segments")?,
            integers("categories_sizes")?,
        ];
        if of.len() != starts.len() || of.len() != sizes.len() {
            return Err(Fault::new(
                "`categories_nodes`, `categories_segments` and `categories_sizes` differ in length",
            ));
        }
        let mut by_node = HashMap::with_capacity(of.len());
        let mut taken = 0;
        for ((&node, &start), &size) in of.iter().zip(&starts).zip(&sizes) {
            let outside = || {
                Fault(format!(
                    "`categories_segments`: those of node {node} are not there"
                ))
            };
            let index = usize::try_from(node).ok().filter(|node| *node < nodes);
            let index = index.ok_or_else(outside)?;
            let range = usize::try_from(start).ok().zip(usize::try_from(size).ok());
            let range =
                range.and_then(|(start, size)| categories.get(start..start.checked_add(size)?));
            let range = range.ok_or_else(outside)?;
            // Segments do not overlap, so that a small file cannot become large.
            taken += range.len();
            let code = |code: &i64| match (0..CATEGORIES_MAX).contains(code) {
                true => Ok(*code as u32),
                false => Err(Fault(format!("`categories`: {code} is no category"))),
            };
            let codes = range.iter().map(code).collect::<Result<_, _>>()?;
            if taken > categories.len() || by_node.insert(index, codes).is_some() {
                return Err(Fault(format!(
                    "`categories_nodes`: node {node} is there twice"
                )));
            }
        }
        let types = integers("split_type")?;
        if !types.is_empty() && types.len() != nodes {
            return Err(Fault(format!(
                "`split_type`: {} values for {nodes} nodes",
                types.len()
            )));
        }
        let is_bare = |(node, kind): (usize, &i64)| *kind != 0 && !by_node.contains_key(&node);
        match types.iter().enumerate().position(is_bare) {
            Some(node) => Err(Fault(format!(
                "`split_type`: node {node} is categorical without categories"
            ))),
            None => Ok(Self { by_node }),
        }
    }

    /// The column of a node that asks for a set; `width` columns are before those of sets.
    pub(super) fn split(
        &mut self,
        node: usize,
        feature: u32,
        width: usize,
        sets: &mut Collector,
    ) -> Option<u32> {
        let codes = self.by_node.remove(&node)?;
        Some(width as u32 + sets.column(feature, codes))
    }
}

/// The names of the categories of each feature in the order of their codes, where the file has them: since
/// 3.1, for models that were trained from data frames.
pub(super) fn read_names(
    model: &Object<'_>,
    width: usize,
) -> Result<Vec<Option<Vec<String>>>, Fault> {
    let Some(categories) = model.get("cats") else {
        return Ok(vec![None; width]);
    };
    let categories = categories.as_object().map_err(named("cats"))?;
    let encoded = match categories.get("enc") {
        Some(encoded) => encoded.as_list().map_err(named("cats"))?,
        None => &[],
    };
    match encoded.len() {
        0 => return Ok(vec![None; width]),
        count if count != width => {
            return Err(Fault(format!("`cats`: {count} for {width} features")));
        }
        _ => {}
    }
    let names = encoded.iter().map(names_of).collect::<Result<_, _>>();
    names.map_err(named("cats"))
}

fn names_of(encoded: &Value<'_>) -> Result<Option<Vec<String>>, Fault> {
    let encoded = encoded.as_object()?;
    let Some(offsets) = encoded.get("offsets") else {
        return numbers_of(encoded).map(Some);
    };
    let offsets = offsets.to_integers().map_err(named("offsets"))?;
    if offsets.len() < 2 {
        return Ok(None);
    }
    // Bytes of UTF-8, with a sign.
    let bytes: Vec<u8> = encoded
        .integers("values")?
        .into_iter()
        .map(|byte| byte as u8)
        .collect();
    // Up to 3.3 the library counted characters and cut bytes (from pandas), so that a letter beyond ASCII shifts
    // the texts after it and loses the end of the last. The file does not say whether it did: its version is
    // that of the library which saved it last.
    if !bytes.is_ascii() {
        return Ok(None);
    }
    let text = |range: &[i64]| {
        let range = usize::try_from(range[0]).ok()?..usize::try_from(range[1]).ok()?;
        String::from_utf8(bytes.get(range)?.to_vec()).ok()
    };
    let is_within = offsets.is_sorted();
    let names: Option<Vec<String>> = offsets.windows(2).map(text).collect();
    match names.filter(|_| is_within) {
        Some(names) => Ok(Some(names)),
        None => Err(Fault::new(
            "`offsets`: they do not part `values` into texts",
        )),
    }
}

/// Categories that are numbers are called what they are.
fn numbers_of(encoded: &Object<'_>) -> Result<Vec<String>, Fault> {
    if let Ok(whole) = encoded.integers("values") {
        return Ok(whole.iter().map(i64::to_string).collect());
    }
    let numbers = encoded.floats("values")?;
    Ok(numbers.iter().map(f32::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_codes_hold_the_same() {
        for codes in [vec![], vec![0], vec![63, 64, 700], vec![5, 1_000_000]] {
            let set = Set {
                feature: 0,
                codes: codes.clone().into(),
            };
            let question = Question::new(set, false);
            let is_sparse = codes.contains(&1_000_000);
            assert_eq!(matches!(question.members, Members::Codes(_)), is_sparse);
            for code in [0, 1, 5, 62, 63, 64, 65, 699, 700, 701, 1_000_000, 1 << 23] {
                let expected = f64::from(u8::from(codes.contains(&code)));
                assert_eq!(
                    question.ask(&[f64::from(code)]),
                    expected,
                    "{code} in {codes:?}"
                );
            }
            assert_eq!(question.ask(&[-0.5]), 0.0);
            assert!(question.ask(&[f64::NAN]).is_nan());
        }
    }
}
