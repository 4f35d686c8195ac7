//! Products of columns.

use super::build::{Builder, Built, Columns};
use super::steps::{Transform, refuse_missing};
use crate::document::Fault;
use crate::pickle::View;
use crate::{RowRefusal, Rows};

/// A product: a column, times one that stands before it.
#[derive(Clone, Copy, Debug)]
struct Product {
    column: u32,
    /// Among all products; none where there is nothing to multiply with.
    rest: Option<u32>,
}

/// All products of columns up to a degree, and those of the least degrees left out.
#[derive(Debug)]
struct Products {
    has_one: bool,
    products: Vec<Product>,
    /// How many come first that only others are made of.
    hidden: usize,
}

impl Transform for Products {
    fn width(&self) -> usize {
        usize::from(self.has_one) + self.products.len() - self.hidden
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        let mut values: Vec<f64> = Vec::with_capacity(self.products.len());
        for index in 0..rows.len() {
            let row = rows.row(index);
            values.clear();
            for product in &self.products {
                let value = row[product.column as usize];
                values.push(match product.rest {
                    Some(rest) => values[rest as usize] * value,
                    None => value,
                });
            }
            out.extend(self.has_one.then_some(1.0));
            out.extend_from_slice(&values[self.hidden..]);
        }
        Ok(())
    }
}

/// Reads such a step; none if it is another.
pub(super) fn read(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    name: &str,
) -> Result<Option<Built>, Fault> {
    if name != "PolynomialFeatures" {
        return Ok(None);
    }
    let degree = |name: &str| {
        let degree = view.required(name)?.as_integer();
        let degree = degree.and_then(|degree| usize::try_from(degree).ok());
        degree.ok_or_else(|| Fault(format!("`{name}` is no degree")))
    };
    let (least, most) = (degree("_min_degree")?, degree("_max_degree")?);
    let is_plain = view.boolean("interaction_only")?;
    let (mut products, mut hidden) = (Vec::<Product>::new(), 0);
    // The products of the degree before.
    let mut before = 0..0;
    for degree in 1..=most {
        let start = products.len();
        for column in 0..columns.len() as u32 {
            let fits = |rest: &Product| rest.column > column || rest.column == column && !is_plain;
            let rests = before.clone().filter(|rest| fits(&products[*rest]));
            let rests: Vec<usize> = rests.collect();
            builder.spend(rests.len())?;
            match degree {
                1 => products.push(Product { column, rest: None }),
                _ => products.extend(rests.into_iter().map(|rest| Product {
                    column,
                    rest: Some(rest as u32),
                })),
            }
            builder.widen(products.len() + 1)?;
        }
        before = start..products.len();
        if degree < least {
            hidden = products.len();
        }
        // Of fewer columns than factors there are no products.
        if before.is_empty() {
            break;
        }
    }
    builder.take_numbers(columns)?;
    let step = Products {
        has_one: view.boolean("include_bias")?,
        products,
        hidden,
    };
    let after = columns.mixed(step.width());
    Ok(Some((Box::new(step), after)))
}
