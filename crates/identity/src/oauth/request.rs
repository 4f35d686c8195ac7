//! An authorization request: what it may ask for.

use std::borrow::Cow;

use auspex_kernel::id::UserId;

use super::parameters::Parameters;
use super::session::LoginSession;
use crate::canonical;
use crate::tokens::Tokens;
use crate::types::client::{Client, GrantType};
use crate::types::scope::ClientScopes;
use crate::types::user::{USERNAME_CHARS_MAX, User};

/// SHA-256 in base64url.
const CHALLENGE_CHARS: usize = 43;

type Wrong = (&'static str, Cow<'static, str>);

/// A request that may be answered.
#[derive(Clone, Debug)]
pub(crate) struct AuthorizationRequest {
    pub(crate) client: Client,
    pub(crate) redirect_uri: String,
    /// Whom the client expects, by a name to fill in.
    pub(super) login_hint: Option<String>,
    /// Whom the client expects, by an ID token that it got.
    pub(super) hint: Option<UserId>,
    /// As it came, to be read again when a form comes back.
    pub(crate) query: String,
    pub(super) state: Option<String>,
    /// What was asked for, all of which the client may have.
    pub(super) scopes: ClientScopes,
    pub(super) challenge: String,
    pub(super) nonce: Option<String>,
    pub(super) prompt: Prompt,
    pub(super) max_age_s: Option<u64>,
}

/// What the client wants the person to be asked (OpenID Connect Core §3.1.2.1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prompt {
    pub(super) none: bool,
    pub(super) login: bool,
    pub(super) consent: bool,
}

impl AuthorizationRequest {
    /// What this person can let the client have.
    pub(super) fn offered(&self, session: &LoginSession) -> ClientScopes {
        let own = ClientScopes::of_user(session.user.roles.scopes());
        self.scopes.intersection(own)
    }

    /// Whether this is whom the client expects, if it expects somebody.
    pub(crate) fn is_for(&self, user: &User) -> bool {
        let names = [user.id.as_str(), &user.username, &user.email].map(canonical::key);
        let named = |hint: &String| names.contains(&canonical::key(hint.trim()));
        match &self.hint {
            Some(id) => *id == user.id,
            None => self.login_hint.as_ref().is_none_or(named),
        }
    }

    /// What to fill in as the name: the hint, if somebody can log in with it. An id cannot be typed, and anything
    /// else would be a text of whoever made the link on a page of ours.
    pub(crate) fn hinted(&self) -> &str {
        let hint = self.login_hint.as_deref().map(str::trim);
        let is_name = |hint: &&str| {
            hint.chars().count() <= USERNAME_CHARS_MAX
                && canonical::name(hint).is_some()
                && UserId::parse(hint).is_none()
        };
        hint.filter(is_name).unwrap_or_default()
    }

    /// What the client asks for beyond these.
    pub(crate) fn beyond(&self, scopes: ClientScopes) -> ClientScopes {
        self.scopes.without(scopes)
    }

    /// The same request to whoever is logged in, if the client has named the one it expects by a hint
    /// alone.
    pub(crate) fn query_without_hint(&self) -> Option<String> {
        self.login_hint.as_ref().filter(|_| self.hint.is_none())?;
        let parameters = Parameters::parse(self.query.as_bytes()).ok()?;
        let rest = parameters.iter().filter(|(name, _)| *name != "login_hint");
        let mut query = form_urlencoded::Serializer::new(String::new());
        Some(query.extend_pairs(rest).finish())
    }

    /// The same request for somebody who has just logged in, who need not be asked for it again.
    pub(crate) fn query_after_login(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let parameters = Parameters::parse(self.query.as_bytes());
        for (name, value) in parameters.iter().flat_map(Parameters::iter) {
            match name {
                // A name is only a hint: they have chosen theirs.
                "max_age" | "login_hint" => {}
                "prompt" => {
                    let asks_login = |word: &&str| !matches!(*word, "login" | "select_account");
                    let rest: Vec<&str> = value.split(' ').filter(asks_login).collect();
                    query.append_pair(name, &rest.join(" "));
                }
                _ => {
                    query.append_pair(name, value);
                }
            }
        }
        query.finish()
    }
}

