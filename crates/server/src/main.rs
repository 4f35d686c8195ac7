//! Auspex: trained models behind a production API, in one binary.

mod address;
mod app;
mod audit;
mod cli;
mod commands;
mod config;
mod connection;
mod edge;
mod front;
mod health;
mod lambda;
mod listener;
mod memory;
mod metrics;
mod overview;
mod reload;
mod roles;
mod services;
mod settings;
mod system;
mod telemetry;
mod tls;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

/// Returns memory after a flood of connections; the C library's allocator keeps what it had at the
/// peak.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit codes: 0 done, 1 failed, 2 wrong command line or configuration.
fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(code) => code,
        Err(failure) => {
            // Standard error may be closed; the exit code tells the same.
            let _ = writeln!(std::io::stderr(), "auspex: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}
