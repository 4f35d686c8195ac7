//! The settings of the whole program, typed: those of the server, and one field for each service.
//! `settings.rs` reads them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use auspex_kernel::Random;
use auspex_kernel::config::ConfigError;
use auspex_kernel::db::{Limits, check_sqlite_file, check_url, sqlite_file};
use auspex_kernel::files::Obstacle;
use auspex_kernel::quota::RateLimit;
use auspex_kernel::redis::RedisConfig;
use http::HeaderValue;
use serde::Deserialize;

use crate::address;
use crate::edge::{CorsConfig, ForwardedHeader, Proxies, check_names};
use crate::{roles, telemetry, tls};

/// Descriptors beside those of connections: database, log, listener, runtime.
const SPARE_DESCRIPTORS: u64 = 256;
const YEAR_S: u32 = 31_536_000;
/// More threads than any machine has cores for.
const WORKERS_MAX: usize = 1024;
/// Longer than anything should take to see that a server is not ready.
const SHUTDOWN_DELAY_MS_MAX: u64 = 300_000;
const INSTANCE_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) storage: Storage,
    pub(crate) redis: RedisConfig,
    pub(crate) cluster: roles::Cluster,
    pub(crate) telemetry: telemetry::Config,
    pub(crate) inference: auspex_inference::Config,
    pub(crate) identity: auspex_identity::Config,
    pub(crate) dialogues: auspex_dialogues::Config,
    pub(crate) gateway: auspex_gateway::Config,
    pub(crate) jobs: auspex_jobs::Config,
    #[cfg(test)]
    pub(crate) sample: crate::services::sample::Config,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    pub(crate) roles: Vec<String>,
    #[serde(deserialize_with = "address::listen")]
    pub(crate) listen: SocketAddr,
    pub(crate) public_url: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) data_dir: PathBuf,
    pub(crate) instance: String,
    pub(crate) instance_header: bool,
    pub(crate) workers: usize,
    pub(crate) docs: bool,
    pub(crate) connections_max: usize,
    pub(crate) head_bytes_max: usize,
    pub(crate) head_timeout_ms: u64,
    pub(crate) idle_timeout_ms: u64,
    pub(crate) body_bytes_max: usize,
    pub(crate) bodies_bytes_max: usize,
    pub(crate) body_timeout_ms: u64,
    pub(crate) request_timeout_ms: u64,
    pub(crate) shutdown_delay_ms: u64,
    pub(crate) linger_timeout_ms: u64,
    pub(crate) drain_timeout_ms: u64,
    pub(crate) http2_streams_max: u32,
    pub(crate) rate_limit: RateLimit,
    pub(crate) address_limit: RateLimit,
    pub(crate) metrics: Metrics,
    pub(crate) tls: tls::Config,
    pub(crate) cors: CorsConfig,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) forwarded_header: ForwardedHeader,
    pub(crate) proxy_protocol: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metrics {
    pub(crate) public: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Storage {
    pub(crate) url: String,
    pub(crate) call_timeout_ms: u64,
    pub(crate) connections_max: u32,
    pub(crate) services: StorageOfServices,
    pub(crate) standbys: Standbys,
}

/// `[storage.standbys]`: databases of PostgreSQL that answer lists.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Standbys {
    main: String,
    jobs: String,
}

/// `[storage.services]`: databases of services that have one of their own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StorageOfServices {
    dialogues: String,
    gateway: String,
    jobs: String,
}

impl StorageOfServices {
    fn all(&self) -> [(&'static str, &str); 3] {
        [
            ("dialogues", &self.dialogues),
            ("gateway", &self.gateway),
            ("jobs", &self.jobs),
        ]
    }
}

impl Config {
    /// What types alone cannot say about the server's own settings.
    pub(crate) fn check_own(&self) -> Result<(), ConfigError> {
        self.server.check()?;
        self.storage.check()?;
        self.check_standbys()?;
        self.redis.check()?;
        roles::check(self)?;
        self.telemetry.check()
    }

    /// That standbys are of PostgreSQL, and of a database that is there.
    fn check_standbys(&self) -> Result<(), ConfigError> {
        let Standbys { main, jobs } = &self.storage.standbys;
        let main_url = self.storage_url();
        let of_jobs = self.storage_url_of("jobs");
        if !jobs.is_empty() && of_jobs.is_none() {
            let reason = "needs storage.services.jobs; without that storage.standbys.main answers the lists of jobs too";
            return Err(ConfigError::wrong("storage.standbys.jobs", reason));
        }
        let standbys = [
            ("storage.standbys.main", main, main_url.as_str()),
            ("storage.standbys.jobs", jobs, of_jobs.unwrap_or_default()),
        ];
        for (key, url, of) in standbys.into_iter().filter(|(_, url, _)| !url.is_empty()) {
            let used = check_url(url);
            used.map_err(|error| ConfigError::wrong(key, format!("cannot be used: {error}")))?;
            if sqlite_file(url).or_else(|| sqlite_file(of)).is_some() {
                return Err(ConfigError::wrong(
                    key,
                    "needs PostgreSQL, as standby and as database",
                ));
            }
        }
        Ok(())
    }

