//! Redis: what replicas share and may lose.
//!
//! One connection, on the control runtime, shared by all who call. What matters is what happens while
//! Redis is away: whoever calls is told [`Away`] at once, without waiting for a connection, and does
//! without. A call that may have been carried out is never repeated. `Keeper` looks twice a second
//! whether Redis takes changes, so that its return is noticed soon.

mod config;
mod info;
mod keeper;
mod notices;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult,
    ScriptInvocation, ServerErrorKind,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

pub use config::RedisConfig;
pub use notices::{Notice, Notices};
pub use redis::{Script, pipe};

use keeper::Keeper;

/// A handle to Redis, cheap to clone.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Inner>);

struct Inner {
    client: Client,
    prefix: String,
    timeout: Duration,
    control: Handle,
    /// The connection, while it works.
    connection: Mutex<Option<MultiplexedConnection>>,
    state: watch::Sender<State>,
    is_up: AtomicBool,
    /// Whether Redis would drop keys when its memory is full.
    may_evict: AtomicBool,
    /// Makes the keeper look now.
    look: Notify,
    metrics: Metrics,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Metrics {
    up: Gauge,
    failures: Counter,
}

/// Whether Redis serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Up,
    /// It does not.
    Down(Reason),
}

/// Why Redis does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// There is no connection.
    #[error("cannot be reached")]
    Unreachable,
    /// It has a connection and does not answer.
    #[error("no answer in time")]
    Slow,
    /// It is a replica of another one.
    #[error("takes no changes, for it is a replica; name the primary in redis.url")]
    ReadOnly,
    /// Its memory is full.
    #[error("its memory is full; raise its maxmemory")]
    Full,
    /// It drops keys to make room.
    #[error(
        "drops keys to make room; raise its maxmemory, or set its maxmemory-policy to noeviction"
    )]
    Evicting,
    /// It wants other credentials.
    #[error("refuses the user of redis.url, or what that user asks for")]
    Refused,
    /// It loads its data, or cannot write to its disk.
    #[error("answers with errors")]
    Failing,
}

impl Reason {
    fn of(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io => match error.is_timeout() {
                true => Self::Slow,
                false => Self::Unreachable,
            },
            ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => {
                Self::Refused
            }
            ErrorKind::Server(ServerErrorKind::ReadOnly) => Self::ReadOnly,
            _ => match error.code() {
                Some("OOM") => Self::Full,
                Some("READONLY") => Self::ReadOnly,
                Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Self::Refused,
                _ => Self::Failing,
            },
        }
    }

    /// For health, which shows fixed texts alone.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unreachable => "cannot be reached",
            Self::Slow => "no answer in time",
            Self::ReadOnly => "takes no changes",
            Self::Full => "its memory is full",
            Self::Evicting => "drops keys to make room",
            Self::Refused => "refuses the credentials",
            Self::Failing => "answers with errors",
        }
    }
}

/// Redis is away, or went away during a call, which may have been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Redis {0}")]
pub struct Away(pub Reason);

impl Redis {
    /// Connects, or goes on trying to: only an unusable URL is an error. Call it on the control runtime.
    ///
    /// # Errors
    /// A message for the operator, without the URL.
    pub async fn open(config: &RedisConfig) -> Result<Self, String> {
        let inner = Inner {
            client: config.client()?,
            prefix: config.prefix.clone(),
            timeout: config.timeout(),
            control: Handle::current(),
            connection: Mutex::default(),
            state: watch::Sender::new(State::Down(Reason::Unreachable)),
            is_up: AtomicBool::new(false),
            may_evict: AtomicBool::new(false),
            look: Notify::new(),
            metrics: Metrics::default(),
        };
        let redis = Self(Arc::new(inner));
        Keeper::start(&redis).await;
        Ok(redis)
    }

    /// Whether it is worth a call.
    pub fn is_up(&self) -> bool {
        self.0.is_up.load(Ordering::Relaxed)
    }

    /// Whether it serves, and why not.
    pub fn state(&self) -> State {
        *self.0.state.borrow()
    }

    /// Sees every change of [`Redis::state`] from now on.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.0.state.subscribe()
    }

    /// Whether it would drop keys when its memory is full, and so is no place for what must not be lost.
    pub fn may_evict(&self) -> bool {
        self.0.may_evict.load(Ordering::Relaxed)
    }

    /// How long a call may take.
    pub fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// The runtime of its connection.
    pub fn control(&self) -> &Handle {
        &self.0.control
    }

    /// The name of a key, or of a channel, apart from those of other programs on the same Redis.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.0.prefix)
    }

    /// Runs a script. Where Redis does not know it, as after a restart, it is told it first; that
    /// repeats nothing, for Redis has refused the call before.
    ///
    /// # Errors
    /// [`Away`]; then nobody knows whether it ran.
    pub async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Away> {
        let mut connection = self.connection()?;
        self.judge(script.invoke_async(&mut connection)).await
    }

    /// Carries out commands in one round trip.
    ///
    /// # Errors
    /// [`Away`]; then nobody knows which of them were carried out.
    pub async fn query<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Away> {
        let mut connection = self.connection()?;
        self.judge(commands.query_async(&mut connection)).await
    }

    /// For `/metrics`.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let Metrics { up, failures } = &self.0.metrics;
        let help = "Whether Redis serves what replicas share: 1 or 0";
        registry.register("redis_up", help, up.clone());
        let help = "Calls to Redis that failed";
        registry.register("redis_failures", help, failures.clone());
    }

    fn connection(&self) -> Result<MultiplexedConnection, Away> {
        match self.state() {
            State::Up => {
                let connection = self.0.connection.lock().clone();
                connection.ok_or(Away(Reason::Unreachable))
            }
            State::Down(reason) => Err(Away(reason)),
        }
    }

    async fn judge<T>(&self, call: impl Future<Output = RedisResult<T>>) -> Result<T, Away> {
        let failed = match tokio::time::timeout(self.0.timeout, call).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => Failure::of(&error),
            Err(_) => Failure::slow(),
        };
        self.0.metrics.failures.inc();
        self.set(Err(failed.clone()), false);
        self.0.look.notify_one();
        Err(Away(failed.reason))
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.0.timeout))
            .set_response_timeout(Some(self.0.timeout));
        let client = &self.0.client;
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    /// Takes note of how a look or a call went. A connection that failed is not used again: what was
    /// asked on it may still be answered.
    fn set(&self, outcome: Result<(), Failure>, is_first: bool) {
        let state = match &outcome {
            Ok(()) => State::Up,
            Err(failure) => {
                *self.0.connection.lock() = None;
                State::Down(failure.reason)
            }
        };
        self.0.is_up.store(state == State::Up, Ordering::Relaxed);
        self.0.metrics.up.set(i64::from(state == State::Up));
        let changed = self.0.state.send_if_modified(|known| {
            // Before the first look it is not known.
            let is_other = is_first || *known != state;
            *known = state;
            is_other
        });
        match outcome {
            Ok(()) if changed => tracing::info!("Redis serves"),
            Err(failure) if changed => tracing::warn!(
                reason = failure.reason.to_string(),
                error = failure.text,
                "Redis does not serve; each replica counts limits by itself"
            ),
            _ => {}
        }
    }
}

/// Why a look or a call failed, and what was said of it.
#[derive(Clone, Debug)]
struct Failure {
    reason: Reason,
    text: String,
}

impl Failure {
    fn of(error: &RedisError) -> Self {
        Self {
            reason: Reason::of(error),
            text: error.to_string(),
        }
    }

    fn slow() -> Self {
        Self {
            reason: Reason::Slow,
            text: "timed out".into(),
        }
    }
}
