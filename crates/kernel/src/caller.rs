//! Who calls and what they may do: the seam between the edge, which asks, and identity, which knows.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderValue;

use crate::ApiError;
use crate::clock::Timestamp;
use crate::id::{ClientId, SessionId, UserId};
use crate::subject::Subject;

macro_rules! scopes {
    ($($variant:ident = $text:literal, $doc:literal;)*) => {
        /// A right that a route asks for and a credential carries.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Scope { $(#[doc = $doc] $variant),* }

        impl Scope {
            /// Every scope there is.
            pub const ALL: &[Scope] = &[$(Scope::$variant),*];

            /// As written in tokens, keys and the OpenAPI document.
            pub fn as_str(self) -> &'static str {
                match self { $(Scope::$variant => $text),* }
            }
        }
    };
}

scopes! {
    Predict = "predict", "Ask models for predictions.";
    ModelsRead = "models:read", "List models and read their schemas.";
    ModelsWrite = "models:write", "Add, switch and remove models.";
    DataWrite = "data:write", "Hand in customer texts and consents.";
    DataRead = "data:read", "Read consented texts.";
    DataIdentify = "data:identify", "See real customer ids.";
    DataErase = "data:erase", "Withdraw, export and erase for a customer.";
    UsersRead = "users:read", "Read users.";
    UsersWrite = "users:write", "Create, change and remove users.";
    KeysWrite = "keys:write", "Create and revoke API keys.";
    ClientsWrite = "clients:write", "Manage OAuth clients.";
    JobsRead = "jobs:read", "Read jobs.";
    JobsWrite = "jobs:write", "Start jobs, with predict; cancel and delete them.";
    JobsOperate = "jobs:operate", "See, cancel and delete everybody's jobs, and run dead ones again.";
    GatewayRead = "gateway:read", "See routes, services and circuits.";
    GatewayWrite = "gateway:write", "Register services.";
    AuditRead = "audit:read", "Read the audit record.";
    MetricsRead = "metrics:read", "Read metrics.";
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no scope.
#[derive(Debug, thiserror::Error)]
#[error("there is no scope \"{0}\"; known scopes: {known}", known = Scope::ALL.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let found = Scope::ALL.iter().find(|scope| scope.as_str() == text);
        found.copied().ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ScopeSet(u32);

impl ScopeSet {
    /// Every scope.
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    /// Whether `scope` is in it.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u32) != 0
    }

    /// Whether every scope of `other` is in it.
    pub fn contains_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The scopes that are in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The scopes that are in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it has none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes in it, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL
            .iter()
            .copied()
            .filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(
            scopes
                .into_iter()
                .fold(0, |bits, scope| bits | 1 << scope as u32),
        )
    }
}

/// Space-separated, as OAuth 2.0 writes them (RFC 6749 §3.3).
impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.iter().enumerate() {
            write!(f, "{}{scope}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// Reads the space-separated form.
impl FromStr for ScopeSet {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        text.split_ascii_whitespace().map(str::parse).collect()
    }
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub subject: Subject,
    /// What they may do.
    pub scopes: ScopeSet,
    /// Whose quota they use; the same for every credential of one key, user or client.
    pub quota_key: u64,
    /// When the credential ends.
    pub expires_at: Option<Timestamp>,
    /// Id of the user behind the credential; keys of operators and clients have none.
    pub user_id: Option<UserId>,
    /// Id of the session that the credential belongs to, by which it can be ended.
    pub session_id: Option<SessionId>,
    /// Id of the OAuth client that acts, for itself or for the user.
    pub client_id: Option<ClientId>,
}

/// What a request showed to prove who calls.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// `X-API-Key`, or a bearer token that may be a key or a JWT.
    Token(&'a [u8]),
    /// What follows `Basic` in `Authorization` (RFC 7617): base64 of name and password.
    Basic(&'a [u8]),
}

/// Never shows the secret.
impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// What memory alone can say of a credential.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is valid.
    Known(Arc<Caller>),
    /// It is unknown, revoked or expired.
    Refused,
    /// It takes more than memory to tell: ask [`Authenticate::verify`].
    Unverified,
}

/// The future of [`Authenticate::verify`].
pub type Verification = Pin<Box<dyn Future<Output = Result<Arc<Caller>, ApiError>> + Send>>;

/// Tells who calls.
pub trait Authenticate: Send + Sync {
    /// Answers from memory: it is asked on every request.
    fn authenticate(&self, credential: Credential<'_>, now: Timestamp) -> Verdict;

    /// Answers what memory cannot: hashes a password, fetches another issuer's keys. It works on the
    /// control runtime, whichever runtime asks, and is bounded in time; the error is what the client
    /// is told.
    fn verify(self: Arc<Self>, credential: Credential<'_>, peer: IpAddr) -> Verification;

    /// Whether pages of this origin, as browsers write it, may be an OAuth client that runs in the
    /// browser. Answers from memory.
    fn is_origin_of_client(&self, origin: &str) -> bool;
}

/// The future of [`Vouch::vouch`].
pub type Vouching = Pin<Box<dyn Future<Output = Result<HeaderValue, ApiError>> + Send>>;

/// Tells services behind this server who calls, by tokens that they can verify.
pub trait Vouch: Send + Sync {
    /// What `Authorization` says of a caller to the service of this audience, from memory: it is asked on every
    /// request.
    fn remembered(&self, caller: &Caller, audience: &str, now: Timestamp) -> Option<HeaderValue>;

    /// The same where memory has none. It works on the control runtime, whichever runtime asks.
    fn vouch(self: Arc<Self>, caller: Arc<Caller>, audience: Arc<str>) -> Vouching;
}

/// The address that a request came from, for handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// The address of the trusted proxy that handed a request on, if there was one, for handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via(pub IpAddr);

/// In the extensions of a request that came over TLS, which this server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverTls;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_survive_text() {
        for scope in Scope::ALL {
            assert_eq!(
                scope.as_str().parse::<Scope>().expect("its own text"),
                *scope
            );
        }
        let some: ScopeSet = "models:read predict".parse().expect("two scopes");
        assert_eq!(some.to_string(), "predict models:read");
        assert!(some.contains(Scope::Predict) && !some.contains(Scope::ModelsWrite));
        assert!("predict nonsense".parse::<ScopeSet>().is_err());
    }
}
