//! Counts by day and language, without anything that could tell of a single person: numbers below a
//! bound are not shown.

use auspex_kernel::Timestamp;

use crate::Dialogues;
use crate::error::DialoguesError;
use crate::store::statistics as store;

/// The counts of a day in a language. `None` where the number is too small to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayCounts {
    /// The beginning of the day, UTC.
    pub day: Timestamp,
    /// A primary language: for texts that in which they were said, for dialogues that of their first
    /// text.
    pub language: String,
    /// Dialogues that were consented to.
    pub granted: Option<u64>,
    /// Dialogues that were refused.
    pub refused: Option<u64>,
    /// Dialogues that were withdrawn.
    pub withdrawn: Option<u64>,
    /// Texts that were stored.
    pub texts: Option<u64>,
}

impl DayCounts {
    /// The share of consents among decisions, if both are shown.
    pub fn consent_ratio(&self) -> Option<f64> {
        let (granted, refused) = (self.granted?, self.refused?);
        let all = granted + refused;
        (all > 0).then(|| granted as f64 / all as f64)
    }
}

impl Dialogues {
    /// The counts of the days from the one of `from` to the one of `to`, both included, in the order
    /// of days and languages.
    ///
    /// # Errors
    /// [`DialoguesError::Database`].
    pub async fn statistics(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<DayCounts>, DialoguesError> {
        let (first, last) = (store::day_of(from), store::day_of(to));
        let rows = self
            .core
            .db
            .read(async |connection| store::between(connection, first, last).await);
        let cell_min = self.core.config.statistics.cell_min;
        let rows = rows.await?.into_iter();
        Ok(rows.map(|row| shown(row, cell_min)).collect())
    }
}

/// None of a row whose decisions are too few: from the others they could be told.
fn shown(row: store::Row, cell_min: u64) -> DayCounts {
    // Nought says of nobody that they are in it.
    let cell = |count: i64| {
        let count = count.unsigned_abs();
        (count == 0 || count >= cell_min).then_some(count)
    };
    DayCounts {
        day: store::begin_of(row.day),
        language: row.language,
        granted: cell(row.granted),
        refused: cell(row.refused),
        withdrawn: cell(row.withdrawn),
        texts: cell(row.granted).and_then(|_| cell(row.texts)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(granted: i64, refused: i64, texts: i64) -> DayCounts {
        let row = store::Row {
            day: 20_000,
            language: "pt".into(),
            granted,
            refused,
            withdrawn: 0,
            texts,
        };
        shown(row, 5)
    }

    #[test]
    fn small_numbers_are_not_shown() {
        let many = row(30, 10, 400);
        assert_eq!(
            (many.granted, many.refused, many.texts),
            (Some(30), Some(10), Some(400))
        );
        assert_eq!(many.withdrawn, Some(0));
        assert_eq!(many.consent_ratio(), Some(0.75));
        let few = row(4, 10, 80);
        assert_eq!(
            (few.granted, few.refused, few.texts),
            (None, Some(10), None)
        );
        assert_eq!(few.consent_ratio(), None);
        assert_eq!(row(0, 0, 0).consent_ratio(), None);
    }
}
