//! Splits by sets of categories: columns behind those of a row, which the forest takes for numbers.

use std::collections::HashMap;

use crate::document::{Fault, named};
use crate::pickle::{Array, View};
use crate::{RowRefusal, Rows};

/// Which of the categories from 0 to 255 are in a set.
pub(super) type Bits = [u32; 8];

/// What a column for a set has where a category is in it, and where it is known and not in it. What is neither is NaN.
const WITHIN: f64 = 0.0;
const BESIDE: f64 = 1.0;
/// What parts them.
pub(super) const MIDDLE: f64 = 0.5;

/// The sets of all trees, a column for each.
#[derive(Debug, Default)]
pub(super) struct Sets {
    places: HashMap<(u32, Bits), u32>,
    sets: Vec<(u32, Bits)>,
    /// Which categories each feature may have, if it is one of categories.
    known: Vec<Option<Bits>>,
}

fn has(bits: &Bits, category: u8) -> bool {
    bits[usize::from(category / 32)] >> (category % 32) & 1 == 1
}

impl Sets {
    /// Reads which categories the features have.
    pub(super) fn read(mapper: View<'_, '_>, width: usize) -> Result<Self, Fault> {
        let is_categorical = mapper.array("is_categorical_")?;
        let lists = mapper.list("bin_thresholds_")?;
        if is_categorical.len() != width || lists.len() != width {
            return Err(Fault(format!(
                "`bin_thresholds_` and `is_categorical_`: not one for each of {width} columns"
            )));
        }
        let mut known = Vec::with_capacity(width);
        for (index, list) in lists.into_iter().enumerate() {
            known.push(match is_categorical.number(index) {
                Some(0.0) => None,
                _ => Some(categories(list).map_err(named("bin_thresholds_"))?),
            });
        }
        Ok(Self {
            known,
            ..Self::default()
        })
    }

    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }

    /// The feature of each.
    pub(super) fn features(&self) -> impl Iterator<Item = u32> {
        self.sets.iter().map(|(feature, _)| *feature)
    }

    /// The place of the column for a set, among such columns.
    pub(super) fn place(&mut self, feature: u32, left: Bits) -> Result<u32, Fault> {
        let known = self.known.get(feature as usize);
        if known.is_none_or(Option::is_none) {
            return Err(Fault(format!(
                "a split by categories of column {feature}, which has none"
            )));
        }
        let next = self.sets.len() as u32;
        let place = *self.places.entry((feature, left)).or_insert(next);
        if place == next {
            self.sets.push((feature, left));
        }
        Ok(place)
    }

    /// Rows with the columns behind them.
    pub(super) fn behind(&self, rows: Rows<'_>) -> Result<Vec<f64>, RowRefusal> {
        let mut values = Vec::with_capacity(rows.len() * (rows.width() + self.sets.len()));
        for index in 0..rows.len() {
            let row = rows.row(index);
            let mut given = row.iter().zip(&self.known);
            if given.any(|(value, known)| known.is_some() && *value >= 256.0) {
                return Err(RowRefusal {
                    row: index,
                    reason: "has a category above 255, which the model does not take".into(),
                });
            }
            values.extend_from_slice(row);
            values.extend(self.sets.iter().map(|(feature, left)| {
                let value = row[*feature as usize];
                let Some(known) = self.known[*feature as usize].filter(|_| value >= 0.0) else {
                    return f64::NAN;
                };
                let category = value as u8;
                match (has(left, category), has(&known, category)) {
                    (true, _) => WITHIN,
                    (false, true) => BESIDE,
                    (false, false) => f64::NAN,
                }
            }));
        }
        Ok(values)
    }
}

fn categories(list: View<'_, '_>) -> Result<Bits, Fault> {
    let mut bits = Bits::default();
    for category in Array::read(list)?.numbers()? {
        if !(0.0..256.0).contains(&category) {
            return Err(Fault(format!(
                "the category {category} is none from 0 to 255"
            )));
        }
        let category = category as u8;
        bits[usize::from(category / 32)] |= 1 << (category % 32);
    }
    Ok(bits)
}

/// The sets of a tree.
pub(super) fn of_tree(predictor: View<'_, '_>) -> Result<Vec<Bits>, Fault> {
    const NAME: &str = "raw_left_cat_bitsets";
    let array = predictor.array(NAME)?;
    if !matches!(array.shape(), [_, 8]) {
        return Err(Fault(format!(
            "`{NAME}`: an array of the shape {:?}",
            array.shape()
        )));
    }
    let words = array.integers().map_err(named(NAME))?;
    let (sets, _) = words.as_chunks::<8>();
    Ok(sets
        .iter()
        .map(|words| words.map(|word| word as u32))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_category_is_within_beside_or_unknown() {
        let bits = |categories: &[u8]| {
            let mut bits = Bits::default();
            for category in categories {
                bits[usize::from(category / 32)] |= 1 << (category % 32);
            }
            bits
        };
        let mut sets = Sets {
            known: vec![None, Some(bits(&[0, 3, 40, 255]))],
            ..Sets::default()
        };
        assert_eq!(sets.place(1, bits(&[3, 255])), Ok(0));
        assert_eq!(sets.place(1, bits(&[0])), Ok(1));
        assert_eq!(sets.place(1, bits(&[3, 255])), Ok(0));
        assert!(sets.place(0, bits(&[3])).is_err());
        assert!(sets.place(2, bits(&[3])).is_err());
        let given = [
            9.0,
            3.9,
            9.0,
            255.0,
            9.0,
            40.0,
            9.0,
            41.0,
            9.0,
            -1.0,
            9.0,
            f64::NAN,
        ];
        let behind = sets.behind(Rows::new(&given, 2)).unwrap();
        let columns: Vec<f64> = behind
            .chunks_exact(4)
            .flat_map(|row| [row[2], row[3]])
            .collect();
        assert_eq!(
            columns[..6],
            [WITHIN, BESIDE, WITHIN, BESIDE, BESIDE, BESIDE]
        );
        assert!(columns[6..].iter().all(|value| value.is_nan()));
        assert_eq!(sets.behind(Rows::new(&[9.0, 256.0], 2)).unwrap_err().row, 0);
    }
}
