//! What each input added to a number that any model gives, found by asking the model itself: Shapley values of the
//! game in which an input that does not take part has its value of a background row.
//!
//! Few inputs are explained exactly, by all their subsets. Of more, random orders are tried, each also backwards
//! (Mitchell et al., "Sampling permutations for Shapley value estimation", 2022): an input's contribution is its mean
//! effect at its turn. In each order the effects add up to what is to be explained, and so do their means.

use std::cmp::Reverse;

use super::{Explain, Unexplained};
use crate::{Engine, Feature, LoadOptions, RowBuffer, RowRefusal, Rows};

/// How often a model is asked for one explanation, at most; more only where one order of all inputs takes more.
const ASKED_MAX: usize = 2_048;
/// The most inputs.
pub(super) const INPUTS_MAX: usize = 1_024;
/// The most rows that make up the background.
const BACKGROUND_MAX: usize = 32;
/// The orders that are tried follow from it.
const SEED: u64 = 0;

/// Rows that others are compared with.
#[derive(Debug)]
pub(crate) struct Background {
    rows: RowBuffer,
    /// Which inputs are numbers of texts.
    texts: Box<[bool]>,
}

/// What the rows of a model are compared with, or why it does not explain them.
#[derive(Debug)]
pub(crate) struct Compared(pub(crate) Result<Background, Unexplained>);

impl Compared {
    /// [`Engine::explain`] of the model that has it.
    pub(crate) fn explain<'m>(
        &self,
        model: &'m dyn Explain,
    ) -> Result<&'m dyn Explain, Unexplained> {
        match &self.0 {
            Ok(_) => Ok(model),
            Err(unexplained) => Err(*unexplained),
        }
    }

    /// [`Explain::bytes`] of the model that has it.
    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, Background::bytes)
    }

    /// [`Explain::asks`] of the model that has it.
    pub(crate) fn asks(&self) -> usize {
        let inputs = self.0.as_ref().map_or(0, |rows| rows.texts.len());
        ASKED_MAX.max(2 * inputs)
    }

    /// [`Explain::contributions`] of the model that has it.
    pub(crate) fn contributions<T: Asked>(
        &self,
        model: &T,
        rows: Rows<'_>,
        margin: usize,
        out: &mut [f64],
    ) -> Result<(), RowRefusal> {
        assert!(margin < model.numbers(), "no such margin");
        let background = self.0.as_ref();
        let background = background.expect("a model that explains has one");
        let width = background.texts.len() + 1;
        assert_eq!(out.len(), rows.len() * width, "output of another length");
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let all = background.with(rows, row);
            let explained = Game::new(model, &all, margin).explain(out);
            explained.map_err(|refusal| RowRefusal { row, ..refusal })?;
        }
        Ok(())
    }

    /// [`Engine::compare_with`] of the model that has it.
    pub(crate) fn replace(&mut self, rows: Rows<'_>, features: &[Feature], options: &LoadOptions) {
        if self.0.as_ref().err() == Some(&Unexplained::NoBackground) {
            self.0 = Background::new(rows, features, options);
        }
    }
}

/// A model as it is asked.
pub(crate) trait Asked {
    /// How many numbers of a row can be explained.
    fn numbers(&self) -> usize;

    /// Writes these numbers for each row.
    fn ask(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal>;
}

impl Background {
    /// Keeps the first of some rows, so many that an explanation does not ask the model too often.
    pub(crate) fn new(
        rows: Rows<'_>,
        features: &[Feature],
        options: &LoadOptions,
    ) -> Result<Self, Unexplained> {
        let width = features.len();
        if width > INPUTS_MAX {
            return Err(Unexplained::ManyInputs);
        }
        let count = (ASKED_MAX / (2 * width))
            .clamp(1, BACKGROUND_MAX)
            .min(rows.len());
        let mut kept = Self {
            rows: RowBuffer::default(),
            texts: features
                .iter()
                .map(|feature| feature.kind.is_text())
                .collect(),
        };
        for index in 0..count {
            kept.push(rows, index);
        }
        let (needed, allowed) = (kept.bytes(), options.explanation_bytes_max);
        match allowed {
            0 => Err(Unexplained::NotAsked),
            _ if count == 0 => Err(Unexplained::NoBackground),
            _ if needed > allowed => Err(Unexplained::TooLarge { needed, allowed }),
            _ => Ok(kept),
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.rows.values) + size_of_val(&*self.texts) + self.rows.texts.bytes()
    }

    /// Adds a row, its texts included.
    fn push(&mut self, rows: Rows<'_>, index: usize) {
        let Self { rows: kept, texts } = self;
        for (value, is_text) in rows.row(index).iter().zip(&*texts) {
            let value = match rows.text_of(*value, *is_text) {
                Some(text) => kept.texts.push(text),
                None => *value,
            };
            kept.values.push(value);
        }
    }

