//! Trees that ask for very many sets of categories, over the answers of a row to all of their questions.
//!
//! An answer is a bit that says whether the row goes right. The thresholds of a feature ascend, so that the answers
//! of a value to them are ones and then zeros. The sets of a feature are kept by category instead of by set: the
//! answers of a category to all of them lie side by side and are copied. What is left of a walk are steps through small
//! nodes and a few kilobytes of bits, and several trees are walked at once, so that they wait together.

use std::cell::RefCell;
use std::collections::HashMap;

use super::tree::{Missing, Split, Test, Tree, code, is_zero};
use crate::Rows;
use crate::forest::Sum;

/// Trees that are walked at once.
const TOGETHER: usize = 8;

/// Rows that go through those while they are in the cache.
const ROWS: usize = 16;

/// How much more memory the sets by category may take than the sets, in numbers of words, and what is always allowed.
const GROWTH_MAX: usize = 4;
const WORDS_ALWAYS: usize = 1 << 15;

/// The question to which the answer is always no.
const NEVER: u32 = 0;

/// Trees in this form.
#[derive(Debug)]
pub(super) struct Answers {
    thresholds: Vec<Thresholds>,
    sets: Vec<Sets>,
    /// Words of the answers of a row.
    words: usize,
    /// Siblings side by side.
    nodes: Vec<Node>,
    /// What a walk that ends at a node adds.
    values: Vec<f64>,
    /// The first node of each tree.
    roots: Vec<u32>,
}

/// The thresholds of a feature which missing values meet in the same way, ascending.
#[derive(Debug)]
struct Thresholds {
    asked: Asked,
    list: Vec<f64>,
    /// Where the answers begin, in words.
    first: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    feature: u32,
    missing: Missing,
    default_left: bool,
}

/// The sets of categories of a feature.
#[derive(Debug)]
struct Sets {
    feature: u32,
    /// Where the answers begin, and how many words they have.
    first: usize,
    words: usize,
    /// The answers of one category after the other. All others are in no set.
    by_category: Vec<u64>,
}

/// A split, whose right child follows the left one, or a leaf, which is its own left child and asks for what is
/// never so.
#[derive(Debug, Clone, Copy)]
struct Node {
    question: u32,
    left: u32,
}

impl Answers {
    /// None for trees that have no such form or whose sets would take too much memory in it. A leaf of a tree and its
    /// value give what it adds.
    pub(super) fn new(trees: &[Tree], added: fn(usize, f64) -> f64) -> Option<Self> {
        // The first word is that of the question NEVER.
        let mut words = 1;
        let thresholds = thresholds(trees, &mut words);
        let sets = sets(trees, &mut words)?;
        u32::try_from(words.checked_mul(64)?).ok()?;
        let total: usize = trees.iter().map(|tree| 1 + 2 * tree.splits.len()).sum();
        u32::try_from(total).ok()?;
        let mut answers = Self {
            thresholds,
            sets,
            words,
            nodes: Vec::with_capacity(total),
            values: vec![0.0; total],
            roots: Vec::with_capacity(trees.len()),
        };
        let starts = answers
            .sets
            .iter()
            .map(|sets| (sets.feature, 64 * sets.first));
        let mut next_set: HashMap<u32, usize> = starts.collect();
        for tree in trees {
            // Sets are numbered in the order in which they were met.
            let questions = tree.splits.iter().map(|split| match &split.test {
                Test::Threshold { threshold, .. } => {
                    answers.question(asked(split).expect("a threshold"), *threshold)
                }
                Test::Set(_) => {
                    let next = next_set.get_mut(&split.feature).expect("its sets");
                    *next += 1;
                    (*next - 1) as u32
                }
            });
            let questions: Vec<u32> = questions.collect();
            answers.push(tree, &questions, added);
        }
        Some(answers)
    }

