//! Which trees of a file count: boosting iterations, and how many trees each of them has.

use std::ops::Range;

use crate::document::{Fault, Object, named};
use crate::{LoadOptions, iterations};

use super::training::Training;

/// What chooses where nobody else does.
const BY_EARLY_STOPPING: &str = "best_iteration";

/// The trees that count, and the iterations they belong to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) trees: Range<usize>,
    /// Iterations that count.
    pub(super) used: usize,
    /// Iterations in the file.
    pub(super) all: usize,
    /// What chose them.
    chosen_by: &'static str,
}

impl Selection {
    /// For display, where not all iterations count.
    pub(super) fn description(&self) -> Option<String> {
        let Self { used, all, .. } = self;
        let text = || format!("{used} of {all} iterations ({})", self.chosen_by);
        (used < all).then(text)
    }

    /// Early stopping alone decides differently in the library's two interfaces.
    pub(super) fn caution(&self) -> Option<String> {
        let Self { used, all, .. } = self;
        let text = || {
            format!(
                "of {all} iterations the first {used} count, up to the best one of early stopping, as in \
                 XGBClassifier.predict and in Booster.predict(data, iteration_range=(0, {used})); \
                 Booster.predict(data) takes all {all}. Write iteration_range = [0, 0] in model.toml to have \
                 all, or iteration_range = [0, {used}] to keep it so"
            )
        };
        (self.chosen_by == BY_EARLY_STOPPING && used < all).then(text)
    }
}

/// Selects the trees of the iterations that `options` or early stopping ask for, else all.
pub(super) fn select(
    model: &Object<'_>,
    groups: &[i64],
    training: &Training,
    options: &LoadOptions,
) -> Result<Selection, Fault> {
    let (range, chosen_by) = match (options.iteration_range, training.best_iteration) {
        (Some(range), _) => (range, "iteration_range"),
        (None, Some(best)) => ((0, best.saturating_add(1)), BY_EARLY_STOPPING),
        (None, None) => ((0, 0), "all"),
    };
    let starts = read_starts(model, groups, training, options)?;
    let all = starts.len() - 1;
    let used = iterations::resolve(range, all)?;
    Ok(Selection {
        trees: starts[used.start]..starts[used.end],
        used: used.len(),
        all,
        chosen_by,
    })
}

/// Number of trees before each iteration and after the last.
fn read_starts(
    model: &Object<'_>,
    groups: &[i64],
    training: &Training,
    options: &LoadOptions,
) -> Result<Vec<usize>, Fault> {
    let trees = groups.len();
    if let Some(starts) = model.get("iteration_indptr") {
        let starts = starts.to_integers().map_err(named("iteration_indptr"))?;
        let starts: Option<Vec<usize>> = starts
            .into_iter()
            .map(|start| usize::try_from(start).ok())
            .collect();
        return starts
            .filter(|starts| starts.is_sorted() && starts.first() == Some(&0))
            .filter(|starts| starts.last() == Some(&trees))
            .ok_or_else(|| {
                Fault(format!(
                    "`iteration_indptr`: does not ascend from 0 to {trees} trees"
                ))
            });
    }
    // Before 1.7 (no `iteration_indptr`) an iteration had the same trees for every output.
    let partial = || {
        Fault(format!(
            "`tree_info`: {trees} trees are not whole iterations"
        ))
    };
    let outputs = groups.iter().max().map_or(1, |most| most.saturating_add(1));
    let outputs = usize::try_from(outputs).map_err(|_| partial())?;
    if outputs == 0 || !trees.is_multiple_of(outputs) {
        return Err(partial());
    }
    let per_output = trees / outputs;
    let parameters = model.object("gbtree_model_param")?;
    let stated = parameters
        .parameter("num_parallel_tree")
        .map_err(named("gbtree_model_param"))?;
    let parallel = match stated {
        Some(stated) => usize::try_from(stated.max(1)).map_err(|_| partial())?,
        None => guess_parallel(per_output, training, options)?,
    };
    // What does not state it may have been continued with another number: its last iteration counts as a smaller one.
    if stated.is_some() && !per_output.is_multiple_of(parallel) {
        return Err(partial());
    }
    let starts = (0..trees).step_by(outputs.saturating_mul(parallel));
    Ok(starts.chain([trees]).collect())
}

/// Trees of one iteration and output in files from before 1.6, which do not state it: only what
/// Python left among the attributes tells. A range that the package asks for counts iterations of
/// one tree where nothing tells.
fn guess_parallel(
    per_output: usize,
    training: &Training,
    options: &LoadOptions,
) -> Result<usize, Fault> {
    let by_limit = match (training.best_iteration, training.best_ntree_limit) {
        (Some(best), Some(limit)) if limit > 0 => {
            let iterations = best.saturating_add(1);
            let disagree = || {
                Fault(format!(
                    "`attributes`: `best_ntree_limit` {limit} is no multiple of the {iterations} \
                     iterations up to `best_iteration`"
                ))
            };
            let whole = limit.is_multiple_of(iterations);
            Some(whole.then(|| limit / iterations).ok_or_else(disagree)?)
        }
        _ => None,
    };
    match (by_limit, training.parallel_trees) {
        // Every training writes the limit; `scikit_learn` may be of one before.
        (Some(parallel), _) | (None, Some(parallel)) => Ok(parallel as usize),
        (None, None) => {
            let fits = |parallel: usize, best: u32| {
                per_output.is_multiple_of(parallel) && (best as usize + 1) * parallel <= per_output
            };
            let is_clear = training
                .best_iteration
                .is_none_or(|best| !(2..=per_output).any(|parallel| fits(parallel, best)));
            if is_clear || options.iteration_range.is_some() {
                return Ok(1);
            }
            Err(Fault(format!(
                "the file has a `best_iteration` and does not say how many trees an iteration has; \
                 add to model.toml which of the {per_output} trees of each output count, for \
                 example iteration_range = [0, {per_output}] for all"
            )))
        }
    }
}
