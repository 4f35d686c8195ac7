//! Public keys, as issuers publish them (JWK, RFC 7517 and 7518).
//!
//! A key is checked once, here, with all that its algorithm leaves open: a token's algorithm is
//! afterwards compared with the key's, never the other way round.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::Algorithm;

const KID_BYTES_MAX: usize = 256;
const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 8192;
/// What the signature library takes at most.
const RSA_EXPONENT_BITS_MAX: usize = 33;
/// Members that only private and secret keys have.
const PRIVATE: [&str; 9] = ["d", "k", "p", "q", "dp", "dq", "qi", "oth", "priv"];

/// Why a key is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// This signs, and must not be published.
    #[error("the key holds a private or secret part")]
    Private,
    /// `use` is not `sig`, or `key_ops` does not allow `verify`.
    #[error("the key is not for checking signatures (\"use\", \"key_ops\")")]
    Purpose,
    /// `kty`, `crv` and `alg` are none of the kinds in use, or contradict each other.
    #[error("the key is neither Ed25519 nor P-256 nor RSA, or its \"alg\" is not for it")]
    Kind,
    /// A member is missing, of the wrong type or length, or not base64url.
    #[error("the key has no usable \"{0}\"")]
    Member(&'static str),
    /// An RSA key outside 2048 to 8192 bits.
    #[error("the RSA key does not have 2048 to 8192 bits")]
    RsaBits,
    /// An RSA key of a kind known to be weak: even modulus, unfit exponent, or the pattern of
    /// CVE-2017-15361 (ROCA), whose private key can be computed.
    #[error("the RSA key is weak")]
    RsaWeak,
    /// The point is not on the curve.
    #[error("the P-256 key is not a point on its curve")]
    Point,
}

/// A public key and the one algorithm it is for.
#[derive(Clone, Debug)]
pub(crate) struct VerifyingKey {
    algorithm: Algorithm,
    kid: Option<String>,
    key: DecodingKey,
}

impl VerifyingKey {
    /// Reads a JSON Web Key.
    ///
    /// # Errors
    /// [`KeyRefusal`].
    pub(crate) fn from_jwk(jwk: &Value) -> Result<Self, KeyRefusal> {
        let jwk = jwk.as_object().ok_or(KeyRefusal::Kind)?;
        if PRIVATE.iter().any(|name| jwk.contains_key(*name)) {
            return Err(KeyRefusal::Private);
        }
        check_purpose(jwk)?;
        let kid = match jwk.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= KID_BYTES_MAX => Some(kid.clone()),
            Some(_) => return Err(KeyRefusal::Member("kid")),
        };
        let algorithm = algorithm(jwk)?;
        let key = match algorithm {
            Algorithm::EdDsa => ed25519(jwk)?,
            Algorithm::Es256 => p256(jwk)?,
            Algorithm::Rs256 => rsa(jwk)?,
        };
        Ok(Self {
            algorithm,
            kid,
            key,
        })
    }

    /// What it is for.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its name, if it has one.
    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether `signature`, in base64url, is this key's for exactly these bytes.
    pub(super) fn has_signed(&self, message: &[u8], signature: &str) -> bool {
        let algorithm = match self.algorithm {
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        };
        jsonwebtoken::crypto::verify(signature, message, &self.key, algorithm).unwrap_or(false)
    }
}

fn check_purpose(jwk: &Map<String, Value>) -> Result<(), KeyRefusal> {
    let for_signatures = jwk.get("use").is_none_or(|usage| usage == "sig");
    let to_verify = jwk.get("key_ops").is_none_or(|operations| {
        let operations = operations.as_array();
        operations.is_some_and(|operations| operations.iter().any(|one| one == "verify"))
    });
    if for_signatures && to_verify {
        Ok(())
    } else {
        Err(KeyRefusal::Purpose)
    }
}

fn algorithm(jwk: &Map<String, Value>) -> Result<Algorithm, KeyRefusal> {
    let text = |name| {
        jwk.get(name)
            .map(|value| value.as_str().unwrap_or_default())
    };
    let algorithm = match (text("kty"), text("crv")) {
        (Some("OKP"), Some("Ed25519")) => Algorithm::EdDsa,
        (Some("EC"), Some("P-256")) => Algorithm::Es256,
        (Some("RSA"), None) => Algorithm::Rs256,
        _ => return Err(KeyRefusal::Kind),
    };
    match text("alg") {
        Some(named) if named != algorithm.name() => Err(KeyRefusal::Kind),
        _ => Ok(algorithm),
    }
}

