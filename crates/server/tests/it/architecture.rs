//! The rules of direction of ARCHITECTURE.md, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::server::repository;

/// Which crates of the workspace each crate may use.
const ALLOWED: [(&str, &[&str]); 7] = [
    ("auspex-kernel", &[]),
    ("auspex-engine", &[]),
    ("auspex-inference", &["auspex-kernel", "auspex-engine"]),
    ("auspex-identity", &["auspex-kernel"]),
    ("auspex-dialogues", &["auspex-kernel"]),
    ("auspex-gateway", &["auspex-kernel"]),
    ("auspex-jobs", &["auspex-kernel"]),
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
    for service in ["inference", "identity", "dialogues", "jobs"] {
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
                for word in ["sea_orm", "SELECT "] {
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

/// The floors of identity, from the ground up.
const FLOORS: [&[&str]; 7] = [
    &[
        "canonical",
        "config",
        "error",
        "issuer",
        "jwt",
        "password",
        "throttle",
        "types",
    ],
    &["migration", "store"],
    &["audit", "directory"],
    &["core"],
    &[
        "api_keys",
        "authenticate",
        "maintenance",
        "oauth",
        "passwords",
        "sessions",
        "signing",
        "tokens",
        "users",
        "vouching",
        "watch",
    ],
    &["http"],
    &["lib", "service"],
];

#[test]
fn identity_uses_its_own_floor_and_those_below() {
    let source = repository().join("crates/identity/src");
    let floor = |module: &str| {
        let floor = FLOORS.iter().position(|floor| floor.contains(&module));
        floor.unwrap_or_else(|| panic!("the module {module} has no floor"))
    };
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources(&source) {
        if path.ends_with("tests.rs") {
            continue;
        }
        let inside = path
            .strip_prefix(&source)
            .expect("inside")
            .with_extension("");
        let names: Vec<String> = inside
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .filter(|name| name != "mod")
            .collect();
        let text = std::fs::read_to_string(&path).expect("read");
        let mut used = modules_used(names.len(), &text);
        used.remove(&names[0]);
        for other in &used {
            assert!(
                floor(other) <= floor(&names[0]),
                "{} uses {other}, which is on a floor above it",
                path.display()
            );
        }
        uses.entry(names[0].clone()).or_default().extend(used);
    }
    let with_floor: BTreeSet<&str> = FLOORS.iter().copied().flatten().copied().collect();
    assert_eq!(
        uses.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        with_floor
    );

    // Those that use nothing that is left go, until only circles are left.
    let is_done = |used: &BTreeSet<String>, left: &BTreeMap<String, _>| {
        used.iter().all(|module| !left.contains_key(module))
    };
    while let Some((done, _)) = uses.iter().find(|(_, used)| is_done(used, &uses)) {
        let done = done.clone();
        uses.remove(&done);
    }
    let left: Vec<_> = uses.into_keys().collect();
    assert_eq!(left, [""; 0], "some of these go in a circle");
}

/// The modules at the root of a crate that a file uses, `lib` for what `lib.rs` itself has. `depth`
/// is how many modules the file is below the root. Tests and comments do not count.
fn modules_used(depth: usize, text: &str) -> BTreeSet<String> {
    let (text, _) = text
        .split_once("#[cfg(test)]\nmod tests {")
        .unwrap_or((text, ""));
    let code = text.lines().filter(|line| !line.trim().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let code = code.replace(&"super::".repeat(depth), "crate::");
    let mut used = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        let mut nested = 0;
        let group = path.strip_prefix('{').map(|group| {
            let end = |c: char| {
                nested += i32::from(c == '{') - i32::from(c == '}');
                nested < 0
            };
            group.split(end).next().unwrap_or_default()
        });
        for path in group.map_or(vec![path], names_of_group) {
            let name = path
                .trim()
                .split(|c: char| !c.is_alphanumeric() && c != '_');
            let name = name.into_iter().next().unwrap_or_default();
            let is_module = name.starts_with(|c: char| c.is_ascii_lowercase());
            used.insert(if is_module { name } else { "lib" }.to_owned());
        }
    }
    used
}

/// The parts of `a::b, c::{d, e}`.
fn names_of_group(group: &str) -> Vec<&str> {
    let mut nested = 0;
    let parts = group.split(move |c: char| {
        nested += i32::from(c == '{') - i32::from(c == '}');
        nested == 0 && c == ','
    });
    parts.filter(|part| !part.trim().is_empty()).collect()
}

#[test]
fn uses_of_modules_are_found() {
    let text = "use crate::{Identity, store::{self, users}};\n// crate::no\n\
        use super::super::http::x;\nfn f(y: crate::jwt::Key) {}\nuse super::b;\n\
        #[cfg(test)]\nmod tests {\n    use crate::never;\n}\n";
    let used = modules_used(2, text);
    assert_eq!(Vec::from_iter(used), ["http", "jwt", "lib", "store"]);
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

pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
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
