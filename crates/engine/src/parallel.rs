//! Large batches on several threads.

use std::num::NonZero;
use std::thread;

use crate::{Engine, RowRefusal, Rows};

/// Rows that are worth a thread: with fewer, starting it costs more than it saves.
const ROWS_PER_THREAD_MIN: usize = 256;

/// Rows a thread predicts before it looks what is left, so that a slow core does not keep the others waiting.
const ROWS_PER_PIECE: usize = 1024;

/// [`Engine::predict`] on up to `threads` threads, the caller's among them; a few hundred rows stay on that one. The result is
/// the same to the last bit.
///
/// # Errors
/// As [`Engine::predict`]; of several refused rows, the first.
///
/// # Panics
/// As [`Engine::predict`].
pub fn predict_in_parallel(
    engine: &dyn Engine,
    rows: Rows<'_>,
    out: &mut [f64],
    threads: NonZero<usize>,
) -> Result<(), RowRefusal> {
    let threads = threads.get().min(rows.len() / ROWS_PER_THREAD_MIN);
    if threads < 2 {
        return engine.predict(rows, out);
    }
    let outputs = engine.signature().outputs();
    assert_eq!(out.len(), rows.len() * outputs, "output of another length");
    let piece = rows.len().div_ceil(threads).min(ROWS_PER_PIECE);
    let pieces = out.chunks_mut(piece * outputs).enumerate();
    let pieces = std::sync::Mutex::new(pieces);
    let work = || {
        let mut refused: Option<RowRefusal> = None;
        loop {
            let next = pieces.lock().expect("nobody panics with it").next();
            let Some((index, out)) = next else {
                return refused;
            };
            let first = index * piece;
            let rows = rows.slice(first..first + out.len() / outputs);
            // Pieces ascend: the first refusal of a thread is its lowest.
            if let Err(refusal) = engine.predict(rows, out) {
                refused.get_or_insert(RowRefusal {
                    row: first + refusal.row,
                    ..refusal
                });
            }
        }
    };
    let refused = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = others.into_iter().map(|other| match other.join() {
            Ok(refused) => refused,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        let refused = others.chain([own]).flatten();
        refused.min_by_key(|refusal| refusal.row)
    });
    refused.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::{Feature, FeatureKind, Output, Precision, Signature};

    /// Doubles what it gets and refuses what is negative.
    #[derive(Debug)]
    struct Double(Signature);

    impl Engine for Double {
        fn signature(&self) -> &Signature {
            &self.0
        }

        fn description(&self) -> String {
            "double".into()
        }

        fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
            for (row, out) in out.chunks_mut(2).enumerate() {
                let value = rows.row(row)[0];
                if value < 0.0 {
                    let reason = "is negative".into();
                    return Err(RowRefusal { row, reason });
                }
                out.fill(2.0 * value);
            }
            Ok(())
        }
    }

    #[test]
    fn each_row_is_predicted_once_and_the_first_refusal_counts() {
        let engine = Double(Signature {
            features: vec![Feature {
                name: "x".into(),
                kind: FeatureKind::Number,
                takes_missing: false,
            }],
            named: true,
            output: Output::Numbers { count: 2 },
            class_labels: Vec::new(),
            more_outputs: Vec::new(),
            precision: Precision::F64,
            missing: None,
        });
        for count in [0, 1, 255, 512, 5_000, 20_001] {
            for threads in [1, 2, 7, usize::MAX] {
                let mut values: Vec<f64> = (0..count).map(f64::from).collect();
                let mut out = vec![f64::NAN; 2 * values.len()];
                let threads = NonZero::new(threads).unwrap();
                let done = predict_in_parallel(&engine, Rows::new(&values, 1), &mut out, threads);
                assert_eq!(done, Ok(()));
                let expected: Vec<f64> = values.iter().flat_map(|x| [2.0 * x; 2]).collect();
                assert_eq!(out, expected);
                for bad in [values.len() / 3, values.len() * 2 / 3] {
                    if let Some(value) = values.get_mut(bad) {
                        *value = -1.0;
                    }
                }
                let done = predict_in_parallel(&engine, Rows::new(&values, 1), &mut out, threads);
                let refused = done.err().map(|refusal| refusal.row);
                assert_eq!(refused, (count > 0).then_some(values.len() / 3));
            }
        }
    }
}
