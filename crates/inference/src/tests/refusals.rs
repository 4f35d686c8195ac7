//! Which requests are refused, and with which words.

use super::*;
use crate::fixture::{REASON, REFUSED};

#[tokio::test]
async fn strangers_are_not_found() {
    for path in [
        "/v1/models/nobody/predict",
        "/v1/models/mean/versions/9/predict",
        "/v1/models/%ff/predict",
    ] {
        assert_eq!(
            post(path, RECORD).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    let reply = send(&router("").await, request("POST", "/predict", RECORD)).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert!(reply.message().contains("default_model"));
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let record =
        r#"{"age":300,"sexo":7,"income":"much","active":null,"stranger":1,"sex":1,"age":3}"#;
    let expected = [
        "age: must be an integer between 0 and 130",
        "sexo: must be one of H, V",
        "income: must be a number of at least 0, or null",
        "active: must be true or false",
        "stranger: is not a field of this model",
        "sex: is not a field of this model; did you mean sexo?",
        "age: is given more than once",
    ];
    let reply = post("/predict", record).await;
    assert_eq!(
        (reply.status, reply.fields()),
        (
            StatusCode::UNPROCESSABLE_ENTITY,
            expected.map(String::from).to_vec()
        )
    );
    let reply = post("/predict", format!("[{RECORD},{{\"age\":1}},3]")).await;
    assert_eq!(
        reply.fields(),
        [
            "[1].sexo: is required",
            "[1].active: is required",
            "[2]: must be an object with the model's fields; values by position go into \
             {\"features\": […]}",
        ]
    );
    for name in ["instances", "inputs", "dataframe_split"] {
        let reply = post("/predict", format!("{{\"{name}\":[{RECORD}]}}")).await;
        let wanted = format!("{name}: is not a field of this model; send a record, a list");
        assert!(
            reply.fields()[0].starts_with(&wanted),
            "{:?}",
            reply.fields()
        );
    }
    for body in [
        format!("{{\"features\":[{RECORD}]}}"),
        format!("{{\"features\":{RECORD}}}"),
        format!("{{\"features\":[[{RECORD}]]}}"),
        format!("{{\"features\":[[1,\"H\",null,1,null,1],{RECORD}]}}"),
    ] {
        let reply = post("/predict", body).await;
        let wanted =
            "a record by name is a body of its own, {…}, and so is a list of them, [{…}, …]";
        assert!(reply.fields()[0].contains(wanted), "{:?}", reply.fields());
    }
    let reply = post("/predict", r#"{"SEXO":"H","a\tb":1}"#).await;
    let fields = reply.fields();
    assert_eq!(
        fields[0],
        "SEXO: is not a field of this model; did you mean sexo?"
    );
    assert_eq!(fields[1], r"a\tb: is not a field of this model");
    let reply = post(
        "/predict",
        r#"{"features":[[1,"H",null,1,null,1],[1,"H",null,2,null,1e999]]}"#,
    )
    .await;
    assert_eq!(
        reply.fields(),
        [
            "features[1][3]: must be true or false",
            "features[1][5]: must be a finite number"
        ]
    );
}

#[tokio::test]
async fn too_many_errors_are_counted() {
    let list = vec!["{}"; 40].join(",");
    let reply = post("/predict", format!("[{list}]")).await;
    let fields = reply.fields();
    assert_eq!(fields.len(), 100);
    assert_eq!(
        fields[99],
        "(body): has 21 more invalid fields that are not listed"
    );
}

#[tokio::test]
async fn the_number_of_instances_is_bounded() {
    let reply = post("/predict", "[]").await;
    assert_eq!(reply.fields(), ["(body): must hold at least one instance"]);
    let list = vec![RECORD; 51].join(",");
    let reply = post("/predict", format!("[{list}]")).await;
    assert_eq!(
        reply.fields(),
        ["(body): must hold at most 50 instances, not 51; a job takes more, see POST /v1/jobs"]
    );
}

#[tokio::test]
async fn unreadable_bodies_are_malformed() {
    let deep = "[".repeat(20_000) + &"]".repeat(20_000);
    for (body, words) in [
        ("", "the body is empty"),
        ("{\"age\":", "line 1 column 7"),
        ("{\"income\": NaN}", "JSON has no NaN"),
        ("{\"income\":-Infinity}", "JSON has no NaN"),
        ("{\"age\":1}x", "trailing characters"),
        ("3", "must be a JSON object or a list"),
        (&deep, "nested deeper than 128"),
    ] {
        let reply = post("/predict", body.to_owned()).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{words}");
        assert!(reply.message().contains(words), "{}", reply.message());
    }
    let reply = post("/predict", vec![b'{', 0xff]).await;
    assert!(
        reply.message().contains("not valid UTF-8"),
        "{}",
        reply.message()
    );
}

#[tokio::test]
async fn only_plain_json_is_read() {
    let router = router("kitchen").await;
    let with = async |name: header::HeaderName, value: &str| {
        let mut request = request("POST", "/predict", RECORD);
        request
            .headers_mut()
            .insert(name, value.parse().expect("a header value"));
        send(&router, request).await
    };
    for good in [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/vnd.x+json",
    ] {
        assert_eq!(
            with(header::CONTENT_TYPE, good).await.status,
            StatusCode::OK,
            "{good}"
        );
    }
    for bad in ["text/plain", "application/jsonx", "", "json"] {
        let status = with(header::CONTENT_TYPE, bad).await.status;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{bad}");
    }
    let reply = with(header::CONTENT_ENCODING, "gzip").await;
    assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(
        !reply.message().contains("gzip"),
        "no value of the client's"
    );
    assert_eq!(
        with(header::CONTENT_ENCODING, "identity").await.status,
        StatusCode::OK
    );
    // As `auspex predict` reads it.
    let marked = format!("\u{feff}{RECORD}");
    let reply = send(&router, request("POST", "/predict", marked)).await;
    assert_eq!(reply.status, StatusCode::OK);
    let mut bare = request("POST", "/predict", RECORD);
    bare.headers_mut().remove(header::CONTENT_TYPE);
    assert_eq!(send(&router, bare).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_row_that_the_model_refuses_is_named_where_the_body_has_it() {
    let good = r#"{"town": "Lugo"}"#;
    let bad = format!(r#"{{"town": "{REFUSED}"}}"#);
    let long = [vec![good; 20], vec![&bad]].concat().join(",");
    for (body, place) in [
        (bad.clone(), "(body)"),
        (format!("[{good}, {bad}]"), "[1]"),
        (format!("[{long}]"), "[20]"),
        (format!(r#"{{"features": [1, "{REFUSED}"]}}"#), "features"),
        (
            format!(r#"{{"features": [[1, "Lugo"], [2, null], [3, "{REFUSED}"]]}}"#),
            "features[2]",
        ),
    ] {
        let reply = post("/v1/models/town/predict", body.clone()).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!(reply.fields(), [format!("{place}: {REASON}")]);
    }
}
