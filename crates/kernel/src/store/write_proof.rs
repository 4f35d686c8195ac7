//! One row that is written to see whether anything can be.

use sea_orm::sea_query::OnConflict;
use sea_orm::{DatabaseTransaction, DbErr, EntityTrait, Set};

use crate::clock::Timestamp;

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
        filler: Set(vec![0; FILLER_BYTES]),
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
