//! Clients: programs that act for a user who agreed, or for themselves.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::error::is_shown_name;
use auspex_kernel::id::ClientId;
use auspex_kernel::{FieldError, Random, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::redirect;
use super::scope::ClientScopes;

const SECRET_PREFIX: &str = "axs_";
const NAME_CHARS_MAX: usize = 100;
const REDIRECT_URIS_MAX: usize = 10;
/// The longest time for which an old secret is taken beside the new one.
pub(crate) const SECRET_OVERLAP_MAX: Duration = Duration::from_hours(7 * 24);

/// A way to a token that a client may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantType {
    /// A user logs in and agrees.
    AuthorizationCode,
    /// The client comes again without the user.
    RefreshToken,
    /// The client acts for itself.
    ClientCredentials,
    /// A user agrees by a browser elsewhere (RFC 8628).
    DeviceCode,
}

impl GrantType {
    /// Every grant type there is.
    pub const ALL: &[GrantType] = &[
        GrantType::AuthorizationCode,
        GrantType::RefreshToken,
        GrantType::ClientCredentials,
        GrantType::DeviceCode,
    ];

    /// As written in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            GrantType::AuthorizationCode => "authorization_code",
            GrantType::RefreshToken => "refresh_token",
            GrantType::ClientCredentials => "client_credentials",
            GrantType::DeviceCode => "urn:ietf:params:oauth:grant-type:device_code",
        }
    }

    /// Reads it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
    }
}

/// A client. The hash of its secret stays in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// 16 characters of Crockford's base32. Not a secret.
    pub id: ClientId,
    /// What people are shown.
    pub name: String,
    /// Where browsers may be sent back to, as text.
    pub redirect_uris: Vec<String>,
    /// Where browsers may be sent back to after a logout, as text.
    pub post_logout_redirect_uris: Vec<String>,
    /// How it may get tokens.
    pub grant_types: Vec<GrantType>,
    /// The most it may be given.
    pub scopes: ClientScopes,
    /// It has no secret, for it could not keep one: an app, a page, a command.
    pub public: bool,
    /// When it was registered.
    pub created_at: Timestamp,
    /// Who registered it: `user:ID`, `key:ID`, `operator`.
    pub created_by: String,
}

impl Client {
    /// Whether it may get tokens in this way.
    pub fn may(&self, grant_type: GrantType) -> bool {
        self.grant_types.contains(&grant_type)
    }

    /// What it may do with these scopes, for the person who is asked.
    pub(crate) fn in_words(&self, scopes: ClientScopes) -> Vec<&'static str> {
        let mut words = scopes.in_words();
        if !words.is_empty() && self.may(GrantType::RefreshToken) {
            words.push("Do so while you are away as well");
        }
        words
    }

    /// Whether a browser may be sent to `uri`.
    pub(crate) fn redirects_to(&self, uri: &str) -> bool {
        let mut registered = self.redirect_uris.iter();
        registered.any(|registered| redirect::matches(registered, uri, self.public))
    }

    /// Whether a browser may be sent to `uri` after a logout.
    pub(crate) fn returns_to(&self, uri: &str) -> bool {
        let mut registered = self.post_logout_redirect_uris.iter();
        registered.any(|registered| redirect::matches(registered, uri, self.public))
    }
}

/// Where the pages of a client run that runs in the browser; empty for others.
pub(crate) type Origins = Arc<BTreeSet<String>>;

/// What a client is to be.
#[derive(Clone, Debug)]
pub struct ClientDraft {
    /// 1 to 100 printable characters, without blanks at its ends.
    pub name: String,
    /// Exact addresses.
    pub redirect_uris: Vec<String>,
    /// Exact addresses.
    pub post_logout_redirect_uris: Vec<String>,
    /// At least one.
    pub grant_types: Vec<GrantType>,
    /// At least one.
    pub scopes: ClientScopes,
    /// Whether it goes without a secret.
    pub public: bool,
}

