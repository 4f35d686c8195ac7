//! Log lines: JSON for machines, pretty for a terminal. They go to standard error, so that standard
//! output stays the answer of a command.

use std::io::{IsTerminal as _, Write};

use serde::Deserialize;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Pretty,
}

/// Which requests get a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AccessLog {
    All,
    Errors,
    Off,
}

/// Starts logging for the process, which is called `instance`.
///
/// # Errors
/// A message naming the setting.
pub(crate) fn start(config: &super::Config, instance: &str) -> Result<(), String> {
    let filter = filter(&config.log_level)?;
    let json = match config.log_format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let lines = fmt::fmt()
        .with_env_filter(filter)
        .with_writer(|| Forgiving(std::io::stderr()))
        .log_internal_errors(false);
    let started = if json {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .map_event_format(|lines| OfInstance::new(lines, instance))
            .try_init()
    } else {
        lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .try_init()
    };
    started.map_err(|error| format!("logging could not start: {error}"))
}

/// Reads a level, as this program or Python writes it, or a filter such as `warn,auspex=debug`.
///
/// # Errors
/// What is wrong with it. A bare word that is not a level would be taken for a target and silence
/// everything else.
pub(super) fn filter(text: &str) -> Result<EnvFilter, String> {
    let text = text.trim().to_lowercase();
    let level = match text.as_str() {
        "warning" => "warn",
        "critical" | "fatal" => "error",
        other => other,
    };
    let is_filter = level.contains('=') || level.contains(',');
    if !is_filter && !LEVELS.contains(&level) {
        return Err(format!(
            "must be one of {} or a tracing filter",
            LEVELS.join(", ")
        ));
    }
    // What libraries log about their own steps is useful only to operators who ask for it. Of connections to RabbitMQ
    // the jobs tell what matters, once.
    EnvFilter::try_new(format!(
        "lapin=off,sea_orm_migration=warn,sqlx=warn,{level}"
    ))
    .map_err(|error| format!("is not a tracing filter: {error}"))
}

/// JSON lines that say first of which server they are: logs of replicas are read together.
struct OfInstance<F> {
    lines: F,
    /// What a line begins with.
    begin: String,
}

impl<F> OfInstance<F> {
    fn new(lines: F, instance: &str) -> Self {
        let instance = serde_json::Value::from(instance);
        Self {
            lines,
            begin: format!("{{\"instance\":{instance},"),
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for OfInstance<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut line = String::new();
        let whole = Writer::new(&mut line);
        self.lines.format_event(context, whole, event)?;
        let fields = line.strip_prefix('{').ok_or(std::fmt::Error)?;
        writer.write_str(&self.begin)?;
        writer.write_str(fields)
    }
}

/// A log that cannot be written, because its reader is gone or the disk is full, must not stop a
/// request.
struct Forgiving<W>(W);

impl<W: Write> Write for Forgiving<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_as_people_write_them_and_other_words_refused() {
        for level in [
            "info",
            "WARNING",
            "critical",
            "Debug",
            "off",
            "warn,auspex=debug",
        ] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for wrong in ["", "nonsense", "verbose"] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }
}
