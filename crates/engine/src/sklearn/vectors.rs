//! Rows that a model has kept, dense or sparse, to compare others with.

use super::build::table;
use crate::document::{Fault, named};
use crate::forest::widest::{Work, run_widest};
use crate::pickle::View;

/// Rows of the same width.
#[derive(Debug)]
pub(super) struct Vectors {
    count: usize,
    width: usize,
    values: Values,
}

/// Dense rows that are compared side by side, so that the sum of none has to wait for the last addition to another.
const LANES: usize = 8;

/// Sparse rows are kept as dense ones if they have no more columns than this for each value: comparing them is quicker then.
const SPARSE_MIN: usize = 12;

#[derive(Debug)]
enum Values {
    /// Of each so many rows the first values, then the second ones, and so on; the last ones are filled up with 0.
    Dense(Vec<[f64; LANES]>),
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
            return sparse(matrix, width)
                .map_err(named(name))
                .map(Self::dense_if_full);
        }
        let count = match *view.array(name)?.shape() {
            [count, _] => count,
            _ => {
                return Err(Fault(format!(
                    "`{name}`: expected an array of two dimensions"
                )));
            }
        };
        Ok(Self::dense(&table(view, name, &[count, width])?, width))
    }

    /// Rows of as many values, one after the other.
    fn dense(values: &[f64], width: usize) -> Self {
        let groups = values.chunks(LANES * width).flat_map(|rows| {
            let value = move |lane: usize, place: usize| rows.get(lane * width + place);
            (0..width).map(move |place| {
                std::array::from_fn(|lane| value(lane, place).copied().unwrap_or_default())
            })
        });
        Self {
            count: values.len() / width,
            width,
            values: Values::Dense(groups.collect()),
        }
    }

    fn dense_if_full(self) -> Self {
        let (count, width) = (self.count, self.width);
        match &self.values {
            Values::Sparse(starts, entries) if count * width <= SPARSE_MIN * entries.len() => {
                let mut values = vec![0.0; count * width];
                for (row, bounds) in values.chunks_exact_mut(width).zip(starts.windows(2)) {
                    for (place, value) in &entries[bounds[0]..bounds[1]] {
                        row[*place as usize] = *value;
                    }
                }
                Self::dense(&values, width)
            }
            _ => self,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// A row as it is compared with all.
    pub(super) fn given<'r>(&self, row: &'r [f64]) -> Given<'r> {
        let mut present = Vec::new();
        if matches!(self.values, Values::Sparse(..)) {
            present.extend((0..row.len() as u32).filter(|place| row[*place as usize] != 0.0));
        }
        Given { row, present }
    }

    /// The products of a row with each of these.
    pub(super) fn products(&self, given: &Given<'_>) -> Vec<f64> {
        let Values::Sparse(starts, entries) = &self.values else {
            return self.fold(given, |sum, x, y| sum + x * y);
        };
        let rows = starts
            .windows(2)
            .map(|bounds| &entries[bounds[0]..bounds[1]]);
        let product = |row: &[(u32, f64)]| -> f64 {
            let products = row.iter().map(|(place, y)| given.row[*place as usize] * y);
            products.sum()
        };
        rows.map(product).collect()
    }

    /// For each of these, goes on from 0 with each pair of the row's value and its own, but where both are 0.
    pub(super) fn fold(&self, given: &Given<'_>, step: impl Fn(f64, f64, f64) -> f64) -> Vec<f64> {
        match &self.values {
            Values::Dense(values) => {
                let mut made = vec![0.0; self.count.next_multiple_of(LANES)];
                run_widest(Fold {
                    values,
                    row: given.row,
                    step,
                    made: &mut made,
                });
                made.truncate(self.count);
                made
            }
            Values::Sparse(starts, entries) => {
                let rows = starts
                    .windows(2)
                    .map(|bounds| &entries[bounds[0]..bounds[1]]);
                rows.map(|row| fold_sparse(row, given, &step)).collect()
            }
        }
    }
}

/// A row with all dense ones.
struct Fold<'a, F> {
    values: &'a [[f64; LANES]],
    row: &'a [f64],
    step: F,
    made: &'a mut [f64],
}

impl<F: Fn(f64, f64, f64) -> f64> Work for Fold<'_, F> {
    #[inline(always)]
    fn run(self) {
        let groups = self.values.chunks_exact(self.row.len());
        for (rows, made) in groups.zip(self.made.as_chunks_mut::<LANES>().0) {
            let mut lanes = [0.0; LANES];
            for (x, own) in self.row.iter().zip(rows) {
                for (lane, y) in lanes.iter_mut().zip(own) {
                    *lane = (self.step)(*lane, *x, *y);
                }
            }
            *made = lanes;
        }
    }
}

fn fold_sparse(row: &[(u32, f64)], given: &Given<'_>, step: impl Fn(f64, f64, f64) -> f64) -> f64 {
    let mut own = row.iter().peekable();
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
