//! How far something is, on standard error while a person watches.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use auspex_kernel::clock::monotonic;

const WIDTH: usize = 30;
const EVERY: Duration = Duration::from_millis(100);

/// A bar that is drawn over and over in one line.
pub(super) struct Bar {
    is_shown: bool,
    unit: &'static str,
    total: Option<u64>,
    last: Option<Instant>,
}

impl Bar {
    /// Of something that is counted in `unit`, of which there are as many as `total` says.
    pub(super) fn new(unit: &'static str, total: Option<u64>) -> Self {
        Self {
            is_shown: io::stderr().is_terminal(),
            unit,
            total,
            last: None,
        }
    }

    /// Draws that so many are done.
    pub(super) fn show(&mut self, done: u64, total: Option<u64>) {
        let total = total.or(self.total);
        let is_due = self.last.is_none_or(|last| last.elapsed() >= EVERY);
        if self.is_shown && (is_due || total == Some(done)) {
            eprint!("\r{}", drawn(done, total, self.unit));
            self.last = Some(monotonic());
        }
    }

    /// Leaves its line.
    pub(super) fn end(&self) {
        if self.last.is_some() {
            eprintln!();
        }
    }
}

fn drawn(done: u64, total: Option<u64>, unit: &str) -> String {
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{done} {unit}");
    };
    let share = done.min(total) as f64 / total as f64;
    let full = (share * WIDTH as f64) as usize;
    let (bar, rest) = ("#".repeat(full), ".".repeat(WIDTH - full));
    let percent = (share * 100.0) as u64;
    format!("[{bar}{rest}] {percent:3} %  {done}/{total} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_as_far_as_it_is_done() {
        let half = drawn(500, Some(1000), "rows");
        let bar = format!(
            "[{}{}]  50 %  500/1000 rows",
            "#".repeat(15),
            ".".repeat(15)
        );
        assert_eq!(half, bar);
        assert!(drawn(999, Some(1000), "rows").contains(" 99 %"));
        assert!(drawn(1000, Some(1000), "rows").contains("100 %"));
        assert_eq!(drawn(7, None, "bytes"), "7 bytes");
        assert_eq!(drawn(0, Some(0), "rows"), "0 rows");
    }
}
