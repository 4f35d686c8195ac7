//! The authorization request: read, checked, and led to a login, a question or an answer.
//!
//! Until client and address are known to belong together nobody is redirected, or this would be a
//! way to send people anywhere (RFC 9700 §4.11). From then on the client is told what is wrong.

use std::sync::Arc;

use auspex_kernel::{Random, Timestamp};

use super::clients::Clients;
use super::code::CODE_TTL;
use super::logout::{LogoutRequest, read_logout};
use super::parameters::Parameters;
use super::request::{self, AuthorizationRequest};
use super::session::LoginSession;
use crate::audit::{Action, Actor, Event};
use crate::core::Core;
use crate::error::IdentityError;
use crate::store;
use crate::tokens::Tokens;
use crate::types::client::{digest, random_text};
use crate::types::grant::Code;
use crate::types::redirect;
use crate::types::scope::ClientScopes;

const QUERY_BYTES_MAX: usize = 8_192;
const CHANGED: &str = "The login or the application has changed meanwhile. Go back to the application \
    and start again.";

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step {
    LogIn,
    /// Tell the person that they have none of the rights that the client asks for.
    Lack,
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

    /// Reads and checks a request to log out.
    ///
    /// # Errors
    /// What is wrong, of which the person alone can be told.
    pub(crate) async fn read_logout(
        &self,
        query: &str,
    ) -> Result<LogoutRequest, AuthorizationError> {
        read_logout(&self.clients, &self.tokens, query).await
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
        request::read(&self.tokens, client, &uri, &parameters, query).map_err(
            |(error, description)| {
                AuthorizationError::Redirect(self.refusal(
                    &uri,
                    state.as_deref(),
                    error,
                    &description,
                ))
            },
        )
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
            !request.prompt.login
                && request.max_age_s.is_none_or(is_recent)
                && request.is_for(&session.user)
        };
        let Some(session) = session.filter(is_fresh) else {
            if request.prompt.none {
                return refuse(
                    "login_required",
                    "nobody is logged in, or somebody else, or not lately enough",
                );
            }
            return Ok(Step::LogIn);
        };
        let scopes = request.offered(session);
        if scopes.is_empty() {
            if request.prompt.none {
                let description = "the user has none of the scopes asked for";
                return refuse("access_denied", description);
            }
            return Ok(Step::Lack);
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

    /// The address by which a client learns that whom it expects has not logged in.
    pub(crate) fn login_required(&self, request: &AuthorizationRequest) -> String {
        let (uri, state) = (&request.redirect_uri, request.state.as_deref());
        self.refusal(uri, state, "login_required", "somebody else is logged in")
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
