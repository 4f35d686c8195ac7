//! Reading and checking one tree, in the form in which the library walks it.

use super::text::Section;
use crate::document::Fault;
use crate::shape;

/// To the library all numbers up to this distance from 0 are 0: the `f32` nearest to 1e-35.
const ZERO_MAX: f64 = 1e-35_f32 as f64;

/// Bits of `decision_type`.
const CATEGORICAL: u8 = 1;
const DEFAULT_LEFT: u8 = 2;

/// A tree; its root is node 0. Nodes are splits from 0 and then leaves, and no walk meets one twice.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) splits: Vec<Split>,
    /// Values of the leaves.
    pub(super) leaves: Vec<f64>,
    /// Linear functions of the leaves, one each, where they are more than their values.
    pub(super) linear: Option<Vec<Linear>>,
}

#[derive(Debug)]
pub(super) struct Split {
    pub(super) feature: u32,
    /// Where a row goes that the test sends left, and where every other goes.
    pub(super) children: [u32; 2],
    pub(super) test: Test,
}

/// What sends a row left.
#[derive(Debug)]
pub(super) enum Test {
    /// A value up to the threshold.
    Threshold {
        threshold: f64,
        missing: Missing,
        default_left: bool,
    },
    /// A category of the set.
    Set(Set),
}

/// What goes to the default side of a split; every other NaN counts as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Missing {
    Nothing,
    /// 0 and NaN.
    Zero,
    Nan,
}

/// Codes of categories as bits, without zeros at the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Set(Box<[u32]>);

/// A constant, and features with their factors.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) constant: f64,
    pub(super) terms: Box<[(u32, f64)]>,
}

/// Whether the library takes a number for 0.
pub(super) fn is_zero(value: f64) -> bool {
    value.abs() <= ZERO_MAX
}

/// The code of a category, cut to a whole number, if it is one.
#[inline]
pub(super) fn code(value: f64) -> Option<u32> {
    // Numbers that do not fit an `int` are negative to the library.
    (value > -1.0 && value < 2_147_483_648.0).then_some(value as u32)
}

impl Test {
    /// Whether a row with this value goes left.
    #[inline]
    fn sends_left(&self, value: f64) -> bool {
        match *self {
            Self::Threshold {
                threshold,
                missing,
                default_left,
            } if value.is_nan() => match missing {
                Missing::Nothing => 0.0 <= threshold,
                Missing::Zero | Missing::Nan => default_left,
            },
            Self::Threshold {
                missing: Missing::Zero,
                default_left,
                ..
            } if is_zero(value) => default_left,
            Self::Threshold { threshold, .. } => value <= threshold,
            Self::Set(ref set) => set.contains(value),
        }
    }
}

impl Set {
    pub(super) fn new(words: &[u32]) -> Self {
        let last = words.iter().rposition(|word| *word != 0);
        Self(words[..last.map_or(0, |last| last + 1)].into())
    }

    /// Memory of the bits.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }

    /// Whether a value, cut to a whole number, is the code of a member. NaN is none.
    #[inline]
    pub(super) fn contains(&self, value: f64) -> bool {
        code(value).is_some_and(|code| {
            let word = self.0.get(code as usize / 32);
            word.is_some_and(|word| word >> (code % 32) & 1 == 1)
        })
    }

    pub(super) fn words(&self) -> &[u32] {
        &self.0
    }
}

impl Linear {
    fn value(&self, row: &[f64], otherwise: f64) -> f64 {
        let mut sum = self.constant;
        for (feature, factor) in &self.terms {
            let value = row[*feature as usize];
            if value.is_nan() {
                return otherwise;
            }
            sum += factor * if is_zero(value) { 0.0 } else { value };
        }
        sum
    }
}

impl Tree {
    /// What a row adds to its sum.
    #[inline]
    pub(super) fn value(&self, row: &[f64]) -> f64 {
        let mut node = 0;
        while let Some(split) = self.splits.get(node) {
            // Chosen by an index, because which way a row goes cannot be predicted.
            let goes_right = !split.test.sends_left(row[split.feature as usize]);
            node = split.children[usize::from(goes_right)] as usize;
        }
        let leaf = node - self.splits.len();
        match &self.linear {
            None => self.leaves[leaf],
            Some(linear) => linear[leaf].value(row, self.leaves[leaf]),
        }
    }

