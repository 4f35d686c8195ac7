//! Texts that become counts of their terms.

use std::collections::HashMap;

use super::build::{Builder, Built, Columns, Use, WIDTH_MAX};
use super::sparse::SparseRows;
use super::steps::{Change, Transform};
use super::tokens::Analyzer;
use crate::document::{Fault, named};
use crate::pickle::View;
use crate::{RowRefusal, Rows};

/// The names of the estimators that take texts themselves.
pub(super) const VECTORIZERS: [&str; 3] =
    ["CountVectorizer", "TfidfVectorizer", "HashingVectorizer"];

/// A column for each term, or for each remainder of a term's hash.
#[derive(Debug)]
struct Vectorizer {
    analyzer: Analyzer,
    terms: Terms,
    width: usize,
    /// Whether a term is there, in place of how often.
    is_binary: bool,
    weighing: Option<Weighing>,
}

#[derive(Debug)]
enum Terms {
    Known(HashMap<Box<str>, u32>),
    /// Whether half of them count downwards.
    Hashed(bool),
}

/// What becomes of counts.
#[derive(Debug)]
struct Weighing {
    is_logarithmic: bool,
    weights: Option<Vec<f64>>,
    norm: Option<Norm>,
}

#[derive(Clone, Copy, Debug)]
enum Norm {
    Sum,
    Euclidean,
}

impl Transform for Vectorizer {
    fn width(&self) -> usize {
        self.width
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        let mut made = SparseRows::default();
        self.apply_sparse(rows, &mut made)?;
        made.append_to(out, self.width);
        Ok(())
    }

    fn is_sparse(&self) -> bool {
        true
    }

    fn apply_sparse(&self, rows: Rows<'_>, out: &mut SparseRows) -> Result<(), RowRefusal> {
        let mut counted = Vec::new();
        for row in 0..rows.len() {
            let refusal = |reason: String| RowRefusal { row, reason };
            let text = rows.text(rows.row(row)[0]);
            let missing = || refusal("has a missing value where the model takes none".into());
            counted.clear();
            let count = |term: &str| counted.extend(self.place(term));
            let terms = self.analyzer.terms(text.ok_or_else(missing)?, count);
            terms.map_err(refusal)?;
            counted.sort_unstable_by_key(|(place, _)| *place);
            for same in counted.chunk_by(|(a, _), (b, _)| a == b) {
                let sum: f64 = same.iter().map(|(_, change)| change).sum();
                if sum != 0.0 || self.is_binary {
                    let value = if self.is_binary { 1.0 } else { sum };
                    out.entries.push((same[0].0, value));
                }
            }
            if let Some(weighing) = &self.weighing {
                weighing.apply(out.open_row());
            }
            out.end_row();
        }
        Ok(())
    }
}

impl Vectorizer {
    /// Where a term is counted, and what it adds.
    fn place(&self, term: &str) -> Option<(u32, f64)> {
        match &self.terms {
            Terms::Known(places) => places.get(term).map(|place| (*place, 1.0)),
            Terms::Hashed(is_signed) => {
                let hash = murmur3(term.as_bytes()) as i32;
                let place = hash.unsigned_abs() as usize % self.width;
                let change = if *is_signed && hash < 0 { -1.0 } else { 1.0 };
                Some((place as u32, change))
            }
        }
    }
}

impl Weighing {
    /// Changes the numbers of a row that are not 0.
    fn apply(&self, entries: &mut [(u32, f64)]) {
        for (place, number) in &mut *entries {
            if self.is_logarithmic {
                *number = number.ln() + 1.0;
            }
            if let Some(weights) = &self.weights {
                *number *= weights[*place as usize];
            }
        }
        let there = entries.iter().map(|(_, number)| *number);
        let norm = match self.norm {
            None => return,
            Some(Norm::Sum) => there.map(f64::abs).sum(),
            Some(Norm::Euclidean) => there.map(|number| number * number).sum::<f64>().sqrt(),
        };
        if norm != 0.0 {
            entries.iter_mut().for_each(|(_, number)| *number /= norm);
        }
    }

    fn read(view: View<'_, '_>, width: usize) -> Result<Self, Fault> {
        let weights = match view.boolean("use_idf")? {
            true => Some(weights(view, width)?),
            false => None,
        };
        Ok(Self {
            is_logarithmic: view.boolean("sublinear_tf")?,
            weights,
            norm: norm(view)?,
        })
    }
}

/// Counts that are weighed by a step of its own.
#[derive(Debug)]
struct Weighed {
    weighing: Weighing,
    width: usize,
}

impl Transform for Weighed {
    fn width(&self) -> usize {
        self.width
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        let mut made = SparseRows::default();
        made.extend(rows);
        self.change(&mut made)?;
        made.append_to(out, self.width);
        Ok(())
    }

    fn as_change(&self) -> Option<&dyn Change> {
        Some(self)
    }
}

impl Change for Weighed {
    fn change(&self, rows: &mut SparseRows) -> Result<(), RowRefusal> {
        rows.refuse_missing()?;
        (0..rows.len()).for_each(|index| self.weighing.apply(rows.row_mut(index)));
        Ok(())
    }
}

fn norm(view: View<'_, '_>) -> Result<Option<Norm>, Fault> {
    let norm = view.required("norm")?;
    match norm.as_text() {
        None if norm.is_none() => Ok(None),
        Some("l1") => Ok(Some(Norm::Sum)),
        Some("l2") => Ok(Some(Norm::Euclidean)),
        _ => Err(norm.expected("none, \"l1\" or \"l2\"")).map_err(named("norm")),
    }
}

