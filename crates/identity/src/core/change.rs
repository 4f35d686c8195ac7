//! The one way in which somebody changes something: under the lock that all changes take, their
//! rights are looked up again, the change is decided, stored and recorded, and after the commit it
//! is brought into force here.
//!
//! So of two administrators who remove each other one is refused, and nobody acts by a right that
//! they lost while their request was on its way.

use auspex_kernel::db::{DbError, Transaction};
use auspex_kernel::{Scope, ScopeSet, Subject, Timestamp};

use crate::audit::{Actor, AuditRecord, Event};
use crate::error::IdentityError;
use crate::store::{self, Kind};
use crate::types::api_key::KeyState;

/// What the actor must still have once the lock is held.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Needs {
    /// A credential that is in force and still has this scope.
    Scope(Scope),
    /// A credential that is in force.
    Credential,
    /// Nothing more: this operation itself found out who they are.
    Nothing,
}

/// A change that is being decided.
pub(crate) struct Change<'t> {
    pub(crate) transaction: &'t Transaction,
    /// With the rights they have by now.
    pub(crate) actor: Actor,
    pub(crate) now: Timestamp,
    pub(super) audit: &'t AuditRecord,
}

/// Why a change is not made. Everything it has written so far is undone; the event, if there is one,
/// enters the audit record.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(super) error: IdentityError,
    pub(super) event: Option<Event>,
}

impl Refusal {
    /// A refusal that enters the audit record. Nothing may have been written before.
    pub(crate) fn recorded(error: IdentityError, event: Event) -> Self {
        Self {
            error,
            event: Some(event),
        }
    }
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        Self { error, event: None }
    }
}

impl From<DbError> for Refusal {
    fn from(error: DbError) -> Self {
        IdentityError::from(error).into()
    }
}

impl Change<'_> {
    /// Adds a line to the audit record.
    pub(crate) async fn record(&self, event: Event) -> Result<(), DbError> {
        let (transaction, actor) = (self.transaction, &self.actor);
        self.audit.record(transaction, actor, event).await
    }

    /// When the API key by which somebody acts ends, if it does.
    pub(crate) async fn end_of_key(&self) -> Result<Option<Timestamp>, DbError> {
        let Some(id) = self.actor.key_id() else {
            return Ok(None);
        };
        let key = store::keys::key_by_id(self.transaction, id).await?;
        Ok(key.and_then(|key| key.expires_at))
    }

    /// Tells every process once the transaction commits.
    pub(crate) async fn publish(&self, kind: Kind, id: impl AsRef<str>) -> Result<(), DbError> {
        store::record_change(self.transaction, kind, id, self.now).await
    }
}

/// The actor with the rights they have by now. Otherwise somebody could act by a right that they
/// lost while their request was on its way. The transaction must hold the lock, so that nothing
/// changes before it ends.
pub(super) async fn renewed(
    actor: &Actor,
    transaction: &Transaction,
    needed: Option<Scope>,
    now: Timestamp,
) -> Result<Actor, IdentityError> {
    // The command line needs no credential, and nothing here can end one of another issuer.
    if matches!(actor.subject, Subject::Operator | Subject::External(_)) {
        return Ok(actor.clone());
    }
    let scopes = scopes_left(actor, transaction, now).await?;
    let scopes = scopes.ok_or(IdentityError::CredentialEnded)?;
    let has_lost = |scope| actor.scopes.contains(scope) && !scopes.contains(scope);
    if needed.is_some_and(has_lost) {
        return Err(IdentityError::CredentialEnded);
    }
    Ok(Actor {
        scopes,
        ..actor.clone()
    })
}

/// What somebody may still do; `None` if anything behind their credential is gone.
async fn scopes_left(
    actor: &Actor,
    transaction: &Transaction,
    now: Timestamp,
) -> Result<Option<ScopeSet>, DbError> {
    let mut scopes = actor.scopes;
    let (mut known, mut ended) = (false, false);
    if let Some(id) = actor.key_id() {
        let key = store::keys::key_by_id(transaction, id).await?;
        known = true;
        ended |= key.is_none_or(|key| key.state(now) != KeyState::Active);
    }
    if let Some(id) = &actor.user_id {
        let user = store::users::by_id(transaction, id).await?;
        let user = user.filter(|user| user.disabled_at.is_none());
        known = true;
        ended |= user.is_none();
        scopes = scopes.intersection(user.map(|user| user.roles.scopes()).unwrap_or_default());
    }
    if let Some(id) = &actor.session_id {
        let grant = store::grants::by_id(transaction, id).await?;
        ended |= grant.is_none_or(|grant| grant.revoked_at.is_some());
    }
    if let Some(id) = &actor.client_id {
        known = true;
        ended |= store::clients::by_id(transaction, id).await?.is_none();
    }
    Ok((known && !ended).then_some(scopes))
}
