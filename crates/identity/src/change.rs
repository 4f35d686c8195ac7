//! The one way in which somebody changes something: under the lock that all changes take, their
//! rights are looked up again, the change is decided, stored and recorded, and after the commit it
//! is brought into force here.
//!
//! So of two administrators who remove each other one is refused, and nobody acts by a right that
//! they lost while their request was on its way.

use auspex_kernel::db::{DbError, Transaction};
use auspex_kernel::{Scope, Timestamp};

use crate::Identity;
use crate::audit::{Actor, Event};
use crate::error::IdentityError;
use crate::store::{self, Kind};

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
}

/// Why a change is not made. Everything it has written so far is undone; the event, if there is one,
/// enters the audit record.
#[derive(Debug)]
pub(crate) struct Refusal {
    error: IdentityError,
    event: Option<Event>,
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
        store::audit::record(self.transaction, &self.actor, event, self.now).await
    }

    /// Tells every process once the transaction commits.
    pub(crate) async fn publish(&self, kind: Kind, id: &str) -> Result<(), DbError> {
        store::record_change(self.transaction, kind, id, self.now).await
    }
}

impl Identity {
    /// Makes a change that is in force here when this returns.
    ///
    /// # Errors
    /// What `decide` says; [`IdentityError::CredentialEnded`], [`IdentityError::Database`].
    pub(crate) async fn change<T>(
        &self,
        actor: &Actor,
        needs: Needs,
        decide: impl AsyncFnOnce(&Change<'_>) -> Result<T, Refusal>,
    ) -> Result<T, IdentityError> {
        let done = self.store_change(actor, needs, decide).await?;
        self.catch_up().await?;
        Ok(done)
    }

    /// Makes a change that gives out a secret, which an error after the commit would lose for good.
    ///
    /// # Errors
    /// As of [`Self::change`].
    pub(crate) async fn change_for_secret<T>(
        &self,
        actor: &Actor,
        needs: Needs,
        decide: impl AsyncFnOnce(&Change<'_>) -> Result<T, Refusal>,
    ) -> Result<T, IdentityError> {
        let done = self.store_change(actor, needs, decide).await?;
        self.put_in_force().await;
        Ok(done)
    }

    /// Brings into force here what is stored. A database that fails at this very moment only delays
    /// it until [`Identity::watch`] succeeds.
    pub(crate) async fn put_in_force(&self) {
        if let Err(error) = self.catch_up().await {
            tracing::warn!(%error, "a change is stored but not yet in force");
        }
    }

    async fn store_change<T>(
        &self,
        actor: &Actor,
        needs: Needs,
        decide: impl AsyncFnOnce(&Change<'_>) -> Result<T, Refusal>,
    ) -> Result<T, IdentityError> {
        let now = self.clock.now();
        let decided = self
            .db
            .write(async |transaction| -> Result<_, IdentityError> {
                store::lock(transaction).await?;
                let actor = match needs {
                    Needs::Scope(scope) => actor.renewed(transaction, Some(scope), now).await?,
                    Needs::Credential => actor.renewed(transaction, None, now).await?,
                    Needs::Nothing => actor.clone(),
                };
                let change = Change {
                    transaction,
                    actor,
                    now,
                };
                match decide(&change).await {
                    Ok(done) => Ok(Ok(done)),
                    Err(Refusal {
                        error,
                        event: Some(event),
                    }) => {
                        change.record(event).await?;
                        // No error of the transaction: what was recorded is kept.
                        Ok(Err(error))
                    }
                    Err(Refusal { error, event: None }) => Err(error),
                }
            });
        decided.await?
    }
}
