//! Which boosting iterations a caller has asked for.

use std::ops::Range;

use crate::document::Fault;

/// The iterations of a range as in [`crate::LoadOptions::iteration_range`], for a model that has `all`.
pub(crate) fn resolve(range: (u32, u32), all: usize) -> Result<Range<usize>, Fault> {
    let begin = range.0 as usize;
    let end = if range.1 == 0 { all } else { range.1 as usize };
    if begin > end || end > all {
        return Err(Fault(format!(
            "iterations {begin}..{end} are asked for, the model has {all}"
        )));
    }
    Ok(begin..end)
}
