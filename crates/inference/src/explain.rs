//! What a prediction is explained by: which margin of a row, and which features first.
//!
//! A class is chosen for its margin, such as its log-odds, so the margin of the predicted class is
//! explained, or the only one there is. A model of several numbers has an explanation for each.

use std::str::FromStr;

use auspex_engine::{Explain, Output, RowBuffer, RowRefusal, Rows, Unexplained};

use crate::package::Package;

/// The key that asks for an explanation beside a prediction.
pub(crate) const EXPLAIN: &str = "explain";
/// The most features that an explanation names.
pub const TOP_MAX: usize = 1000;
/// The most contributions that one answer holds.
const CONTRIBUTIONS_MAX: usize = 100_000;
/// How often a model is asked for the explanations of one answer, where explaining means to ask it.
const ASKS_MAX: usize = 1 << 17;
/// Numbers that an engine writes at once.
const NUMBERS_AT_ONCE: usize = 1 << 16;

/// How many features an explanation names: those that added most, up or down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top(usize);

impl Default for Top {
    fn default() -> Self {
        Self::ALL
    }
}

impl FromStr for Top {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let top = text.parse().ok().and_then(Self::new);
        top.ok_or_else(|| format!("must be an integer from 1 to {TOP_MAX}"))
    }
}

impl Top {
    /// As many as there may be.
    pub const ALL: Self = Self(TOP_MAX);

    /// From 1 to [`TOP_MAX`].
    pub fn new(count: usize) -> Option<Self> {
        (1..=TOP_MAX).contains(&count).then_some(Self(count))
    }

    /// Reads the value of [`EXPLAIN`] in a body; `false` asks for nothing.
    pub(crate) fn read(raw: &str) -> Result<Option<Self>, String> {
        match raw {
            "true" => Ok(Some(Self::ALL)),
            "false" => Ok(None),
            _ => {
                // In JSON `3.0` is an integer too.
                let number: Option<f64> = raw.parse().ok().filter(|n: &f64| n.fract() == 0.0);
                let top = number.and_then(|number| Self::new(number as usize));
                let wrong = || format!("must be an integer from 1 to {TOP_MAX}, or true");
                top.map(Some).ok_or_else(wrong)
            }
        }
    }
}

/// Why predictions are not explained.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotExplained {
    #[error("cannot be had: {}", why_unexplained(*.0))]
    Model(#[from] Unexplained),
    #[error(
        "would name {0} contributions, and one answer holds at most {CONTRIBUTIONS_MAX}; ask for fewer features, or \
         for fewer instances at once"
    )]
    TooMany(usize),
    #[error(
        "would ask the model {asks} times for each instance, and one answer asks at most {ASKS_MAX} times; explain at \
         most {most} at once"
    )]
    TooLong { asks: usize, most: usize },
    #[error("{0}")]
    Row(RowRefusal),
}

/// Why a model does not explain, and what to do if something can be done.
pub fn why_unexplained(unexplained: Unexplained) -> String {
    let advice = match unexplained {
        Unexplained::NotAsked | Unexplained::TooLarge { .. } => {
            "; raise inference.explanation_bytes_max to have them"
        }
        Unexplained::NoBackground => {
            "; add [[examples]] to model.toml, such as of usual records: others are then compared with them"
        }
        Unexplained::Kind
        | Unexplained::ManyInputs
        | Unexplained::NoCovers
        | Unexplained::LinearTrees
        | Unexplained::LargeTree => "",
    };
    format!("{unexplained}{advice}")
}

/// Explanations of rows, ready to be written.
#[derive(Debug)]
pub(crate) struct Explained<'p> {
    package: &'p Package,
    /// Of each row.
    per_row: usize,
    all: Vec<Explanation>,
}

/// What made a margin of a row.
#[derive(Clone, Debug, Default)]
struct Explanation {
    margin: usize,
    base: f64,
    /// Features and what they added, the largest first.
    top: Vec<(usize, f64)>,
    /// What all the others added together.
    others: f64,
}

