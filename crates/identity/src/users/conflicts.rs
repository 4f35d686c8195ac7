//! Users whose names are the same to people, from before names had one form.

use std::collections::BTreeMap;

use auspex_kernel::id::UserId;

use super::Users;
use crate::canonical;
use crate::error::IdentityError;
use crate::types::user::{User, UserFilter};

/// Users one of whom must be given another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameConflict {
    /// What they share, for people.
    pub what: &'static str,
    /// Oldest first.
    pub users: Vec<UserId>,
}

impl Users {
    /// Users with names that could not be given today. Each still logs in by the name as it is
    /// written.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub async fn name_conflicts(&self) -> Result<Vec<NameConflict>, IdentityError> {
        Ok(conflicts(&self.list(UserFilter::default()).await?))
    }
}

fn conflicts(users: &[User]) -> Vec<NameConflict> {
    let mut found = Vec::new();
    let (mut by_username, mut by_email) = (BTreeMap::new(), BTreeMap::new());
    for user in users {
        let id = || user.id.clone();
        let (username, email) = (canonical::key(&user.username), canonical::key(&user.email));
        by_username
            .entry(username)
            .or_insert_with(Vec::new)
            .push(id());
        by_email.entry(email).or_insert_with(Vec::new).push(id());
        let names = [&user.username, &user.email];
        if names.iter().any(|name| canonical::name(name).is_none()) {
            found.push(NameConflict {
                what: "a username or e-mail address with invisible characters, blanks or letters of several scripts in a word",
                users: vec![id()],
            });
        }
    }
    for (what, named) in [
        ("the same username", &by_username),
        ("the same e-mail address", &by_email),
    ] {
        let shared = named.values().filter(|users| users.len() > 1);
        found.extend(shared.map(|users| NameConflict {
            what,
            users: users.clone(),
        }));
    }
    for (name, users) in &by_username {
        let mut all = users.clone();
        let others = by_email.get(name).into_iter().flatten();
        all.extend(others.filter(|id| !users.contains(id)).cloned());
        if all.len() > users.len() {
            found.push(NameConflict {
                what: "a username that is the e-mail address of another",
                users: all,
            });
        }
    }
    found
}