/// Weights of terms: until 1.4 the diagonal of a sparse matrix.
fn weights(view: View<'_, '_>, width: usize) -> Result<Vec<f64>, Fault> {
    let weights = match view.get("_idf_diag") {
        Some(matrix) => {
            let places = matrix.array("indices")?.integers()?;
            if !places.iter().copied().eq(0..width as i64) {
                return Err(Fault::new("`_idf_diag`: expected a diagonal matrix"));
            }
            matrix.numbers("data")?
        }
        None => view.numbers("idf_")?,
    };
    match weights.len() == width && weights.iter().all(|weight| weight.is_finite()) {
        true => Ok(weights),
        false => Err(Fault(format!(
            "`idf_`: {} weights for {width} terms, or one that is not finite",
            weights.len()
        ))),
    }
}

/// The place of each term.
fn vocabulary(view: View<'_, '_>) -> Result<HashMap<Box<str>, u32>, Fault> {
    let vocabulary = view.required("vocabulary_")?;
    let pairs = vocabulary.as_dict();
    let pairs = pairs.ok_or_else(|| vocabulary.expected("a dict"))?;
    let count = pairs.len();
    let (mut places, mut is_taken) = (HashMap::with_capacity(count), vec![false; count]);
    for [term, place] in pairs {
        let term = term.as_text().ok_or_else(|| term.expected("a text"))?;
        let place = place
            .as_integer()
            .and_then(|place| u32::try_from(place).ok());
        let taken = place.and_then(|place| is_taken.get_mut(place as usize));
        let (Some(place), Some(false)) = (place, taken.map(|taken| std::mem::replace(taken, true)))
        else {
            return Err(Fault::new(
                "a term whose place is outside, or that of another",
            ));
        };
        places.insert(term.into(), place);
    }
    Ok(places)
}

/// Reads a step that takes texts.
pub(super) fn vectorizer(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    name: &str,
) -> Result<Built, Fault> {
    let [column] = columns.list[..] else {
        return Err(Fault::new(
            "it takes one column of texts, given to a ColumnTransformer by its name and not in a list",
        ));
    };
    let dtype = view.required("dtype")?;
    if !matches!(dtype.as_name(), Some("numpy.int64" | "numpy.float64")) {
        return Err(dtype.expected("int64 or float64")).map_err(named("dtype"));
    }
    builder.take(column, Use::Document)?;
    let terms = view.get("vocabulary_").and_then(View::as_dict);
    let words = view.get("stop_words").and_then(View::as_items);
    builder.spend(terms.map_or(0, |all| all.len()) + words.map_or(0, |all| all.len()))?;
    let analyzer = Analyzer::read(view)?;
    let (terms, width) = match name {
        "HashingVectorizer" => {
            let width = view.required("n_features")?.as_integer();
            let width = width.and_then(|width| usize::try_from(width).ok());
            let width = width.filter(|width| (1..=WIDTH_MAX).contains(width));
            let width = width.ok_or_else(|| {
                Fault(format!(
                    "`n_features`: expected a number of 1 to {WIDTH_MAX}"
                ))
            })?;
            (Terms::Hashed(view.boolean("alternate_sign")?), width)
        }
        _ => {
            let places = vocabulary(view).map_err(named("vocabulary_"))?;
            let width = places.len();
            (Terms::Known(places), width)
        }
    };
    let weighing = match name {
        "CountVectorizer" => None,
        "HashingVectorizer" => Some(Weighing {
            is_logarithmic: false,
            weights: None,
            norm: norm(view)?,
        }),
        _ => {
            let inner = view.required("_tfidf")?;
            Some(Weighing::read(inner, width).map_err(named("_tfidf"))?)
        }
    };
    let step = Vectorizer {
        analyzer,
        terms,
        width,
        is_binary: view.boolean("binary")?,
        weighing,
    };
    Ok((Box::new(step), columns.mixed(width)))
}

/// Reads a step that weighs counts.
pub(super) fn weigher(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
) -> Result<Built, Fault> {
    builder.take_numbers(columns)?;
    let width = columns.len();
    let weighing = Weighing::read(view, width)?;
    let after = columns.mixed(width);
    Ok((Box::new(Weighed { weighing, width }), after))
}

/// MurmurHash3 of 32 bits with the seed 0.
fn murmur3(bytes: &[u8]) -> u32 {
    let mix = |block: u32| {
        block
            .wrapping_mul(0xCC9E_2D51)
            .rotate_left(15)
            .wrapping_mul(0x1B87_3593)
    };
    let (blocks, rest) = bytes.as_chunks::<4>();
    let mut hash = 0u32;
    for block in blocks {
        hash ^= mix(u32::from_le_bytes(*block));
        hash = hash
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xE654_6B64);
    }
    let tail = rest
        .iter()
        .rev()
        .fold(0, |tail, byte| tail << 8 | u32::from(*byte));
    hash ^= mix(tail);
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85EB_CA6B);
    hash = (hash ^ hash >> 13).wrapping_mul(0xC2B2_AE35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::murmur3;

    /// Numbers of `sklearn.utils.murmurhash3_32`.
    #[test]
    fn hashes_are_those_of_the_library() {
        for (text, hash) in [
            ("", 0),
            ("a", 1009084850),
            ("foo", -156908512),
            ("hello", 613153351),
        ] {
            assert_eq!(murmur3(text.as_bytes()) as i32, hash, "{text}");
        }
    }
}
