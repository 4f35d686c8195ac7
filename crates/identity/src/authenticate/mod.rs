//! Who calls: what the edge asks on every request.
//!
//! A key is looked up. A token or password that was verified lately is remembered; another token is
//! verified on the spot, by keys in memory. Only a password, or a token by a key of another issuer that was
//! not fetched yet, takes more than memory.

mod remembered;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::caller::Verification;
use auspex_kernel::{
    ApiError, Authenticate, Caller, Clock, Control, Credential, Peer, Subject, Timestamp, Verdict,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::audit::Actor;
use crate::config::Config;
use crate::core::Core;
use crate::directory::{Directory, Proof, quota_key};
use crate::error::IdentityError;
use crate::issuer::{Accepted, IssuerVerdict, Issuers};
use crate::jwt::{self, Claims, Refusal};
use crate::password::{Busy, Password};
use crate::passwords::Passwords;
use crate::tokens::{Tokens, token_claims};
use crate::types::api_key::Digest;
use crate::types::role::RoleSet;
use crate::types::user::LoginMethod;
use remembered::{Mark, Remembered};

const REFUSED: &str = "the key or token is unknown, revoked or expired";
/// RFC 7617 sets no limit. Beyond this it is no name with a password.
const BASIC_BYTES_MAX: usize = 4_096;
/// A key that its issuer withdrew is gone after some minutes; what it signed must not be
/// believed much longer.
const FOREIGN_REMEMBERED: Duration = Duration::from_secs(15);
/// What a client is told to wait where the keys of its token's issuer could not be fetched.
const KEYS_AWAITED_S: u64 = 30;
/// Passwords that are being verified at once, the same one counted once.
const VERIFYING_MAX: usize = 10_000;
/// So long a caller waits for others who show the same.
const TURN_MAX: Duration = Duration::from_secs(10);

/// Says who calls.
pub struct Authenticator {
    directory: Arc<Directory>,
    remembered: Remembered,
    clock: Clock,
    control: Control,
    tokens: Arc<Tokens>,
    issuers: Issuers,
    passwords: Arc<Passwords>,
    /// For how long a password is believed without being checked again.
    basic_kept: Duration,
    /// One lock per password that is being verified, for all who show it at the same time.
    verifying: parking_lot::Mutex<HashMap<Shown, Arc<Mutex<LastRefused>>>>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}

impl Authenticate for Authenticator {
    fn authenticate(&self, credential: Credential<'_>, now: Timestamp) -> Verdict {
        let caller = match credential {
            Credential::Token(token) => {
                if let Some(digest) = Digest::of_token(token) {
                    let caller = self.directory.key_caller(&digest, now);
                    return caller.map_or(Verdict::Refused, Verdict::Known);
                }
                if token.len() > jwt::TOKEN_BYTES_MAX {
                    return Verdict::Refused;
                }
                let mark = self.remembered.mark(Credential::Token(token));
                let known = self.remembered.caller(&mark, &self.directory, now);
                match known {
                    Some(caller) => Some(caller),
                    None => return self.verify_token(token, mark, now),
                }
            }
            Credential::Basic(text) if text.len() > BASIC_BYTES_MAX => return Verdict::Refused,
            Credential::Basic(text) => {
                let mark = self.remembered.mark(Credential::Basic(text));
                self.remembered.caller(&mark, &self.directory, now)
            }
        };
        caller.map_or(Verdict::Unverified, Verdict::Known)
    }

    fn verify(self: Arc<Self>, credential: Credential<'_>, peer: IpAddr) -> Verification {
        let control = self.control.clone();
        // Taken along, because the work goes on where nobody waits for it any more.
        let (is_basic, text) = match credential {
            Credential::Basic(text) => (true, text),
            Credential::Token(text) => (false, text),
        };
        let text = Zeroizing::new(text.to_vec());
        let verified = async move {
            match is_basic {
                true => self.verify_basic(&text, peer).await,
                false => self.verify_foreign(&text).await,
            }
        };
        Box::pin(async move { control.run(verified).await? })
    }

    fn is_origin_of_client(&self, origin: &str) -> bool {
        self.directory.is_origin_of_client(origin)
    }
}

impl Authenticator {
    /// # Errors
    /// [`IdentityError::Issuers`], [`IdentityError::Randomness`].
    pub(crate) fn new(
        core: &Core,
        config: &Config,
        tokens: Arc<Tokens>,
        passwords: Arc<Passwords>,
    ) -> Result<Self, IdentityError> {
        let issuers = Issuers::new(config.issuers.clone(), core.clock.clone());
        Ok(Self {
            directory: Arc::clone(&core.directory),
            remembered: Remembered::new(config.verified_max, &core.random)?,
            clock: core.clock.clone(),
            control: core.db.control().clone(),
            tokens,
            issuers: issuers.map_err(IdentityError::Issuers)?,
            passwords,
            basic_kept: Duration::from_secs(config.basic_cache_s.into()),
            verifying: parking_lot::Mutex::default(),
        })
    }

    /// Verifies a token that is not remembered.
    fn verify_token(&self, token: &[u8], mark: Mark, now: Timestamp) -> Verdict {
        let read = match jwt::read(token) {
            Ok(read) => read,
            Err(refusal) => return refused(&refusal),
        };
        let ours = read
            .kid()
            .is_some_and(|kid| self.directory.signing_keys().verifying(kid).is_some());
        let (proof, until) = if ours {
            match self.tokens.verify_access_token(&read, now) {
                Ok(claims) => {
                    let token_claims = token_claims(&read, &claims);
                    let until = token_claims.expires_at;
                    (Proof::Token(token_claims), until)
                }
                Err(refusal) => return refused(&refusal),
            }
        } else {
            match self.issuers.verify(&read, now) {
                IssuerVerdict::Accepted(accepted) => {
                    let caller = foreign_caller(&accepted);
                    let until = caller.expires_at.unwrap_or(now);
                    let until = until.min(now + FOREIGN_REMEMBERED);
                    (Proof::Foreign(Arc::new(caller)), until)
                }
                // No fault of the token; `verify` says so.
                IssuerVerdict::Refused(Refusal::KeysUnavailable) | IssuerVerdict::NeedsKeys(_) => {
                    return Verdict::Unverified;
                }
                IssuerVerdict::Refused(refusal) => return refused(&refusal),
            }
        };
        let caller = self
            .remembered
            .keep(mark, proof, until, &self.directory, now);
        caller.map_or(Verdict::Refused, Verdict::Known)
    }

    /// Verifies a token after its issuer's keys were fetched.
    async fn verify_foreign(&self, token: &[u8]) -> Result<Arc<Caller>, ApiError> {
        let refused = || ApiError::unauthenticated(REFUSED);
        let now = self.clock.now();
        let read = jwt::read(token).map_err(|_| refused())?;
        // Keys that were fetched for somebody else meanwhile do as well.
        match self.issuers.verify_or_fetch(&read, now).await {
            Ok(_) => {}
            Err(refusal @ Refusal::KeysUnavailable) => {
                return Err(ApiError::unavailable(refusal.to_string(), KEYS_AWAITED_S));
            }
            Err(refusal) => {
                tracing::debug!(%refusal, "a token was refused");
                return Err(refused());
            }
        }
        match self.verify_token(token, self.remembered.mark(Credential::Token(token)), now) {
            Verdict::Known(caller) => Ok(caller),
            Verdict::Refused | Verdict::Unverified => Err(refused()),
        }
    }

    /// Checks a name and a password. Of callers at one address who show the same at once one hashes
    /// and the others wait for its result.
    async fn verify_basic(&self, text: &[u8], peer: IpAddr) -> Result<Arc<Caller>, ApiError> {
        let wrong = || IdentityError::InvalidCredentials;
        let (name, password) = name_and_password(text).ok_or_else(wrong)?;
        let mark = self.remembered.mark(Credential::Basic(text));
        let shown_at = Instant::now();
        let verifying = Verifying::begin(self, (mark, peer))?;
        let busy = |_| IdentityError::Busy(Busy);
        let turn = tokio::time::timeout(TURN_MAX, verifying.turn.lock());
        let mut refused = turn.await.map_err(busy)?;
        let now = self.clock.now();
        if let Some(caller) = self.remembered.caller(&mark, &self.directory, now) {
            return Ok(caller);
        }
        let actor = Actor::anonymous(Peer(peer), None);
        let method = LoginMethod::Basic;
        // It was checked for somebody else since it was shown here.
        if refused.is_some_and(|began| began >= shown_at) {
            drop(refused);
            let told = self.passwords.refuse_again(&actor, method, shown_at);
            return Err(told.await.into());
        }
        let began = Instant::now();
        let logged_in = self.passwords.log_in(&actor, &name, &password, method);
        let logged_in = logged_in.await;
        if let Err(IdentityError::InvalidCredentials | IdentityError::TooManyAttempts(_)) =
            &logged_in
        {
            *refused = Some(began);
        }
        let (user, password_mark) = logged_in?;
        let proof = Proof::Password {
            user_id: user.id,
            mark: password_mark,
        };
        let now = self.clock.now();
        let caller = self
            .remembered
            .keep(mark, proof, now + self.basic_kept, &self.directory, now);
        Ok(caller.ok_or_else(wrong)?)
    }
}

/// A credential and where it is shown: what is refused at one address may be right at another.
type Shown = (Mark, IpAddr);

/// When the last check that ended in a refusal began.
type LastRefused = Option<Instant>;

/// A credential that is being verified, for all at an address who show it at once.
struct Verifying<'a> {
    authenticator: &'a Authenticator,
    shown: Shown,
    turn: Arc<Mutex<LastRefused>>,
}

