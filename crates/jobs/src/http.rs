//! Routes of jobs: parse, call, render.

mod events;
mod outcome;
mod submit;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::etag::cacheable;
use auspex_kernel::fields::{Filters as _, one_of, text};
use auspex_kernel::http::{
    CSV, Creation, JSON, List, ListErrors, ReadErrors, Requester, add_error_schemas,
    error_responses, pairs,
};
use auspex_kernel::id::JobId;
use auspex_kernel::idempotency::{Answer, Idempotency, IdempotencyParams};
use auspex_kernel::page::PageParams;
use auspex_kernel::{
    ApiError, Clock, CursorKey, FieldErrors, Scope, Subject, Timestamp, query_filters,
};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::openapi::{OpenApi, RefOr, Response as Documented};
use utoipa::{IntoResponses, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::JobsError;
use crate::types::{Form, Job, Reach, StateCount, Status};
use crate::{Config, Jobs};

pub(crate) const TAG: &str = "jobs";
/// They take long bodies.
pub(crate) const INPUTS: [&str; 1] = ["submit_job"];
/// They go on for long.
pub(crate) const STREAMS: [&str; 2] = ["watch_job", "get_job_result"];
const LIST: &str = "/v1/jobs";
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
/// Streams of events at once.
const WATCHERS_MAX: usize = 1_000;
/// Of those of one owner.
const WATCHERS_OF_ONE_MAX: usize = 20;

/// What the routes ask.
#[derive(Clone)]
pub(crate) struct Desk {
    jobs: Jobs,
    config: Config,
    clock: Clock,
    watchers: Arc<Semaphore>,
    watchers_of: Arc<Mutex<HashMap<String, usize>>>,
    looks: events::Looks,
}

impl Desk {
    pub(crate) fn new(jobs: Jobs, config: Config, clock: Clock) -> Self {
        Self {
            jobs,
            config,
            clock,
            watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
            watchers_of: Arc::default(),
            looks: events::Looks::default(),
        }
    }

    fn view(&self, job: &Job) -> JobView {
        JobView::new(job, self.config.retention())
    }
}

/// Whose jobs a caller's are: the user's whose credential it is, or the credential's own.
fn owner(requester: &Requester) -> String {
    let caller = &requester.caller;
    match &caller.user_id {
        Some(id) => Subject::User(id.clone()).to_string(),
        None => caller.subject.to_string(),
    }
}

fn reach(requester: &Requester) -> Reach {
    match requester.caller.scopes.contains(Scope::JobsOperate) {
        true => Reach::All,
        false => Reach::Own(owner(requester)),
    }
}

type Id = Result<Path<String>, PathRejection>;

/// What cannot be an id names nothing.
fn job_id(id: Id) -> Result<JobId, JobsError> {
    let text = id.map_err(|_| JobsError::Unknown)?;
    JobId::parse(&text).ok_or(JobsError::Unknown)
}

/// The values of these parameters of a query, which has no others and each once.
fn parameters<const N: usize>(
    query: Option<&str>,
    names: [&str; N],
) -> Result<[Option<String>; N], ApiError> {
    let (mut values, mut errors) = ([const { None }; N], FieldErrors::default());
    for (name, value) in pairs(query.unwrap_or_default())? {
        match names.iter().position(|known| *known == name) {
            None => errors.add(auspex_kernel::error::shown(&name), "is no parameter here"),
            Some(at) if values[at].is_some() => errors.add(name, "is given more than once"),
            Some(at) => values[at] = Some(value.into_owned()),
        }
    }
    match errors.count() {
        0 => Ok(values),
        _ => Err(ApiError::validation(errors.into_list("(query)"))),
    }
}

/// How far a job is.
#[derive(Serialize, ToSchema)]
#[schema(as = JobProgress)]
struct ProgressView {
    /// Rows that have their answer
    #[schema(example = 512)]
    done: u64,
    /// Rows of the input
    #[schema(example = 1000)]
    total: u64,
    /// Of those that are done, rows that were wrong; each has its error in its place of the result
    errors: u64,
}

impl From<&Job> for ProgressView {
    fn from(job: &Job) -> Self {
        Self {
            done: job.done,
            total: job.rows,
            errors: job.wrong,
        }
    }
}

/// Why a job has failed.
#[derive(Serialize, ToSchema)]
#[schema(as = JobError)]
struct ErrorView {
    #[schema(example = "CHUNK_FAILED", pattern = "^(CHUNK_FAILED|MODEL_REPLACED)$")]
    code: String,
    message: String,
}

/// Who is told of the end of a job.
#[derive(Serialize, ToSchema)]
#[schema(as = JobCallback)]
struct CallbackView {
    url: String,
    #[schema(pattern = "^(waiting|due|delivered|given-up)$")]
    status: &'static str,
    /// How often it was sent
    attempts: u32,
}

/// A job.
#[derive(Serialize, ToSchema)]
struct JobView {
    #[schema(example = "01JD3V9K2Q4W7XYZ")]
    id: String,
    #[schema(pattern = "^(queued|running|succeeded|failed|cancelled)$")]
    status: &'static str,
    #[schema(example = "santander")]
    model: String,
    /// The version that predicts every row, also when a newer one comes; if its package is replaced by another one, the job fails
    #[schema(example = "1")]
    model_version: String,
    progress: ProgressView,
    /// How the input was written, and the result is unless another form is asked for
    #[schema(pattern = "^(ndjson|csv)$")]
    format: &'static str,
    /// Whose it is
    #[schema(example = "key:7K3QX0M8E2V5T1RD")]
    owner: String,
    #[schema(format = DateTime)]
    created_at: String,
    /// When its first row was begun
    #[schema(format = DateTime)]
    started_at: Option<String>,
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// When it is deleted, with its input and result
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    error: Option<ErrorView>,
    callback: Option<CallbackView>,
    /// Where its result is, once it has succeeded
    result: Option<String>,
}

impl JobView {
    fn new(job: &Job, retention: Duration) -> Self {
        let error = job.error.as_ref().map(|error| ErrorView {
            code: error.code.clone(),
            message: error.message.clone(),
        });
        let callback = job.callback.as_ref().map(|callback| CallbackView {
            url: callback.url.clone(),
            status: callback.state.as_str(),
            attempts: callback.attempts,
        });
        let has_result = job.status == Status::Succeeded;
        Self {
            id: job.id.to_string(),
            status: job.status.as_str(),
            model: job.pinned.model.clone(),
            model_version: job.pinned.version.clone(),
            progress: job.into(),
            format: job.form.as_str(),
            owner: job.owner.clone(),
            created_at: job.created_at.to_rfc3339(),
            started_at: job.started_at.map(Timestamp::to_rfc3339),
            ended_at: job.ended_at.map(Timestamp::to_rfc3339),
            expires_at: job.ended_at.map(|at| (at + retention).to_rfc3339()),
            error,
            callback,
            result: has_result.then(|| format!("{LIST}/{}/result", job.id)),
        }
    }
}

type JobList = List<JobView>;

/// How many jobs are in a state.
#[derive(Serialize, ToSchema)]
#[schema(as = JobStateCount)]
struct StateCountView {
    #[schema(pattern = "^(queued|running|succeeded|failed|cancelled)$")]
    status: &'static str,
    count: u64,
    /// When the oldest of them was submitted; null where there is none
    #[schema(format = DateTime)]
    oldest_at: Option<String>,
    /// How long ago that is
    oldest_age_s: Option<u64>,
}

/// Everybody's jobs by their state.
#[derive(Serialize, ToSchema)]
#[schema(as = JobStates)]
struct StatesView {
    data: Vec<StateCountView>,
}

/// What callbacks are signed with.
#[derive(Serialize, ToSchema)]
#[schema(as = JobCallbackSecret)]
struct SecretView {
    #[schema(pattern = "^whsec_[A-Za-z0-9+/]{43}=$")]
    secret: String,
}

query_filters! {
    /// Which jobs to list.
    struct JobFilters {
        /// Those in this state
        status: Status = one_of(Status::SHOWN, Status::as_str),
        /// Those of this model
        model: String = text(1..=64),
        /// Those of this caller, as `owner` shows it
        owner: String = text(1..=256),
    }
}

struct CancelErrors;

impl IntoResponses for CancelErrors {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses(&[401, 403, 404, 409, 429, 500, 503])
    }
}

