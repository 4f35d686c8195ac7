use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::transcode::api::{Api, Found};
use crate::transcode::output::{self, Shown};

fn api() -> Api {
    let bytes = include_bytes!("../../../tests/grpc/scores.binpb");
    Api::new(Bytes::from_static(bytes)).expect("a whole set")
}

/// The message that a request comes to, and the call it is for.
fn ask(
    api: &Api,
    method: &str,
    target: &str,
    body: &str,
) -> Result<(String, DynamicMessage), ApiError> {
    let method = method.parse().expect("a method");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Found::Call(binding, values) = api.find(&method, path) else {
        panic!("{target} is no call")
    };
    let body = Bytes::copy_from_slice(body.as_bytes());
    let asked = message(binding, &values, query, body, "text/x")?;
    Ok((binding.call.path.clone(), asked))
}

fn asked(method: &str, target: &str, body: &str) -> Json {
    let (_, message) = ask(&api(), method, target, body).expect(target);
    serde_json::to_value(message).expect("JSON")
}

fn refused(method: &str, target: &str, body: &str) -> (u16, Vec<(String, String)>) {
    let error = ask(&api(), method, target, body).expect_err(target);
    let details = error.details().iter();
    let details = details.map(|one| (one.field.clone(), one.message.clone()));
    (error.status().as_u16(), details.collect())
}

#[test]
fn requests_lead_to_their_calls() {
    let api = api();
    for (method, path, call) in [
        ("GET", "/v1/scores/7", "GetScore"),
        ("GET", "/v1/users/Ada/scores/7", "GetScore"),
        ("GET", "/v1/scores", "ListScores"),
        ("POST", "/v1/scores", "CreateScore"),
        ("PATCH", "/v1/scores/7", "UpdateScore"),
        ("POST", "/v1/scores/7:cancel", "CancelScore"),
        ("GET", "/v1/files/a/b", "Download"),
    ] {
        let (found, _) = ask(&api, method, path, "").expect(path);
        assert_eq!(
            found,
            format!("/auspex.test.Scores/{call}"),
            "{method} {path}"
        );
    }
    let watched = api.find(&http::Method::GET, "/v1/scores:watch");
    assert!(matches!(watched, Found::Call(binding, _) if binding.call.has_stream));
    let Found::OtherMethods(allow) = api.find(&http::Method::DELETE, "/v1/scores") else {
        panic!("other methods")
    };
    assert_eq!(allow, "GET, POST");
    for path in ["/", "/v2/scores", "/auspex.test.Scores/Hide", "/v1/scores/"] {
        assert!(
            matches!(api.find(&http::Method::GET, path), Found::Nothing),
            "{path}"
        );
    }
}

#[test]
fn a_message_is_put_together() {
    assert_eq!(
        asked("GET", "/v1/scores/9007199254740993", ""),
        json!({"id": "9007199254740993"})
    );
    assert_eq!(
        asked("GET", "/v1/users/Ada%20L%2F/scores/7?user.age=36", ""),
        json!({"id": "7", "user": {"name": "Ada L/", "age": 36}})
    );
    let query = "tags=a&tags=b%26c&filter.min_value=0.5&filter.user.name=x&pageSize=3&levels=HIGH&levels=1\
                 &all=true&after=2026-01-25T10:00:00Z&limit=5&checked=false&filter.raw=YQ%3D%3D&filter.big=18446744073709551615";
    assert_eq!(
        asked("GET", &format!("/v1/scores?{query}"), ""),
        json!({
            "tags": ["a", "b&c"], "pageSize": 3, "levels": ["HIGH", "LOW"], "all": true,
            "filter": {"minValue": 0.5, "user": {"name": "x"}, "raw": "YQ==", "big": "18446744073709551615"},
            "after": "2026-01-25T10:00:00Z", "limit": "5", "checked": false,
        })
    );
    let score = json!({
        "name": "n", "id": "5", "level": "HIGH", "tags": ["a"], "counts": {"x": 1}, "took": "1.500s",
        "createdAt": "2026-01-25T10:00:00Z", "raw": "YQ==", "user": {"name": "u"}, "model": "m", "checked": true,
    });
    assert_eq!(asked("POST", "/v1/scores", &score.to_string()), score);
    let names = json!({"id": 5, "level": 2, "is_final": true, "number": 3.0, "value": "NaN"});
    assert_eq!(
        asked("POST", "/v1/scores", &names.to_string()),
        json!({"id": "5", "level": "HIGH", "isFinal": true, "number": "3", "value": "NaN"})
    );
    // What stands in the path is so, whatever the body says.
    assert_eq!(
        asked(
            "PATCH",
            "/v1/scores/7?dry_run=true",
            "{\"name\": \"x\", \"value\": 1}"
        ),
        json!({"score": {"name": "scores/7", "value": 1.0}, "dryRun": true})
    );
    assert_eq!(
        asked("PUT", "/v1/names?comment=c", "[\"a\", \"b\"]"),
        json!({"names": ["a", "b"], "comment": "c"})
    );
    assert_eq!(asked("POST", "/v1/scores", ""), json!({}));
    assert_eq!(
        asked("POST", "/v1/files/a/b", "raw"),
        json!({"path": "a/b", "file": {"contentType": "text/x", "data": "cmF3"}})
    );
}

