//! What is wrong with the text of a manifest, in the words of TOML and of the documentation.
//!
//! Values are not repeated: the answers of the API and the log have other readers than the file.

use serde_path_to_error::Error;

/// Where keys belong that are found elsewhere.
const HOMES: [(&str, &[&str]); 4] = [
    ("in [output], on a line below that", &["kind", "labels"]),
    (
        "in a section that begins with [[features]]",
        &["name", "type", "values", "min", "max"],
    ),
    (
        "in a section that begins with [[examples]]",
        &["input", "output", "tolerance"],
    ),
    (
        "at the top of the file, before the first section",
        &[
            "title",
            "default",
            "unknown",
            "iteration_range",
            "nullable",
            "missing",
            "unused",
        ],
    ),
];
/// Keys whose tables are lists of sections.
const LISTS: [&str; 2] = ["features", "examples"];

/// What is wrong where the text is TOML.
pub(super) fn of_content(text: &str, error: &Error<toml::de::Error>) -> String {
    let path = error.path().to_string();
    let message = error.inner().message();
    in_line(text, error.inner(), &reworded(&path, message))
}

/// What is wrong where the text is no TOML.
pub(super) fn of_syntax(text: &str, error: &toml::de::Error) -> String {
    in_line(text, error, error.message())
}

fn in_line(text: &str, error: &toml::de::Error, message: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            format!("line {line}: {message}")
        }
        None => message.to_owned(),
    }
}

/// A message of serde, which has the words of Rust, with the path of the key that it is about.
fn reworded(path: &str, message: &str) -> String {
    // The last one: a value may have these words in it.
    let (said, wanted) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    if let Some(found) = said.strip_prefix("invalid ") {
        let list = LISTS.iter().find(|list| **list == path);
        let hint = list.map_or_else(String::new, |list| {
            format!("; write each of them as a section that begins with [[{list}]]")
        });
        let (wanted, found) = (wanted_name(wanted), found_name(found));
        return format!("{path} must be {wanted}, not {found}{hint}");
    }
    if said.starts_with("unknown variant ") {
        return format!("{path} must be {}", wanted.replace('`', "\""));
    }
    if let Some(key) = said.strip_prefix("unknown field ") {
        let key = key.trim_matches('`');
        let home = HOMES.iter().find(|(_, keys)| keys.contains(&key));
        return match home {
            Some((home, _)) => {
                format!("the key {key} is in the wrong place; it belongs {home}")
            }
            None => {
                let known = wanted.trim_start_matches("one of ").replace('`', "");
                format!("there is no key {key}; here may be {known}")
            }
        };
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        let key = key.trim_matches('`');
        return match path {
            "" | "." => format!("{key} is missing"),
            _ => format!("{path} has no {key}"),
        };
    }
    message.to_owned()
}

fn wanted_name(wanted: &str) -> &str {
    match wanted {
        "f64" => "a number",
        "u32" => "a whole number of at least 0",
        "a sequence" => "a list",
        "a map" => "a table",
        "a boolean" => "true or false",
        "a tuple of size 2" => "a list of two numbers",
        _ => wanted,
    }
}

/// What serde has found: its kind, and the value.
fn found_name(found: &str) -> &'static str {
    let kind = found
        .trim_start_matches("type: ")
        .trim_start_matches("value: ");
    match kind.split(['`', '"', ' ']).next().unwrap_or_default() {
        "string" => "a string",
        "integer" => "an integer",
        "floating" => "a number with a fraction",
        "boolean" => "a boolean",
        "map" => "a table",
        "sequence" => "a list",
        "length" => "a list of another length",
        _ => "something else",
    }
}
