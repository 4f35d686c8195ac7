//! Consented texts, sealed.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::page::{Found, Slice};
use sea_orm::sea_query::{Expr, Func};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr,
    EntityTrait as _, ExprTrait as _, JoinType, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Select, Set,
};
use sea_orm_migration::SchemaManager;

use super::entity::messages::{ActiveModel, Column, Entity};
use super::entity::sealed;
use super::{Inserts, customer_of, dialogue_of};
use crate::ids::{CustomerRef, DialogueRef};
use crate::types::{MessageFilter, RowId, parse_position};

/// Whether there are any, also where their table was never made.
pub(crate) async fn are_any(connection: &DatabaseConnection) -> Result<bool, DbError> {
    let schema = SchemaManager::new(connection);
    if !schema.has_table("dialogues_messages").await? {
        return Ok(false);
    }
    let first = Entity::find().limit(1).one(connection);
    Ok(first.await?.is_some())
}

/// What is stored of one.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) id: RowId,
    pub(crate) dialogue: DialogueRef,
    pub(crate) customer: CustomerRef,
    pub(crate) key_id: Vec<u8>,
    pub(crate) language: String,
    pub(crate) purpose: String,
    pub(crate) received_at: Timestamp,
    /// Empty where it is gone.
    pub(crate) sealed: Vec<u8>,
}

/// Adds rows, each with its place in its dialogue, but for what is sealed of them.
pub(crate) fn insert<'a>(inserts: &mut Inserts, new: impl Iterator<Item = &'a (i64, Row)>) {
    inserts.add(new.map(|(ordinal, row)| ActiveModel {
        id: Set(row.id.0),
        dialogue: Set(row.dialogue.as_bytes().to_vec()),
        customer: Set(row.customer.as_bytes().to_vec()),
        key_id: Set(row.key_id.clone()),
        primary_language: Set(primary(&row.language).to_owned()),
        language: Set(row.language.clone()),
        purpose: Set(row.purpose.clone()),
        received_at: Set(row.received_at),
        ordinal: Set(*ordinal),
    }));
}

/// The part of a language tag that names the language.
pub(crate) fn primary(tag: &str) -> &str {
    tag.split('-').next().unwrap_or(tag)
}

/// Rows that meet a filter, newest first. One condition finds them by its index, in their order; the
/// others are written so that no index serves them: a database that chose by itself could read all
/// texts of a language in order to find those of one customer.
pub(crate) async fn page(
    connection: &impl ConnectionTrait,
    filter: &MessageFilter,
    slice: Slice,
) -> Result<Found<Row>, DbError> {
    let query = Entity::find()
        .order_by_desc(Column::ReceivedAt)
        .order_by_desc(Column::Id);
    let after = |query: Select<_>, place: &str| {
        let place = parse_position(place);
        let (at, id) = place.ok_or_else(|| DbErr::Custom("a position among texts".into()))?;
        let place = Expr::tuple([Expr::value(at.0), Expr::value(id.0)]);
        Ok(query.filter(Expr::tuple([col(Column::ReceivedAt), col(Column::Id)]).lt(place)))
    };
    let (query, total) = slice
        .limit(connection, matching(query, filter), after)
        .await?;
    let found: Vec<Columns> = query
        .join(
            JoinType::LeftJoin,
            Entity::belongs_to(sealed::Entity)
                .from(Column::Id)
                .to(sealed::Column::Id)
                .into(),
        )
        .select_only()
        .columns([
            Column::Id,
            Column::Dialogue,
            Column::Customer,
            Column::KeyId,
            Column::Language,
            Column::Purpose,
            Column::ReceivedAt,
        ])
        .column(sealed::Column::Sealed)
        .into_tuple()
        .all(connection)
        .await?;
    let rows = found.into_iter().map(row).collect::<Result<_, _>>()?;
    Ok((rows, total))
}

/// The columns of a page, in their order.
type Columns = (
    i64,
    Vec<u8>,
    Vec<u8>,
    Vec<u8>,
    String,
    String,
    Timestamp,
    Option<Vec<u8>>,
);

fn row(columns: Columns) -> Result<Row, DbErr> {
    let (id, dialogue, customer, key_id, language, purpose, received_at, sealed) = columns;
    Ok(Row {
        id: RowId(id),
        dialogue: dialogue_of(&dialogue)?,
        customer: customer_of(&customer)?,
        key_id,
        language,
        purpose,
        received_at,
        sealed: sealed.unwrap_or_default(),
    })
}

/// With its table, since what is sealed is of another one.
fn col(column: Column) -> Expr {
    Expr::col((Entity, column))
}

