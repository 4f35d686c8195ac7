//! The audit record. Its table has the name that it got when one service alone recorded, and that
//! service's migrations make it: rows of earlier versions stay where they are.

use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, DbErr,
    EntityTrait, IntoActiveModel as _, Order, QueryFilter, QueryOrder, QuerySelect, Select, Set,
};

use crate::audit::{Action, Actor, Event, Filter, Line, address_prefix};
use crate::clock::Timestamp;
use crate::db::DbError;
use crate::page::{Found, Slice};

mod rows {
    use sea_orm::entity::prelude::*;

    use crate::clock::Timestamp;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_audit")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) id: String,
        pub(crate) at: Timestamp,
        #[sea_orm(column_type = "Text")]
        pub(crate) actor: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) action: String,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) target: Option<String>,
        #[sea_orm(column_type = "Text")]
        pub(crate) outcome: String,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) detail: Option<String>,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) address: Option<String>,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) request_id: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Adds a line.
pub(crate) async fn insert<A: Action>(
    transaction: &DatabaseTransaction,
    id: String,
    actor: &Actor,
    event: Event<A>,
    now: Timestamp,
) -> Result<(), DbError> {
    let row = rows::ActiveModel {
        id: Set(id),
        at: Set(now),
        actor: Set(actor.subject.to_string()),
        action: Set(event.action.as_str().to_owned()),
        target: Set(event.target),
        outcome: Set(event.outcome.as_str().to_owned()),
        detail: Set(event.detail),
        address: Set(actor.address.map(address_prefix)),
        request_id: Set(actor.request_id.clone()),
    };
    rows::Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// Lines on their way from the database of one service to that of all.
pub(crate) struct Lines(Vec<rows::Model>);

impl Lines {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The oldest lines, up to so many.
pub(crate) async fn oldest(
    connection: &impl ConnectionTrait,
    lines_max: u64,
) -> Result<Lines, DbError> {
    let oldest = rows::Entity::find()
        .order_by_asc(rows::Column::Id)
        .limit(lines_max);
    Ok(Lines(oldest.all(connection).await?))
}

/// Adds lines that another database holds, unless they are there already.
pub(crate) async fn add(transaction: &DatabaseTransaction, lines: &Lines) -> Result<(), DbError> {
    let rows = lines.0.iter().cloned();
    let keep_the_first = OnConflict::column(rows::Column::Id).do_nothing().to_owned();
    rows::Entity::insert_many(rows.map(|row| row.into_active_model().reset_all()))
        .on_conflict(keep_the_first)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// Removes lines that another database holds by now.
pub(crate) async fn remove(
    transaction: &DatabaseTransaction,
    lines: &Lines,
) -> Result<(), DbError> {
    let ids = lines.0.iter().map(|line| line.id.as_str());
    rows::Entity::delete_many()
        .filter(rows::Column::Id.is_in(ids))
        .exec(transaction)
        .await?;
    Ok(())
}

/// The id of the newest line.
pub(crate) async fn newest_id(
    connection: &impl ConnectionTrait,
) -> Result<Option<String>, DbError> {
    Ok(rows::Entity::find()
        .select_only()
        .column(rows::Column::Id)
        .order_by_desc(rows::Column::Id)
        .into_tuple()
        .one(connection)
        .await?)
}

/// Removes up to `rows_max` lines that are older; how many.
pub(crate) async fn remove_before(
    transaction: &DatabaseTransaction,
    before: Timestamp,
    rows_max: u64,
) -> Result<u64, DbError> {
    // Two statements, because a database may prefer to read the whole table for a subquery of many rows.
    let old: Vec<String> = rows::Entity::find()
        .select_only()
        .column(rows::Column::Id)
        .filter(rows::Column::At.lt(before))
        .limit(rows_max)
        .into_tuple()
        .all(transaction)
        .await?;
    if old.is_empty() {
        return Ok(0);
    }
    let removed = rows::Entity::delete_many()
        .filter(rows::Column::Id.is_in(old))
        .exec(transaction)
        .await?;
    Ok(removed.rows_affected)
}

/// Lines, newest first.
pub(crate) async fn page(
    connection: &impl ConnectionTrait,
    filter: Filter,
    slice: Slice,
) -> Result<Found<Line>, DbError> {
    let is_by_time = filter.is_by_time();
    let outcome = filter.outcome.map(|outcome| outcome.as_str().to_owned());
    let mut wanted = Condition::all();
    for (column, value) in [
        (rows::Column::Actor, filter.actor),
        (rows::Column::Action, filter.action),
        (rows::Column::Target, filter.target),
        (rows::Column::Outcome, outcome),
    ] {
        wanted = wanted.add_option(value.map(|value| column.eq(value)));
    }
    let (at, id) = (rows::Column::At, rows::Column::Id);
    wanted = wanted.add_option(filter.from.map(|from| at.gte(from)));
    wanted = wanted.add_option(filter.to.map(|to| at.lt(to)));
    let query = rows::Entity::find().filter(wanted);
    let (rows, total) = if is_by_time {
        let query = query.order_by_desc(at).order_by_desc(id);
        let after = |query: Select<_>, position: &str| {
            let last = position.split_once('.');
            let last = last.and_then(|(time, id)| Some((time.parse::<i64>().ok()?, id)));
            let (time, last) =
                last.ok_or_else(|| DbErr::Custom("a position in the audit record".into()))?;
            let last = Expr::tuple([Expr::value(time), Expr::value(last)]);
            Ok(query.filter(Expr::tuple([Expr::col(at), Expr::col(id)]).lt(last)))
        };
        let (query, total) = slice.limit(connection, query, after).await?;
        (query.all(connection).await?, total)
    } else {
        slice.by_id(connection, query, id, Order::Desc).await?
    };
    let line = |row: rows::Model| Line {
        id: row.id,
        at: row.at,
        actor: row.actor,
        action: row.action,
        target: row.target,
        outcome: row.outcome,
        detail: row.detail,
        address: row.address,
        request_id: row.request_id,
    };
    Ok((rows.into_iter().map(line).collect(), total))
}
