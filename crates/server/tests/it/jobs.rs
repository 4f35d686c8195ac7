//! Jobs through the binary: submitted, watched, read, called off, killed.

use std::fs::Permissions;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Answer;
use crate::server::{Server, auspex, eventually, repository};

pub(crate) const NDJSON: &str = "application/x-ndjson";
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A key with these scopes.
pub(crate) fn key(server: &Server, scopes: &[&str]) -> String {
    let made = server.post(
        "/v1/api-keys",
        json!({"name": "x", "scopes": scopes}).to_string(),
    );
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()["key"].as_str().expect("a key").to_owned()
}

pub(crate) fn ask(server: &Server, key: &str, method: &str, path: &str) -> Answer {
    server
        .connect()
        .send(method, path, &[("X-API-Key", key)], b"")
}

pub(crate) fn submit(server: &Server, query: &str, kind: &str, body: &str) -> Answer {
    let headers = [("X-API-Key", server.key.as_str()), ("Content-Type", kind)];
    let path = format!("/v1/jobs{query}");
    server
        .connect()
        .send("POST", &path, &headers, body.as_bytes())
}

/// The id of the job that was begun.
pub(crate) fn id(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        answer.header("location"),
        Some(format!("/v1/jobs/{id}").as_str())
    );
    id
}

pub(crate) fn ended(server: &Server, id: &str) -> Value {
    let mut job = Value::Null;
    eventually(LIMIT, "the job ends", || {
        job = server.get(&format!("/v1/jobs/{id}")).json();
        !job["ended_at"].is_null()
    });
    job
}

/// A record of the model `mean-score`.
pub(crate) fn record(number: usize) -> Value {
    json!({"f0": number, "f1": 1, "f2": 2.5, "f3": 0})
}

#[test]
fn without_rabbitmq_jobs_are_done_and_the_log_says_so_once() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    // It closes every connection.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let url = format!("amqp://guest:hunter2@127.0.0.1:{port}");
    let server = Server::start_with(&[("AUSPEX__JOBS__RABBITMQ__URL", &url)]);
    let row = format!("{}\n", record(1));
    let job = id(&submit(&server, "?model=mean-score", NDJSON, &row));
    assert_eq!(ended(&server, &job)["status"], "succeeded");
    let health = server.get("/health").json();
    assert_eq!(health["services"]["rabbitmq"], "degraded", "{health}");
    assert_eq!(server.get("/health/ready").status, 200);
    // Some attempts to connect later.
    std::thread::sleep(Duration::from_secs(2));
    let log = server.stop();
    assert_eq!(
        log.matches("RabbitMQ does not carry ids").count(),
        1,
        "{log}"
    );
    assert!(!log.contains("lapin") && !log.contains("hunter2"), "{log}");
}

#[test]
fn a_job_answers_every_record_as_a_request_would() {
    let server = Server::start();
    let records: Vec<Value> = (0..5).map(record).collect();
    let body = json!({"model": "mean-score", "records": records}).to_string();
    let headers = [
        ("X-API-Key", server.key.as_str()),
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "once"),
    ];
    let send = |body: &str| {
        let mut client = server.connect();
        client.send("POST", "/v1/jobs", &headers, body.as_bytes())
    };
    let begun = send(&body);
    let id = id(&begun);
    assert_eq!(begun.json()["model_version"], "1");
    let repeated = send(&body);
    assert_eq!(repeated.json()["id"], id.as_str());
    assert_eq!(repeated.header("idempotency-replayed"), Some("true"));
    let other = send(&body.replace("2.5", "3.5"));
    assert_eq!(other.status, 422, "another body with the same key");

    let job = ended(&server, &id);
    assert_eq!(send(&body).status, 202, "as before");
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(job["progress"], json!({"done": 5, "total": 5, "errors": 0}));
    let result = server.get(job["result"].as_str().expect("a path"));
    assert_eq!(result.header("content-type"), Some(NDJSON));
    for (line, record) in result.text().lines().zip(&records) {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let asked = server.post("/v1/models/mean-score/predict", record.to_string());
        assert_eq!(line["probabilities"], asked.json()["probabilities"]);
    }
    let listed = server
        .get("/v1/jobs?status=succeeded&model=mean-score")
        .json();
    assert_eq!(listed["data"].as_array().expect("jobs").len(), 1);
    assert_eq!(server.get("/v1/jobs?status=receiving").status, 422);
    let metrics = server.get("/metrics");
    for line in [
        "auspex_jobs_submitted_total 1",
        "auspex_jobs_ended_total{status=\"succeeded\"} 1",
        "auspex_job_rows_total 5",
    ] {
        assert!(metrics.text().lines().any(|known| known == line), "{line}");
    }
    // It cannot be said again that it was begun, for there is nothing any more.
    let path = format!("/v1/jobs/{id}");
    assert_eq!(ask(&server, &server.key, "DELETE", &path).status, 204);
    assert_eq!(send(&body).status, 409);
}

