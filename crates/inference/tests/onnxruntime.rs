//! A graph of images, which the engine refuses and ONNX Runtime predicts (`scripts/golden/make_images.py`). The library
//! is the one that `AUSPEX_TEST_ONNXRUNTIME` names, which `scripts/test` installs.

#![cfg(not(feature = "tract"))]
#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

mod images;

use std::path::{Path, PathBuf};
use std::thread::scope;

use auspex_engine::{Output, Precision};
use auspex_inference::{Package, use_onnxruntime};
use images::{data, is_near, numbers, predict};
use serde_json::Value;

/// One test, since a process loads one library and does not let go of it.
#[test]
fn graphs_that_the_engine_refuses_are_run_by_the_library_that_is_named() {
    let refusal = Package::load(&data("images.onnx")).unwrap_err().to_string();
    assert!(refusal.contains("Conv"), "{refusal}");
    assert!(refusal.contains("set inference.onnxruntime"), "{refusal}");

    let missing = use_onnxruntime(Path::new("/nowhere/libonnxruntime.so")).unwrap_err();
    assert!(missing.contains("/nowhere/libonnxruntime.so"), "{missing}");
    let Some(library) = std::env::var_os("AUSPEX_TEST_ONNXRUNTIME") else {
        return;
    };
    let library = PathBuf::from(library);
    use_onnxruntime(&library).unwrap();
    use_onnxruntime(&library).unwrap();
    let other = use_onnxruntime(Path::new("/nowhere/libonnxruntime.so")).unwrap_err();
    assert!(other.contains("restart"), "{other}");

    let package = Package::load(&data("images.onnx")).unwrap();
    let engine = package.engine();
    assert!(engine.description().starts_with("ONNX Runtime"));
    let signature = engine.signature();
    assert_eq!(signature.features.len(), 64);
    assert_eq!(signature.features[63].name, "f63");
    assert_eq!(signature.output, Output::Numbers { count: 3 });
    assert_eq!(signature.more_outputs[0].name, "scores");
    assert_eq!(signature.precision, Precision::F32);

    let golden: Value =
        serde_json::from_slice(&std::fs::read(data("images.json")).unwrap()).unwrap();
    let (rows, wanted) = (numbers(&golden["rows"]), numbers(&golden["predictions"]));
    assert!(is_near(&predict(engine, &rows), &wanted));
    for (row, wanted) in rows.chunks(64).zip(wanted.chunks(6)) {
        assert!(is_near(&predict(engine, row), wanted));
    }
    // More rows than go through the graph together, from more threads than there are sessions.
    let many = rows.repeat(200);
    scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let found = predict(engine, &many);
                assert!(
                    found
                        .chunks(wanted.len())
                        .all(|found| is_near(found, &wanted))
                );
            });
        }
    });

    // What the engine runs stays with it, and what is no graph is refused by both.
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/pipelines");
    let own = Package::load(&own.join("people-logistic.onnx")).unwrap();
    assert!(own.engine().description().starts_with("onnx"));
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("model.onnx");
    let whole = std::fs::read(data("images.onnx")).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let refusal = Package::load(&cut).unwrap_err().to_string();
    assert!(
        refusal.contains("nor does ONNX Runtime take it"),
        "{refusal}"
    );
}
