//! Authorization codes: for one client, one address, one challenge, once, and for a minute.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::db::{DbError, Transaction};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::audit::{Action, Actor, Event};
use crate::core::Core;
use crate::error::IdentityError;
use crate::sessions::Sessions;
use crate::store;
use crate::types::client::{Client, digest};
use crate::types::grant::Code;
use crate::types::grant::Grant;
use crate::types::user::User;

pub(super) const CODE_TTL: Duration = Duration::from_secs(60);

/// What a code gave.
pub(super) struct Redeemed {
    pub(super) user: User,
    pub(super) grant: Grant,
    pub(super) nonce: Option<String>,
}

enum Redemption {
    /// By this user, in their present state.
    Done(User),
    Refused,
    /// It had been redeemed before; what it gave is revoked.
    Reused,
}

/// Exchanges codes for grants.
#[derive(Clone)]
pub(super) struct Codes {
    core: Arc<Core>,
    sessions: Sessions,
}

impl Codes {
    pub(super) fn new(core: Arc<Core>, sessions: Sessions) -> Self {
        Self { core, sessions }
    }

    /// Exchanges a code for a grant. A code that comes again has been stolen, before or now: what it
    /// gave is revoked (RFC 6749 §4.1.2).
    ///
    /// # Errors
    /// [`IdentityError::InvalidGrant`], [`IdentityError::Database`], [`IdentityError::Randomness`].
    pub(super) async fn redeem(
        &self,
        actor: &Actor,
        client: &Client,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Result<Redeemed, IdentityError> {
        let digest = digest(code.as_bytes());
        let found = self
            .core
            .db
            .read(async |connection| -> Result<_, IdentityError> {
                let Some(code) = store::codes::by_digest(connection, digest).await? else {
                    return Ok(None);
                };
                let user = store::users::by_id(connection, &code.user_id).await?;
                Ok(user.map(|user| (code, user)))
            });
        let found = found.await?.filter(|(code, _)| code.client_id == client.id);
        let (code, user) = found.ok_or(IdentityError::InvalidGrant)?;
        let begin = code.expires_at - CODE_TTL;
        let fits = self.core.now().is_during(begin, code.expires_at)
            && code.redirect_uri == redirect_uri
            && is_verified(&code.challenge, verifier);
        if code.grant_id.is_none() && !fits {
            return Err(IdentityError::InvalidGrant);
        }
        let since = code.authenticated_at;
        let grant = self
            .sessions
            .new_grant(&user.id, Some(&client.id), &code.scopes, since)?;
        let (given, core) = (grant.clone(), &self.core);
        let nonce = code.nonce.clone();
        let redeemed = self
            .core
            .db
            .write(async |transaction| take(transaction, core, actor, code, given).await);
        match redeemed.await? {
            Redemption::Done(user) => Ok(Redeemed { user, grant, nonce }),
            Redemption::Refused => Err(IdentityError::InvalidGrant),
            Redemption::Reused => {
                self.core.put_in_force().await;
                Err(IdentityError::InvalidGrant)
            }
        }
    }
}

async fn take(
    transaction: &Transaction,
    core: &Core,
    actor: &Actor,
    code: Code,
    grant: Grant,
) -> Result<Redemption, DbError> {
    // Removing the client or the user takes this lock too, and so comes before or after.
    store::lock(transaction).await?;
    let user = store::users::by_id(transaction, &code.user_id).await?;
    let Some(user) = user.filter(|user| user.disabled_at.is_none()) else {
        return Ok(Redemption::Refused);
    };
    if store::codes::take(transaction, code.digest.clone(), &grant.id).await? {
        store::grants::insert(transaction, grant).await?;
        return Ok(Redemption::Done(user));
    }
    let code = store::codes::by_digest(transaction, code.digest).await?;
    let Some(given) = code.and_then(|code| code.grant_id) else {
        // Removed in between, with its client or user.
        return Ok(Redemption::Refused);
    };
    store::grants::revoke(transaction, &given, core.now()).await?;
    let reused = Event::denied(Action::CodeReuse, Some(format!("grant:{given}")));
    core.audit.record(transaction, actor, reused).await?;
    Ok(Redemption::Reused)
}

/// Whether the verifier is the one that the challenge was made of (RFC 7636 §4.6).
fn is_verified(challenge: &str, verifier: &str) -> bool {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let well_formed = (43..=128).contains(&verifier.len()) && verifier.bytes().all(is_unreserved);
    let made = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    well_formed && bool::from(made.as_bytes().ct_eq(challenge.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    #[test]
    fn the_verifier_of_the_rfc_fits_its_challenge() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert!(is_verified(challenge, verifier));
        assert!(!is_verified(challenge, challenge));
        assert!(!is_verified(challenge, ""));
        assert!(!is_verified(challenge, &verifier.to_lowercase()));
        assert!(!is_verified(verifier, verifier), "plain is not taken");
    }
}
