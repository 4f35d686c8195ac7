//! Roles: names for sets of scopes that people have.

use std::fmt;
use std::str::FromStr;

use auspex_kernel::{Scope, ScopeSet};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! roles {
    ($($variant:ident = $text:literal, $doc:literal;)*) => {
        /// What a user is to this installation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "kebab-case")]
        pub enum Role { $(#[doc = $doc] $variant),* }

        impl Role {
            /// Every role there is.
            pub const ALL: &[Role] = &[$(Role::$variant),*];

            /// As written in requests and tokens.
            pub fn as_str(self) -> &'static str {
                match self { $(Role::$variant => $text),* }
            }
        }
    };
}

roles! {
    Admin = "admin", "May do everything.";
    DataScientist = "data-scientist", "Predicts, manages models, reads consented texts and metrics, runs jobs.";
    Operator = "operator", "Manages models, the gateway and everybody's jobs, reads metrics and the audit record.";
    Service = "service", "A program: predicts, hands in texts, runs jobs.";
    Viewer = "viewer", "Sees how things are.";
}

impl Role {
    /// What the role may do.
    pub fn scopes(self) -> ScopeSet {
        use Scope::*;
        let scopes: &[Scope] = match self {
            Role::Admin => Scope::ALL,
            Role::DataScientist => &[
                Predict,
                ModelsRead,
                ModelsWrite,
                DataRead,
                JobsRead,
                JobsWrite,
                MetricsRead,
            ],
            Role::Operator => &[
                ModelsRead,
                ModelsWrite,
                JobsRead,
                JobsWrite,
                JobsOperate,
                GatewayRead,
                GatewayWrite,
                MetricsRead,
                AuditRead,
            ],
            Role::Service => &[Predict, DataWrite, JobsRead, JobsWrite],
            Role::Viewer => &[ModelsRead, JobsRead, GatewayRead, MetricsRead],
        };
        scopes.iter().copied().collect()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no role.
#[derive(Debug, thiserror::Error)]
#[error("must be one of {known}", known = Role::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let found = Role::ALL.iter().find(|role| role.as_str() == text);
        found.copied().ok_or(UnknownRole)
    }
}

/// The roles of one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleSet(u8);

impl RoleSet {
    /// Whether `role` is in it.
    pub fn contains(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }

    /// The roles in it, in the order of [`Role::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Role> {
        let all = Role::ALL.iter().copied();
        all.filter(move |role| self.contains(*role))
    }

    /// What they may do together.
    pub fn scopes(self) -> ScopeSet {
        self.iter()
            .fold(ScopeSet::default(), |all, role| all.union(role.scopes()))
    }

    /// Reads the stored form; roles that this version does not know, which a newer one wrote, are
    /// left out.
    pub(crate) fn from_stored(text: &str) -> Self {
        text.split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect()
    }
}

impl FromIterator<Role> for RoleSet {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(
            roles
                .into_iter()
                .fold(0, |bits, role| bits | 1 << role as u8),
        )
    }
}

/// Space-separated, as stored and as in the claim `role`.
impl fmt::Display for RoleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, role) in self.iter().enumerate() {
            write!(f, "{}{role}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_survive_text_and_bundle_scopes() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse::<Role>().unwrap(), *role);
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        let both = RoleSet::from_stored("viewer moon-walker service");
        assert_eq!(both.to_string(), "service viewer");
        assert!(
            both.scopes().contains(Scope::Predict) && both.scopes().contains(Scope::MetricsRead)
        );
        assert!(!both.scopes().contains(Scope::UsersWrite));
        assert_eq!(Role::Admin.scopes(), ScopeSet::all());
        assert!(RoleSet::default().scopes().is_empty());
    }
}
