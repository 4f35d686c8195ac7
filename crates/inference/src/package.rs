//! One model with its schema, loaded, checked and ready to predict.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use auspex_engine::{Engine, LoadOptions, RowBuffer, RowRefusal, Unexplained};
use auspex_kernel::FieldError;
use auspex_kernel::files::PRIVATE;
use serde_json::{Map, Value};

use crate::answer::{Answer, Label, Writer};
use crate::checksums::digest_of_package;
use crate::explain::{EXPLAIN, NotExplained, Top};
use crate::files::{
    DANGLING, MANIFEST, file_name, if_not_the_model, is_dangling, misnamed_manifest, model_file,
    names,
};
use crate::graph;
use crate::manifest::{Example, Manifest};
use crate::names::LATEST;
use crate::plan::{Plan, Shape};
use crate::reads::read_file;
use crate::schema::Schema;
use crate::table::leave_out;
use crate::validate::{Asked, Reader, Refusal, UNKNOWN, WHOLE_BODY};

/// How many rows a line may hold.
const ROWS_OF_LINE_MAX: usize = 100_000;
/// The place of an error that belongs to no field.
const WHOLE_LINE: &str = "(line)";

/// Names the package and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("model package {path}: {message}")]
pub struct PackageError {
    path: String,
    message: String,
}

impl PackageError {
    /// What is wrong, without the path of the package.
    pub(crate) fn reason(&self) -> &str {
        &self.message
    }

    pub(crate) fn new(path: &Path, message: impl Into<String>) -> Self {
        Self {
            path: path.display().to_string(),
            message: message.into(),
        }
    }
}

/// A loaded and checked model.
#[derive(Debug)]
pub struct Package {
    path: PathBuf,
    model: String,
    version: String,
    file: Option<PathBuf>,
    /// The SHA-256 of its model file and its manifest.
    content: Option<String>,
    pub(crate) manifest: Manifest,
    engine: Box<dyn Engine>,
    schema: Schema,
    labels: Option<Vec<Label>>,
    pub(crate) plan: Plan,
    pub(crate) writer: Writer,
}

impl Package {
    /// Loads a package folder, or a bare model file. The model's name and version come from the
    /// folders above, as in `MODELS_DIR/<model>/<version>/`.
    ///
    /// # Errors
    /// If there is no model in it, or one that cannot be used, or one that does not reproduce its
    /// own examples.
    pub fn load(path: &Path) -> Result<Self, PackageError> {
        Self::load_to_explain(path, 0)
    }

    /// [`Package::load`] that keeps what explanations need, if that is not more memory than this.
    ///
    /// # Errors
    /// As [`Package::load`].
    pub fn load_to_explain(path: &Path, bytes_max: usize) -> Result<Self, PackageError> {
        let (model, version) = names(path);
        Self::load_as(path, &model, &version, bytes_max)
    }

    /// [`Package::load_to_explain`] under a given name.
    pub(crate) fn load_as(
        path: &Path,
        model: &str,
        version: &str,
        explanation_bytes_max: usize,
    ) -> Result<Self, PackageError> {
        Self::load_with(path, model, version, explanation_bytes_max, true)
    }

    /// [`Package::load_as`], where wanted without verifying checksums.
    pub(crate) fn load_with(
        path: &Path,
        model: &str,
        version: &str,
        explanation_bytes_max: usize,
        verify: bool,
    ) -> Result<Self, PackageError> {
        let refuse = |message: String| PackageError::new(path, message);
        let meta = fs::metadata(path).map_err(|error| match is_dangling(path) {
            true => refuse(format!("it is {DANGLING}")),
            false => refuse(error.to_string()),
        })?;
        let (file, manifest) = if meta.is_dir() {
            if is_dangling(&path.join(MANIFEST)) {
                return Err(refuse(format!("{MANIFEST} is {DANGLING}")));
            }
            if let Some(other) = misnamed_manifest(path) {
                let message =
                    format!("the manifest is called {MANIFEST}; rename {other}, or remove it");
                return Err(refuse(message));
            }
            let manifest = Manifest::read(&path.join(MANIFEST));
            let manifest = manifest.map_err(|message| refuse(format!("{MANIFEST}: {message}")))?;
            (model_file(path).map_err(refuse)?, manifest)
        } else {
            (path.to_owned(), Manifest::default())
        };
        let name = file_name(&file);
        let bytes = read_file(&file).map_err(|error| refuse(format!("{name}: {error}")))?;
        if verify {
            let verified = manifest.sha256.verify(path, &name, &bytes);
            verified.map_err(|message| refuse(format!("{MANIFEST}: {message}")))?;
        }
        let options = LoadOptions {
            iteration_range: manifest.iteration_range,
            explanation_bytes_max,
        };
        let engine = graph::load(&name, &bytes, &options);
        let engine = engine.map_err(|message| {
            let hint = if_not_the_model(&file);
            refuse(format!("{name}: {message}{hint}"))
        })?;
        let mut package = Self::assemble(path, model, version, manifest, engine)?;
        package.compare_with_examples(&options);
        // There may be none.
        let manifest_text = fs::read(path.join(MANIFEST)).unwrap_or_default();
        package.content = Some(digest_of_package(&manifest_text, &bytes));
        package.file = Some(file);
        Ok(package)
    }

