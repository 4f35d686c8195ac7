//! What this service records; see [`auspex_kernel::audit`]. Customers and dialogues are named by their
//! pseudonyms.

use auspex_kernel::audit::{self, Actor};
use auspex_kernel::db::{DbError, Transaction};

use crate::core::Core;

pub(crate) type Event = audit::Event<Action>;

auspex_kernel::audit_actions! {
    /// What is recorded.
    pub enum Action {
        MessagesRead = "messages.read";
        MessagesExport = "messages.export";
        CustomerRead = "customer.read";
        CustomerExport = "customer.export";
        CustomerWithdraw = "customer.withdraw";
        CustomerErase = "customer.erase";
        ErasureComplete = "erasure.complete";
        RetentionDelete = "retention.delete";
    }
}

impl Core {
    /// Adds to the record within a transaction.
    pub(crate) async fn record_in(
        &self,
        transaction: &Transaction,
        actor: &Actor,
        event: Event,
    ) -> Result<(), DbError> {
        audit::record(transaction, actor, event, &self.clock, &self.random).await
    }

    /// Adds to the record by itself. What is recorded afterwards may not have been done; what is
    /// recorded before was at least tried.
    pub(crate) async fn record(&self, actor: &Actor, event: Event) -> Result<(), DbError> {
        self.db
            .write(async |transaction| self.record_in(transaction, actor, event).await)
            .await
    }
}
