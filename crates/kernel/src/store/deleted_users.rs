//! Users who were deleted: services whose rows are theirs read of them here, in their own time.

use std::time::Duration;

use sea_orm::sea_query::{OnConflict, SelectStatement};
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    QueryTrait as _, Set,
};

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::id::UserId;
use crate::subject::Subject;

/// So long nobody who reads of them may be away.
const KEPT: Duration = Duration::from_hours(90 * 24);

mod rows {
    use sea_orm::entity::prelude::*;

    use crate::clock::Timestamp;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "kernel_deleted_users")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) subject: String,
        pub(crate) deleted_at: Timestamp,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Notes that a user is deleted, in the transaction that does so.
///
/// # Errors
/// [`DbError::Database`].
pub async fn record(
    transaction: &DatabaseTransaction,
    user: &UserId,
    now: Timestamp,
) -> Result<(), DbError> {
    rows::Entity::delete_many()
        .filter(rows::Column::DeletedAt.lt(now - KEPT))
        .exec(transaction)
        .await?;
    let row = rows::ActiveModel {
        subject: Set(Subject::User(user.clone()).to_string()),
        deleted_at: Set(now),
    };
    let keep_the_first = OnConflict::column(rows::Column::Subject)
        .do_nothing()
        .to_owned();
    rows::Entity::insert(row)
        .on_conflict(keep_the_first)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// The texts of their [`Subject`]s, for a statement that looks for what is theirs.
pub fn subjects() -> SelectStatement {
    rows::Entity::find()
        .select_only()
        .column(rows::Column::Subject)
        .into_query()
}
