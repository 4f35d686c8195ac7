//! TLS of the server itself: the settings of `[server.tls]`, and the certificate in force.
//!
//! The files are looked at once a second, by their content, so that it does not matter how they were replaced: in
//! place, by a rename, or by a symbolic link that leads elsewhere. A pair is judged when it was the same at two
//! looks, for one file is written before the other. One that is wrong is refused, logged once, and the last good one
//! stays. Handshakes that begin later get the new one; connections that are there live on.

mod certificate;
mod local;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use auspex_kernel::config::ConfigError;
use auspex_kernel::looks::Looks;
use auspex_kernel::service::{StopSignal, Warning};
use auspex_kernel::tls::{self, Unusable};
use auspex_kernel::{Clock, Timestamp};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;

pub(crate) use local::ask;

const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Before its end a certificate is warned of.
const NOTICE: Duration = Duration::from_secs(14 * 24 * 3600);

/// `[server.tls]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
    pub(crate) min_version: MinVersion,
    pub(crate) hsts_max_age_s: u32,
}

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum MinVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

impl Config {
    /// Whether the server speaks TLS.
    pub(crate) fn is_on(&self) -> bool {
        !self.cert_file.as_os_str().is_empty()
    }

    /// What can be said without looking at files.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        match (self.is_on(), !self.key_file.as_os_str().is_empty()) {
            (true, false) => Err(ConfigError::wrong(
                "server.tls.key_file",
                "must name the private key of server.tls.cert_file, in PEM",
            )),
            (false, true) => Err(ConfigError::wrong(
                "server.tls.cert_file",
                "must name the certificate for server.tls.key_file, in PEM, with those that lead to its root behind it",
            )),
            _ => Ok(()),
        }
    }

    /// The pair that the files hold.
    ///
    /// # Errors
    /// [`ConfigError::wrong`] for the file that is to blame.
    pub(crate) fn load(&self) -> Result<CertifiedKey, ConfigError> {
        let loaded = Pair::read(self).load();
        loaded.map_err(|(key, reason)| ConfigError::wrong(key, reason))
    }
}

/// What the two files hold, or why that is not known.
#[derive(Clone, PartialEq, Eq)]
struct Pair {
    certificate: Result<Vec<u8>, String>,
    key: Result<Vec<u8>, String>,
}

impl Pair {
    fn read(config: &Config) -> Self {
        Self {
            certificate: tls::read(&config.cert_file),
            key: tls::read(&config.key_file),
        }
    }

    /// # Errors
    /// The setting that names what cannot be used, and why.
    fn load(&self) -> Result<CertifiedKey, (&'static str, String)> {
        const CERTIFICATE: &str = "server.tls.cert_file";
        const KEY: &str = "server.tls.key_file";
        let certificate = self.certificate.as_ref();
        let certificate = certificate.map_err(|why| (CERTIFICATE, why.clone()))?;
        let key = self.key.as_ref().map_err(|why| (KEY, why.clone()))?;
        tls::certified_key(certificate, key).map_err(|unusable| match unusable {
            Unusable::Certificate(why) => (CERTIFICATE, why),
            Unusable::Key(why) => (KEY, why),
        })
    }
}

/// The server's TLS.
pub(crate) struct Tls {
    config: Config,
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    state: Mutex<State>,
    expiry: Gauge,
    clock: Clock,
}

/// The certificate that handshakes get which begin now.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

struct State {
    looks: Looks<Pair>,
    /// When the certificate in force ends, if it says so legibly.
    ends: Option<Timestamp>,
    /// Why the pair that the files hold is not in force.
    refused: Option<String>,
    /// What the log has said of the end.
    said: Nearness,
}