    /// Loads a package folder whatever its checksums are, and writes those of its files into its
    /// manifest: of the model, and of each other file that the manifest has one of.
    ///
    /// # Errors
    /// As for [`Package::load`], and if the manifest cannot be written.
    pub fn write_checksums(path: &Path) -> Result<(), PackageError> {
        let refuse = |message: String| PackageError::new(path, message);
        let (model, version) = names(path);
        let package = Self::load_with(path, &model, &version, 0, false)?;
        let file = package.file().filter(|file| *file != path);
        let file = file.ok_or_else(|| {
            let message = "a model file alone has no model.toml; name its folder";
            refuse(message.into())
        })?;
        let manifest = path.join(MANIFEST);
        let text = match fs::read_to_string(&manifest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read,
        };
        let named = |message: String| refuse(format!("{MANIFEST}: {message}"));
        let text = text.map_err(|error| named(error.to_string()))?;
        let written = package.manifest.sha256.write(&text, path, &file_name(file));
        let written = written.map_err(named)?;
        replace(&manifest, &written).map_err(|error| named(error.to_string()))
    }

    /// Puts a package together and runs its examples.
    pub(crate) fn assemble(
        path: &Path,
        model: &str,
        version: &str,
        manifest: Manifest,
        engine: Box<dyn Engine>,
    ) -> Result<Self, PackageError> {
        // What is wrong in a manifest that is not there, the model's file lacks.
        let refuse = |message: String| match path.join(MANIFEST).is_file() {
            true => PackageError::new(path, format!("{MANIFEST}: {message}")),
            false => PackageError::new(path, message),
        };
        let signature = engine.signature();
        let schema = manifest.schema(signature).map_err(refuse)?;
        let labels = manifest.labels(signature).map_err(refuse)?;
        let package = Self {
            plan: Plan::new(&schema),
            writer: Writer::new(model, version, signature, labels.as_deref()),
            path: path.to_owned(),
            model: model.to_owned(),
            version: version.to_owned(),
            file: None,
            content: None,
            manifest,
            engine,
            schema,
            labels,
        };
        package.check_examples()?;
        Ok(package)
    }

