//! Which version of scikit-learn wrote a file.

use std::fmt;

use crate::document::Fault;
use crate::pickle::View;

/// The oldest version whose files are read, and the newest that is known.
const OLDEST: Version = Version(1, 0);
const NEWEST: Version = Version(1, 9);

/// The first two numbers of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Version {
    /// The version that an estimator notes when it is pickled.
    pub(super) fn of(estimator: View<'_, '_>) -> Result<Self, Fault> {
        let text = estimator.text("_sklearn_version")?;
        let mut numbers = text.split('.').map(str::parse);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            return Err(Fault::new("`_sklearn_version` is no version"));
        };
        let version = Self(major, minor);
        if version < OLDEST {
            return Err(Fault(format!(
                "scikit-learn {version} has written it, and only files of {OLDEST} to {NEWEST} are read; fit the model \
                 again with one of these"
            )));
        }
        if version > NEWEST {
            return Err(Fault(format!(
                "scikit-learn {version} has written it, which is newer than {NEWEST}, the newest whose files are known; \
                 fit the model with one of {OLDEST} to {NEWEST}"
            )));
        }
        Ok(version)
    }
}
