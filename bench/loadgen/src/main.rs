//! Load for the comparison with other servers: the same generator drives all of them.
//!
//! Made for this one job because it has to be cheap (it runs on the cores it measures) and has to
//! check every answer's numbers, which general generators do not. It must never wait without end.

#![expect(
    clippy::disallowed_methods,
    reason = "it measures real time and nothing else"
)]

mod answers;
mod args;
mod connection;
mod drive;
mod histogram;
mod http;
mod report;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use answers::Answers;
use args::Args;
use drive::Plan;
use report::Report;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        return match writeln!(io::stdout(), "{}", args::USAGE) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let args = match Args::parse(arguments) {
        Ok(args) => args,
        Err(problem) => {
            eprintln!("loadgen: {problem}\n\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(&args).and_then(|report| print(&report, args.json).map(|()| report)) {
        Ok(report) if report.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("loadgen: {problem}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<Report, String> {
    let read = |path: &std::path::Path| {
        fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let answers = Answers::parse(&read(&args.expected)?)?;
    let requests = build_requests(args, &read(&args.records)?);
    if requests.is_empty() || requests.len() != answers.len() {
        return Err(format!(
            "{} records but {} expected answers",
            requests.len(),
            answers.len()
        ));
    }
    let plan = Plan {
        address: args.address,
        connections: args.connections,
        warmup: args.warmup,
        duration: args.duration,
        timeout: args.timeout,
        requests,
    };
    drive::drive(&plan, answers).map_err(|error| format!("cannot poll: {error}"))
}

/// The whole bytes of one request for each record.
fn build_requests(args: &Args, records: &str) -> Vec<Vec<u8>> {
    let extra: String = args
        .headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    records
        .lines()
        .map(str::trim)
        .filter(|record| !record.is_empty())
        .map(|record| {
            format!(
                "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n{extra}\r\n{record}",
                args.path,
                args.host,
                record.len(),
            )
            .into_bytes()
        })
        .collect()
}

fn print(report: &Report, as_json: bool) -> Result<(), String> {
    let text = if as_json {
        report.to_json().to_string()
    } else {
        report.to_string()
    };
    writeln!(io::stdout(), "{text}").map_err(|error| format!("cannot print: {error}"))
}
