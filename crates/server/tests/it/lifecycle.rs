//! Start and end.

use std::fs::{DirEntry, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::client::Connection;
use crate::predict::REQUEST;
use crate::server::{Server, auspex, auspex_held_to_modes, eventually, repository, take_away};
use auspex_kernel::clock::monotonic;
use auspex_kernel::db::{Db, DbError, Limits};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http2;

/// Every request that got through is answered, and the last answer of a connection says so.
#[test]
fn sigterm_under_load_loses_no_request() {
    let server = Server::start_with(&[
        ("AUSPEX__SERVER__RATE_LIMIT__MAX", "10000000"),
        // On a busy machine a client may not get a turn for half a second.
        ("AUSPEX__SERVER__LINGER_TIMEOUT_MS", "5000"),
    ]);
    let request = format!(
        "POST /predict HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{REQUEST}",
        server.key,
        REQUEST.len()
    );
    let (answered, stopping) = (AtomicUsize::new(0), AtomicBool::new(false));
    let client = || {
        while let Some(mut connection) = Connection::try_open(server.address) {
            for _ in 0..50 {
                connection.raw(request.as_bytes());
                let answer = connection.receive(false).expect("no request is lost");
                assert_eq!(answer.status, 200, "{}", answer.text());
                answered.fetch_add(1, Ordering::Relaxed);
                if answer.header("connection") == Some("close") {
                    assert!(stopping.load(Ordering::SeqCst), "closed before the signal");
                    break;
                }
            }
        }
        assert!(stopping.load(Ordering::SeqCst), "refused before the signal");
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(client);
        }
        std::thread::sleep(Duration::from_millis(700));
        stopping.store(true, Ordering::SeqCst);
        server.signal("TERM");
    });
    assert!(answered.into_inner() > 100);
    let (status, log) = server.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0), "{log}");
}

/// Each request on a connection of its own: whoever is let in is answered, up to the last moment of the listener.
#[test]
fn a_listener_that_closes_resets_nobody_whom_it_let_in() {
    for _ in 0..3 {
        let server = Server::start();
        let client = || {
            let mut answered = 0;
            while let Some(mut connection) = Connection::try_open(server.address) {
                connection
                    .raw(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                let answer = connection.receive(false);
                assert_eq!(answer.expect("it was let in").status, 200);
                answered += 1;
            }
            assert!(answered > 10, "{answered}");
        };
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(client);
            }
            std::thread::sleep(Duration::from_millis(500));
            server.signal("TERM");
        });
    }
}

/// Balancers look every so often: until they have, new connections come, and old ones are theirs.
#[test]
fn for_the_shutdown_delay_it_is_not_ready_and_serves_old_and_new_connections() {
    let delay = Duration::from_millis(1500);
    let server = Server::start_with(&[("AUSPEX__SERVER__SHUTDOWN_DELAY_MS", "1500")]);
    let key = [("X-API-Key", server.key.as_str())];
    let ask = |connection: &mut Connection, path: &str| {
        let answer = connection.send("GET", path, &key, b"");
        let closes = answer.header("connection") == Some("close");
        (answer.status, closes)
    };
    let mut old = server.connect();
    assert_eq!(ask(&mut old, "/health/ready"), (200, false));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runs");
    let http2 = |sender: &mut http2::SendRequest<Empty<Bytes>>| {
        let request = http::Request::get(format!("http://{}/health/live", server.address));
        let answer = sender.send_request(request.body(Empty::new()).expect("valid"));
        runtime.block_on(answer).map(|answer| answer.status())
    };
    let mut kept = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address).await;
        let io = hyper_util::rt::TokioIo::new(stream.expect("connects"));
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) = http2::handshake(executor, io).await.expect("HTTP/2");
        tokio::spawn(connection);
        sender
    });
    assert!(http2(&mut kept).is_ok());

    let begin = monotonic();
    server.signal("TERM");
    eventually(delay / 3, "it is not ready", || {
        ask(&mut server.connect(), "/health/ready") == (503, true)
    });
    assert_eq!(ask(&mut old, "/v1/models"), (200, true));
    while begin.elapsed() < delay * 3 / 4 {
        assert_eq!(ask(&mut server.connect(), "/v1/models"), (200, true));
        assert!(http2(&mut kept).is_ok(), "HTTP/2 goes on");
    }
    eventually(delay, "the listener closes", || {
        Connection::try_open(server.address).is_none()
    });
    assert!(begin.elapsed() >= delay, "{:?}", begin.elapsed());
    // It was told which request was its last.
    eventually(delay, "HTTP/2 ends", || http2(&mut kept).is_err());
    let (status, log) = server.wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("stopping soon"), "{log}");
}

