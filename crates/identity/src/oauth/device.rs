//! The device grant (RFC 8628): a program without a browser shows a code, somebody enters it in theirs
//! and agrees, and the program, which has asked for it all the while, gets its tokens.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::db::{DbError, Transaction};
use auspex_kernel::id::UserId;
use serde::Serialize;
use utoipa::ToSchema;

use super::code::Redeemed;
use super::exchange::TokenError;
use super::parameters::Parameters;
use super::session::LoginSession;
use crate::audit::{Action, Actor, Event};
use crate::core::Core;
use crate::error::IdentityError;
use crate::sessions::Sessions;
use crate::store;
use crate::throttle::Throttle;
use crate::types::client::{Client, GrantType, digest, random_text};
use crate::types::grant::{Decision, Device, Grant};
use crate::types::scope::ClientScopes;
use crate::types::user::User;
use crate::types::user_code::UserCode;

const DEVICE_TTL: Duration = Duration::from_mins(10);
/// What a device waits before it asks again, and by how much more after it was too fast.
const INTERVAL_S: i64 = 5;
/// The most that wait for somebody at a time, of one client and of all.
const WAITING_OF_CLIENT_MAX: u64 = 1_000;
const WAITING_MAX: u64 = 10_000;
/// So many user codes are drawn to find one that no other device has; the first nearly always is.
const DRAWS_MAX: usize = 10;

/// What a device is told (RFC 8628 §3.2).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceAuthorization {
    /// To ask the token endpoint with. A secret
    device_code: String,
    /// To show to the user
    #[schema(example = "WDJB-MJHT")]
    user_code: String,
    /// Where they enter it
    verification_uri: String,
    /// The same with the code, as for a QR code
    verification_uri_complete: String,
    /// Seconds
    expires_in: u64,
    /// Seconds to wait between two questions
    interval: i64,
}

/// A device that somebody is to decide about.
#[derive(Debug)]
pub(crate) struct WaitingDevice {
    pub(crate) client: Client,
    pub(crate) user_code: UserCode,
    /// What this person can let it have.
    pub(crate) offered: ClientScopes,
    /// What else it asks for.
    pub(crate) lacking: ClientScopes,
}

/// Devices and those who let them act.
#[derive(Clone)]
pub(crate) struct Devices {
    core: Arc<Core>,
    throttle: Arc<Throttle>,
    sessions: Sessions,
    /// Of the page, without a code.
    page: Arc<str>,
}

impl Devices {
    /// `issuer` is the public URL, without a slash at its end.
    pub(crate) fn new(
        core: Arc<Core>,
        throttle: Arc<Throttle>,
        sessions: Sessions,
        issuer: &str,
    ) -> Self {
        Self {
            core,
            throttle,
            sessions,
            page: format!("{issuer}/oauth2/device").into(),
        }
    }

    /// Begins to wait for somebody.
    ///
    /// # Errors
    /// Those of RFC 8628 §3.2, [`IdentityError::TooManyDevices`].
    pub(crate) async fn begin(
        &self,
        client: &Client,
        parameters: &Parameters,
    ) -> Result<DeviceAuthorization, TokenError> {
        if !client.may(GrantType::DeviceCode) {
            let description = "the client is not registered for device codes";
            return Err(TokenError::Refused("unauthorized_client", description));
        }
        let scopes = client.scopes.asked(parameters.get("scope"))?;
        let text = random_text(&self.core.random).map_err(IdentityError::from)?;
        let user_code = self.add(client, scopes, digest(text.as_bytes())).await?;
        Ok(DeviceAuthorization {
            device_code: text,
            verification_uri: self.page.to_string(),
            verification_uri_complete: format!("{}?user_code={user_code}", self.page),
            user_code: user_code.to_string(),
            expires_in: DEVICE_TTL.as_secs(),
            interval: INTERVAL_S,
        })
    }