impl ClientDraft {
    /// Every wrong field.
    pub(crate) fn validate(&self) -> Vec<FieldError> {
        let mut wrong = Vec::new();
        let mut refuse = |field: String, message: &str| {
            wrong.push(FieldError {
                field,
                message: message.to_owned(),
            });
        };
        let chars = self.name.chars().count();
        if !(1..=NAME_CHARS_MAX).contains(&chars) || !is_shown_name(&self.name) {
            let message =
                "must be text of 1 to 100 printable characters, without blanks at its ends";
            refuse("name".into(), message);
        }
        for (name, uris) in [
            ("redirect_uris", &self.redirect_uris),
            ("post_logout_redirect_uris", &self.post_logout_redirect_uris),
        ] {
            if uris.len() > REDIRECT_URIS_MAX {
                refuse(name.into(), "must be at most 10");
            }
            for (i, uri) in uris.iter().enumerate() {
                if let Err(message) = redirect::check(uri, self.public) {
                    refuse(format!("{name}[{i}]"), message);
                }
            }
        }
        let by_code = self.grant_types.contains(&GrantType::AuthorizationCode);
        if by_code && self.redirect_uris.is_empty() {
            let message = "must name at least one address for authorization_code";
            refuse("redirect_uris".into(), message);
        }
        if self.grant_types.is_empty() {
            refuse("grant_types".into(), "must name at least one");
        }
        if self.public && self.grant_types.contains(&GrantType::ClientCredentials) {
            let message = "must not hold client_credentials for a public client, which has none";
            refuse("grant_types".into(), message);
        }
        let by_user = by_code || self.grant_types.contains(&GrantType::DeviceCode);
        if !by_user && self.grant_types.contains(&GrantType::RefreshToken) {
            let message =
                "must hold authorization_code, or that of device codes, beside refresh_token";
            refuse("grant_types".into(), message);
        }
        if self.scopes.is_empty() {
            refuse("scopes".into(), "must name at least one");
        } else if !by_user && self.scopes.without_oidc() != self.scopes {
            let message = "must hold none of openid, profile, email, roles and offline_access for a client \
                           without users, to whom they belong";
            refuse("scopes".into(), message);
        }
        wrong
    }
}

impl ClientDraft {
    /// What a client is, to be checked like one that is to be registered.
    pub(crate) fn of(client: &Client) -> Self {
        Self {
            name: client.name.clone(),
            redirect_uris: client.redirect_uris.clone(),
            post_logout_redirect_uris: client.post_logout_redirect_uris.clone(),
            grant_types: client.grant_types.clone(),
            scopes: client.scopes,
            public: client.public,
        }
    }
}

/// What is to become of a client; `None` leaves as it is.
#[derive(Clone, Debug, Default)]
pub struct ClientChange {
    /// What people are shown.
    pub name: Option<String>,
    /// All of its addresses.
    pub redirect_uris: Option<Vec<String>>,
    /// All of its addresses after a logout.
    pub post_logout_redirect_uris: Option<Vec<String>>,
    /// All of its scopes.
    pub scopes: Option<ClientScopes>,
}

impl ClientChange {
    /// The client as changed.
    pub(crate) fn applied_to(self, before: &Client) -> Client {
        let before = before.clone();
        Client {
            name: self.name.unwrap_or(before.name),
            redirect_uris: self.redirect_uris.unwrap_or(before.redirect_uris),
            post_logout_redirect_uris: self
                .post_logout_redirect_uris
                .unwrap_or(before.post_logout_redirect_uris),
            scopes: self.scopes.unwrap_or(before.scopes),
            ..before
        }
    }
}

/// What is kept of a client's secrets.
pub(crate) struct KnownSecrets {
    /// None: a public client.
    pub(crate) current: Option<Vec<u8>>,
    /// The one before, and until when it is taken.
    pub(crate) old: Option<(Vec<u8>, Timestamp)>,
}

impl KnownSecrets {
    /// Whether a client proves by this who it is.
    pub(crate) fn fits(&self, presented: Option<&str>, now: Timestamp) -> bool {
        let (Some(current), Some(presented)) = (&self.current, presented) else {
            return self.current.is_none() && presented.is_none();
        };
        let old = self.old.as_ref().filter(|(_, until)| {
            // Not longer than a secret may overlap, whatever the clock was set to.
            now.is_during(*until - SECRET_OVERLAP_MAX, *until)
        });
        is_secret(current, presented.as_bytes())
            || old.is_some_and(|(old, _)| is_secret(old, presented.as_bytes()))
    }
}

/// The text of a client's secret, `axs_` and 256 random bits. Debug output hides it.
pub struct ClientSecret(String);

