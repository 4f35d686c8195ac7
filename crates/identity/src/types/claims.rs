//! What a client learns of a user: by the scopes that were granted, and alike wherever it asks.

use serde::Serialize;
use utoipa::ToSchema;

use super::role::Role;
use super::scope::{ClientScopes, OidcScope};
use super::user::User;

/// Claims of a user (OpenID Connect Core §5.1 and §5.4). What was not granted is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct UserClaims {
    /// By `profile`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// By `profile`: the name to log in with
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) preferred_username: Option<String>,
    /// By `profile`: when the user was last changed, in seconds
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) updated_at: Option<i64>,
    /// By `email`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
    /// By `email`: whether an administrator says that the address is the user's
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email_verified: Option<bool>,
    /// By `roles`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) roles: Option<Vec<Role>>,
}

impl UserClaims {
    /// What these scopes tell of a user.
    pub(crate) fn of(user: &User, granted: ClientScopes) -> Self {
        let profile = granted.has(OidcScope::Profile);
        let email = granted.has(OidcScope::Email);
        let roles = granted.has(OidcScope::Roles);
        Self {
            name: profile.then(|| user.name.clone()),
            preferred_username: profile.then(|| user.username.clone()),
            updated_at: profile.then(|| user.updated_at.unix_seconds()),
            email: email.then(|| user.email.clone()),
            email_verified: email.then_some(user.email_verified),
            roles: roles.then(|| user.roles.iter().collect()),
        }
    }
}
