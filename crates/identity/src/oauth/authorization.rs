//! The authorization request: read, checked, and led to a login, a question or an answer.
//!
//! Until client and address are known to belong together nobody is redirected, or this would be a
//! way to send people anywhere (RFC 9700 §4.11). From then on the client is told what is wrong.

use std::sync::Arc;

use auspex_kernel::{Random, Timestamp};

use super::clients::Clients;
use super::code::CODE_TTL;
use super::parameters::Parameters;
use super::session::LoginSession;
use crate::audit::{Action, Actor, Event};
use crate::core::Core;
use crate::error::IdentityError;
use crate::store;
use crate::tokens::Tokens;
use crate::types::client::{Client, GrantType, digest, random_text};
use crate::types::grant::Code;
use crate::types::redirect;
use crate::types::scope::ClientScopes;

const QUERY_BYTES_MAX: usize = 8_192;
/// SHA-256 in base64url.
const CHALLENGE_CHARS: usize = 43;
const CHANGED: &str = "The login or the application has changed meanwhile. Go back to the application \
    and start again.";

/// A request that may be answered.
#[derive(Clone, Debug)]
pub(crate) struct AuthorizationRequest {
    pub(crate) client: Client,
    pub(crate) redirect_uri: String,
    /// For the login form.
    pub(crate) login_hint: Option<String>,
    /// As it came, to be read again when a form comes back.
    pub(crate) query: String,
    state: Option<String>,
    /// What was asked for, all of which the client may have.
    scopes: ClientScopes,
    challenge: String,
    nonce: Option<String>,
    prompt: Prompt,
    max_age_s: Option<u64>,
}

/// What the client wants the person to be asked (OpenID Connect Core §3.1.2.1).
#[derive(Clone, Copy, Debug, Default)]
struct Prompt {
    none: bool,
    login: bool,
    consent: bool,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step {
    LogIn,
    /// Ask whether the client may have these.
    Ask(ClientScopes),
    /// Send the browser here.
    Redirect(String),
}

/// Why a request is not answered as wished.
#[derive(Debug)]
pub(crate) enum AuthorizationError {
    /// Only the person can be told.
    Shown(&'static str),
    /// The client is told: send the browser here.
    Redirect(String),
    Failed(IdentityError),
}

impl From<IdentityError> for AuthorizationError {
    fn from(error: IdentityError) -> Self {
        Self::Failed(error)
    }
}

type Wrong = (&'static str, &'static str);

/// The authorization endpoint.
#[derive(Clone)]
pub(crate) struct AuthorizationEndpoint {
    core: Arc<Core>,
    clients: Clients,
    tokens: Arc<Tokens>,
}

impl AuthorizationEndpoint {
    pub(crate) fn new(core: Arc<Core>, clients: Clients, tokens: Arc<Tokens>) -> Self {
        Self {
            core,
            clients,
            tokens,
        }
    }

    /// Reads and checks a request.
    ///
    /// # Errors
    /// What is wrong, and who can be told.
    pub(crate) async fn read(
        &self,
        query: &str,
    ) -> Result<AuthorizationRequest, AuthorizationError> {
        let shown = AuthorizationError::Shown;
        if query.len() > QUERY_BYTES_MAX {
            return Err(shown("The request is too long."));
        }
        let parameters = Parameters::parse(query.as_bytes())
            .map_err(|_| shown("The request cannot be read."))?;
        if parameters.repeats("client_id") || parameters.repeats("redirect_uri") {
            return Err(shown("The request names its application more than once."));
        }
        let unknown = shown("The application is not registered here.");
        let Some(id) = parameters.get("client_id") else {
            return Err(unknown);
        };
        let Some(client) = self.clients.find(id).await? else {
            return Err(unknown);
        };
        let uri = parameters.get("redirect_uri");
        let Some(uri) = uri.filter(|uri| client.redirects_to(uri)) else {
            return Err(shown(
                "The address to return to is not one that the application has registered.",
            ));
        };
        let (uri, state) = (uri.to_owned(), parameters.get("state").map(str::to_owned));
        let state = state.filter(|_| !parameters.repeats("state"));
        read(client, &uri, &parameters, query).map_err(|(error, description)| {
            AuthorizationError::Redirect(self.refusal(&uri, state.as_deref(), error, description))
        })
    }