    fn question(&self, asked: Asked, threshold: f64) -> u32 {
        let place = self
            .thresholds
            .binary_search_by_key(&asked, |own| own.asked);
        let own = &self.thresholds[place.expect("they are those of all splits")];
        let place = own.list.partition_point(|other| *other < threshold);
        (64 * own.first + place) as u32
    }

    /// Appends a tree, level by level.
    fn push(&mut self, tree: &Tree, questions: &[u32], added: fn(usize, f64) -> f64) {
        let root = self.nodes.len();
        self.roots.push(root as u32);
        let mut waiting = vec![0u32];
        let mut next = 0;
        while let Some(&node) = waiting.get(next) {
            let (question, left) = match tree.splits.get(node as usize) {
                Some(split) => {
                    waiting.extend(split.children);
                    (questions[node as usize], root + waiting.len() - 2)
                }
                None => {
                    let leaf = node as usize - tree.splits.len();
                    self.values[root + next] = added(leaf, tree.leaves[leaf]);
                    (NEVER, root + next)
                }
            };
            self.nodes.push(Node {
                question,
                left: left as u32,
            });
            next += 1;
        }
    }

    pub(super) fn description(&self) -> String {
        format!(
            "{} trees, {} answers",
            self.roots.len(),
            64 * (self.words - 1)
        )
    }

    /// Adds the trees' values for every row to its sums.
    pub(super) fn add<S: Sum>(&self, rows: Rows<'_>, sums: &mut [S], outputs: usize) {
        thread_local! {
            static ANSWERS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
        }
        ANSWERS.with_borrow_mut(|answers| {
            answers.resize(ROWS * self.words, 0);
            for (block, sums) in sums.chunks_mut(ROWS * outputs).enumerate() {
                let rows_of_block = sums.chunks_exact(outputs).zip(block * ROWS..);
                for ((_, row), answers) in rows_of_block.zip(answers.chunks_exact_mut(self.words)) {
                    self.answer(rows.row(row), answers);
                }
                for (group, roots) in self.roots.chunks(TOGETHER).enumerate() {
                    let by_row = answers.chunks_exact(self.words);
                    for (sums, answers) in sums.chunks_exact_mut(outputs).zip(by_row) {
                        let mut output = group * TOGETHER % outputs;
                        for node in &self.walk(roots, answers)[..roots.len()] {
                            sums[output] += S::nearest(self.values[*node as usize]);
                            output = if output + 1 == outputs { 0 } else { output + 1 };
                        }
                    }
                }
            }
        });
    }

    /// The leaves that a row reaches in some trees.
    #[inline]
    fn walk(&self, roots: &[u32], answers: &[u64]) -> [u32; TOGETHER] {
        let mut at = [roots[0]; TOGETHER];
        at[..roots.len()].copy_from_slice(roots);
        loop {
            let mut moved = 0;
            for at in &mut at {
                let Node { question, left } = self.nodes[*at as usize];
                let goes_right = answers[question as usize / 64] >> (question % 64) & 1;
                let next = left + goes_right as u32;
                moved |= next ^ *at;
                *at = next;
            }
            if moved == 0 {
                return at;
            }
        }
    }

    /// Writes the answers of a row.
    fn answer(&self, row: &[f64], answers: &mut [u64]) {
        answers[0] = 0;
        for own in &self.thresholds {
            let ones = own.count_below(row[own.asked.feature as usize]);
            let words = own.list.len().div_ceil(64);
            let answers = &mut answers[own.first..own.first + words];
            let (before, after) = answers.split_at_mut(ones / 64);
            before.fill(!0);
            after.fill(0);
            if let Some(word) = after.first_mut() {
                *word = (1 << (ones % 64)) - 1;
            }
        }
        for own in &self.sets {
            let value = row[own.feature as usize];
            let answers = &mut answers[own.first..own.first + own.words];
            let start = code(value).map(|code| code as usize * own.words);
            let known = start.and_then(|start| own.by_category.get(start..start + own.words));
            match known {
                Some(known) => answers.copy_from_slice(known),
                None => answers.fill(!0),
            }
        }
    }
}

