//! Steps that make few columns of many.

use super::build::{Builder, Built, Columns, table};
use super::factors::Factors;
use super::steps::{Transform, refuse_missing};
use super::version::Version;
use crate::document::Fault;
use crate::pickle::View;
use crate::{RowRefusal, Rows};

/// The first version that whitens by no less than the least step beside 1.
const VARIANCES_ARE_CUT: Version = Version(1, 5);

/// Products of what is left after the mean with each component.
#[derive(Debug)]
struct Projection {
    means: Option<Vec<f64>>,
    components: Factors,
    /// What each product is divided by.
    divisors: Vec<f64>,
}

impl Transform for Projection {
    fn width(&self) -> usize {
        self.divisors.len()
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        let made = match &self.means {
            None => self.components.of(rows.values()),
            Some(means) => {
                let values = rows.values().iter().zip(means.iter().cycle());
                let rest: Vec<f64> = values.map(|(value, mean)| value - mean).collect();
                self.components.of(&rest)
            }
        };
        let quotients = made.iter().zip(self.divisors.iter().cycle());
        out.extend(quotients.map(|(made, divisor)| made / divisor));
        Ok(())
    }
}

/// Reads one of these steps; none if it is another.
pub(super) fn read(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    name: &str,
) -> Result<Option<Built>, Fault> {
    let is_centered = match name {
        "PCA" | "IncrementalPCA" => true,
        "TruncatedSVD" => false,
        _ => return Ok(None),
    };
    let width = columns.len();
    let count = match *view.array("components_")?.shape() {
        [count, _] => count,
        _ => {
            return Err(Fault::new(
                "`components_`: expected an array of two dimensions",
            ));
        }
    };
    let components = table(view, "components_", &[count, width])?;
    let means = match is_centered {
        true => Some(table(view, "mean_", &[width])?),
        false => None,
    };
    let divisors = match is_centered && view.boolean("whiten")? {
        true => {
            let variances = table(view, "explained_variance_", &[count])?;
            let least = match builder.version < VARIANCES_ARE_CUT {
                true => 0.0,
                false => f64::EPSILON,
            };
            variances
                .iter()
                .map(|variance| variance.sqrt().max(least))
                .collect()
        }
        false => vec![1.0; count],
    };
    builder.take_numbers(columns)?;
    for (column, mean) in columns.list.iter().zip(means.iter().flatten()) {
        builder.typify(*column, *mean);
    }
    let step = Projection {
        means,
        components: Factors::by_sum(&components, count),
        divisors,
    };
    Ok(Some((Box::new(step), columns.mixed(count))))
}