#[test]
fn a_request_in_flight_is_finished_and_idle_connections_do_not_delay_the_end() {
    let server = Server::start();
    let _idle: Vec<_> = (0..20)
        .map(|_| {
            let mut connection = server.connect();
            assert_eq!(connection.send("GET", "/health/live", &[], b"").status, 200);
            connection
        })
        .collect();
    let mut slow = server.connect();
    let (first, rest) = REQUEST.split_at(200);
    let head = format!(
        "POST /predict HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{first}",
        server.key,
        REQUEST.len()
    );
    slow.raw(head.as_bytes());
    std::thread::sleep(Duration::from_millis(200));
    let start = monotonic();
    server.signal("TERM");
    std::thread::sleep(Duration::from_millis(500));
    slow.raw(rest.as_bytes());
    let answer = slow.receive(false).expect("the answer");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    let (status, log) = server.wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_request_that_never_ends_does_not_keep_the_server_alive() {
    let server = Server::start_with(&[("AUSPEX__SERVER__DRAIN_TIMEOUT_MS", "500")]);
    let mut stuck = server.connect();
    stuck.raw(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
    std::thread::sleep(Duration::from_millis(100));
    server.signal("TERM");
    let (status, _) = server.wait(Duration::from_secs(8));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_taken_port_is_an_error_that_says_what_to_do() {
    let server = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let output = auspex()
        .args([
            "serve",
            "--listen",
            &server.address.to_string(),
            "--data-dir",
        ])
        .arg(folder.path())
        .output()
        .expect("ends by itself");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("is in use") && error.contains("--listen"),
        "{error}"
    );
}

#[test]
fn a_data_folder_serves_one_server() {
    let server = Server::start();
    let output = auspex()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(server.folder.path())
        .output()
        .expect("ends by itself");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("another server uses the data folder"),
        "{error}"
    );
}

/// A server that can read its database and not change it must not look like one that works.
#[test]
fn a_database_that_cannot_be_written_is_no_start_and_its_owner_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |mut command: Command, arguments: &[&str]| {
        let command = command.args(arguments).arg("--data-dir").arg(folder.path());
        let output = command.output().expect("ends by itself");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), error)
    };
    assert_eq!(run(auspex(), &["migrate"]).0, Some(0));
    let file = folder.path().join("auspex.db");
    take_away(&file);
    let wanted = match rustix::process::geteuid().is_root() {
        true => "(65534), with mode 0600",
        false => "it has mode 0000; run chmod u+rw",
    };
    let command = auspex_held_to_modes();
    let (code, error) = run(command, &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(2), "{error}");
    for part in ["cannot be used", path(&file), wanted] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_start_that_waits_for_a_locked_database_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("auspex.db").display());
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let (locked, is_locked) = mpsc::channel();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let holder = runtime.spawn(async move {
        let limits = Limits::within(Duration::from_secs(60));
        let db = Db::open_with(&url, limits).await.expect("opens");
        let held = db.write(async |_| {
            locked.send(()).expect("waited for");
            released.await.expect("released");
            Ok::<_, DbError>(())
        });
        held.await.expect("committed");
        db.close().await;
    });
    is_locked.recv().expect("locked");
    let mut child = auspex()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .env("AUSPEX__STORAGE__CALL_TIMEOUT_MS", "200")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let log = BufReader::new(child.stderr.take().expect("piped"));
    let mut lines = log.lines().map_while(Result::ok);
    let waits = lines.find(|line| line.contains("another process holds the database locked"));
    assert!(waits.expect("it says so").contains("auspex.db"));
    release.send(()).expect("held");
    runtime.block_on(holder).expect("ends");
    let mut greeting = [0; 6];
    let stdout = child.stdout.as_mut().expect("piped");
    std::io::Read::read_exact(stdout, &mut greeting).expect("it starts after all");
    child.kill().expect("killed");
    child.wait().expect("ends");
}

