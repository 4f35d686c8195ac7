//! The settings of the whole program: those of the server, and one field for each service.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use auspex_kernel::config::{ConfigError, Layers};
use auspex_kernel::quota::RateLimit;
use serde::Deserialize;

use crate::edge::CorsConfig;
use crate::{services, telemetry};

/// The server's own settings with their defaults and comments.
const DEFAULTS: &str = include_str!("../defaults.toml");

/// Read if it exists and no `--config` is given.
const DEFAULT_FILE: &str = "auspex.toml";

/// Descriptors beside those of connections: database, log, listener, runtime.
const SPARE_DESCRIPTORS: u64 = 256;

/// Variables that similar services usually read, and the settings they stand for.
const ALIASES: [(&str, &str); 3] = [
    ("MODEL_PATH", "inference.models"),
    ("LOG_LEVEL", "telemetry.log_level"),
    ("DATABASE_URL", "storage.url"),
];

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) storage: Storage,
    pub(crate) telemetry: telemetry::Config,
    pub(crate) inference: auspex_inference::Config,
    pub(crate) identity: auspex_identity::Config,
    #[cfg(test)]
    pub(crate) sample: services::sample::Config,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    pub(crate) listen: SocketAddr,
    pub(crate) public_url: String,
    pub(crate) data_dir: PathBuf,
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
    pub(crate) linger_timeout_ms: u64,
    pub(crate) drain_timeout_ms: u64,
    pub(crate) http2_streams_max: u32,
    pub(crate) rate_limit: RateLimit,
    pub(crate) address_limit: RateLimit,
    pub(crate) metrics: Metrics,
    pub(crate) cors: CorsConfig,
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
}

/// What the command line sets; it overrides everything else.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) file: Option<PathBuf>,
    pub(crate) settings: Vec<(&'static str, String)>,
}

/// All layers, merged and checked, with the typed result.
pub(crate) struct Loaded {
    pub(crate) layers: Layers,
    pub(crate) config: Config,
}

/// The commented reference of every setting: the server's own and those of each service.
pub(crate) fn defaults() -> String {
    let services = services::ALL.iter().map(|service| service.defaults());
    let parts: Vec<&str> = std::iter::once(DEFAULTS).chain(services).collect();
    parts.join("\n")
}

/// Defaults < file < environment < flags.
pub(crate) fn load(
    overrides: &Overrides,
    env: impl Fn() -> Vec<(String, String)>,
) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::new(&defaults());
    match &overrides.file {
        Some(file) => layers.file(file)?,
        None if Path::new(DEFAULT_FILE).exists() => layers.file(Path::new(DEFAULT_FILE))?,
        None => {}
    }
    for (name, value) in env() {
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
        // Compose files pass unset variables on as empty ones.
        if let Some((_, key)) = alias.filter(|_| !value.is_empty()) {
            layers.set(key, &value, &name)?;
        }
    }
    layers.env(env())?;
    for (key, value) in &overrides.settings {
        layers.set(key, value, "command line")?;
    }
    let config: Config = layers.build()?;
    config.check()?;
    Ok(Loaded { layers, config })
}

impl Config {
    /// What types alone cannot say.
    fn check(&self) -> Result<(), ConfigError> {
        self.server.check()?;
        self.storage.check()?;
        self.telemetry.check()?;
        services::ALL
            .iter()
            .try_for_each(|service| service.check(self))
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

    /// The absolute URL under which clients reach the server.
    pub(crate) fn public_url(&self) -> String {
        match self.server.public_url.as_str() {
            "" => format!("http://{}", self.server.listen),
            url => url.trim_end_matches('/').to_owned(),
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
    /// The limit of open files that `connections_max` needs.
    pub(crate) fn descriptors_wanted(&self) -> u64 {
        self.connections_max as u64 + SPARE_DESCRIPTORS
    }

    fn check(&self) -> Result<(), ConfigError> {
        let url = &self.public_url;
        if !url.is_empty() && !url.starts_with("http://") && !url.starts_with("https://") {
            let reason = "must begin with http:// or https://";
            return Err(ConfigError::wrong("server.public_url", reason));
        }
        if self.head_bytes_max < 8192 {
            let reason = "must be at least 8192";
            return Err(ConfigError::wrong("server.head_bytes_max", reason));
        }
        if self.data_dir.as_os_str().is_empty() {
            let reason = "must name a folder";
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
        self.cors.check("server.cors")
    }
}

impl Storage {
    fn check(&self) -> Result<(), ConfigError> {
        let is_known = ["sqlite:", "postgres://", "postgresql://"]
            .iter()
            .any(|scheme| self.url.starts_with(scheme));
        if self.url.is_empty() || is_known {
            return Ok(());
        }
        let reason = "must be empty, sqlite:PATH or postgres://USER@HOST/DATABASE";
        Err(ConfigError::wrong("storage.url", reason))
    }
}

/// A setting in milliseconds as a duration.
pub(crate) fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_with(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let variables: Vec<_> = variables
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        load(&Overrides::default(), || variables.clone()).map(|loaded| loaded.config)
    }

    #[test]
    fn the_defaults_are_complete_and_typed() {
        let config = load_with(&[]).expect("the embedded defaults");
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.storage_url(), "sqlite:./data/auspex.db");
    }

    /// Each section belongs to one part, so that a service cannot change what another means.
    #[test]
    fn services_set_only_their_own_section() {
        for service in services::ALL {
            let defaults: toml::Table = service.defaults().parse().expect("valid TOML");
            let sections: Vec<&str> = defaults.keys().map(String::as_str).collect();
            assert_eq!(sections, [service.name()]);
        }
    }

    #[test]
    fn usual_variable_names_work_and_our_own_names_win() {
        let config =
            load_with(&[("LOG_LEVEL", "debug"), ("DATABASE_URL", "sqlite:/x.db")]).expect("valid");
        assert_eq!(config.telemetry.log_level, "debug");
        assert_eq!(config.storage_url(), "sqlite:/x.db");
        let config = load_with(&[
            ("AUSPEX__TELEMETRY__LOG_LEVEL", "warn"),
            ("LOG_LEVEL", "debug"),
        ])
        .expect("valid");
        assert_eq!(config.telemetry.log_level, "warn");
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        for (variable, value, key) in [
            (
                "AUSPEX__SERVER__PUBLIC_URL",
                "models.example.org",
                "server.public_url",
            ),
            (
                "AUSPEX__SERVER__RATE_LIMIT__MAX",
                "0",
                "server.rate_limit.max",
            ),
            (
                "AUSPEX__SERVER__CORS__ORIGINS",
                "https://a.example.org, b.example.org",
                "server.cors.origins",
            ),
            ("AUSPEX__STORAGE__URL", "mysql://x", "storage.url"),
            ("AUSPEX__SERVER__LISTEN", "localhost", "listen"),
            ("AUSPEX__TELEMETRY__LOG_FORMAT", "xml", "log_format"),
            ("LOG_LEVEL", "nonsense", "telemetry.log_level"),
            ("AUSPEX__SERVER__DATA_DIR", "", "server.data_dir"),
            (
                "AUSPEX__SERVER__RATE_LIMIT__MAX",
                "5\n[server]",
                "server.rate_limit.max",
            ),
        ] {
            let error = load_with(&[(variable, value)])
                .expect_err(value)
                .to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
