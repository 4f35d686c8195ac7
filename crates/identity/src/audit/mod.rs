//! What this service records; see [`auspex_kernel::audit`].

mod refused;

use auspex_kernel::audit;
use auspex_kernel::db::{Db, DbError, Transaction};
use auspex_kernel::{Clock, Random, Subject};

pub use auspex_kernel::audit::{Actor, Outcome};

use parking_lot::Mutex;

use crate::error::IdentityError;
use refused::Refused;

/// A line of this service.
pub(crate) type Event = audit::Event<Action>;

auspex_kernel::audit_actions! {
    /// What is recorded.
    pub enum Action {
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
        ClientUpdate = "client.update";
        ClientDelete = "client.delete";
        ConsentGrant = "consent.grant";
        ConsentDeny = "consent.deny";
        ConsentWithdraw = "consent.withdraw";
        CodeReuse = "code.reuse";
        DeviceGuess = "device.guess";
        ClientLogin = "client.login";
        SigningKeyRotate = "signing_key.rotate";
    }
}

/// The record in the database.
pub(crate) struct AuditRecord {
    db: Db,
    clock: Clock,
    random: Random,
    refused: Mutex<Refused>,
    /// Those of callers, so that strangers cannot fill what is kept of them.
    denied: Mutex<Refused>,
}

impl AuditRecord {
    pub(crate) fn new(db: Db, clock: Clock, random: Random) -> Self {
        Self {
            db,
            clock,
            random,
            refused: Mutex::default(),
            denied: Mutex::default(),
        }
    }

    /// Adds a line that belongs to no other change.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn add(&self, actor: &Actor, event: Event) -> Result<(), IdentityError> {
        let written = self
            .db
            .write(async |transaction| self.record(transaction, actor, event).await);
        Ok(written.await?)
    }

    /// Adds a line about a refusal that anybody could bring about, or counts it; see `refused.rs`.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn refuse(&self, actor: &Actor, event: Event) -> Result<(), IdentityError> {
        match self.has_line(actor, &event) {
            true => self.add(actor, event).await,
            false => Ok(()),
        }
    }

    /// Whether a refusal is to have a line of its own; otherwise it is counted.
    pub(crate) fn has_line(&self, actor: &Actor, event: &Event) -> bool {
        let kept = match actor.subject {
            Subject::Anonymous => &self.refused,
            _ => &self.denied,
        };
        kept.lock().has_line(actor, event, self.clock.steady())
    }

    /// Adds the lines about refusals that were only counted: of a window that is over, or of all if
    /// `ends` says that this process does.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn add_counts(&self, ends: bool) -> Result<(), IdentityError> {
        let mut counts = Vec::new();
        for kept in [&self.refused, &self.denied] {
            counts.extend(match ends {
                true => kept.lock().counts(),
                false => kept.lock().end(self.clock.steady()),
            });
        }
        if counts.is_empty() {
            return Ok(());
        }
        let written = self.db.write(async |transaction| -> Result<(), DbError> {
            for (actor, event) in &counts {
                self.record(transaction, actor, event.clone()).await?;
            }
            Ok(())
        });
        Ok(written.await?)
    }

    /// Adds a line in a transaction.
    ///
    /// # Errors
    /// [`DbError`].
    pub(crate) async fn record(
        &self,
        transaction: &Transaction,
        actor: &Actor,
        event: Event,
    ) -> Result<(), DbError> {
        audit::record(transaction, actor, event, &self.clock, &self.random).await
    }

    /// Makes new ids come after those in the record.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn follow_ids(&self) -> Result<(), IdentityError> {
        let followed = self
            .db
            .read(async |connection| audit::follow_ids(connection, &self.clock).await);
        Ok(followed.await?)
    }
}
