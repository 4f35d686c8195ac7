//! Counts by day and language.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult, Statement, Value};

use crate::language::Language;

/// A language in which no text was said.
const PARTS: i64 = 16;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// What is added to the counts of a day and a language.
#[derive(Clone, Copy, Default)]
pub(crate) struct Added {
    pub(crate) granted: i64,
    pub(crate) refused: i64,
    pub(crate) withdrawn: i64,
    pub(crate) texts: i64,
}

impl Added {
    pub(crate) fn add(&mut self, other: Self) {
        self.granted += other.granted;
        self.refused += other.refused;
        self.withdrawn += other.withdrawn;
        self.texts += other.texts;
    }
}

/// The counts of a day and a language.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub(crate) struct Row {
    pub(crate) day: i64,
    pub(crate) language: String,
    pub(crate) granted: i64,
    pub(crate) refused: i64,
    pub(crate) withdrawn: i64,
    pub(crate) texts: i64,
}

/// The day of a time, counted from the beginning of Unix time.
pub(crate) fn day_of(time: Timestamp) -> i64 {
    time.0.div_euclid(MICROS_PER_DAY)
}

/// The beginning of a day.
pub(crate) fn begin_of(day: i64) -> Timestamp {
    Timestamp(day.saturating_mul(MICROS_PER_DAY))
}

/// Adds to the counts of some languages. `chance` spreads them over rows that are counted together.
pub(crate) async fn add(
    transaction: &DatabaseTransaction,
    now: Timestamp,
    added: &[(Language, Added)],
    chance: u8,
) -> Result<(), DbError> {
    let mut sql = "INSERT INTO dialogues_statistics \
                   (day, language, part, granted, refused, withdrawn, texts) VALUES "
        .to_owned();
    let mut values: Vec<Value> = Vec::new();
    for (language, added) in added {
        let first = values.len();
        let places = (first + 1..=first + 7).map(|place| format!("${place}"));
        let comma = if first == 0 { "" } else { ", " };
        sql += &format!("{comma}({})", places.collect::<Vec<_>>().join(", "));
        values.extend([
            day_of(now).into(),
            language.as_str().into(),
            (i64::from(chance) % PARTS).into(),
            added.granted.into(),
            added.refused.into(),
            added.withdrawn.into(),
            added.texts.into(),
        ]);
    }
    sql += " ON CONFLICT (day, language, part) DO UPDATE SET \
            granted = dialogues_statistics.granted + excluded.granted, \
            refused = dialogues_statistics.refused + excluded.refused, \
            withdrawn = dialogues_statistics.withdrawn + excluded.withdrawn, \
            texts = dialogues_statistics.texts + excluded.texts";
    let backend = transaction.get_database_backend();
    transaction
        .execute_raw(Statement::from_sql_and_values(backend, sql, values))
        .await?;
    Ok(())
}

/// The counts of some days, the first and the last included, in the order of days and languages.
pub(crate) async fn between(
    connection: &impl ConnectionTrait,
    first: i64,
    last: i64,
) -> Result<Vec<Row>, DbError> {
    let sql = "SELECT day, language, \
               CAST(SUM(granted) AS BIGINT) AS granted, CAST(SUM(refused) AS BIGINT) AS refused, \
               CAST(SUM(withdrawn) AS BIGINT) AS withdrawn, CAST(SUM(texts) AS BIGINT) AS texts \
               FROM dialogues_statistics WHERE day BETWEEN $1 AND $2 \
               GROUP BY day, language ORDER BY day, language";
    let backend = connection.get_database_backend();
    let query = Statement::from_sql_and_values(backend, sql, [first.into(), last.into()]);
    Ok(Row::find_by_statement(query).all(connection).await?)
}
