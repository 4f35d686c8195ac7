//! The progress of a job as it goes on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::http::{Requester, error_responses};
use auspex_kernel::{ApiError, id::JobId};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use utoipa::IntoResponses;
use utoipa::openapi::{RefOr, Response as Documented};

use super::outcome::{Pieces, pieces};
use super::{Desk, Id, JobView, TAG, WATCHERS_OF_ONE_MAX, job_id, owner, reach};
use crate::Jobs;
use crate::error::JobsError;
use crate::types::{Job, Reach};

/// From one look at the job to the next.
const ROUND: Duration = Duration::from_millis(500);
/// A stream without news says so.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// The id of the last event, by which a client that connects again shows that it has seen the end.
const END: &str = "end";
const RETRY_S: u64 = 5;

struct WatchErrors;

impl IntoResponses for WatchErrors {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses(&[401, 403, 404, 429, 500, 503])
    }
}

/// Watch a job
///
/// Server-sent events: `progress` now and whenever the job has gone on, and at last `ended`, after which the stream ends. The data of both is what
/// `GET /v1/jobs/{id}` answers. Progress never goes back. A client that connects again after the end gets 204.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", tag = TAG,
    params(
        ("id" = String, Path, description = "Id of the job"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the event that came last"),
    ),
    responses(
        (status = 200, description = "Events as they happen", body = String, content_type = "text/event-stream"),
        (status = 204, description = "The end was seen before"),
        WatchErrors
    ),
    security(("api_key" = ["jobs:read"]), ("bearer" = ["jobs:read"]))
)]
pub(super) async fn watch_job(
    State(desk): State<Desk>,
    requester: Requester,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (id, reach) = (job_id(id)?, reach(&requester));
    let job = desk.jobs.get(&reach, &id).await?;
    let last = headers.get("last-event-id");
    if job.status.has_ended() && last.is_some_and(|last| last == END) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let watcher = desk.watcher(owner(&requester)).ok_or_else(|| {
        ApiError::unavailable(
            "too many jobs are watched already; ask for this one now and then",
            RETRY_S,
        )
    })?;
    let (pieces, body) = pieces();
    tokio::spawn(async move {
        let watching = desk.watch(job, &reach, &pieces);
        tokio::select! {
            watched = watching => {
                if let Err(error) = watched {
                    let _ = pieces.send(Err(error)).await;
                }
            }
            () = pieces.closed() => {}
        }
        drop(watcher);
    });
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// A place among those who watch.
struct Watcher {
    owner: String,
    watchers_of: Arc<Mutex<HashMap<String, usize>>>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut watchers_of = self.watchers_of.lock();
        if let Some(count) = watchers_of.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                watchers_of.remove(&self.owner);
            }
        }
    }
}

impl Desk {
    /// `None`: all places are taken, or all that this owner may have.
    fn watcher(&self, owner: String) -> Option<Watcher> {
        let place = self.watchers.clone().try_acquire_owned().ok()?;
        let mut watchers_of = self.watchers_of.lock();
        let count = watchers_of.entry(owner.clone()).or_default();
        if *count >= WATCHERS_OF_ONE_MAX {
            return None;
        }
        *count += 1;
        Some(Watcher {
            owner,
            watchers_of: self.watchers_of.clone(),
            _place: place,
        })
    }

    /// Sends what is new of a job until it has ended, or nobody listens.
    async fn watch(&self, mut job: Job, reach: &Reach, pieces: &Pieces) -> Result<(), JobsError> {
        let mut seen = self.looks.join(&self.jobs, &job);
        if pieces
            .send(Ok(event(&self.view(&job), &job)))
            .await
            .is_err()
        {
            return Ok(());
        }
        let mut said_at = Instant::now();
        while !job.status.has_ended() {
            let quiet_until = said_at + SILENCE_MAX;
            let news = match tokio::time::timeout_at(quiet_until, seen.changed()).await {
                Err(_) => Bytes::from_static(b": nothing new\n\n"),
                Ok(changed) => {
                    let now = match changed {
                        Ok(()) => seen.borrow_and_update().clone(),
                        // It could not be looked at; what is wrong is seen by looking.
                        Err(_) => {
                            let now = self.jobs.get(reach, &job.id).await?;
                            seen = self.looks.join(&self.jobs, &now);
                            now
                        }
                    };
                    let is_news = now.status != job.status || now.done > job.done;
                    // A database that lags behind shows what was before.
                    if !is_news || now.done < job.done {
                        continue;
                    }
                    job = now;
                    event(&self.view(&job), &job)
                }
            };
            said_at = Instant::now();
            if pieces.send(Ok(news)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Jobs that are watched. However many watch one, the database is asked once a round.
#[derive(Clone, Default)]
pub(super) struct Looks(Arc<Mutex<HashMap<JobId, watch::Sender<Job>>>>);

impl Looks {
    /// What is seen of a job from now on. It closes when the job cannot be looked at.
    fn join(&self, jobs: &Jobs, job: &Job) -> watch::Receiver<Job> {
        let mut looks = self.0.lock();
        if let Some(sender) = looks.get(&job.id) {
            return sender.subscribe();
        }
        let (sender, seen) = watch::channel(job.clone());
        looks.insert(job.id.clone(), sender);
        let (looks, jobs, id) = (self.clone(), jobs.clone(), job.id.clone());
        tokio::spawn(async move { looks.look(&jobs, &id).await });
        seen
    }

    /// Looks at a job until it has ended, or nobody watches.
    async fn look(&self, jobs: &Jobs, id: &JobId) {
        loop {
            tokio::time::sleep(ROUND).await;
            let job = jobs.get(&Reach::All, id).await;
            // Whoever joins does so under the same lock.
            let mut looks = self.0.lock();
            let is_over = match (looks.get(id), job) {
                (Some(sender), Ok(job)) => {
                    let has_ended = job.status.has_ended();
                    sender.send(job).is_err() || has_ended
                }
                _ => true,
            };
            if is_over {
                looks.remove(id);
                return;
            }
        }
    }
}

fn event(view: &JobView, job: &Job) -> Bytes {
    // Views are text and numbers, and JSON has no line ends.
    let data = serde_json::to_string(view).unwrap_or_default();
    match job.status.has_ended() {
        true => format!("id: {END}\nevent: ended\ndata: {data}\n\n").into(),
        false => format!("id: {}\nevent: progress\ndata: {data}\n\n", job.done).into(),
    }
}
