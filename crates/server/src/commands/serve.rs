//! `auspex serve`: from the settings to a running server, and from SIGTERM to a clean end.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use auspex_inference::InferenceError;
use auspex_kernel::apart::Apart;
use auspex_kernel::clock::monotonic;
use auspex_kernel::config::Reloads;
use auspex_kernel::db::{Db, make_private_folder};
use auspex_kernel::files::{Obstacle, make_private, what_is_no_file};
use auspex_kernel::quota::QuotaKey;
use auspex_kernel::redis::Redis;
use auspex_kernel::service::{Context, Greeting, Publisher, StopSignal};
use auspex_kernel::{Clock, CursorKey, Random, secrets};
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::databases::{self, IfMissing};
use super::{Failure, Outcome, control_runtime, print};
use crate::app::{App, Parts};
use crate::config::{self, Config};
use crate::connection::Bounds;
use crate::listener::{self, Shared, Workers};
use crate::memory;
use crate::overview::setting_warnings;
use crate::reload::{self, Reload};
use crate::services::{Background, Services};
use crate::settings::{Loaded, Overrides};
use crate::telemetry;
use crate::tls::Tls;

const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn run(
    mut loaded: Loaded,
    overrides: Overrides,
    migrate: bool,
    if_missing: IfMissing,
) -> Outcome {
    let (_lock, control) = prepare(&mut loaded)?;
    let config = &loaded.config;
    raise_descriptor_limit(config.descriptors_wanted());
    let (hangups, listener, started) = control.block_on(async {
        let hangups = reload::hangups()?;
        let listener = listener::bind(config.server.listen)?;
        let mut config = config.clone();
        config.server.listen = listener.local_addr()?;
        let started = start(&config, migrate, if_missing).await?;
        started.greet(&config);
        Ok::<_, Failure>((hangups, listener.into_std()?, started))
    })?;
    control.spawn(memory::give_back());
    let app = &started.app;
    let shared = Shared {
        edge: app.edge.clone(),
        bounds: Bounds::new(&config.server),
        tls: started.tls.as_ref().map(|tls| tls.acceptor()),
        connections_max: config.server.connections_max,
        open: app.metrics.connections(),
    };
    let workers = Workers::start(worker_count(config.server.workers), &shared)?;
    let (services, reloads) = (started.services.clone(), started.reloads.clone());
    let reload = Reload::new(&loaded, overrides, services, reloads, hangups);
    control.spawn(reload.watch(started.stopped.clone()));
    if let Some(tls) = &started.tls {
        control.spawn(tls.clone().watch(started.stopped.clone()));
    }
    let mut asked_to_stop = started.asked_to_stop.clone();
    let until = async {
        asked_to_stop.stop_requested().await;
        app.health.stop();
        let delay = config::ms(config.server.shutdown_delay_ms);
        if !delay.is_zero() {
            tracing::info!("stopping soon: not ready, and connections are still accepted");
            tokio::time::sleep(delay).await;
        }
    };
    // A runtime of its own: however busy the control runtime is, connections are accepted.
    let accepting = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    accepting.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        workers.accept(listener, &shared, until).await;
        Ok::<(), std::io::Error>(())
    })?;

    tracing::info!("stopping: no new connections, requests in flight go on");
    started.stop.send_replace(true);
    let deadline = monotonic() + config::ms(config.server.drain_timeout_ms);
    let cut = workers.drain(config::ms(config.server.drain_timeout_ms), &shared.open);
    if cut > 0 {
        tracing::warn!(
            connections = cut,
            "not done in time; raise server.drain_timeout_ms"
        );
    }
    started.end(control, deadline.saturating_duration_since(monotonic()));
    Ok(ExitCode::SUCCESS)
}

/// What comes before anything is opened: the log, what settings name on this machine, the lock of the data folder.
pub(super) fn prepare(loaded: &mut Loaded) -> Result<(File, Runtime), Failure> {
    loaded.config.server.name_instance(&Random::system())?;
    let config = &loaded.config;
    telemetry::start(&config.telemetry, &config.server.instance)?;
    for variable in &loaded.ignored {
        tracing::warn!(%variable, "a variable is no setting and changes nothing; `auspex config defaults` lists all settings");
    }
    loaded
        .check_surroundings()
        .map_err(|error| Failure::of_settings(&error))?;
    Ok((lock(&config.server.data_dir)?, control_runtime()?))
}

