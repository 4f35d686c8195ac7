//! Ending sessions and tokens by hand, for the day on which one has leaked.
//!
//! The user keeps their password and their keys: those end elsewhere.

use auspex_kernel::FieldError;
use auspex_kernel::id::{self, SessionId, UserId};

use crate::audit::{Action, Actor, Event};
use crate::change::Needs;
use crate::config::REVOCATION_KEPT;
use crate::error::IdentityError;
use crate::{Identity, store};

impl Identity {
    /// Ends every session of a user, given by id or username: their tokens, whoever has them, and
    /// their logins to the login page. Returns their id, and how many sessions had tokens.
    ///
    /// # Errors
    /// [`IdentityError::UserNotFound`], [`IdentityError::Database`].
    pub async fn revoke_sessions_of_user(
        &self,
        actor: &Actor,
        id_or_username: &str,
    ) -> Result<(UserId, usize), IdentityError> {
        let user_id = self.find_user(id_or_username).await?.id;
        let id = &user_id;
        let revoked = self.change(actor, Needs::Credential, async |change| {
            let transaction = change.transaction;
            let count = store::grants::revoke_of_user(transaction, id, change.now).await?;
            store::user_rows::end_sessions(transaction, id).await?;
            let done = Event::new(Action::TokenRevoke, format!("user:{id}"));
            change
                .record(done.with(format!("{count} sessions")))
                .await?;
            Ok(count)
        });
        let count = revoked.await?;
        Ok((user_id, count))
    }

    /// Ends one session: the claim `sid` of its tokens names it. Whether it was in force.
    ///
    /// # Errors
    /// [`IdentityError::SessionNotFound`], [`IdentityError::Database`].
    pub async fn revoke_session(&self, actor: &Actor, id: &str) -> Result<bool, IdentityError> {
        let id = SessionId::parse(id).ok_or(IdentityError::SessionNotFound)?;
        let found = self
            .db
            .read(async |connection| store::grants::by_id(connection, &id).await);
        if found.await?.is_none() {
            return Err(IdentityError::SessionNotFound);
        }
        self.revoke_grant(actor, &id, Action::TokenRevoke).await
    }

    /// Refuses one access token, named by its claim `jti`, until it would have ended anyway. Nobody
    /// keeps a list of tokens, so that whether there is such a one is not known.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`], [`IdentityError::Database`].
    pub async fn revoke_jti(&self, actor: &Actor, jti: &str) -> Result<(), IdentityError> {
        // A whole token, pasted here, must not come into the database.
        let jti = id::parse_id(jti).ok_or_else(|| {
            IdentityError::Invalid(vec![FieldError {
                field: "jti".into(),
                message: "must be the claim jti of an access token of this server".into(),
            }])
        })?;
        let until = self.clock.now() + REVOCATION_KEPT;
        self.revoke_access_token(actor, jti, until).await
    }
}
