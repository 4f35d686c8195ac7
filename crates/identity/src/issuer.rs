//! Placeholder.
use crate::jwt::{Claims, Refusal, Unverified};
use auspex_kernel::{Clock, Timestamp};
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuerConfig {}
impl IssuerConfig {
    pub(crate) fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
pub(crate) struct Issuers;
pub(crate) struct Needed;
pub(crate) struct Accepted {
    pub(crate) issuer_index: usize,
    pub(crate) claims: Claims,
    pub(crate) roles: Vec<String>,
}
pub(crate) enum IssuerVerdict {
    Accepted(Accepted),
    Refused(Refusal),
    NeedsKeys(Needed),
}
impl Issuers {
    pub(crate) fn new(_: Vec<IssuerConfig>, _: Clock) -> Result<Self, String> {
        Ok(Self)
    }
    pub(crate) fn is_empty(&self) -> bool {
        true
    }
    pub(crate) fn verify(&self, _: &Unverified<'_>, _: Timestamp) -> IssuerVerdict {
        IssuerVerdict::Refused(Refusal::Issuer)
    }
    pub(crate) async fn fetch(&self, _: Needed) {}
}
