//! The keys database: wrapped keys, and what must not come back.

use std::collections::HashMap;

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::page::{Found, Slice};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DatabaseConnection, DatabaseTransaction,
    DbBackend, DbErr, EntityTrait as _, ExprTrait as _, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Select, Set,
};
use sea_orm_migration::SchemaManager;

use super::entity::{belonging, erasures, keys, secrets};
use super::{customer_of, dialogue_of, id_of, padded, pieces};
use crate::ids::{CustomerRef, DialogueRef};
use crate::types::Receipt;

/// A customer's key as it is stored.
#[derive(Clone)]
pub(crate) struct WrappedKey {
    pub(crate) customer: CustomerRef,
    pub(crate) id: [u8; 16],
    pub(crate) wrapped: Vec<u8>,
    pub(crate) master_id: Vec<u8>,
    pub(crate) created_at: Timestamp,
}

impl TryFrom<keys::Model> for WrappedKey {
    type Error = DbErr;

    fn try_from(row: keys::Model) -> Result<Self, DbErr> {
        Ok(Self {
            customer: customer_of(&row.customer)?,
            id: id_of(&row.key_id)?,
            wrapped: row.wrapped,
            master_id: row.master_id,
            created_at: row.created_at,
        })
    }
}

/// Whether its tables were ever made.
pub(crate) async fn has_tables(connection: &DatabaseConnection) -> Result<bool, DbError> {
    let schema = SchemaManager::new(connection);
    Ok(schema.has_table("dialogues_key_secrets").await?)
}

fn wrapped_keys(rows: Vec<keys::Model>) -> Result<Vec<WrappedKey>, DbError> {
    let keys = rows.into_iter().map(WrappedKey::try_from);
    Ok(keys.collect::<Result<_, _>>()?)
}

pub(crate) async fn find(
    connection: &impl ConnectionTrait,
    customer: CustomerRef,
) -> Result<Option<WrappedKey>, DbError> {
    Ok(find_all(connection, [customer].into_iter()).await?.pop())
}

pub(crate) async fn find_all(
    connection: &impl ConnectionTrait,
    customers: impl Iterator<Item = CustomerRef>,
) -> Result<Vec<WrappedKey>, DbError> {
    let wanted = customers.map(|customer| customer.as_bytes().to_vec());
    wrapped_keys(
        keys::Entity::find()
            .filter(keys::Column::Customer.is_in(padded(wanted.collect())))
            .all(connection)
            .await?,
    )
}

pub(crate) async fn insert(
    transaction: &DatabaseTransaction,
    keys: Vec<WrappedKey>,
) -> Result<(), DbError> {
    for some in pieces(keys) {
        let rows = some.into_iter().map(|key| keys::ActiveModel {
            customer: Set(key.customer.as_bytes().to_vec()),
            key_id: Set(key.id.to_vec()),
            wrapped: Set(key.wrapped),
            master_id: Set(key.master_id),
            created_at: Set(key.created_at),
        });
        keys::Entity::insert_many(rows)
            .exec_without_returning(transaction)
            .await?;
    }
    Ok(())
}

/// Deletes a customer's key; which it was.
pub(crate) async fn delete(
    transaction: &DatabaseTransaction,
    customer: CustomerRef,
) -> Result<Option<[u8; 16]>, DbError> {
    let found = find(transaction, customer).await?;
    if let Some(key) = &found {
        delete_by_ids(transaction, vec![key.id.to_vec()]).await?;
    }
    Ok(found.map(|key| key.id))
}

/// What stands in place of the id of a master key where a key was erased.
const ERASED: [u8; 8] = [0; 8];

/// Deletes keys by their ids; how many there were. SQLite overwrites the row where it stands and
/// lets it be, of nobody from now on: were it removed, others could move, and leave copies behind that
/// outlive them.
pub(crate) async fn delete_by_ids(
    transaction: &DatabaseTransaction,
    ids: Vec<Vec<u8>>,
) -> Result<u64, DbError> {
    let is_one = keys::Column::KeyId.is_in(ids);
    if transaction.get_database_backend() == DbBackend::Postgres {
        let delete = keys::Entity::delete_many().filter(is_one);
        return Ok(delete.exec(transaction).await?.rows_affected);
    }
    let erased = keys::Entity::update_many()
        .filter(is_one)
        .col_expr(keys::Column::Customer, Expr::cust("randomblob(16)"))
        .col_expr(keys::Column::KeyId, Expr::cust("randomblob(16)"))
        .col_expr(keys::Column::MasterId, Expr::value(ERASED.to_vec()))
        .col_expr(
            keys::Column::Wrapped,
            Expr::cust("zeroblob(length(wrapped))"),
        )
        .exec(transaction)
        .await?;
    Ok(erased.rows_affected)
}

