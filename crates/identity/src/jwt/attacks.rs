//! Each known attack on a reader of tokens, tried on ours.

use std::time::Duration;

use auspex_kernel::{Clock, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW_S: i64 = 1_769_335_200;
const ISSUER: &str = "https://auspex.example.org";
const EXPECTED: Expectations<'_> = Expectations {
    issuer: ISSUER,
    audiences: &["auspex", "auspex-api"],
    types: &[Some("at+jwt")],
    leeway_s: 60,
};

fn now() -> Timestamp {
    Timestamp(NOW_S * 1_000_000)
}

fn key(algorithm: Algorithm) -> SigningKey {
    SigningKey::generate(algorithm).unwrap()
}

fn claims() -> Value {
    json!({
        "sub": "ada", "iss": ISSUER, "aud": "auspex", "exp": NOW_S + 600, "iat": NOW_S,
        "nbf": NOW_S, "jti": "t1", "scope": "predict", "role": "viewer", "locale": "en",
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn judge_by(token: &str, key: &SigningKey, expected: &Expectations<'_>) -> Result<Claims, Refusal> {
    verify(
        &read(token.as_bytes())?,
        key.verifying_key(),
        expected,
        now(),
    )
}

fn judge(token: &str, key: &SigningKey) -> Result<Claims, Refusal> {
    judge_by(token, key, &EXPECTED)
}

/// A token with these texts as header and payload, rightly signed with an Ed25519 key.
fn forge(key: &SigningKey, header: &str, payload: &str) -> String {
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let signature = key.signature(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The same with right claims, and `members` beside `alg` and `typ`.
fn with_header(key: &SigningKey, members: &str) -> String {
    let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt",{members}}}"#);
    forge(key, &header, &claims().to_string())
}

#[test]
fn a_right_token_is_taken_with_all_it_says() {
    for algorithm in Algorithm::ALL {
        let key = key(algorithm);
        let claims = judge(&key.sign("at+jwt", &claims()).unwrap(), &key).unwrap();
        assert_eq!((claims.sub.as_str(), claims.iss.as_str()), ("ada", ISSUER));
        assert_eq!(
            (claims.exp, claims.iat, claims.nbf),
            (NOW_S + 600, Some(NOW_S), Some(NOW_S))
        );
        assert_eq!(
            (claims.jti.as_deref(), claims.scope.as_deref()),
            (Some("t1"), Some("predict"))
        );
        assert_eq!(
            (claims.aud, claims.role),
            (vec!["auspex".into()], vec!["viewer".to_owned()])
        );
        assert_eq!(Value::Object(claims.other), json!({"locale": "en"}));
    }
}

#[test]
fn unsigned_tokens_are_refused_in_any_spelling() {
    let key = key(Algorithm::EdDsa);
    let payload = URL_SAFE_NO_PAD.encode(claims().to_string());
    for none in ["none", "None", "NONE", "nOnE"] {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{none}","typ":"at+jwt"}}"#));
        for signature in ["", "AAAA"] {
            let token = format!("{header}.{payload}.{signature}");
            assert_eq!(judge(&token, &key), Err(Refusal::AlgorithmNone), "{none}");
        }
    }
    let right = key.sign("at+jwt", &claims()).unwrap();
    let stripped = &right[..=right.rfind('.').unwrap()];
    assert_eq!(judge(stripped, &key), Err(Refusal::Signature));
}

#[test]
fn a_public_key_is_no_secret() {
    let key = key(Algorithm::Rs256);
    let jwk = key.public_jwk().to_string();
    for (alg, hash) in [
        ("HS256", aws_lc_rs::hmac::HMAC_SHA256),
        ("HS512", aws_lc_rs::hmac::HMAC_SHA512),
    ] {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}","typ":"at+jwt"}}"#));
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims().to_string()));
        let secret = aws_lc_rs::hmac::Key::new(hash, jwk.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&secret, signed.as_bytes());
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
        assert_eq!(judge(&token, &key), Err(Refusal::AlgorithmSymmetric));
    }
}

#[test]
fn the_algorithm_is_the_keys() {
    let keys = Algorithm::ALL.map(key);
    for signer in &keys {
        let token = signer.sign("at+jwt", &claims()).unwrap();
        for checker in &keys {
            let expected = signer.algorithm() == checker.algorithm();
            let verdict = judge(&token, checker);
            assert_eq!(verdict.is_ok(), expected);
            assert!(expected || verdict == Err(Refusal::AlgorithmMismatch));
        }
        let stranger = key(signer.algorithm());
        assert_eq!(judge(&token, &stranger), Err(Refusal::Signature));
    }
    let key = key(Algorithm::EdDsa);
    for (alg, refusal) in [
        (r#""PS256""#, Refusal::AlgorithmUnsupported),
        (r#""ES512""#, Refusal::AlgorithmUnsupported),
        (r#""eddsa""#, Refusal::AlgorithmUnsupported),
        (r#""""#, Refusal::AlgorithmUnsupported),
        ("1", Refusal::HeaderMember("alg")),
        ("null", Refusal::HeaderMember("alg")),
        (r#"["EdDSA"]"#, Refusal::HeaderMember("alg")),
    ] {
        let token = forge(&key, &format!(r#"{{"alg":{alg}}}"#), &claims().to_string());
        assert_eq!(judge(&token, &key), Err(refusal), "{alg}");
    }
    let token = forge(&key, r#"{"typ":"at+jwt"}"#, &claims().to_string());
    assert_eq!(judge(&token, &key), Err(Refusal::HeaderMember("alg")));
}

#[test]
fn headers_that_bring_a_key_or_change_the_reading_are_refused() {
    let key = key(Algorithm::EdDsa);
    let jwk = key.public_jwk();
    for (members, name) in [
        (r#""jku":"https://example.org/jwks""#.to_owned(), "jku"),
        (r#""x5u":"https://example.org/cert""#.to_owned(), "x5u"),
        (format!(r#""jwk":{jwk}"#), "jwk"),
        (r#""x5c":["AAAA"]"#.to_owned(), "x5c"),
        (r#""crit":["exp"],"exp":1"#.to_owned(), "crit"),
        (r#""crit":[]"#.to_owned(), "crit"),
        (r#""b64":false"#.to_owned(), "b64"),
        (r#""b64":true"#.to_owned(), "b64"),
        (r#""zip":"DEF""#.to_owned(), "zip"),
        (r#""enc":"A256GCM""#.to_owned(), "enc"),
    ] {
        let token = with_header(&key, &members);
        assert_eq!(judge(&token, &key), Err(Refusal::HeaderForbidden(name)));
    }
    assert!(judge(&with_header(&key, r#""x5t":"AAAA","foo":1"#), &key).is_ok());
}

#[test]
fn a_kid_is_text_to_compare_and_nothing_else() {
    let key = key(Algorithm::EdDsa);
    for kid in [
        "../../../../dev/null",
        "' OR 1=1 --",
        "key\0.pem",
        "https://example.org/key",
        "$(id)",
        "",
        &"k".repeat(256),
    ] {
        let token = with_header(&key, &format!(r#""kid":{}"#, json!(kid)));
        assert_eq!(
            read(token.as_bytes()).map(|t| t.kid() == Some(kid)),
            Ok(true),
            "{kid:?}"
        );
    }
    for kid in [json!(1), json!(null), json!(["a"]), json!("k".repeat(257))] {
        let token = with_header(&key, &format!(r#""kid":{kid}"#));
        assert_eq!(
            judge(&token, &key),
            Err(Refusal::HeaderMember("kid")),
            "{kid}"
        );
    }
}

#[test]
fn wrong_issuer_audience_and_type_are_refused() {
    let key = key(Algorithm::EdDsa);
    let verdict = |claims: &Value| judge(&key.sign("at+jwt", claims).unwrap(), &key).err();
    for (claims, refusal) in [
        (
            with("iss", json!("https://auspex.example.org/")),
            Refusal::Issuer,
        ),
        (with("iss", json!([ISSUER])), Refusal::ClaimMalformed("iss")),
        (without("iss"), Refusal::ClaimMissing("iss")),
        (with("aud", json!("other")), Refusal::Audience),
        (with("aud", json!("AUSPEX")), Refusal::Audience),
        (with("aud", json!([])), Refusal::Audience),
        (with("aud", json!(["other", "auspex2"])), Refusal::Audience),
        (
            with("aud", json!({"auspex": 1})),
            Refusal::ClaimMalformed("aud"),
        ),
        (
            with("aud", json!(["auspex", 1])),
            Refusal::ClaimMalformed("aud"),
        ),
        (without("aud"), Refusal::ClaimMissing("aud")),
        (with("sub", json!("")), Refusal::ClaimMalformed("sub")),
        (with("sub", json!(7)), Refusal::ClaimMalformed("sub")),
        (
            with("sub", json!("s".repeat(257))),
            Refusal::ClaimMalformed("sub"),
        ),
        (without("sub"), Refusal::ClaimMissing("sub")),
        (with("jti", json!(7)), Refusal::ClaimMalformed("jti")),
        (
            with("scope", json!(["predict"])),
            Refusal::ClaimMalformed("scope"),
        ),
        (with("role", json!([1])), Refusal::ClaimMalformed("role")),
    ] {
        assert_eq!(verdict(&claims), Some(refusal), "{claims}");
    }
    assert_eq!(verdict(&with("aud", json!(["other", "auspex-api"]))), None);
    assert_eq!(verdict(&without("jti")), None);

    for (typ, expected) in [
        ("at+jwt", true),
        ("AT+JWT", true),
        ("application/at+jwt", true),
        ("Application/AT+jwt", true),
        ("JWT", false),
        ("", false),
        ("application/", false),
        ("at+jwt ", false),
        ("text/at+jwt", false),
    ] {
        let verdict = judge(&key.sign(typ, &claims()).unwrap(), &key);
        assert_eq!(verdict.is_ok(), expected, "{typ}");
        assert!(expected || verdict == Err(Refusal::Type));
    }
    let untyped = forge(&key, r#"{"alg":"EdDSA"}"#, &claims().to_string());
    assert_eq!(judge(&untyped, &key), Err(Refusal::Type));
    let lenient = Expectations {
        types: &[Some("JWT"), None],
        ..EXPECTED
    };
    assert!(judge_by(&untyped, &key, &lenient).is_ok());
    for typ in ["1", "null", &format!("\"{}\"", "t".repeat(65))] {
        let header = format!(r#"{{"alg":"EdDSA","typ":{typ}}}"#);
        let token = forge(&key, &header, &claims().to_string());
        assert_eq!(
            judge_by(&token, &key, &lenient),
            Err(Refusal::HeaderMember("typ"))
        );
    }
}

#[test]
fn times_are_numbers_and_are_kept() {
    let key = key(Algorithm::EdDsa);
    for name in ["exp", "nbf", "iat"] {
        for wrong in [
            "\"1769335800\"",
            "-1",
            "-0.5",
            "1e16",
            "null",
            "[]",
            "1e999",
            "18446744073709551615",
        ] {
            let mut claims = claims();
            claims[name] = json!("HERE");
            let payload = claims.to_string().replace("\"HERE\"", wrong);
            let token = forge(&key, r#"{"alg":"EdDSA","typ":"at+jwt"}"#, &payload);
            let refusal = judge(&token, &key).expect_err(wrong);
            let malformed = Refusal::ClaimMalformed(name);
            assert!(
                refusal == malformed
                    || (wrong == "1e999" && refusal == Refusal::NotAnObject("payload")),
                "{name} {wrong} {refusal}"
            );
        }
    }
    let verdict = |claims: &Value| judge(&key.sign("at+jwt", claims).unwrap(), &key).err();
    for (name, offset, expected) in [
        ("exp", 1, None),
        ("exp", 0, Some(Refusal::Expired)),
        ("exp", -NOW_S, Some(Refusal::Expired)),
        ("nbf", 60, None),
        ("nbf", 61, Some(Refusal::NotYetValid)),
        ("iat", 60, None),
        ("iat", 61, Some(Refusal::IssuedInTheFuture)),
    ] {
        let claims = with(name, json!(NOW_S + offset));
        assert_eq!(verdict(&claims), expected, "{name} {offset}");
    }
    for (fraction, expected) in [(0.0, None), (0.5, None), (-0.5, Some(Refusal::Expired))] {
        let ends = (NOW_S + 1) as f64 + fraction;
        assert_eq!(verdict(&with("exp", json!(ends))), expected, "{ends}");
    }
    assert_eq!(verdict(&without("exp")), Some(Refusal::ClaimMissing("exp")));
    assert_eq!(verdict(&without("nbf")), None);
    assert_eq!(verdict(&with("exp", json!(i64::MAX))), None);

    let clock = Clock::manual(now());
    let token = key.sign("at+jwt", &with("exp", json!(NOW_S + 1))).unwrap();
    let token = read(token.as_bytes()).unwrap();
    let verdict =
        |clock: &Clock| verify(&token, key.verifying_key(), &EXPECTED, clock.now()).is_ok();
    clock.advance(Duration::from_micros(999_999));
    assert!(verdict(&clock));
    clock.advance(Duration::from_micros(1));
    assert!(!verdict(&clock));
}

#[test]
fn what_occurs_twice_is_refused() {
    let key = key(Algorithm::EdDsa);
    let claims = claims().to_string();
    let (open, rest) = claims.split_at(1);
    let header = r#"{"alg":"EdDSA","typ":"at+jwt"}"#;
    for twice in [
        r#""sub":"root","#,
        r#""s\u0075b":"root","#,
        r#""x":{"a":1,"a":2},"#,
    ] {
        let token = forge(&key, header, &format!("{open}{twice}{rest}"));
        assert_eq!(
            judge(&token, &key),
            Err(Refusal::DuplicateMember("payload")),
            "{twice}"
        );
    }
    let header = r#"{"alg":"none","alg":"EdDSA","typ":"at+jwt"}"#;
    let token = forge(&key, header, &claims);
    assert_eq!(judge(&token, &key), Err(Refusal::DuplicateMember("header")));
    for (header, payload, part) in [
        ("[]", claims.as_str(), "header"),
        ("", claims.as_str(), "header"),
        (r#"{"alg":"EdDSA","typ":"at+jwt"}"#, "[]", "payload"),
        (r#"{"alg":"EdDSA","typ":"at+jwt"}"#, "\"text\"", "payload"),
    ] {
        let token = forge(&key, header, payload);
        assert_eq!(judge(&token, &key), Err(Refusal::NotAnObject(part)));
    }
}

#[test]
fn the_form_is_kept_to_the_letter() {
    let key = key(Algorithm::EdDsa);
    let right = key.sign("at+jwt", &claims()).unwrap();
    let parts: Vec<&str> = right.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        panic!("three parts")
    };
    for token in [
        String::new(),
        "..".into(),
        format!("{header}.{payload}"),
        format!("{right}."),
        format!("{right}.{signature}"),
        format!("{right}.AAAA.AAAA"),
        format!(".{right}"),
        format!("{header}..{signature}"),
        format!("{right}="),
        format!("{right}=="),
        format!("{header}=.{payload}.{signature}"),
        format!("{right} "),
        format!("{right}\n"),
        format!(" {right}"),
        format!("{header}.{payload} .{signature}"),
        right.replace(['-', '_'], "+"),
        format!("{header}.{payload}.{signature}A"),
        format!("{header}.{payload}.{signature}AA"),
        json!({"protected": header, "payload": payload, "signature": signature}).to_string(),
    ] {
        if token != right {
            assert!(judge(&token, &key).is_err(), "{token}");
        }
    }
    let long = key
        .sign("at+jwt", &with("x", json!("x".repeat(8_000))))
        .unwrap();
    assert!(long.len() > 8_192);
    assert_eq!(judge(&long, &key), Err(Refusal::TooLong));
    let short = key
        .sign("at+jwt", &with("x", json!("x".repeat(5_500))))
        .unwrap();
    assert!(judge(&short, &key).is_ok());
}

#[test]
fn no_reason_repeats_the_token() {
    let key = key(Algorithm::EdDsa);
    let token = key
        .sign("at+jwt", &with("iss", json!("https://secret.example")))
        .unwrap();
    let refusal = judge(&token, &key).expect_err("refused");
    assert!(!format!("{refusal} {refusal:?}").contains("secret"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn any_header_and_payload_are_judged(header in ".{0,80}", payload in ".{0,80}") {
        let key = key(Algorithm::EdDsa);
        prop_assert!(judge(&forge(&key, &header, &payload), &key).is_err());
    }

    #[test]
    fn no_character_can_be_changed(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let key = key(Algorithm::EdDsa);
        let token = key.sign("at+jwt", &claims()).unwrap();
        let mut changed = token.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] = to;
        let verdict = read(&changed).and_then(|t| verify(&t, key.verifying_key(), &EXPECTED, now()));
        prop_assert_eq!(verdict.is_ok(), changed == token.as_bytes());
    }
}
