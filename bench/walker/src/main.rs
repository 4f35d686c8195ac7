//! The engine's side of `bench/trees` and `bench/sklearn`: loads a model and times it, turn by turn, as it is told.
//!
//! `walker MODEL ROWS`: ROWS are `f64`, one row after the other, little-endian; a text feature's is the number
//! n of the text `cn`. A file of ROWS that ends in `.jsonl` has a list of values a line instead, with `null` for a missing one.
//! Each line of standard input is a command, each line of standard output its answer:
//! `one ROWS SECONDS` predicts so many rows one by one, again and again; `batch ROWS SECONDS` together; `threads ROWS SECONDS` on all
//! cores; `explain-one` and `explain-batch` explain all margins; each answers with µs a row. `answers ROWS` gives the
//! predictions, `contributions ROWS` the explanations: row by row, margin by margin. `walker --load MODEL` loads
//! once and gives the time and the memory.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement reads the clock and is printed"
)]

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::stdin;
use std::num::NonZero;
use std::path::Path;
use std::time::Instant;

use auspex_engine::{
    Engine, Explain, FeatureKind, LoadOptions, RowBuffer, Rows, Signature, load, load_with,
    predict_in_parallel,
};
use serde_json::{Value, json};

const EXPLANATION_BYTES_MAX: usize = 1 << 30;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [option, model] if option == "--load" => {
            println!("{}", load_once(Path::new(model))?);
            Ok(())
        }
        [model, rows] => Walker::new(Path::new(model), Path::new(rows))?.serve(),
        _ => Err("walker MODEL ROWS, or walker --load MODEL".into()),
    }
}

/// Kilobytes that the kernel states of this process.
fn memory_kb(name: &str) -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_ascii_whitespace().nth(1));
    Ok(number.ok_or("no such line")?.parse()?)
}

fn load_once(model: &Path) -> Outcome<Value> {
    let before = memory_kb("VmHWM")?;
    let begin = Instant::now();
    let loaded = load(model)?;
    let seconds = begin.elapsed().as_secs_f64();
    let (peak, kept) = (memory_kb("VmHWM")?, memory_kb("VmRSS")?);
    Ok(json!({
        "seconds": seconds,
        "peak_kb": peak - before,
        "kept_kb": kept.saturating_sub(before),
        "description": loaded.description(),
    }))
}

/// All margins, one after the other.
fn explain(model: &dyn Explain, rows: Rows<'_>, out: &mut [f64]) -> Outcome<()> {
    let each = out.len() / model.margins();
    for (margin, out) in out.chunks_exact_mut(each).enumerate() {
        model.contributions(rows, margin, out)?;
    }
    Ok(())
}

fn rows_of_numbers(bytes: &[u8], signature: &Signature) -> RowBuffer {
    let mut buffer = RowBuffer::default();
    let features = signature.features.iter().cycle();
    for (number, feature) in bytes.as_chunks::<8>().0.iter().zip(features) {
        let number = f64::from_le_bytes(*number);
        let value = match feature.kind.is_text() {
            true => buffer.texts.push(&format!("c{number}")),
            false => number,
        };
        buffer.values.push(value);
    }
    buffer
}

fn rows_of_lists(bytes: &[u8], signature: &Signature) -> Outcome<RowBuffer> {
    let mut buffer = RowBuffer::default();
    for line in std::str::from_utf8(bytes)?.lines() {
        let row: Vec<Value> = serde_json::from_str(line)?;
        for (value, feature) in row.iter().zip(&signature.features) {
            let number = match (&feature.kind, value) {
                (FeatureKind::Unused, _) | (_, Value::Null) => Some(f64::NAN),
                (FeatureKind::Category(known), Value::String(text)) => {
                    let place = known.iter().position(|known| known == text);
                    place.map(|place| place as f64)
                }
                (_, Value::String(text)) => Some(buffer.texts.push(text)),
                (_, number) => number.as_f64(),
            };
            let number = number.ok_or_else(|| format!("`{}`: {value}", feature.name))?;
            buffer.values.push(number);
        }
    }
    Ok(buffer)
}