fn ed25519(jwk: &Map<String, Value>) -> Result<DecodingKey, KeyRefusal> {
    Ok(DecodingKey::from_ed_der(&bytes(jwk, "x", Some(32))?))
}

fn p256(jwk: &Map<String, Value>) -> Result<DecodingKey, KeyRefusal> {
    const UNCOMPRESSED: u8 = 4;
    let (x, y) = (bytes(jwk, "x", Some(32))?, bytes(jwk, "y", Some(32))?);
    let point = [&[UNCOMPRESSED], x.as_slice(), y.as_slice()].concat();
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).map_err(|_| KeyRefusal::Point)?;
    Ok(DecodingKey::from_ec_der(&point))
}

fn rsa(jwk: &Map<String, Value>) -> Result<DecodingKey, KeyRefusal> {
    let (n, e) = (bytes(jwk, "n", None)?, bytes(jwk, "e", None)?);
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits(&n)) {
        return Err(KeyRefusal::RsaBits);
    }
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    let fit = odd(&n) && odd(&e) && (2..=RSA_EXPONENT_BITS_MAX).contains(&bits(&e));
    if !fit || is_roca(&n) {
        return Err(KeyRefusal::RsaWeak);
    }
    Ok(DecodingKey::from_rsa_raw_components(&n, &e))
}

/// A number or coordinate. Numbers have no leading zeros (RFC 7518, 2), coordinates all of theirs.
fn bytes(
    jwk: &Map<String, Value>,
    name: &'static str,
    length: Option<usize>,
) -> Result<Vec<u8>, KeyRefusal> {
    let text = jwk.get(name).and_then(Value::as_str);
    let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let right = |bytes: &Vec<u8>| match length {
        Some(length) => bytes.len() == length,
        None => bytes.first().is_some_and(|first| *first != 0),
    };
    bytes.filter(right).ok_or(KeyRefusal::Member(name))
}

/// Of a number without leading zeros.
fn bits(number: &[u8]) -> usize {
    let unused = number.first().map_or(0, |first| first.leading_zeros());
    number.len() * 8 - unused as usize
}

