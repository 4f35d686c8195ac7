//! `auspex models`: make packages, and look at them before they go live.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;
use std::process::ExitCode;

use auspex_inference::{Draft, ModelsFolder, Package, why_unexplained};
use auspex_kernel::error::{is_printable, shown};
use auspex_kernel::records::{Input, Row};

use super::{Failure, Outcome, print};
use crate::cli::ModelsCommand;

pub(super) fn run(command: &ModelsCommand) -> Outcome {
    match command {
        ModelsCommand::Check {
            package,
            write_checksum,
            runtime,
        } => {
            runtime.load()?;
            if *write_checksum {
                Package::write_checksums(package)?;
            }
            match ModelsFolder::open(package)? {
                Some(folder) => check_all(package, &folder),
                None => check(package),
            }
        }
        ModelsCommand::Init {
            package,
            sample,
            runtime,
        } => {
            runtime.load()?;
            init(package, sample.as_deref())
        }
    }
}

/// What is read of a sample at most: more rows would show hardly more.
const SAMPLE_ROWS_MAX: u64 = 100_000;
const SAMPLE_BYTES_MAX: usize = 64 << 20;

fn init(package: &Path, sample: Option<&Path>) -> Outcome {
    let mut draft = Draft::new(package)?;
    let mut is_whole = true;
    if let Some(sample) = sample {
        let read = read_sample(&mut draft, sample);
        is_whole = read.map_err(|message| format!("the sample {}: {message}", sample.display()))?;
    }
    let written = draft.write()?;
    let mut text = format!("{}: {} features", written.path.display(), written.features);
    if written.rows > 0 {
        let first = if is_whole { "" } else { "the first " };
        text.push_str(&format!(", {first}{} rows of the sample", written.rows));
    }
    if let Some(line) = written.example {
        text.push_str(&format!(", an example of its line {line}"));
    }
    for note in written.notes {
        text.push_str(&format!("\ncheck {}", printable(&note)));
    }
    let folder = package.display();
    print(&format!(
        "{text}\nwhere this folder is served, it is in force from now on; until you edit it, what the model took \
         without it is taken as before, but for what is said above\n\
         edit it, then run: auspex models check {folder}\n"
    ))
}

/// Whether that was all of it.
fn read_sample(draft: &mut Draft, path: &Path) -> Result<bool, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    draft.begin_sample(&name);
    let file = File::open(path).map_err(|error| error.to_string())?;
    // More than is looked at, so that no row is cut in two; what never ends does end.
    let file = file.take(2 * SAMPLE_BYTES_MAX as u64);
    let mut input = Input::open(BufReader::new(file)).map_err(|error| match error.kind() {
        io::ErrorKind::Other => format!(
            "it begins with neither {{ nor [, so it is read as CSV with a header, and {error}"
        ),
        _ => error.to_string(),
    })?;
    if let Some(header) = input.header() {
        draft.add_header(header)?;
    }
    let (mut rows, mut bytes) = (0, 0);
    while rows < SAMPLE_ROWS_MAX && bytes < SAMPLE_BYTES_MAX {
        let Some((line, row)) = input.next_row().map_err(|error| error.to_string())? else {
            return match rows {
                0 => Err(match input.header() {
                    Some(_) => "it has a header and no row".into(),
                    None => "it is empty".into(),
                }),
                _ => Ok(true),
            };
        };
        let added = match row {
            Row::Blank => continue,
            Row::Json(text) => {
                bytes += text.len();
                draft.add_json(line, text)
            }
            Row::Cells(cells) => {
                bytes += cells.as_slice().len();
                draft.add_cells(line, &cells)
            }
            Row::Broken(why) => Err(why),
        };
        added.map_err(|what| format!("line {line}: {what}"))?;
        rows += 1;
    }
    Ok(false)
}

fn check(path: &Path) -> Outcome {
    let package = Package::load_to_explain(path, usize::MAX)?;
    print(&format!(
        "{}\n{}{}\n",
        path.display(),
        facts(&package)?,
        serde_json::to_string_pretty(&package.schema().json_schema(&package.example_record()))?,
    ))
}

fn facts(package: &Package) -> Result<String, Failure> {
    let manifest = match package.has_manifest() {
        true => "model.toml",
        false => "none; the model's file alone says what goes in (`auspex models init` writes one)",
    };
    let examples = match package.check_examples()? {
        0 => "none; add [[examples]] to model.toml so that a wrong model cannot go live".into(),
        n => format!("{n} reproduced"),
    };
    let engine = package.engine();
    let caution = engine.caution();
    let caution = caution.map_or_else(String::new, |caution| format!("caution: {caution}\n"));
    let explanations = match engine.explain() {
        Ok(model) if model.asks() > 0 => format!(
            "yes, for each of which the model is asked up to {} times",
            model.asks()
        ),
        Ok(model) => format!("yes, with {} bytes of memory", model.bytes()),
        Err(unexplained) => format!("no: {}", why_unexplained(unexplained)),
    };
    let engine = engine.description();
    Ok(format!(
        "manifest: {manifest}\nengine: {engine}\nexamples: {examples}\nexplanations: {explanations}\n{caution}"
    ))
}

/// Checks every package of a folder, whatever is wrong with the others.
fn check_all(path: &Path, folder: &ModelsFolder) -> Outcome {
    let (mut good, mut refused) = (0, 0);
    for (model, version, loaded) in folder.packages(usize::MAX) {
        let verdict = match loaded {
            Ok(package) => {
                good += 1;
                format!("good\n{}", facts(&package)?)
            }
            Err(reason) => {
                refused += 1;
                format!("refused\n{reason}\n")
            }
        };
        let verdict = printable(verdict.trim_end()).replace('\n', "\n    ");
        print(&format!("{} {}: {verdict}\n", shown(model), shown(version)))?;
    }
    let problems = folder.problems();
    for problem in problems {
        print(&format!("not served: {}\n", printable(problem)))?;
    }
    print(&format!(
        "{}: {good} good, {refused} refused, {} not served\n",
        path.display(),
        problems.len()
    ))?;
    if let Some(above) = folder.above() {
        let above = above.display();
        print(&format!(
            "this is the folder of one model; to serve it, name the one above: auspex serve --models {above}\n"
        ))?;
    }
    match refused + problems.len() {
        0 => Ok(ExitCode::SUCCESS),
        _ => Err(format!("not all is well in {}", path.display()).into()),
    }
}

/// Names of files may hold anything: what does not print is escaped, lines stay.
fn printable(text: &str) -> String {
    let escaped = |c: char| match c == '\n' || is_printable(c) {
        true => c.to_string(),
        false => c.escape_default().to_string(),
    };
    text.chars().map(escaped).collect()
}
