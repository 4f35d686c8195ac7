//! The OAuth 2.0 and OpenID Connect provider: what is decided, without a word of HTTP or SQL.
//!
//! Authorization code with PKCE (RFC 6749, 7636), refresh, client credentials, device codes (RFC 8628),
//! revocation (RFC 7009), introspection (RFC 7662), discovery (RFC 8414), logout, the issuer in the response (RFC 9207); by the
//! advice of RFC 9700. There is no implicit grant, no password grant and no `plain` challenge.

mod authorization;
mod client_changes;
mod clients;
mod code;
mod device;
mod exchange;
mod logout;
mod metadata;
mod own;
mod parameters;
mod request;
mod seal;
mod session;
#[cfg(test)]
mod tests;
mod token;

pub(crate) use authorization::{AuthorizationEndpoint, AuthorizationError, Step};
pub use clients::Clients;
pub(crate) use clients::Presented;
pub(crate) use device::{Decided, DeviceAuthorization, Devices, WaitingDevice};
pub(crate) use exchange::{TokenEndpoint, TokenError, TokenResponse};
pub(crate) use logout::{LogoutRequest, ReturnTo};
pub(crate) use metadata::metadata;
pub(crate) use own::{Own, OwnConsent, OwnSession, Place};
pub(crate) use parameters::{Malformed, Parameters, decode};
pub(crate) use request::AuthorizationRequest;
pub(crate) use seal::{Purpose, Sealed, Seals};
pub(crate) use session::{LoginSession, PageSessions, SESSION_TTL};
pub(crate) use token::{Introspection, IssuedTokens, UserInfo};