#[test]
fn wrong_rows_are_errors_in_their_place_in_either_form() {
    let server = Server::start_with(&[("AUSPEX__JOBS__CHUNK_ROWS_MAX", "2")]);
    let csv = "f0,f1,f2,f3\n1,2,3,4\nx,2,3,4\n\"1\",2,3\n4,3,2,1";
    let id_of_csv = id(&submit(
        &server,
        "?model=mean-score",
        "text/csv; charset=utf-8",
        csv,
    ));
    let ndjson = "{\"f0\":1,\"f1\":2,\"f2\":3,\"f3\":4}\n\n{\"f0\":\"x\"}\nnot JSON\n[4,3,2,1]\n";
    let id_of_ndjson = id(&submit(
        &server,
        "?model=mean-score&version=latest",
        NDJSON,
        ndjson,
    ));
    for id in [&id_of_csv, &id_of_ndjson] {
        let job = ended(&server, id);
        assert_eq!(
            job["progress"],
            json!({"done": 4, "total": 4, "errors": 2}),
            "{job}"
        );
        let path = format!("/v1/jobs/{id}/result?format=ndjson");
        let lines = server.get(&path);
        let lines: Vec<Value> = lines
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let is_wrong: Vec<bool> = lines.iter().map(|line| !line["error"].is_null()).collect();
        assert_eq!(is_wrong, [false, true, true, false]);
        assert_eq!(
            lines[0]["probability"], lines[3]["probability"],
            "the same mean"
        );
        assert_eq!(lines[1]["error"][0]["field"], "f0");
    }
    let result = server.get(&format!("/v1/jobs/{id_of_csv}/result"));
    assert!(
        result
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/csv"))
    );
    let rows: Vec<&str> = result.text().lines().collect();
    assert_eq!(rows.len(), 5, "{rows:?}");
    assert!(
        rows[2].starts_with("2,,,,,") && rows[4].starts_with("4,1,"),
        "{rows:?}"
    );
}

/// Each of these was once read as other rows than it has, and no error said so.
#[test]
fn rows_of_csv_are_those_that_other_readers_find() {
    let models = tempfile::tempdir().expect("a folder");
    let package = models.path().join("note/1");
    std::fs::create_dir_all(&package).expect("made");
    let shipped = repository().join("models/mean-score/1");
    std::fs::copy(shipped.join("model.ubj"), package.join("model.ubj")).expect("copied");
    let manifest = std::fs::read_to_string(shipped.join("model.toml")).expect("a manifest");
    std::fs::write(
        package.join("model.toml"),
        format!("unused = [\"note\"]\n{manifest}"),
    )
    .expect("written");
    let server = Server::start_with(&[
        (
            "AUSPEX__INFERENCE__MODELS",
            models.path().to_str().expect("UTF-8"),
        ),
        ("AUSPEX__JOBS__CHUNK_BYTES_MAX", "4096"),
    ]);
    let lines = |body: &str| {
        let job = id(&submit(&server, "?model=note", "text/csv", body));
        assert_eq!(ended(&server, &job)["status"], "succeeded");
        let result = server.get(&format!("/v1/jobs/{job}/result?format=ndjson"));
        let lines = result
            .text()
            .lines()
            .map(|line| line.starts_with("{\"prediction\""));
        lines.collect::<Vec<bool>>()
    };
    let header = "note,f0,f1,f2,f3\n";
    let row = "x,1,2,3,4\n";
    assert_eq!(
        lines(&format!(
            "{header}5\" pipe,1,1,1,1\n{row}{row}6\" pipe,1,1,1,1\n{row}"
        )),
        [true; 5]
    );
    assert_eq!(
        lines(&format!("{header}x,1,1,1,1\ry,1,1,1,1\rz,1,1,1,1\n{row}")),
        [true; 4]
    );
    let long = format!("\"{}\",1,2,3,4\n", "9,9,9,9,9\n".repeat(1000));
    assert_eq!(
        lines(&format!("{header}{row}{long}{row}")),
        [true, false, true]
    );
}

