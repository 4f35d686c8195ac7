//! Predictions over HTTP, equal to those of the library that trained the model.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::server::{Server, auspex, repository};

/// The request of the product's first users, to the letter.
pub(crate) const REQUEST: &str = r#"{
    "fecha_dato": "2016-06-28",
    "ncodpers": 15889,
    "ind_empleado": "F",
    "pais_residencia": "ES",
    "sexo": "V",
    "age": 56,
    "fecha_alta": "1995-01-16",
    "ind_nuevo": 0,
    "antiguedad": 256,
    "indrel": 1,
    "ult_fec_cli_1t": "",
    "indrel_1mes": 1,
    "tiprel_1mes": "A",
    "indresi": "S",
    "indext": "N",
    "conyuemp": "N",
    "canal_entrada": "KAT",
    "indfall": "N",
    "tipodom": 1,
    "cod_prov": 28,
    "nomprov": "MADRID",
    "ind_actividad_cliente": 1,
    "renta": 326124.9,
    "segmento": "01 - TOP"
}"#;

fn lines(name: &str) -> Vec<Value> {
    let path = repository()
        .join("crates/engine/tests/data/santander")
        .join(name);
    let text = std::fs::read_to_string(path).expect("read");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .expect("a list")
        .iter()
        .map(|v| v.as_f64().expect("a number"))
        .collect()
}

fn assert_close(got: &Value, expected: &Value) {
    let (got, expected) = (numbers(got), numbers(expected));
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(&expected) {
        assert!((got - expected).abs() <= 1e-6, "{got} is not {expected}");
    }
}

fn santander() -> (Vec<Value>, Vec<Value>) {
    let (records, expected) = (lines("records.jsonl"), lines("expected.jsonl"));
    assert_eq!((records.len(), expected.len()), (201, 201));
    (records, expected)
}

#[test]
fn the_seed_request_gives_22_probabilities() {
    let server = Server::start();
    let answer = server.post("/predict", REQUEST);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    let rows = json["predictions"].as_array().expect("rows");
    assert_eq!(rows.len(), 1);
    assert_close(&rows[0], &santander().1[0]);
    assert!((numbers(&rows[0]).iter().sum::<f64>() - 1.0).abs() < 1e-5);
}

#[test]
fn all_records_agree_with_xgboost_one_by_one_and_as_a_list() {
    let server = Server::start();
    let (records, expected) = santander();
    let mut connection = server.connect();
    let headers = [
        ("X-API-Key", server.key.as_str()),
        ("Content-Type", "application/json"),
    ];
    for (record, expected) in records.iter().zip(&expected) {
        let answer = connection.send("POST", "/predict", &headers, record.to_string().as_bytes());
        assert_close(&answer.json()["predictions"][0], expected);
    }
    let list = Value::from(records.clone()).to_string();
    let answer = server.post("/v1/models/santander/predict", &list).json();
    let predictions = answer["predictions"].as_array().expect("predictions");
    assert_eq!(predictions.len(), 201);
    for (prediction, expected) in predictions.iter().zip(&expected) {
        assert_close(&prediction["probabilities"], expected);
    }
}

#[test]
fn the_command_line_agrees_with_xgboost() {
    let (_, expected) = santander();
    let records = repository().join("crates/engine/tests/data/santander/records.jsonl");
    let output = auspex()
        .args(["predict", "models/santander/1"])
        .stdin(std::fs::File::open(records).expect("records"))
        .output()
        .expect("runs");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text.lines().count(), 201);
    for (line, expected) in text.lines().zip(&expected) {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert_close(&line["probabilities"], expected);
    }
}

#[test]
fn one_instance_is_answered_with_its_label() {
    let server = Server::start();
    let (_, expected) = santander();
    for path in [
        "/v1/models/santander/predict",
        "/v1/models/santander/versions/1/predict",
        "/v1/models/santander/versions/latest/predict",
    ] {
        let answer = server.post(path, REQUEST);
        let json = answer.json();
        assert_eq!(answer.status, 200, "{json}");
        assert_eq!(
            (&json["model"], &json["model_version"]),
            (&json!("santander"), &json!("1"))
        );
        assert_eq!(json["request_id"].as_str(), answer.header("x-request-id"));
        assert_close(&json["probabilities"], &expected[0]);
        let probabilities = numbers(&json["probabilities"]);
        let best = (0..22).max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]));
        assert_eq!(json["prediction"], json["labels"][best.expect("22")]);
        assert_eq!(
            json["probability"],
            json["probabilities"][best.expect("22")]
        );
    }
}