impl Thresholds {
    /// How many send a value right; these are the first.
    fn count_below(&self, value: f64) -> usize {
        let is_missing = match self.asked.missing {
            Missing::Nothing => false,
            Missing::Zero => value.is_nan() || is_zero(value),
            Missing::Nan => value.is_nan(),
        };
        match (is_missing, self.asked.default_left) {
            (true, true) => 0,
            (true, false) => self.list.len(),
            (false, _) => {
                let value = if value.is_nan() { 0.0 } else { value };
                self.list.partition_point(|threshold| *threshold < value)
            }
        }
    }
}

fn splits(trees: &[Tree]) -> impl Iterator<Item = &Split> {
    trees.iter().flat_map(|tree| &tree.splits)
}

/// What a split by a threshold asks.
fn asked(split: &Split) -> Option<Asked> {
    match split.test {
        Test::Threshold {
            missing,
            default_left,
            ..
        } => Some(Asked {
            feature: split.feature,
            missing,
            default_left,
        }),
        Test::Set(_) => None,
    }
}

/// All thresholds, each once, with places for their answers.
fn thresholds(trees: &[Tree], words: &mut usize) -> Vec<Thresholds> {
    let all = splits(trees).filter_map(|split| match split.test {
        Test::Threshold { threshold, .. } => Some((asked(split)?, threshold)),
        Test::Set(_) => None,
    });
    let mut all: Vec<(Asked, f64)> = all.collect();
    all.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    all.dedup();
    let groups = all.chunk_by(|a, b| a.0 == b.0).map(|group| {
        let first = *words;
        *words += group.len().div_ceil(64);
        Thresholds {
            asked: group[0].0,
            list: group.iter().map(|(_, threshold)| *threshold).collect(),
            first,
        }
    });
    groups.collect()
}

/// All sets by category, with places for their answers; none if that takes too much memory.
fn sets(trees: &[Tree], words: &mut usize) -> Option<Vec<Sets>> {
    let mut by_feature: HashMap<u32, Vec<&[u32]>> = HashMap::new();
    for split in splits(trees) {
        if let Test::Set(set) = &split.test {
            by_feature
                .entry(split.feature)
                .or_default()
                .push(set.words());
        }
    }
    let mut by_feature: Vec<_> = by_feature.into_iter().collect();
    by_feature.sort_unstable_by_key(|(feature, _)| *feature);
    let (mut before, mut after) = (0usize, 0usize);
    for (_, sets) in &by_feature {
        let categories = sets.iter().map(|set| 32 * set.len()).max().unwrap_or(0);
        before += sets.iter().map(|set| set.len()).sum::<usize>();
        after = after.checked_add(categories.checked_mul(sets.len().div_ceil(64))?)?;
    }
    if after > WORDS_ALWAYS.max(GROWTH_MAX * before) {
        return None;
    }
    let transposed = by_feature.into_iter().map(|(feature, sets)| {
        let categories = sets.iter().map(|set| 32 * set.len()).max().unwrap_or(0);
        let own = sets.len().div_ceil(64);
        let first = *words;
        *words += own;
        let mut by_category = vec![!0u64; categories * own];
        for (place, set) in sets.iter().enumerate() {
            for code in codes(set) {
                by_category[code * own + place / 64] &= !(1 << (place % 64));
            }
        }
        Sets {
            feature,
            first,
            words: own,
            by_category,
        }
    });
    Some(transposed.collect())
}

/// The members of a set.
fn codes(set: &[u32]) -> impl Iterator<Item = usize> {
    let words = set.iter().enumerate();
    words.flat_map(|(index, word)| {
        let bits = (0..32).filter(move |bit| word >> bit & 1 == 1);
        bits.map(move |bit| 32 * index + bit)
    })
}
