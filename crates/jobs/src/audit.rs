//! What this service records; see [`auspex_kernel::audit`].

use auspex_kernel::audit;

pub(crate) type Event = audit::Event<Action>;

auspex_kernel::audit_actions! {
    /// What is recorded.
    pub enum Action {
        JobCancel = "job.cancel";
        JobDelete = "job.delete";
        JobRetry = "job.retry";
    }
}
