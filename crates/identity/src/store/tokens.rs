//! Access tokens that were revoked one by one.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use sea_orm::sea_query::OnConflict;
use sea_orm::{DatabaseTransaction, EntityTrait, Set};

use super::changes::{Kind, record_change};
use super::entity::revoked_tokens;

/// Refuses the token from now on; after `expires_at` it is refused anyway. Again is no error.
pub(crate) async fn revoke(
    transaction: &DatabaseTransaction,
    jti: &str,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<(), DbError> {
    let row = revoked_tokens::ActiveModel {
        jti: Set(jti.to_owned()),
        expires_at: Set(expires_at),
    };
    let again = OnConflict::column(revoked_tokens::Column::Jti)
        .update_column(revoked_tokens::Column::ExpiresAt)
        .to_owned();
    revoked_tokens::Entity::insert(row)
        .on_conflict(again)
        .exec_without_returning(transaction)
        .await?;
    record_change(transaction, Kind::Token, jti, now).await
}
