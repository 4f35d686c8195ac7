//! Trees whose nodes of one level all ask the same, so that a leaf is a number with a bit per level.
//!
//! A row is ranked once: of each column that trees ask about, how many of its borders it is above. For one
//! row the answers to all questions are spread as bytes of 0 and 1, and a tree gathers its bits. For a
//! block of rows ranks stand side by side, a question is one comparison of bytes for all of them, and
//! the compiler makes vector instructions of it. Leaves are added in the order of the trees, as the
//! library does, so sums are equal bit for bit.

use std::cell::RefCell;
use std::ops::BitOrAssign;

use super::splits::{Split, Splits};
use crate::Rows;
use crate::document::Fault;
use crate::forest::blocks::{Blocks, Place};
use crate::forest::widest::{Work, run_widest};

/// Rows that go through the trees together.
const ROWS: usize = 64;

/// Fewer rows than this are quicker one by one.
const ROWS_MIN: usize = 8;

/// How many borders a rank that is a byte counts.
const BORDERS_PER_RANK: usize = 255;

/// Trees whose leaves are added together.
const TOGETHER: usize = 4;

/// The deepest trees whose leaves a byte counts, and how many these are.
const LEVELS_OF_BYTE: u32 = u8::BITS;
const LEAVES_OF_BYTE: usize = 1 << LEVELS_OF_BYTE;

/// Levels that the library allows at most; it is 16.
const LEVELS_MAX: usize = 24;

/// Trees in the form they are evaluated in.
#[derive(Debug)]
pub(super) struct Symmetric {
    columns: Vec<Column>,
    /// The borders of all columns that trees ask about, each once.
    borders: Vec<f32>,
    /// The same, each column's in a list that is quick to search.
    lists: Blocks<f32>,
    /// How each is asked of a block of rows.
    questions: Vec<Question>,
    /// Ranks of a row.
    ranks: usize,
    trees: Vec<Tree>,
    /// The questions of all trees, one after the other.
    levels: Vec<u32>,
    /// Followed by [`LEAVES_OF_BYTE`] zeros.
    leaves: Vec<f64>,
    /// Numbers of a leaf.
    outputs: usize,
}

/// A column of a row, with its borders from `start` to `end`.
#[derive(Debug)]
struct Column {
    index: u32,
    missing_is_above: bool,
    start: u32,
    end: u32,
    list: Place,
    /// The first of its ranks.
    rank: u32,
}

/// Whether a rank is at least so high.
#[derive(Debug, Clone, Copy)]
struct Question {
    rank: u32,
    least: u8,
}

/// A tree, and where its levels and leaves begin.
#[derive(Debug, Clone, Copy)]
struct Tree {
    depth: u32,
    level: u32,
    leaf: usize,
}

/// A block of ranked rows that goes through the trees.
struct Adding<'a> {
    trees: &'a Symmetric,
    ranks: &'a [[u8; ROWS]],
    sums: &'a mut [f64],
}

impl Work for Adding<'_> {
    #[inline(always)]
    fn run(self) {
        self.trees.add_ranked(self.ranks, self.sums);
    }
}

/// A block of ranked rows that goes through one tree.
struct Reaching<'a> {
    trees: &'a Symmetric,
    tree: &'a Tree,
    ranks: &'a [[u8; ROWS]],
    reached: &'a mut [u32; ROWS],
}

impl Work for Reaching<'_> {
    #[inline(always)]
    fn run(self) {
        self.trees.reach(self.tree, self.ranks, self.reached);
    }
}

impl Symmetric {
    /// Compiles trees; `leaves` are those of all trees.
    pub(super) fn new(
        trees: &[Vec<u32>],
        splits: &Splits,
        mut leaves: Vec<f64>,
        outputs: usize,
    ) -> Result<Self, Fault> {
        let mut asked = Vec::new();
        for (index, tree) in trees.iter().enumerate() {
            if tree.len() > LEVELS_MAX {
                return Err(Fault(format!(
                    "tree {index}: {} levels are too many",
                    tree.len()
                )));
            }
            for &split in tree {
                let split = splits.get(split);
                asked.push(split.map_err(|fault| fault.inside(format_args!("tree {index}")))?);
            }
        }
        let sizes = trees.iter().map(|tree| outputs << tree.len());
        let total = sizes.fold(0, usize::saturating_add);
        if total != leaves.len() {
            return Err(Fault(format!(
                "{} leaf values for trees with {total}",
                leaves.len()
            )));
        }
        leaves.extend([0.0; LEAVES_OF_BYTE]);
        let (columns, borders, lists, questions) = rank(&asked);
        let (mut level, mut leaf) = (0, 0);
        let heads = trees.iter().map(|tree| {
            let head = Tree {
                depth: tree.len() as u32,
                level,
                leaf,
            };
            level += head.depth;
            leaf += outputs << head.depth;
            head
        });
        let number = |split: &Split| {
            let at = columns.partition_point(|column| column.index < split.column);
            let column = &columns[at];
            let own = &borders[column.start as usize..column.end as usize];
            column.start + own.partition_point(|border| *border < split.border) as u32
        };
        Ok(Self {
            trees: heads.collect(),
            levels: asked.iter().map(number).collect(),
            ranks: columns
                .last()
                .map_or(0, |column| column.rank + ranks_of(column)) as usize,
            columns,
            borders,
            lists,
            questions,
            leaves,
            outputs,
        })
    }

