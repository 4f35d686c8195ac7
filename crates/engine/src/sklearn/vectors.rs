//! Rows that a model has kept, dense or sparse, to compare others with.

use super::build::table;
use crate::document::{Fault, named};
use crate::pickle::View;

/// Rows of the same width.
#[derive(Debug)]
pub(super) struct Vectors {
    count: usize,
    width: usize,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Dense(Vec<f64>),
    /// Where each row begins, the last ends, and what stands where.
    Sparse(Vec<usize>, Vec<(u32, f64)>),
}

/// A row to be compared, and where it is not 0.
pub(super) struct Given<'r> {
    row: &'r [f64],
    present: Vec<u32>,
}

impl Vectors {
    /// Reads an array of two dimensions, or a sparse matrix.
    pub(super) fn read(view: View<'_, '_>, name: &str, width: usize) -> Result<Self, Fault> {
        let matrix = view.required(name)?;
        if is_sparse(matrix) {
            return sparse(matrix, width).map_err(named(name));
        }
        let count = match *view.array(name)?.shape() {
            [count, _] => count,
            _ => {
                return Err(Fault(format!(
                    "`{name}`: expected an array of two dimensions"
                )));
            }
        };
        let values = Values::Dense(table(view, name, &[count, width])?);
        Ok(Self {
            count,
            width,
            values,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_sparse(&self) -> bool {
        matches!(self.values, Values::Sparse(..))
    }

    /// A row as it is compared with all.
    pub(super) fn given<'r>(&self, row: &'r [f64]) -> Given<'r> {
        let mut present = Vec::new();
        if self.is_sparse() {
            present.extend((0..row.len() as u32).filter(|place| row[*place as usize] != 0.0));
        }
        Given { row, present }
    }

    /// The product of a row with one of these.
    pub(super) fn product(&self, index: usize, given: &Given<'_>) -> f64 {
        match &self.values {
            Values::Dense(_) => self.fold(index, given, |sum, x, y| sum + x * y),
            Values::Sparse(starts, entries) => {
                let entries = &entries[starts[index]..starts[index + 1]];
                let products = entries.iter();
                products
                    .map(|(place, y)| given.row[*place as usize] * y)
                    .sum()
            }
        }
    }

    /// Goes on from 0 with each pair of a row's value and one of these, but where both are 0.
    pub(super) fn fold(
        &self,
        index: usize,
        given: &Given<'_>,
        step: impl Fn(f64, f64, f64) -> f64,
    ) -> f64 {
        let (starts, entries) = match &self.values {
            Values::Dense(values) => {
                let own = &values[index * self.width..][..self.width];
                let pairs = given.row.iter().zip(own);
                return pairs.fold(0.0, |made, (x, y)| step(made, *x, *y));
            }
            Values::Sparse(starts, entries) => (starts, entries),
        };
        let mut own = entries[starts[index]..starts[index + 1]].iter().peekable();
        let mut made = 0.0;
        for place in &given.present {
            while let Some((_, y)) = own.next_if(|(other, _)| other < place) {
                made = step(made, 0.0, *y);
            }
            let y = own.next_if(|(other, _)| other == place);
            made = step(made, given.row[*place as usize], y.map_or(0.0, |(_, y)| *y));
        }
        own.fold(made, |made, (_, y)| step(made, 0.0, *y))
    }
}

/// Whether a value is a sparse matrix of SciPy.
pub(super) fn is_sparse(view: View<'_, '_>) -> bool {
    view.class()
        .is_some_and(|class| class.starts_with("scipy.sparse."))
}

/// Reads a matrix of compressed rows.
fn sparse(view: View<'_, '_>, width: usize) -> Result<Vectors, Fault> {
    let class = view.class().unwrap_or_default();
    if !class.ends_with(".csr_matrix") && !class.ends_with(".csr_array") {
        return Err(view.expected("a sparse matrix of compressed rows"));
    }
    let whole = |name: &str| {
        let numbers = view.array(name)?.integers().map_err(named(name))?;
        let numbers: Result<Vec<u32>, _> = numbers.into_iter().map(u32::try_from).collect();
        numbers.map_err(|_| Fault(format!("`{name}`: a number that is no place")))
    };
    let starts: Vec<usize> = whole("indptr")?
        .into_iter()
        .map(|start| start as usize)
        .collect();
    let (places, values) = (whole("indices")?, view.numbers("data")?);
    let fits = starts.first() == Some(&0)
        && starts.last() == Some(&values.len())
        && starts.is_sorted()
        && places.len() == values.len()
        && places.iter().all(|place| (*place as usize) < width);
    if !fits {
        return Err(Fault(format!("it is no sparse matrix of {width} columns")));
    }
    let mut entries: Vec<(u32, f64)> = places.into_iter().zip(values).collect();
    for bounds in starts.windows(2) {
        let row = &mut entries[bounds[0]..bounds[1]];
        row.sort_by_key(|(place, _)| *place);
        if row.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Fault::new("a place of a sparse matrix that is there twice"));
        }
    }
    Ok(Vectors {
        count: starts.len() - 1,
        width,
        values: Values::Sparse(starts, entries),
    })
}
