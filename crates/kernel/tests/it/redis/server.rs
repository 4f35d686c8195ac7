//! A Redis of a test's own: on a port and in a folder of its own, without persistence. The tests of other
//! crates use this file too.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Attempts to find a port, and looks whether it answers.
const ATTEMPTS: u32 = 5;
const LOOKS: u32 = 500;

/// A running one; it ends with this.
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl RedisServer {
    /// `None` where Redis is not installed; `scripts/test` installs it.
    pub(crate) fn start() -> Option<Self> {
        if Command::new("redis-server")
            .arg("--version")
            .output()
            .is_err()
        {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        for _ in 0..ATTEMPTS {
            let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
            let port = probe.local_addr().expect("bound").port();
            drop(probe);
            let mut child = launch(port, folder.path());
            if is_ready(&mut child, port) {
                return Some(Self {
                    child,
                    port,
                    folder,
                });
            }
        }
        panic!("redis-server does not start");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it without warning; all that it holds is lost.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Starts it at the same address, empty.
    pub(crate) fn start_again(&mut self) {
        self.child = launch(self.port, self.folder.path());
        assert!(is_ready(&mut self.child, self.port), "it starts again");
    }

    /// It keeps its connections and does not answer any more.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// The first line of the answer to a command.
    pub(crate) fn say(&self, command: &str) -> String {
        say(self.port, command).expect("it answers")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(port: u16, folder: &std::path::Path) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .args(["--enable-protected-configs", "local", "--dir"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts")
}

fn is_ready(child: &mut Child, port: u16) -> bool {
    for _ in 0..LOOKS {
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        if say(port, "PING").is_ok_and(|answer| answer == "+PONG") {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn say(port: u16, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}
