//! Who is in force, in memory, laid out to be asked on every request: a look-up or two, no lock, no
//! allocation.
//!
//! Changes come from one task at a time; `core/following.rs` sees to that.

mod clients;
pub(crate) mod key_ring;
mod shards;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use auspex_kernel::id::{ClientId, KeyId, SessionId, UserId};
use auspex_kernel::{Caller, ScopeSet, Subject, Timestamp};

use crate::types::api_key::{Digest, LiveKey};
use crate::types::client::Origins;
use crate::types::user::ActiveUser;
use clients::Clients;
use key_ring::KeyRing;
use shards::Shards;

/// A use is noted at most this often per key: cores that share a key would fight over its line.
const USE_NOTED_EVERY_US: u64 = 1_000_000;

/// A key in force.
#[derive(Debug)]
struct Key {
    id: KeyId,
    caller: Arc<Caller>,
    /// When it was last used; 0: not since it is known here.
    used_at: AtomicI64,
}

/// What a verified credential claims. Whether it still holds is asked of the [`Directory`].
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    /// An access token of ours.
    Token(TokenClaims),
    /// A name with its password.
    Password { user_id: UserId, mark: u64 },
    /// A token of a trusted issuer: it holds until it ends.
    Foreign(Arc<Caller>),
}

/// The claims of an access token that decide.
#[derive(Clone, Debug)]
pub(crate) struct TokenClaims {
    /// The key that signed it.
    pub(crate) kid: String,
    pub(crate) user_id: Option<UserId>,
    pub(crate) client_id: Option<ClientId>,
    pub(crate) grant_id: Option<SessionId>,
    pub(crate) jti: String,
    pub(crate) scopes: ScopeSet,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

/// Everything in force.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    keys: Shards<[u8; 32], Arc<Key>>,
    digests: Shards<KeyId, [u8; 32]>,
    users: Shards<UserId, ActiveUser>,
    clients: Clients,
    /// With the time from when on no token of theirs can be valid any more.
    revoked_grants: Shards<SessionId, Timestamp>,
    revoked_tokens: Shards<String, Timestamp>,
    /// Access tokens issued until then are refused: one of them may have been revoked.
    refused_until: AtomicI64,
    signing_keys: ArcSwap<KeyRing>,
    /// Moves whenever anything does.
    epoch: AtomicU64,
}

impl Directory {
    /// The caller whose key has this digest, unless it has expired.
    pub(crate) fn key_caller(&self, digest: &Digest, now: Timestamp) -> Option<Arc<Caller>> {
        self.keys.with(digest.as_array(), |key| {
            if key.caller.expires_at.is_some_and(|at| at <= now) {
                return None;
            }
            if now.0.abs_diff(key.used_at.load(Ordering::Relaxed)) >= USE_NOTED_EVERY_US {
                key.used_at.store(now.0, Ordering::Relaxed);
            }
            Some(Arc::clone(&key.caller))
        })?
    }

    /// The user, if there is one who is not disabled.
    pub(crate) fn user(&self, id: &UserId) -> Option<ActiveUser> {
        self.users.with(id, ActiveUser::clone)
    }

    /// Whether the client exists.
    pub(crate) fn has_client(&self, id: &ClientId) -> bool {
        self.clients.contains(id)
    }

    /// Whether pages of this origin may be a client.
    pub(crate) fn is_origin_of_client(&self, origin: &str) -> bool {
        self.clients.is_origin(origin)
    }

