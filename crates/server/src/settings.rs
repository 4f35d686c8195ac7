//! Reads the settings: defaults, file, environment and flags, in this order, and checks them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use auspex_kernel::config::{ConfigError, Layers, read_file};

use crate::app;
use crate::config::Config;
use crate::roles;
use crate::services::{self, Listed};

/// The server's own settings with their defaults and comments.
const DEFAULTS: &str = include_str!("../defaults.toml");

/// Read if it exists and no `--config` is given.
const DEFAULT_FILE: &str = "auspex.toml";

/// Variables that similar services usually read, and the settings they stand for.
const ALIASES: [(&str, &str); 3] = [
    ("MODEL_PATH", "inference.models"),
    ("LOG_LEVEL", "telemetry.log_level"),
    ("DATABASE_URL", "storage.url"),
];

/// Variables that people write for lack of the right one, and what is right.
const MEANT: [(&str, &str); 3] = [
    ("AUSPEX_CONFIG", "--config FILE"),
    ("AUSPEX_MODEL_PATH", "AUSPEX__INFERENCE__MODELS"),
    ("AUSPEX_DATABASE_URL", "AUSPEX__STORAGE__URL"),
];

/// Names that other programs have for a setting or a section, and ours.
const OTHER_NAMES: [(&str, &str); 9] = [
    ("server.port", "server.listen"),
    ("server.host", "server.listen"),
    ("server.bind", "server.listen"),
    ("server.address", "server.listen"),
    ("database", "storage"),
    ("db", "storage"),
    ("log", "telemetry"),
    ("logging", "telemetry"),
    ("logs", "telemetry"),
];

/// What the command line sets; it overrides everything else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) file: Option<PathBuf>,
    pub(crate) settings: Vec<Flag>,
}

/// What a flag sets.
#[derive(Clone, Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: String,
}

/// All layers, merged and checked, with the typed result.
pub(crate) struct Loaded {
    pub(crate) layers: Layers,
    pub(crate) config: Config,
    /// Variables that begin like ours and change nothing.
    pub(crate) ignored: Vec<String>,
    /// The text of the file that it was read from, if there is one.
    pub(crate) text: Option<String>,
}

/// The commented reference of every setting: the server's own and those of each service.
pub(crate) fn defaults() -> String {
    let services = services::ALL.iter().map(|service| service.defaults());
    let parts: Vec<&str> = std::iter::once(DEFAULTS).chain(services).collect();
    parts.join("\n")
}

/// The variables of this process. One whose name is not UTF-8 is none of our settings.
pub(crate) fn environment() -> Vec<(String, OsString)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .collect()
}

/// Those that may be settings, as text.
fn own<V: Into<OsString>>(
    variables: Vec<(String, V)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let may_be_ours = |name: &str| {
        let is_named_so = name.to_uppercase().starts_with("AUSPEX_");
        alias(name).is_some() || is_named_so && !is_of_others(name)
    };
    let own = variables.into_iter().filter(|(name, _)| may_be_ours(name));
    let text = |(name, value): (String, V)| match value.into().into_string() {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(ConfigError::Value {
            key: alias(&name).unwrap_or(&name).to_owned(),
            origin: name,
            reason: "must be text in UTF-8".into(),
        }),
    };
    own.map(text).collect()
}

/// The setting that a usual variable stands for.
fn alias(name: &str) -> Option<&'static str> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    alias.map(|(_, key)| *key)
}

impl Overrides {
    fn path(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE))
    }

    /// The text of the file, which only has to be there if the command line names it.
    pub(crate) fn read(&self) -> Result<Option<String>, ConfigError> {
        match self.file.is_none() && !self.path().exists() {
            true => Ok(None),
            false => read_file(self.path()).map(Some),
        }
    }
}

/// Defaults < file < environment < flags.
pub(crate) fn load<V: Into<OsString>>(
    overrides: &Overrides,
    env: impl Fn() -> Vec<(String, V)>,
) -> Result<Loaded, ConfigError> {
    load_text(overrides.read()?, overrides, env)
}

/// The same with the text of the file, which was read before.
pub(crate) fn load_text<V: Into<OsString>>(
    text: Option<String>,
    overrides: &Overrides,
    env: impl Fn() -> Vec<(String, V)>,
) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::new(&defaults());
    let ignored = lay(&mut layers, text.as_deref(), overrides, env).map_err(with_our_name)?;
    let mut config: Config = layers.build()?;
    config.gateway.remote_roles = roles::remote_roles(&config);
    match check(&config) {
        Ok(()) => Ok(Loaded {
            layers,
            config,
            ignored,
            text,
        }),
        Err(error) => Err(layers.locate(error)),
    }
}

