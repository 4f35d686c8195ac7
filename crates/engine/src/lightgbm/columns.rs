//! Splits that no threshold on a feature can express, as thresholds on columns of their own.
//!
//! The columns follow the features in a row. One that stands for a set of categories is 1 where the category
//! is not in the set; one that stands for a feature to which 0 is a missing value is missing where that
//! is 0. The forest knows neither of categories nor of such zeros.

use std::collections::HashMap;

use super::tree::{self, Missing, Set, Split, Test, Tree};
use crate::Rows;
use crate::forest::{self, Node};

/// The threshold of columns of sets: what is in the set goes left.
const IN_SET: f64 = 0.5;

/// Columns in their order.
#[derive(Debug)]
pub(super) struct Columns(Box<[Column]>);

#[derive(Debug, PartialEq, Eq, Hash)]
enum Column {
    NotInSet(u32, Set),
    ZeroIsMissing(u32),
}

/// Columns while trees are converted, each once.
#[derive(Debug)]
pub(super) struct Collector {
    width: usize,
    columns: HashMap<Column, u32>,
}

impl Collector {
    /// For rows of `width` features.
    pub(super) fn new(width: usize) -> Self {
        Self {
            width,
            columns: HashMap::new(),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.columns.len()
    }

    pub(super) fn finish(self) -> Columns {
        let mut columns: Vec<(Column, u32)> = self.columns.into_iter().collect();
        columns.sort_unstable_by_key(|(_, place)| *place);
        Columns(columns.into_iter().map(|(column, _)| column).collect())
    }

    /// A tree for the forest; its leaves add to `output`.
    pub(super) fn convert(&mut self, tree: &Tree, output: u32) -> forest::Tree {
        let splits = tree.splits.iter().map(|split| self.split(split));
        let mut nodes: Vec<Node> = splits.collect();
        nodes.extend(tree.leaves.iter().map(|value| Node::Leaf(*value)));
        forest::Tree { nodes, output }
    }

    fn split(&mut self, split: &Split) -> Node {
        let Split {
            feature,
            children: [left, right],
            ref test,
        } = *split;
        let (feature, threshold, default_left) = match *test {
            Test::Set(ref set) => {
                let column = Column::NotInSet(feature, set.clone());
                (self.place(column), IN_SET, false)
            }
            Test::Threshold {
                threshold,
                missing,
                default_left,
            } => {
                let zero_goes_left = 0.0 <= threshold;
                match missing {
                    Missing::Nothing => (feature, threshold, zero_goes_left),
                    Missing::Zero if default_left != zero_goes_left => {
                        let column = Column::ZeroIsMissing(feature);
                        (self.place(column), threshold, default_left)
                    }
                    Missing::Zero | Missing::Nan => (feature, threshold, default_left),
                }
            }
        };
        Node::Split {
            feature,
            threshold,
            default_left,
            left,
            right,
        }
    }

    fn place(&mut self, column: Column) -> u32 {
        let next = (self.width + self.columns.len()) as u32;
        *self.columns.entry(column).or_insert(next)
    }
}

impl Columns {
    /// How many columns follow the features.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The feature behind each column, the features themselves included.
    pub(super) fn owners(&self, features: usize) -> Box<[u32]> {
        let own = self.0.iter().map(|column| match column {
            Column::NotInSet(feature, _) | Column::ZeroIsMissing(feature) => *feature,
        });
        (0..features as u32).chain(own).collect()
    }

    /// Memory that they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let sets = self.0.iter().map(|column| match column {
            Column::NotInSet(_, set) => set.bytes(),
            Column::ZeroIsMissing(_) => 0,
        });
        size_of_val(&*self.0) + sets.sum::<usize>()
    }

    /// Writes rows with their columns to `wide`.
    pub(super) fn widen(&self, rows: Rows<'_>, wide: &mut Vec<f64>) {
        wide.clear();
        for index in 0..rows.len() {
            let row = rows.row(index);
            wide.extend_from_slice(row);
            wide.extend(self.0.iter().map(|column| column.value(row)));
        }
    }
}

impl Column {
    #[inline]
    fn value(&self, row: &[f64]) -> f64 {
        match self {
            Self::NotInSet(feature, set) => {
                f64::from(u8::from(!set.contains(row[*feature as usize])))
            }
            Self::ZeroIsMissing(feature) => match row[*feature as usize] {
                value if tree::is_zero(value) => f64::NAN,
                value => value,
            },
        }
    }
}
