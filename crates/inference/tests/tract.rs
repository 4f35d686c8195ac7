//! A graph of images, which the engine refuses and tract predicts, in a program that was built with it.

#![cfg(feature = "tract")]
#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

mod images;

use std::path::Path;

use auspex_engine::{Output, Precision};
use auspex_inference::Package;
use images::{data, is_near, numbers, predict};
use serde_json::Value;

#[test]
fn graphs_that_the_engine_refuses_are_run_by_tract() {
    let package = Package::load(&data("images.onnx")).unwrap();
    let engine = package.engine();
    assert_eq!(engine.description(), "tract, 1 inputs");
    let signature = engine.signature();
    assert_eq!(signature.features.len(), 64);
    assert_eq!(signature.output, Output::Numbers { count: 3 });
    assert_eq!(signature.more_outputs[0].name, "scores");
    assert_eq!(signature.precision, Precision::F32);

    let golden = std::fs::read(data("images.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let (rows, wanted) = (numbers(&golden["rows"]), numbers(&golden["predictions"]));
    assert!(is_near(&predict(engine, &rows), &wanted));
    for (row, wanted) in rows.chunks(64).zip(wanted.chunks(6)) {
        assert!(is_near(&predict(engine, row), wanted));
    }
    // More rows than go through the graph together, from several threads.
    let many = rows.repeat(200);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let found = predict(engine, &many);
                let mut each = found.chunks(wanted.len());
                assert!(each.all(|found| is_near(found, &wanted)));
            });
        }
    });
}

#[test]
fn what_the_engine_runs_stays_with_it() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/pipelines");
    let own = Package::load(&own.join("people-logistic.onnx")).unwrap();
    assert!(own.engine().description().starts_with("onnx"));
}

#[test]
fn damaged_graphs_are_refused_and_nothing_panics() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    let whole = std::fs::read(data("images.onnx")).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let refusal = Package::load(&file).unwrap_err().to_string();
    assert!(refusal.contains("nor does tract take it"), "{refusal}");
    for place in (0..whole.len()).step_by(7) {
        for bits in [0x01, 0x80] {
            let mut damaged = whole.clone();
            damaged[place] ^= bits;
            std::fs::write(&file, &damaged).unwrap();
            // Some are graphs still.
            let _ = Package::load(&file);
        }
    }
}
