//! Settings: defaults < file < environment < flags, and an error that names the wrong key.
//!
//! The defaults file is the reference: a key that is not in it does not exist. A table that is empty there
//! takes any names, such as those of services.

mod origins;
mod reloads;

use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use origins::{Origins, Source, join, line_of};

pub use reloads::{Refused, Reloads};

/// Environment variables of this form are settings: `AUSPEX__SERVER__RATE_LIMIT__MAX`.
const ENV_PREFIX: &str = "AUSPEX__";
/// Written so by mistake: it would change nothing, in silence.
const NEARLY_PREFIX: &str = "AUSPEX_";

/// What is wrong with the settings, and where.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
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
        /// File and line, variable or flag.
        origin: String,
        /// The dotted key.
        key: String,
        /// The nearest that exists.
        suggestion: Option<String>,
    },
    /// A value of the wrong type or out of range.
    #[error("{origin}: setting \"{key}\" {reason}")]
    Value {
        /// File and line, variable or flag.
        origin: String,
        /// The dotted key.
        key: String,
        /// What it must be.
        reason: String,
    },
}

impl ConfigError {
    /// A value that its type takes and the program cannot use. [`Layers::locate`] says where it was
    /// written.
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
    origins: Origins,
    /// The tables that take any names.
    open: Vec<String>,
}

impl Layers {
    /// Starts from the commented defaults, which name every key.
    ///
    /// # Panics
    /// If the defaults are not TOML: they are part of the program.
    pub fn new(defaults: &str) -> Self {
        let merged: Table = defaults
            .parse()
            .expect("the embedded defaults are valid TOML");
        let mut open = Vec::new();
        collect_open(&merged, "", &mut open);
        Self {
            merged,
            origins: Origins::default(),
            open,
        }
    }

    /// Lays the text of a TOML file over what is there.
    ///
    /// # Errors
    /// [`ConfigError`] naming file and key.
    pub fn file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let file = path.display().to_string();
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            // Not the line itself, which toml would show: it may hold a secret.
            let line = line_of(text, error.span().map_or(0, |span| span.start));
            ConfigError::Syntax {
                origin: format!("{file}:{line}"),
                reason: error.message().to_owned(),
            }
        })?;
        self.lay(table, &Source::file(&file, text))
    }

    /// Lays the `AUSPEX__…` variables over what is there. A value is read as the type of its default;
    /// a list is written as in TOML, or its texts with commas between. The names of others that begin
    /// like ours and are no settings are returned: what they were meant for is not known here.
    ///
    /// # Errors
    /// [`ConfigError`] naming variable and key.
    pub fn env(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Vec<String>, ConfigError> {
        let mut strange = Vec::new();
        for (name, text) in variables {
            if let Some(rest) = name.strip_prefix(ENV_PREFIX) {
                let key = rest.to_lowercase().replace("__", ".");
                self.set(&key, &text, &name)?;
            } else if name.to_uppercase().starts_with(ENV_PREFIX) {
                return Err(ConfigError::UnknownKey {
                    suggestion: Some(name.to_uppercase()),
                    key: name.clone(),
                    origin: name,
                });
            } else if let Some(rest) = name.strip_prefix(NEARLY_PREFIX) {
                let key = rest.to_lowercase();
                let meant = self.spelled_with_dots(&key);
                match meant.or_else(|| self.in_a_section(&key)) {
                    Some(meant) => {
                        return Err(ConfigError::UnknownKey {
                            suggestion: Some(variable(&meant)),
                            origin: name,
                            key,
                        });
                    }
                    None => strange.push(name),
                }
            }
        }
        Ok(strange)
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
        self.lay(table, &Source::named(origin))
    }

    /// The typed settings.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for a value that its type does not take.
    pub fn build<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let merged = Value::Table(self.merged.clone());
        serde_path_to_error::deserialize(merged).map_err(|error| {
            let key = error.path().to_string();
            let said = error.inner().message();
            // Our own types say what they take.
            let reason = match said.starts_with("must ") {
                true => said.to_owned(),
                false => format!("is wrong: {}", plain(said)),
            };
            self.locate(ConfigError::wrong(&key, reason))
        })
    }

    /// Names the place where the value was written that `error` is about.
    pub fn locate(&self, error: ConfigError) -> ConfigError {
        match error {
            ConfigError::Value { key, reason, .. } => ConfigError::Value {
                origin: self.origins.of(&key),
                key,
                reason,
            },
            other => other,
        }
    }

    fn lay(&mut self, table: Table, source: &Source) -> Result<(), ConfigError> {
        let merged = merge(
            &mut self.merged,
            table,
            source,
            &mut self.origins,
            &self.open,
            "",
        );
        merged.map_err(|error| match error {
            ConfigError::UnknownKey {
                origin,
                key,
                suggestion: None,
            } => ConfigError::UnknownKey {
                suggestion: self
                    .spelled_with_dots(&key)
                    .or_else(|| self.in_a_section(&key)),
                origin,
                key,
            },
            other => other,
        })
    }

    /// The key that was meant where its dots are underscores.
    fn spelled_with_dots(&self, key: &str) -> Option<String> {
        let flat = |key: &str| key.replace("__", "_").replace('.', "_");
        self.keys()
            .into_iter()
            .find(|known| flat(known) == flat(key))
    }

    /// The key that was meant where its section was left out.
    fn in_a_section(&self, key: &str) -> Option<String> {
        let ending = format!(".{key}");
        self.keys()
            .into_iter()
            .find(|known| known.ends_with(&ending))
    }

    fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        collect_keys(&self.merged, "", &mut keys);
        keys
    }

    /// The merged settings by section.
    pub fn sections(&self) -> &Table {
        &self.merged
    }

    /// Everything in force, with the values of keys that name secrets left out.
    pub fn show(&self) -> String {
        let mut shown = self.merged.clone();
        redact(&mut shown);
        toml::to_string(&shown).unwrap_or_default()
    }
}

