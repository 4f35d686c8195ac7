//! Who did what: the append-only record, for every service.
//!
//! It names subjects and targets by their ids. No password, key, token or e-mail enters it. A
//! service declares its own actions as a type that is an [`Action`].

use std::net::IpAddr;

use sea_orm::ConnectionTrait;

use crate::caller::{Caller, Peer, ScopeSet};
use crate::clock::{Clock, Timestamp};
use crate::db::{DbError, Transaction};
use crate::id::{ClientId, KeyId, SessionId, UserId, new_id, time_of_id};
use crate::page::{Found, Slice};
use crate::random::Random;
use crate::request_id::RequestId;
use crate::store::audit as store;
use crate::subject::Subject;

/// Who does something, for what they may do and for the record.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Who it is.
    pub subject: Subject,
    /// What they may do, and so what they may let others do.
    pub scopes: ScopeSet,
    /// The user that they are, or whose key they use.
    pub user_id: Option<UserId>,
    /// The session by which they act, if it is one.
    pub session_id: Option<SessionId>,
    /// The OAuth client that acts, for itself or for the user.
    pub client_id: Option<ClientId>,
    /// Where from.
    pub address: Option<IpAddr>,
    /// The request by which they do it.
    pub request_id: Option<String>,
}

impl Actor {
    /// The command line. Its users have the database anyway.
    pub fn operator() -> Self {
        Self {
            subject: Subject::Operator,
            scopes: ScopeSet::all(),
            user_id: None,
            session_id: None,
            client_id: None,
            address: None,
            request_id: None,
        }
    }

    /// Nobody known, such as somebody who is just logging in.
    pub fn anonymous(peer: Peer, request_id: Option<&RequestId>) -> Self {
        Self {
            subject: Subject::Anonymous,
            scopes: ScopeSet::default(),
            address: Some(peer.0),
            request_id: request_id.map(|id| id.as_str().to_owned()),
            ..Self::operator()
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
            ..Self::anonymous(peer, request_id)
        }
    }

    /// The key by which they act, if it is one.
    pub fn key_id(&self) -> Option<&KeyId> {
        match &self.subject {
            Subject::Key(id) => Some(id),
            _ => None,
        }
    }

    /// Whether they act by rights that were lent to them for a time: for an OAuth client, or with a token of
    /// another issuer.
    pub fn has_borrowed_rights(&self) -> bool {
        self.client_id.is_some() || matches!(self.subject, Subject::External(_))
    }

    /// The same, known by now as this user.
    #[must_use]
    pub fn as_user(&self, id: &UserId, scopes: ScopeSet) -> Self {
        Self {
            subject: Subject::User(id.clone()),
            scopes,
            user_id: Some(id.clone()),
            ..self.clone()
        }
    }

    /// The same, known by now as this OAuth client.
    #[must_use]
    pub fn as_client(&self, id: &ClientId) -> Self {
        Self {
            subject: Subject::Client(id.clone()),
            ..self.clone()
        }
    }
}

/// What a service records. Declared by [`audit_actions!`](crate::audit_actions).
pub trait Action: Copy {
    /// The text of every action there is.
    const TEXTS: &'static [&'static str];

    /// As stored and shown, e.g. `user.create`: the kind of thing, a dot, and what was done.
    fn as_str(self) -> &'static str;
}

/// Declares the actions of a service: an enum that is an [`Action`]. The service names its texts as
/// [`Service::ACTIONS`](crate::service::Service::ACTIONS).
///
/// ```
/// use auspex_kernel::audit::Action as _;
///
/// auspex_kernel::audit_actions! {
///     /// What the post office records.
///     enum Action {
///         ParcelSend = "parcel.send";
///         ParcelReturn = "parcel.return";
///     }
/// }
///
/// assert_eq!(Action::ParcelReturn.as_str(), "parcel.return");
/// assert_eq!(Action::TEXTS, ["parcel.send", "parcel.return"]);
/// ```
#[macro_export]
macro_rules! audit_actions {
    (
        $(#[doc = $about:literal])*
        $vis:vis enum $name:ident { $($variant:ident = $text:literal;)* }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $(#[doc = $text] $variant),* }

        impl $crate::audit::Action for $name {
            const TEXTS: &'static [&'static str] = &[$($text),*];

            fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
        }
    };
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Success,
    /// Not allowed.
    Denied,
    /// Allowed, but it did not work.
    Failed,
}

impl Outcome {
    /// Every outcome there is.
    pub const ALL: &[Outcome] = &[Outcome::Success, Outcome::Denied, Outcome::Failed];

    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Denied => "denied",
            Outcome::Failed => "failed",
        }
    }
}

