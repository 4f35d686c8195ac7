//! Fetches one page of rows, for the stores of every service.

use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, ModelTrait, Order,
    PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Select,
};

use crate::page::{Found, Slice};

impl Slice {
    /// The rows of `query` in the order of their ids, where an id is the position of its row.
    ///
    /// # Errors
    /// What the database says.
    pub async fn by_id<E>(
        self,
        connection: &impl ConnectionTrait,
        query: Select<E>,
        id: E::Column,
        order: Order,
    ) -> Result<Found<E::Model>, DbErr>
    where
        E: EntityTrait,
        E::Model: FromQueryResult + ModelTrait + Sized + Send + Sync,
    {
        let is_descending = matches!(order, Order::Desc);
        let query = query.order_by(id, order);
        let (query, total) = self
            .limit(connection, query, |query, position| {
                Ok(query.filter(match is_descending {
                    true => id.lt(position),
                    false => id.gt(position),
                }))
            })
            .await?;
        Ok((query.all(connection).await?, total))
    }

    /// Limits an ordered `query` to these rows, and counts all rows for [`Slice::Skip`]. `seek`
    /// keeps the rows that follow a position.
    ///
    /// # Errors
    /// What the database or `seek` says.
    pub async fn limit<E>(
        self,
        connection: &impl ConnectionTrait,
        query: Select<E>,
        seek: impl FnOnce(Select<E>, &str) -> Result<Select<E>, DbErr>,
    ) -> Result<(Select<E>, u64), DbErr>
    where
        E: EntityTrait,
        E::Model: FromQueryResult + Sized + Send + Sync,
    {
        match self {
            Slice::Seek { after, count } => {
                let query = match after {
                    Some(position) => seek(query, &position)?,
                    None => query,
                };
                Ok((query.limit(count), 0))
            }
            Slice::Skip { offset, count } => {
                let total = query.clone().count(connection).await?;
                Ok((query.offset(offset).limit(count), total))
            }
        }
    }
}
