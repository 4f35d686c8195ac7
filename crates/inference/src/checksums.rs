//! Checksums of a package's files: the table `[sha256]` of its `model.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use toml_edit::{DocumentMut, Item, Table, Value};

use crate::reads::read_file;

const TABLE: &str = "sha256";

/// SHA-256 digests in hexadecimal, by the name of the file. The model file is one of them, unless there
/// are none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Checksums(BTreeMap<String, String>);

impl Checksums {
    /// Checks the files in `folder`, of which `model` was read already.
    ///
    /// # Errors
    /// What is wrong, with both digests where they differ.
    pub(crate) fn verify(&self, folder: &Path, model: &str, bytes: &[u8]) -> Result<(), String> {
        if !self.0.is_empty() && !self.0.contains_key(model) {
            return Err(format!(
                "[sha256] has no checksum of {model}; `auspex models check --write-checksum` adds it"
            ));
        }
        for (name, stated) in &self.0 {
            let found = match name == model {
                true => digest(bytes),
                false => digest_of(folder, name)?,
            };
            if !found.eq_ignore_ascii_case(stated) {
                return Err(format!(
                    "the SHA-256 of {name} is {found}, and not {stated} as [sha256] says; copy the \
                     package again, or if this is the file you want, run `auspex models check \
                     --write-checksum`"
                ));
            }
        }
        Ok(())
    }

    /// A manifest that has the checksums of the model file and of every other file that it had one
    /// of. All else in it stays as it was written.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn write(
        &self,
        manifest: &str,
        folder: &Path,
        model: &str,
    ) -> Result<String, String> {
        let mut document: DocumentMut = manifest
            .parse()
            .map_err(|error: toml_edit::TomlError| error.to_string())?;
        let table = document
            .entry(TABLE)
            .or_insert(Item::Table(Table::new()))
            .as_table_like_mut()
            .ok_or("sha256 must be a table")?;
        let others = self
            .0
            .keys()
            .map(String::as_str)
            .filter(|name| *name != model);
        for name in others.chain([model]) {
            let mut value = Value::from(digest_of(folder, name)?);
            match table.get_mut(name).and_then(Item::as_value_mut) {
                Some(old) => {
                    *value.decor_mut() = old.decor().clone();
                    *old = value;
                }
                None => drop(table.insert(name, Item::Value(value))),
            }
        }
        Ok(document.to_string())
    }
}

fn digest_of(folder: &Path, name: &str) -> Result<String, String> {
    if Path::new(name).file_name().is_none_or(|file| file != name) {
        return Err("[sha256] may only name files in the folder of the package".into());
    }
    let bytes = read_file(&folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
    Ok(digest(&bytes))
}

/// Of a package, by its manifest and its model file.
pub(crate) fn digest_of_package(manifest: &[u8], model: &[u8]) -> String {
    let mut whole = Sha256::new();
    // Each by its own, so that no byte of one can be taken for one of the other.
    whole.update(Sha256::digest(manifest));
    whole.update(Sha256::digest(model));
    hex(&whole.finalize())
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Package;

    /// A package with the golden model, in a folder of its own.
    fn golden_package() -> tempfile::TempDir {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../engine/tests/golden/3.2/binary-logistic.json");
        let folder = tempfile::tempdir().expect("a folder");
        fs::copy(golden, folder.path().join("model.json")).expect("copied");
        folder
    }

    fn reason(folder: &Path) -> String {
        let error = Package::load(folder).expect_err("refused");
        error.reason().to_owned()
    }

    #[test]
    fn a_pipe_is_not_read() {
        let make = |path: &Path| {
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.expect("mkfifo").success());
        };
        let folder = golden_package();
        make(&folder.path().join("model.toml"));
        let refused = reason(folder.path());
        assert!(
            refused.contains("model.toml") && refused.contains("regular file"),
            "{refused}"
        );

        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("model.json");
        make(&pipe);
        assert!(reason(folder.path()).contains("no model file"));
        assert!(reason(&pipe).contains("regular file"));
    }

    #[test]
    fn a_file_that_is_not_the_one_of_its_checksum_is_refused_with_both_digests() {
        let folder = golden_package();
        let (manifest, notes) = (
            folder.path().join("model.toml"),
            folder.path().join("notes.txt"),
        );
        fs::write(&notes, "v1").expect("written");
        let unread = "0".repeat(64);
        let text = format!(
            "# The title comes first.\ntitle = \"x\" # short\n\n[sha256] # checked\n\
         \"notes.txt\" = \"{unread}\" # too\n\n[output]\nlabels = [\"no\", \"yes\"]\n"
        );
        fs::write(&manifest, &text).expect("written");
        let refused = reason(folder.path());
        assert!(refused.contains("no checksum of model.json"), "{refused}");

        Package::write_checksums(folder.path()).expect("written");
        Package::load(folder.path()).expect("all match");
        let written = fs::read_to_string(&manifest).expect("read");
        let line = |text: &str, name: &str| -> String {
            let line = text.lines().find(|line| line.contains(name));
            line.expect("there").to_owned()
        };
        let of_model = line(&written, "model.json");
        assert!(
            line(&written, "notes.txt").ends_with("\" # too"),
            "{written}"
        );
        let kept = |text: &str| -> Vec<String> {
            let lines = text
                .lines()
                .filter(|line| !line.contains("model.json") && !line.contains("notes"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(kept(&written), kept(&text), "comments and order stay");

        fs::write(&notes, "v2").expect("written");
        assert!(reason(folder.path()).contains("notes.txt"));
        fs::write(&notes, "v1").expect("written");
        let model = folder.path().join("model.json");
        let mut bytes = fs::read(&model).expect("read");
        bytes.push(b' ');
        fs::write(&model, &bytes).expect("written");
        let refused = reason(folder.path());
        let stated = of_model.split('"').nth(1).expect("a digest");
        let digests = refused
            .split(|c: char| !c.is_ascii_hexdigit())
            .filter(|word| word.len() == 64);
        assert_eq!(digests.count(), 2, "{refused}");
        assert!(
            refused.contains(stated) && refused.contains("model.json"),
            "{refused}"
        );
        Package::write_checksums(folder.path()).expect("written");
        Package::load(folder.path()).expect("the new model is the one that is meant");
    }

    #[test]
    fn checksums_name_files_of_the_package_alone() {
        let folder = golden_package();
        Package::write_checksums(folder.path()).expect("a manifest is made");
        let manifest = folder.path().join("model.toml");
        let text = fs::read_to_string(&manifest).expect("read");
        for name in ["../model.json", "/etc/hostname", "", ".."] {
            let more = format!("{text}\"{name}\" = \"00\"\n");
            fs::write(&manifest, more).expect("written");
            assert!(
                reason(folder.path()).contains("may only name files"),
                "{name}"
            );
        }
        assert!(Package::write_checksums(&folder.path().join("model.json")).is_err());
    }
}
