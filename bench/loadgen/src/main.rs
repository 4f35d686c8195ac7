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
use args::{Args, Work};
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
    let (requests, answers) = match &args.work {
        Work::Records { records, expected } => (
            build(args, &read(records)?, |record| {
                Some(("POST", &args.path, record))
            })?,
            Answers::parse(&read(expected)?)?,
        ),
        Work::Requests {
            requests, contains, ..
        } => (
            build(args, &read(requests)?, split)?,
            Answers::Containing(contains.clone()),
        ),
    };
    if requests.is_empty() || !answers.fit(requests.len()) {
        return Err(format!(
            "{} requests, and another number of expected answers",
            requests.len()
        ));
    }
    let plan = Plan {
        address: args.address,
        connections: args.connections,
        warmup: args.warmup,
        duration: args.duration,
        timeout: args.timeout,
        requests,
        is_once: matches!(args.work, Work::Requests { repeats: false, .. }),
    };
    drive::drive(&plan, answers).map_err(|error| format!("cannot poll: {error}"))
}

/// The whole bytes of one request for each line, of which `parts` makes method, path and body.
fn build<'a>(
    args: &'a Args,
    lines: &'a str,
    parts: impl Fn(&'a str) -> Option<(&'a str, &'a str, &'a str)>,
) -> Result<Vec<Vec<u8>>, String> {
    let extra: String = args
        .headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    let request = |line| {
        let wrong = || format!("not METHOD PATH BODY: {line}");
        let (method, path, body) = parts(line).ok_or_else(wrong)?;
        let (host, length) = (&args.host, body.len());
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{extra}\r\n{body}",
        );
        Ok(text.into_bytes())
    };
    lines.map(request).collect()
}

fn split(line: &str) -> Option<(&str, &str, &str)> {
    let (method, rest) = line.split_once(' ')?;
    let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
    path.starts_with('/').then_some((method, path, body))
}

fn print(report: &Report, as_json: bool) -> Result<(), String> {
    let text = if as_json {
        report.to_json().to_string()
    } else {
        report.to_string()
    };
    writeln!(io::stdout(), "{text}").map_err(|error| format!("cannot print: {error}"))
}