/// Reads a file of settings.
///
/// # Errors
/// [`ConfigError::Unreadable`].
pub fn read_file(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        file: path.display().to_string(),
        reason: error.to_string(),
    })
}

/// The name of the variable that sets a key.
pub fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// In the words of people: `expected u32` helps only those who write Rust.
fn plain(said: &str) -> String {
    let max = match said
        .rsplit_once("expected ")
        .map_or("", |(_, kind)| kind.trim())
    {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" | "usize" => return "it must be a whole number from 0 on".into(),
        _ => return said.to_owned(),
    };
    format!("it must be a whole number from 0 to {max}")
}

fn collect_keys(table: &Table, path: &str, keys: &mut Vec<String>) {
    for (name, value) in table {
        let key = join(path, name);
        match value {
            Value::Table(inner) => collect_keys(inner, &key, keys),
            _ => keys.push(key),
        }
    }
}

fn merge(
    base: &mut Table,
    over: Table,
    source: &Source,
    origins: &mut Origins,
    open: &[String],
    path: &str,
) -> Result<(), ConfigError> {
    let is_open = is_within(open, path);
    for (name, value) in over {
        let key = join(path, &name);
        if is_open && !base.contains_key(&name) {
            let slot = match &value {
                Value::Table(_) => Value::Table(Table::new()),
                other => other.clone(),
            };
            base.insert(name.clone(), slot);
        }
        let Some(slot) = base.get_mut(&name) else {
            return Err(ConfigError::UnknownKey {
                origin: source.place_of(&key),
                suggestion: nearest(base, &name).map(|near| join(path, near)),
                key,
            });
        };
        match (slot, value) {
            (Value::Table(inner), Value::Table(over)) => {
                if is_open && over.is_empty() {
                    origins.set(&key, source);
                }
                merge(inner, over, source, origins, open, &key)?;
            }
            (slot, value) if same_type(slot, &value) => {
                *slot = value;
                origins.set(&key, source);
            }
            (slot, value) => {
                let (wanted, given) = (slot.type_str(), value.type_str());
                let form = match slot {
                    Value::Table(_) | Value::Array(_) => String::new(),
                    Value::String(text) if text.is_empty() => format!(", as in {name} = \"…\""),
                    // Of the defaults: no other layer has values of other types.
                    slot => format!(", as in {name} = {slot}"),
                };
                let reason = format!("must be of type {wanted}, not {given}{form}");
                return Err(ConfigError::Value {
                    origin: source.place_of(&key),
                    key,
                    reason,
                });
            }
        }
    }
    Ok(())
}

/// The tables without keys.
fn collect_open(table: &Table, path: &str, open: &mut Vec<String>) {
    for (name, value) in table {
        if let Value::Table(inner) = value {
            let key = join(path, name);
            collect_open(inner, &key, open);
            if inner.is_empty() {
                open.push(key);
            }
        }
    }
}

/// Whether a path is one of the open tables or in one.
fn is_within(open: &[String], path: &str) -> bool {
    open.iter().any(|table| {
        let rest = path.strip_prefix(table.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
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
    let words = ["secret", "password", "token", "dsn"];
    words.iter().any(|word| name.contains(word)) || name.ends_with("master_key")
}

#[cfg(test)]
mod tests;