    /// Has rows explained against its examples, by a model whose file has nothing better.
    fn compare_with_examples(&mut self, options: &LoadOptions) {
        let mut rows = RowBuffer::default();
        let examples = self.manifest.examples.iter();
        for row in examples.filter_map(|example| self.example_row(example).ok()) {
            self.schema.append(&mut rows, row.rows(self.plan.width()));
        }
        self.engine
            .compare_with(rows.rows(self.plan.width()), options);
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The version's name.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether the package has a manifest.
    pub fn has_manifest(&self) -> bool {
        self.path.join(MANIFEST).is_file()
    }

    /// The file the model came from.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What tells its content from that of any other package; none: it was put together in memory.
    pub fn content(&self) -> Option<&str> {
        self.content.as_deref()
    }

    /// Its title for display.
    pub fn title(&self) -> Option<&str> {
        self.manifest.title.as_deref()
    }

    /// What the model is for.
    pub fn description(&self) -> Option<&str> {
        self.manifest.description.as_deref()
    }

    /// Whether the package says that it is the model behind `POST /predict`.
    pub fn wants_default(&self) -> bool {
        self.manifest.default
    }

    /// What goes in.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// What comes out: one label per class, `None` for plain numbers.
    pub fn labels(&self) -> Option<&[Label]> {
        self.labels.as_deref()
    }

    /// The model itself.
    pub fn engine(&self) -> &dyn Engine {
        self.engine.as_ref()
    }

    /// Numbers in an output row of [`Package::predict`].
    pub fn outputs(&self) -> usize {
        self.engine.signature().outputs()
    }

    /// Predicts rows.
    ///
    /// # Errors
    /// If the model refuses one of them.
    ///
    /// # Panics
    /// If `rows` is not a whole number of rows.
    pub fn predict(&self, rows: &RowBuffer, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        let rows = rows.rows(self.plan.width());
        out.clear();
        out.resize(rows.len() * self.outputs(), 0.0);
        self.engine.predict(rows, out)
    }

    /// Predicts one line of input and appends the line that answers it: an object, for several rows a
    /// list of them. A line is a record, a list of values by position, a list of either, or what a
    /// request has with `features`.
    ///
    /// # Errors
    /// Every field that is wrong, or the row that the model refuses; a line that is not JSON at all is
    /// one error of field `(line)`.
    pub fn predict_line(&self, line: &str, out: &mut Vec<u8>) -> Result<(), Vec<FieldError>> {
        self.answer_line(line, None, out)
    }

    /// [`Package::predict_line`] with explanations.
    ///
    /// # Errors
    /// As [`Package::predict_line`], and if the model does not explain, or the line has too many rows
    /// for it.
    pub fn explain_line(
        &self,
        line: &str,
        top: Top,
        out: &mut Vec<u8>,
    ) -> Result<(), Vec<FieldError>> {
        self.answer_line(line, Some(top), out)
    }

    fn answer_line(
        &self,
        line: &str,
        top: Option<Top>,
        out: &mut Vec<u8>,
    ) -> Result<(), Vec<FieldError>> {
        let (asked, rows) = self.parse_rows(line, ROWS_OF_LINE_MAX)?;
        let mut values = Vec::new();
        self.predict(&rows, &mut values)
            .map_err(|refusal| of_line(refusal.reason))?;
        let explained = asked.explain.or(top);
        let explained = explained.map(|top| self.explain(&rows, &values, top));
        let explained = explained.transpose();
        let explained = explained.map_err(|error| {
            of_line(match error {
                NotExplained::Model(Unexplained::NotAsked) => {
                    "explanations are made only if they are asked for with --explain".to_owned()
                }
                NotExplained::Row(refusal) => refusal.reason,
                other => format!("the explanation {other}"),
            })
        })?;
        let answer = Answer {
            values: &values,
            explained: explained.as_ref(),
        };
        match asked.shape {
            Shape::Record | Shape::Values => self.writer.line(&answer, out),
            Shape::Records | Shape::ValueLists => self.writer.lines(&answer, out),
        }
        Ok(())
    }

    /// Reads one row: a record, or a list of values by position.
    ///
    /// # Errors
    /// As of [`Package::predict_line`].
    pub fn parse_line(&self, line: &str) -> Result<RowBuffer, Vec<FieldError>> {
        let (asked, rows) = self.parse_rows(line, 1)?;
        match asked.explain {
            None => Ok(rows),
            Some(_) => Err(vec![FieldError {
                field: EXPLAIN.into(),
                message: "is not answered here; a request to POST /v1/models/{model}/explain is"
                    .into(),
            }]),
        }
    }

    fn parse_rows(
        &self,
        line: &str,
        rows_max: usize,
    ) -> Result<(Asked, RowBuffer), Vec<FieldError>> {
        let reader = Reader {
            schema: &self.schema,
            rows_max,
            versions: &[&self.version, LATEST],
        };
        let mut rows = RowBuffer::default();
        match reader.read_line(line, &mut rows) {
            Ok(asked) => Ok((asked, rows)),
            Err(Refusal::Malformed(message)) => {
                Err(of_line(message.replacen("the body", "the line", 1)))
            }
            Err(Refusal::Invalid(mut errors)) => {
                for error in &mut errors {
                    if error.field.is_empty() || error.field == WHOLE_BODY {
                        error.field = WHOLE_LINE.into();
                    }
                    if error.message == UNKNOWN {
                        let name = error.field.rsplit("].").next().unwrap_or(&error.field);
                        error.message = format!("{UNKNOWN}; {}", leave_out(name));
                    }
                }
                Err(errors)
            }
        }
    }

    /// Runs the package's examples and says how many there are.
    ///
    /// # Errors
    /// If one is not valid input, or its output differs from the expected one.
    pub fn check_examples(&self) -> Result<usize, PackageError> {
        for (index, example) in self.manifest.examples.iter().enumerate() {
            self.check_example(example).map_err(|message| {
                PackageError::new(
                    &self.path,
                    format!("{MANIFEST}: example {}: {message}", index + 1),
                )
            })?;
        }
        Ok(self.manifest.examples.len())
    }

    fn check_example(&self, example: &Example) -> Result<(), String> {
        let stated = example.tolerance.unwrap_or_default();
        if !stated.is_finite() || stated < 0.0 {
            return Err("tolerance must be a number of at least 0".into());
        }
        let row = self.example_row(example)?;
        let mut values = Vec::new();
        self.predict(&row, &mut values)
            .map_err(|refusal| format!("input: {}", refusal.reason))?;
        let expected = example.output.as_slice();
        if expected.len() != values.len() {
            values = self.writer.answer_row(&values);
        }
        if expected.len() != values.len() {
            let (given, count) = (expected.len(), values.len());
            return Err(format!(
                "output has {given} numbers, the model gives {count}"
            ));
        }
        let off = |(got, wanted): (&f64, &f64)| {
            (got - wanted).abs() > example.tolerance_of(*wanted) || got.is_nan() != wanted.is_nan()
        };
        match values.iter().zip(expected).position(off) {
            None => Ok(()),
            Some(at) => Err(format!(
                "output {} is {}, not {} within {}; the model is not the one that was described",
                at + 1,
                values[at],
                expected[at],
                example.tolerance_of(expected[at])
            )),
        }
    }

    fn example_row(&self, example: &Example) -> Result<RowBuffer, String> {
        self.parse_line(&example.input().to_string())
            .map_err(|errors| format!("input: {}", listed(&errors)))
    }

    /// What it answers to a record, as an example has it.
    pub(crate) fn answer(&self, record: &Map<String, Value>) -> Result<Vec<f64>, String> {
        let text = Value::Object(record.clone()).to_string();
        let row = self.parse_line(&text).map_err(|errors| listed(&errors))?;
        let mut values = Vec::new();
        let predicted = self.predict(&row, &mut values);
        predicted.map_err(|refusal| refusal.reason)?;
        Ok(self.writer.answer_row(&values))
    }

    /// The rows of the examples, or one made up from the schema if there are none.
    pub(crate) fn sample_rows(&self) -> Vec<RowBuffer> {
        let examples = self.manifest.examples.iter();
        let mut rows: Vec<RowBuffer> = examples
            .filter_map(|example| self.example_row(example).ok())
            .collect();
        if rows.is_empty() {
            rows.push(self.schema.sample());
        }
        rows
    }

    /// The examples it was checked with.
    pub(crate) fn examples(&self) -> &[Example] {
        &self.manifest.examples
    }

    /// A record this model accepts, in the order of the schema.
    pub fn example_record(&self) -> Value {
        let by_name = self
            .manifest
            .examples
            .iter()
            .map(Example::input)
            .find(Value::is_object);
        let Some(Value::Object(mut given)) = by_name else {
            let sample = &self.sample_rows()[0];
            return self.schema.record_of(sample.rows(self.plan.width()));
        };
        let features = self.schema.features.iter().map(|field| &field.name);
        let names = features.chain(self.schema.unused.iter().map(|unused| &unused.name));
        names
            .filter_map(|name| given.remove_entry(name))
            .collect::<Map<_, _>>()
            .into()
    }
}

/// Replaces a file as a whole, with its mode.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let next = path.with_file_name(format!(".{name}.new"));
    let permissions = fs::metadata(path).ok().map(|meta| meta.permissions());
    let _ = fs::remove_file(&next);
    let mut file = OpenOptions::new();
    // Whoever may not read the file may not read the one that takes its place either, not even while it
    // is written.
    file.mode(if permissions.is_some() {
        PRIVATE
    } else {
        0o666
    });
    let mut file = file.write(true).create_new(true).open(&next)?;
    file.write_all(text.as_bytes())?;
    if let Some(permissions) = permissions {
        fs::set_permissions(&next, permissions)?;
    }
    file.sync_all()?;
    fs::rename(&next, path)
}

fn listed(errors: &[FieldError]) -> String {
    let texts = errors.iter();
    let texts: Vec<String> = texts
        .map(|e| format!("{} {}", e.field, e.message))
        .collect();
    texts.join("; ")
}

pub(crate) fn of_line(message: impl Into<String>) -> Vec<FieldError> {
    vec![FieldError {
        field: WHOLE_LINE.into(),
        message: message.into(),
    }]
}

#[cfg(test)]
mod tests;
