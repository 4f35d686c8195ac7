//! The keys that an issuer publishes (JWK set, RFC 7517), and which of them a token is checked with.

use std::sync::Arc;

use serde_json::Value;

use crate::jwt::{KeyRefusal, Unverified, VerifyingKey, parse_object};

const KEYS_MAX: usize = 100;

/// The usable keys of a set, and why others are not.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    keys: Vec<Arc<VerifyingKey>>,
    ignored: Vec<Ignored>,
}

/// Why a key of a set is not used. Most sets have such keys, for encryption say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ignored {
    /// The key itself is not usable.
    #[error(transparent)]
    Unusable(#[from] KeyRefusal),
    /// Which of them signed could not be told.
    #[error("two keys of the set have one \"kid\"")]
    SameKid,
}

/// The text is no key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeySetError {
    /// Not an object with a list `keys`, or a member twice.
    #[error("the answer is not a JWK set")]
    NotAKeySet,
    /// More keys than anybody needs.
    #[error("the JWK set has more than {KEYS_MAX} keys")]
    TooManyKeys,
}

impl KeySet {
    /// Reads a key set.
    ///
    /// # Errors
    /// [`KeySetError`]. A key that cannot be used is no error: it is ignored.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let set = parse_object(text).map_err(|_| KeySetError::NotAKeySet)?;
        let Some(Value::Array(jwks)) = set.get("keys") else {
            return Err(KeySetError::NotAKeySet);
        };
        if jwks.len() > KEYS_MAX {
            return Err(KeySetError::TooManyKeys);
        }
        let mut read = Self::default();
        for jwk in jwks {
            match VerifyingKey::from_jwk(jwk) {
                Ok(key) => read.keys.push(Arc::new(key)),
                Err(refusal) => read.ignored.push(refusal.into()),
            }
        }
        read.drop_ambiguous();
        Ok(read)
    }

    fn drop_ambiguous(&mut self) {
        let kids: Vec<Option<String>> = self
            .keys
            .iter()
            .map(|key| key.kid().map(str::to_owned))
            .collect();
        let same = |kid: Option<&str>| {
            let alike = kids.iter().filter(|other| other.as_deref() == kid);
            kid.is_some() && alike.count() > 1
        };
        let before = self.keys.len();
        self.keys.retain(|key| !same(key.kid()));
        let dropped = before - self.keys.len();
        self.ignored
            .extend(std::iter::repeat_n(Ignored::SameKid, dropped));
    }

    /// The key that a token names; for a token that names none, the only one of its algorithm.
    pub(crate) fn find(&self, token: &Unverified<'_>) -> Option<&Arc<VerifyingKey>> {
        if token.kid().is_some() {
            return self.keys.iter().find(|key| key.kid() == token.kid());
        }
        let mut fitting = self
            .keys
            .iter()
            .filter(|key| key.algorithm() == token.algorithm());
        let first = fitting.next();
        first.filter(|_| fitting.next().is_none())
    }

    /// Whether no key can be used.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Why keys are not used.
    pub(crate) fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::wycheproof::{ACCEPTED, SYMMETRIC, Verdicts};
    use crate::jwt::{Algorithm, SigningKey, read};
    use proptest::prelude::*;
    use serde_json::json;

    const VECTORS: &str = include_str!("../../tests/wycheproof/json_web_key_test.json");

    fn signing(algorithm: Algorithm) -> SigningKey {
        SigningKey::generate(algorithm).unwrap()
    }

    fn set(keys: &[Value]) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    fn without_kid(mut jwk: Value) -> Value {
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    }

    #[test]
    fn a_token_gets_the_key_it_names() {
        let (a, b) = (signing(Algorithm::EdDsa), signing(Algorithm::EdDsa));
        let keys = set(&[a.public_jwk(), b.public_jwk()]);
        for key in [&a, &b] {
            let token = key.sign("JWT", &json!({})).unwrap();
            let token = read(token.as_bytes()).unwrap();
            assert_eq!(keys.find(&token).and_then(|key| key.kid()), Some(key.kid()));
        }
        let stranger = signing(Algorithm::EdDsa).sign("JWT", &json!({})).unwrap();
        assert!(keys.find(&read(stranger.as_bytes()).unwrap()).is_none());
        let nameless = set(&[without_kid(a.public_jwk())]);
        let named = a.sign("JWT", &json!({})).unwrap();
        assert!(nameless.find(&read(named.as_bytes()).unwrap()).is_none());
    }

    #[test]
    fn a_token_that_names_none_gets_the_only_one_of_its_algorithm() {
        // Header {"alg":"EdDSA"}.
        let token = read(b"eyJhbGciOiJFZERTQSJ9.e30.AAAA").unwrap();
        let (a, b) = (signing(Algorithm::EdDsa), signing(Algorithm::EdDsa));
        let other = signing(Algorithm::Es256).public_jwk();
        let found = |keys: &[Value]| set(keys).find(&token).is_some();
        assert!(found(&[a.public_jwk(), other.clone()]));
        assert!(!found(&[a.public_jwk(), b.public_jwk(), other.clone()]));
        assert!(!found(&[other]));
    }

    #[test]
    fn what_cannot_be_used_is_ignored_for_a_reason() {
        let key = signing(Algorithm::Es256).public_jwk();
        let mut encryption = key.clone();
        encryption["use"] = json!("enc");
        let mut private = key.clone();
        private["d"] = json!("AAAA");
        let keys = set(&[
            encryption,
            private,
            json!({"kty": "oct", "k": "AAAA"}),
            json!(7),
            key,
        ]);
        assert!(!keys.is_empty());
        let reasons = [
            KeyRefusal::Purpose,
            KeyRefusal::Private,
            KeyRefusal::Private,
            KeyRefusal::Kind,
        ];
        assert_eq!(keys.ignored(), reasons.map(Ignored::Unusable));
        let twin = signing(Algorithm::Es256).public_jwk();
        let mut other = signing(Algorithm::EdDsa).public_jwk();
        other["kid"] = twin["kid"].clone();
        let keys = set(&[twin, other]);
        assert!(keys.is_empty());
        assert_eq!(keys.ignored(), [Ignored::SameKid, Ignored::SameKid]);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            r#"{"keys":[],"keys":[]}"#,
            "<html>",
        ] {
            let refused = KeySet::parse(text.as_bytes()).expect_err(text);
            assert_eq!(refused, KeySetError::NotAKeySet, "{text}");
        }
        let keys = |n| json!({"keys": vec![json!({}); n]}).to_string();
        assert!(KeySet::parse(keys(KEYS_MAX).as_bytes()).is_ok());
        let refused = KeySet::parse(keys(KEYS_MAX + 1).as_bytes()).expect_err("many");
        assert_eq!(refused, KeySetError::TooManyKeys);
    }

    #[test]
    fn wycheproof_key_sets() {
        let verdicts = Verdicts::of(VECTORS, |group, test| {
            let token = test["jws"].as_str().ok_or("not the compact form")?;
            let token = read(token.as_bytes()).map_err(|refusal| refusal.to_string())?;
            // Groups of secret keys have no public ones.
            let set = group.get("public").unwrap_or(&group["private"]);
            let set = KeySet::parse(set.to_string().as_bytes()).map_err(|e| e.to_string())?;
            let ignored = set.ignored().first().map(Ignored::to_string);
            let key = set.find(&token).ok_or(ignored.unwrap_or_default())?;
            let verdict = token.verify_signature(key);
            verdict.map_err(|refusal| refusal.to_string())
        });
        let kind = "the key is neither Ed25519 nor P-256 nor RSA, or its \"alg\" is not for it";
        verdicts.assert(
            &[(ACCEPTED, 1), (SYMMETRIC, 4)],
            &[
                (SYMMETRIC, 11),
                (
                    "the key is not for checking signatures (\"use\", \"key_ops\")",
                    2,
                ),
                ("the RSA key is weak", 2),
                ("the RSA key does not have 2048 to 8192 bits", 1),
                (kind, 4),
                ("the P-256 key is not a point on its curve", 1),
            ],
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r#"\{"keys":\[.{0,100}\]\}"#) {
            let _ = KeySet::parse(text.as_bytes());
        }
    }
}
