//! Who does something: what the audit record, logs and idempotency keys name, and what decisions
//! look at.

use std::fmt;

use crate::id::{ClientId, KeyId, UserId};

/// Who acts. Its text, e.g. `key:7K3Q…`, is stable and never a secret; nothing is ever read back
/// from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A user, by a password, a session or a token.
    User(UserId),
    /// An API key, whoever owns it.
    Key(KeyId),
    /// An OAuth client that acts for itself.
    Client(ClientId),
    /// Somebody whom another issuer vouches for, under a name derived from what it calls them.
    External(String),
    /// The command line, and the program itself: they have the database anyway.
    Operator,
    /// Nobody known, such as somebody who is just logging in.
    Anonymous,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::User(id) => write!(f, "user:{id}"),
            Subject::Key(id) => write!(f, "key:{id}"),
            Subject::Client(id) => write!(f, "client:{id}"),
            Subject::External(name) => write!(f, "external:{name}"),
            Subject::Operator => f.write_str("operator"),
            Subject::Anonymous => f.write_str("anonymous"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Audit rows, logs and quotas of earlier versions hold these texts.
    #[test]
    fn subjects_keep_their_texts() {
        let id = "0123456789ABCDEF";
        for (subject, text) in [
            (
                Subject::User(UserId::from_stored(id)),
                "user:0123456789ABCDEF",
            ),
            (Subject::Key(KeyId::from_stored(id)), "key:0123456789ABCDEF"),
            (
                Subject::Client(ClientId::from_stored(id)),
                "client:0123456789ABCDEF",
            ),
            (Subject::External("x".into()), "external:x"),
            (Subject::Operator, "operator"),
            (Subject::Anonymous, "anonymous"),
        ] {
            assert_eq!(subject.to_string(), text);
        }
    }
}