/// The ids of all master keys that have wrapped something.
pub(crate) async fn master_ids(connection: &impl ConnectionTrait) -> Result<Vec<Vec<u8>>, DbError> {
    let of_keys: Vec<Vec<u8>> = keys::Entity::find()
        .select_only()
        .column(keys::Column::MasterId)
        .filter(keys::Column::MasterId.ne(ERASED.to_vec()))
        .distinct()
        .into_tuple()
        .all(connection)
        .await?;
    let of_secrets: Vec<Vec<u8>> = secrets::Entity::find()
        .select_only()
        .column(secrets::Column::MasterId)
        .into_tuple()
        .all(connection)
        .await?;
    Ok([of_keys, of_secrets].concat())
}

/// Some keys that another master key has wrapped.
pub(crate) async fn not_wrapped_by(
    transaction: &DatabaseTransaction,
    master_id: &[u8],
    count: u64,
) -> Result<Vec<WrappedKey>, DbError> {
    let other = Condition::any()
        .add(keys::Column::MasterId.lt(master_id.to_vec()))
        .add(keys::Column::MasterId.gt(master_id.to_vec()));
    let query = keys::Entity::find()
        .filter(other)
        .filter(keys::Column::MasterId.ne(ERASED.to_vec()))
        .limit(count);
    wrapped_keys(query.all(transaction).await?)
}

pub(crate) async fn set_wrapped(
    transaction: &DatabaseTransaction,
    key: &WrappedKey,
) -> Result<(), DbError> {
    keys::Entity::update_many()
        .filter(keys::Column::KeyId.eq(key.id.to_vec()))
        .col_expr(keys::Column::Wrapped, Expr::value(key.wrapped.clone()))
        .col_expr(keys::Column::MasterId, Expr::value(key.master_id.clone()))
        .exec(transaction)
        .await?;
    Ok(())
}

/// A wrapped secret and the id of the master key that wrapped it.
pub(crate) async fn secret(
    connection: &impl ConnectionTrait,
    name: &str,
) -> Result<Option<(Vec<u8>, Vec<u8>)>, DbError> {
    let row = secrets::Entity::find_by_id(name).one(connection).await?;
    Ok(row.map(|row| (row.wrapped, row.master_id)))
}

/// Adds a secret unless there is one of this name.
/// The main database that the keys belong to, and what they are known by there: these, unless that is known.
pub(crate) async fn belong(
    transaction: &DatabaseTransaction,
    main: [u8; 32],
    id: [u8; 32],
) -> Result<(Vec<u8>, Vec<u8>), DbError> {
    let row = belonging::ActiveModel {
        one: Set(1),
        main: Set(main.to_vec()),
        id: Set(id.to_vec()),
    };
    let keep_the_first = OnConflict::column(belonging::Column::One)
        .do_nothing()
        .to_owned();
    belonging::Entity::insert(row)
        .on_conflict(keep_the_first)
        .exec_without_returning(transaction)
        .await?;
    let kept = belonging(transaction).await?;
    Ok(kept.ok_or_else(|| DbErr::RecordNotFound("what the keys belong to".into()))?)
}

/// The main database that the keys belong to, and what they are known by there, if that is known.
pub(crate) async fn belonging(
    connection: &impl ConnectionTrait,
) -> Result<Option<(Vec<u8>, Vec<u8>)>, DbError> {
    let row = belonging::Entity::find().one(connection).await?;
    Ok(row.map(|row| (row.main, row.id)))
}

/// Makes the keys belong to nobody.
pub(crate) async fn release(transaction: &DatabaseTransaction) -> Result<(), DbError> {
    belonging::Entity::delete_many().exec(transaction).await?;
    Ok(())
}