    /// What comes next for the person at the browser, logged in or not.
    ///
    /// # Errors
    /// What is wrong, and who can be told.
    pub(crate) async fn next_step(
        &self,
        actor: &Actor,
        request: &AuthorizationRequest,
        session: Option<&LoginSession>,
    ) -> Result<Step, AuthorizationError> {
        let refuse = |error, description| Err(self.refuse(request, error, description));
        let is_fresh = |session: &&LoginSession| {
            let age_s = self.core.now().since(session.authenticated_at).as_secs();
            // Zero is the same as `prompt=login`, even in the second of the last login.
            let is_recent = |max| max > 0 && age_s <= max;
            !request.prompt.login && request.max_age_s.is_none_or(is_recent)
        };
        let Some(session) = session.filter(is_fresh) else {
            if request.prompt.none {
                return refuse(
                    "login_required",
                    "nobody is logged in, or not lately enough",
                );
            }
            return Ok(Step::LogIn);
        };
        let scopes = request.offered(session);
        if scopes.is_empty() {
            let description = "the user has none of the scopes asked for";
            return refuse("access_denied", description);
        }
        // Anybody can say to be a public client (RFC 8252 §8.6), so a person is always asked.
        let remembered = !request.client.public && !request.prompt.consent;
        let (user_id, client_id) = (session.user.id.clone(), request.client.id.clone());
        let agreed = self.core.db.read(async |connection| {
            store::consents::scopes(connection, &user_id, &client_id).await
        });
        if remembered
            && agreed
                .await
                .map_err(IdentityError::from)?
                .contains_all(scopes)
        {
            let location = self
                .issue_code(actor, request, session, scopes, false)
                .await?;
            return Ok(Step::Redirect(location));
        }
        if request.prompt.none {
            return refuse("consent_required", "the user has not agreed to this");
        }
        Ok(Step::Ask(scopes))
    }

    /// Carries out what the person decided on the scopes that they were shown. The address is where to
    /// send the browser.
    ///
    /// # Errors
    /// What is wrong, and who can be told.
    pub(crate) async fn decide(
        &self,
        actor: &Actor,
        request: &AuthorizationRequest,
        session: &LoginSession,
        shown: &str,
        allowed: bool,
    ) -> Result<String, AuthorizationError> {
        // They may have lost some since.
        let shown = ClientScopes::from_stored(shown);
        let scopes = request.offered(session).intersection(shown);
        if allowed && !scopes.is_empty() {
            return self.issue_code(actor, request, session, scopes, true).await;
        }
        let user = &session.user;
        let actor = actor.as_user(&user.id, user.roles.scopes());
        let target = Some(format!("client:{}", request.client.id));
        let denied = Event::denied(Action::ConsentDeny, target);
        self.core.audit.add(&actor, denied).await?;
        let description = "the user did not agree";
        Ok(self.refusal(
            &request.redirect_uri,
            request.state.as_deref(),
            "access_denied",
            description,
        ))
    }

    async fn issue_code(
        &self,
        actor: &Actor,
        request: &AuthorizationRequest,
        session: &LoginSession,
        scopes: ClientScopes,
        asked: bool,
    ) -> Result<String, AuthorizationError> {
        let now = self.core.now();
        let (code, row) = draw_code(request, session, scopes, now, &self.core.random)?;
        let (user, session) = (&session.user, session.clone());
        let actor = actor.as_user(&user.id, user.roles.scopes());
        let remember = asked && !request.client.public;
        let written = self
            .core
            .db
            .write(async |transaction| -> Result<_, IdentityError> {
                let (user, client) = (row.user_id.clone(), row.client_id.clone());
                // What ends a session removes its codes as well; a code must not come after that.
                store::lock(transaction).await?;
                let registered = store::clients::by_id(transaction, &client).await?.is_some();
                if !registered || !session.holds(transaction, now).await? {
                    return Ok(false);
                }
                if remember {
                    let before = store::consents::scopes(transaction, &user, &client).await?;
                    let all = before.union(scopes);
                    store::consents::set(transaction, &user, &client, all, now).await?;
                }
                if asked {
                    let agreed = Event::new(Action::ConsentGrant, format!("client:{client}"))
                        .with(scopes.to_string());
                    self.core.audit.record(transaction, &actor, agreed).await?;
                }
                store::codes::insert(transaction, row).await?;
                Ok(true)
            });
        if !written.await? {
            return Err(AuthorizationError::Shown(CHANGED));
        }
        let mut parameters = vec![("code", code.as_str())];
        parameters.extend(request.state.as_deref().map(|state| ("state", state)));
        parameters.push(("iss", self.tokens.issuer()));
        Ok(redirect::with_parameters(
            &request.redirect_uri,
            &parameters,
        ))
    }

    fn refuse(
        &self,
        request: &AuthorizationRequest,
        error: &str,
        description: &str,
    ) -> AuthorizationError {
        let state = request.state.as_deref();
        let location = self.refusal(&request.redirect_uri, state, error, description);
        AuthorizationError::Redirect(location)
    }

