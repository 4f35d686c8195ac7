//! The package that ships with the repository, from its folder to its rows.

use std::path::Path;

use auspex_inference::{Config, Inference, Package};
use auspex_kernel::Clock;

fn package() -> Package {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/santander/1");
    Package::load(&folder).expect("the shipped model is good")
}

#[test]
fn the_shipped_model_reproduces_its_examples() {
    let package = package();
    assert_eq!((package.model(), package.version()), ("santander", "1"));
    assert_eq!(
        package.check_examples().expect("they were checked at load"),
        3
    );
    assert_eq!(package.schema().features.len(), 20);
    assert_eq!(package.labels().map(<[_]>::len), Some(22));
}

#[test]
fn a_line_becomes_a_labelled_prediction() {
    let package = package();
    let mut line = Vec::new();
    package
        .predict_line(&package.example_record().to_string(), &mut line)
        .expect("its own example");
    let line: serde_json::Value = serde_json::from_slice(&line).expect("a line of JSON");
    assert_eq!(line["prediction"], "ind_recibo_ult1");
    assert_eq!(line["probabilities"].as_array().map(Vec::len), Some(22));
}

#[test]
fn the_shipped_folder_is_served_with_santander_as_default() {
    let config = Config {
        models: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models"),
        ..Config::default()
    };
    let inference = Inference::load(&config, Clock::system()).expect("all models are good");
    let models = inference.models();
    let names: Vec<&str> = models.ready().map(|model| model.name()).collect();
    assert_eq!(names, ["mean-score", "santander"]);
    assert_eq!(
        models.default_model().map(|model| model.name()),
        Some("santander")
    );
}