    /// Reads a tree over rows of `width` features.
    pub(super) fn read(section: &Section<'_>, width: usize) -> Result<Self, Fault> {
        let leaves = section.count("num_leaves", 1, 1 << 30)?;
        let values: Vec<f64> = section.numbers("leaf_value", leaves, "leaves")?;
        if let Some(leaf) = values.iter().position(|value| !value.is_finite()) {
            return Err(Fault(format!(
                "`leaf_value`: that of leaf {leaf} is {}",
                values[leaf]
            )));
        }
        let splits = match leaves {
            1 => Vec::new(),
            _ => Columns::read(section, leaves - 1)?.splits(section, width)?,
        };
        let linear = match section.get("is_linear").unwrap_or("0") {
            "0" => None,
            "1" => Some(read_linear(section, leaves, width)?),
            other => {
                return Err(Fault(format!(
                    "`is_linear`: `{}` is neither 0 nor 1",
                    crate::document::shorten(other)
                )));
            }
        };
        shape::check(splits.len() + leaves, |node| {
            splits.get(node as usize).map(|split| split.children)
        })?;
        Ok(Self {
            splits,
            leaves: values,
            linear,
        })
    }
}

/// How many training rows came to each node, in their order. Empty or of another length where the file does not
/// say.
pub(super) fn covers(section: &Section<'_>) -> Vec<f32> {
    let counts = |name| {
        let counts = section.get(name).unwrap_or_default();
        counts
            .split_ascii_whitespace()
            .map_while(|count| count.parse().ok())
    };
    match section.get("num_leaves") {
        // All rows came to the only leaf, and older files do not say how many.
        Some("1") => vec![1.0],
        _ => counts("internal_count")
            .chain(counts("leaf_count"))
            .collect(),
    }
}

/// Splits as the file has them: one line per property, one entry per split.
struct Columns {
    feature: Vec<i64>,
    threshold: Vec<f64>,
    decision: Vec<u8>,
    left: Vec<i64>,
    right: Vec<i64>,
}

impl Columns {
    fn read(section: &Section<'_>, count: usize) -> Result<Self, Fault> {
        Ok(Self {
            feature: section.numbers("split_feature", count, "splits")?,
            threshold: section.numbers("threshold", count, "splits")?,
            decision: section.numbers("decision_type", count, "splits")?,
            left: section.numbers("left_child", count, "splits")?,
            right: section.numbers("right_child", count, "splits")?,
        })
    }

    fn splits(&self, section: &Section<'_>, width: usize) -> Result<Vec<Split>, Fault> {
        let mut sets = Sets::read(section)?;
        let mut splits = Vec::with_capacity(self.feature.len());
        for node in 0..self.feature.len() {
            let split = self.split(node, width, &mut sets);
            splits.push(split.map_err(|fault| fault.inside(format!("split {node}")))?);
        }
        Ok(splits)
    }

    fn split(&self, node: usize, width: usize, sets: &mut Sets) -> Result<Split, Fault> {
        let decision = self.decision[node];
        let missing = match decision >> 2 {
            0 => Missing::Nothing,
            1 => Missing::Zero,
            2 => Missing::Nan,
            _ => return Err(Fault(format!("`decision_type`: {decision} is none"))),
        };
        let threshold = self.threshold[node];
        let test = match decision & CATEGORICAL {
            0 if threshold.is_nan() => return Err(Fault::new("the threshold is not a number")),
            0 => Test::Threshold {
                threshold: beside_zero(threshold),
                missing,
                default_left: decision & DEFAULT_LEFT != 0,
            },
            _ => Test::Set(sets.take(threshold)?),
        };
        Ok(Split {
            feature: feature(self.feature[node], width)?,
            children: [
                self.child("left", self.left[node])?,
                self.child("right", self.right[node])?,
            ],
            test,
        })
    }