/// What is running before the first request is taken.
pub(super) struct Started {
    pub(super) app: Arc<App>,
    pub(super) services: Services,
    pub(super) asked_to_stop: StopSignal,
    background: Background,
    pub(super) db: Db,
    apart: Vec<Apart>,
    tls: Option<Arc<Tls>>,
    reloads: Reloads,
    /// Stops connections and streams.
    stop: watch::Sender<bool>,
    stopped: StopSignal,
}

impl Started {
    /// Prints where everything is.
    fn greet(&self, config: &Config) {
        let url = config.public_url();
        let mut greeting = Greeting {
            is_terminal: std::io::stdout().is_terminal(),
            ..Greeting::default()
        };
        let services = &self.services;
        services.served().for_each(|s| s.greet(&mut greeting));
        if greeting.serves.is_empty() {
            let roles = services
                .served_names()
                .map(|name| format!("the role {name}"));
            greeting.serves.extend(roles);
        }
        if config.server.docs {
            greeting.lines.push(("Docs", format!("{url}/docs")));
        }
        let serves = greeting.serves.join(", ");
        let mut text = format!("Auspex {} serves {serves}\n", env!("CARGO_PKG_VERSION"));
        for (label, line) in greeting.lines {
            text.push_str(&format!("  {label:<5} {line}\n"));
        }
        tracing::info!(%url, models = serves, database = self.db.name(), "serving");
        // Nobody may read it, and that is no reason not to serve.
        if let Err(failure) = print(&text) {
            tracing::warn!(reason = failure.message, "the greeting is lost");
        }
    }

    /// Closes everything once no request is taken any more. What no client waits for may go on until `limit`.
    pub(super) fn end(self, control: Runtime, limit: Duration) {
        self.stop.send_replace(true);
        if !control.block_on(self.db.control().ended(limit)) {
            tracing::warn!("some work was cut off; raise server.drain_timeout_ms");
        }
        self.app.edge.observers.flush();
        control.block_on(close(self.background, &self.db, &self.apart));
        control.shutdown_timeout(Duration::from_secs(2));
        tracing::info!("stopped");
    }
}

/// Everything that can fail, before the first request is taken.
pub(super) async fn start(
    config: &Config,
    migrate: bool,
    if_missing: IfMissing,
) -> Result<Started, Failure> {
    survive_file_size_limit()?;
    let if_missing = match migrate {
        true => if_missing,
        false => IfMissing::Fail,
    };
    let db = databases::open(config, if_missing).await?;
    if migrate {
        databases::bring_up_to_date(config, &db, if_missing).await?;
    } else {
        databases::check_up_to_date(config, &db).await?;
    }
    let (clock, random) = (Clock::system(), Random::system());
    let db = databases::with_standby(config, db)?;
    let of_services = databases::open_of_services(config, &db).await?;
    let tls = Tls::open(&config.server.tls, clock.clone())?;
    // A server that can store nothing is found out now, not by the first change.
    for db in of_services.iter().map(|own| &own.db).chain([&db]) {
        db.prove_writes(clock.now()).await?;
    }
    let cursors = secrets::load_or_create(&db, &clock, &random, "cursors");
    let cursors = CursorKey(cursors.await?);
    for db in of_services.iter().map(|own| &own.db).chain([&db]) {
        databases::check_standby(db).await?;
    }
    let redis = match config.redis.is_on() {
        true => {
            let key = secrets::load_or_create(&db, &clock, &random, "quotas").await?;
            Some((Redis::open(&config.redis).await?, QuotaKey(key)))
        }
        false => None,
    };
    let (publisher, queue) = Publisher::new();
    let reloads = Reloads::new(clock.now());
    let context = Context {
        db: db.clone(),
        clock: clock.clone(),
        random,
        cursors,
        public_url: config.public_url(),
        data_dir: config.server.data_dir.clone(),
        control: db.control().clone(),
        publisher,
        reloads: reloads.clone(),
        redis: redis.as_ref().map(|(redis, _)| redis.clone()),
        voucher: None,
        predictor: None,
    };
    let opening = Services::open(config, &context, &of_services);
    let services = opening.await.map_err(|error| {
        if error.is::<InferenceError>() {
            // It says what to do, and the data folder has no part in it.
            return error.to_string();
        }
        format!("{error}; `auspex doctor` checks the data folder and the database")
    })?;
    if migrate {
        databases::note_apart(config, &db).await?;
    }
    for service in databases::left_behind(config, &db).await? {
        tracing::warn!(
            service,
            database = db.name(),
            "a service has a database for itself, and has left rows behind where nothing reaches them; docs/OPERATIONS.md says how to move or delete them"
        );
    }
    let (stop, stopped) = StopSignal::new();
    let app = Arc::new(App::new(Parts {
        config: config.clone(),
        services: services.clone(),
        db: db.clone(),
        of_services: of_services.clone(),
        clock: context.clock,
        cursors: context.cursors,
        stop: stopped.clone(),
        reloads: reloads.clone(),
        tls: tls.clone(),
        redis,
    })?);
    let rebuilt = app.clone();
    let apart = of_services.iter().map(|own| Apart {
        own: own.db.clone(),
        main: db.clone(),
        clock: clock.clone(),
    });
    let apart: Vec<_> = apart.collect();
    let background = services.start(queue, move || rebuilt.rebuild_routes(), apart.clone());
    for warning in setting_warnings(config) {
        tracing::warn!(code = warning.code, "{}", warning.message);
    }
    // Whoever has read that it serves may ask it to stop.
    let asked_to_stop = signals()?;
    Ok(Started {
        app,
        services,
        asked_to_stop,
        background,
        db,
        apart,
        tls,
        reloads,
        stop,
        stopped,
    })
}