pub(crate) async fn insert_secret_if_absent(
    transaction: &DatabaseTransaction,
    name: &str,
    wrapped: Vec<u8>,
    master_id: &[u8],
) -> Result<(), DbError> {
    let row = secrets::ActiveModel {
        name: Set(name.to_owned()),
        wrapped: Set(wrapped),
        master_id: Set(master_id.to_vec()),
    };
    let keep_the_first = OnConflict::column(secrets::Column::Name)
        .do_nothing()
        .to_owned();
    secrets::Entity::insert(row)
        .on_conflict(keep_the_first)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

pub(crate) async fn set_secret(
    transaction: &DatabaseTransaction,
    name: &str,
    wrapped: Vec<u8>,
    master_id: &[u8],
) -> Result<(), DbError> {
    secrets::Entity::update_many()
        .filter(secrets::Column::Name.eq(name))
        .col_expr(secrets::Column::Wrapped, Expr::value(wrapped))
        .col_expr(secrets::Column::MasterId, Expr::value(master_id.to_vec()))
        .exec(transaction)
        .await?;
    Ok(())
}

/// An erasure of a customer, or with `dialogue` the withdrawal of one dialogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Erasure {
    pub(crate) id: [u8; 16],
    pub(crate) customer: CustomerRef,
    pub(crate) dialogue: Option<DialogueRef>,
    pub(crate) key_id: Option<Vec<u8>>,
    pub(crate) erased_at: Timestamp,
    pub(crate) completed_at: Option<Timestamp>,
}

/// What came of an erasure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) messages: u64,
    pub(crate) dialogues: u64,
    pub(crate) pending_texts: u64,
}

fn erasure(row: &erasures::Model) -> Result<Erasure, DbErr> {
    Ok(Erasure {
        id: id_of(&row.id)?,
        customer: customer_of(&row.customer)?,
        dialogue: row.dialogue.as_deref().map(dialogue_of).transpose()?,
        key_id: row.key_id.clone(),
        erased_at: row.erased_at,
        completed_at: row.completed_at,
    })
}

fn erasures_of(rows: &[erasures::Model]) -> Result<Vec<Erasure>, DbError> {
    Ok(rows.iter().map(erasure).collect::<Result<_, _>>()?)
}

fn receipt(row: &erasures::Model) -> Result<Receipt, DbErr> {
    Ok(Receipt {
        id: id_of(&row.id)?,
        customer: customer_of(&row.customer)?,
        erased_at: row.erased_at,
        completed_at: row.completed_at,
        messages: row.messages.unsigned_abs(),
        dialogues: row.dialogues.unsigned_abs(),
        pending_texts: row.pending_texts.unsigned_abs(),
        log_truncated: row.log_truncated,
    })
}

