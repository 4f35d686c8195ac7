//! TLS to endpoints: who is believed, who this server says it is, and what becomes of its files when they
//! change.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use auspex_kernel::clock::monotonic;
use auspex_kernel::looks::Looks;
use auspex_kernel::tls::{self, Unusable};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{AlertDescription, ClientConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Protocol;
use crate::error::Failure;

/// How often the log may say that connections fail.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// What the settings say. Two that are equal are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Whose certificates are taken; `None`: those of the system.
    pub(crate) ca_file: Option<PathBuf>,
    /// What this server shows, with its key.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
    /// What certificates must name; `None`: the host of the endpoint.
    pub(crate) server_name: Option<ServerName<'static>>,
    pub(crate) protocol: Protocol,
}

/// What the files hold, or why that is not known.
#[derive(Clone, PartialEq, Eq)]
struct Content {
    ca: Option<Result<Vec<u8>, String>>,
    client: Option<[Result<Vec<u8>, String>; 2]>,
}

/// The setting that is wrong, and why.
pub(crate) type Wrong = (&'static str, String);

/// TLS to the endpoints of a service. Clones are one.
#[derive(Clone)]
pub(crate) struct Tls(Arc<Shared>);

struct Shared {
    terms: Terms,
    connector: ArcSwap<ClientConfig>,
    files: Mutex<Files>,
}

struct Files {
    looks: Looks<Content>,
    refused: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.terms.fmt(f)
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.0.terms == other.0.terms
    }
}

impl Eq for Tls {}

impl Tls {
    /// # Errors
    /// Which setting names something that cannot be used.
    pub(crate) fn new(terms: Terms) -> Result<Self, Wrong> {
        let content = Content::read(&terms);
        let config = content.load(&terms)?;
        Ok(Self(Arc::new(Shared {
            terms,
            connector: ArcSwap::from_pointee(config),
            files: Mutex::new(Files {
                looks: Looks::new(content),
                refused: None,
            }),
        })))
    }

    /// Looks at the files. Connections that begin later go by what they hold, if it can be used. It waits for
    /// the disk.
    pub(crate) fn look(&self, service: &str) {
        let Shared {
            terms,
            connector,
            files,
        } = &*self.0;
        let found = Content::read(terms);
        if !files.lock().looks.is_due(&found, false) {
            return;
        }
        let refused = match found.load(terms) {
            Ok(config) => {
                connector.store(Arc::new(config));
                tracing::info!(service, "new connections go by the changed certificates");
                None
            }
            Err((key, why)) => {
                let reason = format!("gateway.services.{service}.tls.{key} {why}");
                tracing::error!(
                    reason,
                    "changed certificates are refused; those from before stay in force"
                );
                Some(reason)
            }
        };
        files.lock().refused = refused;
    }

    /// Why what the files hold is not in force.
    pub(crate) fn refused(&self) -> Option<String> {
        self.0.files.lock().refused.clone()
    }

    /// Makes a connection to this host one of TLS.
    ///
    /// # Errors
    /// [`Failure::Tls`], [`Failure::Refused`].
    pub(super) async fn secure(
        &self,
        stream: TcpStream,
        host: &ServerName<'static>,
        authority: &str,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let terms = &self.0.terms;
        let name = terms.server_name.as_ref().unwrap_or(host).clone();
        let connector = TlsConnector::from(self.0.connector.load_full());
        let secured = match connector.connect(name, stream).await {
            Ok(secured) => secured,
            Err(error) => {
                let Some(reason) = tls_error(&error) else {
                    log(authority, &format!("the handshake broke off: {error}"));
                    return Err(Failure::Refused);
                };
                log(authority, &reason.to_string());
                return Err(Failure::Tls);
            }
        };
        let agreed = secured.get_ref().1.alpn_protocol();
        if terms.protocol == Protocol::Http2 && agreed != Some(b"h2") {
            log(authority, "the server does not agree to HTTP/2 (ALPN)");
            return Err(Failure::Tls);
        }
        Ok(secured)
    }
}

impl Content {
    fn read(terms: &Terms) -> Self {
        let client = terms.client.as_ref();
        Self {
            ca: terms.ca_file.as_deref().map(tls::read),
            client: client.map(|(certificate, key)| [tls::read(certificate), tls::read(key)]),
        }
    }

    fn load(&self, terms: &Terms) -> Result<ClientConfig, Wrong> {
        let roots = match &self.ca {
            Some(pem) => {
                let roots = pem
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|pem| tls::roots(pem));
                roots.map_err(|why| ("ca_file", why))?
            }
            None => {
                tls::system_roots().map_err(|why| ("ca_file", format!("is needed, for {why}")))?
            }
        };
        let builder = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| ("ca_file", format!("cannot be used: {error}")))?
            .with_root_certificates(roots);
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some([certificate, key]) => {
                let certificate = certificate.as_ref();
                let certificate = certificate.map_err(|why| ("client_cert_file", why.clone()))?;
                let key = key
                    .as_ref()
                    .map_err(|why| ("client_key_file", why.clone()))?;
                let key =
                    tls::certified_key(certificate, key).map_err(|unusable| match unusable {
                        Unusable::Certificate(why) => ("client_cert_file", why),
                        Unusable::Key(why) => ("client_key_file", why),
                    })?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
        };
        config.alpn_protocols = match terms.protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
        };
        Ok(config)
    }
}

/// The name of the host of `host:port`, as certificates have it.
pub(crate) fn name_of(authority: &str) -> Option<ServerName<'static>> {
    let (host, _) = authority.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).ok()
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Whether a server has refused the certificate of this one, which in TLS 1.3 comes after the handshake.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    use AlertDescription as Alert;
    let Some(rustls::Error::AlertReceived(alert)) = tls_error(error) else {
        return false;
    };
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}

/// Tells of a server that was spoken to and then refused the certificate of this one.
pub(crate) fn log_refusal(endpoint: &str) {
    log(endpoint, "the server takes no certificate of this one");
}

fn log(endpoint: &str, reason: &str) {
    static LOGGED: Mutex<Option<Instant>> = Mutex::new(None);
    let mut logged = LOGGED.lock();
    if logged.is_none_or(|at| at.elapsed() >= LOG_PAUSE) {
        *logged = Some(monotonic());
        tracing::warn!(
            endpoint,
            reason,
            "there is no TLS connection to an endpoint"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_host_is_that_of_its_authority() {
        for (authority, name) in [
            ("orders.internal:443", Some("orders.internal")),
            ("localhost:1", Some("localhost")),
            ("10.0.0.1:443", Some("10.0.0.1")),
            ("[::1]:443", Some("::1")),
            ("orders..internal:443", None),
            ("orders.internal", None),
        ] {
            let found = name_of(authority).map(|name| name.to_str().into_owned());
            assert_eq!(found.as_deref(), name, "{authority}");
        }
    }

    #[test]
    fn what_the_settings_name_is_there() {
        let terms = |ca: Option<&str>, client: Option<[&str; 2]>| Terms {
            ca_file: ca.map(Into::into),
            client: client.map(|[certificate, key]| (certificate.into(), key.into())),
            server_name: None,
            protocol: Protocol::Http1,
        };
        let wrong = |terms: Terms| Tls::new(terms).expect_err("wrong");
        let (key, why) = wrong(terms(Some("/nowhere/ca.pem"), None));
        assert!(key == "ca_file" && why.contains("/nowhere/ca.pem"), "{why}");
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let (key, why) = wrong(terms(Some(manifest), None));
        assert!(
            key == "ca_file" && why.contains("without a certificate"),
            "{why}"
        );
    }
}