    /// In the file the children that are leaves are negative: `-1` is the first.
    fn child(&self, side: &str, child: i64) -> Result<u32, Fault> {
        let splits = self.feature.len() as i64;
        let node = if child < 0 { splits + !child } else { child };
        let is_there = if child < 0 {
            !child <= splits
        } else {
            child < splits
        };
        let node = u32::try_from(node).ok().filter(|_| is_there);
        node.ok_or_else(|| {
            Fault(format!(
                "{side} child {child} is outside {}..{splits}",
                -splits - 1
            ))
        })
    }
}

/// The threshold that tells all values apart as this one does those in which the library has
/// replaced what is nearly 0 by 0.
pub(super) fn beside_zero(threshold: f64) -> f64 {
    match is_zero(threshold) {
        true if threshold < 0.0 => (-ZERO_MAX).next_down(),
        true => ZERO_MAX,
        false => threshold,
    }
}

fn feature(feature: i64, width: usize) -> Result<u32, Fault> {
    let known = u32::try_from(feature).ok();
    let known = known.filter(|feature| (*feature as usize) < width);
    known.ok_or_else(|| Fault(format!("feature {feature} is outside 0..{width}")))
}

/// The sets of one tree: all words of their bits in one list, and where each begins and ends. Each is the
/// set of one split, so that a small file cannot become large.
struct Sets(Vec<Option<Set>>);

impl Sets {
    fn read(section: &Section<'_>) -> Result<Self, Fault> {
        let count = section.count("num_cat", 0, 1 << 30)?;
        if count == 0 {
            return Ok(Self(Vec::new()));
        }
        let bounds: Vec<usize> = section.numbers("cat_boundaries", count + 1, "bounds of sets")?;
        let end = bounds[count];
        let words: Vec<u32> = section.numbers("cat_threshold", end, "words of sets")?;
        if bounds[0] != 0 || !bounds.is_sorted() {
            return Err(Fault(format!(
                "`cat_boundaries`: they do not ascend from 0 to {end}"
            )));
        }
        let set = |bounds: &[usize; 2]| Some(Set::new(&words[bounds[0]..bounds[1]]));
        Ok(Self(bounds.array_windows().map(set).collect()))
    }

    /// The set whose number stands for the threshold of a split.
    fn take(&mut self, number: f64) -> Result<Set, Fault> {
        let set = self.0.get_mut(number as usize);
        let set = set.filter(|_| number >= 0.0 && number.fract() == 0.0);
        let Some(set) = set else {
            return Err(Fault(format!("there is no set {number} of categories")));
        };
        let twice = || Fault(format!("the set {number} of categories is that of another"));
        set.take().ok_or_else(twice)
    }
}

fn read_linear(section: &Section<'_>, leaves: usize, width: usize) -> Result<Vec<Linear>, Fault> {
    let constants: Vec<f64> = section.numbers("leaf_const", leaves, "leaves")?;
    let counts: Vec<u32> = section.numbers("num_features", leaves, "leaves")?;
    let total = counts.iter().map(|count| *count as usize).sum();
    let features: Vec<i64> = section.numbers("leaf_features", total, "terms")?;
    let factors: Vec<f64> = section.numbers("leaf_coeff", total, "terms")?;
    if !constants.iter().chain(&factors).all(|x| x.is_finite()) {
        return Err(Fault::new(
            "`leaf_const` or `leaf_coeff`: a number that is not finite",
        ));
    }
    let mut terms = features.into_iter().zip(factors);
    let mut linear = Vec::with_capacity(leaves);
    for (leaf, (constant, count)) in constants.into_iter().zip(counts).enumerate() {
        let own = terms.by_ref().take(count as usize);
        let own = own.map(|(number, factor)| Ok((feature(number, width)?, factor)));
        let own: Result<_, Fault> = own.collect();
        let terms = own.map_err(|fault| fault.inside(format!("leaf {leaf}")))?;
        linear.push(Linear { constant, terms });
    }
    Ok(linear)
}