/// Whether a modulus comes from the smart card library of CVE-2017-15361: its primes are powers of
/// 65537 modulo many small primes, and so is their product. Chance does that once in 2^27 keys.
/// (Nemec and others, "The Return of Coppersmith's Attack", 2017, section 5.)
fn is_roca(modulus: &[u8]) -> bool {
    const PRIMES: [u32; 17] = [
        11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157,
    ];
    PRIMES.into_iter().all(|prime| {
        let remainder = modulus
            .iter()
            .fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let mut power = 1;
        (0..prime).any(|_| {
            power = power * 65_537 % prime;
            power == remainder
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::SigningKey;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn published(algorithm: Algorithm) -> Value {
        SigningKey::generate(algorithm).unwrap().public_jwk()
    }

    fn with(jwk: &Value, name: &str, value: Value) -> Value {
        let mut jwk = jwk.clone();
        jwk[name] = value;
        jwk
    }

    fn without(jwk: &Value, name: &str) -> Value {
        let mut jwk = jwk.clone();
        jwk.as_object_mut().unwrap().remove(name);
        jwk
    }

    fn refusal(jwk: &Value) -> KeyRefusal {
        VerifyingKey::from_jwk(jwk).expect_err("refused")
    }

    #[test]
    fn what_says_nothing_wrong_is_taken() {
        for algorithm in Algorithm::ALL {
            let jwk = published(algorithm);
            let key = VerifyingKey::from_jwk(&jwk).unwrap();
            assert_eq!(
                (key.algorithm(), key.kid()),
                (algorithm, jwk["kid"].as_str())
            );
            let bare = ["kid", "alg", "use"]
                .iter()
                .fold(jwk.clone(), |jwk, name| without(&jwk, name));
            let key = VerifyingKey::from_jwk(&bare).unwrap();
            assert_eq!((key.algorithm(), key.kid()), (algorithm, None));
            let operations = with(&jwk, "key_ops", json!(["verify"]));
            assert!(VerifyingKey::from_jwk(&operations).is_ok());
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for algorithm in Algorithm::ALL {
            let jwk = published(algorithm);
            for private in PRIVATE {
                assert_eq!(
                    refusal(&with(&jwk, private, json!("AA"))),
                    KeyRefusal::Private
                );
            }
            for (name, value) in [
                ("use", json!("enc")),
                ("use", json!(null)),
                ("key_ops", json!(["sign"])),
                ("key_ops", json!("verify")),
            ] {
                assert_eq!(
                    refusal(&with(&jwk, name, value)),
                    KeyRefusal::Purpose,
                    "{name}"
                );
            }
            for (name, value) in [
                ("alg", json!("HS256")),
                ("alg", json!("none")),
                ("alg", json!(1)),
                ("kty", json!("oct")),
                ("crv", json!("secp256k1")),
                ("crv", json!("Ed448")),
            ] {
                assert_eq!(
                    refusal(&with(&jwk, name, value)),
                    KeyRefusal::Kind,
                    "{name}"
                );
            }
            assert_eq!(refusal(&without(&jwk, "kty")), KeyRefusal::Kind);
            assert_eq!(
                refusal(&with(&jwk, "kid", json!(7))),
                KeyRefusal::Member("kid")
            );
            let long = json!("k".repeat(KID_BYTES_MAX + 1));
            assert_eq!(refusal(&with(&jwk, "kid", long)), KeyRefusal::Member("kid"));
        }
        assert_eq!(refusal(&json!([])), KeyRefusal::Kind);
    }

    #[test]
    fn numbers_must_be_numbers_of_their_length() {
        for (algorithm, names) in [
            (Algorithm::EdDsa, &["x"][..]),
            (Algorithm::Es256, &["x", "y"]),
            (Algorithm::Rs256, &["n", "e"]),
        ] {
            let jwk = published(algorithm);
            for name in names {
                let padded = json!(format!("{}==", jwk[*name].as_str().unwrap()));
                for wrong in [json!(null), json!(""), json!("AAAA"), json!("+/+/"), padded] {
                    let wrong = with(&jwk, name, wrong);
                    assert_eq!(refusal(&wrong), KeyRefusal::Member(name));
                }
                assert_eq!(refusal(&without(&jwk, name)), KeyRefusal::Member(name));
            }
        }
    }

    #[test]
    fn points_off_the_curve_are_refused() {
        let jwk = published(Algorithm::Es256);
        let swapped = with(&with(&jwk, "x", jwk["y"].clone()), "y", jwk["x"].clone());
        assert_eq!(refusal(&swapped), KeyRefusal::Point);
        let zero = json!(URL_SAFE_NO_PAD.encode([0; 32]));
        let origin = with(&with(&jwk, "x", zero.clone()), "y", zero);
        assert_eq!(refusal(&origin), KeyRefusal::Point);
    }

    #[test]
    fn small_huge_and_weak_rsa_keys_are_refused() {
        let jwk = published(Algorithm::Rs256);
        let number = |bytes: &[u8]| json!(URL_SAFE_NO_PAD.encode(bytes));
        for length in [1, 128, 255, 1025] {
            let n = number(&vec![0xff; length]);
            assert_eq!(
                refusal(&with(&jwk, "n", n)),
                KeyRefusal::RsaBits,
                "{length}"
            );
        }
        for e in [&[1][..], &[2], &[1, 0, 0], &[4, 0, 0, 0, 1]] {
            assert_eq!(
                refusal(&with(&jwk, "e", number(e))),
                KeyRefusal::RsaWeak,
                "{e:?}"
            );
        }
        let mut even = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
        *even.last_mut().unwrap() &= 0xfe;
        assert_eq!(
            refusal(&with(&jwk, "n", number(&even))),
            KeyRefusal::RsaWeak
        );
    }

    proptest! {
        #[test]
        fn any_members_are_read_or_refused(
            kty in "OKP|EC|RSA", crv in "Ed25519|P-256", x in "[0-9A-Za-z_-]{0,50}", n in ".{0,50}",
        ) {
            let jwk = json!({"kty": kty, "crv": crv, "x": x, "y": x, "n": n, "e": "AQAB"});
            let _ = VerifyingKey::from_jwk(&jwk);
        }
    }
}