#[test]
fn what_is_wrong_is_named_by_its_field() {
    for (target, field, must) in [
        ("/v1/scores/x", "id", "must be an integer of 64 bits"),
        (
            "/v1/scores/1?x=1",
            "x",
            "is no field of auspex.test.GetScoreRequest",
        ),
        ("/v1/scores/1?id=2", "id", "leave it out"),
        ("/v1/scores/1?user=2", "user", "name a field of it"),
        (
            "/v1/scores/1?user.age=x",
            "user.age",
            "must be an integer of 32 bits",
        ),
        ("/v1/scores/1?user.x.y=1", "user.x.y", "is no field of"),
        ("/v1/scores/1?user.age.y=1", "user.age.y", "has no fields"),
        (
            "/v1/scores?levels=MIDDLE",
            "levels",
            "must be a value of auspex.test.Level",
        ),
        ("/v1/scores?labels.a=b", "labels.a", "has no fields"),
        ("/v1/scores?labels=b", "labels", "is a map"),
        ("/v1/scores?all=yes", "all", "true or false"),
        (
            "/v1/scores?after=now",
            "after",
            "must be a google.protobuf.Timestamp",
        ),
        ("/v1/scores?filter.raw=!", "filter.raw", "must be base64"),
        ("/v1/scores?all=true&all=true", "all", "is given twice"),
        (
            "/v1/scores?filter.min_value=1e999",
            "filter.min_value",
            "can hold",
        ),
    ] {
        let (status, details) = refused("GET", target, "");
        assert_eq!((status, details.len()), (422, 1), "{target}: {details:?}");
        let (at, why) = &details[0];
        assert_eq!(at, field, "{target}");
        assert!(why.contains(must), "{target}: {why}");
    }
    let two = refused("GET", "/v1/scores?all=yes&page_size=x", "");
    assert_eq!(two.1.len(), 2);
    for (body, field, must) in [
        ("{\"value\": \"x\"}", "value", ""),
        ("{\"user\": {\"age\": 1.5}}", "user.age", ""),
        (
            "{\"user\": {\"age\": true}}",
            "user.age",
            "must be a 32-bit signed integer",
        ),
        (
            "{\"users\": [{}, {\"age\": []}]}",
            "users[1].age",
            "must be",
        ),
        ("{\"level\": \"MIDDLE\"}", "level", ""),
        ("{\"counts\": {\"a\": \"b\"}}", "counts.a", ""),
        ("{\"createdAt\": \"now\"}", "createdAt", ""),
        (
            "{\"model\": \"m\", \"number\": 1}",
            "(body)",
            "of which it may have one",
        ),
        ("[]", "(body)", "must be"),
    ] {
        let (status, details) = refused("POST", "/v1/scores", body);
        assert_eq!(
            (status, details[0].0.as_str()),
            (422, field),
            "{body}: {details:?}"
        );
        assert!(details[0].1.contains(must), "{body}: {details:?}");
    }
    // The name of a field that there is not.
    let (status, details) = refused("POST", "/v1/scores", "{\"user\": {\"nope\": 1}}");
    assert_eq!(status, 422);
    assert_eq!(details[0].0, "user.nope", "{details:?}");
    assert_eq!(
        refused("POST", "/v1/scores", "{\"nope\": 1}").1[0].0,
        "nope"
    );
    // Base64 needs no padding, and a number may be called infinite.
    for (query, wanted) in [
        ("filter.raw=aGk", json!({"filter": {"raw": "aGk="}})),
        (
            "filter.min_value=Infinity",
            json!({"filter": {"minValue": "Infinity"}}),
        ),
    ] {
        assert_eq!(asked("GET", &format!("/v1/scores?{query}"), ""), wanted);
    }
    let (status, details) = refused("PATCH", "/v1/scores/7", "{\"value\": []}");
    assert_eq!((status, details[0].0.as_str()), (422, "score.value"));
    for body in [
        "{",
        "{\"value\": }",
        "{} {}",
        "{\"name\": \"\u{0}\"}",
        "\u{feff}{}",
    ] {
        assert_eq!(refused("POST", "/v1/scores", body).0, 400, "{body}");
    }
    // A body that is one field is one value, and brings no other.
    for body in [
        "[\"a\"],\"comment\":\"b\"",
        "[\"a\"]}",
        "[\"a\"] []",
        "[",
        "\u{0}",
    ] {
        assert_eq!(refused("PUT", "/v1/names", body).0, 400, "{body}");
    }
    let many = format!("{{\"users\": [{}{{}}]}}", "{},".repeat(VALUES_MAX));
    assert_eq!(refused("POST", "/v1/scores", &many).0, 413);
    // No value is repeated, and no depth is followed for ever.
    let (_, details) = refused("POST", "/v1/scores", "{\"value\": \"secret\"}");
    assert!(!format!("{details:?}").contains("secret"), "{details:?}");
    let deep = format!("/v1/scores?{}=1", vec!["a"; 100].join("."));
    assert_eq!(refused("GET", &deep, "").0, 422);
    let nested = "{\"user\":".repeat(100_000);
    assert_eq!(refused("POST", "/v1/scores", &nested).0, 400);
    let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(refused("PUT", "/v1/names", &nested(NESTING_MAX)).0, 400);
    assert_eq!(refused("PUT", "/v1/names", &nested(NESTING_MAX - 1)).0, 422);
    let opening = format!("[{}[]]", "[],".repeat(VALUES_MAX / 2));
    assert_eq!(refused("PUT", "/v1/names", &opening).0, 413);
    let text = format!("[\"\\\"{}\"]", "[,".repeat(VALUES_MAX));
    assert_eq!(
        asked("PUT", "/v1/names", &text)["names"],
        serde_json::from_str::<Json>(&text).expect("JSON")
    );
}

