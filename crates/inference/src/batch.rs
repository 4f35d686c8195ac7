//! Predictions for other services: many rows at once, each answered in its place.

use std::sync::Arc;

use auspex_engine::RowBuffer;
use auspex_kernel::predict::{Batch, NoPrediction, Pinned, Predict, Predicted, Predicting};
use auspex_kernel::records::{Input, Row};
use auspex_kernel::{ApiError, FieldError};
use csv::StringRecord;
use serde_json::json;

use crate::http::{Missing, find_model};
use crate::model::Version;
use crate::names::LATEST;
use crate::package::{Package, of_line};
use crate::plan::Scratch;
use crate::table::Columns;
use crate::{Inference, Kind};

/// Errors of one row that are listed.
const ROW_ERRORS_MAX: usize = 10;

impl Predict for Inference {
    fn pin(&self, model: Option<&str>, version: Option<&str>) -> Result<Pinned, ApiError> {
        let models = self.models();
        let model = match model {
            Some(name) => find_model(self, name)?,
            None => {
                let default = models.default_model().cloned();
                default.ok_or_else(|| Missing::default(&models))?
            }
        };
        let asked = version.unwrap_or(LATEST);
        let version = model
            .version(asked)
            .ok_or_else(|| Missing::version(&model, asked))?;
        Ok(Pinned {
            model: model.name().to_owned(),
            version: version.package().version().to_owned(),
            content: version.package().content().map(str::to_owned),
        })
    }

    fn check_header(&self, pinned: &Pinned, header: &StringRecord) -> Result<(), NoPrediction> {
        let version = self.pinned(pinned)?;
        let columns = Columns::new(version.package().schema(), header);
        columns.map(drop).map_err(NoPrediction::Header)
    }

    fn predict(self: Arc<Self>, pinned: Pinned, batch: Batch) -> Predicting {
        Box::pin(async move {
            let version = self.pinned(&pinned)?;
            let work = move || {
                let predicted = predict(version.package(), &batch)?;
                let right = predicted.rows - predicted.wrong;
                version.predictions.inc_by(right);
                Ok(predicted)
            };
            self.compute
                .run(work)
                .await
                .map_err(|_| NoPrediction::Busy)?
        })
    }
}

impl Inference {
    fn pinned(&self, pinned: &Pinned) -> Result<Arc<Version>, NoPrediction> {
        let models = self.models();
        let model = models.model(&pinned.model);
        let version = model.and_then(|model| model.version(&pinned.version).cloned());
        let version = version.ok_or_else(|| NoPrediction::NotServed(pinned.clone()))?;
        let is_other = |content| version.package().content() != Some(content);
        match pinned.content.as_deref().is_some_and(is_other) {
            true => Err(NoPrediction::Replaced(pinned.clone())),
            false => Ok(version),
        }
    }
}

/// What a row became before the model was asked.
type Read = Result<(), Vec<FieldError>>;

/// Reads all rows, predicts those that are right together, and writes one line for each.
fn predict(package: &Package, batch: &Batch) -> Result<Predicted, NoPrediction> {
    let (mut rows, read) = read(package, batch)?;
    let mut values = Vec::new();
    let refused = package.predict(&rows, &mut values).is_err();
    let mut predicted = Predicted {
        lines: Vec::with_capacity(batch.text.len()),
        ..Predicted::default()
    };
    let (width, outputs) = (package.plan.width(), package.outputs());
    let mut at = 0;
    for row in read {
        predicted.rows += 1;
        let answered = match row {
            Ok(()) if refused => {
                let own = rows.values[at * width..(at + 1) * width].to_vec();
                at += 1;
                // The texts that its numbers stand for are those of all rows.
                let mut one = RowBuffer {
                    values: own,
                    texts: std::mem::take(&mut rows.texts),
                };
                let answered = package.predict(&one, &mut values);
                rows.texts = std::mem::take(&mut one.texts);
                answered
                    .map(|()| {
                        package
                            .writer
                            .line(&values.as_slice().into(), &mut predicted.lines)
                    })
                    .map_err(|refusal| of_line(refusal.reason))
            }
            Ok(()) => {
                let own = &values[at * outputs..(at + 1) * outputs];
                at += 1;
                package.writer.line(&own.into(), &mut predicted.lines);
                Ok(())
            }
            Err(errors) => Err(errors),
        };
        if let Err(errors) = answered {
            predicted.wrong += 1;
            let errors = shortened(errors);
            // It is text, and goes to memory.
            let _ = serde_json::to_writer(&mut predicted.lines, &json!({"error": errors}));
            predicted.lines.push(b'\n');
        }
    }
    Ok(predicted)
}

/// A row of two bytes can have an error for each of a thousand fields, and there may be millions of such rows.
fn shortened(mut errors: Vec<FieldError>) -> Vec<FieldError> {
    if errors.len() > ROW_ERRORS_MAX {
        errors.truncate(ROW_ERRORS_MAX);
        errors.extend(of_line("has more invalid fields, which are not listed"));
    }
    errors
}

/// The rows that are right, and for every row whether it is one of them.
fn read(package: &Package, batch: &Batch) -> Result<(RowBuffer, Vec<Read>), NoPrediction> {
    let header = batch.header.clone().unwrap_or_default();
    let columns = Columns::new(package.schema(), &header).map_err(NoPrediction::Header)?;
    let mut input = match &batch.header {
        Some(header) => Input::table(&*batch.text, header.clone()),
        None => Input::lines(&*batch.text),
    };
    let (mut rows, mut read, mut scratch) = (RowBuffer::default(), Vec::new(), Scratch::default());
    // Memory does not fail to be read.
    while let Ok(Some((_, row))) = input.next_row() {
        read.push(match row {
            Row::Blank => Err(of_line("is blank")),
            Row::Json(text) => add(package, text, &mut scratch, &mut rows),
            Row::Cells(cells) => {
                let record = columns.record(&cells).to_string();
                add(package, &record, &mut scratch, &mut rows)
            }
            Row::Broken(why) => Err(of_line(why)),
        });
    }
    Ok((rows, read))
}

/// Adds the row of a record: read fast if it is as expected, else slowly.
fn add(package: &Package, text: &str, scratch: &mut Scratch, rows: &mut RowBuffer) -> Read {
    let is_version = |name: &str| name == package.version();
    match package.plan.read(text, 1, &is_version, scratch) {
        Some(_) => append(package, &scratch.rows, rows),
        None => append(package, &package.parse_line(text)?, rows),
    }
}

/// Adds the one row of `new` to others, whose texts are numbered on.
fn append(package: &Package, new: &RowBuffer, rows: &mut RowBuffer) -> Read {
    let view = new.rows(package.plan.width());
    if view.len() != 1 {
        return Err(of_line("must be one record"));
    }
    let cells = view.row(0).iter().zip(&package.schema().features);
    for (value, field) in cells {
        let is_text = matches!(field.kind, Kind::Text);
        let text = is_text.then(|| view.text(*value)).flatten();
        let value = text.map_or(*value, |text| rows.texts.push(text));
        rows.values.push(value);
    }
    Ok(())
}
