//! Users: people, and programs that log in like people.

use auspex_kernel::Timestamp;

use crate::role::RoleSet;

/// A user. His password's hash stays in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// 16 characters of Crockford's base32, in the order of creation. Not a secret.
    pub id: String,
    /// What people call him.
    pub name: String,
    /// Where he is reached; one user an address.
    pub email: String,
    /// What he logs in with, in either case; one user a name.
    pub username: String,
    /// In years, where known.
    pub age: Option<i32>,
    /// What he is to this installation.
    pub roles: RoleSet,
    /// Since when he is kept out, if he is.
    pub disabled_at: Option<Timestamp>,
    /// When he was added.
    pub created_at: Timestamp,
    /// When somebody last changed him.
    pub updated_at: Timestamp,
    /// His last successful login.
    pub last_login_at: Option<Timestamp>,
    /// His successful logins so far.
    pub login_count: i64,
    /// Counts changes, for `ETag`; logins are none.
    pub version: i64,
    /// Whether he can log in by password.
    pub has_password: bool,
}