#[test]
fn answers_are_shown_as_their_call_says() {
    let api = api();
    let shown = |path: &str, message: Json| {
        let Found::Call(binding, _) = api.find(&http::Method::GET, path) else {
            panic!("{path} is no call")
        };
        let message =
            DynamicMessage::deserialize(binding.shape.message.clone(), message).expect("a message");
        output::read(
            &binding.shape,
            prost::Message::encode_to_vec(&message).into(),
        )
    };
    let json = |path: &str, message: Json| match shown(path, message) {
        Ok(Shown::Json(json)) => serde_json::from_slice::<Json>(&json).expect("JSON"),
        _ => panic!("no JSON"),
    };
    let score = json!({"id": "9007199254740993", "level": "LOW", "value": 0.1});
    assert_eq!(json("/v1/scores/1", score.clone()), score);
    assert_eq!(
        json("/v1/names", json!({"names": ["a"], "comment": "c"})),
        json!(["a"])
    );
    assert_eq!(json("/v1/names", json!({})), json!([]));
    let raw = shown(
        "/v1/files/a",
        json!({"contentType": "text/plain", "data": "YQ=="}),
    );
    let expected = Shown::Raw {
        content_type: "text/plain".into(),
        data: Bytes::from_static(b"a"),
    };
    assert_eq!(raw.ok(), Some(expected));
    let Found::Call(binding, _) = api.find(&http::Method::GET, "/v1/scores/1") else {
        panic!("a call")
    };
    assert!(output::read(&binding.shape, Bytes::from_static(b"\xff\xff")).is_err());
}

proptest! {
    /// A query fills the fields that it names, whatever it says.
    #[test]
    fn texts_reach_their_fields(name in "[ -~é]{0,20}", tags in prop::collection::vec("[ -~]{0,9}", 1..4)) {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("filter.user.name", &name);
        for tag in &tags {
            query.append_pair("tags", tag);
        }
        let (_, message) = ask(&api(), "GET", &format!("/v1/scores?{}", query.finish()), "").expect("valid");
        let json = serde_json::to_value(message).expect("JSON");
        prop_assert_eq!(&json["tags"], &json!(tags));
        let found = json["filter"]["user"]["name"].as_str().unwrap_or_default();
        prop_assert_eq!(found, name.as_str());
    }

    #[test]
    fn no_body_and_no_query_is_fatal(body in "[{}\\[\\]\":,a-z0-9 .\\\\-]{0,60}", query in "[a-z.=&%0-9_]{0,40}") {
        let api = api();
        let _ = ask(&api, "POST", "/v1/scores", &body);
        let _ = ask(&api, "GET", &format!("/v1/scores?{query}"), "");
    }
}
