//! Statistics of categories: what training counted for each combination of categories, as numbers that trees
//! ask about (the library calls them CTRs).
//!
//! The counts are kept as the file has them, by the hash of the combination; the number is computed for
//! each row, in the library's order and in `f32`.

use std::collections::HashMap;

use crate::document::Fault;

/// A hash that stands for an empty place in the tables of a file, so that no combination is found by it.
pub(super) const NO_HASH: u64 = u64::MAX;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// How often the target was above a border.
    Borders,
    /// How often it was of one class.
    Buckets,
    /// Its mean as a class.
    BinarizedTargetMeanValue,
    /// Its mean.
    FloatTargetMeanValue,
    /// How often the combination was there, against the most frequent one.
    Counter,
    /// How often it was there, against all rows.
    FeatureFreq,
}

impl Kind {
    /// In the order of their numbers in a file.
    const ALL: [(Self, &str); 6] = [
        (Self::Borders, "Borders"),
        (Self::Buckets, "Buckets"),
        (Self::BinarizedTargetMeanValue, "BinarizedTargetMeanValue"),
        (Self::FloatTargetMeanValue, "FloatTargetMeanValue"),
        (Self::Counter, "Counter"),
        (Self::FeatureFreq, "FeatureFreq"),
    ];

    /// Whether it depends on how the target is divided.
    pub(super) fn counts_target(self) -> bool {
        !matches!(self, Self::Counter | Self::FeatureFreq)
    }

    pub(super) fn from_number(number: u8) -> Result<Self, Fault> {
        let kind = Self::ALL.get(usize::from(number));
        kind.map(|(kind, _)| *kind)
            .ok_or_else(|| Fault(format!("CTRs of the type {number} are not supported")))
    }

    pub(super) fn from_name(name: &str) -> Result<Self, Fault> {
        let kind = Self::ALL.iter().find(|(_, known)| *known == name);
        kind.map(|(kind, _)| *kind).ok_or_else(|| {
            let name: String = name.chars().take(40).collect();
            Fault(format!("CTRs of the type `{name}` are not supported"))
        })
    }
}

/// What is taken together. Features are numbered among those of their kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Combination {
    pub(super) categories: Vec<i32>,
    /// Whether a numeric feature is above a border, which is an `f32` by its bits.
    pub(super) floats: Vec<(i32, u32)>,
    /// Whether a category has a hash.
    pub(super) one_hots: Vec<(i32, i32)>,
}

/// Which table of counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Base {
    pub(super) combination: Combination,
    pub(super) kind: Kind,
    /// Which of several ways to divide the target into classes.
    pub(super) classifier: i32,
}

/// A number that is computed from counts, and the borders that trees compare it with.
#[derive(Debug)]
pub(super) struct Ctr {
    pub(super) base: Base,
    pub(super) formula: Formula,
    pub(super) borders: Vec<f32>,
}

/// How counts become a number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Formula {
    pub(super) target_border: usize,
    pub(super) prior: f32,
    pub(super) prior_weight: f32,
    pub(super) shift: f32,
    pub(super) scale: f32,
}

impl Formula {
    /// `numbers` are prior, weight of the prior, shift and scale.
    pub(super) fn new(target_border: i64, numbers: [f32; 4]) -> Result<Self, Fault> {
        let [prior, prior_weight, shift, scale] = numbers;
        match usize::try_from(target_border) {
            Ok(target_border) if numbers.iter().all(|number| number.is_finite()) => Ok(Self {
                target_border,
                prior,
                prior_weight,
                shift,
                scale,
            }),
            _ => Err(Fault::new("its formula has numbers that are none")),
        }
    }

    fn number(&self, part: f32, whole: f32) -> f32 {
        let share = (part + self.prior) / (whole + self.prior_weight);
        (share + self.shift) * self.scale
    }
}

/// Counts of all combinations of one kind.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) base: Base,
    /// Which counts belong to the combination with a hash.
    places: HashMap<u64, u32>,
    counts: Counts,
}

#[derive(Debug)]
pub(super) enum Counts {
    /// As many to a combination as the target has classes.
    Classes {
        classes: usize,
        counts: Vec<i32>,
    },
    /// Sum of the target, and rows.
    Means(Vec<(f32, i32)>),
    Totals {
        denominator: i32,
        counts: Vec<i32>,
    },
}

impl Table {
    /// `places` come in the order of the file, where the first counts.
    pub(super) fn new(
        base: Base,
        places: impl Iterator<Item = (u64, u32)>,
        counts: Counts,
    ) -> Result<Self, Fault> {
        let available = match &counts {
            Counts::Classes { classes: 0, .. } => return Err(Fault::new("a target of no classes")),
            Counts::Classes { classes, counts } => counts.len() / classes,
            Counts::Means(means) => means.len(),
            Counts::Totals { counts, .. } => counts.len(),
        };
        let mut known = HashMap::new();
        for (hash, place) in places.filter(|(hash, _)| *hash != NO_HASH) {
            if place as usize >= available {
                return Err(Fault(format!("counts {place} are outside 0..{available}")));
            }
            known.entry(hash).or_insert(place);
        }
        Ok(Self {
            base,
            places: known,
            counts,
        })
    }