    pub(super) fn description(&self) -> String {
        format!(
            "{} symmetric trees, {} borders of {} columns",
            self.trees.len(),
            self.borders.len(),
            self.columns.len()
        )
    }

    /// Adds the leaves every row reaches to `sums`, the outputs of a row together.
    pub(super) fn add(&self, rows: Rows<'_>, sums: &mut [f64]) {
        for (block, sums) in sums.chunks_mut(ROWS * self.outputs).enumerate() {
            let first = block * ROWS;
            let rows = rows.slice(first..first + sums.len() / self.outputs);
            if rows.len() < ROWS_MIN {
                for (index, sums) in sums.chunks_exact_mut(self.outputs).enumerate() {
                    self.answered(rows.row(index), |answers| self.add_row(answers, sums));
                }
            } else {
                self.ranked(rows, |ranks| {
                    run_widest(Adding {
                        trees: self,
                        ranks,
                        sums,
                    });
                });
            }
        }
    }

    /// Calls, tree by tree, with the number of the tree, the number of a row and that of the leaf it reaches.
    pub(super) fn for_each_leaf(&self, rows: Rows<'_>, mut call: impl FnMut(usize, usize, usize)) {
        for first in (0..rows.len()).step_by(ROWS) {
            let rows = rows.slice(first..rows.len().min(first + ROWS));
            if rows.len() < ROWS_MIN {
                for index in 0..rows.len() {
                    self.answered(rows.row(index), |answers| {
                        for (number, tree) in self.trees.iter().enumerate() {
                            call(number, first + index, self.leaf_of(tree, answers));
                        }
                    });
                }
            } else {
                self.ranked(rows, |ranks| {
                    let mut reached = [0u32; ROWS];
                    for (number, tree) in self.trees.iter().enumerate() {
                        run_widest(Reaching {
                            trees: self,
                            tree,
                            ranks,
                            reached: &mut reached,
                        });
                        for (index, leaf) in reached[..rows.len()].iter().enumerate() {
                            call(number, first + index, *leaf as usize);
                        }
                    }
                });
            }
        }
    }

    #[inline]
    fn rank(&self, column: &Column, row: &[f64]) -> usize {
        let value = row[column.index as usize];
        if value.is_nan() {
            return match column.missing_is_above {
                true => (column.end - column.start) as usize,
                false => 0,
            };
        }
        let value = value as f32;
        self.lists.count(column.list, |border| value > border) as usize
    }