impl Package {
    /// Whether explaining that many rows takes longer than a thread that serves connections may be busy.
    pub(crate) fn is_long_to_explain(&self, rows: usize) -> bool {
        /// About half a millisecond of work.
        const BYTES_MAX: usize = 1 << 20;
        self.engine().explain().is_ok_and(|model| {
            let bytes = model.bytes() * self.per_row(model) / model.margins();
            model.asks() > 0 || bytes.saturating_mul(rows) > BYTES_MAX
        })
    }

    /// Explanations that a row has.
    fn per_row(&self, model: &dyn Explain) -> usize {
        match self.engine().signature().output {
            Output::Numbers { .. } => model.margins(),
            _ => 1,
        }
    }

    /// Explains rows and what was predicted for them.
    pub(crate) fn explain(
        &self,
        rows: &RowBuffer,
        outputs: &[f64],
        top: Top,
    ) -> Result<Explained<'_>, NotExplained> {
        let model = self.engine().explain()?;
        let rows = rows.rows(self.plan.width());
        let per_row = self.per_row(model);
        let named = rows.len() * per_row * top.0.min(rows.width());
        if named > CONTRIBUTIONS_MAX {
            return Err(NotExplained::TooMany(named));
        }
        let asks = model.asks() * per_row;
        if rows.len().saturating_mul(asks) > ASKS_MAX.max(asks) {
            let most = (ASKS_MAX / asks).max(1);
            return Err(NotExplained::TooLong { asks, most });
        }
        // Rows of one margin are explained together.
        let mut wanted: Vec<(usize, usize)> = Vec::with_capacity(rows.len() * per_row);
        for (row, outputs) in outputs.chunks_exact(self.outputs()).enumerate() {
            match self.engine().signature().output {
                Output::Numbers { .. } => wanted.extend((0..per_row).map(|margin| (margin, row))),
                output => wanted.push((chosen(output, outputs, model.margins()), row)),
            }
        }
        wanted.sort_unstable();
        let mut all = vec![Explanation::default(); wanted.len()];
        let at_once = (NUMBERS_AT_ONCE / (rows.width() + 1)).max(1);
        for same in wanted.chunk_by(|a, b| a.0 == b.0) {
            for some in same.chunks(at_once) {
                let margin = some[0].0;
                for (row, explanation) in explain_rows(model, rows, some, top)? {
                    let place = if per_row == 1 { 0 } else { margin };
                    all[row * per_row + place] = explanation;
                }
            }
        }
        Ok(Explained {
            package: self,
            per_row,
            all,
        })
    }
}

/// The margin that decided the first output of a row.
fn chosen(output: Output, outputs: &[f64], margins: usize) -> usize {
    let chosen = match output {
        _ if margins == 1 => 0,
        Output::Multiclass { .. } => crate::answer::first_largest(&outputs[..output.width()]),
        Output::Class { .. } => outputs[0] as usize,
        Output::Binary | Output::Numbers { .. } => 0,
    };
    chosen.min(margins - 1)
}

/// Explains the rows of some pairs of a margin, which is the same in all, and a row.
fn explain_rows(
    model: &dyn Explain,
    rows: Rows<'_>,
    pairs: &[(usize, usize)],
    top: Top,
) -> Result<Vec<(usize, Explanation)>, NotExplained> {
    let margin = pairs[0].0;
    let values: Vec<f64> = pairs
        .iter()
        .flat_map(|(_, row)| rows.row(*row))
        .copied()
        .collect();
    let width = rows.width() + 1;
    let mut numbers = vec![0.0; pairs.len() * width];
    let explained = model.contributions(rows.with_values(&values), margin, &mut numbers);
    explained.map_err(|refusal| {
        NotExplained::Row(RowRefusal {
            row: pairs[refusal.row].1,
            ..refusal
        })
    })?;
    let explanations = numbers.chunks_exact(width).zip(pairs);
    let explanation = |(numbers, (_, row)): (&[f64], &(usize, usize))| {
        (*row, Explanation::new(margin, numbers, top))
    };
    Ok(explanations.map(explanation).collect())
}

