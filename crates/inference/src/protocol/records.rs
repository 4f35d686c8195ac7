//! The protocol of this API: records by name or values by position, one or many, answered with
//! labels and probabilities.

use crate::PredictError;
use crate::model::{Target, Version};
use crate::plan::{FEATURES, Scratch, Shape};
use crate::protocol::Protocol;
use crate::validate::{Reader, WHOLE_BODY, version_asked};

/// Records, and what their answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Records {
    /// Every number of every row, and nothing else.
    Numbers,
    /// Labels, probabilities, model and version.
    Full,
}

impl Protocol for Records {
    type Shape = Shape;

    /// Reads fast if the body is as expected, else slowly.
    fn read(
        self,
        target: &mut Target,
        text: &str,
        rows_max: usize,
        scratch: &mut Scratch,
    ) -> Result<Shape, PredictError> {
        for _ in 0..2 {
            let is_asked = |name: &str| target.is_asked(name);
            let plan = &target.version().package().plan;
            if let Some(shape) = plan.read(text, rows_max, &is_asked, scratch) {
                return Ok(shape);
            }
            let Some(name) = version_asked(text) else {
                break;
            };
            if target.is_waiting_for(&name) {
                return Err(PredictError::NotReady(target.model().to_owned()));
            }
            if !target.turn_to(&name) {
                break;
            }
        }
        let reader = Reader {
            schema: target.version().package().schema(),
            rows_max,
            versions: &target.names(),
        };
        Ok(reader.read(text, &mut scratch.rows)?)
    }

    fn place(self, shape: Shape, row: usize) -> String {
        match shape {
            Shape::Record => WHOLE_BODY.to_owned(),
            Shape::Records => format!("[{row}]"),
            Shape::Values => FEATURES.to_owned(),
            Shape::ValueLists => format!("{FEATURES}[{row}]"),
        }
    }

    fn write(
        self,
        version: &Version,
        shape: Shape,
        outputs: &[f64],
        request_id: &str,
        out: &mut Vec<u8>,
    ) {
        let writer = &version.package().writer;
        match (self, shape) {
            (Self::Numbers, _) => writer.all_numbers(outputs, out),
            (Self::Full, Shape::Record | Shape::Values) => writer.single(outputs, request_id, out),
            (Self::Full, Shape::Records | Shape::ValueLists) => {
                writer.list(outputs, request_id, out);
            }
        }
    }
}