#[test]
fn the_notebooks_positional_requests_are_answered_as_it_prints_them() {
    let server = Server::start();
    for (features, printed, label) in [
        (json!([0.5, 1.2, -0.3, 0.8]), "0.6341", 1),
        (json!([-1.0, -0.5, -2.0, -1.5]), "0.2227", 0),
        (json!([2.0, 1.5, 3.0, 2.5]), "0.9047", 1),
    ] {
        let body = json!({"features": features, "model_version": "latest"}).to_string();
        let json = server.post("/v1/models/mean-score/predict", &body).json();
        let score = json["probabilities"][1].as_f64().expect("a number");
        assert_eq!(
            (format!("{score:.4}").as_str(), &json["prediction"]),
            (printed, &json!(label))
        );
    }
}

#[test]
fn every_wrong_field_is_named_at_once() {
    let server = Server::start();
    let mut record: Value = serde_json::from_str(REQUEST).expect("JSON");
    record["age"] = json!("56");
    record["sexo"] = json!("X");
    record["cod_prov"] = json!(53);
    record["indrel"] = Value::Null;
    record["extra"] = json!(1);
    record
        .as_object_mut()
        .expect("an object")
        .remove("segmento");
    let answer = server.post("/predict", record.to_string());
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (422, "VALIDATION_ERROR")
    );
    let mut fields = answer.wrong_fields();
    fields.sort();
    assert_eq!(
        fields,
        ["age", "cod_prov", "extra", "indrel", "segmento", "sexo"]
    );
    let list = json!([
        serde_json::from_str::<Value>(REQUEST).expect("JSON"),
        record
    ])
    .to_string();
    let fields = server
        .post("/v1/models/santander/predict", list)
        .wrong_fields();
    assert_eq!(fields.len(), 6);
    assert!(
        fields.iter().all(|field| field.starts_with("[1].")),
        "{fields:?}"
    );
}

#[test]
fn each_kind_of_bad_body_has_its_status() {
    let server = Server::start();
    let with = |from: &str, to: &str| REQUEST.replace(from, to).into_bytes();
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("empty", Vec::new(), 400),
        ("not JSON", b"age=56".to_vec(), 400),
        ("truncated", REQUEST.as_bytes()[..200].to_vec(), 400),
        ("trailing", [REQUEST.as_bytes(), b"}"].concat(), 400),
        ("a number", b"1".to_vec(), 400),
        ("NaN", with("326124.9", "NaN"), 400),
        ("Infinity", with("326124.9", "Infinity"), 400),
        (
            "not UTF-8",
            with("MADRID", "\u{0}")
                .iter()
                .map(|b| if *b == 0 { 0xff } else { *b })
                .collect(),
            400,
        ),
        ("deep", deep, 400),
        ("1e999", with("326124.9", "1e999"), 422),
        ("-1e999", with("326124.9", "-1e999"), 422),
        ("out of range", with("\"age\": 56", "\"age\": 131"), 422),
        ("not whole", with("\"age\": 56", "\"age\": 56.5"), 422),
        ("a boolean", with("\"age\": 56", "\"age\": true"), 422),
        ("null", with("\"age\": 56", "\"age\": null"), 422),
        (
            "doubled key",
            with("\"age\": 56", "\"age\": 56, \"age\": 57"),
            422,
        ),
        ("unknown category", with("\"V\"", "\"W\""), 422),
        (
            "unknown field",
            with("\"age\": 56", "\"age\": 56, \"edad\": 57"),
            422,
        ),
        (
            "nested",
            with("\"age\": 56", "\"age\": {\"years\": 56}"),
            422,
        ),
        ("no record", b"[]".to_vec(), 422),
        ("null allowed", with("326124.9", "null"), 200),
        ("whole as float", with("\"age\": 56", "\"age\": 56.0"), 200),
    ];
    for (name, body, status) in cases {
        let answer = server.post("/predict", &body);
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        if status != 200 {
            let code = if status == 400 {
                "MALFORMED_REQUEST"
            } else {
                "VALIDATION_ERROR"
            };
            assert_eq!(answer.error_code(), code, "{name}");
        }
    }
}

#[test]
fn errors_never_repeat_what_was_sent() {
    let server = Server::start();
    let body = REQUEST
        .replace("\"V\"", "\"canary-7261\"")
        .replace("\"age\": 56", "\"age\": \"canary-7261\"");
    let answer = server.post("/predict", body);
    assert_eq!(answer.status, 422);
    assert!(!answer.text().contains("canary-7261"), "{}", answer.text());
}