    /// The database of all services that have none of their own.
    pub(crate) fn storage_url(&self) -> String {
        match self.storage.url.as_str() {
            "" => format!(
                "sqlite:{}",
                self.server.data_dir.join("auspex.db").display()
            ),
            url => url.to_owned(),
        }
    }

    /// The database of a service, if it has one apart from that of all.
    pub(crate) fn storage_url_of(&self, service: &str) -> Option<&str> {
        let urls = self.storage.services.all();
        let (_, url) = urls.into_iter().find(|(name, _)| *name == service)?;
        (!url.is_empty() && url != self.storage_url()).then_some(url)
    }

    /// The services that may have a database apart.
    pub(crate) fn may_be_apart(&self) -> [&'static str; 3] {
        self.storage.services.all().map(|(name, _)| name)
    }

    /// What a database may be asked for.
    pub(crate) fn database_limits(&self) -> Limits {
        Limits {
            call_timeout: ms(self.storage.call_timeout_ms),
            connections_max: self.storage.connections_max,
        }
    }

    /// The standby that answers the lists of the database of all.
    pub(crate) fn standby_url(&self) -> Option<&str> {
        Some(self.storage.standbys.main.as_str()).filter(|url| !url.is_empty())
    }

    /// The standby that answers the lists of a service whose database is its own.
    pub(crate) fn standby_url_of(&self, service: &str) -> Option<&str> {
        let url = Some(self.storage.standbys.jobs.as_str());
        url.filter(|url| service == "jobs" && !url.is_empty())
    }

    /// Whether the data folder and the SQLite file can be made or used, as far as can be told without
    /// doing it.
    pub(crate) fn check_own_surroundings(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str| {
            let key = key.to_owned();
            move |reason| ConfigError::wrong(&key, reason)
        };
        if self.server.tls.is_on() {
            self.server.tls.load()?;
        }
        check_folder(&self.server.data_dir).map_err(wrong("server.data_dir"))?;
        let Some(file) = sqlite_file(&self.storage_url()) else {
            return Ok(());
        };
        let key = match self.storage.url.is_empty() {
            true => "server.data_dir",
            false => "storage.url",
        };
        check_sqlite_file(&file)
            .map_err(|error| error.to_string())
            .map_err(wrong(key))?;
        if let Some(obstacle) = Obstacle::to_writing(&file) {
            return Err(wrong(key)(format!(
                "names a file that cannot be used: {obstacle}"
            )));
        }
        check_folder(file.parent().unwrap_or(&file)).map_err(wrong(key))
    }

    /// The absolute URL under which clients reach the server.
    pub(crate) fn public_url(&self) -> String {
        match self.server.public_url.as_str() {
            "" if self.server.tls.is_on() => format!("https://{}", self.server.listen),
            "" => format!("http://{}", self.server.listen),
            url => url.trim_end_matches('/').to_owned(),
        }
    }

    /// The limit of open files that `connections_max` needs. What the gateway passes on takes two.
    pub(crate) fn descriptors_wanted(&self) -> u64 {
        let each = if self.gateway.routes.is_empty() { 1 } else { 2 };
        self.server.connections_max as u64 * each + SPARE_DESCRIPTORS
    }

    /// For how long browsers are told to come by https alone, if it is so.
    pub(crate) fn hsts_max_age_s(&self) -> u32 {
        match (self.server.tls.is_on(), self.public_url()) {
            (true, _) => self.server.tls.hsts_max_age_s,
            // Whoever ends TLS in front of it leaves that to the server.
            (false, url) if url.starts_with("https://") => YEAR_S,
            (false, _) => 0,
        }
    }

    /// `host[:port]` of the public URL, as a `Host` header names it.
    pub(crate) fn public_authority(&self) -> String {
        let url = self.public_url();
        let authority = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        authority.split('/').next().unwrap_or_default().to_owned()
    }
}

impl Server {
    /// Who is believed about the addresses of clients.
    pub(crate) fn proxies(&self) -> Result<Proxies, ConfigError> {
        let proxies = Proxies::new(&self.trusted_proxies, self.forwarded_header)
            .map_err(|reason| ConfigError::wrong("server.trusted_proxies", reason))?;
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            let reason = "needs server.trusted_proxies, which says whose connections begin with it";
            return Err(ConfigError::wrong("server.proxy_protocol", reason));
        }
        Ok(proxies.announcing(self.proxy_protocol))
    }