/// Somebody starts it by hand as root, once: the service must be able to start again.
#[test]
fn root_leaves_nothing_in_the_folder_of_a_service_that_it_cannot_use() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let service = 65_534;
    std::os::unix::fs::chown(folder.path(), Some(service), Some(service)).expect("chown");
    let server = Server::start_in(folder, &[]);
    for entry in std::fs::read_dir(server.folder.path()).expect("a folder") {
        let entry = entry.expect("an entry");
        let owner = std::os::unix::fs::MetadataExt::uid(&entry.metadata().expect("there"));
        assert_eq!(owner, service, "{:?}", entry.file_name());
    }
}

/// Opening a pipe waits for its other end.
#[test]
fn a_pipe_in_place_of_a_file_is_no_start_and_is_named() {
    for name in ["serve.lock", "auspex.db"] {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join(name);
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo").success());
        let output = auspex()
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path())
            .output()
            .expect("ends by itself");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{error}");
        assert!(
            error.contains(&format!("{} is a pipe", path(&pipe))),
            "{error}"
        );
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Whoever reads that it serves may stop it at once.
#[test]
fn a_signal_right_after_the_greeting_is_heard() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = auspex()
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut greeting = BufReader::new(child.stdout.take().expect("piped"));
        greeting.read_line(&mut String::new()).expect("it serves");
        let id = child.id().to_string();
        let stopped = Command::new("kill").args(["-TERM", &id]).status();
        assert!(stopped.expect("kill").success());
        assert_eq!(child.wait().expect("ends").code(), Some(0));
    }
}

/// What it prints at its start is for people, who may not be there.
#[test]
fn a_start_whose_output_cannot_be_written_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let full = std::fs::File::options().write(true).open("/dev/full");
    let mut child = auspex()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .stdout(full.expect("opened"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let log = BufReader::new(child.stderr.take().expect("piped"));
    let mut lines = log.lines().map_while(Result::ok);
    let told = lines.find(|line| line.contains("output cannot be written"));
    assert!(told.is_some(), "it is told");
    let id = child.id().to_string();
    let stopped = Command::new("kill").args(["-TERM", &id]).status();
    assert!(stopped.expect("kill").success());
    assert_eq!(lines.filter(|line| line.contains("stopped")).count(), 1);
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

/// `script` of util-linux runs it at a terminal. One that is closed asks for the end, as SIGTERM does.
#[test]
fn a_closed_terminal_stops_it_like_a_signal() {
    let folder = tempfile::tempdir().expect("a folder");
    let (out, log) = (folder.path().join("out"), folder.path().join("log"));
    let run = format!(
        "echo $$ >{0}/pid; exec {1} serve --listen 127.0.0.1:0 --data-dir {0}/data 2>{2} >{3}",
        path(folder.path()),
        env!("CARGO_BIN_EXE_auspex"),
        path(&log),
        path(&out),
    );
    let mut child = Command::new("script")
        .args(["-qec", &run, "/dev/null"])
        .current_dir(repository())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("script");
    let read = |file: &Path| std::fs::read_to_string(file).unwrap_or_default();
    eventually(Duration::from_secs(30), "it serves", || {
        !read(&out).is_empty()
    });
    let pid = read(&folder.path().join("pid"));
    let sent = Command::new("kill").args(["-HUP", pid.trim()]).status();
    assert!(sent.expect("kill").success());
    child.wait().expect("ends");
    assert!(read(&log).contains("stopped"), "{}", read(&log));
}

#[test]
fn a_server_for_others_without_a_public_url_warns_with_the_line_to_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = |settings: &[(&str, &str)]| {
        let mut command = auspex();
        command
            .args(["serve", "--listen", "0.0.0.0:0", "--data-dir"])
            .arg(folder.path())
            .envs(settings.iter().copied())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let mut greeting = [0; 6];
        let stdout = child.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(stdout, &mut greeting).expect("it starts");
        let id = child.id().to_string();
        let stopped = Command::new("kill").args(["-TERM", &id]).status();
        assert!(stopped.expect("kill").success());
        let output = child.wait_with_output().expect("ends");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let warned = log(&[]);
    for part in [
        "PUBLIC_URL_UNSET",
        "public_url = ",
        "AUSPEX__SERVER__PUBLIC_URL",
    ] {
        assert!(warned.contains(part), "{warned}");
    }
    let url = ("AUSPEX__SERVER__PUBLIC_URL", "https://models.example.org");
    let quiet = log(&[url]);
    assert!(!quiet.contains("PUBLIC_URL"), "{quiet}");
}

#[test]
fn from_start_to_first_prediction_is_quick() {
    let start = monotonic();
    let server = Server::start();
    assert_eq!(server.post("/predict", REQUEST).status, 200);
    // The release binary is held to half a second by the comparison in bench/.
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn the_first_key_is_not_lost_when_it_cannot_be_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let obstacle = folder.path().join("admin.key");
    std::fs::create_dir(&obstacle).expect("made");
    let output = auspex()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .output()
        .expect("ends by itself");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("admin.key"), "{error}");
    std::fs::remove_dir(&obstacle).expect("removed");
    let server = Server::start_in(folder, &[]);
    assert_eq!(server.get("/v1/models").status, 200);
}

#[test]
fn a_stopped_server_leaves_its_whole_database_in_one_file() {
    let mut server = Server::start();
    server.run(&["keys", "create", "--name", "other", "--scope", "predict"]);
    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().expect("a folder"));
    server.stop();
    assert!(folder.path().join("auspex.db").exists());
    assert!(!folder.path().join("auspex.db-wal").exists());
}