#[test]
fn wrong_kinds_of_body_are_415() {
    let server = Server::start();
    let send = |headers: &[(&str, &str)]| {
        let mut all = vec![("X-API-Key", server.key.as_str())];
        all.extend(headers);
        server
            .connect()
            .send("POST", "/predict", &all, REQUEST.as_bytes())
    };
    assert_eq!(
        send(&[("Content-Type", "application/x-www-form-urlencoded")]).status,
        415
    );
    assert_eq!(
        send(&[("Content-Type", "text/csv")]).error_code(),
        "UNSUPPORTED_MEDIA_TYPE"
    );
    let json = ("Content-Type", "application/json");
    assert_eq!(send(&[json, ("Content-Encoding", "gzip")]).status, 415);
    assert_eq!(
        send(&[("Content-Type", "application/json; charset=utf-8")]).status,
        200
    );
    assert_eq!(send(&[]).status, 200);
}

#[test]
fn lists_have_a_limit() {
    let server = Server::start();
    let list = |n: usize| {
        let row = json!([0.5, 1.2, -0.3, 0.8]);
        json!({"features": vec![row; n]}).to_string()
    };
    let ok = server.post("/v1/models/mean-score/predict", list(1000));
    assert_eq!(
        ok.json()["predictions"].as_array().map(Vec::len),
        Some(1000)
    );
    assert_eq!(
        server
            .post("/v1/models/mean-score/predict", list(1001))
            .status,
        422
    );
}

#[test]
fn unknown_models_and_versions_are_404() {
    let server = Server::start();
    for path in [
        "/v1/models/nothing/predict",
        "/v1/models/santander/versions/9/predict",
        "/v1/models/santander%2F1/predict",
    ] {
        assert_eq!(
            server.post(path, REQUEST).error_code(),
            "NOT_FOUND",
            "{path}"
        );
    }
}

#[test]
fn models_are_listed_with_their_schemas() {
    let server = Server::start();
    let list = server.get("/v1/models").json();
    let text = list["data"].to_string();
    assert!(
        text.contains("santander") && text.contains("mean-score"),
        "{text}"
    );
    for path in ["/v1/models/santander", "/v1/models/santander/versions/1"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let answer = server.get("/v1/models/santander/schema");
    let schema = answer.json();
    assert_eq!(schema["properties"]["age"]["maximum"], 130, "{schema}");
    assert_eq!(schema["properties"]["sexo"]["enum"], json!(["H", "V"]));
    let tag = answer.header("etag").expect("a tag").to_owned();
    let headers = [
        ("X-API-Key", server.key.as_str()),
        ("If-None-Match", tag.as_str()),
    ];
    let path = "/v1/models/santander/schema";
    assert_eq!(
        server.connect().send("GET", path, &headers, b"").status,
        304
    );
}

/// Exit code, lines of output, and what was said on standard error.
fn predict_lines(package: &str, input: &[u8]) -> (Option<i32>, Vec<String>, String) {
    let mut child = auspex()
        .args(["predict", package])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().map(str::to_owned).collect();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), lines, said)
}

#[test]
fn each_line_of_input_has_one_of_output() {
    let input = b"\xef\xbb\xbf[0.5, 1.2, -0.3, 0.8]\n[1, 2]\n\nnonsense\n\xff\xfe\n\
        {\"f0\": 2, \"f1\": 1.5, \"f2\": 3, \"f3\": 2.5}\n\
        {\"features\": [0.5, 1.2, -0.3, 0.8]}\n\
        [[0.5, 1.2, -0.3, 0.8], [2, 1.5, 3, 2.5]]\n\
        [{\"f0\": 2, \"f1\": 1.5, \"f2\": 3, \"f3\": 2.5}]";
    let (code, lines, said) = predict_lines("models/mean-score/1", input);
    assert_eq!(code, Some(1));
    let answers: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or(Value::Null))
        .collect();
    assert_eq!(answers.len(), 9, "{lines:?}");
    for (index, error) in [
        (
            1,
            "must have 4 values, in the order of the model's schema, not 2",
        ),
        (3, "the line is not valid JSON"),
        (4, "is not UTF-8"),
    ] {
        let message = answers[index]["error"][0]["message"]
            .as_str()
            .expect("an error");
        assert!(message.starts_with(error), "{message}");
        let number = format!("line {}:", index + 1);
        assert!(said.contains(&number), "{number} is not in {said}");
    }
    assert!(said.contains("predicted: 3"), "{said}");
    assert_eq!(lines[2], "");
    let (first, second) = (&answers[0], &answers[5]);
    assert!(first["probability"].is_f64() && first != second);
    assert_eq!(&answers[6], first);
    assert_eq!(answers[7], json!([first, second]));
    assert_eq!(answers[8], json!([second]));
}

