//! Who did what: the append-only record of logins, denials, grants, and changes of keys and roles.
//!
//! It names subjects and targets by their ids. No password, key, token or e-mail enters it.

use std::net::IpAddr;

use auspex_kernel::db::{DbError, Transaction};
use auspex_kernel::page::{Found, Slice};
use auspex_kernel::{Caller, Peer, RequestId, Scope, ScopeSet, Timestamp};

use crate::Identity;
use crate::api_key::{KeyId, KeyState};
use crate::error::IdentityError;
use crate::store;

/// Who does something, for what he may do and for the record.
#[derive(Clone, Debug)]
pub struct Actor {
    /// `user:ID`, `key:ID`, `client:ID`, `external:NAME` (another issuer's), `operator` (the command
    /// line) or `anonymous`.
    pub subject: String,
    /// What he may do, and so what he may let others do.
    pub scopes: ScopeSet,
    /// The user he is, if he is one.
    pub user_id: Option<String>,
    /// The session by which he acts, if it is one.
    pub session_id: Option<String>,
    /// The OAuth client that acts, for itself or for him.
    pub client_id: Option<String>,
    /// Where from.
    pub address: Option<IpAddr>,
    /// The request by which he does it.
    pub request_id: Option<String>,
}

impl Actor {
    /// Whoever can use the command line has the database anyway.
    pub fn operator() -> Self {
        Self {
            subject: "operator".into(),
            scopes: ScopeSet::all(),
            user_id: None,
            session_id: None,
            client_id: None,
            address: None,
            request_id: None,
        }
    }

    /// Nobody known, such as who is just logging in.
    pub fn anonymous(peer: Peer, request_id: Option<&RequestId>) -> Self {
        Self {
            subject: "anonymous".into(),
            scopes: ScopeSet::default(),
            user_id: None,
            session_id: None,
            client_id: None,
            address: Some(peer.0),
            request_id: request_id.map(|id| id.as_str().to_owned()),
        }
    }

    /// The caller of a request.
    pub fn caller(caller: &Caller, peer: Peer, request_id: Option<&RequestId>) -> Self {
        Self {
            subject: caller.subject.clone(),
            scopes: caller.scopes,
            user_id: caller.user_id.clone(),
            session_id: caller.session_id.clone(),
            client_id: caller.client_id.clone(),
            address: Some(peer.0),
            request_id: request_id.map(|id| id.as_str().to_owned()),
        }
    }

    /// The key by which he acts, if it is one.
    pub(crate) fn key_id(&self) -> Option<KeyId> {
        self.subject.strip_prefix("key:")?.parse().ok()
    }

    /// Whether another issuer vouches for him.
    pub(crate) fn is_external(&self) -> bool {
        self.subject.starts_with("external:")
    }

    /// The same with the rights they have by now. Otherwise somebody could act by a right that they
    /// lost while their request was on its way. The transaction must hold the lock, so that nothing
    /// changes before it ends.
    ///
    /// # Errors
    /// [`IdentityError::CredentialEnded`] if their credential ended, or lost the scope that is
    /// `needed`, since it was recognized.
    pub(crate) async fn renewed(
        &self,
        transaction: &Transaction,
        needed: Option<Scope>,
        now: Timestamp,
    ) -> Result<Self, IdentityError> {
        if self.subject == "operator" || self.is_external() {
            return Ok(self.clone());
        }
        let scopes = self.scopes_left(transaction, now).await?;
        let scopes = scopes.ok_or(IdentityError::CredentialEnded)?;
        let has_lost = |scope| self.scopes.contains(scope) && !scopes.contains(scope);
        if needed.is_some_and(has_lost) {
            return Err(IdentityError::CredentialEnded);
        }
        Ok(Self {
            scopes,
            ..self.clone()
        })
    }

    /// What they may still do; `None` if anything behind their credential is gone.
    async fn scopes_left(
        &self,
        transaction: &Transaction,
        now: Timestamp,
    ) -> Result<Option<ScopeSet>, DbError> {
        let mut scopes = self.scopes;
        let (mut known, mut ended) = (false, false);
        if self.subject.starts_with("key:") {
            let key = match self.key_id() {
                Some(id) => store::keys::key_by_id(transaction, &id).await?,
                None => None,
            };
            known = true;
            ended |= key.is_none_or(|key| key.state(now) != KeyState::Active);
        }
        if let Some(id) = &self.user_id {
            let user = store::users::by_id(transaction, id).await?;
            let user = user.filter(|user| user.disabled_at.is_none());
            known = true;
            ended |= user.is_none();
            scopes = scopes.intersection(user.map(|user| user.roles.scopes()).unwrap_or_default());
        }
        if let Some(id) = &self.session_id {
            let grant = store::grants::by_id(transaction, id).await?;
            ended |= grant.is_none_or(|grant| grant.revoked_at.is_some());
        }
        if let Some(id) = &self.client_id {
            known = true;
            ended |= store::clients::by_id(transaction, id).await?.is_none();
        }
        Ok((known && !ended).then_some(scopes))
    }

