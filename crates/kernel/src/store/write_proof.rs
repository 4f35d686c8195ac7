//! One row that is written to see whether anything can be.

use sea_orm::sea_query::OnConflict;
use sea_orm::{DatabaseTransaction, DbErr, EntityTrait, Set};

use crate::clock::Timestamp;
use crate::random::split_mix;

const ID: i32 = 1;
/// About as much as a usual change writes. Where nothing else finds space a tiny row still may.
const FILLER_BYTES: usize = 32 << 10;

mod rows {
    use sea_orm::entity::prelude::*;

    use crate::clock::Timestamp;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "kernel_write_proof")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) id: i32,
        pub(crate) written_at: Timestamp,
        pub(crate) filler: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Writes the row.
pub(crate) async fn renew(transaction: &DatabaseTransaction, now: Timestamp) -> Result<(), DbErr> {
    let row = rows::ActiveModel {
        id: Set(ID),
        written_at: Set(now),
        filler: Set(filler(now)),
    };
    let replace = OnConflict::column(rows::Column::Id)
        .update_columns([rows::Column::WrittenAt, rows::Column::Filler])
        .to_owned();
    rows::Entity::insert(row)
        .on_conflict(replace)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// PostgreSQL compresses long values, so it has to be one that cannot be compressed.
fn filler(now: Timestamp) -> Vec<u8> {
    let mut state = now.unix_seconds().cast_unsigned();
    let numbers = std::iter::repeat_with(|| split_mix(&mut state).to_le_bytes());
    numbers.flatten().take(FILLER_BYTES).collect()
}
