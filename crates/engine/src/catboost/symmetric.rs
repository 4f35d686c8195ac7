//! Trees whose nodes of one level all ask the same, so that a leaf is a number with a bit per level.
//!
//! A row is ranked once: of each column that trees ask about, how many of its borders it is above. For one
//! row the answers to all questions are spread as bytes of 0 and 1, and a tree gathers its bits. For a
//! block of rows ranks stand side by side, a question is one comparison of bytes for all of them, and
//! the compiler makes vector instructions of it. Leaves are added in the order of the trees, as the
//! library does, so sums are equal bit for bit.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ops::BitOrAssign;

use super::splits::{Split, Splits};
use crate::Rows;
use crate::document::Fault;
use crate::forest::blocks::{Blocks, Place};
use crate::forest::widest::{Work, run_widest};

/// Rows whose ranks stand side by side.
const ROWS: usize = 64;

/// Blocks of so many rows that go through a tree together, while its leaves are in the first cache.
const BLOCKS: usize = 4;

/// Fewer rows than this are quicker one by one.
const ROWS_MIN: usize = 8;

/// How many borders a rank that is a byte counts.
const BORDERS_PER_RANK: usize = 255;

/// Up to how many borders of a column a value is compared with each of them, for many rows at once.
const SCANNED_MAX: usize = 512;

/// Values that are compared at once.
const ABREAST: usize = 16;

/// Trees whose leaves are added together, of one number and of several.
const TOGETHER: usize = 4;
const PAIR: usize = 2;

/// Numbers of a leaf that are added together where it has several; to a multiple of these it is filled with zeros.
const LANES: usize = 4;

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
    /// Those of all trees one after the other, `stride` apart.
    leaves: Vec<f64>,
    stride: usize,
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

/// A block of rows that is ranked.
struct Ranking<'a> {
    trees: &'a Symmetric,
    rows: Rows<'a>,
    ranks: &'a mut [[u8; ROWS]],
}

impl Work for Ranking<'_> {
    #[inline(always)]
    fn run(self) {
        self.trees.rank_block(self.rows, self.ranks);
    }
}

