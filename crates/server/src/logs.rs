//! Log lines: JSON for machines, pretty for a terminal. They go to standard error, so that standard
//! output stays the answer of a command.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{LogFormat, Telemetry};

/// Starts logging for the process.
///
/// # Errors
/// A message naming the setting.
pub(crate) fn start(telemetry: &Telemetry) -> Result<(), String> {
    let level = telemetry.log_level.to_lowercase();
    // What a library tells of its own steps is of use only to who asks for it by a filter.
    let filter =
        EnvFilter::try_new(format!("sea_orm_migration=warn,{level}")).map_err(|error| {
            format!("telemetry.log_level \"{level}\" is no level or filter: {error}")
        })?;
    let json = match telemetry.log_format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let lines = fmt::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = if json {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init()
    } else {
        lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .try_init()
    };
    started.map_err(|error| format!("logging could not start: {error}"))
}
