//! Tokens of another issuer, which publishes its keys over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use auspex_identity::Identity;
use auspex_kernel::{ApiError, Caller, Credential};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::person::caller_by;
use crate::store::{Store, settings};

const ISSUER: &str = "https://login.example.org/realms/main";

contract! {
    a_token_of_a_trusted_issuer_is_worth_its_roles
    a_token_of_an_unknown_key_or_for_others_is_refused
    an_issuer_that_is_down_is_no_fault_of_the_token
    a_withdrawn_key_is_soon_believed_no_more
}

/// An issuer with one key, and the server that publishes it.
struct Issuer {
    key: Ed25519KeyPair,
    url: String,
    requests: Arc<AtomicUsize>,
    published: Arc<parking_lot::Mutex<Option<String>>>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let issuer = Self {
            key: Ed25519KeyPair::generate().unwrap(),
            url,
            requests: Arc::default(),
            published: Arc::default(),
        };
        issuer.publish(&issuer.key);
        let (requests, published) = (issuer.requests.clone(), issuer.published.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                requests.fetch_add(1, Ordering::SeqCst);
                // Without keys it hangs up.
                let Some(body) = published.lock().clone() else {
                    continue;
                };
                let _ = stream.read(&mut [0; 4096]).await;
                let length = body.len();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        issuer
    }

    fn publish(&self, key: &Ed25519KeyPair) {
        let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k1", "use": "sig"});
        *self.published.lock() = Some(json!({"keys": [key]}).to_string());
    }

    fn token(&self, store: &Store, change: impl FnOnce(&mut Value)) -> String {
        let now = store.clock.now().0 / 1_000_000;
        let mut claims = json!({
            "iss": ISSUER, "aud": ["account", "auspex"], "sub": "ann@example.org",
            "iat": now, "exp": now + 3_600, "typ": "Bearer", "scope": "openid email",
            "realm_access": {"roles": ["analyst", "admin"]},
        });
        change(&mut claims);
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": "k1"});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    async fn trusted_by(&self, store: &Store, scope_claim: Option<&str>) -> Arc<Identity> {
        let mut settings = settings();
        settings["issuers"] = json!([{
            "issuer": ISSUER, "jwks_url": self.url, "audience": "auspex",
            "roles_claim": "realm_access.roles", "roles": {"analyst": "data-scientist"},
            "scope_claim": scope_claim, "allow_private_addresses": true,
        }]);
        let config = serde_json::from_value(settings).unwrap();
        store.identity_with(config).await
    }
}

async fn ask(
    identity: &Arc<Identity>,
    store: &Store,
    token: &str,
) -> Result<Arc<Caller>, ApiError> {
    caller_by(identity, store, Credential::Token(token.as_bytes())).await
}

async fn a_token_of_a_trusted_issuer_is_worth_its_roles(store: &Store) {
    let issuer = Issuer::start().await;
    let identity = issuer.trusted_by(store, None).await;
    let token = issuer.token(store, |_| ());
    let caller = ask(&identity, store, &token).await.unwrap();
    assert_eq!(caller.scopes, auspex_identity::Role::DataScientist.scopes());
    assert_eq!((&caller.user_id, &caller.session_id), (&None, &None));
    assert!(
        !caller.subject.to_string().contains("ann"),
        "the log shows it: {}",
        caller.subject
    );
    let again = issuer.token(store, |claims| claims["jti"] = "another".into());
    let again = ask(&identity, store, &again).await.unwrap();
    assert_eq!(again.quota_key, caller.quota_key);
    let other = issuer.token(store, |claims| claims["sub"] = "bob".into());
    let other = ask(&identity, store, &other).await.unwrap();
    assert_ne!(other.subject, caller.subject);
    let nobody = issuer.token(store, |claims| claims["realm_access"] = json!({}));
    let nobody = ask(&identity, store, &nobody).await.unwrap();
    assert!(nobody.scopes.is_empty());
    assert_eq!(issuer.requests.load(Ordering::SeqCst), 1);

    // Where the operator says that it holds scopes of ours, it is their limit.
    let identity = issuer.trusted_by(store, Some("scope")).await;
    assert!(
        ask(&identity, store, &token)
            .await
            .unwrap()
            .scopes
            .is_empty()
    );
    let named = |claims: &mut Value| claims["scope"] = "openid predict users:write".into();
    let named = ask(&identity, store, &issuer.token(store, named))
        .await
        .unwrap();
    assert_eq!(named.scopes.to_string(), "predict");
}

async fn a_token_of_an_unknown_key_or_for_others_is_refused(store: &Store) {
    let issuer = Issuer::start().await;
    let identity = issuer.trusted_by(store, None).await;
    let stranger = Issuer::start().await;
    let wrong = [
        stranger.token(store, |_| ()),
        issuer.token(store, |claims| {
            claims["iss"] = "https://evil.example".into()
        }),
        issuer.token(store, |claims| claims["aud"] = "account".into()),
        issuer.token(store, |claims| claims["exp"] = json!(1)),
        issuer.token(store, |claims| claims["nonce"] = "an ID token".into()),
        issuer.token(store, |claims| claims["sub"] = "".into()),
    ];
    for token in wrong {
        assert_eq!(
            ask(&identity, store, &token).await.unwrap_err().status(),
            401
        );
    }
    assert!(
        ask(&identity, store, &issuer.token(store, |_| ()))
            .await
            .is_ok()
    );
    assert_eq!(stranger.requests.load(Ordering::SeqCst), 0);
}

async fn an_issuer_that_is_down_is_no_fault_of_the_token(store: &Store) {
    let issuer = Issuer::start().await;
    let identity = issuer.trusted_by(store, None).await;
    let keys = issuer.published.lock().take();
    let token = issuer.token(store, |_| ());
    for _ in 0..2 {
        let error = ask(&identity, store, &token).await.unwrap_err();
        assert_eq!(error.status(), 503);
    }
    assert_eq!(
        issuer.requests.load(Ordering::SeqCst),
        1,
        "not asked at every request"
    );
    *issuer.published.lock() = keys;
    store.clock.advance(Duration::from_secs(30));
    assert!(ask(&identity, store, &token).await.is_ok());
}

async fn a_withdrawn_key_is_soon_believed_no_more(store: &Store) {
    let issuer = Issuer::start().await;
    let identity = issuer.trusted_by(store, None).await;
    let token = issuer.token(store, |_| ());
    assert!(ask(&identity, store, &token).await.is_ok());
    issuer.publish(&Ed25519KeyPair::generate().unwrap());
    store.clock.advance(Duration::from_mins(6));
    assert_eq!(
        ask(&identity, store, &token).await.unwrap_err().status(),
        401
    );
}