/// How near the end of a certificate is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nearness {
    Far,
    Near,
    Over,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// As the settings say; `None` where they name no certificate.
    ///
    /// # Errors
    /// As of [`Config::load`].
    pub(crate) fn open(config: &Config, clock: Clock) -> Result<Option<Arc<Self>>, ConfigError> {
        if !config.is_on() {
            return Ok(None);
        }
        let found = Pair::read(config);
        let key = found.load();
        let key = key.map_err(|(key, reason)| ConfigError::wrong(key, reason))?;
        let ends = certificate::end_of(&key);
        let current = Arc::new(Current(ArcSwap::from_pointee(key)));
        let failed = |error: rustls::Error| ConfigError::wrong("server.tls", error.to_string());
        let tls = Self {
            acceptor: acceptor(config, current.clone()).map_err(failed)?,
            current,
            state: Mutex::new(State {
                looks: Looks::new(found),
                ends,
                refused: None,
                said: Nearness::Far,
            }),
            expiry: Gauge::default(),
            config: config.clone(),
            clock,
        };
        tls.tell_end();
        if let Some(warning) = tls.key_warning() {
            tracing::warn!(code = warning.code, "{}", warning.message);
        }
        Ok(Some(Arc::new(tls)))
    }

    /// Makes a connection one of TLS.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate of the server ends, in seconds since 1970",
            self.expiry.clone(),
        );
    }

    /// Looks at the files until a stop is requested.
    pub(crate) async fn watch(self: Arc<Self>, mut stop: StopSignal) {
        let mut pause = tokio::time::interval(LOOK_PAUSE);
        pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.stop_requested() => return,
                _ = pause.tick() => {}
            }
            let config = self.config.clone();
            let reading = tokio::task::spawn_blocking(move || Pair::read(&config));
            let Ok(found) = reading.await else { return };
            let is_due = self.state.lock().looks.is_due(&found, false);
            if is_due {
                self.judge(&found);
            }
            self.tell_end();
        }
    }

    fn judge(&self, found: &Pair) {
        let refused = match found.load() {
            Ok(key) => {
                let ends = certificate::end_of(&key);
                self.current.0.store(Arc::new(key));
                let mut state = self.state.lock();
                state.ends = ends;
                state.said = Nearness::Far;
                drop(state);
                let ends = ends.map(Timestamp::to_rfc3339);
                tracing::info!(ends, "new handshakes get the changed certificate");
                None
            }
            Err((key, why)) => {
                let reason = format!("{key} {why}");
                tracing::error!(
                    reason,
                    "the changed certificate is refused; the one from before stays in force"
                );
                Some(reason)
            }
        };
        self.state.lock().refused = refused;
    }

    /// Keeps the metric up to date, and says in the log what `warnings` says too, once.
    fn tell_end(&self) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let Some(ends) = state.ends else { return };
        self.expiry.set(ends.unix_seconds());
        let nearness = nearness(ends, now);
        if std::mem::replace(&mut state.said, nearness) != nearness
            && let Some(warning) = self.end_warning(ends, now)
        {
            tracing::warn!(code = warning.code, "{}", warning.message);
        }
    }

    /// What an operator should look at.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let state = self.state.lock();
        let refused = state.refused.as_ref().map(|reason| Warning {
            code: "TLS_CERTIFICATE_REFUSED",
            message: format!(
                "the certificate was changed and cannot be used, so that from before is in force: {reason}"
            ),
        });
        let now = self.clock.now();
        let end = state.ends.and_then(|ends| self.end_warning(ends, now));
        drop(state);
        refused
            .into_iter()
            .chain(end)
            .chain(self.key_warning())
            .collect()
    }

    fn end_warning(&self, ends: Timestamp, now: Timestamp) -> Option<Warning> {
        let (file, date) = (self.config.cert_file.display(), ends.to_rfc3339());
        let said = match nearness(ends, now) {
            Nearness::Far => return None,
            Nearness::Near => "ends",
            Nearness::Over => "has ended",
        };
        Some(Warning {
            code: "TLS_CERTIFICATE_EXPIRES",
            message: format!(
                "the certificate in {file} {said} at {date}; put a new one there with its key, which comes into \
                 force without a restart"
            ),
        })
    }

    fn key_warning(&self) -> Option<Warning> {
        let file = &self.config.key_file;
        is_open_to_others(file).then(|| Warning {
            code: "TLS_KEY_READABLE",
            message: format!(
                "others can read the private key {}; run chmod o= on it as its owner",
                file.display()
            ),
        })
    }
}

fn nearness(ends: Timestamp, now: Timestamp) -> Nearness {
    match () {
        () if ends <= now => Nearness::Over,
        () if ends <= now + NOTICE => Nearness::Near,
        () => Nearness::Far,
    }
}

fn is_open_to_others(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = std::fs::metadata(file);
    metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0)
}

fn acceptor(config: &Config, current: Arc<Current>) -> Result<TlsAcceptor, rustls::Error> {
    let versions = match config.min_version {
        MinVersion::Tls12 => rustls::ALL_VERSIONS,
        MinVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(tls::provider());
    let mut config = builder
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(current);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Sessions are resumed by what the client keeps, so that no thread waits for another.
    config.ticketer = Ticketer::new()?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_comes_nearer() {
        let ends = Timestamp::from_unix_seconds(100 * 24 * 3600);
        let at = |days: i64| nearness(ends, Timestamp::from_unix_seconds(days * 24 * 3600));
        assert!(at(85) == Nearness::Far);
        assert!(at(86) == Nearness::Near && at(99) == Nearness::Near);
        assert!(at(100) == Nearness::Over);
    }

    #[test]
    fn a_certificate_without_a_key_is_refused_and_the_other_way_round() {
        let config = |cert: &str, key: &str| Config {
            cert_file: cert.into(),
            key_file: key.into(),
            min_version: MinVersion::Tls12,
            hsts_max_age_s: 0,
        };
        assert!(config("", "").check().is_ok() && !config("", "").is_on());
        assert!(config("a", "b").check().is_ok());
        let wrong = |config: Config| config.check().expect_err("wrong").to_string();
        assert!(wrong(config("a", "")).contains("server.tls.key_file"));
        assert!(wrong(config("", "b")).contains("server.tls.cert_file"));
        let missing = config("/nowhere/cert.pem", "/nowhere/key.pem");
        let missing = missing.load().expect_err("nothing there").to_string();
        assert!(missing.contains("server.tls.cert_file") && missing.contains("/nowhere/cert.pem"));
    }
}
