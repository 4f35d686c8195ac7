//! Names of models and versions, and the order of versions.

use std::cmp::Ordering;

use auspex_kernel::error::shown;

/// The name that means the highest version.
pub(crate) const LATEST: &str = "latest";
/// The name that no model may have, because `POST /v1/models/reload` is an operation.
const RELOAD: &str = "reload";
/// How long a name may be, in bytes.
const LENGTH_MAX: usize = 64;

/// Whether a text can be the name of a model or a version.
pub(crate) fn is_name(name: &str) -> bool {
    wrong_with(name).is_none()
}

/// What keeps a package of these names from being served, and what to do.
pub(crate) fn problem(model: &str, version: &str) -> Option<String> {
    let wrong = |what: &str, name: &str| {
        let wrong = wrong_with(name)?;
        Some(format!(
            "the {what}'s name \"{}\" {wrong}; rename the folder",
            shown(name)
        ))
    };
    if model == RELOAD {
        return Some(
            "no model can be called \"reload\", which is an operation; rename the folder".into(),
        );
    }
    wrong("model", model).or_else(|| wrong("version", version))
}

fn wrong_with(name: &str) -> Option<String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(strange) = name.chars().find(|c| !is_allowed(*c)) {
        let strange = match strange {
            ' ' => "a blank".to_owned(),
            _ => format!("'{}'", shown(strange.encode_utf8(&mut [0; 4]))),
        };
        return Some(format!(
            "has {strange} in it, and names are made of A-Z, a-z, 0-9, '.', '_' and '-'"
        ));
    }
    match name {
        "" => Some("is empty".into()),
        LATEST => Some("means the highest version".into()),
        _ if name.starts_with('.') => Some("begins with '.'".into()),
        _ if name.len() > LENGTH_MAX => Some(format!(
            "has {} characters, and {LENGTH_MAX} are the most",
            name.len()
        )),
        _ => None,
    }
}

/// Whether a name is that of a version by its form, such as `2` or `v1.10`.
pub(crate) fn is_version(name: &str) -> bool {
    Precedence::of(name).is_some()
}

/// Versions order by their numbers (`2` before `10`, `1.9` before `1.10`). Pre-releases of Semantic
/// Versioning 2.0.0 (`2.0.0-rc.1`) come below every release, so that one is the latest only where nothing
/// else is, and are in its order among themselves. Names of another form, such as `2.bak`, come below them
/// all: a copy put aside never is the latest.
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
    match (Precedence::of(a), Precedence::of(b)) {
        (Some(x), Some(y)) => x.cmp(&y).then_with(|| a.cmp(b)),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => a.cmp(b),
    }
}

/// A version by its parts, in the order of Semantic Versioning but for this: releases are above all
/// pre-releases.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Precedence<'v> {
    PreRelease(Vec<u64>, Vec<Identifier<'v>>),
    Release(Vec<u64>),
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Identifier<'v> {
    Number(u64),
    Text(&'v str),
}

impl<'v> Precedence<'v> {
    fn of(version: &'v str) -> Option<Self> {
        let version = version.strip_prefix('v').unwrap_or(version);
        let numbers = |text: &str| {
            let numbers = text.split('.').map(|part| part.parse().ok());
            numbers.collect::<Option<Vec<u64>>>()
        };
        let Some((release, stage)) = version.split_once('-') else {
            return numbers(version).map(Self::Release);
        };
        // A dash after anything but three numbers is no pre-release.
        let release = numbers(release).filter(|numbers| numbers.len() == 3)?;
        let identifiers = stage.split('.').map(Identifier::of).collect();
        Some(Self::PreRelease(release, identifiers))
    }
}

impl<'v> Identifier<'v> {
    fn of(text: &'v str) -> Self {
        text.parse().map_or(Self::Text(text), Self::Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_number_and_other_names_come_below_them() {
        let mut versions = [
            "beta", "10", "2", "1.10", "1.9", "v3", "alpha", "2.bak", "11-rc1",
        ];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(
            versions,
            [
                "11-rc1", "2.bak", "alpha", "beta", "1.9", "1.10", "2", "v3", "10"
            ]
        );
        let ordered = [
            "0.9.9-bak.x.1",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "v2.0.0-rc1",
            "1.0.0",
            "1.0.1",
            "1.10",
            "2.0.0",
        ];
        let mut versions = ordered;
        versions.reverse();
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(versions, ordered);
    }

    #[test]
    fn names_fit_into_paths() {
        for good in ["santander", "1", "a.b_c-D", &"x".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".hidden", "latest", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_name_is_said() {
        for (model, version, words) in [
            (
                "my model",
                "1",
                "the model's name \"my model\" has a blank in it",
            ),
            ("größe", "1", "the model's name \"größe\" has 'ö' in it"),
            ("risk", "1+2", "the version's name \"1+2\" has '+' in it"),
            ("a\tb", "1", r#"the model's name "a\tb" has '\t' in it"#),
            (
                "risk",
                "latest",
                "the version's name \"latest\" means the highest version",
            ),
            ("reload", "1", "no model can be called \"reload\""),
            (
                &"x".repeat(65),
                "1",
                "has 65 characters, and 64 are the most",
            ),
        ] {
            let problem = problem(model, version).expect(words);
            assert!(problem.contains(words), "{problem}");
            assert!(problem.ends_with("; rename the folder"), "{problem}");
        }
        assert_eq!(problem("reloads", "reload"), None);
    }
}
