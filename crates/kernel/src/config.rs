//! Settings: defaults < file < environment < flags, and an error that names the wrong key.
//!
//! The defaults file is the reference: a key that is not in it does not exist.

use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Environment variables of this form are settings: `AUSPEX__SERVER__RATE_LIMIT__MAX`.
const ENV_PREFIX: &str = "AUSPEX__";

/// What is wrong with the settings, and where.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("cannot read the configuration {file}: {reason}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the operating system said.
        reason: String,
    },
    /// The file is not TOML.
    #[error("{origin} is not valid TOML: {reason}")]
    Syntax {
        /// File or variable.
        origin: String,
        /// Place and reason.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown setting \"{key}\"{}", suggestion.as_ref().map_or(String::new(), |s| format!("; did you mean \"{s}\"?")))]
    UnknownKey {
        /// File or variable.
        origin: String,
        /// The dotted key.
        key: String,
        /// The nearest that exists.
        suggestion: Option<String>,
    },
    /// A value that its setting does not take.
    #[error("the configuration cannot be used: {reason}")]
    Unusable {
        /// The setting and what it must be.
        reason: String,
    },
    /// A value of the wrong type or out of range.
    #[error("{origin}: setting \"{key}\" {reason}")]
    Value {
        /// File or variable.
        origin: String,
        /// The dotted key.
        key: String,
        /// What it must be.
        reason: String,
    },
}

impl ConfigError {
    /// A value that its type takes and the program cannot use.
    pub fn wrong(key: &str, reason: impl Into<String>) -> Self {
        Self::Value {
            origin: "configuration".into(),
            key: key.into(),
            reason: reason.into(),
        }
    }
}

/// Settings collected layer by layer.
#[derive(Clone, Debug)]
pub struct Layers {
    merged: Table,
}

impl Layers {
    /// Starts from the commented defaults, which name every key.
    ///
    /// # Panics
    /// If the defaults are not TOML: they are part of the program.
    pub fn new(defaults: &str) -> Self {
        Self {
            merged: defaults
                .parse()
                .expect("the embedded defaults are valid TOML"),
        }
    }

    /// Lays a TOML file over what is there.
    ///
    /// # Errors
    /// [`ConfigError`] naming file and key.
    pub fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            file: file.clone(),
            reason: error.to_string(),
        })?;
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            // Not the line itself, which toml would show: it may hold a secret.
            let begin = error.span().map_or(0, |span| span.start);
            let line = text
                .bytes()
                .take(begin)
                .filter(|byte| *byte == b'\n')
                .count()
                + 1;
            ConfigError::Syntax {
                origin: file.clone(),
                reason: format!("line {line}: {}", error.message()),
            }
        })?;
        merge(&mut self.merged, table, &file, "")
    }

    /// Lays the `AUSPEX__…` variables over what is there. A value is read as the type of its default;
    /// a list is written as in TOML, or its texts with commas between.
    ///
    /// # Errors
    /// [`ConfigError`] naming variable and key.
    pub fn env(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else {
                continue;
            };
            let key = rest.to_lowercase().replace("__", ".");
            self.set(&key, &text, &name)?;
        }
        Ok(())
    }

    /// Sets one dotted key from text, as a flag or variable does.
    ///
    /// # Errors
    /// [`ConfigError`] naming `origin` and key.
    pub fn set(&mut self, key: &str, text: &str, origin: &str) -> Result<(), ConfigError> {
        let known = lookup(&self.merged, key);
        let value = match known {
            Some(Value::String(_)) => Value::String(text.to_owned()),
            Some(Value::Array(_)) => list(text),
            _ => text
                .parse::<Value>()
                .unwrap_or_else(|_| Value::String(text.to_owned())),
        };
        let table = key.rsplit('.').fold(value, |inner, part| {
            Value::Table(Table::from_iter([(part.to_owned(), inner)]))
        });
        let Value::Table(table) = table else {
            unreachable!("a key has at least one part")
        };
        merge(&mut self.merged, table, origin, "")
    }

    /// The typed settings.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for a value that its type does not take.
    pub fn build<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        Value::Table(self.merged.clone())
            .try_into()
            .map_err(|error: toml::de::Error| ConfigError::Unusable {
                reason: error.to_string().trim().replace('\n', " "),
            })
    }

    /// Everything in force, with the values of keys that name secrets left out.
    pub fn show(&self) -> String {
        let mut shown = self.merged.clone();
        redact(&mut shown);
        toml::to_string(&shown).unwrap_or_default()
    }
}