/// SQLite moves its log into the database when the last connection closes: one file is left behind.
async fn close(background: Background, db: &Db, apart: &[Apart]) {
    background.stop(CLOSE_TIMEOUT).await;
    let closing = async {
        // What was recorded last; what fails now is carried after the next start.
        join_all(apart.iter().map(Apart::carry_once)).await;
        join_all(apart.iter().map(|apart| apart.own.close())).await;
        db.close().await;
    };
    if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
        tracing::warn!("the database did not close in time; what it confirmed is safe");
    }
}

fn worker_count(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

/// The soft limit of open files is often 1,024, far below the cap on connections.
fn raise_descriptor_limit(wanted: u64) {
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit >= wanted => {}
        Ok(limit) => tracing::warn!(
            limit,
            wanted,
            "the limit of open files is below server.connections_max; raise it with ulimit -n"
        ),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}

/// One server per data folder: two would both believe that they are the only writer.
pub(super) fn lock(data_dir: &Path) -> Result<File, Failure> {
    let shown = data_dir.display();
    make_private_folder(data_dir).map_err(|e| {
        format!("cannot make the data folder {shown}: {e}; name another with --data-dir")
    })?;
    let path = data_dir.join("serve.lock");
    // Opening a pipe would wait for its other end.
    let there = std::fs::metadata(&path).ok();
    if let Some(found) = there.and_then(|metadata| what_is_no_file(&metadata)) {
        let text = format!("{} is {found}, not a file; remove it", path.display());
        return Err(format!("cannot lock the data folder {shown}: {text}").into());
    }
    make_private(&path);
    let file = OpenOptions::new().write(true).open(&path).map_err(|e| {
        let reason = Obstacle::to_writing(&path).map_or(e.to_string(), |found| found.to_string());
        format!("cannot lock the data folder {shown}: {reason}; or name another with --data-dir")
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::from(format!(
            "another server uses the data folder {shown}; stop it, or name another with --data-dir"
        ))),
        Err(TryLockError::Error(error)) => Err(format!("cannot lock {shown}: {error}").into()),
    }
}

/// A write beyond a limit on the size of files is an error of that write, not the end of the program.
fn survive_file_size_limit() -> std::io::Result<()> {
    /// SIGXFSZ, by its number on Linux and macOS.
    const FILE_SIZE_EXCEEDED: i32 = 25;
    // The handler stays when what it returns is dropped.
    signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED)).map(drop)
}

/// Requests a stop at SIGTERM or SIGINT, or when the terminal is closed. A second signal ends the process at once.
fn signals() -> std::io::Result<StopSignal> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Without a terminal it says that the configuration has changed; see `reload`.
    let mut hangup = match std::io::stdin().is_terminal() {
        true => Some(signal(SignalKind::hangup())?),
        false => None,
    };
    let (stop, stopped) = StopSignal::new();
    tokio::spawn(async move {
        for _ in 0..2 {
            let signalled = tokio::select! {
                signalled = terminate.recv() => signalled,
                signalled = interrupt.recv() => signalled,
                signalled = async { hangup.as_mut()?.recv().await }, if hangup.is_some() => signalled,
            };
            if signalled.is_none() {
                return;
            }
            if *stop.borrow() {
                std::process::exit(130);
            }
            stop.send_replace(true);
        }
    });
    Ok(stopped)
}