    /// The same, known by now as this user.
    #[must_use]
    pub(crate) fn as_user(&self, id: &str, scopes: ScopeSet) -> Self {
        Self {
            subject: format!("user:{id}"),
            scopes,
            user_id: Some(id.to_owned()),
            ..self.clone()
        }
    }
}

macro_rules! actions {
    ($($variant:ident = $text:literal;)*) => {
        /// What is recorded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the texts say it")]
        pub enum Action { $($variant),* }

        impl Action {
            /// Every action there is.
            pub const ALL: &[Action] = &[$(Action::$variant),*];

            /// As stored and shown.
            pub fn as_str(self) -> &'static str {
                match self { $(Action::$variant => $text),* }
            }
        }
    };
}

actions! {
    UserCreate = "user.create";
    UserUpdate = "user.update";
    UserRoles = "user.roles";
    UserDisable = "user.disable";
    UserEnable = "user.enable";
    UserDelete = "user.delete";
    UserPassword = "user.password";
    Login = "login";
    Logout = "logout";
    TokenRefresh = "token.refresh";
    TokenReuse = "token.reuse";
    TokenRevoke = "token.revoke";
    KeyCreate = "key.create";
    KeyRotate = "key.rotate";
    KeyRevoke = "key.revoke";
    ClientCreate = "client.create";
    ClientDelete = "client.delete";
    ConsentGrant = "consent.grant";
    ConsentDeny = "consent.deny";
    CodeReuse = "code.reuse";
    ClientLogin = "client.login";
    SigningKeyRotate = "signing_key.rotate";
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Success,
    /// Not allowed.
    Denied,
}

impl Outcome {
    /// Every outcome there is.
    pub const ALL: &[Outcome] = &[Outcome::Success, Outcome::Denied];

    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Denied => "denied",
        }
    }
}

/// One line to be recorded.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) action: Action,
    /// `user:ID`, `key:ID`, `client:ID`, `grant:ID`.
    pub(crate) target: Option<String>,
    pub(crate) outcome: Outcome,
    /// A few words, e.g. the roles that were given. Nothing a person typed.
    pub(crate) detail: Option<String>,
}

impl Event {
    pub(crate) fn new(action: Action, target: impl Into<String>) -> Self {
        Self {
            action,
            target: Some(target.into()),
            outcome: Outcome::Success,
            detail: None,
        }
    }

    pub(crate) fn denied(action: Action, target: Option<String>) -> Self {
        Self {
            action,
            target,
            outcome: Outcome::Denied,
            detail: None,
        }
    }

    #[must_use]
    pub(crate) fn with(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// One recorded line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditLine {
    pub(crate) id: String,
    pub(crate) at: Timestamp,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) target: Option<String>,
    pub(crate) outcome: String,
    pub(crate) detail: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) request_id: Option<String>,
}

/// Which lines: those that meet every condition there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuditFilter {
    pub(crate) actor: Option<String>,
    pub(crate) action: Option<Action>,
    pub(crate) target: Option<String>,
    pub(crate) outcome: Option<Outcome>,
}

impl Identity {
    pub(crate) async fn page_of_audit(
        &self,
        filter: AuditFilter,
        slice: Slice,
    ) -> Result<Found<AuditLine>, IdentityError> {
        let page = self
            .db
            .read(async |connection| store::audit::page(connection, filter, slice).await);
        Ok(page.await?)
    }
}

/// Where a request came from, coarsely: the /24 of an IPv4 address, the /48 of an IPv6 one.
pub(crate) fn address_prefix(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_coarsely() {
        let prefix = |text: &str| address_prefix(text.parse().unwrap());
        assert_eq!(prefix("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(prefix("::ffff:192.0.2.77"), "192.0.2.0/24");
        assert_eq!(prefix("2001:db8:7:8::9"), "2001:db8:7::/48");
    }
}
