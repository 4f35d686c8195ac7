//! A RabbitMQ of a test's own: on ports and in a folder of its own.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use auspex_kernel::clock::monotonic;
use rustix::process::{Pid, Signal, kill_process_group};

/// Where Debian keeps it; the one in the path starts it as another user.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
const START_MAX: Duration = Duration::from_secs(90);

/// A running one; it ends with this.
pub(crate) struct RabbitMqServer {
    child: Child,
    /// For AMQP, between nodes, of its directory of names, for AMQP over TLS.
    ports: [u16; 4],
    folder: tempfile::TempDir,
}

impl RabbitMqServer {
    /// `None` where RabbitMQ is not installed; `scripts/test` installs it.
    pub(crate) fn start() -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            return None;
        }
        let free = [(); 4].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let ports = free.each_ref().map(|one| one.local_addr().unwrap().port());
        drop(free);
        let folder = tempfile::tempdir().unwrap();
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        );
        std::fs::write(&certificate, certified.cert.pem()).unwrap();
        std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
        let settings = format!(
            "listeners.tcp.local = 127.0.0.1:{}\nlisteners.ssl.local = 127.0.0.1:{}\n\
             ssl_options.certfile = {}\nssl_options.keyfile = {}\n",
            ports[0],
            ports[3],
            certificate.display(),
            key.display(),
        );
        std::fs::write(folder.path().join("settings.conf"), settings).unwrap();
        let child = launch(ports, folder.path());
        let server = Self {
            child,
            ports,
            folder,
        };
        server.wait_until_ready();
        Some(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.ports[0])
    }

    pub(crate) fn secured_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}", self.ports[3])
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// From now on queues hold so many messages.
    pub(crate) fn limit_queues(&self, messages: usize) {
        let limit = format!(r#"{{"max-length": {messages}}}"#);
        let mut command = as_node(CONTROL, self.ports, self.folder.path());
        command.args(["set_policy", "limit", ".*", &limit]);
        let done = command.stdout(Stdio::null()).status().unwrap();
        assert!(done.success());
    }

    /// Ends it without warning.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    /// Starts it at the same address, with what was safe in it.
    pub(crate) fn start_again(&mut self) {
        self.child = launch(self.ports, self.folder.path());
        self.wait_until_ready();
    }

    /// It keeps its connections and does not answer any more.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        // The program is a script that starts another one.
        kill_process_group(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait_until_ready(&self) {
        let begun = monotonic();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports[0])).is_err() {
            let log = std::fs::read_to_string(self.folder.path().join("log"));
            assert!(begun.elapsed() < START_MAX, "it does not start: {log:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for RabbitMqServer {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
        // Erlang's directory of names goes on without it, and does not end before it has noticed.
        for _ in 0..40 {
            let ended = Command::new("epmd")
                .args(["-port", &self.ports[2].to_string(), "-kill"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if ended.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn launch(ports: [u16; 4], folder: &Path) -> Child {
    as_node(PROGRAM, ports, folder)
        .env("RABBITMQ_CONFIG_FILE", folder.join("settings"))
        .env("RABBITMQ_MNESIA_BASE", folder)
        .env("RABBITMQ_LOG_BASE", folder)
        .env("RABBITMQ_LOGS", folder.join("log"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
        .env(
            "RABBITMQ_SERVER_START_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1}",
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap()
}

/// A program of RabbitMQ that belongs to this one.
fn as_node(program: &str, [port, distribution, names, _]: [u16; 4], folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("HOME", folder)
        .env("RABBITMQ_NODENAME", format!("auspex{port}@localhost"))
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("ERL_EPMD_PORT", names.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1");
    command
}