#[test]
fn a_result_that_broke_off_is_continued() {
    let server = Server::start_with(&[("AUSPEX__JOBS__CHUNK_ROWS_MAX", "10")]);
    let rows: String = (0..95)
        .map(|number| format!("{}\n", record(number)))
        .collect();
    let id = id(&submit(&server, "?model=mean-score", NDJSON, &rows));
    ended(&server, &id);
    let path = format!("/v1/jobs/{id}/result");
    let read = |headers: &[(&str, &str)]| {
        let mut all = vec![("X-API-Key", server.key.as_str())];
        all.extend(headers);
        server.connect().send("GET", &path, &all, b"")
    };
    let whole = read(&[]);
    let (length, tag) = (
        whole.body.len(),
        whole.header("etag").expect("a tag").to_owned(),
    );
    assert_eq!(
        whole.header("content-length"),
        Some(length.to_string().as_str())
    );
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let rest = read(&[("Range", "bytes=1000-"), ("If-Range", &tag)]);
    assert_eq!(rest.status, 206);
    assert_eq!(rest.body, whole.body[1000..]);
    let place = format!("bytes 1000-{}/{length}", length - 1);
    assert_eq!(rest.header("content-range"), Some(place.as_str()));
    let other = read(&[("Range", "bytes=1000-"), ("If-Range", "\"other\"")]);
    assert_eq!((other.status, other.body.len()), (200, length));
    let beyond = read(&[("Range", &format!("bytes={length}-"))]);
    assert_eq!(beyond.status, 416);
    assert_eq!(
        beyond.header("content-range"),
        Some(format!("bytes */{length}").as_str())
    );
    assert_eq!(read(&[("If-None-Match", &tag)]).status, 304);
    let head = ask(&server, &server.key, "HEAD", &path);
    assert_eq!(
        head.header("content-length"),
        Some(length.to_string().as_str())
    );
}

#[test]
fn progress_is_streamed_until_the_end() {
    let server = Server::start_with(&[("AUSPEX__JOBS__CHUNK_ROWS_MAX", "1")]);
    let rows: String = (0..50)
        .map(|number| format!("{}\n", record(number)))
        .collect();
    let id = id(&submit(&server, "?model=mean-score", NDJSON, &rows));
    let path = format!("/v1/jobs/{id}/events");
    let events = server.get(&path);
    assert_eq!(events.header("content-type"), Some("text/event-stream"));
    let data = events
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    let jobs: Vec<Value> = data
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect();
    let done: Vec<u64> = jobs
        .iter()
        .map(|job| job["progress"]["done"].as_u64().expect("a number"))
        .collect();
    assert!(done.is_sorted() && done.last() == Some(&50), "{done:?}");
    assert!(
        events.text().contains("id: end\nevent: ended\n"),
        "{}",
        events.text()
    );
    let headers = [("X-API-Key", server.key.as_str()), ("Last-Event-ID", "end")];
    assert_eq!(
        server.connect().send("GET", &path, &headers, b"").status,
        204
    );
}

