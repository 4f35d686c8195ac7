//! Jobs as they come: records in JSON, or NDJSON and CSV of any length.

use std::time::Duration;

use auspex_kernel::body::{self, Bounded};
use auspex_kernel::fields::{Body as _, Kind, Wrong, optional, required, text};
use auspex_kernel::http::{CreateErrors, Creation};
use auspex_kernel::idempotency::{Answer, IdempotencyParams, read_key};
use auspex_kernel::outward::check_url;
use auspex_kernel::predict::NoPrediction;
use auspex_kernel::{ApiError, FieldError, request_body};
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use csv::StringRecord;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;
use url::Url;

use super::{Desk, JobView, TAG, accepted, owner, parameters};
use crate::input::{Lines, NoRows};
use crate::intake::{Intake, STILL_COMES};
use crate::types::{Chunk, Form, NewJob};

/// Of a body in JSON, which is held as a whole.
const JSON_BYTES_MAX: usize = 2 << 20;
const JSON_TIMEOUT: Duration = Duration::from_secs(60);
const NAME_CHARS_MAX: usize = 64;
const URL_CHARS_MAX: usize = 2_048;
/// The place of an error that belongs to no field.
const WHOLE_BODY: &str = "(body)";

/// The header of CSV, once it has come, and chunks to be stored.
type Cut = (Option<StringRecord>, Vec<Chunk>);

request_body! {
    /// A job to begin.
    struct SubmitBody as "JobCreate" {
        /// Name of the model; by default the default model
        model: Option<String> = optional(text(1..=NAME_CHARS_MAX).example("santander")),
        /// Version of the model; by default the latest
        version: Option<String> = optional(text(1..=NAME_CHARS_MAX).example("latest")),
        /// What to predict, each as `POST /v1/models/{model}/predict` takes it
        records: Vec<Value> = required(Records),
        /// Where to send a request when the job has ended
        callback_url: Option<String> = optional(text(1..=URL_CHARS_MAX).example("https://example.org/hook")),
    }
}

/// A list of records.
struct Records;

impl Kind for Records {
    type Value = Vec<Value>;

    fn read(&self, value: &Value) -> Result<Vec<Value>, Wrong> {
        let records = value.as_array().filter(|records| !records.is_empty());
        records
            .cloned()
            .ok_or("must be a list of at least one record".into())
    }

    fn schema(&self) -> Value {
        // Some makers of clients know no list without items.
        let value = json!({"type": ["string", "number", "boolean", "null"]});
        let record = json!({"anyOf": [{"type": "object"}, {"type": "array", "items": value}]});
        json!({"type": "array", "minItems": 1, "items": record})
    }
}

/// What is said of a job apart from its records.
struct About {
    model: Option<String>,
    version: Option<String>,
    callback_url: Option<String>,
}

/// How a body is written.
enum Written {
    Json,
    Lines(Form),
}

fn written(headers: &HeaderMap) -> Result<Written, ApiError> {
    body::check_encoding(headers)?;
    let stated = headers.get(header::CONTENT_TYPE);
    let stated = stated
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = stated.split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            check_parameters(stated)?;
            Ok(Written::Lines(Form::Ndjson))
        }
        "text/csv" => {
            check_parameters(stated)?;
            Ok(Written::Lines(Form::Csv))
        }
        _ => match body::check_json(headers) {
            Ok(()) => Ok(Written::Json),
            Err(_) => Err(ApiError::unsupported_media_type(
                "the body must be application/json, application/x-ndjson or text/csv",
            )),
        },
    }
}

/// Refuses what a type states that is read otherwise (RFC 4180 §3): text that is not UTF-8, and CSV without a header.
fn check_parameters(stated: &str) -> Result<(), ApiError> {
    for parameter in stated.split(';').skip(1) {
        let parameter = parameter.to_ascii_lowercase();
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        let value = value.trim().trim_matches('"');
        let is_read = match name.trim() {
            "charset" => matches!(value, "utf-8" | "utf8" | "us-ascii"),
            "header" => value == "present",
            _ => true,
        };
        if !is_read {
            return Err(ApiError::unsupported_media_type(
                "rows are read as UTF-8, and CSV with a header",
            ));
        }
    }
    Ok(())
}