    /// What this server is called: as the settings say, or by a name of its own from now until it ends. A
    /// host name would tell clients more of the network than they need.
    pub(crate) fn name_instance(&mut self, random: &Random) -> Result<(), String> {
        if self.instance.is_empty() {
            let bytes = random.bytes::<4>().map_err(|error| error.to_string())?;
            self.instance = format!("{:08x}", u32::from_be_bytes(bytes));
        }
        Ok(())
    }

    /// What answers say of it.
    pub(crate) fn instance_header(&self) -> Option<HeaderValue> {
        let is_said = self.instance_header && !self.instance.is_empty();
        let value = || HeaderValue::try_from(&self.instance).expect("checked to be ASCII");
        is_said.then(value)
    }

    fn check_instance(&self) -> Result<(), ConfigError> {
        let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if self.instance.len() <= INSTANCE_BYTES_MAX && self.instance.bytes().all(is_usual) {
            return Ok(());
        }
        let reason = format!("must be at most {INSTANCE_BYTES_MAX} of A-Z a-z 0-9 - . _");
        Err(ConfigError::wrong("server.instance", reason))
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.check_instance()?;
        if self.shutdown_delay_ms > SHUTDOWN_DELAY_MS_MAX {
            let reason = "must be at most 300,000";
            return Err(ConfigError::wrong("server.shutdown_delay_ms", reason));
        }
        if !self.public_url.is_empty() {
            address::check_public_url(&self.public_url)
                .map_err(|reason| ConfigError::wrong("server.public_url", reason))?;
        }
        if self.tls.is_on() && self.public_url.starts_with("http://") {
            let reason = "must begin with https://, for server.tls is set";
            return Err(ConfigError::wrong("server.public_url", reason));
        }
        self.tls.check()?;
        if self.workers > WORKERS_MAX {
            let reason = format!("must be at most {WORKERS_MAX}; 0 is one per core");
            return Err(ConfigError::wrong("server.workers", reason));
        }
        if self.body_bytes_max > self.bodies_bytes_max {
            let reason =
                "must be at least server.body_bytes_max, or the longest body would never be let in";
            return Err(ConfigError::wrong("server.bodies_bytes_max", reason));
        }
        if self.head_bytes_max < 8192 {
            let reason = "must be at least 8192";
            return Err(ConfigError::wrong("server.head_bytes_max", reason));
        }
        if self.data_dir.as_os_str().is_empty() {
            let reason = "must name a folder";
            return Err(ConfigError::wrong("server.data_dir", reason));
        }
        if self.data_dir.starts_with("~") {
            let reason = "is taken as it is, where ~ is no home folder; write that out";
            return Err(ConfigError::wrong("server.data_dir", reason));
        }
        for (key, value) in [
            ("server.connections_max", self.connections_max as u64),
            ("server.bodies_bytes_max", self.bodies_bytes_max as u64),
            ("server.body_bytes_max", self.body_bytes_max as u64),
            ("server.head_timeout_ms", self.head_timeout_ms),
            ("server.idle_timeout_ms", self.idle_timeout_ms),
            ("server.body_timeout_ms", self.body_timeout_ms),
            ("server.request_timeout_ms", self.request_timeout_ms),
            ("server.http2_streams_max", self.http2_streams_max.into()),
        ] {
            if value == 0 {
                return Err(ConfigError::wrong(key, "must be at least 1"));
            }
        }
        self.rate_limit.check("server.rate_limit")?;
        self.address_limit.check("server.address_limit")?;
        self.proxies()?;
        check_names("server.hosts", &self.hosts)?;
        self.cors.check("server.cors")
    }
}

impl Storage {
    fn check(&self) -> Result<(), ConfigError> {
        let of_services = self.services.all();
        let of_services = of_services.map(|(name, url)| (format!("storage.services.{name}"), url));
        let urls = std::iter::once(("storage.url".to_owned(), self.url.as_str()));
        for (key, url) in urls.chain(of_services).filter(|(_, url)| !url.is_empty()) {
            check_url(url)
                .map_err(|error| ConfigError::wrong(&key, format!("cannot be used: {error}")))?;
        }
        if !(100..=60_000).contains(&self.call_timeout_ms) {
            let reason = "must be between 100 and 60,000";
            return Err(ConfigError::wrong("storage.call_timeout_ms", reason));
        }
        if !(2..=1_000).contains(&self.connections_max) {
            let reason = "must be between 2 and 1,000";
            return Err(ConfigError::wrong("storage.connections_max", reason));
        }
        Ok(())
    }
}

/// Whether files can be made in a folder, or the folder itself.
fn check_folder(folder: &Path) -> Result<(), String> {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let Some(there) = folder.ancestors().find(|folder| folder.exists()) else {
        return Ok(());
    };
    match Obstacle::to_writing(there) {
        Some(obstacle) => Err(format!("names a folder that cannot be used: {obstacle}")),
        None if there.is_dir() => Ok(()),
        None => Err(format!("names a folder, but {} is a file", there.display())),
    }
}

/// A setting in milliseconds as a duration.
pub(crate) fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}