/// Lays all of them over the defaults. Returns the variables that change nothing.
fn lay<V: Into<OsString>>(
    layers: &mut Layers,
    text: Option<&str>,
    overrides: &Overrides,
    env: impl Fn() -> Vec<(String, V)>,
) -> Result<Vec<String>, ConfigError> {
    if let Some(text) = text {
        layers.file(overrides.path(), text)?;
    }
    let variables = own(env())?;
    for (name, value) in &variables {
        // Compose files pass unset variables on as empty ones.
        if let Some(key) = alias(name).filter(|_| !value.is_empty()) {
            layers.set(key, value, name)?;
        }
    }
    let ignored = layers.env(variables)?;
    if let Some((origin, meant)) = MEANT
        .iter()
        .find(|(name, _)| ignored.iter().any(|one| one == name))
    {
        return Err(ConfigError::UnknownKey {
            origin: (*origin).to_owned(),
            key: origin.trim_start_matches("AUSPEX_").to_lowercase(),
            suggestion: Some((*meant).to_owned()),
        });
    }
    for Flag { name, key, value } in &overrides.settings {
        layers.set(key, value, name)?;
    }
    Ok(ignored)
}

/// What a name of another program is called here says more than the name that looks nearest.
fn with_our_name(error: ConfigError) -> ConfigError {
    let ConfigError::UnknownKey {
        origin,
        key,
        suggestion,
    } = error
    else {
        return error;
    };
    let ours = OTHER_NAMES.iter().find(|(theirs, _)| *theirs == key);
    ConfigError::UnknownKey {
        origin,
        suggestion: ours.map(|(_, ours)| (*ours).to_owned()).or(suggestion),
        key,
    }
}

/// Names that are not meant for the server: Kubernetes tells every container of a service called auspex
/// by AUSPEX_SERVICE_HOST, AUSPEX_PORT and others; images carry their version; clients and tests keep URL
/// and key.
fn is_of_others(name: &str) -> bool {
    const NAMES: [&str; 5] = ["BINARY", "KEY", "PORT", "URL", "VERSION"];
    const BEGINNINGS: [&str; 3] = ["PORT_", "SERVICE_", "TEST_"];
    name.strip_prefix("AUSPEX_").is_some_and(|rest| {
        NAMES.contains(&rest) || BEGINNINGS.iter().any(|start| rest.starts_with(start))
    })
}

fn check(config: &Config) -> Result<(), ConfigError> {
    config.check_own()?;
    services::ALL
        .iter()
        .try_for_each(|service| service.check(config))?;
    app::check_paths(config)
}

impl Loaded {
    /// Checks what the settings name on this machine, as far as that can be done without changing
    /// or asking anything. `serve` and `config check` do.
    pub(crate) fn check_surroundings(&self) -> Result<(), ConfigError> {
        let config = &self.config;
        let checked = config.check_own_surroundings().and_then(|()| {
            let needed = |service: &&&dyn Listed| roles::are_needed(config, service.name());
            let mut needed = services::ALL.iter().filter(needed);
            needed.try_for_each(|service| service.check_surroundings(config))
        });
        checked.map_err(|error| self.layers.locate(error))
    }
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
    fn a_setting_that_is_no_text_is_refused() {
        use std::os::unix::ffi::OsStringExt as _;
        let load = |name: &str| {
            let variables = vec![(name.to_owned(), OsString::from_vec(b"p\xe9".to_vec()))];
            load(&Overrides::default(), || variables.clone()).map(drop)
        };
        for name in ["DATABASE_URL", "AUSPEX__SERVER__LISTEN"] {
            let error = load(name).expect_err("no text").to_string();
            assert!(
                error.starts_with(name) && error.contains("UTF-8"),
                "{error}"
            );
        }
        load("LANG").expect("none of ours");
        load("AUSPEX_KEY").expect("meant for clients");
    }

