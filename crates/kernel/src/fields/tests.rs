//! Fields, kinds and declared bodies.

use proptest::prelude::*;
use serde_json::json;
use utoipa::{IntoParams as _, PartialSchema as _};

use super::*;
use crate::page::CursorKey;
use crate::{RequestId, Timestamp};

crate::request_body! {
    /// A user to create.
    struct UserBody as "UserCreate" {
        /// What people
        /// call them
        name: String = required(text(1..=100).example("Alice")),
        email: String = required(email()),
        age: Option<i64> = optional(integer(1..=150)),
    }
}

crate::request_body! {
    /// What is to change.
    struct ChangeBody as "Change" {
        a: Option<bool> = change(boolean()),
        b: Option<Option<bool>> = change_or_clear(boolean()),
    }
}

crate::query_filters! {
    /// Which parcels to list.
    struct ParcelFilters {
        /// Of this size
        size: Size = one_of(SIZES, Size::word),
        sent: bool = boolean(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Size {
    Small,
    Large,
}

const SIZES: &[Size] = &[Size::Small, Size::Large];

impl Size {
    fn word(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
        }
    }
}

fn read<B: Body>(body: &Value) -> Result<B, ApiError> {
    B::parse(body.to_string().as_bytes())
}

fn refused(body: &Value) -> Vec<(String, String)> {
    let Err(error) = read::<UserBody>(body) else {
        panic!("{body} is accepted");
    };
    assert_eq!(
        (error.status().as_u16(), error.code()),
        (422, "VALIDATION_ERROR")
    );
    let details = error.details().iter();
    details
        .map(|e| (e.field.clone(), e.message.clone()))
        .collect()
}

#[test]
fn users_are_valid_or_every_wrong_field_is_named() {
    let alice = json!({"name": "Alice", "email": "alice@example.com"});
    let alice = read::<UserBody>(&alice).expect("good");
    assert_eq!((alice.name.as_str(), alice.age), ("Alice", None));
    assert_eq!(alice.email, "alice@example.com");
    let name = "must be text of 1 to 100 printable characters, without blanks at its ends";
    let email = "must be an e-mail address, such as name@example.org";
    let age = "must be an integer between 1 and 150";
    let pair = |field: &str, message: &str| (field.to_owned(), message.to_owned());
    assert_eq!(
        refused(&json!({"name": "", "email": "invalid"})),
        [pair("name", name), pair("email", email)]
    );
    let bob = json!({"name": "Bob", "email": "bob@test.com", "age": -5});
    assert_eq!(refused(&bob), [pair("age", age)]);
    assert_eq!(
        refused(&json!({"name": "  ", "age": 1.5, "admin": true})),
        [
            pair("name", name),
            pair("email", "is required"),
            pair("age", age),
            pair(
                "admin",
                "is not a field of this request; it takes name, email, age"
            ),
        ]
    );
}

#[test]
fn what_is_wrong_between_fields_is_told_with_the_rest() {
    let body = br#"{"name": "Ann", "age": 0}"#;
    let read = UserBody::parse_and_check(body, |user, fields| {
        assert_eq!((user.name.as_str(), user.email.as_str()), ("Ann", ""));
        fields.refuse("name", "is taken");
    });
    let error = read.map(|_| ()).expect_err("refused");
    let named: Vec<&str> = error.details().iter().map(|e| e.field.as_str()).collect();
    assert_eq!(named, ["email", "age", "name"]);
}

#[tokio::test]
async fn errors_have_the_shape_of_every_other() {
    let body = json!({"name": "", "email": "invalid"});
    let error = read::<UserBody>(&body).map(|_| ()).expect_err("refused");
    let id = RequestId::from_client(&http::HeaderValue::from_static("req_abc123"));
    let response = error.render(&id.expect("harmless"));
    assert_eq!(response.status(), 422);
    let body = crate::body::read(response.into_body())
        .await
        .expect("a body");
    let name = "must be text of 1 to 100 printable characters, without blanks at its ends";
    let email = "must be an e-mail address, such as name@example.org";
    assert_eq!(
        serde_json::from_slice::<Value>(&body).expect("JSON"),
        json!({"error": {
            "code": "VALIDATION_ERROR",
            "message": "2 fields are invalid",
            "details": [
                {"field": "name", "message": name},
                {"field": "email", "message": email},
            ],
            "request_id": "req_abc123",
        }})
    );
}

#[test]
fn a_body_of_very_many_fields_is_refused_soon() {
    let members: Vec<String> = (0..150_000).map(|n| format!("\"{n}\":0")).collect();
    let body = format!("{{{}}}", members.join(","));
    let clock = crate::Clock::system();
    let began = clock.now();
    let fields = Fields::parse(body.as_bytes()).expect("an object");
    assert_eq!(fields.finish().expect_err("refused").status(), 422);
    assert!(clock.now() < began + std::time::Duration::from_secs(20));
}

#[test]
fn what_is_no_object_is_malformed() {
    for body in [
        "",
        " ",
        "null",
        "3",
        "\"hunter2\"",
        "[]",
        "{",
        "{}x",
        "{} {}",
        "{\"a\":hunter2}",
        "{\"a\":1,}",
        "{\"\\ud800\":1}",
        "{\"a\":\"\u{0}\"}",
    ] {
        let error = Fields::parse(body.as_bytes()).map(|_| ()).expect_err(body);
        assert_eq!(
            (error.status().as_u16(), error.code()),
            (400, "MALFORMED_REQUEST")
        );
        assert!(!error.message().contains("hunter2"), "{}", error.message());
    }
    assert!(Fields::parse(b"{\"a\":\"\xff\"}").is_err());
    assert!(Fields::parse("[".repeat(100_000).as_bytes()).is_err());
    assert!(Fields::parse(format!("{{\"a\":{}", "[".repeat(100_000)).as_bytes()).is_err());
}

#[test]
fn repeated_and_unknown_fields_are_named_and_their_values_are_not() {
    let body = format!(
        "{{\"a\": true, \"a\": \"hunter2\", \"x\\u202e{}\": \"hunter2\"}}",
        "y".repeat(100)
    );
    let error = ChangeBody::parse(body.as_bytes()).map(|_| ());
    let error = error.expect_err("refused");
    let named: Vec<&str> = error.details().iter().map(|e| e.field.as_str()).collect();
    assert_eq!(named, ["a", &format!("x\\u{{202e}}{}", "y".repeat(62))]);
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[test]
fn a_change_tells_absent_from_null() {
    let change = |body: &Value| read::<ChangeBody>(body).map(|change| (change.a, change.b));
    let is = |body: Value, a, b| assert_eq!(change(&body).expect("good"), (a, b), "{body}");
    is(json!({}), None, None);
    is(
        json!({"a": true, "b": false}),
        Some(true),
        Some(Some(false)),
    );
    is(json!({"b": null}), None, Some(None));
    let error = change(&json!({"a": null, "b": 1})).expect_err("refused");
    let details = error.details();
    let message = "cannot be null; leave it out to keep it as it is";
    assert_eq!(
        (details[0].field.as_str(), details[0].message.as_str()),
        ("a", message)
    );
    assert_eq!(details[1].field, "b");
}

#[test]
fn the_document_says_what_the_reader_takes() {
    let schema = |schema| serde_json::to_value(schema).expect("JSON");
    assert_eq!(
        schema(UserBody::schema()),
        json!({
            "type": "object",
            "description": "A user to create.",
            "required": ["name", "email"],
            "properties": {
                "name": {
                    "type": "string", "minLength": 1, "maxLength": 100, "example": "Alice",
                    "description": "What people\ncall them",
                },
                "email": {"type": "string", "format": "email", "maxLength": 254},
                "age": {"type": ["integer", "null"], "minimum": 1, "maximum": 150},
            },
            "additionalProperties": false,
        })
    );
    assert_eq!(
        schema(ChangeBody::schema())["properties"],
        json!({"a": {"type": "boolean"}, "b": {"type": ["boolean", "null"]}})
    );
    let parameters = serde_json::to_value(ParcelFilters::into_params(|| None)).expect("JSON");
    let size = json!({
        "name": "size", "in": "query", "required": false, "description": "Of this size",
        "schema": {"type": "string", "enum": ["small", "large"]},
    });
    assert_eq!(parameters[0], size);
    assert_eq!(parameters[1]["name"], "sent");
}

#[test]
fn filters_are_read_or_every_wrong_one_is_named() {
    let key = CursorKey([7; 32]);
    let parse = |query| {
        let read = ParcelFilters::parse(&key, "/parcels", Some(query));
        read.map(|(_, filters)| (filters.size, filters.sent))
    };
    assert_eq!(parse("limit=2").expect("good"), (None, None));
    let both = parse("size=large&sent=false").expect("good");
    assert_eq!(both, (Some(Size::Large), Some(false)));
    let error = parse("size=LARGE&sent=0").expect_err("refused");
    assert_eq!(error.status(), 422);
    let details = error.details().iter();
    let details: Vec<_> = details
        .map(|e| (e.field.as_str(), e.message.as_str()))
        .collect();
    assert_eq!(
        details,
        [
            ("size", "must be one of small, large"),
            ("sent", "must be true or false"),
        ]
    );
}

#[test]
fn kinds_take_what_they_say() {
    assert_eq!(text(0..=3).read(&json!("")), Ok(String::new()));
    assert_eq!(text(1..=3).read(&json!("añb")), Ok("añb".into()));
    assert!(text(1..=3).read(&json!("a:b")).is_ok());
    let wrong = text(1..=3).without_colon().read(&json!("a:b"));
    let message =
        "must be text of 1 to 3 printable characters without a colon, without blanks at its ends";
    assert_eq!(wrong, Err(message.into()));
    for wrong in [
        json!("abcd"),
        json!("a\n"),
        json!(1),
        json!(null),
        json!("\u{202e}"),
    ] {
        assert!(text(1..=3).read(&wrong).is_err(), "{wrong}");
    }
    assert_eq!(opaque(3).read(&json!("a\nñ")), Ok("a\nñ".into()));
    assert_eq!(opaque(3).read(&json!("abcd")), Err("is too long".into()));
    assert!(opaque(3).read(&json!(1)).is_err());
    assert!(email().read(&json!("a@b.c")).is_ok());
    for wrong in [
        "@", ".@", "@.", "a.b", "a@b", "a @b.c", "a@b.c\n", "a@b@c.d", "a@b.", "@b.c", "a@.c",
    ] {
        assert!(email().read(&json!(wrong)).is_err(), "{wrong}");
    }
    assert!(
        email()
            .read(&json!(format!("{}@b.c", "a".repeat(251))))
            .is_err()
    );
    for (whole, value) in [(json!(-1), -1), (json!(1.0), 1), (json!(-0.0), 0)] {
        assert_eq!(integer(-1..=1).read(&whole), Ok(value), "{whole}");
    }
    for wrong in [
        json!(2),
        json!(0.5),
        json!(1e300),
        json!("1"),
        json!(true),
        json!(u64::MAX),
    ] {
        assert!(integer(-1..=1).read(&wrong).is_err(), "{wrong}");
    }
    assert!(boolean().read(&json!("true")).is_err() && boolean().read(&json!(0)).is_err());
    let time = timestamp().read(&json!("2026-01-25T10:00:00.5Z"));
    assert_eq!(time, Ok(Timestamp(1_769_335_200_500_000)));
    assert!(timestamp().read(&json!(1_769_335_200)).is_err());
    let size = one_of(SIZES, Size::word);
    assert_eq!(size.read(&json!("large")), Ok(Size::Large));
    assert_eq!(
        size.read(&json!("LARGE")),
        Err("must be one of small, large".into())
    );
    let words = list(1..=2, text(1..=3));
    assert_eq!(
        words.read(&json!(["a", "b"])),
        Ok(vec!["a".into(), "b".into()])
    );
    for wrong in [
        json!([]),
        json!(["a", "b", "c"]),
        json!(["a", 1]),
        json!("a"),
    ] {
        assert!(words.read(&wrong).is_err(), "{wrong}");
    }
    let set = scopes().read(&json!(["models:read", "predict"]));
    assert_eq!(
        set.map(|set| set.to_string()),
        Ok("predict models:read".into())
    );
    let wrong = scopes().read(&json!(["predict", "hunter2"]));
    let wrong = wrong.expect_err("unknown");
    assert!(
        wrong.contains("predict") && !wrong.contains("hunter2"),
        "{wrong}"
    );
    assert!(scopes().read(&json!("predict")).is_err());
    assert_eq!(
        scopes().read(&json!([])),
        Err("must hold at least one".into())
    );
}

proptest! {
    #[test]
    fn garbage_is_refused_and_never_a_panic(body in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = UserBody::parse(&body);
    }
}