struct RetryErrors;

impl IntoResponses for RetryErrors {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses(&[401, 403, 404, 409, 422, 429, 500, 503])
    }
}

struct CountErrors;

impl IntoResponses for CountErrors {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses(&[401, 403, 429, 500, 503])
    }
}

fn routes() -> OpenApiRouter<Desk> {
    let mut router = OpenApiRouter::new()
        .routes(routes!(list_jobs, submit::submit_job))
        .routes(routes!(count_jobs))
        .routes(routes!(get_callback_secret))
        .routes(routes!(get_job, cancel_job))
        .routes(routes!(retry_job))
        .routes(routes!(outcome::get_job_result))
        .routes(routes!(events::watch_job));
    add_error_schemas(router.get_openapi_mut());
    router
}

/// The part of the OpenAPI document that describes these routes.
pub(crate) fn document() -> OpenApi {
    routes().into_openapi()
}

/// Every route of this service. `cursors` signs the pages of its list.
pub(crate) fn router(desk: Desk, idempotency: Idempotency, cursors: CursorKey) -> axum::Router {
    axum::Router::from(routes().with_state(desk))
        .layer(Extension(idempotency))
        .layer(Extension(cursors))
}

/// List jobs
///
/// The caller's own; with `jobs:operate` everybody's.
#[utoipa::path(
    get, path = "/v1/jobs", tag = TAG, params(PageParams, JobFilters),
    responses((status = 200, description = "One page of jobs, newest first", body = JobList), ListErrors),
    security(("api_key" = ["jobs:read"]), ("bearer" = ["jobs:read"]))
)]
async fn list_jobs(
    State(desk): State<Desk>,
    Extension(cursors): Extension<CursorKey>,
    requester: Requester,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (query, filters) = JobFilters::parse(&cursors, LIST, query.as_deref())?;
    let which = (filters.owner, filters.status, filters.model);
    let reach = reach(&requester);
    let found = desk.jobs.list(&reach, which, query.slice()).await?;
    let list = JobList::new(&query, found, Job::position, |job| desk.view(&job));
    Ok(list.answer(&headers))
}

