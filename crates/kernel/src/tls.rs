//! Certificates and private keys as files in PEM have them, for whoever speaks TLS.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::files::{Obstacle, what_is_no_file};

/// No chain of certificates, and no bundle of a system's, is longer.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The cryptography that is used everywhere.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The certificates that this system trusts.
///
/// # Errors
/// There are none.
pub fn system_roots() -> Result<RootCertStore, &'static str> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err("this system has no certificates of its own"),
        false => Ok(roots),
    }
}

/// The certificates of a file, to be trusted in place of those.
///
/// # Errors
/// What is wrong with it, to stand after the name of a setting.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        let added = roots.add(certificate);
        added.map_err(|error| format!("names a file with a certificate that is none: {error}"))?;
    }
    Ok(roots)
}

/// The content of a file.
///
/// # Errors
/// What is wrong with it and what to do, to stand after the name of a setting.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| match Obstacle::to_looking(path) {
        Some(obstacle) => format!("names a file that cannot be read: {obstacle}"),
        None => format!("names {shown}, which cannot be read: {error}"),
    })?;
    if let Some(found) = what_is_no_file(&metadata) {
        return Err(format!("names {shown}, which is {found} and not a file"));
    }
    if let Some(obstacle) = Obstacle::to_looking(path) {
        return Err(format!("names a file that cannot be read: {obstacle}"));
    }
    let mut content = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content));
    match read {
        Err(error) => Err(format!("names {shown}, which cannot be read: {error}")),
        Ok(length) if length as u64 > FILE_BYTES_MAX => {
            Err(format!("names {shown}, which is longer than 4 MiB"))
        }
        Ok(_) => Ok(content),
    }
}

/// The certificates of a file, of which there is at least one.
///
/// # Errors
/// What is wrong with it, to stand after the name of a setting.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(
            "names a file without a certificate; it has to hold them in PEM, which begins \
                      with -----BEGIN CERTIFICATE-----"
                .to_owned(),
        ),
        Err(error) => Err(format!("names a file that is no PEM: {error}")),
    }
}

/// The private key of a file.
///
/// # Errors
/// What is wrong with it, to stand after the name of a setting.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    const ENCRYPTED: &[u8] = b"ENCRYPTED PRIVATE KEY-----";
    let is_encrypted = |part: &[u8]| part == ENCRYPTED || part.starts_with(b"Proc-Type: 4,ENC");
    if pem.windows(ENCRYPTED.len()).any(is_encrypted) {
        return Err(
            "names a key that is encrypted; write it without a password, as \
                    `openssl pkey -in KEY -out NEW` does"
                .to_owned(),
        );
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        "names a file without a private key; it has to hold one in PEM, as PKCS#8, PKCS#1 or SEC1"
            .to_owned()
    })
}

/// What is wrong with a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is the certificates.
    Certificate(String),
    /// It is the key.
    Key(String),
}

/// Certificates with the key of the first, checked to belong together.
///
/// # Errors
/// Which of the two is wrong and why.
pub fn certified_key(certificates_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, Unusable> {
    let chain = certificates(certificates_pem).map_err(Unusable::Certificate)?;
    let key = private_key(key_pem).map_err(Unusable::Key)?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            Unusable::Key("names a key that is not that of the certificate".to_owned())
        }
        rustls::Error::InvalidCertificate(error) => Unusable::Certificate(format!(
            "names a file whose first certificate is none: {error}"
        )),
        error => Unusable::Key(format!("names a key that cannot be used: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_and_no_key_is_named() {
        for (pem, part) in [
            (&b""[..], "without a certificate"),
            (b"garbage \xff\0", "without a certificate"),
            (
                b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
                "no PEM",
            ),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "no PEM"),
        ] {
            let error = certificates(pem).expect_err("none");
            assert!(error.contains(part), "{error}");
        }
        for (pem, part) in [
            (&b""[..], "without a private key"),
            (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "encrypted"),
            (b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n", "encrypted"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "without a private key"),
        ] {
            let error = private_key(pem).expect_err("none");
            assert!(error.contains(part), "{error}");
        }
        let certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let error = certified_key(certificate, key).expect_err("neither");
        assert!(matches!(error, Unusable::Key(_)), "{error:?}");
    }

    #[test]
    fn a_file_that_is_none_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, part) in [
            (folder.path().to_owned(), "a folder"),
            (folder.path().join("nowhere.pem"), "nowhere.pem"),
            ("/dev/zero".into(), "a device"),
        ] {
            let error = read(&path).expect_err("no file");
            assert!(error.contains(part), "{error}");
        }
    }
}