#[test]
fn csv_with_a_header_is_read_by_its_columns() {
    let input = b"f3,f0,f2,f1\n0.8,0.5,-0.3,1.2\nx,0.5,-0.3,1.2\n1,2\n2.5,2,\"3\",1.5\n";
    let (code, lines, said) = predict_lines("models/mean-score/1", input);
    assert_eq!((code, lines.len()), (Some(1), 4), "{said}");
    let by_position = b"[0.5, 1.2, -0.3, 0.8]\n[2, 1.5, 3, 2.5]\n";
    let (code, expected, _) = predict_lines("models/mean-score/1", by_position);
    assert_eq!(code, Some(0));
    assert_eq!((&lines[0], &lines[3]), (&expected[0], &expected[1]));
    assert!(said.contains("line 3: f3 must be a number"), "{said}");
    assert!(
        said.contains("line 4: (line) has 2 cells, the header 4"),
        "{said}"
    );

    // Blank lines, quoted line feeds and a quote that is never closed do not shift what follows.
    let input = b"\nf0,f1,f2,f3\n\n1,2,3,4\n\"1\n\",2,3,4\n1,2,3,x\n\"1,2,3,4\n5,6,7,8\n";
    let (code, lines, said) = predict_lines("models/mean-score/1", input);
    assert_eq!((code, lines.len()), (Some(1), 5), "{lines:?} {said}");
    assert_eq!(lines[0], "");
    for (index, words) in [
        (2, "line 5: f0 must be a number"),
        (3, "line 7: f3 must be a number"),
        (4, "line 8: (line) has a quote that is never closed"),
    ] {
        assert!(lines[index].starts_with("{\"error\""), "{}", lines[index]);
        assert!(said.contains(words), "{said}");
    }

    let (code, lines, said) = predict_lines("models/mean-score/1", b",f0,f1\n0,1,2\n");
    assert_eq!((code, lines.len()), (Some(1), 0));
    assert!(said.contains("index=False"), "{said}");

    for nothing in [b"".as_slice(), b"f0,f1,f2,f3\n"] {
        let (code, lines, said) = predict_lines("models/mean-score/1", nothing);
        assert_eq!((code, lines.len()), (Some(0), 0));
        assert!(said.contains("the input has no row"), "{said}");
    }
}

#[test]
fn an_explanation_is_the_same_by_route_and_by_command_and_adds_up() {
    let server = Server::start();
    let answer = server.post("/v1/models/santander/explain?top=3", REQUEST);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let explanation = &answer["explanation"];
    assert_eq!(explanation["label"], answer["prediction"]);
    let number = |value: &Value| value.as_f64().expect("a number");
    let contributions = explanation["contributions"].as_array().expect("a list");
    let sum: f64 = contributions
        .iter()
        .map(|c| number(&c["contribution"]))
        .sum();
    let sum = sum + number(&explanation["base"]) + number(&explanation["others"]);
    assert!(
        (sum - number(&explanation["margin"])).abs() < 1e-5,
        "{explanation}"
    );
    assert_eq!(contributions.len(), 3);
    let mut child = auspex()
        .args(["predict", "models/santander/1", "--explain=3"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let line = serde_json::from_str::<Value>(REQUEST)
        .expect("JSON")
        .to_string();
    let mut input = child.stdin.take().expect("piped");
    input.write_all(line.as_bytes()).expect("written");
    drop(input);
    let output = child.wait_with_output().expect("ends");
    let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(printed["explanation"], *explanation);
    // Predictions are as they were.
    let plain = server.post("/v1/models/santander/predict", REQUEST).json();
    assert_eq!(plain["probabilities"], answer["probabilities"]);
    assert!(plain["explanation"].is_null());
}

#[test]
fn a_model_that_is_not_explained_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let golden = repository().join("crates/engine/tests/golden/explained/logistic.pkl");
    std::fs::copy(golden, folder.path().join("model.pkl")).expect("copied");
    let asked = [&["predict"][..], &["models", "check"]].map(|command| {
        let explain = (command.len() == 1).then_some("--explain");
        let mut asking = auspex();
        let asking = asking.args(command).arg(folder.path()).args(explain);
        let output = asking.output().expect("runs");
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8(said).expect("UTF-8")
    });
    for said in asked {
        assert!(
            said.contains("others are then compared with them"),
            "{said}"
        );
    }
}
