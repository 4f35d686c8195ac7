//! What predictions answer.

use super::*;

#[tokio::test]
async fn the_default_model_answers_all_numbers() {
    let reply = post("/predict", RECORD).await;
    assert_eq!(
        (reply.status, reply.json()),
        (StatusCode::OK, json!({"predictions": [[0.5, 0.5]]}))
    );
    let reply = post("/predict", format!("[{RECORD},{RECORD}]")).await;
    assert_eq!(
        reply.json(),
        json!({"predictions": [[0.5, 0.5], [0.5, 0.5]]})
    );
    assert_eq!(reply.headers[header::CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn a_named_model_answers_labels() {
    let reply = post("/v1/models/kitchen/predict", RECORD).await;
    assert_eq!(
        String::from_utf8(reply.body).expect("UTF-8"),
        r#"{"model":"kitchen","model_version":"1","prediction":"no","probability":0.5,"probabilities":[0.5,0.5],"labels":["no","yes"],"request_id":"req_test"}"#
    );
    let reply = post("/v1/models/kitchen/predict", format!("[{RECORD}]")).await;
    let row = json!({"prediction": "no", "probability": 0.5, "probabilities": [0.5, 0.5]});
    let expected = json!({"model": "kitchen", "model_version": "1", "labels": ["no", "yes"],
        "predictions": [row], "request_id": "req_test"});
    assert_eq!(reply.json(), expected);
}

#[tokio::test]
async fn a_regression_answers_a_number_and_nulls() {
    let reply = post(
        "/v1/models/mean/versions/1/predict",
        r#"{"features":[1, 2]}"#,
    )
    .await;
    let expected = json!({"model": "mean", "model_version": "1", "prediction": 1.5, "probability": null,
        "probabilities": null, "labels": null, "request_id": "req_test"});
    assert_eq!(reply.json(), expected);
    let reply = post("/v1/models/pair/predict", r#"{"features":[1, 2]}"#).await;
    assert_eq!(reply.json()["prediction"], json!([1.5, 2.5]));
    let reply = post("/v1/models/three/predict", r#"{"features":[1, 2]}"#).await;
    assert_eq!(
        (&reply.json()["prediction"], &reply.json()["labels"]),
        (&json!(2), &json!([0, 1, 2]))
    );
}

#[tokio::test]
async fn the_version_is_chosen_by_path_or_body() {
    let version = async |path: &str, body: &str| {
        let reply = post(path, body.to_owned()).await;
        match reply.status {
            StatusCode::OK => reply.json()["model_version"].as_str().map(str::to_owned),
            _ => reply.fields().first().cloned(),
        }
    };
    let four = r#"{"features":[1,2,3,4]}"#;
    assert_eq!(
        version("/v1/models/mean/predict", four).await.as_deref(),
        Some("2")
    );
    assert_eq!(
        version("/v1/models/mean/versions/latest/predict", four)
            .await
            .as_deref(),
        Some("2")
    );
    let old = r#"{"features":[1,2],"model_version":"1"}"#;
    assert_eq!(
        version("/v1/models/mean/predict", old).await.as_deref(),
        Some("1")
    );
    assert_eq!(
        version("/v1/models/mean/versions/1/predict", old)
            .await
            .as_deref(),
        Some("1")
    );
    let other = version("/v1/models/mean/versions/2/predict", old).await;
    assert_eq!(
        other.as_deref(),
        Some("features: must have 4 values, in the order of the model's schema, not 2")
    );
    let none = r#"{"features":[1,2,3,4],"model_version":"7"}"#;
    let none = version("/v1/models/mean/predict", none).await;
    assert_eq!(
        none.as_deref(),
        Some(r#"model_version: must be one of the strings "1", "2", "latest""#)
    );
}

#[tokio::test]
async fn long_lists_give_what_short_ones_give() {
    let padded = RECORD.replace('{', &format!("{{\"noted\":\"{}\",", "x".repeat(2000)));
    for record in [RECORD, &padded] {
        let list = vec![record; 40].join(",");
        let reply = post("/predict", format!("[{list}]")).await;
        assert_eq!(reply.json()["predictions"], json!(vec![[0.5, 0.5]; 40]));
    }
}

#[tokio::test]
async fn rows_are_counted() {
    let service = service("kitchen");
    let mut registry = Registry::default();
    service.register_metrics(&mut registry);
    let router = route(&service, Publisher::new().0).await;
    let list = [RECORD; 7].join(",");
    send(&router, request("POST", "/predict", format!("[{list}]"))).await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
    assert!(
        text.contains("predictions_total{model=\"kitchen\",version=\"1\"} 7"),
        "{text}"
    );
}

#[tokio::test]
async fn a_model_with_texts_and_two_outputs_answers_both() {
    let expected = json!({"prediction": 3.0, "probability": null, "probabilities": null, "outputs": {
        "risk": {"prediction": 1, "probability": 0.95257413, "probabilities": [0.047425866, 0.95257413],
            "labels": [0, 1]}}});
    for body in [
        r#"{"age": 2, "town": "Lugo"}"#,
        r#"{"features": [2, "Lugo"]}"#,
    ] {
        let mut answer = post("/v1/models/town/predict", body).await.json();
        for (key, value) in expected.as_object().expect("an object") {
            assert_eq!(&answer[key].take(), value, "{key}");
        }
    }
    let list = r#"[{"town": "Lugo"}, {"town": "Pontevedra"}, {}]"#;
    let answer = post("/v1/models/town/predict", list).await.json();
    let numbers = [4.0, 10.0, 0.0].map(|number| json!(number));
    for (row, number) in numbers.iter().enumerate() {
        assert_eq!(&answer["predictions"][row]["prediction"], number);
    }
    let view = get("/v1/models/town/versions/1").await.json();
    assert_eq!(view["outputs"]["risk"]["kind"], json!("binary"));
    assert_eq!(view["features"][1]["type"], json!("string"));
}

#[tokio::test]
async fn texts_go_along_to_the_compute_pool() {
    let names: Vec<String> = (0..40).map(|index| "x".repeat(index)).collect();
    let rows: Vec<Value> = names.iter().map(|name| json!({"town": name})).collect();
    let answer = post("/v1/models/town/predict", json!(rows).to_string())
        .await
        .json();
    for index in 0..40u8 {
        assert_eq!(
            answer["predictions"][usize::from(index)]["prediction"],
            json!(f64::from(index))
        );
    }
}

/// Lines of numbers between commas, answered in kind: a protocol that shares nothing with ours.
#[derive(Clone, Copy)]
struct Csv;

impl Protocol for Csv {
    type Shape = ();

    fn read(
        self,
        _: &mut Target,
        text: &str,
        rows_max: usize,
        scratch: &mut Scratch,
    ) -> Result<(), PredictError> {
        scratch.rows.clear();
        for line in text.lines().take(rows_max) {
            for cell in line.split(',') {
                let number = cell.parse();
                let refuse = |_| Refusal::Malformed("not a number".into());
                scratch.rows.values.push(number.map_err(refuse)?);
            }
        }
        Ok(())
    }

    fn place(self, (): (), row: usize) -> String {
        format!("line {}", row + 1)
    }

    fn write(self, _: &Version, (): (), answer: &Answer<'_>, request_id: &str, out: &mut Vec<u8>) {
        let lines: Vec<String> = answer.values.iter().map(f64::to_string).collect();
        out.extend(format!("{request_id}:{}", lines.join(",")).as_bytes());
    }
}

#[tokio::test]
async fn another_protocol_reads_and_answers_in_its_own_way() {
    let service = service("kitchen");
    let target = || {
        let model = service.models().model("pair").cloned();
        model.and_then(Target::latest).expect("loaded")
    };
    let ask = async |body: &str| {
        let body = Bytes::from(body.to_owned());
        let answer = service.predict(target(), body, Csv, "r").await;
        answer.map(|bytes| String::from_utf8(bytes).expect("UTF-8"))
    };
    assert_eq!(ask("1,2\n3,5").await.expect("numbers"), "r:1.5,2.5,4,5");
    // More rows than are predicted on this thread.
    let long = ask(&["1,2"; 9].join("\n")).await.expect("numbers");
    assert_eq!(long.matches("1.5").count(), 9);
    assert!(matches!(
        ask("x").await,
        Err(PredictError::Refused(Refusal::Malformed(_)))
    ));
}
