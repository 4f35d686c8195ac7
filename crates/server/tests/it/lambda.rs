//! `auspex lambda`, in a small Lambda of the tests' own.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::gateway::backend::{Backend, Then};
use crate::server::{auspex, eventually};

/// Longer than a function goes on between two events without asking what has changed.
const A_WHILE: Duration = Duration::from_millis(400);
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// When Lambda gives up an event, in milliseconds: the year 2100.
const DEADLINE: u64 = 4_102_444_800_000;

struct Function {
    folder: tempfile::TempDir,
    child: Child,
    events: mpsc::Sender<Value>,
    answers: mpsc::Receiver<Value>,
}

impl Function {
    fn start() -> Self {
        let (events, waiting) = mpsc::channel();
        let (answered, answers) = mpsc::channel();
        let lambda = small_lambda(waiting, answered);
        let folder = tempfile::tempdir().expect("a folder");
        let child = auspex()
            .args(["lambda", "--data-dir"])
            .arg(folder.path())
            .env("AWS_LAMBDA_RUNTIME_API", lambda.address.to_string())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).expect("a file"))
            .spawn()
            .expect("starts");
        let function = Self {
            folder,
            child,
            events,
            answers,
        };
        eventually(Duration::from_secs(30), "it waits for an event", || {
            let seen = lambda.seen();
            seen.iter()
                .any(|seen| seen.request_line().contains("/invocation/next"))
        });
        function
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a command beside it, on its folder, prints.
    fn run(&self, arguments: &[&str]) -> String {
        let mut command = auspex();
        let command = command.args(arguments).arg("--data-dir").arg(self.folder());
        let output = command.output().expect("runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The status and the body of the answer to a prediction.
    fn predict(&self, key: &str) -> (u64, Value) {
        let path = "/v1/models/mean-score/predict";
        let record = json!({"f0": 0.5, "f1": 1.2, "f2": -0.3, "f3": 0.8});
        let event = json!({
            "version": "2.0",
            "rawPath": path,
            "rawQueryString": "",
            "headers": {"host": "localhost", "x-api-key": key, "content-type": "application/json"},
            "requestContext": {"http": {"method": "POST", "path": path, "sourceIp": "192.0.2.1"}},
            "body": record.to_string(),
            "isBase64Encoded": false,
        });
        self.events.send(event).expect("Lambda waits");
        let answer = self.answers.recv_timeout(ANSWER_MAX);
        let answer = answer.unwrap_or_else(|_| panic!("no answer; the log: {}", self.log()));
        let status = answer["statusCode"].as_u64();
        let status = status.unwrap_or_else(|| panic!("{answer}; the log: {}", self.log()));
        let body = answer["body"].as_str().expect("a text");
        (status, serde_json::from_str(body).expect("JSON"))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).expect("a log")
    }

    /// Its log, after it has been asked to end.
    fn stop(mut self) -> String {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("sent");
        eventually(Duration::from_secs(20), "it ends", || {
            let ended = self.child.try_wait().expect("a child");
            ended.is_some_and(|status| {
                assert_eq!(status.code(), Some(0), "{}", self.log());
                true
            })
        });
        self.log()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hands out the events that come, one after the other, and hands on what they are answered.
fn small_lambda(waiting: mpsc::Receiver<Value>, answered: mpsc::Sender<Value>) -> Backend {
    let waiting = Mutex::new(waiting);
    Backend::start(move |seen, stream| {
        let (headers, body) = match seen.request_line() {
            line if line.contains("/extension/register") => {
                ("Lambda-Extension-Identifier: e\r\n".to_owned(), "{}".into())
            }
            // It wants no events.
            line if line.contains("/extension/event/next") => return Then::Keep,
            line if line.contains("/invocation/next") => match waiting.lock().recv() {
                Ok(event) => (
                    format!(
                        "Lambda-Runtime-Aws-Request-Id: i\r\nLambda-Runtime-Deadline-Ms: {DEADLINE}\r\n"
                    ),
                    event.to_string(),
                ),
                Err(_) => return Then::Close,
            },
            _ => {
                let answer = serde_json::from_slice(&seen.body).expect("JSON");
                let _ = answered.send(answer);
                (String::new(), String::new())
            }
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        match stream.write_all(answer.as_bytes()) {
            Ok(()) => Then::Keep,
            Err(_) => Then::Close,
        }
    })
}

/// Between events it may have stood still, so that it asks first what others have changed.
#[test]
fn a_function_answers_events_and_knows_what_changed_between_them() {
    let function = Function::start();
    let admin = std::fs::read_to_string(function.folder().join("admin.key")).expect("a key");
    let (status, body) = function.predict(admin.trim());
    assert_eq!((status, &body["prediction"]), (200, &json!(1)), "{body}");
    let created = ["keys", "create", "--name", "batch", "--scope", "predict"];
    let key = function.run(&created);
    std::thread::sleep(A_WHILE);
    assert_eq!(function.predict(key.trim()).0, 200);
    function.run(&["keys", "revoke", "batch"]);
    std::thread::sleep(A_WHILE);
    let (status, body) = function.predict(key.trim());
    assert_eq!(status, 401, "{body}");
    assert_eq!(function.predict(admin.trim()).0, 200);
    let log = function.stop();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_function_of_jobs_alone_says_at_its_start_that_it_serves_none() {
    let (_events, waiting) = mpsc::channel();
    let (answered, answers) = mpsc::channel();
    let lambda = small_lambda(waiting, answered);
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = auspex();
    let command = command
        .args(["lambda", "--data-dir"])
        .arg(folder.path())
        .env("AUSPEX__SERVER__ROLES", "jobs")
        .env("AWS_LAMBDA_RUNTIME_API", lambda.address.to_string());
    let output = command.output().expect("runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{error}");
    let told = answers.recv_timeout(ANSWER_MAX).expect("told");
    let message = told["errorMessage"].as_str().expect("a text");
    assert!(message.contains("name another role"), "{message}");
    assert!(error.contains("name another role"), "{error}");
}
