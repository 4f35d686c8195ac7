//! Who calls, and what they may do: users, API keys, tokens, OAuth 2.0.
//!
//! Every request is answered from memory (`directory`); the database is asked when something is
//! made, changed or listed, and by [`Identity::watch`], which notices what other processes did. What
//! an operation confirms is in force in this process when it returns.
//!
//! The modules are floors, each built on those above it in this list; `tests/it/architecture.rs` of
//! the server keeps it so.
//!
//! This crate never logs a password, key, token or e-mail, and stores of a key its SHA-256 alone.

// What things are, and what can be done with them without knowing the rest.
mod canonical;
mod config;
mod error;
mod issuer;
mod jwt;
mod password;
mod throttle;
mod types;

// The tables.
mod migration;
mod store;

// Who is in force, and what is recorded.
mod audit;
mod directory;

// The one way to change something.
mod core;

// What can be done.
mod api_keys;
mod authenticate;
mod maintenance;
mod oauth;
mod passwords;
mod sessions;
mod signing;
mod tokens;
mod users;
mod vouching;
mod watch;

// How it is asked for.
mod http;

mod service;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use auspex_kernel::caller::Vouch;
use auspex_kernel::db::Db;
use auspex_kernel::idempotency::Idempotency;
use auspex_kernel::redis::Redis;
use auspex_kernel::{Clock, CursorKey, Random, secrets};

pub use api_keys::Keys;
pub use audit::{Action, Actor, Outcome};
pub use authenticate::Authenticator;
pub use config::Config;
pub use error::IdentityError;
pub use maintenance::Maintenance;
pub use oauth::Clients;
pub use password::Password;
pub use service::IdentityService;
pub use sessions::Sessions;
pub use signing::SigningKeys;
pub use types::api_key::{ApiKey, KeyState, NewKey, Secret};
pub use types::client::{Client, ClientChange, ClientDraft, ClientSecret, GrantType, NewClient};
pub use types::role::{Role, RoleSet, UnknownRole};
pub use types::scope::{ClientScopes, UnknownClientScope};
pub use types::user::{Expected, Login, LoginMethod, NewUser, User, UserChange, UserFilter};
pub use users::{NameConflict, Users};

use core::Core;
use http::{Handles, Pages};
use oauth::{
    AuthorizationEndpoint, Devices, IssuedTokens, Own, PageSessions, Seals, TokenEndpoint,
};
use passwords::Passwords;
use throttle::Throttle;
use tokens::Tokens;
use vouching::Voucher;

