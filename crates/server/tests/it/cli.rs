//! The command line: exit codes, and messages a person can act on.

use std::path::Path;

use crate::server::{Server, auspex, repository};

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = auspex().args(arguments).output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_wrong_setting_is_named_with_the_nearest_right_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("my.toml");
    std::fs::write(&file, "[server.rate_limt]\nmax = 5\n").expect("written");
    let (code, _, error) = run(&["config", "check", "--config", path(&file)]);
    assert_eq!(code, Some(2));
    assert!(
        error.contains("server.rate_limt") && error.contains("\"server.rate_limit\""),
        "{error}"
    );
    std::fs::write(&file, "[server]\nlisten = 8080\n").expect("written");
    let (code, _, error) = run(&["serve", "--config", path(&file)]);
    assert_eq!(code, Some(2));
    let place = format!("{}:2: setting \"server.listen\"", path(&file));
    assert!(error.contains(&place), "{error}");
    let (code, _, error) = run(&["--config", "/nowhere/x.toml", "config", "check"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("/nowhere/x.toml"), "{error}");
}

/// What the README links to is what the program has in it.
#[test]
fn the_reference_of_all_settings_is_the_one_in_the_program() {
    let (code, printed, error) = run(&["config", "defaults"]);
    assert_eq!(code, Some(0), "{error}");
    let file = repository().join("crates/server/auspex.default.toml");
    let kept = std::fs::read_to_string(file).expect("read");
    assert!(
        printed == kept,
        "renew it: cargo run -- config defaults > crates/server/auspex.default.toml"
    );
}

/// Whoever reads the error must find the line, variable or flag that is to be changed.
#[test]
fn a_wrong_value_is_named_with_its_origin_and_the_form_that_is_wanted() {
    let checked = |variables: &[(&str, &str)], arguments: &[&str]| {
        let output = auspex()
            .args(arguments)
            .envs(variables.iter().copied())
            .output()
            .expect("runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), error)
    };
    for (name, value, form) in [
        ("LOG_LEVEL", "loud", "must be one of"),
        (
            "DATABASE_URL",
            "postgres+asyncpg://u:hunter2@h/x",
            "write postgresql://",
        ),
        ("DATABASE_URL", "mysql://u:hunter2@h/x", "not supported"),
        ("DATABASE_URL", "sqlite://x.db", "sqlite:///auspex.db"),
        ("DATABASE_URL", "sqlite:/dev", "/dev is a folder"),
        (
            "DATABASE_URL",
            "sqlite:/dev/null/x.db",
            "/dev/null is a file",
        ),
        ("DATABASE_URL", "sqlite:x.db?mode=ro", "no parameters"),
        (
            "DATABASE_URL",
            "postgres://u@h/x?sslmode=verify-full&sslrootcert=no/such.pem",
            "no/such.pem, which cannot be read",
        ),
        ("MODEL_PATH", "/nowhere", "make it"),
        (
            "AUSPEX__SERVER__DATA_DIR",
            "/dev/null/x",
            "/dev/null is a file",
        ),
    ] {
        let (code, error) = checked(&[(name, value)], &["config", "check"]);
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains(&format!("{name}: setting")), "{error}");
        assert!(error.contains(form), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        // What `config check` finds, `serve` finds, and says the same.
        assert_eq!(checked(&[(name, value)], &["serve"]), (code, error));
    }
    let (code, error) = checked(&[], &["serve", "--listen", "example.org:80"]);
    assert_eq!(code, Some(2));
    assert!(
        error.contains("--listen: setting \"server.listen\" must be ADDRESS:PORT"),
        "{error}"
    );
}

#[test]
fn what_is_odd_and_allowed_is_told_by_the_check() {
    let output = auspex()
        .args(["config", "check"])
        .env("AUSPEX_WORKER_COUNT", "4")
        .env("AUSPEX_PORT", "tcp://10.0.0.1:8080")
        .env("AUSPEX__SERVER__TRUSTED_PROXIES", "0.0.0.0/0")
        .output()
        .expect("runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert!(
        error.contains("AUSPEX_WORKER_COUNT is no setting"),
        "{error}"
    );
    assert!(error.contains("name the proxies alone"), "{error}");
    assert!(!error.contains("AUSPEX_PORT"), "{error}");
}

#[test]
fn lists_have_their_columns_below_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = path(folder.path());
    let made = |arguments: &[&str]| {
        let mut whole = arguments.to_vec();
        whole.extend(["--data-dir", data]);
        let (code, out, error) = run(&whole);
        assert_eq!(code, Some(0), "{error}");
        out
    };
    made(&[
        "keys", "create", "--create", "--name", "shop", "--role", "viewer",
    ]);
    made(&[
        "users",
        "add",
        "--name",
        "Ann",
        "--email",
        "ann@example.org",
    ]);
    for (list, last, value) in [
        ("keys", "NAME", "shop"),
        ("users", "USERNAME", "ann@example.org"),
    ] {
        let table = made(&[list, "list"]);
        let mut lines = table.lines();
        let (head, row) = (lines.next().expect("a head"), lines.next().expect("a row"));
        let column = head.find(last).expect(last);
        assert!(row[column..].starts_with(value), "{table}");
        assert!(row[..column].ends_with(' '), "{table}");
    }
}