#[test]
fn a_job_is_its_callers_and_operators_see_everybodys() {
    let server = Server::start();
    let (one, two) = (
        key(&server, &["jobs:read", "jobs:write", "predict"]),
        key(&server, &["jobs:read", "jobs:write", "predict"]),
    );
    let operator = key(&server, &["jobs:read", "jobs:write", "jobs:operate"]);
    let headers = [("X-API-Key", one.as_str()), ("Content-Type", NDJSON)];
    let body = format!("{}\n", record(1));
    let begun = server.connect().send(
        "POST",
        "/v1/jobs?model=mean-score",
        &headers,
        body.as_bytes(),
    );
    let id = id(&begun);
    ended(&server, &id);
    let document = server.get("/openapi.json").json();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        if !path.starts_with("/v1/jobs/{id}") || path.ends_with("/retries") {
            continue;
        }
        for method in item.as_object().expect("operations").keys() {
            let (path, method) = (path.replace("{id}", &id), method.to_uppercase());
            assert_eq!(
                ask(&server, &two, &method, &path).status,
                404,
                "{method} {path}"
            );
            asked += 1;
            if method == "DELETE" {
                continue;
            }
            assert_ne!(
                ask(&server, &one, &method, &path).status,
                404,
                "{method} {path}"
            );
        }
    }
    assert_eq!(asked, 4);
    let count = |key: &str| {
        let listed = ask(&server, key, "GET", "/v1/jobs").json();
        listed["data"].as_array().expect("jobs").len()
    };
    assert_eq!((count(&one), count(&two), count(&operator)), (1, 0, 1));
    let secret = |key: &str| ask(&server, key, "GET", "/v1/jobs/callback-secret").json();
    assert_ne!(secret(&one), secret(&two));

    assert_eq!(ask(&server, &one, "GET", "/v1/jobs/states").status, 403);
    let states = ask(&server, &operator, "GET", "/v1/jobs/states").json();
    let succeeded = &states["data"][2];
    assert_eq!(
        (&succeeded["status"], &succeeded["count"]),
        (&json!("succeeded"), &json!(1))
    );
    assert!(succeeded["oldest_age_s"].is_u64(), "{states}");
    let retried = ask(
        &server,
        &operator,
        "POST",
        &format!("/v1/jobs/{id}/retries"),
    );
    assert_eq!(
        (retried.status, retried.error_code().as_str()),
        (409, "CONFLICT")
    );
    for status in [204, 404] {
        let deleted = ask(&server, &one, "DELETE", &format!("/v1/jobs/{id}"));
        assert_eq!(deleted.status, status, "{}", deleted.text());
    }
    // To predict by jobs is to predict.
    let starter = key(&server, &["jobs:write"]);
    let headers = [("X-API-Key", starter.as_str()), ("Content-Type", NDJSON)];
    let path = "/v1/jobs?model=mean-score";
    let mut client = server.connect();
    let refused = client.send("POST", path, &headers, body.as_bytes());
    assert_eq!(refused.status, 403, "{}", refused.text());
}

#[test]
fn what_cannot_be_a_job_is_refused() {
    let server = Server::start_with(&[("AUSPEX__JOBS__INPUT_BYTES_MAX", "5000")]);
    let model = "?model=mean-score";
    let line = format!("{}\n", record(1));
    for (query, kind, body, status, words) in [
        (model, "application/xml", "<a/>", 415, "text/csv"),
        (model, "text/csv; charset=latin1", &line, 415, "UTF-8"),
        (model, "text/csv;header=absent", &line, 415, "header"),
        (model, NDJSON, "[\n1,2,3,4\n]\n", 422, "several lines"),
        (model, NDJSON, "", 422, "at least one record"),
        (
            model,
            "text/csv",
            "f0,f1,f2,f3\n",
            422,
            "at least one record",
        ),
        (
            model,
            "text/csv",
            "f0,f1,f2,colour\n1,2,3,4\n",
            422,
            "colour",
        ),
        ("?model=nothing", NDJSON, &line, 404, "no model"),
        (
            "?model=mean-score&version=9",
            NDJSON,
            &line,
            404,
            "no such version",
        ),
        ("?colour=red", NDJSON, &line, 422, "no parameter"),
        (model, "application/json", "{}", 422, "no parameter"),
        (
            "",
            "application/json",
            "{\"records\":[]}",
            422,
            "at least one record",
        ),
        ("", "application/json", "[1]", 400, "object"),
        (
            "?callback_url=http://example.org/",
            NDJSON,
            &line,
            422,
            "https",
        ),
        (
            "?callback_url=https://169.254.169.254/",
            NDJSON,
            &line,
            422,
            "private network",
        ),
        (model, NDJSON, &line.repeat(200), 413, "5000 bytes"),
    ] {
        let answer = submit(&server, query, kind, body);
        assert_eq!(answer.status, status, "{query} {kind}: {}", answer.text());
        answer.error_code();
        assert!(answer.text().contains(words), "{}", answer.text());
    }
    let listed = server.get("/v1/jobs").json();
    assert_eq!(listed["data"], json!([]));
    assert_eq!(server.get("/v1/jobs/nonsense").status, 404);
}

