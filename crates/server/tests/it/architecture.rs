//! The rules of direction of ARCHITECTURE.md, checked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::server::repository;

/// Which crates of the workspace each crate may use.
const ALLOWED: [(&str, &[&str]); 4] = [
    ("auspex-kernel", &[]),
    ("auspex-engine", &[]),
    ("auspex-inference", &["auspex-kernel", "auspex-engine"]),
    ("auspex-identity", &["auspex-kernel"]),
];

#[test]
fn crates_depend_only_in_the_allowed_direction() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(repository())
        .output()
        .expect("cargo metadata runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    for (name, allowed) in ALLOWED {
        let package = packages.iter().find(|p| p["name"] == name).expect(name);
        let used: BTreeSet<&str> = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter_map(|d| d["name"].as_str())
            .filter(|d| d.starts_with("auspex-"))
            .collect();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        assert!(
            used.is_subset(&allowed),
            "{name} uses {used:?}, may use {allowed:?}"
        );
    }
    let known: BTreeSet<_> = packages
        .iter()
        .filter_map(|p| p["name"].as_str())
        .filter(|n| n.starts_with("auspex-"))
        .collect();
    let ruled: BTreeSet<_> = ALLOWED
        .iter()
        .map(|(name, _)| *name)
        .chain(["auspex-server"])
        .collect();
    assert_eq!(known, ruled, "every crate has its rule");
}

#[test]
fn the_engine_knows_no_runtime_no_http_and_no_sql() {
    let manifest =
        std::fs::read_to_string(repository().join("crates/engine/Cargo.toml")).expect("read");
    for word in ["tokio", "axum", "hyper", "sea-orm", "tracing"] {
        assert!(!manifest.contains(word), "the engine depends on {word}");
    }
}

#[test]
fn http_stays_in_http_rs_and_sql_in_store_rs() {
    for service in ["inference", "identity"] {
        let sources = sources(&repository().join("crates").join(service).join("src"));
        assert!(!sources.is_empty());
        for path in sources {
            let text = std::fs::read_to_string(&path).expect("read");
            // A file, or a folder with files: `http.rs`, `http/users.rs`, `store/users.rs`.
            let inside = path.strip_prefix(repository()).expect("inside");
            let is_in = |word: &str| {
                let mut names = inside.iter().map(|name| name.to_string_lossy());
                names.any(|name| name.starts_with(word))
            };
            if !is_in("http") && !path.ends_with("tests.rs") {
                assert!(
                    !text.contains("use axum"),
                    "{}: axum outside http.rs",
                    path.display()
                );
            }
            let uses_store = text.contains("crate::store") || text.contains("super::store");
            assert!(
                !(is_in("http") && uses_store),
                "{}: HTTP asks operations, not the store",
                path.display()
            );
            if !is_in("store") && !is_in("migration") {
                for word in ["EntityTrait", "QueryFilter", "SELECT "] {
                    assert!(
                        !text.contains(word),
                        "{}: SQL outside store.rs",
                        path.display()
                    );
                }
            }
        }
    }
}

#[test]
fn no_module_is_a_drawer_for_everything() {
    for path in sources(&repository().join("crates")) {
        let stem = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        for word in [
            "utils", "util", "common", "helpers", "helper", "manager", "misc",
        ] {
            assert_ne!(stem, word, "{}", path.display());
        }
    }
}

#[test]
fn unsafe_code_is_allowed_in_simd_kernels_only() {
    let mut found = 0;
    for path in sources(&repository().join("crates")) {
        let text: String = std::fs::read_to_string(&path)
            .expect("read")
            .split_whitespace()
            .collect();
        let allows = text.contains("expect(unsafe_code") || text.contains("allow(unsafe_code");
        let kernel = path.to_string_lossy().contains("engine/src/forest/");
        assert!(!allows || kernel, "{} allows unsafe code", path.display());
        found += usize::from(allows);
    }
    assert!(found > 0, "the kernels are found by this search");
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("architecture.rs")
        {
            found.push(path);
        }
    }
    found
}
