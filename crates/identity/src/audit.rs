//! What this service records; see [`auspex_kernel::audit`].

use auspex_kernel::audit;
use auspex_kernel::db::{Db, DbError, Transaction};
use auspex_kernel::{Clock, Random};

pub use auspex_kernel::audit::{Actor, Outcome};

use crate::error::IdentityError;

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
        ClientDelete = "client.delete";
        ConsentGrant = "consent.grant";
        ConsentDeny = "consent.deny";
        CodeReuse = "code.reuse";
        ClientLogin = "client.login";
        SigningKeyRotate = "signing_key.rotate";
    }
}

/// The record in the database.
pub(crate) struct AuditRecord {
    db: Db,
    clock: Clock,
    random: Random,
}

impl AuditRecord {
    pub(crate) fn new(db: Db, clock: Clock, random: Random) -> Self {
        Self { db, clock, random }
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
