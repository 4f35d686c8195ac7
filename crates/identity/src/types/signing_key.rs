//! Keys that sign tokens, as they are kept.

use std::fmt;

use auspex_kernel::Timestamp;

/// A key with its private half.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredKey {
    pub(crate) kid: String,
    pub(crate) algorithm: String,
    pub(crate) pkcs8: Vec<u8>,
    pub(crate) created_at: Timestamp,
    pub(crate) signs_from: Timestamp,
}

/// Never shows the private half.
impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("StoredKey");
        shown.field("kid", &self.kid).finish_non_exhaustive()
    }
}
