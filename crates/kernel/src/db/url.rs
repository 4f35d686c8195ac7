//! What a database URL names. Messages never repeat a URL, which may hold a password.
//!
//! URLs of SQLite with slashes mean what SQLAlchemy means by them: three and a path from the working
//! folder, or four and an absolute one.

use std::path::PathBuf;

use sea_orm::sqlx::postgres::PgConnectOptions;

use super::{DbError, postgres};

/// Where a database is.
pub(super) enum Location {
    /// The file, by an absolute path.
    Sqlite(PathBuf),
    Postgres(Box<PgConnectOptions>),
}

/// Reads a URL.
///
/// # Errors
/// [`DbError::InvalidUrl`], [`DbError::ForeignUrl`], [`DbError::UnknownParameter`],
/// [`DbError::NoFile`] or [`DbError::Folder`].
pub(super) fn read(url: &str) -> Result<Location, DbError> {
    let (scheme, rest) = url.split_once(':').ok_or(DbError::InvalidUrl)?;
    match scheme {
        "sqlite" => sqlite(rest).map(Location::Sqlite),
        "postgres" | "postgresql" => {
            let options = postgres::options(url)?;
            Ok(Location::Postgres(Box::new(options)))
        }
        _ => Err(foreign(scheme).map_or(DbError::InvalidUrl, DbError::ForeignUrl)),
    }
}

fn sqlite(rest: &str) -> Result<PathBuf, DbError> {
    let no_parameters =
        DbError::ForeignUrl("of SQLite has no parameters; leave out the ? and what follows");
    let path = match rest.strip_prefix("//") {
        None if has_parameter(rest) => return Err(no_parameters),
        None => rest,
        Some("" | ":memory:") => return Err(DbError::NoFile),
        Some(after) if after.contains('?') => return Err(no_parameters),
        Some(after) => after.strip_prefix('/').ok_or(DbError::ForeignUrl(
            "of SQLite has three slashes before a path from the working folder, as in \
             sqlite:///auspex.db, and four before an absolute one, as in \
             sqlite:////var/lib/auspex/auspex.db",
        ))?,
    };
    if path.is_empty() || path.starts_with(':') {
        return Err(DbError::NoFile);
    }
    if path.starts_with("~/") {
        return Err(DbError::ForeignUrl(
            "of SQLite names a path as it is, where ~ is no home folder; write that out, as in sqlite:/home/NAME/auspex.db",
        ));
    }
    // SQLite takes what begins with `file:` for a URI; nothing absolute does.
    std::path::absolute(path).map_err(|cause| DbError::Folder {
        folder: path.into(),
        cause,
    })
}

/// Whether a path ends like a URL with a parameter, as in `x.db?mode=ro`. Any other `?` is part of a name.
fn has_parameter(path: &str) -> bool {
    let is_word = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let parameter = path
        .rsplit_once('?')
        .and_then(|(_, rest)| rest.split_once('='));
    parameter.is_some_and(|(name, _)| is_word(name))
}

/// What to write in place of a URL of another program, if its scheme is a known one.
fn foreign(scheme: &str) -> Option<&'static str> {
    let (database, driver) = match scheme.split_once('+') {
        Some((database, _)) => (database, true),
        None => (scheme, false),
    };
    match database {
        "postgres" | "postgresql" if driver => Some(
            "begins with the name of a Python driver; write postgresql:// without the + and what \
             follows it, the rest as it is",
        ),
        "sqlite" if driver => Some(
            "begins with the name of a Python driver; write sqlite:// without the + and what \
             follows it, the rest as it is",
        ),
        "mysql" | "mariadb" | "mssql" | "oracle" | "cockroachdb" | "mongodb" => Some(
            "names a database that is not supported; it must be PostgreSQL, \
             postgres://USER:PASSWORD@HOST:PORT/DATABASE, or SQLite, sqlite:PATH",
        ),
        "jdbc" => Some(
            "is one for Java; write postgres://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:PATH",
        ),
        "file" => Some("of SQLite begins with sqlite: and has no parameters, as in sqlite:PATH"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(url: &str) -> Result<PathBuf, String> {
        match read(url).map_err(|error| error.to_string())? {
            Location::Sqlite(path) => Ok(path),
            Location::Postgres(_) => Err("PostgreSQL".into()),
        }
    }

    #[test]
    fn sqlite_urls_mean_what_they_mean_to_sqlalchemy() {
        let here = std::env::current_dir().unwrap();
        for text in [
            "sqlite:x.db",
            "sqlite:./x.db",
            "sqlite:///x.db",
            "sqlite:///./x.db",
        ] {
            assert_eq!(file(text).unwrap(), here.join("x.db"), "{text}");
        }
        for text in ["sqlite:/abs/x.db", "sqlite:////abs/x.db"] {
            assert_eq!(file(text).unwrap(), PathBuf::from("/abs/x.db"), "{text}");
        }
        let odd = "sqlite:////abs/%41#b c";
        assert_eq!(file(odd).unwrap(), PathBuf::from("/abs/%41#b c"));
        assert_eq!(file("sqlite:file:x").unwrap(), here.join("file:x"));
        for (text, said) in [
            ("sqlite://x.db", "sqlite:///auspex.db"),
            ("sqlite://localhost/x.db", "sqlite:///auspex.db"),
            ("sqlite:///x.db?mode=ro", "no parameters"),
            ("sqlite:x.db?mode=ro", "no parameters"),
            ("sqlite:/x.db?a=1&cache=shared", "no parameters"),
            ("sqlite::", "must be a file"),
            ("sqlite://", "must be a file"),
            ("sqlite:///", "must be a file"),
            ("sqlite:///:memory:", "must be a file"),
        ] {
            let error = file(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn urls_of_other_programs_are_told_what_to_write() {
        for (scheme, said) in [
            ("postgresql+psycopg2", "write postgresql://"),
            ("postgres+asyncpg", "write postgresql://"),
            ("sqlite+aiosqlite", "write sqlite://"),
            ("mysql", "not supported"),
            ("mysql+pymysql", "not supported"),
            ("jdbc", "Java"),
        ] {
            let error = file(&format!("{scheme}://u:hunter2@h/x")).unwrap_err();
            assert!(error.contains(said), "{scheme}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        for nonsense in ["", "x", "hunter2:y@h/x", "://", "+x://", "postgres:x"] {
            let error = file(nonsense).unwrap_err();
            assert!(error.contains("sqlite:PATH"), "{nonsense}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
