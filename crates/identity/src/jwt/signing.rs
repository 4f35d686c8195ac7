//! Private keys, with which this service signs its own tokens.
//!
//! A private key leaves this module as PKCS #8 alone, to be stored. Debug output hides it.

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Algorithm, KeyRefusal, VerifyingKey};

/// Why a key cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The library gives no reason.
    #[error("the signature library failed")]
    Library,
    /// What is stored is not a private key of this algorithm.
    #[error("what is stored is not a {} private key in PKCS #8", .0.name())]
    Pkcs8(Algorithm),
    /// Those who check its signatures would refuse the key.
    #[error("the stored key cannot be used")]
    Key(#[from] KeyRefusal),
    /// The claims are not JSON.
    #[error("the claims cannot be written as JSON")]
    Claims(#[from] serde_json::Error),
}

impl From<aws_lc_rs::error::Unspecified> for SigningError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::Library
    }
}

/// A private key and the one algorithm it is for.
pub(crate) struct SigningKey {
    pair: Pair,
    kid: String,
    jwk: Value,
    verifying: VerifyingKey,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Draws a new key: Ed25519, P-256 or RSA of 2048 bits. The last takes a noticeable moment.
    ///
    /// # Errors
    /// [`SigningError::Library`].
    pub(crate) fn generate(algorithm: Algorithm) -> Result<Self, SigningError> {
        let pair = match algorithm {
            Algorithm::EdDsa => Pair::Ed25519(Ed25519KeyPair::generate()?),
            Algorithm::Es256 => {
                Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?)
            }
            Algorithm::Rs256 => Pair::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048)?)),
        };
        Self::new(pair)
    }

    /// Reads a key that [`SigningKey::pkcs8`] wrote.
    ///
    /// # Errors
    /// [`SigningError::Pkcs8`], [`SigningError::Key`].
    pub(crate) fn from_pkcs8(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, SigningError> {
        let pair = match algorithm {
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8(pkcs8).map(Pair::Ed25519),
            Algorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map(Pair::P256)
            }
            Algorithm::Rs256 => RsaKeyPair::from_pkcs8(pkcs8).map(|pair| Pair::Rsa(Box::new(pair))),
        };
        Self::new(pair.map_err(|_| SigningError::Pkcs8(algorithm))?)
    }

    fn new(pair: Pair) -> Result<Self, SigningError> {
        let encoded = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
        // The members that RFC 7638 asks for, in its order.
        let (algorithm, required) = match &pair {
            Pair::Ed25519(pair) => {
                let x = encoded(pair.public_key().as_ref());
                let required = vec![("crv", json!("Ed25519")), ("kty", json!("OKP")), ("x", x)];
                (Algorithm::EdDsa, required)
            }
            Pair::P256(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (encoded(&point[1..33]), encoded(&point[33..]));
                let (crv, kty) = (json!("P-256"), json!("EC"));
                let required = vec![("crv", crv), ("kty", kty), ("x", x), ("y", y)];
                (Algorithm::Es256, required)
            }
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                let n = encoded(public.modulus().big_endian_without_leading_zero());
                let e = encoded(public.exponent().big_endian_without_leading_zero());
                let required = vec![("e", e), ("kty", json!("RSA")), ("n", n)];
                (Algorithm::Rs256, required)
            }
        };
        let mut jwk: Map<String, Value> = required
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(serde_json::to_vec(&jwk)?));
        jwk.insert("kid".into(), kid.as_str().into());
        jwk.insert("alg".into(), algorithm.name().into());
        jwk.insert("use".into(), "sig".into());
        let jwk = Value::Object(jwk);
        Ok(Self {
            verifying: VerifyingKey::from_jwk(&jwk)?,
            pair,
            kid,
            jwk,
        })
    }

    /// The private key, to be stored where only this service reads it.
    ///
    /// # Errors
    /// [`SigningError::Library`].
    pub(crate) fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, SigningError> {
        let bytes = match &self.pair {
            Pair::Ed25519(pair) => pair.to_pkcs8v1()?.as_ref().to_vec(),
            Pair::P256(pair) => pair.to_pkcs8v1()?.as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der()?;
                der.as_ref().to_vec()
            }
        };
        Ok(Zeroizing::new(bytes))
    }

    /// What it is for.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.verifying.algorithm()
    }

    /// Its name: the thumbprint of its public part (RFC 7638).
    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// Its public part, to be published.
    pub(crate) fn public_jwk(&self) -> Value {
        self.jwk.clone()
    }

    /// Its public part, to check tokens with.
    pub(crate) fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// A token of the type `typ` (`at+jwt`, `JWT`) that says `claims`.
    ///
    /// # Errors
    /// [`SigningError::Claims`], [`SigningError::Library`].
    pub(crate) fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String, SigningError> {
        let header = json!({"alg": self.algorithm().name(), "typ": typ, "kid": self.kid});
        let mut token = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header)?);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(claims)?, &mut token);
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    pub(super) fn signature(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        let random = SystemRandom::new();
        Ok(match &self.pair {
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::P256(pair) => pair.sign(&random, message)?.as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                signature
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn a_stored_key_is_the_same_key() {
        for algorithm in Algorithm::ALL {
            let key = SigningKey::generate(algorithm).unwrap();
            let stored = SigningKey::from_pkcs8(algorithm, &key.pkcs8().unwrap()).unwrap();
            assert_eq!(stored.public_jwk(), key.public_jwk());
            let token = stored.sign("at+jwt", &json!({"sub": "ada"})).unwrap();
            let token = read(token.as_bytes()).unwrap();
            assert_eq!(token.verify_signature(key.verifying_key()), Ok(()));
            assert_eq!(
                (token.kid(), token.typ()),
                (Some(key.kid()), Some("at+jwt"))
            );
        }
    }

    #[test]
    fn a_key_of_another_algorithm_or_no_key_is_refused() {
        let stored = SigningKey::generate(Algorithm::Es256)
            .unwrap()
            .pkcs8()
            .unwrap();
        for (algorithm, bytes) in [
            (Algorithm::EdDsa, stored.as_slice()),
            (Algorithm::Rs256, stored.as_slice()),
            (Algorithm::Es256, &stored[..stored.len() - 1]),
            (Algorithm::Es256, b""),
        ] {
            let error = SigningKey::from_pkcs8(algorithm, bytes).expect_err("refused");
            assert!(error.to_string().contains(algorithm.name()), "{error}");
        }
    }

    #[test]
    fn the_name_is_the_thumbprint() {
        // RFC 8037, appendices A.1 and A.3: the seed of the key and its thumbprint.
        let seed = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
        let seed = URL_SAFE_NO_PAD.decode(seed).unwrap();
        let pkcs8 = [
            b"\x30\x2e\x02\x01\0\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20",
            &seed[..],
        ];
        let key = SigningKey::from_pkcs8(Algorithm::EdDsa, &pkcs8.concat()).unwrap();
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let expected = json!({
            "crv": "Ed25519", "kty": "OKP", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            "kid": key.kid(), "alg": "EdDSA", "use": "sig",
        });
        assert_eq!(key.public_jwk(), expected);
    }

    #[test]
    fn debug_output_hides_the_key() {
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let shown = format!("{key:?}");
        assert_eq!(shown, format!("SigningKey {{ kid: {:?}, .. }}", key.kid()));
    }
}
