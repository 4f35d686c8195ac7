//! Results of chunks.

use auspex_kernel::db::DbError;
use auspex_kernel::id::JobId;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};

use super::count;
use super::entity::{chunks, results};

/// How long the result of a chunk is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) seq: i64,
    pub(crate) first_row: u64,
    pub(crate) ndjson_bytes: u64,
    pub(crate) csv_bytes: u64,
}

/// Those of all chunks of a job, in their order.
pub(crate) async fn sizes(
    connection: &impl ConnectionTrait,
    job: &JobId,
) -> Result<Vec<Size>, DbError> {
    let rows: Vec<(i64, i64, i64, i64)> = chunks::Entity::find()
        .select_only()
        .columns([
            chunks::Column::Seq,
            chunks::Column::FirstRow,
            chunks::Column::NdjsonBytes,
            chunks::Column::CsvBytes,
        ])
        .filter(chunks::Column::Job.eq(job.as_str()))
        .order_by_asc(chunks::Column::Seq)
        .into_tuple()
        .all(connection)
        .await?;
    let size = |(seq, first_row, ndjson_bytes, csv_bytes)| Size {
        seq,
        first_row: count(first_row),
        ndjson_bytes: count(ndjson_bytes),
        csv_bytes: count(csv_bytes),
    };
    Ok(rows.into_iter().map(size).collect())
}

/// The result of a chunk; `None`: it is gone.
pub(crate) async fn lines(
    connection: &impl ConnectionTrait,
    job: &JobId,
    seq: i64,
) -> Result<Option<Vec<u8>>, DbError> {
    let id = (job.to_string(), seq);
    let found = results::Entity::find_by_id(id).one(connection).await?;
    Ok(found.map(|row| row.lines))
}