    /// Calls with the answers of a row to all questions.
    fn answered(&self, row: &[f64], call: impl FnOnce(&[u8])) {
        thread_local! {
            static ANSWERS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        ANSWERS.with_borrow_mut(|answers| {
            answers.resize(self.borders.len(), 0);
            for column in &self.columns {
                let own = &mut answers[column.start as usize..column.end as usize];
                let (yes, no) = own.split_at_mut(self.rank(column, row));
                yes.fill(1);
                no.fill(0);
            }
            call(answers);
        });
    }

    #[inline]
    fn leaf_of(&self, tree: &Tree, answers: &[u8]) -> usize {
        let levels = &self.levels[tree.level as usize..][..tree.depth as usize];
        let mut leaf = 0;
        for (level, question) in levels.iter().enumerate() {
            leaf |= usize::from(answers[*question as usize]) << level;
        }
        leaf
    }

    fn add_row(&self, answers: &[u8], sums: &mut [f64]) {
        for tree in &self.trees {
            let leaf = self.leaf_of(tree, answers);
            let leaf = &self.leaves[tree.leaf + leaf * self.outputs..][..self.outputs];
            for (sum, value) in sums.iter_mut().zip(leaf) {
                *sum += value;
            }
        }
    }

    /// Calls with the ranks of a block of rows.
    fn ranked(&self, rows: Rows<'_>, call: impl FnOnce(&[[u8; ROWS]])) {
        thread_local! {
            static RANKS: RefCell<Vec<[u8; ROWS]>> = const { RefCell::new(Vec::new()) };
        }
        RANKS.with_borrow_mut(|ranks| {
            ranks.clear();
            ranks.resize(self.ranks, [0; ROWS]);
            for column in &self.columns {
                let own = &mut ranks[column.rank as usize..][..ranks_of(column) as usize];
                for index in 0..rows.len() {
                    let mut rank = self.rank(column, rows.row(index));
                    for part in &mut *own {
                        part[index] = rank.min(BORDERS_PER_RANK) as u8;
                        rank = rank.saturating_sub(BORDERS_PER_RANK);
                    }
                }
            }
            call(ranks);
        });
    }

    /// Adds the leaves of ranked rows.
    #[inline(always)]
    fn add_ranked(&self, ranks: &[[u8; ROWS]], sums: &mut [f64]) {
        match self.outputs {
            1 => self.add_numbers(ranks, sums),
            _ => self.add_vectors(ranks, sums),
        }
    }

    /// Adds leaves of one number. Trees go together, so that sums stay in registers for several of them.
    #[inline(always)]
    fn add_numbers(&self, ranks: &[[u8; ROWS]], sums: &mut [f64]) {
        let mut totals = [0.0; ROWS];
        totals[..sums.len()].copy_from_slice(sums);
        let mut reached = [[0u8; ROWS]; TOGETHER];
        let mut trees = &self.trees[..];
        while let Some((first, rest)) = trees.split_first() {
            let group = trees.first_chunk::<TOGETHER>();
            let group = group.filter(|group| group.iter().all(|tree| tree.depth <= LEVELS_OF_BYTE));
            if let Some(group) = group {
                for (tree, reached) in group.iter().zip(&mut reached) {
                    self.reach(tree, ranks, reached);
                }
                let leaves = group.each_ref().map(|tree| self.leaves_from(tree));
                add_together(leaves, &reached, &mut totals);
                trees = &trees[TOGETHER..];
            } else {
                let mut reached = [0u32; ROWS];
                self.reach(first, ranks, &mut reached);
                let leaves = &self.leaves[first.leaf..];
                for (total, leaf) in totals.iter_mut().zip(&reached) {
                    *total += leaves[*leaf as usize];
                }
                trees = rest;
            }
        }
        sums.copy_from_slice(&totals[..sums.len()]);
    }

    #[inline(always)]
    fn add_vectors(&self, ranks: &[[u8; ROWS]], sums: &mut [f64]) {
        let mut reached = [0u32; ROWS];
        for tree in &self.trees {
            self.reach(tree, ranks, &mut reached);
            let leaves = &self.leaves[tree.leaf..];
            for (sums, leaf) in sums.chunks_exact_mut(self.outputs).zip(&reached) {
                let leaf = &leaves[*leaf as usize * self.outputs..][..self.outputs];
                for (sum, value) in sums.iter_mut().zip(leaf) {
                    *sum += value;
                }
            }
        }
    }

    /// As many numbers as a byte counts, from the leaves of a tree on.
    #[inline(always)]
    fn leaves_from(&self, tree: &Tree) -> &[f64; LEAVES_OF_BYTE] {
        let leaves = self.leaves[tree.leaf..].first_chunk();
        leaves.expect("as many numbers follow the leaves of the last tree")
    }

    /// Which leaf of a tree each row reaches.
    #[inline(always)]
    fn reach<L: Leaf>(&self, tree: &Tree, ranks: &[[u8; ROWS]], reached: &mut [L; ROWS]) {
        let levels = &self.levels[tree.level as usize..][..tree.depth as usize];
        reached.fill(L::default());
        for (level, question) in levels.iter().enumerate() {
            let Question { rank, least } = self.questions[*question as usize];
            for (leaf, rank) in reached.iter_mut().zip(&ranks[rank as usize]) {
                *leaf |= L::bit(*rank >= least, level);
            }
        }
    }
}

/// The number of a leaf.
trait Leaf: Copy + Default + BitOrAssign {
    fn bit(is_set: bool, level: usize) -> Self;
}

impl Leaf for u8 {
    #[inline(always)]
    fn bit(is_set: bool, level: usize) -> Self {
        if is_set { 1 << level } else { 0 }
    }
}

impl Leaf for u32 {
    #[inline(always)]
    fn bit(is_set: bool, level: usize) -> Self {
        if is_set { 1 << level } else { 0 }
    }
}

/// Adds one leaf of each tree to each row, in the order of the trees. Whatever a byte is, it is the number of
/// one: that spares a check for each. On its own, because in functions for wide registers the compiler makes
/// gathers of the loads, which take longer.
#[inline(never)]
fn add_together(
    [a, b, c, d]: [&[f64; LEAVES_OF_BYTE]; TOGETHER],
    [at, bt, ct, dt]: &[[u8; ROWS]; TOGETHER],
    totals: &mut [f64; ROWS],
) {
    for (row, total) in totals.iter_mut().enumerate() {
        let leaf = |leaves: &[f64; LEAVES_OF_BYTE], reached: &[u8; ROWS]| {
            leaves[usize::from(reached[row])]
        };
        *total = *total + leaf(a, at) + leaf(b, bt) + leaf(c, ct) + leaf(d, dt);
    }
}

/// How many ranks of a byte a column needs.
fn ranks_of(column: &Column) -> u32 {
    (column.end - column.start).div_ceil(BORDERS_PER_RANK as u32)
}

/// The columns that are asked about, their borders, and the question at each border.
fn rank(asked: &[Split]) -> (Vec<Column>, Vec<f32>, Blocks<f32>, Vec<Question>) {
    let mut asked = asked.to_vec();
    asked.sort_unstable_by(|a, b| a.column.cmp(&b.column).then(a.border.total_cmp(&b.border)));
    // Zeros with and without a sign stand side by side and are the same border.
    asked.dedup_by(|a, b| a.column == b.column && a.border == b.border);
    let mut columns: Vec<Column> = Vec::new();
    let mut questions = Vec::new();
    let mut lists = Blocks::new();
    let mut next = 0;
    for group in asked.chunk_by(|a, b| a.column == b.column) {
        let start = questions.len() as u32;
        for place in 0..group.len() {
            questions.push(Question {
                rank: next + (place / BORDERS_PER_RANK) as u32,
                least: (place % BORDERS_PER_RANK + 1) as u8,
            });
        }
        let own: Vec<f32> = group.iter().map(|split| split.border).collect();
        columns.push(Column {
            index: group[0].column,
            missing_is_above: group[0].missing_is_above,
            start,
            end: questions.len() as u32,
            list: lists.push(&own, f32::NAN),
            rank: next,
        });
        next += group.len().div_ceil(BORDERS_PER_RANK) as u32;
    }
    let borders = asked.iter().map(|split| split.border).collect();
    (columns, borders, lists, questions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the trees mean, one question after the other.
    fn walk(trees: &[Vec<Split>], leaves: &[f64], outputs: usize, row: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; outputs];
        let mut first = 0;
        for tree in trees {
            let mut leaf = 0;
            for (level, split) in tree.iter().enumerate() {
                let value = row[split.column as usize] as f32;
                let is_above = match value.is_nan() {
                    true => split.missing_is_above,
                    false => value > split.border,
                };
                leaf |= usize::from(is_above) << level;
            }
            for (output, sum) in sums.iter_mut().enumerate() {
                *sum += leaves[first + leaf * outputs + output];
            }
            first += outputs << tree.len();
        }
        sums
    }

    /// Columns 0 to 3.
    fn split() -> impl Strategy<Value = Split> {
        let border = prop_oneof![
            (0..600i16).prop_map(f32::from),
            Just(-0.0),
            Just(f32::INFINITY)
        ];
        (0..4u32, border).prop_map(|(column, border)| Split {
            column,
            border,
            missing_is_above: column % 2 == 1,
        })
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            (-2..604i16).prop_map(f64::from),
            (-2.0..604.0f64),
            Just(f64::NAN),
            Just(f64::INFINITY),
            Just(-0.0),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn trees_give_what_a_walk_gives(
            trees in prop::collection::vec(prop::collection::vec(split(), 0..11), 0..30),
            outputs in 1..4usize,
            rows in prop::collection::vec(prop::collection::vec(value(), 4), 1..90),
        ) {
            // More borders of one column than a byte counts.
            let stump = |border: u16| vec![Split {
                column: 0,
                border: f32::from(border),
                missing_is_above: false,
            }];
            let trees: Vec<Vec<Split>> = (0..600).map(stump).chain(trees).collect();
            let total: usize = trees.iter().map(|tree| outputs << tree.len()).sum();
            let leaves: Vec<f64> = (0..total).map(|leaf| 0.1 + (leaf * 7919 % 1009) as f64 / 3.0).collect();
            let splits: Vec<Split> = trees.concat();
            let mut next = 0..;
            let numbered: Vec<Vec<u32>> = trees.iter().map(|tree| next.by_ref().take(tree.len()).collect()).collect();
            let compiled = Symmetric::new(&numbered, &Splits::from(splits), leaves.clone(), outputs).unwrap();
            let flat = rows.concat();
            let mut sums = vec![0.0; rows.len() * outputs];
            compiled.add(Rows::new(&flat, 4), &mut sums);
            for (row, sums) in rows.iter().zip(sums.chunks(outputs)) {
                prop_assert_eq!(sums, &walk(&trees, &leaves, outputs, row)[..]);
            }
        }
    }
}
