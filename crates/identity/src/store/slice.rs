//! One page of a list.

use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, ModelTrait, Order,
    PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Select,
};

/// Which rows of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slice {
    /// So many behind the one that stands there, found by its place: the last page costs what the
    /// first does.
    Seek { after: Option<String>, count: u64 },
    /// So many behind so many others, and how many there are in all.
    Skip { offset: u64, count: u64 },
}

/// The rows, and the number of all for [`Slice::Skip`].
pub(crate) type Found<T> = (Vec<T>, u64);

impl Slice {
    /// The rows of `query` in the order of their ids.
    pub(super) async fn by_id<E>(
        self,
        connection: &impl ConnectionTrait,
        mut query: Select<E>,
        id: E::Column,
        order: Order,
    ) -> Result<Found<E::Model>, DbErr>
    where
        E: EntityTrait,
        E::Model: FromQueryResult + ModelTrait + Sized + Send + Sync,
    {
        let mut total = 0;
        let count = match self {
            Slice::Seek { after, count } => {
                if let Some(after) = after {
                    query = query.filter(match order {
                        Order::Desc => id.lt(after),
                        _ => id.gt(after),
                    });
                }
                count
            }
            Slice::Skip { offset, count } => {
                total = query.clone().count(connection).await?;
                query = query.offset(offset);
                count
            }
        };
        let rows = query
            .order_by(id, order)
            .limit(count)
            .all(connection)
            .await?;
        Ok((rows, total))
    }
}
