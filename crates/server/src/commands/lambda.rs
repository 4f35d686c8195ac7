//! `auspex lambda`: answers the events of AWS Lambda as `auspex serve` answers requests, and listens nowhere.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use auspex_kernel::clock::monotonic;
use auspex_kernel::config::ConfigError;
use auspex_kernel::db::sqlite_file;
use auspex_kernel::{ApiError, RequestId};
use axum::body::Body;
use futures_util::future::join_all;
use http::{StatusCode, header};
use http_body_util::BodyExt as _;

use super::databases::IfMissing;
use super::serve::{Started, prepare, start};
use super::{Failure, Outcome};
use crate::config::{self, Config};
use crate::lambda::event::Event;
use crate::lambda::{Invocation, RuntimeApi};
use crate::roles;
use crate::settings::Loaded;

/// Where Lambda says its runtime API is.
const API: &str = "AWS_LAMBDA_RUNTIME_API";
/// Lambda takes no longer answer.
const ANSWER_BYTES_MAX: usize = 6 << 20;
/// Between two events the process may stand still: after this long it asks what has changed.
const CATCH_UP_AFTER: Duration = Duration::from_millis(250);
/// Where the database does not answer for so long, or for half the time of the event, what is known stays in force.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);
const ONLY_JOBS: &str =
    "is [\"jobs\"], which a function does not serve; name another role, or use `auspex serve`";
const NO_MASTER_KEY: &str = "is not set, and a function keeps no files: the key that it would make is lost with it, and all texts with that; set \
     AUSPEX__DIALOGUES__MASTER_KEY, or leave the role dialogues out";
/// What is left of the time for an event when its answer is handed over.
const RESERVE: Duration = Duration::from_millis(100);

pub(super) fn run(mut loaded: Loaded) -> Outcome {
    let address = std::env::var(API).map_err(|_| {
        format!("{API} is not set: `auspex lambda` is started by AWS Lambda; elsewhere use `auspex serve`")
    })?;
    let events = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let api = events.block_on(async { RuntimeApi::new(&address) })?;
    // What it had begun would stand still with the process, and others would wait for it.
    roles::leave(&mut loaded.config, "jobs");
    let prepared = match wrong_for_a_function(&loaded.config) {
        Some(error) => Err(Failure::of_settings(&error)),
        None => prepare(&mut loaded),
    };
    let started = prepared.and_then(|(lock, control)| {
        let started = control.block_on(start(&loaded.config, true, IfMissing::MakeTheFirst))?;
        Ok((lock, control, started))
    });
    let (_lock, control, started) = match started {
        Ok(started) => started,
        Err(failure) => {
            // The exit code tells the same, if it is not taken.
            let _ = events.block_on(api.fail(None, &failure.message));
            return Err(failure);
        }
    };
    if loaded.config.server.public_url.is_empty() {
        tracing::warn!(
            "server.public_url is not set, so links and tokens name an address of this machine; set it to the URL of the function"
        );
    }
    tracing::info!(database = started.db.name(), "serving");
    events
        .block_on(answer_events(&api, &started))
        .map_err(|error| format!("{API} is {address}, where no runtime API answers: {error}"))?;
    started.end(control, config::ms(loaded.config.server.drain_timeout_ms));
    Ok(ExitCode::SUCCESS)
}

/// What a function cannot be started with.
fn wrong_for_a_function(config: &Config) -> Option<ConfigError> {
    if config.server.roles.is_empty() {
        return Some(ConfigError::wrong("server.roles", ONLY_JOBS));
    }
    let file = auspex_dialogues::master_key_file(&config.dialogues, &config.server.data_dir);
    let is_shared = sqlite_file(&config.storage_url()).is_none();
    let is_made_here = file.is_some_and(|file| !file.exists());
    if roles::are_served(config, "dialogues") && is_shared && is_made_here {
        return Some(ConfigError::wrong("dialogues.master_key", NO_MASTER_KEY));
    }
    None
}

/// Answers one event after the other until it is asked to stop.
async fn answer_events(api: &RuntimeApi, started: &Started) -> reqwest::Result<()> {
    api.register().await?;
    let mut asked_to_stop = started.asked_to_stop.clone();
    let edge = &started.app.edge;
    let clock = &edge.clock;
    let mut last = clock.now();
    loop {
        let invocation = tokio::select! {
            biased;
            () = asked_to_stop.stop_requested() => return Ok(()),
            invocation = api.next() => invocation?,
        };
        // Of a process that stands still, the wall clock alone goes on.
        let now = clock.now();
        if now < last || now.since(last) >= CATCH_UP_AFTER {
            let services = started.services.iter();
            let all = join_all(services.map(|service| service.clone().catch_up()));
            let all = edge.control.run(all);
            let longest = CATCH_UP_MAX.min(invocation.deadline.since(now) / 2);
            let _ = tokio::time::timeout(longest, all).await;
        }
        let answered = answer(started, &invocation).await;
        // Whoever has the answer may let the process stand still.
        last = clock.now();
        let handed_over = match answered {
            Ok(answer) => api.respond(&invocation, answer).await,
            Err(reason) => {
                tracing::error!(reason, "an event has no answer");
                api.fail(Some(&invocation), &reason).await
            }
        };
        if let Err(error) = handed_over {
            tracing::error!(%error, "Lambda did not take an answer");
        }
        edge.observers.flush();
    }
}

/// The answer to an event, or why there is none.
async fn answer(started: &Started, invocation: &Invocation) -> Result<Vec<u8>, String> {
    let (request, source, form) = Event::read(&invocation.event)?.into_request()?;
    let edge = &started.app.edge;
    let left = invocation.deadline.since(edge.clock.now());
    let until = monotonic() + left.saturating_sub(RESERVE);
    let late = || "no answer within the timeout of the function; raise it".to_owned();
    let answering = edge.handle(request, source);
    let answered = tokio::time::timeout_at(until.into(), answering).await;
    let (head, body) = answered.map_err(|_| late())?.into_parts();
    let (body, is_whole) = read(body, until).await.map_err(|error| error.to_string())?;
    let is_stream = head
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if !is_whole && !is_stream {
        return Err(late());
    }
    let id = head.headers.get("x-request-id");
    let id = id.and_then(RequestId::from_client);
    let answer = form.write(head, body);
    if answer.len() <= ANSWER_BYTES_MAX {
        return Ok(answer);
    }
    let refusal = ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "ANSWER_TOO_LONG",
        "a function answers up to 6 MB; ask for a part by limit or Range, or ask a server",
    );
    let refusal = refusal.render(&id.unwrap_or_else(RequestId::generate));
    let (head, body) = refusal.into_parts();
    let read = read(body, until).await.map_err(|error| error.to_string())?;
    Ok(form.write(head, read.0))
}

/// A body as far as it comes in time and is not too long, and whether that is all: some go on without end.
async fn read(mut body: Body, until: Instant) -> Result<(Vec<u8>, bool), axum::Error> {
    let mut read = Vec::new();
    while read.len() <= ANSWER_BYTES_MAX {
        match tokio::time::timeout_at(until.into(), body.frame()).await {
            Ok(Some(frame)) => {
                if let Ok(data) = frame?.into_data() {
                    read.extend_from_slice(&data);
                }
            }
            Ok(None) => break,
            Err(_) => return Ok((read, false)),
        }
    }
    Ok((read, true))
}
