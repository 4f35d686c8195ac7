//! What clients are told of this provider (RFC 8414, OpenID Connect Discovery).

use serde_json::{Value, json};

use crate::tokens::Tokens;
use crate::types::client::GrantType;
use crate::types::scope::ClientScopes;

/// The document of both specifications; each ignores what only the other knows.
pub(crate) fn metadata(tokens: &Tokens) -> Value {
    let issuer = tokens.issuer();
    let at = |path: &str| format!("{issuer}{path}");
    let grant_types: Vec<&str> = GrantType::ALL.iter().map(|kind| kind.as_str()).collect();
    let confidential = ["client_secret_basic", "client_secret_post"];
    let any = ["client_secret_basic", "client_secret_post", "none"];
    json!({
        "issuer": issuer,
        "authorization_endpoint": at("/oauth2/authorize"),
        "token_endpoint": at("/oauth2/token"),
        "device_authorization_endpoint": at("/oauth2/device_authorization"),
        "end_session_endpoint": at("/oauth2/end-session"),
        "userinfo_endpoint": at("/oauth2/userinfo"),
        "jwks_uri": at("/.well-known/jwks.json"),
        "introspection_endpoint": at("/oauth2/introspect"),
        "revocation_endpoint": at("/oauth2/revoke"),
        "scopes_supported": ClientScopes::names().collect::<Vec<_>>(),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": grant_types,
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": any,
        "revocation_endpoint_auth_methods_supported": any,
        "introspection_endpoint_auth_methods_supported": confidential,
        "authorization_response_iss_parameter_supported": true,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": tokens.algorithms(),
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "claims_supported": [
            "iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash", "name",
            "preferred_username", "updated_at", "email", "email_verified", "roles",
        ],
        "claims_parameter_supported": false,
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
    })
}
