//! Users who were deleted: services whose rows are theirs read of them here, in their own time.

use std::collections::HashSet;
use std::time::Duration;

use sea_orm::sea_query::{OnConflict, SelectStatement};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, DatabaseTransaction,
    EntityTrait as _, IntoActiveModel as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    QueryTrait as _,
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
    let user = rows::Model {
        subject: Subject::User(user.clone()).to_string(),
        deleted_at: now,
    };
    add(transaction, &[Deleted(user)], now).await
}

/// A user on the way from the database that they were deleted in to that of one service.
#[derive(Clone)]
pub(crate) struct Deleted(rows::Model);

impl Deleted {
    pub(crate) fn at(&self) -> Timestamp {
        self.0.deleted_at
    }
}

/// Makes users known who were deleted, and forgets those of long ago.
pub(crate) async fn add(
    transaction: &DatabaseTransaction,
    users: &[Deleted],
    now: Timestamp,
) -> Result<(), DbError> {
    rows::Entity::delete_many()
        .filter(rows::Column::DeletedAt.lt(now - KEPT))
        .exec(transaction)
        .await?;
    let keep_the_first = OnConflict::column(rows::Column::Subject)
        .do_nothing()
        .to_owned();
    let row = |user: &Deleted| user.0.clone().into_active_model().reset_all();
    rows::Entity::insert_many(users.iter().map(row))
        .on_conflict(keep_the_first)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// When the last user was deleted that is known here.
pub(crate) async fn newest(
    connection: &impl ConnectionTrait,
) -> Result<Option<Timestamp>, DbError> {
    let newest = rows::Entity::find().order_by_desc(rows::Column::DeletedAt);
    Ok(newest.one(connection).await?.map(|row| row.deleted_at))
}

/// Up to so many users, from the first who was deleted at this time or later.
pub(crate) async fn since(
    connection: &impl ConnectionTrait,
    time: Timestamp,
    users_max: u64,
) -> Result<Vec<Deleted>, DbError> {
    let users = rows::Entity::find()
        .filter(rows::Column::DeletedAt.gte(time))
        .order_by_asc(rows::Column::DeletedAt)
        .limit(users_max);
    let users = users.all(connection).await?;
    Ok(users.into_iter().map(Deleted).collect())
}

/// Which of them are not known here.
pub(crate) async fn unknown(
    connection: &impl ConnectionTrait,
    users: &[Deleted],
) -> Result<Vec<Deleted>, DbError> {
    let subjects = users.iter().map(|user| user.0.subject.as_str());
    let known: Vec<String> = rows::Entity::find()
        .select_only()
        .column(rows::Column::Subject)
        .filter(rows::Column::Subject.is_in(subjects))
        .into_tuple()
        .all(connection)
        .await?;
    let known: HashSet<String> = known.into_iter().collect();
    let unknown = users.iter().filter(|user| !known.contains(&user.0.subject));
    Ok(unknown.cloned().collect())
}

/// The texts of their [`Subject`]s, for a statement that looks for what is theirs.
pub fn subjects() -> SelectStatement {
    rows::Entity::find()
        .select_only()
        .column(rows::Column::Subject)
        .into_query()
}
