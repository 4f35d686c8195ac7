//! Starts `auspex serve` in a folder of its own and ends it again.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::client::{Answer, Connection};
use auspex_kernel::clock::monotonic;

const JSON: (&str, &str) = ("Content-Type", "application/json");

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the repository")
}

/// The binary, with no settings of this machine around it.
pub(crate) fn auspex() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_auspex"));
    command
        .env_clear()
        .current_dir(repository())
        .stdin(Stdio::null());
    command
}

/// The same, held to the modes of files: root without the right to pass over them.
pub(crate) fn auspex_held_to_modes() -> Command {
    if !rustix::process::geteuid().is_root() {
        return auspex();
    }
    let mut command = Command::new("setpriv");
    command
        .arg("--bounding-set=-dac_override,-dac_read_search")
        .arg(auspex().get_program())
        .env_clear()
        .current_dir(repository())
        .stdin(Stdio::null());
    command
}

/// Takes a file or folder from whoever is held to modes: it becomes somebody else's, or else nobody's.
pub(crate) fn take_away(path: &Path) {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(65_534), None).expect("chown");
    } else {
        let none = std::os::unix::fs::PermissionsExt::from_mode(0o000);
        std::fs::set_permissions(path, none).expect("chmod");
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) key: String,
    child: Child,
    log: Option<JoinHandle<String>>,
    close_log: mpsc::Sender<()>,
}