    async fn add(
        &self,
        client: &Client,
        scopes: ClientScopes,
        digest: Vec<u8>,
    ) -> Result<UserCode, IdentityError> {
        let now = self.core.now();
        let until = now + DEVICE_TTL;
        let added = self
            .core
            .db
            .write(async |transaction| -> Result<_, IdentityError> {
                // Removing the client or one of its scopes takes it too, and so comes before or after;
                // and without it more could be added than may wait.
                store::lock(transaction).await?;
                let known = store::clients::by_id(transaction, &client.id).await?;
                if !known.is_some_and(|known| known.scopes.contains_all(scopes)) {
                    return Err(IdentityError::InvalidGrant);
                }
                let of_client = Some(&client.id);
                if store::devices::count(transaction, of_client, now, until).await?
                    >= WAITING_OF_CLIENT_MAX
                    || store::devices::count(transaction, None, now, until).await? >= WAITING_MAX
                {
                    return Err(IdentityError::TooManyDevices);
                }
                let user_code = self.draw_user_code(transaction).await?;
                let device = Device {
                    digest,
                    user_code: user_code.clone(),
                    client_id: client.id.clone(),
                    scopes: scopes.to_string(),
                    expires_at: until,
                    interval_s: INTERVAL_S,
                    polled_at: None,
                    decision: None,
                };
                store::devices::insert(transaction, device).await?;
                Ok(user_code)
            });
        added.await
    }

    /// A user code that no other device has.
    async fn draw_user_code(&self, transaction: &Transaction) -> Result<UserCode, IdentityError> {
        for _ in 0..DRAWS_MAX {
            let code = UserCode::random(&self.core.random)?;
            if store::devices::by_user_code(transaction, &code)
                .await?
                .is_none()
            {
                return Ok(code);
            }
        }
        Err(IdentityError::TooManyDevices)
    }

    /// The waiting device with this code, for the person at the browser to decide about. Codes that
    /// are wrong count as guesses: for the user, who can make only so many, and like wrong passwords
    /// for the address.
    ///
    /// # Errors
    /// [`IdentityError::TooManyAttempts`], [`IdentityError::Database`].
    pub(crate) async fn find(
        &self,
        actor: &Actor,
        session: &LoginSession,
        user_code: &UserCode,
    ) -> Result<Option<WaitingDevice>, IdentityError> {
        let (user, begun) = (&session.user, self.core.clock.steady());
        self.throttle.guess(user.id.as_str(), begun)?;
        let now = self.core.now();
        let found = self
            .core
            .db
            .read(async |connection| -> Result<_, IdentityError> {
                let device = store::devices::by_user_code(connection, user_code).await?;
                let Some(device) = device.filter(|device| is_waiting(device, now)) else {
                    return Ok(None);
                };
                let client = store::clients::by_id(connection, &device.client_id).await?;
                Ok(client.map(|client| (client, device)))
            });
        let Some((client, device)) = found.await? else {
            let actor = actor.as_user(&user.id, user.roles.scopes());
            let denied = Event::denied(Action::DeviceGuess, Some(format!("user:{}", user.id)));
            self.core.audit.refuse(&actor, denied).await?;
            if let Some(address) = actor.address {
                self.throttle.failed(address, begun)?;
            }
            return Ok(None);
        };
        self.throttle.guessed(user.id.as_str(), begun);
        let (offered, asked) = (
            offered(&device, user),
            ClientScopes::from_stored(&device.scopes),
        );
        Ok(Some(WaitingDevice {
            client,
            user_code: device.user_code,
            offered,
            lacking: asked.without(offered),
        }))
    }

    /// Carries out what the person decided on the scopes that they were shown. The same again is
    /// [`Decided::Over`].
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn decide(
        &self,
        actor: &Actor,
        session: &LoginSession,
        user_code: &UserCode,
        shown: &str,
        allowed: bool,
    ) -> Result<Decided, IdentityError> {
        let user = &session.user;
        let actor = actor.as_user(&user.id, user.roles.scopes());
        let (now, shown) = (self.core.now(), ClientScopes::from_stored(shown));
        let written = self
            .core
            .db
            .write(async |transaction| -> Result<_, DbError> {
                // What ends a session removes its devices as well; none must be allowed after that.
                store::lock(transaction).await?;
                let device = store::devices::by_user_code(transaction, user_code).await?;
                let Some(device) = device.filter(|device| is_waiting(device, now)) else {
                    return Ok(Decided::Over);
                };
                if !session.holds(transaction, now).await? {
                    return Ok(Decided::Over);
                }
                let scopes = offered(&device, user).intersection(shown);
                let allowed = allowed && !scopes.is_empty();
                let target = format!("client:{}", device.client_id);
                let (decided, decision, event) = match allowed {
                    true => (
                        Decided::Allowed,
                        Decision::Allowed {
                            user_id: user.id.clone(),
                            authenticated_at: session.authenticated_at,
                        },
                        Event::new(Action::ConsentGrant, target),
                    ),
                    false => (
                        Decided::Denied,
                        Decision::Denied,
                        Event::denied(Action::ConsentDeny, Some(target)),
                    ),
                };
                let event = event.with(format!("on a device: {scopes}"));
                self.core.audit.record(transaction, &actor, event).await?;
                let scopes = scopes.to_string();
                store::devices::decide(transaction, device.digest, scopes, decision).await?;
                Ok(decided)
            });
        Ok(written.await?)
    }