    /// The number of the state: while it stays, so does every answer of [`Self::caller`].
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// To be called after every change.
    pub(crate) fn changed(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Who calls by this proof, as things are now.
    pub(crate) fn caller(&self, proof: &Proof) -> Option<Arc<Caller>> {
        let caller = match proof {
            Proof::Foreign(caller) => return Some(Arc::clone(caller)),
            Proof::Password { user_id, mark } => {
                let user = self
                    .user(user_id)
                    .filter(|user| user.password_mark == *mark)?;
                user_caller(user_id, user.roles.scopes(), None, None)
            }
            Proof::Token(token) => self.token_caller(token)?,
        };
        Some(Arc::new(caller))
    }

    fn token_caller(&self, token: &TokenClaims) -> Option<Caller> {
        let client_gone = token
            .client_id
            .as_ref()
            .is_some_and(|id| !self.has_client(id));
        let grant = token.grant_id.as_ref();
        let grant_revoked = grant.is_some_and(|id| self.revoked_grants.contains(id));
        let token_revoked = self.revoked_tokens.contains(&token.jti)
            || token.issued_at.0 <= self.refused_until.load(Ordering::Acquire);
        if client_gone || grant_revoked || token_revoked {
            return None;
        }
        self.signing_keys.load().verifying(&token.kid)?;
        let until = Some(token.expires_at);
        match (&token.user_id, &token.client_id) {
            (Some(user_id), _) => {
                let scopes = self
                    .user(user_id)?
                    .roles
                    .scopes()
                    .intersection(token.scopes);
                let caller = user_caller(user_id, scopes, until, token.grant_id.clone());
                Some(Caller {
                    client_id: token.client_id.clone(),
                    ..caller
                })
            }
            (None, Some(client_id)) => {
                let subject = Subject::Client(client_id.clone());
                Some(Caller {
                    quota_key: quota_key(&subject),
                    subject,
                    scopes: token.scopes,
                    expires_at: until,
                    user_id: None,
                    session_id: None,
                    client_id: Some(client_id.clone()),
                })
            }
            (None, None) => None,
        }
    }

    /// A user who is active, or is no more.
    pub(crate) fn set_user(&self, id: UserId, user: Option<ActiveUser>) {
        self.users.set(id, user);
    }

    /// A client that exists, or does no more.
    pub(crate) fn set_client(&self, id: ClientId, origins: Option<Origins>) {
        self.clients.set(id, origins);
    }

    /// A grant whose tokens are refused. None of them is valid after `until` anyway.
    pub(crate) fn revoke_grant(&self, id: SessionId, until: Timestamp) {
        self.revoked_grants.set(id, Some(until));
    }

    /// A single token that is refused.
    pub(crate) fn revoke_token(&self, jti: String, until: Timestamp) {
        self.revoked_tokens.set(jti, Some(until));
    }

    /// Refuses every access token that was issued until then.
    pub(crate) fn refuse_issued_until(&self, at: Timestamp) {
        self.refused_until.fetch_max(at.0, Ordering::AcqRel);
    }

    /// The keys that sign tokens.
    pub(crate) fn signing_keys(&self) -> Guard<Arc<KeyRing>> {
        self.signing_keys.load()
    }

    /// Replaces the keys that sign tokens.
    pub(crate) fn set_signing_keys(&self, keys: KeyRing) {
        self.signing_keys.store(Arc::new(keys));
    }

    /// Forgets revocations of what is not valid any more anyway.
    pub(crate) fn forget_ended(&self, now: Timestamp) {
        self.revoked_grants.retain(|until| *until > now);
        self.revoked_tokens.retain(|until| *until > now);
    }

    /// A key that is in force, or is no more. Its owner must be in place before.
    pub(crate) fn set_key(&self, id: &KeyId, key: Option<LiveKey>, ignored: &mut Ignored) {
        let entry = key.and_then(|key| self.entry(key, ignored));
        let digest = entry.as_ref().map(|(digest, _)| *digest);
        let older = self.digests.with(id, |digest| *digest);
        if let Some(older) = older.filter(|older| Some(*older) != digest) {
            self.keys.set(older, None);
        }
        self.digests.set(id.clone(), digest);
        if let Some((digest, key)) = entry {
            self.keys.set(digest, Some(key));
        }
    }

    /// Replaces all keys. Their owners must be in place before.
    pub(crate) fn fill_keys(&self, keys: Vec<LiveKey>, ignored: &mut Ignored) {
        let entries: Vec<_> = keys
            .into_iter()
            .filter_map(|key| self.entry(key, ignored))
            .collect();
        self.digests.fill(
            entries
                .iter()
                .map(|(digest, key)| (key.id.clone(), *digest)),
        );
        self.keys.fill(entries);
    }

    /// Replaces everything but the keys.
    pub(crate) fn fill(
        &self,
        users: Vec<(UserId, ActiveUser)>,
        clients: Vec<(ClientId, Origins)>,
        revoked_grants: Vec<(SessionId, Timestamp)>,
        revoked_tokens: Vec<(String, Timestamp)>,
    ) {
        self.users.fill(users);
        self.clients.fill(clients);
        self.revoked_grants.fill(revoked_grants);
        self.revoked_tokens.fill(revoked_tokens);
    }

    fn entry(&self, key: LiveKey, ignored: &mut Ignored) -> Option<([u8; 32], Arc<Key>)> {
        let Some(digest) = Digest::from_stored(&key.digest) else {
            ignored.push(format!("the key {}: its hash is damaged", key.id));
            return None;
        };
        let mut scopes = crate::types::api_key::read_scopes(&key.scopes, |scope| {
            ignored.push(format!("the unknown scope {scope:?} of the key {}", key.id));
        });
        if let Some(owner) = &key.owner_id {
            // A key is worth no more than its owner.
            scopes = scopes.intersection(self.user(owner)?.roles.scopes());
        }
        let digest = *digest.as_array();
        let used = self
            .keys
            .with(&digest, |key| key.used_at.load(Ordering::Relaxed));
        let subject = Subject::Key(key.id.clone());
        let caller = Arc::new(Caller {
            quota_key: quota_key(&subject),
            subject,
            scopes,
            expires_at: key.expires_at,
            user_id: key.owner_id,
            session_id: None,
            client_id: None,
        });
        let used_at = AtomicI64::new(used.unwrap_or(0));
        let id = key.id;
        Some((
            digest,
            Arc::new(Key {
                id,
                caller,
                used_at,
            }),
        ))
    }

    /// When this process last saw the key in use.
    pub(crate) fn key_used_at(&self, id: &KeyId) -> Option<Timestamp> {
        let digest = self.digests.with(id, |digest| *digest)?;
        let at = self
            .keys
            .with(&digest, |key| key.used_at.load(Ordering::Relaxed))?;
        (at > 0).then_some(Timestamp(at))
    }

    /// The keys used since `since`, with the last time of each.
    pub(crate) fn keys_used_since(&self, since: Timestamp) -> Vec<(KeyId, Timestamp)> {
        let mut used = Vec::new();
        self.keys.for_each(|_, key| {
            let at = key.used_at.load(Ordering::Relaxed);
            if at > since.0 {
                used.push((key.id.clone(), Timestamp(at)));
            }
        });
        used
    }
}

/// What could not be understood while loading.
pub(crate) type Ignored = Vec<String>;

fn user_caller(
    id: &UserId,
    scopes: ScopeSet,
    expires_at: Option<Timestamp>,
    session_id: Option<SessionId>,
) -> Caller {
    let subject = Subject::User(id.clone());
    Caller {
        quota_key: quota_key(&subject),
        subject,
        scopes,
        expires_at,
        user_id: Some(id.clone()),
        session_id,
        client_id: None,
    }
}

/// Whose quota a subject uses: the same in every process and on every start.
pub(crate) fn quota_key(subject: &Subject) -> u64 {
    Digest::of(subject.to_string().as_bytes()).prefix()
}

#[cfg(test)]
mod tests {
    use auspex_kernel::Scope;

