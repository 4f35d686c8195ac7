//! What a client may be given: this program's own scopes, and those of OpenID Connect.

use std::fmt;
use std::str::FromStr;

use auspex_kernel::{Scope, ScopeSet};

/// A scope of OpenID Connect Core §5.4 and §11, or of the same kind. They open no route but `/oauth2/userinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OidcScope {
    OpenId,
    Profile,
    Email,
    /// Not of the specification, which knows no roles.
    Roles,
    OfflineAccess,
}

impl OidcScope {
    pub(crate) const ALL: [OidcScope; 5] = [
        OidcScope::OpenId,
        OidcScope::Profile,
        OidcScope::Email,
        OidcScope::Roles,
        OidcScope::OfflineAccess,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            OidcScope::OpenId => "openid",
            OidcScope::Profile => "profile",
            OidcScope::Email => "email",
            OidcScope::Roles => "roles",
            OidcScope::OfflineAccess => "offline_access",
        }
    }
}

/// Scopes of both kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientScopes {
    /// Those that routes ask for.
    pub api: ScopeSet,
    oidc: u8,
}

/// A word of the text names no scope.
#[derive(Debug, thiserror::Error)]
#[error("there is no such scope")]
pub struct UnknownClientScope;

/// Scopes of OpenID Connect Core §5.4 for claims that nobody has here. Clients of many servers ask for them,
/// and they are passed over, as its §3.1.2.1 has it.
const WITHOUT_CLAIMS: [&str; 2] = ["address", "phone"];
/// Of a scope that there is not.
const SHOWN_CHARS_MAX: usize = 60;

/// Why a client is not given the scopes that it asks for. Names them, as far as RFC 6749 §5.2 lets a
/// description do so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WrongScope {
    #[error("there is no scope {0}; see scopes_supported")]
    Unknown(String),
    #[error("the client is not registered for {0}")]
    Beyond(ClientScopes),
    #[error("no scope is asked for that the client may have")]
    None,
}

impl ClientScopes {
    /// The name of every scope there is.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let oidc = OidcScope::ALL.iter().map(|scope| scope.as_str());
        oidc.chain(Scope::ALL.iter().map(|scope| scope.as_str()))
    }

    /// Reads the stored form; scopes that this version does not know are left out.
    pub(crate) fn from_stored(text: &str) -> Self {
        let mut scopes = Self::default();
        for word in text.split(' ') {
            // What an older or newer version wrote gives nothing.
            let _ = scopes.add(word);
        }
        scopes
    }

    /// What is asked for out of these, or all of these where nothing is.
    pub(crate) fn asked(self, text: Option<&str>) -> Result<Self, WrongScope> {
        let mut asked = Self::default();
        let words = text.into_iter().flat_map(|text| text.split(' '));
        for word in words.filter(|word| !word.is_empty() && !WITHOUT_CLAIMS.contains(word)) {
            asked
                .add(word)
                .map_err(|_| WrongScope::Unknown(shown(word)))?;
        }
        let asked = if text.is_none() { self } else { asked };
        let beyond = asked.without(self);
        match (beyond.is_empty(), asked.is_empty()) {
            (false, _) => Err(WrongScope::Beyond(beyond)),
            (true, true) => Err(WrongScope::None),
            (true, false) => Ok(asked),
        }
    }

    fn add(&mut self, word: &str) -> Result<(), UnknownClientScope> {
        if let Some(scope) = OidcScope::ALL.iter().find(|scope| scope.as_str() == word) {
            self.oidc |= 1 << *scope as u8;
            return Ok(());
        }
        let scope: Scope = word.parse().map_err(|_| UnknownClientScope)?;
        self.api = self.api.union([scope].into_iter().collect());
        Ok(())
    }

    /// Every one of OpenID Connect.
    pub(crate) fn all_oidc() -> Self {
        Self::of_user(ScopeSet::default())
    }

    /// Of this program's own scopes these, and every one of OpenID Connect: what a user may pass on.
    pub(crate) fn of_user(api: ScopeSet) -> Self {
        let oidc = OidcScope::ALL
            .iter()
            .fold(0, |all, scope| all | 1 << *scope as u8);
        Self { api, oidc }
    }

    /// Only this program's own.
    pub(crate) fn without_oidc(self) -> Self {
        Self { oidc: 0, ..self }
    }

    pub(crate) fn has(self, scope: OidcScope) -> bool {
        self.oidc & (1 << scope as u8) != 0
    }

    /// The scopes that are in both.
    pub(crate) fn intersection(self, other: Self) -> Self {
        Self {
            api: self.api.intersection(other.api),
            oidc: self.oidc & other.oidc,
        }
    }

    /// The scopes that are in either.
    pub(crate) fn union(self, other: Self) -> Self {
        Self {
            api: self.api.union(other.api),
            oidc: self.oidc | other.oidc,
        }
    }

    /// The scopes that are not in the other.
    pub(crate) fn without(self, other: Self) -> Self {
        let api = self.api.iter().filter(|scope| !other.api.contains(*scope));
        Self {
            api: api.collect(),
            oidc: self.oidc & !other.oidc,
        }
    }

    pub(crate) fn contains_all(self, other: Self) -> bool {
        self.intersection(other) == other
    }

    /// Whether it has none.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Their names, those of OpenID Connect first.
    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        let oidc = OidcScope::ALL
            .iter()
            .filter(move |scope| self.has(**scope))
            .map(|scope| scope.as_str());
        oidc.chain(self.api.iter().map(Scope::as_str))
    }

    /// What they allow, for the person who is asked.
    pub(crate) fn in_words(self) -> Vec<&'static str> {
        let oidc = OidcScope::ALL.iter().filter(|scope| self.has(**scope));
        let oidc = oidc.filter_map(|scope| oidc_in_words(*scope));
        oidc.chain(self.api.iter().map(api_in_words)).collect()
    }
}