pub(crate) async fn insert_erasures(
    transaction: &DatabaseTransaction,
    new: &[Erasure],
) -> Result<(), DbError> {
    if new.is_empty() {
        return Ok(());
    }
    let rows = new.iter().map(|new| erasures::ActiveModel {
        id: Set(new.id.to_vec()),
        customer: Set(new.customer.as_bytes().to_vec()),
        dialogue: Set(new.dialogue.map(|dialogue| dialogue.as_bytes().to_vec())),
        key_id: Set(new.key_id.clone()),
        erased_at: Set(new.erased_at),
        completed_at: Set(None),
        messages: Set(0),
        dialogues: Set(0),
        pending_texts: Set(0),
        log_truncated: Set(false),
    });
    erasures::Entity::insert_many(rows)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// When the customers of these dialogues were last erased, as far as that was since the first of them
/// began.
pub(crate) async fn last_erasures(
    connection: &impl ConnectionTrait,
    dialogues: &[(CustomerRef, Timestamp)],
) -> Result<HashMap<CustomerRef, Timestamp>, DbError> {
    let Some(first) = dialogues.iter().map(|(_, began_at)| *began_at).min() else {
        return Ok(HashMap::new());
    };
    let customers = dialogues
        .iter()
        .map(|(customer, _)| customer.as_bytes().to_vec());
    let found: Vec<(Vec<u8>, Timestamp)> = erasures::Entity::find()
        .select_only()
        .columns([erasures::Column::Customer, erasures::Column::ErasedAt])
        .filter(erasures::Column::Customer.is_in(padded(customers.collect())))
        .filter(erasures::Column::ErasedAt.gte(first))
        .filter(erasures::Column::Dialogue.is_null())
        .into_tuple()
        .all(connection)
        .await?;
    let mut last = HashMap::new();
    for (customer, at) in found {
        let known = last.entry(customer_of(&customer)?).or_insert(at);
        *known = Ord::max(at, *known);
    }
    Ok(last)
}

/// Erasures and withdrawals after a place, the oldest first.
pub(crate) async fn erasures_after(
    connection: &impl ConnectionTrait,
    (at, id): (Timestamp, [u8; 16]),
    count: u64,
) -> Result<Vec<Erasure>, DbError> {
    let place = Expr::tuple([Expr::value(at.0), Expr::value(id.to_vec())]);
    let of_row = Expr::tuple([
        Expr::col(erasures::Column::ErasedAt),
        Expr::col(erasures::Column::Id),
    ]);
    let rows = erasures::Entity::find()
        .filter(of_row.gt(place))
        .order_by_asc(erasures::Column::ErasedAt)
        .order_by_asc(erasures::Column::Id)
        .limit(count)
        .all(connection)
        .await?;
    erasures_of(&rows)
}

/// Some that were noted until `before` and are not known to be carried out, the oldest first.
pub(crate) async fn incomplete(
    connection: &impl ConnectionTrait,
    customer: Option<CustomerRef>,
    before: Timestamp,
    count: u64,
) -> Result<Vec<Erasure>, DbError> {
    use erasures::Column;
    let mut query = erasures::Entity::find()
        .filter(Column::CompletedAt.is_null())
        .filter(Column::ErasedAt.lte(before))
        .order_by_asc(Column::ErasedAt)
        .limit(count);
    if let Some(customer) = customer {
        query = query.filter(Column::Customer.eq(customer.as_bytes().to_vec()));
    }
    erasures_of(&query.all(connection).await?)
}

pub(crate) async fn complete(
    transaction: &DatabaseTransaction,
    id: &[u8; 16],
    counts: Counts,
    now: Timestamp,
    log_truncated: bool,
) -> Result<(), DbError> {
    use erasures::Column;
    let plus = |column: Column, count: u64| Expr::col(column).add(count.cast_signed());
    erasures::Entity::update_many()
        .filter(Column::Id.eq(id.to_vec()))
        .col_expr(Column::CompletedAt, Expr::value(now.0))
        .col_expr(Column::Messages, plus(Column::Messages, counts.messages))
        .col_expr(Column::Dialogues, plus(Column::Dialogues, counts.dialogues))
        .col_expr(
            Column::PendingTexts,
            plus(Column::PendingTexts, counts.pending_texts),
        )
        .col_expr(Column::LogTruncated, Expr::value(log_truncated))
        .exec(transaction)
        .await?;
    Ok(())
}

pub(crate) async fn find_receipt(
    connection: &impl ConnectionTrait,
    id: &[u8; 16],
) -> Result<Option<Receipt>, DbError> {
    let row = erasures::Entity::find_by_id(id.to_vec())
        .one(connection)
        .await?;
    Ok(row.as_ref().map(receipt).transpose()?)
}

/// Receipts of erased customers, newest first.
pub(crate) async fn receipts(
    connection: &impl ConnectionTrait,
    customer: Option<CustomerRef>,
    slice: Slice,
) -> Result<Found<Receipt>, DbError> {
    use erasures::Column;
    let mut query = erasures::Entity::find()
        .filter(Column::Dialogue.is_null())
        .order_by_desc(Column::ErasedAt)
        .order_by_desc(Column::Id);
    if let Some(customer) = customer {
        query = query.filter(Column::Customer.eq(customer.as_bytes().to_vec()));
    }
    let after = |query: Select<_>, place: &str| {
        let place = place.split_once('.').and_then(|(at, id)| {
            let id = u128::from_str_radix(id, 16).ok()?.to_be_bytes();
            Some((at.parse::<i64>().ok()?, id))
        });
        let (at, id) = place.ok_or_else(|| DbErr::Custom("a position among receipts".into()))?;
        let place = Expr::tuple([Expr::value(at), Expr::value(id.to_vec())]);
        let of_row = Expr::tuple([Expr::col(Column::ErasedAt), Expr::col(Column::Id)]);
        Ok(query.filter(of_row.lt(place)))
    };
    let (query, total) = slice.limit(connection, query, after).await?;
    let rows = query.all(connection).await?;
    let rows = rows.iter().map(receipt);
    Ok((rows.collect::<Result<_, _>>()?, total))
}

/// How many erasures and withdrawals of a customer are noted.
pub(crate) async fn count_erasures(
    connection: &impl ConnectionTrait,
    customer: CustomerRef,
) -> Result<u64, DbError> {
    Ok(erasures::Entity::find()
        .filter(erasures::Column::Customer.eq(customer.as_bytes().to_vec()))
        .count(connection)
        .await?)
}