fn merge(base: &mut Table, over: Table, origin: &str, path: &str) -> Result<(), ConfigError> {
    for (name, value) in over {
        let key = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let Some(slot) = base.get_mut(&name) else {
            let suggestion = nearest(base, &name).map(|near| {
                if path.is_empty() {
                    near.to_owned()
                } else {
                    format!("{path}.{near}")
                }
            });
            return Err(ConfigError::UnknownKey {
                origin: origin.into(),
                key,
                suggestion,
            });
        };
        match (slot, value) {
            (Value::Table(inner), Value::Table(over)) => merge(inner, over, origin, &key)?,
            (slot, value) if same_type(slot, &value) => *slot = value,
            (slot, value) => {
                let reason = format!(
                    "must be of type {}, not {}",
                    slot.type_str(),
                    value.type_str()
                );
                return Err(ConfigError::Value {
                    origin: origin.into(),
                    key,
                    reason,
                });
            }
        }
    }
    Ok(())
}

fn same_type(default: &Value, given: &Value) -> bool {
    default.type_str() == given.type_str()
        || matches!((default, given), (Value::Float(_), Value::Integer(_)))
}

fn nearest<'t>(table: &'t Table, name: &str) -> Option<&'t str> {
    table
        .keys()
        .map(|known| (strsim::damerau_levenshtein(known, name), known.as_str()))
        .min()
        .filter(|(distance, known)| *distance <= known.len().max(name.len()) / 2)
        .map(|(_, known)| known)
}

fn lookup<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    let mut parts = key.split('.');
    let first = table.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.as_table()?.get(part))
}

/// A list in TOML, or texts with commas between. What is neither is refused for its type.
fn list(text: &str) -> Value {
    let text = text.trim();
    if text.starts_with('[') {
        return text.parse().unwrap_or_else(|_| Value::String(text.into()));
    }
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    Value::Array(parts.map(|part| Value::String(part.into())).collect())
}

fn redact(table: &mut Table) {
    for (name, value) in table.iter_mut() {
        redact_value(name, value);
    }
}

/// The entries of a list stand under its name.
fn redact_value(name: &str, value: &mut Value) {
    match value {
        Value::Table(inner) => redact(inner),
        Value::Array(entries) => entries
            .iter_mut()
            .for_each(|entry| redact_value(name, entry)),
        Value::String(text) if !text.is_empty() && is_secret(name) => {
            *text = "(set, not shown)".into();
        }
        Value::String(text) if text.contains("://") => *text = without_secrets(text),
        _ => {}
    }
}

/// A URL may carry a password before its host or in its query.
fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, "?(not shown)"),
        None => (rest, ""),
    };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://(not shown)@{host}{query}"),
        None => format!("{scheme}://{rest}{query}"),
    }
}

