//! The protocol of this API: records by name or values by position, one or many, answered with
//! labels and probabilities.

use crate::PredictError;
use crate::answer::Answer;
use crate::explain::Top;
use crate::model::{Target, Version};
use crate::plan::{FEATURES, Scratch, Shape};
use crate::protocol::Protocol;
use crate::validate::{Asked, Reader, WHOLE_BODY, version_asked};

/// Records, and what their answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Records {
    /// Every number of every row, and nothing else.
    Numbers,
    /// Labels, probabilities, model and version.
    Full,
    /// The same with explanations, also of those that do not ask for them in the body.
    Explained(Top),
}

impl Protocol for Records {
    type Shape = Asked;

    /// Reads fast if the body is as expected, else slowly.
    fn read(
        self,
        target: &mut Target,
        text: &str,
        rows_max: usize,
        scratch: &mut Scratch,
    ) -> Result<Asked, PredictError> {
        for _ in 0..2 {
            let is_asked = |name: &str| target.is_asked(name);
            let plan = &target.version().package().plan;
            if let Some(shape) = plan.read(text, rows_max, &is_asked, scratch) {
                return Ok(shape.into());
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

    fn explain(self, asked: Asked) -> Option<Top> {
        match self {
            Self::Explained(top) => Some(asked.explain.unwrap_or(top)),
            Self::Numbers | Self::Full => asked.explain,
        }
    }

    fn place(self, asked: Asked, row: usize) -> String {
        match asked.shape {
            Shape::Record => WHOLE_BODY.to_owned(),
            Shape::Records => format!("[{row}]"),
            Shape::Values => FEATURES.to_owned(),
            Shape::ValueLists => format!("{FEATURES}[{row}]"),
        }
    }

    fn write(
        self,
        version: &Version,
        asked: Asked,
        answer: &Answer<'_>,
        request_id: &str,
        out: &mut Vec<u8>,
    ) {
        let writer = &version.package().writer;
        match (self, asked.shape) {
            (Self::Numbers, _) => writer.all_numbers(answer, out),
            (_, Shape::Record | Shape::Values) => writer.single(answer, request_id, out),
            (_, Shape::Records | Shape::ValueLists) => writer.list(answer, request_id, out),
        }
    }
}
