//! TLS to the servers of a service.

use auspex_kernel::config::ConfigError;
use rustls::pki_types::ServerName;

use super::Key;
use crate::config::{ServiceConfig, TlsConfig};
use crate::upstream::{Protocol, Terms, Tls};

/// What the settings say of servers that are called by TLS.
pub(super) fn plan(
    at: &Key,
    service: &ServiceConfig,
    protocol: Protocol,
) -> Result<Tls, ConfigError> {
    let at = Key(format!("{}.tls", at.0));
    let TlsConfig {
        ca_file,
        client_cert_file,
        client_key_file,
        server_name,
    } = service.tls.clone().unwrap_or_default();
    let client = match (client_cert_file, client_key_file) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            let reason = "is missing: it has to name the private key of client_cert_file";
            return Err(at.wrong("client_key_file", reason));
        }
        (None, Some(_)) => {
            let reason = "is missing: it has to name the certificate for client_key_file";
            return Err(at.wrong("client_cert_file", reason));
        }
    };
    let server_name = server_name.map(|name| {
        let reason = "must be a host name, such as \"orders.internal\", or an address";
        ServerName::try_from(name).map_err(|_| at.wrong("server_name", reason))
    });
    let terms = Terms {
        ca_file,
        client,
        server_name: server_name.transpose()?,
        protocol,
    };
    Tls::new(terms).map_err(|(name, reason)| at.wrong(name, reason))
}