#[test]
fn listening_is_asked_for_as_people_write_it() {
    for written in ["localhost:0", ":0"] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = auspex();
        command.args(["health", "--listen", written]);
        let output = command.output().expect("runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("no answer from 127.0.0.1:0"), "{error}");
        drop(folder);
    }
}

/// Otherwise a command in the wrong folder seems to succeed, and the server knows nothing of it.
#[test]
fn commands_say_which_database_they_use_and_make_none_unasked() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let create = ["keys", "create", "--name", "x", "--role", "viewer"];
    let keys = |more: &[&str]| {
        let mut arguments = create.to_vec();
        arguments.extend(["--data-dir", path(&data)]);
        arguments.extend(more);
        run(&arguments)
    };
    let file = data.join("auspex.db");
    let (code, out, error) = keys(&[]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    for part in [path(&file), "does not exist", "--create", "auspex migrate"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!data.exists());
    for command in [
        &["users", "list"][..],
        &["clients", "list"],
        &["tokens", "rotate-key"],
    ] {
        let mut arguments = command.to_vec();
        arguments.extend(["--data-dir", path(&data)]);
        assert_eq!(run(&arguments).0, Some(1), "{command:?}");
    }
    assert!(!data.exists());

    let (code, out, error) = keys(&["--create"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(out.starts_with("ax_"), "{out}");
    assert!(error.contains(path(&file)), "{error}");
    assert_eq!(keys(&[]).0, Some(0), "now there is one");

    // A file that is there and is not ours.
    let other = folder.path().join("other.db");
    crate::doctor::execute(&other, "CREATE TABLE t (a)");
    let url = format!("sqlite:{}", other.display());
    let output = auspex()
        .args(create)
        .env("DATABASE_URL", url)
        .output()
        .expect("runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("holds no tables"), "{error}");
}

#[test]
fn a_key_gets_the_scopes_of_roles_and_those_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = path(folder.path());
    let mut create = vec![
        "keys",
        "create",
        "--create",
        "--data-dir",
        data,
        "--name",
        "x",
    ];
    let (code, _, error) = run(&create);
    assert_eq!(code, Some(2), "a key may do something");
    assert!(
        error.contains("--scope") && error.contains("--role"),
        "{error}"
    );
    create.extend([
        "--role",
        "viewer",
        "--role",
        "service",
        "--scope",
        "audit:read",
    ]);
    assert_eq!(run(&create).0, Some(0));
    let (_, out, _) = run(&["keys", "list", "--json", "--data-dir", data]);
    let keys: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let scopes = keys[0]["scopes"].as_array().expect("a list");
    let mut scopes: Vec<&str> = scopes.iter().filter_map(|scope| scope.as_str()).collect();
    scopes.sort_unstable();
    let wanted = [
        "audit:read",
        "data:write",
        "gateway:read",
        "jobs:read",
        "jobs:write",
        "metrics:read",
        "models:read",
        "predict",
    ];
    assert_eq!(scopes, wanted);
    create.extend(["--role", "emperor"]);
    let (code, _, error) = run(&create);
    assert_eq!(code, Some(2));
    assert!(error.contains("data-scientist"), "{error}");
}

#[test]
fn settings_in_force_are_shown_and_flags_win_wherever_they_stand() {
    let (code, out, _) = run(&["config", "show", "--data-dir", "/tmp/x"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("data_dir = \"/tmp/x\""), "{out}");
    assert_eq!(run(&["--data-dir", "/tmp/x", "config", "show"]).1, out);
    assert_eq!(
        run(&["config", "check"]),
        (
            Some(0),
            "the configuration is valid\n".into(),
            String::new()
        )
    );
}

#[test]
fn missing_and_broken_models_are_errors_that_say_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let models = folder.path().join("models");
    let serve = |models: &Path| {
        run(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--models",
            path(models),
            "--data-dir",
            path(&data),
        ])
    };
    let (code, _, error) = serve(&models);
    assert_eq!(code, Some(2), "{error}");
    assert!(
        error.contains("--models") && error.contains(path(&models)),
        "{error}"
    );
    let package = models.join("broken/1");
    std::fs::create_dir_all(&package).expect("made");
    let real = std::fs::read(repository().join("models/santander/1/model.ubj")).expect("read");
    std::fs::write(package.join("model.ubj"), &real[..100_000]).expect("written");
    let (code, _, error) = serve(&package);
    assert_eq!(code, Some(1), "{error}");
    assert!(
        error.contains("broken") && error.contains("model.ubj"),
        "{error}"
    );
    assert!(!error.contains("panicked"), "{error}");
}

#[test]
fn models_check_prints_schema_engine_and_examples() {
    let (code, out, error) = run(&["models", "check", "models/santander/1"]);
    assert_eq!(code, Some(0), "{error}");
    for part in ["engine: ", "880 trees", "reproduced", "\"ind_empleado\""] {
        assert!(out.contains(part), "{part} is not in {out}");
    }
    let (code, _, error) = run(&["models", "check", "models/nothing/1"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("models/nothing/1"), "{error}");
}

#[test]
fn models_check_of_a_folder_names_all_that_is_in_it() {
    let (code, out, error) = run(&["models", "check", "models"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(
        out.contains("mean-score 1: good\n    manifest: model.toml\n    engine: "),
        "{out}"
    );
    assert!(
        out.ends_with("models: 2 good, 0 refused, 0 not served\n"),
        "{out}"
    );

    let folder = tempfile::tempdir().expect("a folder");
    let model = repository().join("models/mean-score/1/model.ubj");
    for place in ["a/1", "a/10", "b/1", "c", "d\n/1"] {
        let place = folder.path().join(place);
        std::fs::create_dir_all(&place).expect("made");
        std::fs::copy(&model, place.join("model.ubj")).expect("copied");
    }
    std::fs::write(folder.path().join("b/1/Model.toml"), "").expect("written");
    let (code, out, error) = run(&["models", "check", path(folder.path())]);
    assert_eq!(code, Some(1), "{out}");
    assert!(error.contains("not all is well"), "{error}");
    let places = [
        "a 1: good\n",
        "a 10: good\n",
        "b 1: refused\n",
        "d\\n 1: refused\n",
    ];
    let places = places.map(|line| out.find(line).expect(line));
    assert!(places.is_sorted(), "{out}");
    for words in [
        "    the manifest is called model.toml; rename Model.toml",
        "    the model's name \"d\\n\" has '\\n' in it",
        "not served: c/model.ubj is not in the folder of a version",
        ": 2 good, 2 refused, 1 not served\n",
    ] {
        assert!(out.contains(words), "{words} is not in {out}");
    }
    let (code, out, _) = run(&["models", "check", path(&folder.path().join("a"))]);
    assert_eq!(code, Some(0));
    assert!(
        out.contains("a 10: good") && out.contains("2 good, 0 refused, 0 not served\n"),
        "{out}"
    );
    let folder_above = folder.path().canonicalize().expect("it is there");
    let above = format!(
        "this is the folder of one model; to serve it, name the one above: auspex serve --models {}\n",
        path(&folder_above)
    );
    assert!(out.ends_with(&above), "{out}");
    let (code, _, error) = run(&["models", "check", path(&folder.path().join("d\n"))]);
    assert_eq!(code, Some(1), "{error}");
}

#[test]
fn models_init_writes_a_manifest_that_passes_the_check() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = folder.path().join("scores/1");
    std::fs::create_dir_all(&package).expect("made");
    let model = repository().join("models/mean-score/1/model.ubj");
    std::fs::copy(model, package.join("model.ubj")).expect("copied");
    let sample = |content: &str| {
        let file = folder.path().join("sample");
        std::fs::write(&file, content).expect("written");
        run(&["models", "init", path(&package), "--sample", path(&file)])
    };
    for (content, words) in [
        ("", "it is empty"),
        ("a,b,c,d\n", "it has a header and no row"),
        ("a,b,c,d\r1,2,3,4\r", "its lines end with CR alone"),
        ("1,2,3,4\n", "its first line has only values"),
        ("PAR1\u{15}", "it is a Parquet table"),
        ("a,b,c,d\n1,2,3\n", "line 2: has 3 cells, the header 4"),
        ("a,b,c\n1,2,3\n", "it has 3 columns, the model 4 features"),
        ("\u{1}\u{2}", "it has 1 columns"),
        (
            "a,b,c,d\n1,2,3,\"x\n",
            "line 2: has a quote that is never closed",
        ),
        ("[\n  {\n", "its JSON is spread over several lines"),
        (
            "{\"a\": 1,\n\"b\": 2}",
            "line 1: is no JSON record; each line must be one",
        ),
        ("{\"a\": 1", "line 1: is no JSON record"),
    ] {
        let (code, out, error) = sample(content);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{content}");
        assert!(
            error.contains("the sample ") && error.contains(words),
            "{error}"
        );
    }
    let endless = ["models", "init", path(&package), "--sample", "/dev/zero"];
    let (code, _, error) = run(&endless);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("read as CSV with a header, and the header is too long"),
        "{error}"
    );

    let (code, out, error) = sample("income,debt,balance,years\n0.5,1.2,-0.3,1\n\n2,3,,7\n");
    assert_eq!(code, Some(0), "{error}");
    for words in [
        "4 features, 2 rows of the sample, an example of its line 2\n",
        "records that call them f0, f1 and so on are refused from now on",
        "check what is marked CHECK in the file, 3 in all",
        "where this folder is served, it is in force from now on",
    ] {
        assert!(out.contains(words), "{out}");
    }
    let (code, out, error) = run(&["models", "check", path(&package)]);
    assert_eq!(code, Some(0), "{error}");
    assert!(
        out.contains("examples: 1 reproduced") && out.contains("\"balance\""),
        "{out}"
    );
    std::fs::remove_file(package.join("model.toml")).expect("removed");
    let (_, out, _) = sample(&"[1, 2, 3, 4]\n".repeat(100_001));
    assert!(out.contains("the first 100000 rows of the sample"), "{out}");
    let (code, _, error) = sample("[1, 2, 3, 4]");
    assert_eq!(code, Some(1));
    assert!(error.contains("there is a model.toml already"), "{error}");
}

#[test]
fn models_check_says_which_iterations_count() {
    let model = "crates/engine/tests/golden/3.2/best-iteration.json";
    let (code, out, error) = run(&["models", "check", model]);
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("iterations (best_iteration)"), "{out}");
    assert!(
        out.contains("manifest: none; ") && out.contains("(`auspex models init` writes one)"),
        "{out}"
    );
}

#[test]
fn a_strict_start_ends_where_something_cannot_be_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, models) = (folder.path().join("data"), folder.path().join("models"));
    let package = models.join("broken/1");
    std::fs::create_dir_all(&package).expect("made");
    std::fs::write(package.join("model.pkl"), b"\x80\x04\x95").expect("written");
    let (code, out, error) = run(&[
        "serve",
        "--strict",
        "--listen",
        "127.0.0.1:0",
        "--models",
        path(&models),
        "--data-dir",
        path(&data),
    ]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{error}");
    for words in [
        "can be served:\n  broken 1: model.pkl: this is a Python pickle",
        "\nmend it, or start without --strict (inference.strict)\n",
    ] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_bare_model_file_is_a_package_too() {
    let (code, out, error) = run(&["models", "check", "models/santander/1/model.ubj"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("880 trees"), "{out}");
}

#[test]
fn bench_reports_this_machines_cost() {
    let (code, out, error) = run(&["bench", "models/mean-score/1", "--json"]);
    assert_eq!(code, Some(0), "{error}");
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    for key in [
        "one_row_us",
        "batch_us_per_row",
        "requests_per_s",
        "http_us",
    ] {
        assert!(report[key].as_f64().is_some_and(|n| n > 0.0), "{report}");
    }
}

#[test]
fn health_asks_a_running_server() {
    let server = Server::start();
    let address = server.address.to_string();
    assert_eq!(run(&["health", "--listen", &address]).0, Some(0));
    assert_eq!(run(&["health", "--ready", "--listen", &address]).0, Some(0));
    server.stop();
    let (code, _, error) = run(&["health", "--listen", &address]);
    assert_eq!(code, Some(1));
    assert!(error.contains("auspex serve"), "{error}");
}

#[test]
fn migrate_prepares_a_database_for_a_server_that_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = path(folder.path());
    let (code, _, error) = run(&[
        "serve",
        "--no-migrate",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data,
    ]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("run `auspex migrate`"), "{error}");
    assert_eq!(run(&["migrate", "--data-dir", data]).0, Some(0));
    assert_eq!(run(&["migrate", "--data-dir", data]).0, Some(0));
    assert!(folder.path().join("auspex.db").exists());
}

#[test]
fn wrong_scopes_and_times_are_refused_with_what_is_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = path(folder.path());
    let create = |more: &[&str]| {
        let mut arguments = vec![
            "keys",
            "create",
            "--create",
            "--data-dir",
            data,
            "--name",
            "x",
        ];
        arguments.extend(more);
        run(&arguments)
    };
    let (code, _, error) = create(&["--scope", "everything"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("models:read"), "{error}");
    let (code, _, error) = create(&["--scope", "predict", "--expires-at", "tomorrow"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("RFC 3339"), "{error}");
    let (code, _, _) = create(&["--scope", "predict", "--expires-at", "2001-01-01T00:00:00Z"]);
    assert_eq!(code, Some(1), "a key that is over already");
}

#[test]
fn a_foreign_variable_that_is_not_utf8_does_no_harm() {
    use std::os::unix::ffi::OsStrExt as _;
    let strange = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let output = auspex()
        .args(["config", "check"])
        .env("STRANGE", strange)
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn requests_of_customers_are_answered_on_the_command_line() {
    let server = Server::start();
    let folder = server.folder.path();
    let run = |arguments: &[&str]| {
        let data_dir = ["--data-dir", path(folder)];
        run(&[&["dialogues"], arguments, &data_dir].concat())
    };
    let json = |out: &str| serde_json::from_str::<serde_json::Value>(out).expect("JSON");
    let (code, out, error) = run(&["erase", "Maria"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(!out.contains("Maria") && !error.contains("Maria"), "{out}");
    let receipt = json(&out);
    assert_eq!(receipt["log_truncated"], true);
    // Named as in the answers of the API. Of somebody who is not known it may be a slip of the pen.
    assert_eq!(receipt["texts"], 0);
    assert!(error.contains("check the id"), "{error}");
    let pseudonym = receipt["customer"].as_str().expect("a pseudonym");
    let (code, out, error) = run(&["export", pseudonym]);
    assert_eq!(code, Some(0), "{error}");
    let export = json(&out);
    assert_eq!(export["erasures"][0]["id"], receipt["id"]);
    assert!(!error.contains("check the id"), "{error}");
    for command in ["export", "withdraw"] {
        let (code, _, error) = run(&[command, "somebody else"]);
        assert_eq!(code, Some(0), "{error}");
        assert!(error.contains("check the id"), "{command}: {error}");
    }
    assert_eq!(export["messages"], serde_json::json!([]));
    let (code, out, error) = run(&["retention", "--dry-run"]);
    assert_eq!(
        (code, json(&out)),
        (Some(0), serde_json::json!([])),
        "{error}"
    );
    let (code, out, error) = run(&["replay-erasures"]);
    assert_eq!(
        (code, json(&out)["erasures"].as_u64()),
        (Some(0), Some(0)),
        "{error}"
    );
    let (code, _, error) = run(&["withdraw", "a\nb"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("control characters"), "{error}");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let wrong = [
        "dialogues",
        "export",
        "Maria",
        "--data-dir",
        path(elsewhere.path()),
    ];
    let output = auspex().args(wrong).output().expect("runs");
    assert!(!output.status.success(), "a wrong folder is no empty one");
}