    #[test]
    fn variables_that_change_nothing_are_told_apart() {
        for (name, meant) in [
            ("AUSPEX_SERVER_LISTEN", "AUSPEX__SERVER__LISTEN"),
            ("AUSPEX_LISTEN", "AUSPEX__SERVER__LISTEN"),
            ("AUSPEX_DATA_DIR", "AUSPEX__SERVER__DATA_DIR"),
            ("AUSPEX_LOG_LEVEL", "AUSPEX__TELEMETRY__LOG_LEVEL"),
            ("AUSPEX_PUBLIC_URL", "AUSPEX__SERVER__PUBLIC_URL"),
            ("AUSPEX_TRUSTED_PROXIES", "AUSPEX__SERVER__TRUSTED_PROXIES"),
            ("AUSPEX_MODELS", "AUSPEX__INFERENCE__MODELS"),
            ("AUSPEX_CONFIG", "--config FILE"),
            ("AUSPEX_DATABASE_URL", "AUSPEX__STORAGE__URL"),
        ] {
            let error = load_with(&[(name, "x")]).expect_err(name).to_string();
            assert!(error.starts_with(&format!("{name}: ")), "{error}");
            assert!(
                error.contains(&format!("did you mean \"{meant}\"?")),
                "{error}"
            );
        }
        let others = [
            "AUSPEX_KEY",
            "AUSPEX_PORT",
            "AUSPEX_PORT_8080_TCP_ADDR",
            "AUSPEX_SERVICE_HOST",
            "AUSPEX_TEST_POSTGRES_URL",
            "AUSPEX_URL",
            "AUSPEX_VERSION",
            "AUSPEX_WORKER_COUNT",
        ];
        let variables = || {
            others
                .map(|name| (name.to_owned(), "x".to_owned()))
                .to_vec()
        };
        let loaded = load(&Overrides::default(), variables).expect("valid");
        assert_eq!(loaded.ignored, ["AUSPEX_WORKER_COUNT"]);
    }

    #[test]
    fn names_of_other_programs_lead_to_ours() {
        let read = |text: &str| {
            let loaded = load_text(
                Some(text.to_owned()),
                &Overrides::default(),
                Vec::<(String, String)>::new,
            );
            loaded.map(drop).expect_err(text).to_string()
        };
        for (text, ours) in [
            ("[server]\nport = 80", "server.listen"),
            ("[server]\nhost = \"0.0.0.0\"", "server.listen"),
            ("[database]\nurl = \"sqlite:x.db\"", "storage"),
            ("[logging]\nlevel = \"info\"", "telemetry"),
            (
                "[server]\nlisten = 8111",
                "as in listen = \"127.0.0.1:8080\"",
            ),
            ("[server]\npublic_url = 1", "as in public_url = \"…\""),
        ] {
            let error = read(text);
            assert!(error.contains(ours), "{text}: {error}");
            assert!(error.starts_with("auspex.toml:"), "{error}");
        }
        let error = load_with(&[("auspex__server__listen", ":80")]).expect_err("lower case");
        let error = error.to_string();
        assert!(error.contains("\"AUSPEX__SERVER__LISTEN\""), "{error}");
        for (key, value) in [
            ("DATABASE_URL", "sqlite:~/x.db"),
            ("DATABASE_URL", "sqlite:///~/x.db"),
            ("AUSPEX__SERVER__DATA_DIR", "~/data"),
            ("AUSPEX__DIALOGUES__MASTER_KEY_FILE", "~/master.key"),
        ] {
            let error = load_with(&[(key, value)]).expect_err(value).to_string();
            assert!(error.contains('~') && error.contains("as it is"), "{error}");
        }
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
            ("DATABASE_URL", "sqlite:x.db?mode=ro", "no parameters"),
            (
                "DATABASE_URL",
                "postgres://u@h/x?sslmode=require&sslrootcert=no/such.pem",
                "sslrootcert",
            ),
            ("AUSPEX__SERVER__WORKERS", "100000", "at most 1024"),
            (
                "AUSPEX__SERVER__BODIES_BYTES_MAX",
                "1000000",
                "server.body_bytes_max",
            ),
            (
                "AUSPEX__STORAGE__CALL_TIMEOUT_MS",
                "50",
                "storage.call_timeout_ms",
            ),
            ("AUSPEX__SERVER__LISTEN", "localhost", "0.0.0.0:8080"),
            (
                "AUSPEX__SERVER__PUBLIC_URL",
                "https://x.example.org/models",
                "host name of its own",
            ),
            (
                "DATABASE_URL",
                "postgresql+psycopg2://u:p@h/x",
                "write postgresql://",
            ),
            ("DATABASE_URL", "postgres://u@h/x?sslmodus=no", "sslmodus"),
            (
                "AUSPEX__TELEMETRY__OTLP_ENDPOINT",
                "collector:4317",
                "http://",
            ),
            (
                "AUSPEX__TELEMETRY__OTLP_ENDPOINT",
                "http://collector:4318",
                "/v1/traces",
            ),
            (
                "AUSPEX__TELEMETRY__SENTRY_DSN",
                "https://sentry.example.org/1",
                "sentry_dsn",
            ),
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
            assert!(
                error.starts_with(&format!("{variable}: setting ")),
                "{error}"
            );
        }
    }
}
