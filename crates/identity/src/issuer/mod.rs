//! Tokens of other identity providers (Keycloak, Auth0, Entra …), each trusted by configuration.
//!
//! A token is judged from keys in memory; where those do not do, the verdict asks for a fetch, which
//! [`Issuers::fetch`] does at most every half minute and for all who wait at once. What a token
//! grants is what the operator's table of roles says, and nothing else: words that happen to be
//! called like our scopes or roles mean nothing.
//!
//! Only configured addresses are asked, never one that a token names.

mod config;
mod download;
mod key_set;
mod key_source;
#[cfg(test)]
mod tests;

use auspex_kernel::{Clock, Timestamp};
use serde_json::{Map, Value};

use crate::jwt::{self, Claims, Expectations, Refusal, Unverified};
pub(crate) use config::IssuerConfig;
use key_source::{KeySource, Lookup};

const LEEWAY_S: i64 = 60;

/// The trusted issuers and their keys.
#[derive(Debug)]
pub(crate) struct Issuers {
    issuers: Vec<Issuer>,
}

#[derive(Debug)]
struct Issuer {
    config: IssuerConfig,
    keys: KeySource,
}

/// What is to be done about a token.
#[derive(Debug)]
pub(crate) enum IssuerVerdict {
    /// It is taken.
    Accepted(Box<Accepted>),
    /// It is not; the reason is for the log.
    Refused(Refusal),
    /// Ask again after [`Issuers::fetch`].
    NeedsKeys(KeysWanted),
}

/// A token that was taken.
#[derive(Debug, PartialEq)]
pub(crate) struct Accepted {
    /// What it says. `scope` is what `scope_claim` names; `None` where the operator names none, or the
    /// token has no such claim.
    pub(crate) claims: Claims,
    /// Our roles for it, by the operator's table, each once.
    pub(crate) roles: Vec<String>,
}

/// Whose keys are missing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeysWanted {
    issuer_index: usize,
}

impl Issuers {
    /// Checks the settings. Fetches nothing yet.
    ///
    /// # Errors
    /// What is wrong with them, for the operator.
    pub(crate) fn new(configs: Vec<IssuerConfig>, clock: Clock) -> Result<Self, String> {
        let mut issuers: Vec<Issuer> = Vec::with_capacity(configs.len());
        for config in configs {
            config.check()?;
            if issuers.iter().any(|one| one.config.issuer == config.issuer) {
                return Err(format!("the issuer {} is configured twice", config.issuer));
            }
            let keys = KeySource::new(&config, clock.clone())?;
            issuers.push(Issuer { config, keys });
        }
        Ok(Self { issuers })
    }

    /// Judges a token from the keys in memory.
    pub(crate) fn verify(&self, token: &Unverified<'_>, now: Timestamp) -> IssuerVerdict {
        self.judge(token, now)
            .unwrap_or_else(IssuerVerdict::Refused)
    }

    fn judge(&self, token: &Unverified<'_>, now: Timestamp) -> Result<IssuerVerdict, Refusal> {
        let claimed = token.claimed_issuer()?;
        let mut issuers = self.issuers.iter();
        let issuer_index = issuers
            .position(|issuer| issuer.config.issuer == claimed)
            .ok_or(Refusal::Issuer)?;
        let Issuer { config, keys } = &self.issuers[issuer_index];
        if !config.algorithms.contains(&token.algorithm()) {
            return Err(Refusal::AlgorithmNotAllowed);
        }
        let key = match keys.look_up(token) {
            Lookup::Found(key) => key,
            Lookup::Fetch => return Ok(IssuerVerdict::NeedsKeys(KeysWanted { issuer_index })),
            Lookup::Unavailable => return Err(Refusal::KeysUnavailable),
            Lookup::Unknown => return Err(Refusal::UnknownKey),
        };
        let types: Vec<Option<&str>> = config
            .types
            .iter()
            .map(|typ| Some(typ.as_str()).filter(|typ| !typ.is_empty()))
            .collect();
        let expected = Expectations {
            issuer: &config.issuer,
            audiences: &[config.audience.as_str()],
            types: &types,
            leeway_s: LEEWAY_S,
        };
        let mut claims = jwt::verify(token, &key, &expected, now)?;
        refuse_what_grants_nothing(&claims.other)?;
        let roles = config.roles_of(&claims);
        claims.scope = config.scope_of(&claims);
        Ok(IssuerVerdict::Accepted(Box::new(Accepted {
            claims,
            roles,
        })))
    }

    /// Fetches the keys that a verdict asked for, unless somebody else has just done so. Afterwards
    /// the token can be judged again, whether or not they came. Takes five seconds at most; goes on
    /// if the caller leaves, so that nobody can make it start over and over.
    pub(crate) async fn fetch(&self, wanted: KeysWanted) {
        if let Some(issuer) = self.issuers.get(wanted.issuer_index) {
            issuer.keys.fetch().await;
        }
    }

    /// Judges a token, fetching keys once where that is needed.
    ///
    /// # Errors
    /// Why it is not taken, for the log.
    pub(crate) async fn verify_or_fetch(
        &self,
        token: &Unverified<'_>,
        now: Timestamp,
    ) -> Result<Accepted, Refusal> {
        let mut verdict = self.verify(token, now);
        if let IssuerVerdict::NeedsKeys(wanted) = verdict {
            self.fetch(wanted).await;
            verdict = self.verify(token, now);
        }
        match verdict {
            IssuerVerdict::Accepted(accepted) => Ok(*accepted),
            IssuerVerdict::Refused(refusal) => Err(refusal),
            IssuerVerdict::NeedsKeys(_) => Err(Refusal::KeysUnavailable),
        }
    }
}

/// ID, refresh and logout tokens are signed by the same key, and some providers give them all the
/// same `typ` in the header. Marks by which they are known: OpenID Connect's `nonce` and hashes,
/// Keycloak's claim `typ`, Cognito's `token_use`, and `events` of logout tokens.
fn refuse_what_grants_nothing(claims: &Map<String, Value>) -> Result<(), Refusal> {
    let says = |name: &str, words: &[&str]| {
        let said = claims.get(name).and_then(Value::as_str);
        said.is_some_and(|said| words.iter().any(|word| said.eq_ignore_ascii_case(word)))
    };
    let marks = ["nonce", "at_hash", "c_hash", "events"];
    if marks.iter().any(|name| claims.contains_key(*name))
        || says("typ", &["ID", "Refresh", "Offline", "Logout"])
        || says("token_use", &["id"])
    {
        return Err(Refusal::IdToken);
    }
    if claims.contains_key("cnf") {
        return Err(Refusal::Bound);
    }
    Ok(())
}
