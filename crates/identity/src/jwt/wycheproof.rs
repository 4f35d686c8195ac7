//! The test vectors of Project Wycheproof: of each a verdict, and of each refusal the reason.
//!
//! A vector marked invalid is refused. One marked valid is accepted, or refused because its algorithm
//! is none of ours (or, once, for a character foreign to base64url that a MAC covers). Vectors and
//! reasons are counted, so that none is skipped unnoticed.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{Refusal, VerifyingKey, read};

const SIGNATURES: &str = include_str!("../../tests/wycheproof/json_web_signature_test.json");
const ED25519: &str = include_str!("../../tests/wycheproof/ed25519_test.json");

pub(crate) type Verdict = Result<(), String>;

pub(crate) const ACCEPTED: &str = "accepted";
pub(crate) const SYMMETRIC: &str =
    "the token's algorithm is symmetric; only EdDSA, ES256 and RS256 are taken";
const UNSUPPORTED: &str = "the token's algorithm is none of EdDSA, ES256 and RS256";
const NO_FIT: &str = "the token's signature does not fit";

/// How often each verdict is reached, on vectors marked valid and on those marked invalid.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdicts {
    valid: BTreeMap<String, usize>,
    invalid: BTreeMap<String, usize>,
}

impl Verdicts {
    pub(crate) fn of(file: &str, judge: impl Fn(&Value, &Value) -> Verdict) -> Self {
        let file: Value = serde_json::from_str(file).unwrap();
        let mut verdicts = Self::default();
        let mut total = 0;
        for group in file["testGroups"].as_array().unwrap() {
            for test in group["tests"].as_array().unwrap() {
                let verdict = judge(group, test);
                let counts = match test["result"].as_str().unwrap() {
                    "valid" => &mut verdicts.valid,
                    _ => &mut verdicts.invalid,
                };
                let reason = verdict.err().unwrap_or_else(|| ACCEPTED.into());
                *counts.entry(reason).or_default() += 1;
                total += 1;
            }
        }
        assert_eq!(file["numberOfTests"].as_u64(), Some(total));
        verdicts
    }

    pub(crate) fn assert(&self, valid: &[(&str, usize)], invalid: &[(&str, usize)]) {
        let table = |rows: &[(&str, usize)]| {
            let rows = rows.iter().map(|(reason, n)| ((*reason).to_owned(), *n));
            rows.collect::<BTreeMap<_, _>>()
        };
        let expected = Self {
            valid: table(valid),
            invalid: table(invalid),
        };
        assert!(!expected.invalid.contains_key(ACCEPTED));
        assert_eq!(self, &expected, "{self:#?}");
    }
}

#[test]
fn signatures() {
    let verdicts = Verdicts::of(SIGNATURES, |group, test| {
        let token = test["jws"].as_str().ok_or("not the compact form")?;
        let token = read(token.as_bytes()).map_err(|refusal| refusal.to_string())?;
        // Groups of secret keys have no public ones.
        let jwk = group.get("public").unwrap_or(&group["private"]);
        let key = VerifyingKey::from_jwk(jwk).map_err(|refusal| refusal.to_string())?;
        let verdict = token.verify_signature(&key);
        verdict.map_err(|refusal| refusal.to_string())
    });
    verdicts.assert(
        &[
            (ACCEPTED, 10),
            (UNSUPPORTED, 26),
            (SYMMETRIC, 9),
            ("the token's header is not base64url without padding", 1),
        ],
        &[
            (UNSUPPORTED, 54),
            (SYMMETRIC, 18),
            ("the token is not signed: its algorithm is \"none\"", 5),
            ("the token does not have three parts", 18),
            ("the token's header is not base64url without padding", 2),
            ("the token's header is not a JSON object", 6),
            ("the token's header has \"jwk\", which is not supported", 1),
            (
                "the key is neither Ed25519 nor P-256 nor RSA, or its \"alg\" is not for it",
                1,
            ),
            (
                "the key is not for checking signatures (\"use\", \"key_ops\")",
                4,
            ),
            (NO_FIT, 246),
        ],
    );
}

#[test]
fn raw_ed25519() {
    let bytes = |text: &Value| -> Vec<u8> {
        let text = text.as_str().unwrap();
        let pairs = (0..text.len()).step_by(2);
        let bytes = pairs.map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap());
        bytes.collect()
    };
    let verdicts = Verdicts::of(ED25519, |group, test| {
        let key = VerifyingKey::from_jwk(&group["publicKeyJwk"]).map_err(|r| r.to_string())?;
        let signature = URL_SAFE_NO_PAD.encode(bytes(&test["sig"]));
        let fits = key.has_signed(&bytes(&test["msg"]), &signature);
        fits.then_some(())
            .ok_or_else(|| Refusal::Signature.to_string())
    });
    verdicts.assert(&[(ACCEPTED, 88)], &[(NO_FIT, 63)]);
}