impl Server {
    /// With defaults, in an empty folder.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With settings from the environment.
    pub(crate) fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), settings)
    }

    pub(crate) fn start_in(folder: tempfile::TempDir, settings: &[(&str, &str)]) -> Self {
        Self::start_by(auspex(), folder, settings)
    }

    /// By a command that runs the binary with the arguments it gets.
    pub(crate) fn start_by(
        mut command: Command,
        folder: tempfile::TempDir,
        settings: &[(&str, &str)],
    ) -> Self {
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        let (mut child, log, close_log) = launch(command, &folder, settings);
        let Some(address) = greeting(&mut child) else {
            let _ = child.kill();
            panic!("no greeting; the log: {}", log.join().expect("read"));
        };
        let key = std::fs::read_to_string(folder.path().join("admin.key")).expect("a key");
        Self {
            address,
            folder,
            key: key.trim().to_owned(),
            child,
            log: Some(log),
            close_log,
        }
    }

    /// A process that serves some roles at this address, and whose database has this key.
    pub(crate) fn start_roles(
        roles: &str,
        address: SocketAddr,
        key: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut command = auspex();
        command.args(["serve", "--roles", roles, "--listen", &address.to_string()]);
        let folder = tempfile::tempdir().expect("a folder");
        let (child, log, close_log) = launch(command, &folder, settings);
        let mut server = Self {
            address,
            folder,
            key: key.to_owned(),
            child,
            log: Some(log),
            close_log,
        };
        eventually(Duration::from_secs(30), "it is ready", || {
            if server.child.try_wait().expect("a child").is_some() {
                let log = server.log.take().expect("kept").join().expect("read");
                panic!("{roles} did not start: {log}");
            }
            let asked = Connection::try_open(address).and_then(|mut connection| {
                connection.raw(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n");
                connection.receive(false)
            });
            asked.is_some_and(|ready| ready.status == 200)
        });
        server
    }

    /// Another one in the same folder, once this one has ended.
    pub(crate) fn start_again(mut self, settings: &[(&str, &str)]) -> Self {
        self.child.wait().expect("a child");
        let empty = tempfile::tempdir().expect("a folder");
        let folder = std::mem::replace(&mut self.folder, empty);
        Self::start_in(folder, settings)
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.connect()
            .send("GET", path, &[("X-API-Key", &self.key)], b"")
    }

    pub(crate) fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        let headers = [("X-API-Key", self.key.as_str()), JSON];
        self.connect().send("POST", path, &headers, body.as_ref())
    }

    /// Runs a subcommand beside the server, on its folder; its standard output.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = auspex()
            .args(arguments)
            .arg("--data-dir")
            .arg(self.folder.path())
            .output()
            .expect("runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The same for one that reads standard input, whatever it makes of that.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> String {
        let file = self.folder.path().join("input");
        std::fs::write(&file, input).expect("written");
        let output = auspex()
            .args(arguments)
            .stdin(std::fs::File::open(&file).expect("opened"))
            .output()
            .expect("runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status()
            .expect("kill");
        assert!(sent.success());
    }

    /// Lets the running server open that many more files.
    pub(crate) fn limit_descriptors(&self, more: usize) {
        let id = self.child.id();
        let open = std::fs::read_dir(format!("/proc/{id}/fd")).expect("it runs");
        let open = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let open: BTreeSet<usize> = open.collect();
        // A new file gets the lowest free number, which must be below the limit.
        let mut free = (0..).filter(|number| !open.contains(number));
        let limit = free.nth(more).expect("some number");
        let set = Command::new("prlimit")
            .args(["--pid", &id.to_string(), &format!("--nofile={limit}:")])
            .status();
        assert!(set.expect("prlimit").success());
    }

    /// A figure of its memory, such as `VmRSS`.
    pub(crate) fn memory_kb(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with(name));
        let figure = line.and_then(|line| line.split_ascii_whitespace().nth(1));
        figure.expect("a figure").parse().expect("a number")
    }

    /// Stops reading the log after its next line.
    pub(crate) fn close_log(&self) {
        self.close_log.send(()).expect("the log is read");
        self.connect().send("GET", "/nowhere", &[], b"");
    }

    /// How it ends, and its log. Panics if it does not within `limit`.
    pub(crate) fn wait(mut self, limit: Duration) -> (ExitStatus, String) {
        let deadline = monotonic() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                let log = self.log.take().expect("kept").join().expect("read");
                return (status, log);
            }
            assert!(monotonic() < deadline, "still running");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it and gives its log.
    pub(crate) fn stop(self) -> String {
        self.signal("TERM");
        self.wait(Duration::from_secs(20)).1
    }

    /// The same for a server whose folder is used again.
    pub(crate) fn stop_and_keep(mut self) -> (tempfile::TempDir, String) {
        let other = tempfile::tempdir().expect("a folder");
        let folder = std::mem::replace(&mut self.folder, other);
        (folder, self.stop())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a command that serves, with its data in this folder. With the process come its log and what ends reading that.
fn launch(
    mut command: Command,
    folder: &tempfile::TempDir,
    settings: &[(&str, &str)],
) -> (Child, JoinHandle<String>, mpsc::Sender<()>) {
    let mut child = command
        .arg("--data-dir")
        .arg(folder.path())
        .envs(settings.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stderr = child.stderr.take().expect("piped");
    let (close_log, closed) = mpsc::channel::<()>();
    let log = std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        while closed.try_recv().is_err() {
            match stderr.read(&mut chunk) {
                Ok(read) if read > 0 => text.extend_from_slice(&chunk[..read]),
                _ => break,
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    (child, log, close_log)
}

/// Reads the address from what the server prints when it takes connections.
fn greeting(child: &mut Child) -> Option<SocketAddr> {
    let stdout = BufReader::new(child.stdout.take()?);
    let (found, address) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let begins = ["POST http://", "POST https://"].into_iter();
            let mut rests = begins.filter_map(|begin| line.split_once(begin));
            if let Some((_, rest)) = rests.next() {
                let _ = found.send(rest.split('/').next().and_then(|text| text.parse().ok()));
            }
        }
    });
    address.recv_timeout(Duration::from_secs(30)).ok().flatten()
}

/// Asks until `wanted` is true; how long that took.
pub(crate) fn eventually(
    limit: Duration,
    what: &str,
    mut wanted: impl FnMut() -> bool,
) -> Duration {
    let start = monotonic();
    while !wanted() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}