/// The identity service: its parts, put together.
pub struct Identity {
    core: Arc<Core>,
    authenticator: Arc<Authenticator>,
    voucher: Arc<Voucher>,
    signing_keys: SigningKeys,
    maintenance: Maintenance,
    handles: Handles,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// Brings the tables up to date. Safe to run from several processes at once.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub async fn migrate(db: &Db) -> Result<(), IdentityError> {
        Ok(db.migrate::<migration::Migrator>().await?)
    }

    /// Opens the service on a database whose tables are up to date, and loads who is in force.
    /// `issuer` is the public URL of the server.
    ///
    /// # Errors
    /// [`IdentityError::Database`], [`IdentityError::Randomness`], [`IdentityError::Issuers`].
    pub async fn open(
        db: Db,
        clock: Clock,
        random: Random,
        config: Config,
        issuer: &str,
    ) -> Result<Arc<Self>, IdentityError> {
        let secret = |name| secrets::load_or_create(&db, &clock, &random, name);
        let refresh_secret = secret("identity.refresh").await?;
        let page_secret = secret("identity.oauth").await?;
        let core = Arc::new(Core::open(db, clock.clone(), random).await?);
        let shared = || Arc::clone(&core);

        let tokens = Tokens::new(&core, config.tokens.clone(), issuer, &refresh_secret);
        let tokens = Arc::new(tokens);
        let throttle = Arc::new(Throttle::new(config.throttle));
        let passwords = config.passwords.clone();
        let passwords = Arc::new(Passwords::new(shared(), Arc::clone(&throttle), passwords));
        let authenticator =
            Authenticator::new(&core, &config, Arc::clone(&tokens), Arc::clone(&passwords))?;

        let users = Users::new(shared(), Arc::clone(&passwords));
        let sessions = Sessions::new(
            shared(),
            users.clone(),
            Arc::clone(&passwords),
            Arc::clone(&tokens),
            &config.tokens,
        );
        let clients = Clients::new(shared(), Arc::clone(&throttle));
        let devices = Devices::new(shared(), throttle, sessions.clone(), tokens.issuer());
        let own = Own::new(shared());
        let pages = Pages::new(
            AuthorizationEndpoint::new(shared(), clients.clone(), Arc::clone(&tokens)),
            PageSessions::new(shared(), passwords),
            own.clone(),
            devices.clone(),
            Seals::new(&page_secret, clock),
            tokens.issuer(),
        );
        let signing_keys = SigningKeys::new(shared(), config.tokens);
        Ok(Arc::new(Self {
            authenticator: Arc::new(authenticator),
            voucher: Arc::new(Voucher::new(&core, Arc::clone(&tokens))),
            maintenance: Maintenance::new(shared(), signing_keys.clone(), config.retention),
            signing_keys,
            handles: Handles {
                users,
                keys: Keys::new(shared()),
                clients,
                token_endpoint: TokenEndpoint::new(
                    shared(),
                    Arc::clone(&tokens),
                    sessions.clone(),
                    devices.clone(),
                ),
                issued_tokens: IssuedTokens::new(shared(), Arc::clone(&tokens), sessions.clone()),
                tokens,
                sessions,
                devices,
                pages,
                own,
            },
            core,
        }))
    }

    /// What the edge asks on every request.
    pub fn authenticator(&self) -> &Arc<Authenticator> {
        &self.authenticator
    }

    /// What tells services behind the server who calls.
    pub fn voucher(&self) -> Arc<dyn Vouch> {
        self.voucher.clone()
    }

    /// Users: people, and programs that log in like people.
    pub fn users(&self) -> &Users {
        &self.handles.users
    }

    /// API keys.
    pub fn keys(&self) -> &Keys {
        &self.handles.keys
    }

    /// What logins began, and their tokens.
    pub fn sessions(&self) -> &Sessions {
        &self.handles.sessions
    }

    /// OAuth clients.
    pub fn clients(&self) -> &Clients {
        &self.handles.clients
    }

    /// The keys that sign tokens.
    pub fn signing_keys(&self) -> &SigningKeys {
        &self.signing_keys
    }

    /// What is to be done now and then.
    pub fn maintenance(&self) -> &Maintenance {
        &self.maintenance
    }

    /// From now on other replicas hear of changes at once. Call it before [`Self::watch`].
    pub fn share(&self, redis: Redis) {
        self.core.share(redis);
    }

    /// Every route of this service. `cursors` signs the pages of its lists.
    pub fn router(&self, cursors: CursorKey) -> axum::Router {
        let idempotency = Idempotency::new(self.core.db.clone(), self.core.clock.clone());
        http::router(self.handles.clone(), cursors, idempotency)
    }

    /// Loads what other processes have changed, without waiting for the next round of [`Self::watch`].
    ///
    /// # Errors
    /// [`IdentityError::Database`]; what is known so far stays in force.
    pub async fn catch_up(&self) -> Result<(), IdentityError> {
        self.core.following.catch_up().await
    }

    /// Loads anew who is in force. Only after an error need anybody but [`Self::watch`] call it.
    ///
    /// # Errors
    /// [`IdentityError::Database`]; what is known so far stays in force.
    pub async fn reload(&self) -> Result<(), IdentityError> {
        self.core.following.reload().await
    }

    /// Keeps who is in force up to date until `stop` is ready: a key that another process made or
    /// revoked is known here within about a quarter of a second. Meanwhile does what is to be done
    /// now and then. Run it on the control runtime.
    pub async fn watch(self: Arc<Self>, stop: impl Future<Output = ()>) {
        watch::watch(&self.core, &self.maintenance, stop).await;
    }
}
