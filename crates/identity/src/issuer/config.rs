//! What an operator says of an issuer, and how its claims become our roles.

use std::collections::BTreeMap;

use auspex_kernel::outward::check_url;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::jwt::{Algorithm, Claims};
use crate::types::role::Role;

/// A trusted issuer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuerConfig {
    /// Its name, as its tokens have it in `iss`.
    pub(crate) issuer: String,
    /// Where it publishes its keys (JWK set).
    pub(crate) jwks_url: String,
    /// What its tokens for us have in `aud`. There is no default: without it a token for any other
    /// service of the same provider would do.
    pub(crate) audience: String,
    /// What the header's `typ` may be; "" lets it be absent.
    #[serde(default = "types")]
    pub(crate) types: Vec<String>,
    /// What its tokens may be signed with.
    #[serde(default = "algorithms")]
    pub(crate) algorithms: Vec<Algorithm>,
    /// Where its roles are: a claim, or the path to one within claims (`realm_access.roles`).
    #[serde(default)]
    pub(crate) roles_claim: Option<String>,
    /// Which claim holds scopes of ours (`scope`, `scp`, `permissions`). Without it, none does.
    #[serde(default)]
    pub(crate) scope_claim: Option<String>,
    /// Which of our roles each of its roles stands for. Others stand for none.
    #[serde(default)]
    pub(crate) roles: BTreeMap<String, String>,
    /// Whether its keys may lie in a private network, and be fetched by plain `http` there.
    #[serde(default)]
    pub(crate) allow_private_addresses: bool,
}

/// Keycloak sends `JWT`, as does Entra; others send nothing.
fn types() -> Vec<String> {
    vec!["JWT".into(), String::new()]
}

fn algorithms() -> Vec<Algorithm> {
    Algorithm::ALL.to_vec()
}

impl IssuerConfig {
    /// # Errors
    /// What is wrong, for the operator: which issuer, which setting and what it must be.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.issuer.is_empty() {
            return Err(
                "an issuer needs its name (\"issuer\"), as its tokens have it in iss".into(),
            );
        }
        let wrong = |what: &str| Err(format!("issuer {}: {what}", self.issuer));
        if self.audience.is_empty() {
            return wrong("\"audience\" must be what its tokens for this service have in aud");
        }
        if self.types.is_empty() {
            return wrong("\"types\" must name at least one type; \"\" stands for none");
        }
        if self.algorithms.is_empty() {
            return wrong("\"algorithms\" must name at least one of EdDSA, ES256 and RS256");
        }
        let Ok(url) = Url::parse(&self.jwks_url) else {
            return wrong("\"jwks_url\" is not a URL");
        };
        if let Err(why) = check_url(&url, self.allow_private_addresses) {
            return wrong(&format!("\"jwks_url\" {why}"));
        }
        if self.roles_claim.is_none() && !self.roles.is_empty() {
            return wrong("\"roles\" needs \"roles_claim\", which says where its roles are");
        }
        for role in self.roles.values() {
            if let Err(unknown) = role.parse::<Role>() {
                return wrong(&format!("\"roles\" says {role:?}, which {unknown}"));
            }
        }
        if self.roles_claim.is_some() && self.roles.is_empty() {
            return wrong("\"roles_claim\" needs \"roles\", which says what its roles stand for");
        }
        Ok(())
    }

    pub(super) fn roles_of(&self, claims: &Claims) -> Vec<String> {
        let theirs = match self.roles_claim.as_deref() {
            None => return Vec::new(),
            Some("role") => claims.role.clone(),
            Some(path) => texts(find(claims, path)),
        };
        let mut ours: Vec<String> = theirs
            .iter()
            .filter_map(|role| self.roles.get(role).cloned())
            .collect();
        ours.sort_unstable();
        ours.dedup();
        ours
    }

    pub(super) fn scope_of(&self, claims: &Claims) -> Option<String> {
        match self.scope_claim.as_deref()? {
            "scope" => claims.scope.clone(),
            path => find(claims, path).map(|value| texts(Some(value)).join(" ")),
        }
    }
}

/// A claim of this very name (some have dots: `https://example.org/roles`), else the path to it.
fn find<'c>(claims: &'c Claims, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.other.get(path) {
        return Some(value);
    }
    let mut names = path.split('.');
    let first = claims.other.get(names.next()?)?;
    names.try_fold(first, |value, name| value.as_object()?.get(name))
}

/// A text, or the texts of a list.
fn texts(value: Option<&Value>) -> Vec<String> {
    let owned = |value: &Value| value.as_str().map(str::to_owned);
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(owned).collect(),
        Some(value) => owned(value).into_iter().collect(),
        None => Vec::new(),
    }
}
