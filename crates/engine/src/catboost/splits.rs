//! The splits of a model: numbered questions `value > border` about columns of a row.

use super::categories::IS_IT;
use super::parts::Parts;
use crate::document::Fault;
use crate::forest::Node;

/// A question about a column. A missing value is above all borders of a column or below them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Split {
    pub(super) column: u32,
    pub(super) border: f32,
    pub(super) missing_is_above: bool,
}

impl Split {
    /// It as a node of the forest.
    pub(super) fn node(self, left: u32, right: u32) -> Node {
        Node::Split {
            feature: self.column,
            threshold: f64::from(self.border),
            default_left: !self.missing_is_above,
            left,
            right,
        }
    }
}

/// All splits in the order of their numbers.
#[derive(Debug)]
pub(super) struct Splits(Vec<Split>);

impl Splits {
    /// Those about rows of `width` features, behind which are the columns that are computed.
    pub(super) fn of(parts: &Parts, width: usize) -> Self {
        let floats = parts.floats.iter().flat_map(|float| {
            float.borders.iter().map(|&border| Split {
                column: float.position.flat as u32,
                border,
                missing_is_above: float.missing_is_above,
            })
        });
        let width = width as u32;
        let one_hots = parts.one_hots.iter().flat_map(|one| &one.hashes);
        let first_ctr = width + one_hots.clone().count() as u32;
        let one_hots = one_hots.zip(width..).map(|(_, column)| Split {
            column,
            border: IS_IT,
            missing_is_above: false,
        });
        let ctrs = parts
            .ctrs
            .iter()
            .zip(first_ctr..)
            .flat_map(|(ctr, column)| {
                ctr.borders.iter().map(move |&border| Split {
                    column,
                    border,
                    missing_is_above: false,
                })
            });
        Self(floats.chain(one_hots).chain(ctrs).collect())
    }

    #[cfg(test)]
    pub(super) fn from(splits: Vec<Split>) -> Self {
        Self(splits)
    }

    pub(super) fn get(&self, index: u32) -> Result<Split, Fault> {
        let split = self.0.get(index as usize).copied();
        split.ok_or_else(|| Fault(format!("split {index} is outside 0..{}", self.0.len())))
    }
}
