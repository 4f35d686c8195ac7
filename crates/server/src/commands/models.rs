//! `auspex models check` and `auspex bench`: look at one package before it goes live.

use std::path::Path;

use auspex_inference::Package;
use serde_json::json;

use super::{Outcome, print};
use crate::cli::ModelsCommand;

pub(super) fn run(command: &ModelsCommand) -> Outcome {
    match command {
        ModelsCommand::Check {
            package,
            write_checksum,
        } => {
            if *write_checksum {
                Package::write_checksums(package)?;
            }
            check(package)
        }
    }
}

fn check(path: &Path) -> Outcome {
    let package = Package::load(path)?;
    let examples = package.check_examples()?;
    print(&format!(
        "{}\nmanifest: {}\nengine: {}\nexamples: {}\n{}\n",
        path.display(),
        match package.has_manifest() {
            true => "model.toml",
            false => "none; the model's file alone says what goes in",
        },
        package.engine().description(),
        match examples {
            0 => "none; add [[examples]] to model.toml so that a wrong model cannot go live".into(),
            n => format!("{n} reproduced"),
        },
        serde_json::to_string_pretty(&package.schema().json_schema(&package.example_record()))?,
    ))
}

/// What sockets, HTTP, authentication and limits add to a request. Measured by `bench/run` on two
/// cores: the server used 1.23 of them for 52,702 requests per second, 23 µs each, of which 5.5 µs are
/// from JSON to JSON.
const HTTP_US: f64 = 18.0;

/// Estimates requests per second from the cost of a row on this machine.
pub(super) fn bench(path: &Path, json: bool) -> Outcome {
    let package = Package::load(path)?;
    let report = package.bench();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let per_request_us = report.request_us + HTTP_US;
    let requests = cores as f64 * 1e6 / per_request_us;
    if json {
        let report = json!({
            "engine": package.engine().description(),
            "one_row_us": report.one_row_us,
            "batch_rows": report.batch_rows,
            "batch_us_per_row": report.batch_us_per_row,
            "json_us": report.json_us,
            "request_us": report.request_us,
            "cores": cores,
            "requests_per_s_estimate": requests.round(),
        });
        return print(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    print(&format!(
        "{}\none row: {:.2} µs\nbatches of {}: {:.2} µs per row\nfrom JSON to JSON: {:.2} µs per record\n\
         estimate on {cores} cores: {requests:.0} requests per second\n",
        package.engine().description(),
        report.one_row_us,
        report.batch_rows,
        report.batch_us_per_row,
        report.request_us,
    ))
}