/// Count everybody's jobs by their state
#[utoipa::path(
    get, path = "/v1/jobs/states", tag = TAG,
    responses((status = 200, description = "Each state, with the age of the oldest job in it", body = StatesView), CountErrors),
    security(("api_key" = ["jobs:operate"]), ("bearer" = ["jobs:operate"]))
)]
async fn count_jobs(State(desk): State<Desk>) -> Result<Json<StatesView>, ApiError> {
    let counts = desk.jobs.state_counts().await?;
    let now = desk.clock.now();
    let view = |status: &Status| {
        let found = counts.iter().find(|count| count.status == *status);
        let oldest = found.and_then(|count: &StateCount| count.oldest_at);
        StateCountView {
            status: status.as_str(),
            count: found.map_or(0, |count| count.count),
            oldest_at: oldest.map(Timestamp::to_rfc3339),
            oldest_age_s: oldest.map(|at| now.since(at).as_secs()),
        }
    };
    Ok(Json(StatesView {
        data: Status::SHOWN.iter().map(view).collect(),
    }))
}

/// Show the secret that the caller's callbacks are signed with
///
/// As receivers of Standard Webhooks take it. It is another one for each caller.
#[utoipa::path(
    get, path = "/v1/jobs/callback-secret", tag = TAG,
    responses((status = 200, description = "The secret", body = SecretView), CountErrors),
    security(("api_key" = ["jobs:write"]), ("bearer" = ["jobs:write"]))
)]
async fn get_callback_secret(State(desk): State<Desk>, requester: Requester) -> Json<SecretView> {
    let secret = desk.jobs.secrets().shown(&owner(&requester));
    Json(SecretView { secret })
}

/// Show a job
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = TAG,
    params(("id" = String, Path, description = "Id of the job")),
    responses((status = 200, description = "The job as it is now", body = JobView), ReadErrors),
    security(("api_key" = ["jobs:read"]), ("bearer" = ["jobs:read"]))
)]
async fn get_job(
    State(desk): State<Desk>,
    requester: Requester,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = desk.jobs.get(&reach(&requester), &job_id(id)?).await?;
    Ok(cacheable(&headers, JSON, &desk.view(&job)))
}

/// Cancel a job, or delete one that has ended
///
/// A job that has not ended is cancelled: its input and what was predicted of it go at once, and it is shown as cancelled. One that has ended is deleted, with
/// input and result.
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", tag = TAG,
    params(("id" = String, Path, description = "Id of the job")),
    responses((status = 204, description = "Cancelled, or deleted"), CancelErrors),
    security(("api_key" = ["jobs:write"]), ("bearer" = ["jobs:write"]))
)]
async fn cancel_job(
    State(desk): State<Desk>,
    requester: Requester,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let (reach, actor) = (reach(&requester), requester.actor());
    desk.jobs.remove(&actor, &reach, &job_id(id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Run a failed job again
///
/// What of it is done stays done; the rest has all its attempts again.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/retries", tag = TAG,
    params(("id" = String, Path, description = "Id of the job"), IdempotencyParams),
    responses((status = 202, description = "It is queued again", body = JobView), RetryErrors),
    security(("api_key" = ["jobs:operate"]), ("bearer" = ["jobs:operate"]))
)]
async fn retry_job(
    State(desk): State<Desk>,
    creation: Creation,
    id: Id,
) -> Result<Response, ApiError> {
    let (id, actor) = (job_id(id)?, creation.requester.actor());
    let work = async |receipt| Ok(desk.jobs.retry(&actor, &id, receipt).await?);
    let render = accepted(desk.config.retention());
    creation.once(b"", Answer::Stored, render, work).await
}

/// The answer for a job that has begun, or begins again.
fn accepted(retention: Duration) -> impl FnOnce(&Job) -> Response + Send {
    move |job| {
        let location = [(header::LOCATION, format!("{LIST}/{}", job.id))];
        let view = Json(JobView::new(job, retention));
        (StatusCode::ACCEPTED, location, view).into_response()
    }
}

/// The content type of a form.
fn content_type(form: Form) -> HeaderValue {
    match form {
        Form::Ndjson => NDJSON,
        Form::Csv => CSV,
    }
}
