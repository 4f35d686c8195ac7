//! What a model costs on this machine.

use std::time::Duration;

use auspex_engine::RowBuffer;
use auspex_kernel::clock::monotonic;

use crate::package::Package;
use crate::plan::Scratch;

const BATCH_ROWS: usize = 1000;

/// What [`Package::bench`] found, in microseconds on one thread.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct BenchReport {
    /// Predicting one row.
    pub one_row_us: f64,
    /// Rows in the batch below.
    pub batch_rows: usize,
    /// Predicting a batch, per row.
    pub batch_us_per_row: f64,
    /// Reading one record from JSON.
    pub json_us: f64,
    /// From the JSON record to the JSON answer, without the network.
    pub request_us: f64,
}

impl Package {
    /// Times this model on this machine, on one thread, for about a second.
    pub fn bench(&self) -> BenchReport {
        let samples = self.sample_rows();
        let mut batch = RowBuffer::default();
        for sample in samples.iter().cycle().take(BATCH_ROWS) {
            self.schema()
                .append(&mut batch, sample.rows(self.plan.width()));
        }
        let text = self.example_record().to_string();
        let mut out = Vec::new();
        let mut predict = |rows: &RowBuffer| {
            let _ = self.predict(rows, &mut out);
        };
        let one_row_us = median_us(|| predict(&samples[0]));
        let batch_us = median_us(|| predict(&batch));
        let (mut scratch, mut body) = (Scratch::default(), Vec::new());
        let request_us = median_us(|| {
            let shape = self.plan.read(&text, 1, &|_| false, &mut scratch);
            assert!(shape.is_some(), "an example is valid");
            let _ = self.predict(&scratch.rows, &mut out);
            body.clear();
            self.writer.all_numbers(&out.as_slice().into(), &mut body);
        });
        let json_us = median_us(|| {
            self.plan.read(&text, 1, &|_| false, &mut scratch);
        });
        BenchReport {
            one_row_us,
            batch_rows: BATCH_ROWS,
            batch_us_per_row: batch_us / BATCH_ROWS as f64,
            json_us,
            request_us,
        }
    }
}

/// The median of several timed runs, each much longer than the resolution of the clock.
fn median_us(mut work: impl FnMut()) -> f64 {
    const RUN: Duration = Duration::from_millis(25);
    let mut runs: Vec<f64> = Vec::new();
    for _ in 0..7 {
        let (begin, mut count) = (monotonic(), 0u32);
        while begin.elapsed() < RUN {
            for _ in 0..8 {
                work();
            }
            count += 8;
        }
        runs.push(begin.elapsed().as_secs_f64() * 1e6 / f64::from(count));
    }
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}
