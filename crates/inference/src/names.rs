//! Names of models and versions, and the order of versions.

use std::cmp::Ordering;

/// The name that means the highest version.
pub(crate) const LATEST: &str = "latest";
/// The name that no model may have, because `POST /v1/models/reload` is an operation.
pub(crate) const RELOAD: &str = "reload";
pub(crate) const BAD_NAME: &str = "a model's or version's name is 1 to 64 letters, digits, '.', '_' and '-', does \
                        not begin with '.', and is not \"latest\"; no model is called \"reload\"";

/// Whether a text can be the name of a model or a version.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name != LATEST
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether a name is that of a version by its form, such as `2` or `v1.10`.
pub(crate) fn is_version(name: &str) -> bool {
    Precedence::of(name).is_some()
}

/// Versions order by their numbers (`2` before `10`, `1.9` before `1.10`), and pre-releases of
/// Semantic Versioning 2.0.0 (`2.0.0-rc.1`) just below their release. Names of another form, such as
/// `2.bak`, come below them all, so that a copy put aside never is the latest.
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
    match (Precedence::of(a), Precedence::of(b)) {
        (Some(x), Some(y)) => x.cmp(&y).then_with(|| a.cmp(b)),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => a.cmp(b),
    }
}

/// A version by its parts; the derived order is that of Semantic Versioning.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Precedence<'v> {
    numbers: Vec<u64>,
    stage: Stage<'v>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Stage<'v> {
    PreRelease(Vec<Identifier<'v>>),
    Release,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Identifier<'v> {
    Number(u64),
    Text(&'v str),
}

impl<'v> Precedence<'v> {
    fn of(version: &'v str) -> Option<Self> {
        let version = version.strip_prefix('v').unwrap_or(version);
        let (numbers, stage) = match version.split_once('-') {
            None => (version, Stage::Release),
            Some((numbers, stage)) => {
                let identifiers = stage.split('.').map(Identifier::of).collect();
                (numbers, Stage::PreRelease(identifiers))
            }
        };
        let numbers = numbers.split('.').map(|part| part.parse().ok());
        let numbers = numbers.collect::<Option<Vec<u64>>>()?;
        // A dash after anything but three numbers is no pre-release.
        let is_version = stage == Stage::Release || numbers.len() == 3;
        is_version.then_some(Self { numbers, stage })
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
            "1.0.0",
            "1.0.1",
            "v2.0.0-rc1",
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
}