/// Reads what follows the client and the address.
///
/// # Errors
/// An error of RFC 6749 and its description, for the client.
pub(super) fn read(
    tokens: &Tokens,
    client: Client,
    redirect_uri: &str,
    parameters: &Parameters,
    query: &str,
) -> Result<AuthorizationRequest, Wrong> {
    if parameters.has_repeated() {
        return Err((
            "invalid_request",
            "a parameter is given more than once".into(),
        ));
    }
    check_form(parameters)?;
    if !client.may(GrantType::AuthorizationCode) {
        let description = "the client is not registered for authorization_code";
        return Err(("unauthorized_client", description.into()));
    }
    let challenge = challenge(parameters)?;
    let prompt = Prompt::read(parameters.get("prompt").unwrap_or_default())?;
    let max_age_s = match parameters.get("max_age").map(str::parse::<u32>) {
        None => None,
        Some(Ok(seconds)) => Some(u64::from(seconds)),
        Some(Err(_)) => {
            return Err((
                "invalid_request",
                "max_age must be a number of seconds".into(),
            ));
        }
    };
    let hint = parameters.get("id_token_hint").map(|token| {
        let hint = tokens.id_token_hint(token);
        hint.filter(|hint| hint.client_id == client.id)
            .map(|hint| hint.user_id)
            .ok_or((
                "invalid_request",
                "id_token_hint is no ID token that this server gave to the client".into(),
            ))
    });
    let hint = hint.transpose()?;
    let scopes = client.scopes.asked(parameters.get("scope"));
    let scopes = scopes.map_err(|wrong| ("invalid_scope", wrong.to_string().into()))?;
    Ok(AuthorizationRequest {
        challenge: challenge.to_owned(),
        client,
        redirect_uri: redirect_uri.to_owned(),
        hint,
        login_hint: parameters.get("login_hint").map(str::to_owned),
        query: query.to_owned(),
        state: parameters.get("state").map(str::to_owned),
        scopes,
        nonce: parameters.get("nonce").map(str::to_owned),
        prompt,
        max_age_s,
    })
}

/// Refuses the forms of a request that are not offered here.
fn check_form(parameters: &Parameters) -> Result<(), Wrong> {
    for (name, error) in [
        ("request", "request_not_supported"),
        ("request_uri", "request_uri_not_supported"),
        ("registration", "registration_not_supported"),
    ] {
        if parameters.get(name).is_some() {
            return Err((error, "send plain parameters".into()));
        }
    }
    match parameters.get("response_type") {
        Some("code") => {}
        Some(_) => {
            return Err((
                "unsupported_response_type",
                "response_type must be code".into(),
            ));
        }
        None => {
            return Err((
                "invalid_request",
                "response_type is missing; it must be code".into(),
            ));
        }
    }
    if !matches!(parameters.get("response_mode"), None | Some("query")) {
        return Err(("invalid_request", "response_mode must be query".into()));
    }
    Ok(())
}

/// The challenge of RFC 7636, which no request goes without.
fn challenge(parameters: &Parameters) -> Result<&str, Wrong> {
    let Some(challenge) = parameters.get("code_challenge") else {
        return Err((
            "invalid_request",
            "code_challenge is missing; PKCE is required".into(),
        ));
    };
    // Left out it would mean `plain`.
    if parameters.get("code_challenge_method") != Some("S256") {
        return Err((
            "invalid_request",
            "code_challenge_method must be S256".into(),
        ));
    }
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if challenge.len() != CHALLENGE_CHARS || !challenge.bytes().all(is_base64url) {
        return Err((
            "invalid_request",
            "code_challenge must be 43 characters of base64url".into(),
        ));
    }
    Ok(challenge)
}

impl Prompt {
    fn read(text: &str) -> Result<Self, Wrong> {
        let mut prompt = Self::default();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            match word {
                "none" => prompt.none = true,
                // One account a browser: to choose another is to log in.
                "login" | "select_account" => prompt.login = true,
                "consent" => prompt.consent = true,
                _ => {
                    let description = "prompt must be of none, login, consent, select_account";
                    return Err(("invalid_request", description.into()));
                }
            }
        }
        if prompt.none && (prompt.login || prompt.consent) {
            return Err(("invalid_request", "prompt none stands alone".into()));
        }
        Ok(prompt)
    }
}