    /// Refuses a formula that these counts do not have the classes for.
    pub(super) fn check(&self, formula: &Formula) -> Result<(), Fault> {
        let Counts::Classes { classes, .. } = self.counts else {
            return Ok(());
        };
        let least = match self.base.kind {
            Kind::Buckets => formula.target_border + 1,
            _ => (formula.target_border + 2).max(2),
        };
        match classes >= least {
            true => Ok(()),
            false => Err(Fault(format!(
                "the border {} of a target of {classes} classes",
                formula.target_border
            ))),
        }
    }

    /// Where the counts of a combination are.
    pub(super) fn find(&self, hash: u64) -> Option<u32> {
        self.places.get(&hash).copied()
    }

    /// The number of a combination, or of one that training did not have.
    pub(super) fn number(&self, formula: &Formula, place: Option<u32>) -> f32 {
        let place = place.map(|place| place as usize);
        match &self.counts {
            Counts::Classes { classes, counts } => {
                let Some(place) = place else {
                    return formula.number(0.0, 0.0);
                };
                let counts = &counts[place * classes..][..*classes];
                let sum = |counts: &[i32]| {
                    counts
                        .iter()
                        .fold(0i32, |sum, count| sum.wrapping_add(*count))
                };
                let part = match self.base.kind {
                    Kind::Buckets => counts[formula.target_border],
                    _ => sum(&counts[formula.target_border + 1..]),
                };
                formula.number(part as f32, sum(counts) as f32)
            }
            Counts::Means(means) => {
                let (sum, count) = place.map_or((0.0, 0), |place| means[place]);
                formula.number(sum, count as f32)
            }
            Counts::Totals {
                denominator,
                counts,
            } => {
                let count = place.map_or(0, |place| counts[place]);
                formula.number(count as f32, *denominator as f32)
            }
        }
    }
}

/// Adds a value to the hash of a combination.
pub(super) fn extend(hash: u64, value: u64) -> u64 {
    const FACTOR: u64 = 0x4906_ba49_4954_cb65;
    FACTOR.wrapping_mul(hash.wrapping_add(FACTOR.wrapping_mul(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(kind: Kind, counts: Counts) -> Result<Table, Fault> {
        let base = Base {
            combination: Combination::default(),
            kind,
            classifier: 0,
        };
        Table::new(
            base,
            [(7, 1), (NO_HASH, 0), (7, 0), (9, 0)].into_iter(),
            counts,
        )
    }

    const FORMULA: Formula = Formula {
        target_border: 1,
        prior: 0.5,
        prior_weight: 2.0,
        shift: 1.0,
        scale: 10.0,
    };

    fn number(table: &Table, hash: u64) -> f32 {
        table.number(&FORMULA, table.find(hash))
    }

    #[test]
    fn counts_become_numbers_by_their_kind() {
        let classes = || Counts::Classes {
            classes: 3,
            counts: vec![1, 2, 4, 10, 20, 40],
        };
        let borders = table(Kind::Borders, classes()).unwrap();
        assert_eq!(number(&borders, 7), (40.5 / 72.0 + 1.0) * 10.0);
        assert_eq!(number(&borders, 8), (0.5 / 2.0 + 1.0) * 10.0);
        let buckets = table(Kind::Buckets, classes()).unwrap();
        assert_eq!(number(&buckets, 9), (2.5 / 9.0 + 1.0) * 10.0);
        let means = Counts::Means(vec![(1.5, 3), (2.25, 4)]);
        let means = table(Kind::FloatTargetMeanValue, means).unwrap();
        assert_eq!(number(&means, 7), (2.75 / 6.0 + 1.0) * 10.0);
        let totals = Counts::Totals {
            denominator: 8,
            counts: vec![3, 5],
        };
        let totals = table(Kind::FeatureFreq, totals).unwrap();
        assert_eq!(number(&totals, 9), (3.5 / 10.0 + 1.0) * 10.0);
        assert_eq!(number(&totals, 8), (0.5 / 10.0 + 1.0) * 10.0);
        assert_eq!(totals.find(NO_HASH), None);
    }

    #[test]
    fn counts_that_are_not_there_are_refused() {
        let classes = |classes, length| Counts::Classes {
            classes,
            counts: vec![0; length],
        };
        for counts in [classes(0, 4), classes(2, 3), Counts::Means(vec![(0.0, 0)])] {
            assert!(table(Kind::Borders, counts).is_err());
        }
        for (kind, count, is_enough) in [
            (Kind::Borders, 2, false),
            (Kind::Borders, 3, true),
            (Kind::Buckets, 1, false),
            (Kind::Buckets, 2, true),
        ] {
            let table = table(kind, classes(count, 2 * count)).unwrap();
            assert_eq!(table.check(&FORMULA).is_ok(), is_enough, "{count}");
        }
    }
}
