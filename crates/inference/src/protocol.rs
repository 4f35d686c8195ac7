//! How a body is read and an answer is written. Each protocol is a file of its own below this one;
//! models do not know which one is used.

use crate::PredictError;
use crate::answer::Answer;
use crate::explain::Top;
use crate::model::{Target, Version};
use crate::plan::Scratch;

pub(crate) mod records;

/// A way of asking for predictions.
pub(crate) trait Protocol: Copy + Send + 'static {
    /// What the answer depends on apart from the numbers.
    type Shape: Copy + Send + 'static;

    /// Reads a body into `scratch.rows`, at most `rows_max` of them. It may turn the target to
    /// another version, where the body names one.
    fn read(
        self,
        target: &mut Target,
        text: &str,
        rows_max: usize,
        scratch: &mut Scratch,
    ) -> Result<Self::Shape, PredictError>;

    /// Whether predictions are to be explained, and by how many features.
    fn explain(self, _: Self::Shape) -> Option<Top> {
        None
    }

    /// The path of that row in the body, for a message about it.
    fn place(self, shape: Self::Shape, row: usize) -> String;

    /// Writes the answer.
    fn write(
        self,
        version: &Version,
        shape: Self::Shape,
        answer: &Answer<'_>,
        request_id: &str,
        out: &mut Vec<u8>,
    );
}