fn is_secret(name: &str) -> bool {
    ["secret", "password", "token", "dsn"]
        .iter()
        .any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: &str = "[server]\nlisten = \"127.0.0.1:8080\"\nsecret = \"\"\n\
        [server.rate_limit]\nmax = 1000\nwindow_s = 60\nratio = 1.0\n";

    fn with_env(name: &str, value: &str) -> Result<Layers, ConfigError> {
        let mut layers = Layers::new(DEFAULTS);
        layers.env([(name.to_owned(), value.to_owned())])?;
        Ok(layers)
    }

    #[test]
    fn later_layers_win() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("auspex.toml");
        std::fs::write(&path, "[server.rate_limit]\nmax = 5\nwindow_s = 7\n").expect("written");
        let mut layers = Layers::new(DEFAULTS);
        layers.file(&path).expect("valid");
        layers
            .env([("AUSPEX__SERVER__RATE_LIMIT__MAX".into(), "9".into())])
            .expect("a known key");
        let limit = lookup(&layers.merged, "server.rate_limit").expect("there");
        assert_eq!(
            (limit["max"].as_integer(), limit["window_s"].as_integer()),
            (Some(9), Some(7))
        );
    }

    #[test]
    fn a_wrong_key_is_named_with_the_nearest_right_one() {
        let error = with_env("AUSPEX__SERVER__RATE_LIMT__MAX", "9").expect_err("a typo");
        assert_eq!(
            error.to_string(),
            "AUSPEX__SERVER__RATE_LIMT__MAX: unknown setting \"server.rate_limt\"; \
             did you mean \"server.rate_limit\"?"
        );
        let error = with_env("AUSPEX__XYZZY", "9").expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "AUSPEX__XYZZY: unknown setting \"xyzzy\""
        );
    }

    #[test]
    fn a_wrong_type_is_named() {
        let error = with_env("AUSPEX__SERVER__RATE_LIMIT__MAX", "many").expect_err("not a number");
        assert!(
            error
                .to_string()
                .contains("\"server.rate_limit.max\" must be of type integer"),
            "{error}"
        );
        assert!(
            with_env("AUSPEX__SERVER__RATE_LIMIT__RATIO", "2").is_ok(),
            "2 is a number too"
        );
        assert!(
            with_env("AUSPEX__SERVER__LISTEN", "8080").is_ok(),
            "text stays text"
        );
    }

    #[test]
    fn urls_are_shown_without_what_they_carry() {
        for (url, shown) in [
            ("postgres://u:hunter2@db/x", "postgres://(not shown)@db/x"),
            (
                "postgres://db/x?password=hunter2",
                "postgres://db/x?(not shown)",
            ),
            (
                "http://127.0.0.1:4318/v1/traces",
                "http://127.0.0.1:4318/v1/traces",
            ),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn a_syntax_error_names_its_line_and_does_not_show_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("auspex.toml");
        std::fs::write(&path, "[server]\nsecret = hunter2\n").expect("written");
        let error = Layers::new(DEFAULTS)
            .file(&path)
            .expect_err("no quotes")
            .to_string();
        assert!(
            error.contains("line 2") && !error.contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = with_env("AUSPEX__SERVER__SECRET", "hunter2")
            .expect("known")
            .show();
        assert!(
            !shown.contains("hunter2") && shown.contains("not shown"),
            "{shown}"
        );
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Lists {
        origins: Vec<String>,
        issuers: Vec<Issuer>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Issuer {
        url: String,
        client_secret: String,
    }

    const LISTS: &str = "origins = []\nissuers = []\n";

    fn origins(text: &str) -> Result<Vec<String>, ConfigError> {
        let mut layers = Layers::new(LISTS);
        layers.env([("AUSPEX__ORIGINS".to_owned(), text.to_owned())])?;
        layers.build().map(|lists: Lists| lists.origins)
    }

    #[test]
    fn variables_give_lists_too() {
        for text in ["a,b", " a , b, ", "[\"a\", \"b\"]", "[\n'a',\n'b'\n]"] {
            assert_eq!(origins(text).expect(text), ["a", "b"], "{text}");
        }
        assert_eq!(origins("").expect("empty"), [""; 0]);
        assert_eq!(origins("[]").expect("empty"), [""; 0]);
        for text in ["[a]", "[\"a\"", "[1]"] {
            let error = origins(text).expect_err(text).to_string();
            assert!(error.contains("origins"), "{error}");
        }
    }

    #[test]
    fn lists_of_tables_are_taken_whole_and_wrong_keys_in_them_are_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("auspex.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            let mut layers = Layers::new(LISTS);
            layers.file(&path)?;
            Ok::<_, ConfigError>((layers.show(), layers.build::<Lists>()?))
        };
        let one = "[[issuers]]\nurl = \"https://a.example.org\"\nclient_secret = \"hunter2\"\n";
        let (shown, lists) = read(one).expect("valid");
        assert_eq!(lists.issuers.len(), 1);
        assert!(
            shown.contains("a.example.org") && !shown.contains("hunter2"),
            "{shown}"
        );
        for (text, named) in [
            (
                format!("{one}clientsecret = 1\n"),
                ["issuers", "clientsecret"],
            ),
            (
                "[[issuers]]\nurl = \"x\"\n".into(),
                ["issuers", "client_secret"],
            ),
            ("issuers = 1\n".into(), ["issuers", "array"]),
        ] {
            let error = read(&text).expect_err(&text).to_string();
            assert!(named.iter().all(|part| error.contains(part)), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