    use super::*;
    use crate::jwt::{Algorithm, SigningKey};
    use crate::types::role::Role;
    use crate::types::signing_key::StoredKey;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn digest(last: u8) -> Digest {
        let mut bytes = [7; 32];
        bytes[31] = last;
        Digest::from_stored(&bytes).unwrap()
    }

    fn key(id: &str, n: u8, scopes: &str, owner: Option<&str>) -> LiveKey {
        LiveKey {
            id: KeyId::from_stored(id),
            digest: digest(n).as_array().to_vec(),
            scopes: scopes.into(),
            expires_at: None,
            owner_id: owner.map(UserId::from_stored),
        }
    }

    fn user(role: Role) -> ActiveUser {
        ActiveUser {
            roles: [role].into_iter().collect(),
            password_mark: 1,
        }
    }

    fn token(kid: &str, user: Option<&str>, client: Option<&str>, scopes: &str) -> Proof {
        Proof::Token(TokenClaims {
            kid: kid.into(),
            user_id: user.map(UserId::from_stored),
            client_id: client.map(ClientId::from_stored),
            grant_id: Some(SessionId::from_stored("G")),
            jti: "J".into(),
            scopes: scopes.parse().unwrap(),
            issued_at: NOW,
            expires_at: Timestamp(NOW.0 + 1),
        })
    }

    #[test]
    fn quota_keys_never_change() {
        // The first 8 bytes of `printf key:0123456789ABCDEF | sha256sum`.
        let subject = Subject::Key(KeyId::from_stored("0123456789ABCDEF"));
        assert_eq!(quota_key(&subject), 0xad82_5a61_1236_d5f6);
    }

    #[test]
    fn odd_rows_cost_only_themselves() {
        let directory = Directory::default();
        let mut ignored = Ignored::new();
        let mut damaged = key("B", 2, "predict", None);
        damaged.digest = vec![1, 2, 3];
        let keys = vec![
            key("A", 1, "moon:land predict", None),
            damaged,
            key("C", 3, "moon:land", None),
        ];
        directory.fill_keys(keys, &mut ignored);
        let caller = directory.key_caller(&digest(1), NOW).unwrap();
        assert_eq!(caller.scopes.iter().collect::<Vec<_>>(), [Scope::Predict]);
        assert!(directory.key_caller(&digest(3), NOW).is_some());
        assert_eq!(ignored.len(), 3);
    }