struct Walker {
    model: Box<dyn Engine>,
    buffer: RowBuffer,
    out: Vec<f64>,
    width: usize,
    threads: NonZero<usize>,
}

impl Walker {
    fn new(model: &Path, rows: &Path) -> Outcome<Self> {
        let options = LoadOptions {
            explanation_bytes_max: EXPLANATION_BYTES_MAX,
            ..LoadOptions::default()
        };
        let model = load_with(model, &options)?;
        let width = model.signature().features.len();
        let bytes = fs::read(rows)?;
        let buffer = match rows.extension().is_some_and(|kind| kind == "jsonl") {
            true => rows_of_lists(&bytes, model.signature())?,
            false => rows_of_numbers(&bytes, model.signature()),
        };
        let count = buffer.values.len() / width;
        Ok(Self {
            out: vec![0.0; count * model.signature().outputs()],
            threads: std::thread::available_parallelism()?,
            model,
            buffer,
            width,
        })
    }

    fn serve(mut self) -> Outcome<()> {
        println!("{}", json!({"description": self.model.description()}));
        for line in stdin().lines() {
            let line = line?;
            let words: Vec<&str> = line.split(' ').collect();
            let answer = match words[..] {
                ["answers", rows] => json!(self.answers(rows.parse()?)?),
                ["contributions", rows] => json!(self.contributions(rows.parse()?)?),
                [what, rows, seconds] => {
                    json!(self.time(what, rows.parse()?, seconds.parse()?)?)
                }
                _ => return Err(format!("`{line}` is no command").into()),
            };
            println!("{answer}");
        }
        Ok(())
    }

    fn rows(&self, count: usize) -> Rows<'_> {
        self.buffer.rows(self.width).slice(0..count)
    }

    fn answers(&mut self, count: usize) -> Outcome<Vec<f64>> {
        let mut out = vec![0.0; count * self.model.signature().outputs()];
        self.model.predict(self.rows(count), &mut out)?;
        Ok(out)
    }

    fn contributions(&self, count: usize) -> Outcome<Vec<f64>> {
        let model = self.model.explain()?;
        let margins = model.margins();
        let mut out = vec![0.0; count * margins * (self.width + 1)];
        explain(model, self.rows(count), &mut out)?;
        // From margin by margin to row by row.
        let numbers = out.as_slice().chunks_exact(self.width + 1);
        let by_margin: Vec<&[f64]> = numbers.collect();
        let order = (0..count).flat_map(|row| (0..margins).map(move |margin| margin * count + row));
        Ok(order.flat_map(|place| by_margin[place].to_vec()).collect())
    }

    /// µs a row.
    fn time(&mut self, what: &str, count: usize, seconds: f64) -> Outcome<f64> {
        let outputs = self.model.signature().outputs();
        let mut out = std::mem::take(&mut self.out);
        let rows = self.rows(count);
        let explained = self.model.explain();
        let margins = explained.map_or(0, |model| model.margins());
        let mut explanations = vec![0.0; count * margins * (self.width + 1)];
        let all = &mut out[..count * outputs];
        let begin = Instant::now();
        let mut done = 0;
        while done == 0 || begin.elapsed().as_secs_f64() < seconds {
            match what {
                "one" => {
                    for index in 0..count {
                        let row = rows.slice(index..index + 1);
                        self.model.predict(row, &mut all[..outputs])?;
                        black_box(&*all);
                    }
                }
                "batch" => self.model.predict(rows, all)?,
                "threads" => predict_in_parallel(&*self.model, rows, all, self.threads)?,
                "explain-one" => {
                    let of_one = &mut explanations[..margins * (self.width + 1)];
                    for index in 0..count {
                        explain(explained?, rows.slice(index..index + 1), of_one)?;
                        black_box(&*of_one);
                    }
                }
                "explain-batch" => explain(explained?, rows, &mut explanations)?,
                other => return Err(format!("`{other}` is nothing to time").into()),
            }
            black_box((&*all, &explanations));
            done += count;
        }
        let each = begin.elapsed().as_secs_f64() * 1e6 / done as f64;
        self.out = out;
        Ok(each)
    }
}