impl Explanation {
    /// From the contributions of all features, with the base value behind them.
    fn new(margin: usize, numbers: &[f64], top: Top) -> Self {
        let (base, contributions) = numbers.split_last().expect("a base value");
        let mut all: Vec<(usize, f64)> = contributions.iter().copied().enumerate().collect();
        // By size; of equal ones the first.
        let larger = |a: &(usize, f64), b: &(usize, f64)| {
            b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0))
        };
        if top.0 < all.len() {
            all.select_nth_unstable_by(top.0, larger);
        }
        let others = all.split_off(top.0.min(all.len()));
        all.sort_unstable_by(larger);
        Self {
            margin,
            base: *base,
            top: all,
            others: others.iter().map(|(_, contribution)| contribution).sum(),
        }
    }

    fn margin(&self) -> f64 {
        let top: f64 = self.top.iter().map(|(_, contribution)| contribution).sum();
        self.base + top + self.others
    }
}

impl Explained<'_> {
    /// Writes what a row has: an object, or a list of them for a model of several numbers.
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) {
        let own = &self.all[row * self.per_row..][..self.per_row];
        let signature = self.package.engine().signature();
        if signature.output.width() == 1 || self.per_row == 1 {
            return self.write_one(&own[0], out);
        }
        for (index, explanation) in own.iter().enumerate() {
            out.push(if index == 0 { b'[' } else { b',' });
            self.write_one(explanation, out);
        }
        out.push(b']');
    }

    fn write_one(&self, explanation: &Explanation, out: &mut Vec<u8>) {
        let writer = &self.package.writer;
        // The only margin of a classifier is that of its second class.
        let is_only = self
            .package
            .engine()
            .explain()
            .is_ok_and(|m| m.margins() == 1);
        let label = if is_only { 1 } else { explanation.margin };
        out.extend(b"{\"label\":");
        writer.label(label, out);
        for (key, number) in [("margin", explanation.margin()), ("base", explanation.base)] {
            out.extend(format!(",\"{key}\":").as_bytes());
            writer.number(number, out);
        }
        out.extend(b",\"contributions\":[");
        for (index, (feature, contribution)) in explanation.top.iter().enumerate() {
            out.extend(if index == 0 { "" } else { "," }.as_bytes());
            out.extend(b"{\"feature\":");
            out.extend(self.package.plan.quoted(*feature));
            out.extend(b",\"contribution\":");
            writer.number(*contribution, out);
            out.push(b'}');
        }
        out.extend(b"],\"others\":");
        writer.number(explanation.others, out);
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_contributions_come_first_and_nothing_is_lost() {
        let numbers = [0.5, -3.0, 0.0, 2.0, -0.5, 10.0];
        let cut = |count| Explanation::new(7, &numbers, Top::new(count).expect("in range"));
        let two = cut(2);
        assert_eq!(two.top, [(1, -3.0), (3, 2.0)]);
        assert_eq!((two.margin, two.base, two.others), (7, 10.0, 0.0));
        assert_eq!(cut(3).top[2], (0, 0.5), "of equal ones the first");
        for count in 1..9 {
            assert_eq!(cut(count).top.len(), count.min(5));
            assert_eq!(cut(count).margin(), 9.0);
        }
    }

    #[test]
    fn only_counts_that_are_answered_are_taken() {
        assert_eq!(Top::read("true"), Ok(Some(Top::ALL)));
        assert_eq!(Top::read("false"), Ok(None));
        assert_eq!(Top::read("1000"), Ok(Some(Top::ALL)));
        assert_eq!(Top::read("2.0"), Ok(Top::new(2)));
        for wrong in [
            "0",
            "1001",
            "-1",
            "2.5",
            "\"3\"",
            "null",
            "[]",
            "99999999999999999999",
        ] {
            assert!(Top::read(wrong).is_err(), "{wrong}");
        }
    }
}