impl<'a> Verifying<'a> {
    fn begin(authenticator: &'a Authenticator, shown: Shown) -> Result<Self, IdentityError> {
        let mut verifying = authenticator.verifying.lock();
        if verifying.len() >= VERIFYING_MAX && !verifying.contains_key(&shown) {
            return Err(IdentityError::Busy(Busy));
        }
        let turn = Arc::clone(verifying.entry(shown).or_default());
        Ok(Self {
            authenticator,
            shown,
            turn,
        })
    }
}

/// The last one takes the entry away. Copies are made and counted under the lock of the map alone,
/// or two who leave at once could each leave it to the other, for ever.
impl Drop for Verifying<'_> {
    fn drop(&mut self) {
        let mut verifying = self.authenticator.verifying.lock();
        let ours = std::mem::take(&mut self.turn);
        // One of these two is in the map.
        if Arc::strong_count(&ours) <= 2 {
            verifying.remove(&self.shown);
        }
        drop(ours);
    }
}

/// A caller whom another issuer vouches for: the scopes of their roles here, cut down to those of the
/// token where the issuer says any.
fn foreign_caller(accepted: &Accepted) -> Caller {
    let roles = accepted.roles.iter().filter_map(|role| role.parse().ok());
    let mut scopes = roles.collect::<RoleSet>().scopes();
    if let Some(named) = &accepted.claims.scope {
        let words = named.split_ascii_whitespace();
        scopes = scopes.intersection(words.filter_map(|word| word.parse().ok()).collect());
    }
    // One name at two issuers is two callers. It may be an e-mail address, which no log may show.
    let Claims { iss, sub, .. } = &accepted.claims;
    let digest = Digest::of(format!("{iss}\0{sub}").as_bytes());
    let name = URL_SAFE_NO_PAD.encode(&digest.as_array()[..16]);
    let subject = Subject::External(name);
    Caller {
        quota_key: quota_key(&subject),
        subject,
        scopes,
        expires_at: Some(Timestamp::from_unix_seconds(accepted.claims.exp)),
        user_id: None,
        session_id: None,
        client_id: None,
    }
}

fn refused(refusal: &Refusal) -> Verdict {
    tracing::debug!(%refusal, "a token was refused");
    Verdict::Refused
}

/// RFC 7617: base64 of the name, a colon, and the password, in UTF-8.
fn name_and_password(text: &[u8]) -> Option<(String, Password)> {
    let decoded = Zeroizing::new(STANDARD.decode(text).ok()?);
    let (name, password) = str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((name.to_owned(), password.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_read_or_refused() {
        let read = |text: &str| {
            let (name, password) = name_and_password(STANDARD.encode(text).as_bytes())?;
            Some((name, String::from_utf8(password.bytes().to_vec()).unwrap()))
        };
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(read("ann:pass word"), pair("ann", "pass word"));
        assert_eq!(read("ann:a:b"), pair("ann", "a:b"));
        assert_eq!(read("é:ü"), pair("é", "ü"));
        assert_eq!(read(":"), pair("", ""));
        assert_eq!(read("ann"), None);
        assert!(name_and_password(b"****").is_none());
        assert!(name_and_password(STANDARD.encode([0xff, b':', b'x']).as_bytes()).is_none());
    }
}