impl ClientSecret {
    pub(crate) fn random(random: &Random) -> Result<Self, getrandom::Error> {
        Ok(Self(format!("{SECRET_PREFIX}{}", random_text(random)?)))
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(crate) fn digest(&self) -> Vec<u8> {
        digest(self.0.as_bytes())
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(…)")
    }
}

/// A client just registered, with the only copy of its secret.
#[derive(Debug)]
pub struct NewClient {
    /// What is stored of it.
    pub client: Client,
    /// None: a public client.
    pub secret: Option<ClientSecret>,
}

/// 256 random bits as text.
pub(crate) fn random_text(random: &Random) -> Result<String, getrandom::Error> {
    Ok(URL_SAFE_NO_PAD.encode(random.bytes::<32>()?))
}

/// What is stored of a secret with 256 bits of chance: nothing to guess that a slow hash would slow.
pub(crate) fn digest(secret: &[u8]) -> Vec<u8> {
    Sha256::digest(secret).to_vec()
}

/// Whether this is the secret of which `stored` was kept.
fn is_secret(stored: &[u8], presented: &[u8]) -> bool {
    digest(presented).ct_eq(stored).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> ClientDraft {
        ClientDraft {
            name: "App".into(),
            redirect_uris: vec!["https://app.example.org/cb".into()],
            post_logout_redirect_uris: vec!["https://app.example.org/".into()],
            grant_types: vec![GrantType::AuthorizationCode, GrantType::RefreshToken],
            scopes: "openid predict".parse().unwrap(),
            public: false,
        }
    }

    fn wrong(change: impl FnOnce(&mut ClientDraft)) -> Vec<String> {
        let mut draft = draft();
        change(&mut draft);
        let wrong = draft.validate().into_iter();
        wrong.map(|error| error.field).collect()
    }

    #[test]
    fn every_wrong_field_is_named() {
        assert_eq!(draft().validate(), []);
        let all = wrong(|draft| {
            draft.name = " ".into();
            draft.redirect_uris = vec!["https://a.example".into(), "x".into()];
            draft.grant_types = vec![];
            draft.scopes = ClientScopes::default();
        });
        assert_eq!(all, ["name", "redirect_uris[1]", "grant_types", "scopes"]);
        assert_eq!(wrong(|d| d.redirect_uris.clear()), ["redirect_uris"]);
        let after_logout = wrong(|d| d.post_logout_redirect_uris.push("http://a.example".into()));
        assert_eq!(after_logout, ["post_logout_redirect_uris[1]"]);
        for name in [
            "a\u{202e}b",
            "a\u{200b}b",
            " App",
            "App ",
            "\u{3164}",
            "\u{200d}",
        ] {
            assert_eq!(wrong(|d| d.name = name.into()), ["name"], "{name:?}");
        }
        assert!(wrong(|d| d.name = "\u{1f469}\u{200d}\u{1f4bb} Lab".into()).is_empty());
        assert_eq!(
            wrong(|d| {
                d.public = true;
                d.grant_types.push(GrantType::ClientCredentials);
            }),
            ["grant_types"]
        );
        let alone = wrong(|d| d.grant_types = vec![GrantType::RefreshToken]);
        assert_eq!(alone, ["grant_types", "scopes"]);
        let device = wrong(|d| {
            d.grant_types = vec![GrantType::DeviceCode, GrantType::RefreshToken];
            d.redirect_uris.clear();
            d.public = true;
        });
        assert!(device.is_empty());
        let itself = |scopes: &str| {
            wrong(|d| {
                d.grant_types = vec![GrantType::ClientCredentials];
                d.redirect_uris.clear();
                d.scopes = scopes.parse().unwrap();
            })
        };
        assert!(itself("predict").is_empty());
        assert_eq!(itself("openid predict"), ["scopes"]);
    }

    #[test]
    fn secrets_are_long_random_and_not_shown() {
        let secret = ClientSecret::random(&Random::system()).unwrap();
        assert_eq!(secret.expose().len(), 4 + 43);
        assert!(is_secret(&secret.digest(), secret.expose().as_bytes()));
        assert!(!is_secret(&secret.digest(), b"axs_") && !is_secret(b"", b""));
        assert!(!format!("{secret:?}").contains(&secret.expose()[4..]));
    }
}