/// Begin a job
///
/// In JSON the body names the model and has the records. NDJSON and CSV, of any length up to `jobs.input_bytes_max`, have a record in each line; the
/// model is then named by the query. The version is that of the moment in which the job was submitted.
#[utoipa::path(
    post, path = "/v1/jobs", tag = TAG,
    params(
        ("model" = Option<String>, Query, description = "With NDJSON or CSV: name of the model; by default the default model", max_length = 64),
        ("version" = Option<String>, Query, description = "With NDJSON or CSV: version of the model; by default the latest", max_length = 64),
        ("callback_url" = Option<String>, Query, description = "With NDJSON or CSV: where to send a request when the job has ended", max_length = 2048),
        IdempotencyParams,
    ),
    request_body(content(
        (SubmitBody = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
    )),
    responses((status = 202, description = "Begun; `Location` says where the job is", body = JobView), CreateErrors),
    security(("api_key" = ["jobs:write", "predict"]), ("bearer" = ["jobs:write", "predict"]))
)]
pub(super) async fn submit_job(
    State(desk): State<Desk>,
    creation: Creation,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Response, ApiError> {
    // A body that is refused is read out a little, so that its sender sees the answer.
    let (form, about) = match begin(&creation.headers, query.as_deref()) {
        Ok(begun) => begun,
        Err(error) => {
            body::drain(body).await;
            return Err(error);
        }
    };
    let mut digest = Sha256::new();
    digest.update(query.as_deref().unwrap_or_default().as_bytes());
    let (intake, fingerprint) = match (form, about) {
        (Written::Lines(form), Some(about)) => {
            digest.update(form.as_str());
            desk.receive(&creation, about, form, body, digest).await?
        }
        _ => desk.receive_json(&creation, body, digest).await?,
    };
    desk.finish(&creation, intake, &fingerprint).await
}

/// How the body is written, and what the query says of it where it is not JSON.
fn begin(headers: &HeaderMap, query: Option<&str>) -> Result<(Written, Option<About>), ApiError> {
    let form = written(headers)?;
    if let Written::Json = form {
        let [] = parameters(query, [])?;
        return Ok((form, None));
    }
    let names = ["model", "version", "callback_url"];
    let [model, version, callback_url] = parameters(query, names)?;
    let about = About {
        model,
        version,
        callback_url,
    };
    Ok((form, Some(about)))
}

type Received = (Intake, [u8; 32]);

impl Desk {
    async fn receive_json(
        &self,
        creation: &Creation,
        body: Body,
        mut digest: Sha256,
    ) -> Result<Received, ApiError> {
        let bounded = Bounded::new(body, JSON_BYTES_MAX, JSON_TIMEOUT, None);
        let bytes = body::read(Body::new(bounded)).await?;
        digest.update(&bytes);
        let body = SubmitBody::parse(&bytes)?;
        let about = About {
            model: body.model,
            version: body.version,
            callback_url: body.callback_url,
        };
        let new = self.new_job(creation, about)?;
        let mut lines = self.lines(Form::Ndjson);
        let mut full = Vec::new();
        for record in body.records {
            // Serialised again it has no line ends.
            lines
                .push(format!("{record}\n").as_bytes(), &mut full)
                .map_err(refused)?;
        }
        lines.finish(&mut full).map_err(refused)?;
        let mut intake = self.begin(creation, new).await?;
        match intake.take(full).await {
            Ok(()) => Ok((intake, digest.finalize().into())),
            Err(error) => {
                intake.drop_input().await;
                Err(error.into())
            }
        }
    }

    async fn receive(
        &self,
        creation: &Creation,
        about: About,
        form: Form,
        mut body: Body,
        mut digest: Sha256,
    ) -> Result<Received, ApiError> {
        let begun = async {
            let new = self.new_job(creation, about)?;
            self.begin(creation, new).await
        };
        let mut intake = match begun.await {
            Ok(intake) => intake,
            Err(error) => {
                body::drain(body).await;
                return Err(error);
            }
        };
        let received = self.read(&mut intake, form, &mut body, &mut digest).await;
        match received {
            Ok(()) => Ok((intake, digest.finalize().into())),
            Err(error) => {
                intake.drop_input().await;
                body::drain(body).await;
                Err(error)
            }
        }
    }

    /// A request that is repeated must find its job, also where no other one may begin.
    async fn begin(&self, creation: &Creation, new: NewJob) -> Result<Intake, ApiError> {
        Ok(match read_key(&creation.headers)? {
            Some(_) => self.jobs.receive(new)?,
            None => self.jobs.begin(new).await?,
        })
    }

    /// Reads a body as it comes. While chunks are stored, the next are read.
    async fn read(
        &self,
        intake: &mut Intake,
        form: Form,
        body: &mut Body,
        digest: &mut Sha256,
    ) -> Result<(), ApiError> {
        let (cut, to_store) = mpsc::channel(1);
        let reading = self.cut(form, body, digest, cut);
        let (read, stored) = tokio::join!(reading, self.store(intake, to_store));
        stored.and(read)?;
        match intake.has_rows() {
            true => Ok(()),
            false => Err(invalid(WHOLE_BODY, "must have at least one record")),
        }
    }

    /// Cuts a body into chunks for as long as somebody takes them.
    async fn cut(
        &self,
        form: Form,
        body: &mut Body,
        digest: &mut Sha256,
        chunks: mpsc::Sender<Cut>,
    ) -> Result<(), ApiError> {
        let (mut lines, mut full, mut is_header_told) = (self.lines(form), Vec::new(), false);
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = chunks.closed() => return Ok(()),
            };
            let is_end = frame.is_none();
            let data = match frame {
                Some(frame) => frame.map_err(|error| body::error_of(&error))?.into_data(),
                None => Ok(Bytes::new()),
            };
            // Trailers say nothing.
            let data = data.unwrap_or_default();
            digest.update(&data);
            lines.push(&data, &mut full).map_err(refused)?;
            if is_end {
                lines.finish(&mut full).map_err(refused)?;
            }
            let header = lines.header().filter(|_| !is_header_told).cloned();
            is_header_told |= header.is_some();
            if header.is_some() || !full.is_empty() {
                // Why nobody takes them any more is told by whoever did.
                let _ = chunks.send((header, std::mem::take(&mut full))).await;
            }
            if is_end {
                return Ok(());
            }
        }
    }

    /// Stores chunks until there are no more. What is being stored when the body breaks off is not abandoned.
    async fn store(
        &self,
        intake: &mut Intake,
        mut cut: mpsc::Receiver<Cut>,
    ) -> Result<(), ApiError> {
        loop {
            match timeout(STILL_COMES, cut.recv()).await {
                Ok(Some((header, chunks))) => {
                    if let Some(header) = header {
                        self.note_header(intake, header)?;
                    }
                    intake.take(chunks).await?;
                }
                Ok(None) => return Ok(()),
                Err(_) => intake.note_waiting().await?,
            }
        }
    }

    fn lines(&self, form: Form) -> Lines {
        Lines::new(
            form,
            self.config.chunk_rows_max,
            self.config.chunk_bytes_max,
        )
    }

    /// Looks at the header of CSV when it has come.
    fn note_header(&self, intake: &mut Intake, header: StringRecord) -> Result<(), ApiError> {
        let predictor = self.jobs.predictor();
        let checked = predictor.check_header(intake.pinned(), &header);
        checked.map_err(|error| match error {
            NoPrediction::Header(why) => invalid("(header)", &why),
            other => ApiError::unavailable(other.to_string(), 5),
        })?;
        intake.set_header(header);
        Ok(())
    }

    fn new_job(&self, creation: &Creation, about: About) -> Result<NewJob, ApiError> {
        let allow_private = self.config.callbacks.allow_private_addresses;
        let checked = |url: String| {
            let url = Url::parse(&url).ok();
            let url = url.filter(|url| url.as_str().len() <= URL_CHARS_MAX);
            let url = url.ok_or("must be a URL of at most 2048 characters")?;
            check_url(&url, allow_private)?;
            // As it is written, it may hold what no database takes.
            Ok(url.to_string())
        };
        let callback_url = about.callback_url.map(checked).transpose();
        let callback_url = callback_url.map_err(|why| invalid("callback_url", why))?;
        let pinned = self
            .jobs
            .predictor()
            .pin(about.model.as_deref(), about.version.as_deref())?;
        Ok(NewJob {
            owner: owner(&creation.requester),
            pinned,
            header: None,
            callback_url,
        })
    }

    /// The job begins, unless it did so before for the same `Idempotency-Key`.
    async fn finish(
        &self,
        creation: &Creation,
        mut intake: Intake,
        fingerprint: &[u8],
    ) -> Result<Response, ApiError> {
        let render = accepted(self.config.retention());
        let work = async |receipt| Ok(intake.finish(receipt).await?);
        let answered = creation
            .once(fingerprint, Answer::Stored, render, work)
            .await;
        intake.drop_input().await;
        answered
    }
}

fn refused(error: NoRows) -> ApiError {
    let field = match error {
        NoRows::Header => "(header)",
        NoRows::Document(_) | NoRows::OpenQuote(_) => WHOLE_BODY,
    };
    invalid(field, &error.to_string())
}

fn invalid(field: &str, message: &str) -> ApiError {
    ApiError::validation(vec![FieldError {
        field: field.into(),
        message: message.into(),
    }])
}
