//! The SQL of this crate and nothing else. Functions that change something take a transaction, for
//! their caller decides what belongs together. `keys` is about the keys database, the others are
//! about the main one.

pub(crate) mod consents;
pub(crate) mod dialogues;
mod entity;
pub(crate) mod erased;
pub(crate) mod keys;
pub(crate) mod messages;
#[cfg(test)]
mod plans;
pub(crate) mod sealed;
pub(crate) mod statistics;
pub(crate) mod withdrawals;

use auspex_kernel::db::{Connection, Db, DbError};
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityTrait as _,
    QueryTrait as _, Statement,
};
use sea_orm_migration::SchemaManager;

use crate::ids::{CustomerRef, DialogueRef};

/// Whether there are texts, or records of what was decided on or done to some; also where tables were never made.
pub(crate) async fn holds_anything(connection: &Connection) -> Result<bool, DbError> {
    let schema = SchemaManager::new(connection);
    for name in ["messages", "consents", "withdrawals", "erased"] {
        let table = format!("dialogues_{name}");
        if schema.has_table(&table).await? {
            let first = format!("SELECT 1 FROM {table} LIMIT 1");
            let first = Statement::from_string(connection.get_database_backend(), first);
            if connection.query_one_raw(first).await?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Waits until nobody else changes anything of this customer, until the end of the transaction.
/// SQLite has one writer anyway.
pub(crate) async fn lock(
    transaction: &DatabaseTransaction,
    customer: CustomerRef,
) -> Result<(), DbError> {
    lock_bytes(transaction, customer.as_bytes()).await
}

/// The same for a dialogue, whosever it is. Always after the customer, or two could wait for each
/// other.
pub(crate) async fn lock_dialogue(
    transaction: &DatabaseTransaction,
    dialogue: DialogueRef,
) -> Result<(), DbError> {
    lock_bytes(transaction, dialogue.as_bytes()).await
}

async fn lock_bytes(transaction: &DatabaseTransaction, bytes: &[u8; 16]) -> Result<(), DbError> {
    if transaction.get_database_backend() == DbBackend::Postgres {
        let [a, b, c, d, e, f, g, h, ..] = *bytes;
        let key = i64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let lock = "SELECT pg_advisory_xact_lock($1)";
        let lock = Statement::from_sql_and_values(DbBackend::Postgres, lock, [key.into()]);
        transaction.execute_raw(lock).await?;
    }
    Ok(())
}

/// A pseudonym as the database has it.
fn customer_of(bytes: &[u8]) -> Result<CustomerRef, DbErr> {
    CustomerRef::from_bytes(bytes).ok_or_else(|| not_16("a customer"))
}

/// A pseudonym as the database has it.
fn dialogue_of(bytes: &[u8]) -> Result<DialogueRef, DbErr> {
    DialogueRef::from_bytes(bytes).ok_or_else(|| not_16("a dialogue"))
}

/// An id of a key or an erasure as the database has it.
fn id_of(bytes: &[u8]) -> Result<[u8; 16], DbErr> {
    bytes.try_into().map_err(|_| not_16("an id"))
}

fn not_16(what: &str) -> DbErr {
    DbErr::Custom(format!(
        "{what} in the tables of dialogues is not of 16 bytes"
    ))
}

/// How many rows one statement adds or asks for. There are few such numbers, so that the database has the
/// statements prepared.
const PIECES: [usize; 5] = [256, 64, 16, 4, 1];

/// Rows in pieces that one statement adds each.
fn pieces<T>(rows: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut rows = rows.into_iter();
    std::iter::from_fn(move || {
        let size = PIECES.into_iter().find(|size| *size <= rows.len())?;
        Some(rows.by_ref().take(size).collect())
    })
}

/// Statements that add rows. Their texts are long, so they are written before the transaction begins that
/// others wait for.
pub(crate) struct Inserts {
    dialect: DbBackend,
    statements: Vec<Statement>,
}

impl Inserts {
    pub(crate) fn into(db: &Db) -> Self {
        let dialect = match db.is_sqlite() {
            true => DbBackend::Sqlite,
            false => DbBackend::Postgres,
        };
        let statements = Vec::new();
        Self {
            dialect,
            statements,
        }
    }

    fn add<A: ActiveModelTrait>(&mut self, rows: impl Iterator<Item = A>) {
        for some in pieces(rows.collect()) {
            let insert = A::Entity::insert_many(some);
            self.statements.push(insert.build(self.dialect));
        }
    }

    pub(crate) async fn run(self, transaction: &DatabaseTransaction) -> Result<(), DbError> {
        for statement in self.statements {
            transaction.execute_raw(statement).await?;
        }
        Ok(())
    }
}

/// What is asked for, as many as one of the numbers: the last is repeated.
fn padded(mut wanted: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let size = PIECES.into_iter().rev().find(|size| *size >= wanted.len());
    if let (Some(size), Some(last)) = (size, wanted.last().cloned()) {
        wanted.resize(size, last);
    }
    wanted
}
