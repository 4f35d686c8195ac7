//! Where each setting in force was written, so that an error can name the place.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::{DeTable, DeValue};

/// The origin of what nobody set.
const DEFAULT: &str = "the default";

/// The places of the values in force, by dotted key. Entries of a list are `key[0]`, `key[1]`, …
#[derive(Clone, Debug, Default)]
pub(super) struct Origins(BTreeMap<String, String>);

impl Origins {
    /// A value of `source` is in force for `key` from now on.
    pub(super) fn set(&mut self, key: &str, source: &Source) {
        self.0.retain(|known, _| !is_entry_of(known, key));
        self.0.insert(key.to_owned(), source.place_of(key));
        let entries = source.lines.keys().filter(|inner| is_entry_of(inner, key));
        for inner in entries {
            self.0.insert(inner.clone(), source.place_of(inner));
        }
    }

    /// Where the value of a key comes from: its own place, else that of what it is part of, else
    /// those of its parts.
    pub(super) fn of(&self, key: &str) -> String {
        let mut outer = Some(key);
        while let Some(name) = outer {
            if let Some(place) = self.0.get(name) {
                return place.clone();
            }
            outer = name.rfind(['.', '[']).map(|end| &name[..end]);
        }
        let section = format!("{key}.");
        let parts = self.0.iter().filter(|(name, _)| name.starts_with(&section));
        let places: BTreeSet<&str> = parts.map(|(_, place)| place.as_str()).collect();
        match places.is_empty() {
            true => DEFAULT.to_owned(),
            false => places.into_iter().collect::<Vec<_>>().join(", "),
        }
    }
}

fn is_entry_of(inner: &str, key: &str) -> bool {
    inner
        .strip_prefix(key)
        .is_some_and(|rest| rest.starts_with('['))
}

/// What a layer is read from: a variable, a flag, or a file with the line of each of its keys.
pub(super) struct Source {
    name: String,
    lines: BTreeMap<String, usize>,
}

impl Source {
    /// A variable or a flag.
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            lines: BTreeMap::new(),
        }
    }

    /// A file of this text, which is valid TOML.
    pub(super) fn file(name: &str, text: &str) -> Self {
        let mut source = Self::named(name);
        if let Ok(table) = DeTable::parse(text) {
            source.note_table(table.get_ref(), "", text);
        }
        source
    }

    pub(super) fn place_of(&self, key: &str) -> String {
        match self.lines.get(key) {
            Some(line) => format!("{}:{line}", self.name),
            None => self.name.clone(),
        }
    }

    fn note_table(&mut self, table: &DeTable<'_>, path: &str, text: &str) {
        for (name, value) in table {
            let key = join(path, name.get_ref());
            let line = line_of(text, name.span().start);
            self.lines.insert(key.clone(), line);
            self.note_value(value.get_ref(), &key, text);
        }
    }

    fn note_value(&mut self, value: &DeValue<'_>, key: &str, text: &str) {
        match value {
            DeValue::Table(inner) => self.note_table(inner, key, text),
            DeValue::Array(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    let key = format!("{key}[{index}]");
                    let line = line_of(text, entry.span().start);
                    self.lines.insert(key.clone(), line);
                    self.note_value(entry.get_ref(), &key, text);
                }
            }
            _ => {}
        }
    }
}

/// The dotted key of `name` in the table at `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

/// The line in which the byte `at` stands, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    let before = text.bytes().take(at);
    before.filter(|byte| *byte == b'\n').count() + 1
}