    /// The address by which a client is told of an error (RFC 6749 §4.1.2.1, RFC 9207).
    fn refusal(&self, uri: &str, state: Option<&str>, error: &str, description: &str) -> String {
        let mut parameters = vec![("error", error), ("error_description", description)];
        parameters.extend(state.map(|state| ("state", state)));
        parameters.push(("iss", self.tokens.issuer()));
        redirect::with_parameters(uri, &parameters)
    }
}

/// A code that is not yet stored, and what is to be stored of it.
fn draw_code(
    request: &AuthorizationRequest,
    session: &LoginSession,
    scopes: ClientScopes,
    now: Timestamp,
    random: &Random,
) -> Result<(String, Code), IdentityError> {
    let text = random_text(random)?;
    let code = Code {
        digest: digest(text.as_bytes()),
        client_id: request.client.id.clone(),
        user_id: session.user.id.clone(),
        redirect_uri: request.redirect_uri.clone(),
        scopes: scopes.to_string(),
        challenge: request.challenge.clone(),
        nonce: request.nonce.clone(),
        authenticated_at: session.authenticated_at,
        expires_at: now + CODE_TTL,
        grant_id: None,
    };
    Ok((text, code))
}

impl AuthorizationRequest {
    /// What this person can let the client have.
    fn offered(&self, session: &LoginSession) -> ClientScopes {
        let own = ClientScopes::of_user(session.user.roles.scopes());
        self.scopes.intersection(own)
    }

    /// The same request for somebody who has just logged in, who need not be asked for it again.
    pub(crate) fn query_after_login(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let parameters = Parameters::parse(self.query.as_bytes());
        for (name, value) in parameters.iter().flat_map(Parameters::iter) {
            match name {
                "max_age" => {}
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
fn read(
    client: Client,
    redirect_uri: &str,
    parameters: &Parameters,
    query: &str,
) -> Result<AuthorizationRequest, Wrong> {
    if parameters.has_repeated() {
        return Err(("invalid_request", "a parameter is given more than once"));
    }
    check_form(parameters)?;
    if !client.may(GrantType::AuthorizationCode) {
        let description = "the client is not registered for authorization_code";
        return Err(("unauthorized_client", description));
    }
    let challenge = challenge(parameters)?;
    let prompt = Prompt::read(parameters.get("prompt").unwrap_or_default())?;
    let max_age_s = match parameters.get("max_age").map(str::parse::<u32>) {
        None => None,
        Some(Ok(seconds)) => Some(u64::from(seconds)),
        Some(Err(_)) => return Err(("invalid_request", "max_age must be a number of seconds")),
    };
    let scopes = match parameters.get("scope") {
        None => client.scopes,
        Some(text) => text
            .parse::<ClientScopes>()
            .map_err(|_| ("invalid_scope", "a scope is not one of scopes_supported"))?,
    };
    if scopes.is_empty() || !client.scopes.contains_all(scopes) {
        let description = "the client is not registered for these scopes";
        return Err(("invalid_scope", description));
    }
    Ok(AuthorizationRequest {
        challenge: challenge.to_owned(),
        client,
        redirect_uri: redirect_uri.to_owned(),
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
            return Err((error, "send plain parameters"));
        }
    }
    match parameters.get("response_type") {
        Some("code") => {}
        Some(_) => return Err(("unsupported_response_type", "response_type must be code")),
        None => {
            return Err((
                "invalid_request",
                "response_type is missing; it must be code",
            ));
        }
    }
    if !matches!(parameters.get("response_mode"), None | Some("query")) {
        return Err(("invalid_request", "response_mode must be query"));
    }
    Ok(())
}

/// The challenge of RFC 7636, which no request goes without.
fn challenge(parameters: &Parameters) -> Result<&str, Wrong> {
    let Some(challenge) = parameters.get("code_challenge") else {
        return Err((
            "invalid_request",
            "code_challenge is missing; PKCE is required",
        ));
    };
    // Left out it would mean `plain`.
    if parameters.get("code_challenge_method") != Some("S256") {
        return Err(("invalid_request", "code_challenge_method must be S256"));
    }
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if challenge.len() != CHALLENGE_CHARS || !challenge.bytes().all(is_base64url) {
        return Err((
            "invalid_request",
            "code_challenge must be 43 characters of base64url",
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
                    return Err(("invalid_request", description));
                }
            }
        }
        if prompt.none && (prompt.login || prompt.consent) {
            return Err(("invalid_request", "prompt none stands alone"));
        }
        Ok(prompt)
    }
}