    /// Exchanges a device code for a grant, once somebody has allowed it.
    ///
    /// # Errors
    /// Those of RFC 8628 §3.5.
    pub(super) async fn redeem(
        &self,
        client: &Client,
        device_code: &str,
    ) -> Result<Redeemed, TokenError> {
        let digest = digest(device_code.as_bytes());
        let found = self
            .core
            .db
            .read(async |connection| store::devices::by_digest(connection, digest).await);
        let found = found.await.map_err(IdentityError::from)?;
        let device = found.filter(|device| device.client_id == client.id);
        let device = device.ok_or(IdentityError::InvalidGrant)?;
        if !is_in_time(&device, self.core.now()) {
            let description = "nobody allowed it in time; begin again";
            return Err(TokenError::Refused("expired_token", description));
        }
        match &device.decision {
            None => Err(self.pace(device).await?),
            Some(Decision::Denied) => {
                let description = "the user did not agree";
                Err(TokenError::Refused("access_denied", description))
            }
            Some(Decision::Allowed {
                user_id,
                authenticated_at,
            }) => {
                let (user_id, since) = (user_id.clone(), *authenticated_at);
                Ok(self.take(client, device, user_id, since).await?)
            }
        }
    }

    /// What a device is told that waits: to go on, or to go on more slowly.
    async fn pace(&self, device: Device) -> Result<TokenError, IdentityError> {
        let now = self.core.now();
        let wait = Duration::from_secs(device.interval_s.unsigned_abs());
        let is_early = |polled_at: Timestamp| now < polled_at + wait && polled_at <= now;
        let (refusal, interval_s) = match device.polled_at.is_some_and(is_early) {
            false => {
                let description = "the user has not decided yet";
                let pending = TokenError::Refused("authorization_pending", description);
                (pending, device.interval_s)
            }
            true => {
                let description = "wait 5 seconds longer from now on before you ask again";
                let slower = TokenError::Refused("slow_down", description);
                (slower, device.interval_s + INTERVAL_S)
            }
        };
        let noted = self.core.db.write(async |transaction| {
            store::devices::set_polled(transaction, device.digest, now, interval_s).await
        });
        noted.await?;
        Ok(refusal)
    }

    async fn take(
        &self,
        client: &Client,
        device: Device,
        user_id: UserId,
        since: Timestamp,
    ) -> Result<Redeemed, IdentityError> {
        let grant = self
            .sessions
            .new_grant(&user_id, Some(&client.id), &device.scopes, since)?;
        let given = grant.clone();
        let taken = self
            .core
            .db
            .write(async |transaction| take(transaction, device.digest, given).await);
        let user = taken.await?.ok_or(IdentityError::InvalidGrant)?;
        Ok(Redeemed {
            user,
            grant,
            nonce: None,
        })
    }
}

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decided {
    Allowed,
    Denied,
    /// The device no longer waits for it, or the login has changed.
    Over,
}

/// Makes a device a grant. Its user, in their present state, if it was there and they still may.
async fn take(
    transaction: &Transaction,
    digest: Vec<u8>,
    grant: Grant,
) -> Result<Option<User>, DbError> {
    // Removing the client or the user takes this lock too, and so comes before or after.
    store::lock(transaction).await?;
    let user = store::users::by_id(transaction, &grant.user_id).await?;
    let user = user.filter(|user| user.disabled_at.is_none());
    if user.is_some() && store::devices::take(transaction, digest).await? {
        store::grants::insert(transaction, grant).await?;
        return Ok(user);
    }
    Ok(None)
}

fn is_in_time(device: &Device, now: Timestamp) -> bool {
    now.is_during(device.expires_at - DEVICE_TTL, device.expires_at)
}

fn is_waiting(device: &Device, now: Timestamp) -> bool {
    device.decision.is_none() && is_in_time(device, now)
}

/// What this person can let it have. What its client loses, its devices do not survive.
fn offered(device: &Device, user: &User) -> ClientScopes {
    let own = ClientScopes::of_user(user.roles.scopes());
    ClientScopes::from_stored(&device.scopes).intersection(own)
}
