//! Sessions of the login pages.

use auspex_kernel::Timestamp;
use auspex_kernel::id::UserId;

/// Somebody is logged in to the login pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageSession {
    /// What is kept of its cookie.
    pub(crate) digest: Vec<u8>,
    pub(crate) user_id: UserId,
    pub(crate) authenticated_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}
