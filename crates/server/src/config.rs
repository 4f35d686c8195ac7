//! The settings of the whole program, composed from those of its parts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use auspex_kernel::config::{ConfigError, Layers};
use serde::Deserialize;

use crate::edge;

/// The commented reference of every setting.
pub(crate) const DEFAULTS: &str = include_str!("../auspex.default.toml");

/// Read when no `--config` is given and it is there.
const DEFAULT_FILE: &str = "auspex.toml";

/// Variables that hand-made services of this kind read, and the settings they stand for.
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
    pub(crate) inference: auspex_inference::Config,
    pub(crate) identity: auspex_identity::Config,
    pub(crate) telemetry: Telemetry,
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
    pub(crate) cors: Cors,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateLimit {
    pub(crate) max: u32,
    pub(crate) window_s: u32,
    pub(crate) callers_max: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cors {
    pub(crate) origins: Vec<String>,
    pub(crate) max_age_s: u32,
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

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Telemetry {
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: String,
    pub(crate) access_log: AccessLog,
    pub(crate) otlp_endpoint: String,
    pub(crate) otlp_sample_ratio: f64,
    pub(crate) sentry_dsn: String,
    pub(crate) sentry_environment: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Which requests get a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AccessLog {
    All,
    Errors,
    Off,
}

/// What the command line says, over everything else.
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

/// Defaults < file < environment < flags.
pub(crate) fn load(
    overrides: &Overrides,
    env: impl Fn() -> Vec<(String, String)>,
) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::new(DEFAULTS);
    match &overrides.file {
        Some(file) => layers.file(file)?,
        None if Path::new(DEFAULT_FILE).exists() => layers.file(Path::new(DEFAULT_FILE))?,
        None => {}
    }
    for (name, value) in env() {
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
        // Compose files pass on variables that are not set as empty ones.
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
        let server = &self.server;
        let wrong = |key: &str, reason: &str| {
            Err(ConfigError::Value {
                origin: "configuration".into(),
                key: key.into(),
                reason: reason.into(),
            })
        };
        let url = &server.public_url;
        if !url.is_empty() && !url.starts_with("http://") && !url.starts_with("https://") {
            return wrong("server.public_url", "must begin with http:// or https://");
        }
        if server.head_bytes_max < 8192 {
            return wrong("server.head_bytes_max", "must be at least 8192");
        }
        for (key, value) in [
            ("server.connections_max", server.connections_max as u64),
            ("server.bodies_bytes_max", server.bodies_bytes_max as u64),
            ("server.body_bytes_max", server.body_bytes_max as u64),
            ("server.head_timeout_ms", server.head_timeout_ms),
            ("server.idle_timeout_ms", server.idle_timeout_ms),
            ("server.body_timeout_ms", server.body_timeout_ms),
            ("server.request_timeout_ms", server.request_timeout_ms),
            (
                "server.http2_streams_max",
                u64::from(server.http2_streams_max),
            ),
            ("server.rate_limit.max", u64::from(server.rate_limit.max)),
            (
                "server.rate_limit.window_s",
                u64::from(server.rate_limit.window_s),
            ),
            (
                "server.address_limit.max",
                u64::from(server.address_limit.max),
            ),
            (
                "server.address_limit.window_s",
                u64::from(server.address_limit.window_s),
            ),
            (
                "inference.instances_max",
                self.inference.instances_max as u64,
            ),
        ] {
            if value == 0 {
                return wrong(key, "must be at least 1");
            }
        }
        let mut origins = server.cors.origins.iter();
        if let Some(reason) = origins.find_map(|origin| edge::check_origin(origin).err()) {
            return wrong("server.cors.origins", reason);
        }
        if server.data_dir.as_os_str().is_empty() {
            return wrong("server.data_dir", "must name a folder");
        }
        if let Err(reason) = crate::logs::filter(&self.telemetry.log_level) {
            return wrong("telemetry.log_level", &reason);
        }
        if !(0.0..=1.0).contains(&self.telemetry.otlp_sample_ratio) {
            return wrong("telemetry.otlp_sample_ratio", "must be between 0 and 1");
        }
        if let Err((key, reason)) = self.identity.check() {
            return wrong(key, &reason);
        }
        let url = &self.storage.url;
        if !["", "sqlite:", "postgres://", "postgresql://"]
            .iter()
            .any(|scheme| {
                if scheme.is_empty() {
                    url.is_empty()
                } else {
                    url.starts_with(scheme)
                }
            })
        {
            return wrong(
                "storage.url",
                "must be empty, sqlite:PATH or postgres://USER@HOST/DATABASE",
            );
        }
        Ok(())
    }

    /// The database of every part that has none of its own.
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

    #[test]
    fn aliases_of_hand_made_services_work_and_our_own_names_win() {
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