fn matching(mut query: Select<Entity>, filter: &MessageFilter) -> Select<Entity> {
    let mut is_found = false;
    if let Some(dialogue) = filter.dialogue {
        query = query.filter(Column::Dialogue.eq(dialogue.as_bytes().to_vec()));
        is_found = true;
    }
    if let Some(customer) = filter.customer {
        let customer = customer.as_bytes().to_vec();
        query = query.filter(match is_found {
            true => not_by_index(Column::Customer).eq(customer),
            false => Column::Customer.eq(customer),
        });
        is_found = true;
    }
    if let Some(language) = &filter.language {
        let column = match language.contains('-') {
            true => Column::Language,
            false => Column::PrimaryLanguage,
        };
        query = query.filter(match is_found {
            true => not_by_index(column).eq(language.as_str()),
            false => column.eq(language.as_str()),
        });
    }
    if let Some(from) = filter.from {
        query = query.filter(Column::ReceivedAt.gte(from));
    }
    if let Some(to) = filter.to {
        query = query.filter(Column::ReceivedAt.lt(to));
    }
    query
}

/// The value of a column, as an expression that no index knows.
fn not_by_index(column: Column) -> Expr {
    Func::coalesce([col(column), Expr::cust("NULL")]).into()
}

/// How many a customer has.
pub(crate) async fn count(
    connection: &impl ConnectionTrait,
    customer: CustomerRef,
) -> Result<u64, DbError> {
    Ok(Entity::find()
        .filter(Column::Customer.eq(customer.as_bytes().to_vec()))
        .count(connection)
        .await?)
}

/// Whether anything is held of a dialogue.
pub(crate) async fn has_any(
    connection: &impl ConnectionTrait,
    dialogue: DialogueRef,
) -> Result<bool, DbError> {
    let found: Option<i64> = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::Dialogue.eq(dialogue.as_bytes().to_vec()))
        .limit(1)
        .into_tuple()
        .one(connection)
        .await?;
    Ok(found.is_some())
}

/// Which rows an erasure or a withdrawal has to delete.
#[derive(Clone, Copy)]
pub(crate) enum Of<'k> {
    Dialogue(DialogueRef),
    Key(CustomerRef, &'k [u8]),
}

/// Deletes some of these rows; how many.
pub(crate) async fn delete_some(
    transaction: &DatabaseTransaction,
    of: Of<'_>,
    count: u64,
) -> Result<u64, DbError> {
    let query = Entity::find().select_only().column(Column::Id).limit(count);
    let ids: Vec<i64> = match of {
        Of::Dialogue(dialogue) => query.filter(Column::Dialogue.eq(dialogue.as_bytes().to_vec())),
        Of::Key(customer, key_id) => query
            .filter(Column::Customer.eq(customer.as_bytes().to_vec()))
            .filter(Column::KeyId.eq(key_id.to_vec())),
    }
    .into_tuple()
    .all(transaction)
    .await?;
    delete(transaction, ids).await
}

/// Deletes rows; how many there were.
pub(crate) async fn delete(
    transaction: &DatabaseTransaction,
    ids: Vec<i64>,
) -> Result<u64, DbError> {
    if ids.is_empty() {
        return Ok(0);
    }
    super::sealed::erase(transaction, &ids).await?;
    let deleted = Entity::delete_many()
        .filter(Column::Id.is_in(ids))
        .exec(transaction)
        .await?;
    Ok(deleted.rows_affected)
}

/// What is too old by a rule of retention.
#[derive(Clone)]
pub(crate) struct Old<'r> {
    pub(crate) language: Option<&'r str>,
    pub(crate) purpose: Option<&'r str>,
    pub(crate) before: Timestamp,
}

impl Old<'_> {
    fn query(&self) -> Select<Entity> {
        let filter = MessageFilter {
            language: self.language.map(str::to_owned),
            to: Some(self.before),
            ..MessageFilter::default()
        };
        let query = matching(Entity::find(), &filter);
        match self.purpose {
            Some(purpose) => query.filter(Column::Purpose.eq(purpose)),
            None => query,
        }
    }

    pub(crate) async fn count(&self, connection: &impl ConnectionTrait) -> Result<u64, DbError> {
        Ok(self.query().count(connection).await?)
    }

    /// Some of these rows, the oldest first.
    pub(crate) async fn some(
        &self,
        connection: &impl ConnectionTrait,
        count: u64,
    ) -> Result<Vec<(i64, DialogueRef, CustomerRef)>, DbError> {
        let found: Vec<(i64, Vec<u8>, Vec<u8>)> = self
            .query()
            .select_only()
            .columns([Column::Id, Column::Dialogue, Column::Customer])
            .order_by_asc(Column::ReceivedAt)
            .order_by_asc(Column::Id)
            .limit(count)
            .into_tuple()
            .all(connection)
            .await?;
        let found = found.into_iter().map(|(id, dialogue, customer)| {
            Ok((id, dialogue_of(&dialogue)?, customer_of(&customer)?))
        });
        Ok(found.collect::<Result<_, DbErr>>()?)
    }
}

/// The primary language of a dialogue's first text, if any is held.
pub(crate) async fn language_of(
    connection: &impl ConnectionTrait,
    dialogue: DialogueRef,
) -> Result<Option<String>, DbError> {
    Ok(Entity::find()
        .select_only()
        .column(Column::PrimaryLanguage)
        .filter(Column::Dialogue.eq(dialogue.as_bytes().to_vec()))
        .order_by_asc(Column::ReceivedAt)
        .order_by_asc(Column::Id)
        .limit(1)
        .into_tuple()
        .one(connection)
        .await?)
}