/// Blocks of ranked rows that go through the trees.
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
        leaves: Vec<f64>,
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
        let stride = match outputs {
            1 => 1,
            _ => outputs.next_multiple_of(LANES),
        };
        let mut leaves = apart(leaves, outputs, stride);
        // What a byte counts is there from the last tree on, too.
        leaves.extend(std::iter::repeat_n(0.0, LEAVES_OF_BYTE * stride));
        let (columns, borders, lists, questions) = rank(&asked);
        let (mut level, mut leaf) = (0, 0);
        let heads = trees.iter().map(|tree| {
            let head = Tree {
                depth: tree.len() as u32,
                level,
                leaf,
            };
            level += head.depth;
            leaf += stride << head.depth;
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
            stride,
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
        let together = BLOCKS * ROWS;
        for (index, sums) in sums.chunks_mut(together * self.outputs).enumerate() {
            let first = index * together;
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

    #[inline(always)]
    fn rank(&self, column: &Column, row: &[f64]) -> usize {
        let value = row[column.index as usize] as f32;
        // A missing value is above none.
        let count = self.lists.count(column.list, |border| value > border);
        let missing = value.is_nan() && column.missing_is_above;
        (if missing {
            column.end - column.start
        } else {
            count
        }) as usize
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
            let leaf = &self.leaves[tree.leaf + leaf * self.stride..][..self.outputs];
            for (sum, value) in sums.iter_mut().zip(leaf) {
                *sum += value;
            }
        }
    }

    /// Calls with the ranks of rows, block by block.
    fn ranked(&self, rows: Rows<'_>, call: impl FnOnce(&[[u8; ROWS]])) {
        thread_local! {
            static RANKS: RefCell<Vec<[u8; ROWS]>> = const { RefCell::new(Vec::new()) };
        }
        RANKS.with_borrow_mut(|ranks| {
            ranks.clear();
            ranks.resize(self.ranks * rows.len().div_ceil(ROWS), [0; ROWS]);
            for first in (0..rows.len()).step_by(ROWS) {
                run_widest(Ranking {
                    trees: self,
                    rows: rows.slice(first..rows.len().min(first + ROWS)),
                    ranks: &mut ranks[first / ROWS * self.ranks..][..self.ranks],
                });
            }
            call(ranks);
        });
    }

    #[inline(always)]
    fn rank_block(&self, rows: Rows<'_>, ranks: &mut [[u8; ROWS]]) {
        let (mut values, mut counts) = ([0f32; ROWS], [0u32; ROWS]);
        for column in &self.columns {
            let own = values.iter_mut().zip(&mut counts).zip(0..rows.len());
            let borders = &self.borders[column.start as usize..column.end as usize];
            let is_scanned = borders.len() <= SCANNED_MAX;
            for ((value, count), index) in own {
                *value = rows.row(index)[column.index as usize] as f32;
                if !is_scanned {
                    *count = self.searched(column, *value);
                }
            }
            if is_scanned {
                let counts = counts.as_chunks_mut::<ABREAST>().0.iter_mut();
                for (counts, values) in counts.zip(values.as_chunks().0) {
                    *counts = scanned(borders, values);
                }
            }
            if column.missing_is_above {
                for (count, value) in counts.iter_mut().zip(&values) {
                    *count = if value.is_nan() {
                        column.end - column.start
                    } else {
                        *count
                    };
                }
            }
            let parts = &mut ranks[column.rank as usize..][..ranks_of(column) as usize];
            for (part, before) in parts.iter_mut().zip((0..).step_by(BORDERS_PER_RANK)) {
                for (rank, count) in part.iter_mut().zip(&counts) {
                    *rank = count.saturating_sub(before).min(BORDERS_PER_RANK as u32) as u8;
                }
            }
        }
    }

    /// How many borders a value is above. On its own, because in functions for wide registers the compiler takes apart
    /// what is compared.
    #[inline(never)]
    fn searched(&self, column: &Column, value: f32) -> u32 {
        self.lists.count(column.list, |border| value > border)
    }

    /// The ranks of one block of rows.
    #[inline(always)]
    fn block<'r>(&self, ranks: &'r [[u8; ROWS]], block: usize) -> &'r [[u8; ROWS]] {
        &ranks[block * self.ranks..][..self.ranks]
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
        let mut totals = [[0.0; ROWS]; BLOCKS];
        totals.as_flattened_mut()[..sums.len()].copy_from_slice(sums);
        let blocks = &mut totals[..sums.len().div_ceil(ROWS)];
        let mut reached = [[0u8; ROWS]; TOGETHER];
        let mut trees = &self.trees[..];
        while let Some((first, rest)) = trees.split_first() {
            let group = trees.first_chunk::<TOGETHER>();
            let group = group.filter(|group| group.iter().all(|tree| tree.depth <= LEVELS_OF_BYTE));
            if let Some(group) = group {
                let leaves = group.each_ref().map(|tree| self.leaves_from(tree));
                for (block, totals) in blocks.iter_mut().enumerate() {
                    let ranks = self.block(ranks, block);
                    for (tree, reached) in group.iter().zip(&mut reached) {
                        self.reach(tree, ranks, reached);
                    }
                    add_together(leaves, &reached, totals);
                }
                trees = &trees[TOGETHER..];
            } else {
                let leaves = &self.leaves[first.leaf..];
                for (block, totals) in blocks.iter_mut().enumerate() {
                    let mut reached = [0u32; ROWS];
                    self.reach(first, self.block(ranks, block), &mut reached);
                    for (total, leaf) in totals.iter_mut().zip(&reached) {
                        *total += leaves[*leaf as usize];
                    }
                }
                trees = rest;
            }
        }
        sums.copy_from_slice(&totals.as_flattened()[..sums.len()]);
    }

    /// Adds leaves of several numbers, of two trees at once, so that sums are read and written once for them.
    #[inline(always)]
    fn add_vectors(&self, ranks: &[[u8; ROWS]], sums: &mut [f64]) {
        let (leaves, _) = self.leaves.as_chunks::<LANES>();
        let chunks = self.stride / LANES;
        // Numbers of rows side by side, as leaves have them.
        let mut totals = vec![[0.0; LANES]; sums.len() / self.outputs * chunks];
        for (totals, sums) in totals
            .chunks_exact_mut(chunks)
            .zip(sums.chunks_exact(self.outputs))
        {
            totals.as_flattened_mut()[..self.outputs].copy_from_slice(sums);
        }
        let mut reached = [[0u32; ROWS]; PAIR];
        for pair in self.trees.chunks(PAIR) {
            for (block, totals) in totals.chunks_mut(ROWS * chunks).enumerate() {
                let ranks = self.block(ranks, block);
                for (tree, reached) in pair.iter().zip(&mut reached) {
                    self.reach(tree, ranks, reached);
                }
                for (row, totals) in totals.chunks_exact_mut(chunks).enumerate() {
                    let leaf = |place: usize| {
                        let leaf = reached[place][row] as usize * chunks;
                        &leaves[pair[place].leaf / LANES + leaf..][..chunks]
                    };
                    if pair.len() == PAIR {
                        let leaves = leaf(0).iter().zip(leaf(1));
                        for (total, (a, b)) in totals.iter_mut().zip(leaves) {
                            *total = std::array::from_fn(|at| total[at] + a[at] + b[at]);
                        }
                    } else {
                        for (total, a) in totals.iter_mut().zip(leaf(0)) {
                            *total = std::array::from_fn(|at| total[at] + a[at]);
                        }
                    }
                }
            }
        }
        for (sums, totals) in sums
            .chunks_exact_mut(self.outputs)
            .zip(totals.chunks_exact(chunks))
        {
            sums.copy_from_slice(&totals.as_flattened()[..self.outputs]);
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

/// Leaves of `outputs` numbers `stride` apart.
fn apart(leaves: Vec<f64>, outputs: usize, stride: usize) -> Vec<f64> {
    if stride == outputs {
        return leaves;
    }
    let filling = std::iter::repeat_n(&0.0, stride - outputs);
    let filled = leaves.chunks_exact(outputs);
    filled
        .flat_map(|leaf| leaf.iter().chain(filling.clone()))
        .copied()
        .collect()
}

/// How many borders each value is above.
#[inline(always)]
fn scanned(borders: &[f32], values: &[f32; ABREAST]) -> [u32; ABREAST] {
    let mut counts = [0; ABREAST];
    for border in borders {
        for (count, value) in counts.iter_mut().zip(values) {
            *count += u32::from(value > border);
        }
    }
    counts
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