#[test]
fn a_list_goes_on_where_it_was_after_a_restart() {
    let mut server = Server::start();
    let first = server.get("/v1/models?limit=1").json();
    let next = first["pagination"]["links"]["next"].as_str();
    let next = next.expect("a second page").to_owned();
    let another = tempfile::tempdir().expect("a folder");
    let folder = std::mem::replace(&mut server.folder, another);
    server.stop();
    let second = Server::start_in(folder, &[]).get(&next);
    assert_eq!(second.status, 200, "{}", second.text());
    assert_ne!(second.json()["data"][0]["name"], first["data"][0]["name"]);
}

/// Whatever the folder's mode and the umask are, and also where the files were there before.
#[test]
fn only_its_owner_may_read_what_the_server_writes() {
    let modes = |folder: &Path| -> Vec<(String, u32)> {
        let entries = std::fs::read_dir(folder).expect("a folder").flatten();
        let mode = |entry: DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let mode = entry.metadata().expect("there").permissions().mode();
            (name, mode & 0o777)
        };
        entries.map(mode).collect()
    };
    let open_to_all = || {
        let mut command = Command::new("sh");
        let run = format!("umask 000; exec {} \"$@\"", env!("CARGO_BIN_EXE_auspex"));
        command.current_dir(repository()).args(["-c", &run, "sh"]);
        command
    };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("changed");
    let server = Server::start_by(open_to_all(), folder, &[]);
    let found = modes(server.folder.path());
    assert!(
        found.len() >= 5,
        "database, log, index, key, lock: {found:?}"
    );
    assert!(found.iter().all(|(_, mode)| *mode == 0o600), "{found:?}");

    let (folder, log) = server.stop_and_keep();
    assert!(!log.contains("could read"), "{log}");
    for (name, _) in modes(folder.path()) {
        let file = folder.path().join(name);
        std::fs::set_permissions(file, Permissions::from_mode(0o644)).expect("changed");
    }
    let server = Server::start_by(open_to_all(), folder, &[]);
    let found = modes(server.folder.path());
    assert!(found.iter().all(|(_, mode)| *mode == 0o600), "{found:?}");
    let log = server.stop();
    for name in ["auspex.db", "admin.key", "serve.lock"] {
        let warned = log
            .lines()
            .any(|line| line.contains(name) && line.contains("could read"));
        assert!(warned, "{name}: {log}");
    }
}

/// Where everything comes from the environment, as in containers, there is no file that could be gone.
#[test]
fn sighup_without_a_file_is_no_alarm() {
    let server = Server::start();
    server.signal("HUP");
    std::thread::sleep(Duration::from_millis(1_500));
    let shown = server.get("/v1/server");
    assert!(!shown.text().contains("CONFIG_REFUSED"), "{}", shown.text());
    let log = server.stop();
    assert!(!log.contains("is refused"), "{log}");
}
