//! The OAuth 2.0 and OpenID Connect provider: what is decided, without a word of HTTP or SQL.
//!
//! Authorization code with PKCE (RFC 6749, 7636), refresh, client credentials, revocation (RFC 7009),
//! introspection (RFC 7662), discovery (RFC 8414), the issuer in the response (RFC 9207); by the
//! advice of RFC 9700. There is no implicit grant, no password grant and no `plain` challenge.

mod authorization;
mod client;
mod code;
mod exchange;
mod metadata;
mod parameters;
mod redirect;
mod registration;
mod scope;
mod seal;
mod session;
#[cfg(test)]
mod tests;
mod token;

pub use client::{Client, ClientDraft, ClientSecret, GrantType, NewClient};
pub use scope::{ClientScopes, UnknownClientScope};

pub(crate) use authorization::{AuthorizationError, AuthorizationRequest, Step};
pub(crate) use client::random_text;
pub(crate) use exchange::{Presented, TokenError, TokenResponse};
pub(crate) use parameters::{Malformed, Parameters, decode};
pub(crate) use redirect::{csp_source, shown};
pub(crate) use seal::{OAuthKey, Purpose, Sealed};
pub(crate) use session::{LoginSession, SESSION_TTL};
pub(crate) use token::{Introspection, UserInfo};