#[test]
fn a_killed_server_goes_on_where_it_was() {
    let settings = [
        ("AUSPEX__JOBS__CHUNK_ROWS_MAX", "20"),
        ("AUSPEX__JOBS__LEASE_S", "1"),
        ("AUSPEX__JOBS__POLL_INTERVAL_MS", "50"),
    ];
    let mut server = Server::start_with(&settings);
    let rows: String = (0..4_000)
        .map(|number| format!("{}\n", record(number)))
        .collect();
    let id = id(&submit(&server, "?model=mean-score", NDJSON, &rows));
    let done = |server: &Server| {
        let job = server.get(&format!("/v1/jobs/{id}")).json();
        job["progress"]["done"].as_u64().expect("a number")
    };
    for least in [1, 1_000] {
        eventually(LIMIT, "some of it is done", || done(&server) >= least);
        let before = done(&server);
        server.signal("KILL");
        server = server.start_again(&settings);
        assert!(done(&server) >= before, "what was done stays done");
    }
    let job = ended(&server, &id);
    assert_eq!(job["status"], "succeeded", "{job}");
    let result = server.get(&format!("/v1/jobs/{id}/result"));
    let expected = server.run_with_input(&["predict", "models/mean-score/1"], &rows);
    assert!(result.text() == expected, "each row once, in its place");
}

#[test]
fn jobs_are_submitted_watched_and_read_on_the_command_line() {
    let server = Server::start();
    let (input, output) = (
        server.folder.path().join("rows.csv"),
        server.folder.path().join("out"),
    );
    std::fs::write(&input, "f0,f1,f2,f3\n1,2,3,4\nx,2,3,4\n").expect("written");
    let url = format!("http://{}", server.address);
    let jobs = |arguments: &[&str]| {
        let output = auspex()
            .args(["jobs", "--url", &url, "--data-dir"])
            .arg(server.folder.path())
            .args(arguments)
            .output()
            .expect("runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let file = input.to_str().expect("UTF-8");
    let (code, id, error) = jobs(&["submit", file, "--model", "mean-score", "--watch"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(
        error.contains("succeeded: 2 rows, 1 of them wrong"),
        "{error}"
    );
    let id = id.trim();
    assert_eq!(jobs(&["watch", id]).0, Some(0));
    let (code, csv, _) = jobs(&["result", id]);
    assert_eq!(code, Some(0));
    assert!(
        csv.starts_with("row,prediction,") && csv.lines().count() == 3,
        "{csv}"
    );
    // What has come of this result is continued, and what is there of another one replaced.
    let name = output.to_str().expect("UTF-8");
    let part = format!("{name}.{id}.result.part");
    let csv_bytes = csv.as_bytes();
    for (there, come) in [
        ("", &csv_bytes[..10]),
        ("of yesterday", &[]),
        ("", csv_bytes),
    ] {
        std::fs::write(&output, there).expect("written");
        std::fs::write(&part, come).expect("written");
        let (code, _, error) = jobs(&["result", id, "--output", name]);
        assert_eq!(code, Some(0), "{error}");
        assert_eq!(std::fs::read_to_string(&output).expect("read"), csv);
        assert!(!Path::new(&part).exists());
    }
    // What is replaced keeps its mode, and a link its file.
    std::fs::set_permissions(&output, Permissions::from_mode(0o600)).expect("set");
    let link = server.folder.path().join("link");
    std::os::unix::fs::symlink(&output, &link).expect("a link");
    let (code, _, error) = jobs(&["result", id, "--output", link.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{error}");
    assert!(link.is_symlink() && link.metadata().expect("there").mode() & 0o777 == 0o600);

    let (code, _, error) = jobs(&["submit", file, "--key-file", file]);
    assert!(
        code == Some(1) && error.contains("a key and nothing else"),
        "{error}"
    );
    let (code, _, error) = jobs(&["submit", "/tmp", "--model", "mean-score"]);
    assert!(
        code == Some(1) && error.contains("/tmp cannot be read"),
        "{error}"
    );
    let (code, _, error) = jobs(&["watch", "0123456789ABCDEF"]);
    assert!(
        code == Some(1) && error.contains("no job with this id"),
        "{error}"
    );
    std::fs::write(&input, "f0,f1,f2,f3\nx,2,3,4\n").expect("written");
    let (code, _, error) = jobs(&["submit", file, "--model", "mean-score", "--watch"]);
    assert!(
        code == Some(1) && error.contains("no row could be predicted"),
        "{error}"
    );
    let (code, _, error) = jobs(&["submit", file, "--model", "nothing"]);
    assert!(
        code == Some(1) && error.contains("no model of that name"),
        "{error}"
    );
}
