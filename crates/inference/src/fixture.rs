//! Small engines and packages for tests.

use std::path::Path;

use auspex_engine::{Engine, Feature, FeatureKind, Output, Precision, Rows, Signature};

use crate::package::{Package, PackageError};

/// An engine whose outputs are easy to tell: the first is the mean of what is not missing.
#[derive(Debug)]
pub(crate) struct Mean(pub(crate) Signature);

impl Engine for Mean {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn description(&self) -> String {
        "mean of the inputs".into()
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) {
        let outputs = self.0.outputs();
        for (index, out) in out.chunks_exact_mut(outputs).enumerate() {
            let known: Vec<f64> = rows
                .row(index)
                .iter()
                .copied()
                .filter(|value| !value.is_nan())
                .collect();
            let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
            for (place, value) in out.iter_mut().enumerate() {
                let exact = match self.0.output {
                    Output::Binary => 1.0 / (1.0 + (-mean).exp()),
                    Output::Multiclass { classes } => {
                        (place + 1) as f64 / (classes * (classes + 1) / 2) as f64
                    }
                    Output::Class { .. } => 1.0,
                    Output::Numbers { .. } => mean + place as f64,
                };
                *value = f64::from(exact as f32);
            }
        }
    }
}

/// A signature of unnamed numbers.
pub(crate) fn signature(features: usize, output: Output) -> Signature {
    let feature = |index| Feature {
        name: format!("f{index}"),
        kind: FeatureKind::Number,
    };
    Signature {
        features: (0..features).map(feature).collect(),
        named: false,
        output,
        precision: Precision::F32,
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