    #[test]
    fn a_key_is_worth_no_more_than_its_owner() {
        let directory = Directory::default();
        let mut ignored = Ignored::new();
        let set = |ignored: &mut Ignored| {
            directory.set_key(
                &KeyId::from_stored("A"),
                Some(key("A", 1, "predict users:write", Some("U"))),
                ignored,
            );
        };
        set(&mut ignored);
        assert!(
            directory.key_caller(&digest(1), NOW).is_none(),
            "nobody owns it"
        );
        directory.set_user(UserId::from_stored("U"), Some(user(Role::Admin)));
        set(&mut ignored);
        assert_eq!(
            directory
                .key_caller(&digest(1), NOW)
                .unwrap()
                .scopes
                .to_string(),
            "predict users:write"
        );
        directory.set_user(UserId::from_stored("U"), Some(user(Role::Service)));
        set(&mut ignored);
        assert_eq!(
            directory
                .key_caller(&digest(1), NOW)
                .unwrap()
                .scopes
                .to_string(),
            "predict"
        );
        directory.set_user(UserId::from_stored("U"), None);
        set(&mut ignored);
        assert!(directory.key_caller(&digest(1), NOW).is_none());
    }

    #[test]
    fn a_rotated_digest_leaves_nothing_behind() {
        let directory = Directory::default();
        let id = KeyId::from_stored("A");
        directory.set_key(&id, Some(key("A", 1, "predict", None)), &mut Ignored::new());
        directory.set_key(&id, Some(key("A", 2, "predict", None)), &mut Ignored::new());
        assert!(directory.key_caller(&digest(1), NOW).is_none());
        assert!(directory.key_caller(&digest(2), NOW).is_some());
        directory.set_key(&id, None, &mut Ignored::new());
        assert!(directory.key_caller(&digest(2), NOW).is_none());
    }

    #[test]
    fn uses_are_noted_and_survive_a_reload() {
        let directory = Directory::default();
        let id = KeyId::from_stored("A");
        directory.set_key(&id, Some(key("A", 1, "predict", None)), &mut Ignored::new());
        assert_eq!(directory.key_used_at(&id), None);
        directory.key_caller(&digest(1), NOW);
        directory.fill_keys(vec![key("A", 1, "predict", None)], &mut Ignored::new());
        assert_eq!(directory.key_used_at(&id), Some(NOW));
        assert_eq!(directory.keys_used_since(Timestamp(0)), [(id, NOW)]);
        assert_eq!(directory.keys_used_since(NOW), []);
    }

    #[test]
    fn tokens_hold_only_while_all_behind_them_does() {
        let directory = Directory::default();
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let stored = |key: &SigningKey| StoredKey {
            kid: key.kid().into(),
            algorithm: "EdDSA".into(),
            pkcs8: key.pkcs8().unwrap().to_vec(),
            created_at: NOW,
            signs_from: NOW,
        };
        directory.set_signing_keys(KeyRing::new(vec![stored(&key)]));
        let token = |user, client, scopes| token(key.kid(), user, client, scopes);
        let proof = token(Some("U"), Some("C"), "predict users:write");
        assert!(
            directory.caller(&proof).is_none(),
            "neither user nor client is there"
        );
        directory.set_user(UserId::from_stored("U"), Some(user(Role::Admin)));
        assert!(
            directory.caller(&proof).is_none(),
            "the client is not there"
        );
        directory.set_client(ClientId::from_stored("C"), Some(Origins::default()));
        assert_eq!(
            directory.caller(&proof).unwrap().scopes.to_string(),
            "predict users:write"
        );
        directory.set_user(UserId::from_stored("U"), Some(user(Role::Service)));
        assert_eq!(
            directory.caller(&proof).unwrap().scopes.to_string(),
            "predict"
        );
        directory.revoke_token("J".into(), Timestamp(NOW.0 + 1));
        assert!(directory.caller(&proof).is_none());
        directory.forget_ended(Timestamp(NOW.0 + 1));
        assert!(directory.caller(&proof).is_some());
        directory.set_signing_keys(KeyRing::default());
        assert!(directory.caller(&proof).is_none(), "its key is gone");
        directory.set_signing_keys(KeyRing::new(vec![stored(&key)]));
        assert!(directory.caller(&proof).is_some());
        directory.revoke_grant(SessionId::from_stored("G"), Timestamp(NOW.0 + 9));
        assert!(directory.caller(&proof).is_none());
        assert!(
            directory
                .caller(&token(None, Some("C"), "predict"))
                .is_none(),
            "same grant"
        );
        assert!(directory.caller(&token(None, None, "predict")).is_none());
    }

    #[test]
    fn a_password_proof_ends_with_the_password() {
        let directory = Directory::default();
        directory.set_user(UserId::from_stored("U"), Some(user(Role::Viewer)));
        let proof = |mark| Proof::Password {
            user_id: UserId::from_stored("U"),
            mark,
        };
        assert!(directory.caller(&proof(1)).is_some());
        assert!(directory.caller(&proof(2)).is_none());
    }
}