/// One line to be recorded.
#[derive(Clone, Debug)]
pub struct Event<A> {
    /// What was done.
    pub action: A,
    /// What it was done to: `user:ID`, `key:ID`, `client:ID`, `grant:ID`, `models`.
    pub target: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// A few words, e.g. the roles that were given. Nothing a person typed.
    pub detail: Option<String>,
}

impl<A: Action> Event<A> {
    /// Something that was done.
    pub fn new(action: A, target: impl Into<String>) -> Self {
        Self {
            action,
            target: Some(target.into()),
            outcome: Outcome::Success,
            detail: None,
        }
    }

    /// Something that did not work.
    pub fn failed(action: A, target: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Failed,
            ..Self::new(action, target)
        }
    }

    /// Something that was not allowed.
    pub fn denied(action: A, target: Option<String>) -> Self {
        Self {
            action,
            target,
            outcome: Outcome::Denied,
            detail: None,
        }
    }

    /// The same, with a few words.
    #[must_use]
    pub fn with(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// One recorded line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// In the order of time.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// The text of a [`Subject`].
    pub actor: String,
    /// The text of an [`Action`].
    pub action: String,
    /// What it was done to.
    pub target: Option<String>,
    /// The text of an [`Outcome`].
    pub outcome: String,
    /// A few words.
    pub detail: Option<String>,
    /// Where from; see [`address_prefix`].
    pub address: Option<String>,
    /// The request by which it was done.
    pub request_id: Option<String>,
}

/// Which lines: those that meet every condition there is.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Who did it.
    pub actor: Option<String>,
    /// What was done.
    pub action: Option<String>,
    /// What it was done to.
    pub target: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Since when, this moment included.
    pub from: Option<Timestamp>,
    /// Until when, this moment not included.
    pub to: Option<Timestamp>,
}

impl Filter {
    /// Lines between two times are in the order of time; the others in the order in which they were
    /// recorded, which differs where the wall clock was set.
    pub(crate) fn is_by_time(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// How a line is found again by the page after it.
    pub fn position(&self) -> impl Fn(&Line) -> String + use<> {
        let is_by_time = self.is_by_time();
        move |line| match is_by_time {
            true => format!("{}.{}", line.at.0, line.id),
            false => line.id.clone(),
        }
    }
}

/// Adds a line. It is kept only if the transaction commits, so a refusal must commit as well.
///
/// # Errors
/// [`DbError`].
pub async fn record<A: Action>(
    transaction: &Transaction,
    actor: &Actor,
    event: Event<A>,
    clock: &Clock,
    random: &Random,
) -> Result<(), DbError> {
    let id = new_id(clock, random)?;
    store::insert(transaction, id, actor, event, clock.now()).await
}

/// Makes the ids of this clock follow those of the record, so that new lines come after old ones even
/// if the wall clock was set back before the program started.
///
/// # Errors
/// [`DbError`].
pub async fn follow_ids(connection: &impl ConnectionTrait, clock: &Clock) -> Result<(), DbError> {
    let newest = store::newest_id(connection).await?;
    if let Some(time) = newest.as_deref().and_then(time_of_id) {
        clock.follow_id(time);
    }
    Ok(())
}

/// Lines, newest first.
///
/// # Errors
/// [`DbError`].
pub async fn page(
    connection: &impl ConnectionTrait,
    filter: Filter,
    slice: Slice,
) -> Result<Found<Line>, DbError> {
    store::page(connection, filter, slice).await
}

/// Removes up to `rows_max` lines recorded before this time; how many.
///
/// # Errors
/// [`DbError`].
pub async fn remove_before(
    transaction: &Transaction,
    before: Timestamp,
    rows_max: u64,
) -> Result<u64, DbError> {
    store::remove_before(transaction, before, rows_max).await
}

/// Where a request came from, coarsely: the /24 of an IPv4 address, the /48 of an IPv6 one.
pub fn address_prefix(address: IpAddr) -> String {
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