fn oidc_in_words(scope: OidcScope) -> Option<&'static str> {
    match scope {
        OidcScope::OpenId => Some("Know that it is you"),
        OidcScope::Profile => Some("See your name and username"),
        OidcScope::Email => Some("See your e-mail address"),
        OidcScope::Roles => Some("See your roles"),
        // Gives nothing: whether a client stays logged in depends on how it is registered.
        OidcScope::OfflineAccess => None,
    }
}

fn api_in_words(scope: Scope) -> &'static str {
    match scope {
        Scope::Predict => "Ask models for predictions",
        Scope::ModelsRead => "See models and what they take",
        Scope::ModelsWrite => "Add, switch and remove models",
        Scope::DataWrite => "Hand in customers' texts and consents",
        Scope::DataRead => "Read the texts that customers agreed to share",
        Scope::DataIdentify => "See who the customers are",
        Scope::DataErase => "Withdraw, export and erase customers' data",
        Scope::UsersRead => "See all users",
        Scope::UsersWrite => "Create, change and remove users",
        Scope::KeysWrite => "Create and revoke API keys",
        Scope::ClientsWrite => "Register and remove applications",
        Scope::JobsRead => "See jobs",
        Scope::JobsWrite => "Start, cancel and delete jobs",
        Scope::JobsOperate => "See, cancel and delete everybody's jobs, and run dead ones again",
        Scope::GatewayRead => "See services and their state",
        Scope::GatewayWrite => "Register services",
        Scope::AuditRead => "Read who did what",
        Scope::MetricsRead => "Read metrics",
    }
}

/// The begin of a word, with its foreign characters replaced.
fn shown(word: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || ":._-/".contains(c) {
            c
        } else {
            '?'
        }
    };
    word.chars().take(SHOWN_CHARS_MAX).map(plain).collect()
}

/// Reads the space-separated form (RFC 6749 §3.3).
impl FromStr for ClientScopes {
    type Err = UnknownClientScope;

    fn from_str(text: &str) -> Result<Self, UnknownClientScope> {
        let mut scopes = Self::default();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            scopes.add(word)?;
        }
        Ok(scopes)
    }
}

/// Space-separated.
impl fmt::Display for ClientScopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.iter().enumerate() {
            write!(f, "{}{name}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ClientScopes {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_asked_for_is_given_or_named() {
        let own = parse("openid email predict");
        assert_eq!(own.asked(None), Ok(own));
        assert_eq!(own.asked(Some("openid address phone")), Ok(parse("openid")));
        for (text, expected) in [
            (
                "openid predcit",
                "there is no scope predcit; see scopes_supported",
            ),
            (
                "openid audit:read profile",
                "the client is not registered for profile audit:read",
            ),
            ("phone", "no scope is asked for that the client may have"),
            ("", "no scope is asked for that the client may have"),
            (
                "<b>\u{1f600}\"",
                "there is no scope ?b???; see scopes_supported",
            ),
        ] {
            let wrong = own.asked(Some(text)).unwrap_err();
            assert_eq!(wrong.to_string(), expected);
        }
        let long = "x".repeat(10_000);
        assert!(own.asked(Some(&long)).unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn people_are_not_asked_about_what_gives_nothing() {
        let words = |text: &str| parse(text).in_words();
        assert_eq!(words("openid offline_access"), words("openid"));
        assert!(words("offline_access").is_empty());
        let others = ClientScopes::names().filter(|name| *name != "offline_access");
        for name in others {
            assert_eq!(words(name).len(), 1, "{name}");
        }
    }

    #[test]
    fn scopes_of_both_kinds_survive_text() {
        let scopes = parse("predict  email openid");
        assert_eq!(scopes.to_string(), "openid email predict");
        assert!(scopes.has(OidcScope::Email) && !scopes.has(OidcScope::Profile));
        for wrong in [
            "Predict",
            "admin",
            "predict\tjobs:read",
            "predict,jobs:read",
        ] {
            assert!(wrong.parse::<ClientScopes>().is_err(), "{wrong}");
        }
        assert_eq!(
            ClientScopes::from_stored("predict moon:walk profile"),
            parse("profile predict")
        );
        let all: Vec<_> = ClientScopes::names().collect();
        assert_eq!(parse(&all.join(" ")).iter().collect::<Vec<_>>(), all);
        assert_eq!(parse(&all.join(" ")).in_words().len(), all.len() - 1);
    }

    #[test]
    fn a_user_passes_on_what_he_has() {
        let user = ClientScopes::of_user(parse("predict").api);
        let asked = parse("openid predict users:write");
        assert_eq!(asked.intersection(user), parse("openid predict"));
        assert!(!user.contains_all(asked) && user.contains_all(parse("email predict")));
        assert_eq!(asked.without_oidc(), parse("predict users:write"));
        assert_eq!(asked.without(parse("openid predict")), parse("users:write"));
    }
}
