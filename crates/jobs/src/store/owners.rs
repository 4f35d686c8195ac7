//! Whose turn it is: owners are served in turn, and of each owner the jobs.

use auspex_kernel::db::DbError;
use auspex_kernel::id::JobId;
use sea_orm::sea_query::{Expr, OnConflict, SelectStatement};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, EntityTrait as _, ExprTrait as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _, Set,
};

use super::database_now;
use super::entity::chunks::{Column as Chunks, Entity as ChunksEntity};
use super::entity::jobs::{Column, Entity};
use super::entity::owners;

/// Notes when this owner had a turn. Without a time it is only noted that there is one who had none.
pub(super) async fn set_turn(
    transaction: &DatabaseTransaction,
    owner: &str,
    turn: Option<i64>,
) -> Result<(), DbError> {
    let row = owners::ActiveModel {
        owner: Set(owner.to_owned()),
        turn: Set(turn.unwrap_or_default()),
    };
    let mut known = OnConflict::column(owners::Column::Owner);
    match turn {
        Some(_) => known.update_column(owners::Column::Turn),
        None => known.do_nothing(),
    };
    owners::Entity::insert(row)
        .on_conflict(known)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// A job of which a chunk may be claimed: of the owner who was served longest ago the one that was served longest ago.
pub(crate) async fn next(connection: &impl ConnectionTrait) -> Result<Option<JobId>, DbError> {
    let now = database_now(connection).await?;
    let claimable = ChunksEntity::find()
        .select_only()
        .column(Chunks::Seq)
        .filter(Expr::col((ChunksEntity, Chunks::Job)).equals((Entity, Column::Id)))
        .filter(Chunks::State.eq(super::chunks::OPEN))
        .filter(Chunks::ChunkDue.lte(now));
    let jobs = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::Turn.is_not_null())
        .filter(Expr::exists(claimable.into_query()));
    let their_jobs = jobs
        .clone()
        .filter(Expr::col((Entity, Column::Owner)).equals((owners::Entity, owners::Column::Owner)));
    let owner: Option<String> = owners::Entity::find()
        .select_only()
        .column(owners::Column::Owner)
        .filter(Expr::exists(their_jobs.into_query()))
        .order_by_asc(owners::Column::Turn)
        .order_by_asc(owners::Column::Owner)
        .limit(1)
        .into_tuple()
        .one(connection)
        .await?;
    let Some(owner) = owner else {
        return Ok(None);
    };
    let id: Option<String> = jobs
        .filter(Column::Owner.eq(owner))
        .order_by_asc(Column::Turn)
        .order_by_asc(Column::Id)
        .limit(1)
        .into_tuple()
        .one(connection)
        .await?;
    Ok(id.map(JobId::from_stored))
}

/// Notes the owners whom an older version has not noted, and forgets those who have no jobs any more.
pub(crate) async fn tidy(transaction: &DatabaseTransaction) -> Result<(), DbError> {
    let open: Vec<String> = Entity::find()
        .select_only()
        .distinct()
        .column(Column::Owner)
        .filter(Column::Turn.is_not_null())
        .filter(Column::Owner.not_in_subquery(all_owners()))
        .into_tuple()
        .all(transaction)
        .await?;
    for owner in open {
        set_turn(transaction, &owner, None).await?;
    }
    let theirs = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Expr::col((Entity, Column::Owner)).equals((owners::Entity, owners::Column::Owner)));
    owners::Entity::delete_many()
        .filter(Expr::exists(theirs.into_query()).not())
        .exec(transaction)
        .await?;
    Ok(())
}

fn all_owners() -> SelectStatement {
    owners::Entity::find()
        .select_only()
        .column(owners::Column::Owner)
        .into_query()
}
