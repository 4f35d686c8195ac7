//! RP-Initiated Logout (OpenID Connect RP-Initiated Logout 1.0): a client sends its user to log out
//! here as well, and has them back.

use auspex_kernel::id::UserId;

use super::authorization::AuthorizationError;
use super::clients::Clients;
use super::parameters::Parameters;
use crate::tokens::{IdTokenHint, Tokens};
use crate::types::client::Client;
use crate::types::redirect;

const QUERY_BYTES_MAX: usize = 8_192;

/// A request to log out.
#[derive(Debug)]
pub(crate) struct LogoutRequest {
    /// Who sent the person here, if they say.
    pub(crate) client: Option<Client>,
    /// Whose login is to end, as an ID token proves. Without one, or for somebody else, the person is
    /// asked, since anybody can lead a browser here.
    pub(crate) user_id: Option<UserId>,
    pub(crate) return_to: ReturnTo,
    /// The same request without the ID token, which does not belong in addresses.
    pub(crate) query: String,
}

/// Where to go on after a logout.
#[derive(Debug)]
pub(crate) enum ReturnTo {
    /// Nowhere was asked for.
    Nowhere,
    /// To the client, with its `state`.
    Client(String),
    /// To an address that no client registered, where nobody is sent (RP-Initiated Logout §3). The
    /// person wanted to log out, and does.
    Unregistered,
}

/// Reads and checks a request to log out.
///
/// # Errors
/// What is wrong, of which the person alone can be told.
pub(crate) async fn read_logout(
    clients: &Clients,
    tokens: &Tokens,
    query: &str,
) -> Result<LogoutRequest, AuthorizationError> {
    let shown = |text| Err(AuthorizationError::Shown(text));
    if query.len() > QUERY_BYTES_MAX {
        return shown("The request is too long.");
    }
    let Ok(parameters) = Parameters::parse(query.as_bytes()) else {
        return shown("The request cannot be read.");
    };
    if parameters.has_repeated() {
        return shown("The request gives a parameter more than once.");
    }
    let hint = parameters.get("id_token_hint");
    let hint = hint.and_then(|token| tokens.id_token_hint(token));
    let client_id = parameters.get("client_id");
    let (hinted, user_id) = hint
        .map(|IdTokenHint { client_id, user_id }| (client_id, user_id))
        .unzip();
    if let (Some(given), Some(hinted)) = (client_id, &hinted)
        && given != hinted.as_str()
    {
        return shown("The request names another application than its ID token.");
    }
    let client = match client_id.or(hinted.as_ref().map(AsRef::as_ref)) {
        Some(id) => clients.find(id).await?,
        None => None,
    };
    if client_id.is_some() && client.is_none() {
        return shown("The application is not registered here.");
    }
    let return_to = match (parameters.get("post_logout_redirect_uri"), &client) {
        (None, _) => ReturnTo::Nowhere,
        (Some(uri), Some(client)) if client.returns_to(uri) => {
            let state = parameters.get("state").map(|state| ("state", state));
            let state: Vec<_> = state.into_iter().collect();
            ReturnTo::Client(redirect::with_parameters(uri, &state))
        }
        (Some(_), _) => ReturnTo::Unregistered,
    };
    let kept = ["post_logout_redirect_uri", "state"];
    let kept = kept.map(|name| (name, parameters.get(name)));
    let of_client = client.as_ref().map(|client| client.id.as_ref());
    let mut shorter = form_urlencoded::Serializer::new(String::new());
    for (name, value) in [("client_id", of_client)].into_iter().chain(kept) {
        shorter.extend_pairs(value.map(|value| (name, value)));
    }
    Ok(LogoutRequest {
        query: shorter.finish(),
        client,
        user_id,
        return_to,
    })
}