    /// The background with one more row behind it.
    fn with(&self, rows: Rows<'_>, index: usize) -> Self {
        let mut all = Self {
            rows: self.rows.clone(),
            texts: self.texts.clone(),
        };
        all.push(rows, index);
        all
    }
}

/// Writes the numbers of a model's first output.
pub(crate) fn predicted(
    model: &dyn Engine,
    rows: Rows<'_>,
    out: &mut [f64],
) -> Result<(), RowRefusal> {
    let outputs = model.signature().outputs();
    let mut all = vec![0.0; rows.len() * outputs];
    model.predict(rows, &mut all)?;
    let first = model.signature().output.width();
    for (all, out) in all.chunks_exact(outputs).zip(out.chunks_exact_mut(first)) {
        out.copy_from_slice(&all[..first]);
    }
    Ok(())
}

/// One row against the background.
struct Game<'a, T> {
    model: &'a T,
    margin: usize,
    /// The background, and then the row.
    rows: Rows<'a>,
    /// Inputs that differ from one in the background; the others add nothing.
    players: Vec<usize>,
    values: Vec<f64>,
    made: Vec<f64>,
}

impl<'a, T: Asked> Game<'a, T> {
    fn new(model: &'a T, all: &'a Background, margin: usize) -> Self {
        let rows = all.rows.rows(all.texts.len());
        let last = rows.len() - 1;
        let is_same = |input: usize, other: usize| {
            let (a, b) = (rows.row(last)[input], rows.row(other)[input]);
            let is_text = all.texts[input];
            match (rows.text_of(a, is_text), rows.text_of(b, is_text)) {
                (None, None) => a == b || a.is_nan() && b.is_nan(),
                (a, b) => a == b,
            }
        };
        let differs = |input: &usize| (0..last).any(|other| !is_same(*input, other));
        Self {
            model,
            margin,
            rows,
            players: (0..rows.width()).filter(differs).collect(),
            values: Vec::new(),
            made: Vec::new(),
        }
    }

    /// What the model says if the given players take part, one group after the other, all together against a
    /// background row: a number for each group.
    fn ask<'g>(
        &mut self,
        background: usize,
        groups: impl Iterator<Item = &'g [usize]>,
    ) -> Result<&[f64], RowRefusal> {
        let row = self.rows.row(self.rows.len() - 1);
        self.values.clear();
        for group in groups {
            let start = self.values.len();
            self.values.extend_from_slice(self.rows.row(background));
            group
                .iter()
                .for_each(|input| self.values[start + input] = row[*input]);
        }
        let count = self.model.numbers();
        let asked = self.rows.with_values(&self.values);
        self.made.clear();
        self.made.resize(asked.len() * count, 0.0);
        self.model.ask(asked, &mut self.made)?;
        for place in 0..asked.len() {
            self.made[place] = self.made[place * count + self.margin];
        }
        Ok(&self.made[..self.values.len() / self.rows.width()])
    }

    /// Writes what each input added, and behind it the mean of the background.
    fn explain(mut self, out: &mut [f64]) -> Result<(), RowRefusal> {
        out.fill(0.0);
        let background = self.rows.len() - 1;
        let players = self.players.len();
        let is_small = players < usize::BITS as usize && (background << players) <= ASKED_MAX;
        for other in 0..background {
            let none = self.ask(other, [&[][..]].into_iter())?[0];
            *out.last_mut().expect("a base value") += none;
            match is_small {
                true => self.all_subsets(other, out)?,
                false => self.some_orders(other, none, out)?,
            }
        }
        out.iter_mut()
            .for_each(|number| *number /= background as f64);
        Ok(())
    }

    /// Each player's effect in each subset of the others, weighed by how often it joins just these.
    fn all_subsets(&mut self, background: usize, out: &mut [f64]) -> Result<(), RowRefusal> {
        let players = std::mem::take(&mut self.players);
        let count = players.len();
        let of_subset = |subset: usize| {
            let within = (0..count).filter(move |player| subset >> player & 1 == 1);
            within.map(|player| players[player]).collect::<Vec<usize>>()
        };
        let subsets: Vec<Vec<usize>> = (0..1 << count).map(of_subset).collect();
        let made = self.ask(background, subsets.iter().map(Vec::as_slice))?;
        // |S|! (n - |S| - 1)! / n!, from one size to the next.
        let mut weights = vec![1.0 / count.max(1) as f64];
        for size in 1..count {
            weights.push(weights[size - 1] * size as f64 / (count - size) as f64);
        }
        for (player, input) in players.iter().enumerate() {
            let without = (0..subsets.len()).filter(|subset| subset >> player & 1 == 0);
            let effects = without.map(|subset| {
                (made[subset | 1 << player] - made[subset]) * weights[subsets[subset].len()]
            });
            out[*input] += effects.sum::<f64>();
        }
        self.players = players;
        Ok(())
    }

    /// Each player's effect at its turn in random orders, forwards and backwards.
    fn some_orders(
        &mut self,
        background: usize,
        none: f64,
        out: &mut [f64],
    ) -> Result<(), RowRefusal> {
        let mut order = self.players.clone();
        let pairs = (ASKED_MAX / (2 * order.len() * (self.rows.len() - 1))).max(1);
        let mut random = Random(SEED);
        for _ in 0..pairs {
            random.shuffle(&mut order);
            for _ in 0..2 {
                let made = self.ask(background, (1..=order.len()).map(|count| &order[..count]))?;
                let mut before = none;
                for (input, made) in order.iter().zip(made) {
                    out[*input] += (made - before) / (2 * pairs) as f64;
                    before = *made;
                }
                order.reverse();
            }
        }
        Ok(())
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// By random keys; the same numbers on every machine.
    fn shuffle(&mut self, order: &mut [usize]) {
        order.sort_by_cached_key(|_| Reverse(self.next()));
    }
}
