//! `auspex serve`: from the settings to a running server, and from SIGTERM to a clean end.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use auspex_identity::{Identity, Secret};
use auspex_inference::Inference;
use auspex_kernel::db::{Db, make_private_folder};
use auspex_kernel::{Clock, CursorKey, secrets};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Failure, Outcome, control_runtime, open_identity, print};
use crate::app::{App, Parts};
use crate::config::{self, Config};
use crate::connection::{Bounds, told};
use crate::listener::{self, Shared, Workers};
use crate::logs;

const KEY_FILE: &str = "admin.key";
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Descriptors beside those of connections: database, log, listener, runtime.
const SPARE_DESCRIPTORS: u64 = 256;

pub(super) fn run(config: &Config, migrate: bool) -> Outcome {
    logs::start(&config.telemetry)?;
    raise_descriptor_limit(config.server.connections_max);
    let _lock = lock(&config.server.data_dir)?;
    let control = control_runtime()?;
    let (app, listener, storage) = control.block_on(start(config, migrate))?;
    let App {
        edge,
        health,
        metrics,
    } = app;
    let edge = Arc::new(edge);
    let shared = Shared {
        edge: edge.clone(),
        bounds: Bounds::new(&config.server),
        connections_max: config.server.connections_max,
        open: metrics.connections(),
    };
    let workers = Workers::start(worker_count(config.server.workers), &shared)?;
    control.block_on(async {
        let mut stop = signals()?;
        let until = async {
            told(&mut stop).await;
            health.stop();
        };
        workers.accept(listener, &shared, until).await;
        Ok::<(), Failure>(())
    })?;

    tracing::info!("stopping: no new connections, requests in flight go on");
    let cut = workers.drain(config::ms(config.server.drain_timeout_ms), &shared.open);
    if cut > 0 {
        tracing::warn!(
            connections = cut,
            "not done in time; raise server.drain_timeout_ms"
        );
    }
    edge.observers.flush();
    control.block_on(storage.close());
    control.shutdown_timeout(Duration::from_secs(2));
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// The database and the task that follows it.
struct Storage {
    db: Db,
    stop: watch::Sender<bool>,
    following: JoinHandle<()>,
}

impl Storage {
    fn follow(db: &Db, identity: Arc<Identity>) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let following = tokio::spawn(identity.watch(async move { told(&mut stopped).await }));
        Self {
            db: db.clone(),
            stop,
            following,
        }
    }

    /// Leaves one file behind: SQLite moves its log into the database when the last connection goes.
    async fn close(self) {
        let _ = self.stop.send(true);
        let closing = async {
            let _ = self.following.await;
            self.db.close().await
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::warn!("the database did not close in time; what it confirmed is safe");
        }
    }
}

/// Everything that can fail, before the first connection is taken.
async fn start(config: &Config, migrate: bool) -> Result<(App, TcpListener, Storage), Failure> {
    let listener = listener::bind(config.server.listen)?;
    let address = listener.local_addr()?;
    let mut config = config.clone();
    config.server.listen = address;
    let clock = Clock::system();
    let inference = Inference::load(&config.inference.models, &config.inference)?;
    let (db, identity) = open_identity(&config, &clock, migrate).await?;
    let data_dir = config.server.data_dir.clone();
    let keep = move |secret: &Secret| write_key(&data_dir, secret);
    let first_key = identity.bootstrap(keep).await?.map(|new| new.secret);
    let cursors = CursorKey(secrets::load_or_create(&db, "cursors").await?);
    identity.tend_signing_keys().await?;
    let storage = Storage::follow(&db, identity.clone());
    let parts = Parts {
        db,
        identity,
        inference: inference.clone(),
        cursors,
        clock,
    };
    let app = App::new(&config, parts)?;
    greet(&config, &inference, first_key.as_ref())?;
    Ok((app, listener, storage))
}

fn worker_count(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

/// The soft limit of open files is often 1,024, far below the cap on connections.
fn raise_descriptor_limit(connections_max: usize) {
    let wanted = connections_max as u64 + SPARE_DESCRIPTORS;
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

/// One server a data folder: two would both believe to be the only writer.
fn lock(data_dir: &Path) -> Result<File, Failure> {
    let shown = data_dir.display();
    make_private_folder(data_dir).map_err(|e| {
        format!("cannot make the data folder {shown}: {e}; name another with --data-dir")
    })?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(data_dir.join("serve.lock"))
        .map_err(|e| {
            format!("cannot write to the data folder {shown}: {e}; name another with --data-dir")
        })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::from(format!(
            "another server uses the data folder {shown}; stop it, or name another with --data-dir"
        ))),
        Err(TryLockError::Error(error)) => Err(format!("cannot lock {shown}: {error}").into()),
    }
}

fn write_key(data_dir: &Path, secret: &Secret) -> std::io::Result<()> {
    let path = data_dir.join(KEY_FILE);
    let write = || {
        // A key file of an earlier database opens nothing any more, and its mode may be anything.
        let _ = std::fs::remove_file(&path);
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        writeln!(file, "{}", secret.expose())?;
        file.sync_all()
    };
    write().map_err(|error| {
        let text = format!("cannot write the first key to {}: {error}", path.display());
        std::io::Error::new(error.kind(), text)
    })
}

/// Tells where everything is. The first key itself is shown to a terminal only.
fn greet(
    config: &Config,
    inference: &Inference,
    first_key: Option<&Secret>,
) -> Result<(), Failure> {
    let url = config.public_url();
    let names: Vec<String> = inference
        .models()
        .iter()
        .map(|model| model.name().to_owned())
        .collect();
    let key_file = config.server.data_dir.join(KEY_FILE);
    let mut text = format!(
        "Auspex {} serves {}\n  API   POST {url}/predict   and {url}/v1/models/{{model}}/predict\n",
        env!("CARGO_PKG_VERSION"),
        names.join(", "),
    );
    if config.server.docs {
        text.push_str(&format!("  Docs  {url}/docs\n"));
    }
    let shown = key_file.display();
    match first_key {
        Some(secret) if std::io::stdout().is_terminal() => {
            text.push_str(&format!(
                "  Key   {}   (kept in {shown})\n",
                secret.expose()
            ));
        }
        _ if key_file.is_file() => text.push_str(&format!("  Key   in {shown}\n")),
        _ => text.push_str("  Key   auspex keys create --name NAME --scope predict\n"),
    }
    tracing::info!(%url, models = names.join(","), "serving");
    print(&text).map(|_| ())
}

/// Turns true at SIGTERM or SIGINT. A second signal ends the process at once.
fn signals() -> std::io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        for _ in 0..2 {
            let signalled = tokio::select! {
                signalled = terminate.recv() => signalled,
                signalled = interrupt.recv() => signalled,
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
