//! Certificates for tests, made anew each time, and clients that believe them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::tls::provider;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Whose certificates are believed.
pub(crate) struct Authority {
    pub(crate) pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signed");
        Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 2099)
    }

    /// One that ends with the begin of a year.
    pub(crate) fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A client of certain versions and protocols that believes only this.
    pub(crate) fn client_config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a root");
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// A connection of TLS to an address of this machine.
    pub(crate) fn connect(&self, address: SocketAddr) -> Secured {
        Secured::open(self.client_config(rustls::ALL_VERSIONS, &[]), address)
            .expect("a TLS connection")
    }
}

impl Pair {
    /// The files of the two in a folder.
    pub(crate) fn write(&self, folder: &Path) -> [PathBuf; 2] {
        let files = ["cert.pem", "key.pem"].map(|name| folder.join(name));
        std::fs::write(&files[0], &self.certificate).expect("written");
        std::fs::write(&files[1], &self.key).expect("written");
        std::fs::set_permissions(
            &files[1],
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .expect("set");
        files
    }
}

/// A client's connection.
pub(crate) struct Secured(pub(crate) StreamOwned<ClientConnection, TcpStream>);

impl Secured {
    /// # Errors
    /// What the handshake says.
    pub(crate) fn open(config: Arc<ClientConfig>, address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Self::over(config, stream)
    }

    /// # Errors
    /// What the handshake says.
    pub(crate) fn over(config: Arc<ClientConfig>, mut stream: TcpStream) -> std::io::Result<Self> {
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(config, name);
        let mut session = session.map_err(std::io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(Self(StreamOwned::new(session, stream)))
    }

    /// Sends a request by its lines but for the last, and reads the head of the answer and what else has
    /// come until a text is there.
    pub(crate) fn ask(&mut self, request: &str, until: &str) -> String {
        self.0.write_all(request.as_bytes()).expect("sent");
        self.0.flush().expect("sent");
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&answer);
            if text.contains(until) {
                return text.into_owned();
            }
            let read = self.0.read(&mut chunk).expect("an answer");
            assert_ne!(read, 0, "{until:?} is not in {text}");
            answer.extend_from_slice(&chunk[..read]);
        }
    }

    /// The serial number of the peer's certificate is another for each.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        let chain = self.0.conn.peer_certificates().expect("a certificate");
        chain[0].to_vec()
    }

    pub(crate) fn version(&self) -> rustls::ProtocolVersion {
        self.0.conn.protocol_version().expect("one")
    }

    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.0.conn.alpn_protocol()
    }
}

/// The content of a certificate in PEM.
pub(crate) fn der(pem: &str) -> Vec<u8> {
    let certificates = auspex_kernel::tls::certificates(pem.as_bytes());
    certificates.expect("a certificate")[0].to_vec()
}
