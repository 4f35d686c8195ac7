//! Small engines and packages for tests.

use std::path::Path;

use auspex_engine::{
    Engine, Explain, Feature, FeatureKind, NamedOutput, Output, Precision, RowRefusal, Rows,
    Signature, Unexplained,
};

use crate::package::{Package, PackageError};

/// What [`Mean`] says of a text that is [`REFUSED`].
pub(crate) const REASON: &str = "has a text that the model does not know";
/// The text that [`Mean`] refuses.
pub(crate) const REFUSED: &str = "nowhere";

/// An engine whose outputs are easy to tell: the first is the mean of what is not missing, a text
/// counting as its length.
#[derive(Debug)]
pub(crate) struct Mean(pub(crate) Signature);

impl Engine for Mean {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn description(&self) -> String {
        "mean of the inputs".into()
    }

    fn explain(&self) -> Result<&dyn Explain, Unexplained> {
        match self.0.output {
            Output::Class { .. } => Err(Unexplained::Kind),
            _ => Ok(self),
        }
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        for (row, out) in out.chunks_exact_mut(self.0.outputs()).enumerate() {
            let mut known = self.numbers(rows, row)?;
            known.retain(|value| !value.is_nan());
            let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
            let more = self.0.more_outputs.iter().map(|more| more.output);
            let mut out = out.iter_mut();
            for output in std::iter::once(self.0.output).chain(more) {
                for (place, value) in out.by_ref().take(output.width()).enumerate() {
                    *value = f64::from(one_output(output, place, mean) as f32);
                }
            }
        }
        Ok(())
    }
}

impl Mean {
    /// What the values of a row count as.
    fn numbers(&self, rows: Rows<'_>, row: usize) -> Result<Vec<f64>, RowRefusal> {
        let values = rows.row(row).iter().zip(&self.0.features);
        let number = |(value, feature): (&f64, &Feature)| {
            if !feature.kind.is_text() {
                return Ok(*value);
            }
            match rows.text(*value) {
                Some(REFUSED) => Err(RowRefusal {
                    row,
                    reason: REASON.into(),
                }),
                text => Ok(text.map_or(f64::NAN, |text| text.len() as f64)),
            }
        };
        values.map(number).collect()
    }
}

/// Each value adds its share of the mean; the base is the number of the margin.
impl Explain for Mean {
    fn margins(&self) -> usize {
        self.0.output.width()
    }

    fn bytes(&self) -> usize {
        self.0.features.len()
    }

    fn contributions(
        &self,
        rows: Rows<'_>,
        margin: usize,
        out: &mut [f64],
    ) -> Result<(), RowRefusal> {
        for (row, out) in out.chunks_exact_mut(rows.width() + 1).enumerate() {
            let numbers = self.numbers(rows, row)?;
            let known = numbers.iter().filter(|number| !number.is_nan()).count();
            for (out, number) in out.iter_mut().zip(numbers) {
                *out = if number.is_nan() {
                    0.0
                } else {
                    number / known as f64
                };
            }
            out[rows.width()] = margin as f64;
        }
        Ok(())
    }
}

fn one_output(output: Output, place: usize, mean: f64) -> f64 {
    match output {
        Output::Binary => 1.0 / (1.0 + (-mean).exp()),
        Output::Multiclass { classes } => (place + 1) as f64 / (classes * (classes + 1) / 2) as f64,
        Output::Class { .. } => 1.0,
        Output::Numbers { .. } => mean + place as f64,
    }
}

/// A signature of unnamed numbers.
pub(crate) fn signature(features: usize, output: Output) -> Signature {
    let feature = |index| Feature {
        name: format!("f{index}"),
        kind: FeatureKind::Number,
        takes_missing: false,
    };
    Signature {
        features: (0..features).map(feature).collect(),
        named: false,
        output,
        more_outputs: Vec::new(),
        precision: Precision::F32,
        class_labels: Vec::new(),
        missing: None,
    }
}

/// A package over [`Mean`] with that `model.toml`.
pub(crate) fn try_package(
    model: &str,
    version: &str,
    signature: Signature,
    manifest: &str,
) -> Result<Package, PackageError> {
    let manifest = toml::from_str(manifest).expect("a manifest");
    Package::assemble(
        Path::new(model),
        model,
        version,
        manifest,
        Box::new(Mean(signature)),
    )
}

/// A model of every type of field: six features, two unused fields.
pub(crate) const KITCHEN: &str = r#"
title = "Kitchen sink"
unused = ["id", { name = "noted", example = "2016-06-28" }]
[output]
labels = ["no", "yes"]
[[features]]
name = "age"
type = "integer"
min = 0
max = 130
[[features]]
name = "sexo"
type = "category"
values = ["H", "V"]
[[features]]
name = "income"
type = "number"
min = 0
nullable = true
[[features]]
name = "active"
type = "boolean"
[[features]]
name = "province"
type = "category"
values = ["CORUÑA, A", "CORUÑA, B", "MADRID"]
nullable = true
[[features]]
name = "weight"
type = "number"
default = 1.5
[[examples]]
input = { id = 1, age = 56, sexo = "H", income = 2.5, active = true, province = "MADRID", weight = 1 }
output = [0.0000292, 0.9999708]
tolerance = 1
"#;

/// The package of [`KITCHEN`].
pub(crate) fn kitchen() -> Package {
    try_package("kitchen", "1", signature(6, Output::Binary), KITCHEN).expect("a good package")
}

/// A package that takes a number and a text and gives a number and a risk; both inputs may be
/// missing.
pub(crate) fn town() -> Package {
    let feature = |name: &str, kind| Feature {
        name: name.into(),
        kind,
        takes_missing: false,
    };
    let signature = Signature {
        features: vec![
            feature("age", FeatureKind::Number),
            feature("town", FeatureKind::Text),
        ],
        named: true,
        more_outputs: vec![NamedOutput {
            name: "risk".into(),
            output: Output::Binary,
        }],
        ..signature(2, Output::Numbers { count: 1 })
    };
    let manifest = "[[features]]\nname = \"age\"\nnullable = true\n\
                    [[features]]\nname = \"town\"\ntype = \"string\"\nnullable = true\n\
                    [[examples]]\ninput = { age = 2, town = \"Lugo\" }\noutput = [3, 0.95257413]";
    try_package("town", "1", signature, manifest).expect("a good package")
}
