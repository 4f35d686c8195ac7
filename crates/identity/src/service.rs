//! How this service meets the composition root.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use auspex_kernel::Authenticate;
use auspex_kernel::audit::Action as _;
use auspex_kernel::caller::Vouch;
use auspex_kernel::config::ConfigError;
use auspex_kernel::files::{give_to_owner_of_folder, narrow};
use auspex_kernel::policy::Policy;
use auspex_kernel::quota::RateLimit;
use auspex_kernel::service::{
    Boxed, Context, Documented, Greeting, Link, Migrations, OpenError, Routes, Running, Service,
    StopSignal, Warning,
};
use parking_lot::Mutex;
use utoipa::openapi::OpenApi;

use crate::{Config, Identity, Secret, http, migration};

/// The first key, in the data folder.
const KEY_FILE: &str = "admin.key";

/// Devices that may begin to wait from one address while one waits, a tenth of those of a client: whoever
/// knows the id of a public client could otherwise take the places of all its users.
const DEVICES_OF_ADDRESS: RateLimit = RateLimit {
    max: 100,
    window_s: 600,
    callers_max: 10_000,
};

const TAGS: [(&str, &str); 3] = [
    ("authentication", "From a name and a password to tokens"),
    ("users", "Who there is, and who one is oneself"),
    ("api-keys", "Credentials of programs"),
];

/// The identity service, open.
pub struct IdentityService {
    identity: Arc<Identity>,
    context: Context,
    /// If this start made it; until it is shown.
    first_key: Mutex<Option<Secret>>,
}

impl Service for IdentityService {
    const NAME: &'static str = "identity";
    const DEFAULTS: &'static str = crate::config::DEFAULTS;
    const ACTIONS: &'static [&'static str] = crate::Action::TEXTS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), ConfigError> {
        config.check()
    }

    fn migrations() -> Option<Migrations> {
        Some(Migrations::of::<migration::Migrator>())
    }

    fn operations() -> OpenApi {
        http::document()
    }

    fn policies() -> Vec<(&'static str, Policy)> {
        let errors_by = |render_error| Policy {
            render_error,
            ..Policy::default()
        };
        let pages = Policy {
            needs_own_host: true,
            ..errors_by(http::render_page)
        };
        let for_clients = |policy| Policy {
            is_for_clients: true,
            ..policy
        };
        let endpoints = errors_by(http::render_error);
        let devices = Policy {
            address_limit: Some(DEVICES_OF_ADDRESS),
            ..for_clients(endpoints)
        };
        let of = |ids: &[&'static str], policy| ids.iter().map(|id| (*id, policy)).collect();
        let all: [Vec<_>; 5] = [
            of(&http::CLIENT_ENDPOINTS, for_clients(endpoints)),
            of(&http::DEVICE_ENDPOINTS, devices),
            of(&http::SERVER_ENDPOINTS, endpoints),
            of(&http::CLIENT_READS, for_clients(Policy::default())),
            of(&http::PAGES, pages),
        ];
        all.concat()
    }

    fn document(_: &Config) -> Result<Documented, OpenError> {
        Ok(documented())
    }

    async fn open(config: Config, context: Context) -> Result<Arc<Self>, OpenError> {
        let Context {
            db, clock, random, ..
        } = context.clone();
        let identity = Identity::open(db, clock, random, config, &context.public_url).await?;
        if let Some(redis) = context.redis.clone() {
            identity.share(redis);
        }
        let file = key_file(&context);
        narrow(&file);
        let first_key = identity
            .keys()
            .bootstrap(move |key| write_key(&file, key))
            .await?;
        identity.signing_keys().tend().await?;
        Ok(Arc::new(Self {
            identity,
            context,
            first_key: Mutex::new(first_key.map(|new| new.secret)),
        }))
    }
}

impl Running for IdentityService {
    fn routes(self: Arc<Self>) -> Routes {
        let router = self.identity.router(self.context.cursors.clone());
        Routes {
            policies: <Self as Service>::policies(),
            ..Routes::new(router, documented())
        }
    }

    fn background(self: Arc<Self>, mut stop: StopSignal) -> Boxed<'static, ()> {
        let identity = self.identity.clone();
        Box::pin(identity.watch(async move { stop.stop_requested().await }))
    }

    fn catch_up(self: Arc<Self>) -> Boxed<'static, ()> {
        Box::pin(async move {
            // What is wrong, the rounds of `watch` log.
            let _ = self.identity.catch_up().await;
        })
    }

    fn warnings(&self) -> Vec<Warning> {
        let pending = self.identity.signing_keys().pending();
        let pending = pending.map(|message| Warning {
            code: "SIGNING_ALGORITHM_PENDING",
            message,
        });
        let first_key = key_file(&self.context).is_file().then(|| Warning {
            code: "ADMIN_KEY_FILE",
            message: format!(
                "the first key, which may do everything, is still in the file {KEY_FILE} of the \
                 data folder; make keys with fewer scopes, then revoke it and remove the file"
            ),
        });
        first_key.into_iter().chain(pending).collect()
    }

    fn links(&self) -> Vec<Link> {
        vec![Link {
            name: "login",
            path: "/oauth2/login",
            title: "Log in",
            text: "See who you are here, where you are logged in and which applications act for you, and end that.",
        }]
    }

    fn greet(&self, greeting: &mut Greeting) {
        let file = key_file(&self.context);
        let shown = file.display();
        let first_key = self.first_key.lock().take();
        let key = match first_key.filter(|_| greeting.is_terminal) {
            Some(key) => format!("{}   (kept in {shown})", key.expose()),
            None if file.is_file() => format!("in {shown}"),
            None => "auspex keys create --name NAME --scope predict".to_owned(),
        };
        greeting.lines.push(("Key", key));
    }

    fn authenticator(self: Arc<Self>) -> Option<Arc<dyn Authenticate>> {
        Some(self.identity.authenticator().clone())
    }

    fn voucher(self: Arc<Self>) -> Option<Arc<dyn Vouch>> {
        Some(self.identity.voucher())
    }
}

fn documented() -> Documented {
    Documented::new(http::document()).with_tags(&TAGS)
}

fn key_file(context: &Context) -> PathBuf {
    context.data_dir.join(KEY_FILE)
}

/// A key file of another database may be the only one there is, for when that comes back.
fn keep_old(path: &Path) -> std::io::Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let old = path.with_extension("key.old");
    std::fs::rename(path, &old)?;
    narrow(&old);
    tracing::warn!(file = %old.display(), "the key file of another database is kept under this name");
    Ok(())
}

fn write_key(path: &Path, key: &Secret) -> std::io::Result<()> {
    let write = || {
        keep_old(path)?;
        let mut file = std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        give_to_owner_of_folder(&file, path);
        writeln!(file, "{}", key.expose())?;
        file.sync_all()
    };
    write().map_err(|error| {
        let text = format!("cannot write the first key to {}: {error}", path.display());
        std::io::Error::new(error.kind(), text)
    })
}
