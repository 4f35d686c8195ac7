//! Request bodies and filters: what the document allows is accepted, and what lies just beyond is
//! refused.

use std::collections::BTreeSet;

use auspex_kernel::fields::{Body, Filters};
use auspex_kernel::{ApiError, CursorKey, Timestamp};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::user_body::{self, UserFilters};
use super::{api_keys, auth, me, oauth};

/// A declared body: its name and schema in the document, and its reader.
struct Declared {
    name: String,
    schema: Value,
    read: fn(&[u8]) -> Result<(), ApiError>,
}

fn declared<B: ToSchema>(read: fn(&[u8]) -> Result<(), ApiError>) -> Declared {
    Declared {
        name: B::name().into_owned(),
        schema: serde_json::to_value(<B as PartialSchema>::schema()).expect("JSON"),
        read,
    }
}

/// A body that needs no check beyond its declaration.
fn plain<B: ToSchema + Body>() -> Declared {
    declared::<B>(|body| B::parse(body).map(|_| ()))
}

fn bodies() -> Vec<Declared> {
    vec![
        declared::<user_body::CreateBody>(|body| user_body::read_new(body).map(|_| ())),
        declared::<user_body::ReplaceBody>(|body| user_body::read_replacement(body).map(|_| ())),
        declared::<user_body::PatchBody>(|body| user_body::read_change(body).map(|_| ())),
        declared::<api_keys::CreateBody>(|body| api_keys::read_new(body, Timestamp(0)).map(|_| ())),
        plain::<api_keys::RotateBody>(),
        plain::<me::PasswordBody>(),
        plain::<auth::LoginBody>(),
        plain::<auth::RefreshBody>(),
        plain::<oauth::ClientBody>(),
        plain::<oauth::ClientPatchBody>(),
    ]
}

/// Values at the bounds of a schema, and values just beyond.
#[derive(Default)]
struct Samples {
    good: Vec<Value>,
    bad: Vec<Value>,
}

impl Samples {
    fn of(schema: &Value) -> Self {
        let mut samples = Self::default();
        let types = match &schema["type"] {
            Value::Array(types) => types.clone(),
            one => vec![one.clone()],
        };
        for kind in &types {
            match kind.as_str().expect("a type") {
                "string" => samples.add_strings(schema),
                "integer" => samples.add_integers(schema),
                "array" => samples.add_lists(schema),
                "boolean" => samples.good.extend([json!(true), json!(false)]),
                "null" => samples.good.push(Value::Null),
                other => panic!("{other} needs samples"),
            }
        }
        for (kind, value) in [
            ("string", json!("a")),
            ("integer", json!(1)),
            ("array", json!([])),
            ("boolean", json!(true)),
            ("null", Value::Null),
            ("object", json!({})),
        ] {
            if !types.contains(&kind.into()) {
                samples.bad.push(value);
            }
        }
        samples
    }

    fn add_strings(&mut self, schema: &Value) {
        if let Some(words) = schema["enum"].as_array() {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            self.bad.push(json!("no-such-word"));
            self.bad.push(words.join(" ").into());
            self.bad.push(json!(""));
            self.good.extend(words.into_iter().map(Value::from));
            return;
        }
        let bound = |name: &str| schema[name].as_u64().and_then(|n| usize::try_from(n).ok());
        let of_length: fn(usize) -> String = match schema["format"].as_str() {
            Some("date-time") => {
                self.good.push(json!("2100-01-25T10:00:00Z"));
                self.bad.push(json!("tomorrow"));
                return;
            }
            Some("email") => {
                self.bad.push(json!("no address"));
                |length| format!("{}@example.org", "é".repeat(length.saturating_sub(12)))
            }
            // Their length is counted in bytes.
            Some("password") => |length| "correct horse ".chars().cycle().take(length).collect(),
            _ => |length| "é".repeat(length),
        };
        let longest = bound("maxLength").expect("every text has a bound");
        self.good.push(of_length(longest).into());
        self.bad.push(of_length(longest + 1).into());
        if let Some(shortest) = bound("minLength") {
            self.good.push(of_length(shortest).into());
            self.bad.push(of_length(shortest - 1).into());
        }
        if schema["pattern"] == "^[^:]*$" {
            self.bad.push(json!("a:b"));
        }
    }

    fn add_integers(&mut self, schema: &Value) {
        let lowest = schema["minimum"].as_i64().expect("a bound");
        let highest = schema["maximum"].as_i64().expect("a bound");
        self.good.extend([json!(lowest), json!(highest)]);
        self.bad.extend([json!(lowest - 1), json!(highest + 1)]);
        self.bad.push(json!(0.5));
    }

    fn add_lists(&mut self, schema: &Value) {
        let items = Self::of(&schema["items"]);
        let is_unique = schema["uniqueItems"] == true;
        let list = |length: u64| -> Value {
            let items = items.good.iter().cycle().cloned();
            items
                .take(usize::try_from(length).expect("short"))
                .collect()
        };
        let shortest = schema["minItems"].as_u64().unwrap_or_default();
        let all = items.good.len() as u64;
        self.good.extend([list(shortest), list(all)]);
        if shortest > 0 {
            self.bad.push(list(shortest - 1));
        }
        if let Some(longest) = schema["maxItems"].as_u64() {
            self.good.push(list(longest));
            self.bad.push(list(longest + 1));
        }
        if is_unique {
            self.bad.push(json!([items.good[0], items.good[0]]));
        }
        self.bad
            .extend(items.bad.into_iter().map(|bad| json!([bad])));
    }
}

fn with(base: &Map<String, Value>, name: &str, value: &Value) -> Vec<u8> {
    let mut body = base.clone();
    body.insert(name.to_owned(), value.clone());
    Value::from(body).to_string().into_bytes()
}

impl Declared {
    fn check(&self) {
        let properties = self.schema["properties"].as_object().expect("properties");
        let required = self.schema["required"].as_array();
        let is_required = |name: &str| required.is_some_and(|all| all.contains(&name.into()));
        let mut base = Map::new();
        for (name, schema) in properties.iter().filter(|(name, _)| is_required(name)) {
            base.insert(name.clone(), Samples::of(schema).good[0].clone());
        }
        for (name, schema) in properties {
            let samples = Samples::of(schema);
            for good in &samples.good {
                let read = (self.read)(&with(&base, name, good));
                assert!(read.is_ok(), "{}: {name} {good}: {read:?}", self.name);
            }
            for bad in &samples.bad {
                self.refuses(&with(&base, name, bad), name);
            }
            if is_required(name) {
                let mut without = base.clone();
                without.remove(name);
                self.refuses(Value::from(without).to_string().as_bytes(), name);
            }
        }
        assert_eq!(self.schema["additionalProperties"], false, "{}", self.name);
        self.refuses(&with(&base, "surprise", &json!(1)), "surprise");
    }

    fn refuses(&self, body: &[u8], field: &str) {
        let shown = || format!("{}: {}", self.name, String::from_utf8_lossy(body));
        let Err(error) = (self.read)(body) else {
            panic!("{} is accepted", shown());
        };
        let fields: Vec<&str> = error.details().iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, [field], "{}", shown());
    }
}

#[test]
fn bodies_are_read_as_the_document_describes_them() {
    for body in bodies() {
        body.check();
    }
}

#[test]
fn every_body_in_the_document_is_declared() {
    let document = serde_json::to_value(super::document()).expect("JSON");
    let operations = document["paths"].as_object().expect("paths").values();
    let operations = operations.flat_map(|item| item.as_object().expect("operations").values());
    let documented: BTreeSet<String> = operations
        .filter_map(|operation| {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let reference = schema["$ref"]
                .as_str()
                .or(schema["oneOf"][0]["$ref"].as_str())?;
            Some(reference.strip_prefix("#/components/schemas/")?.to_owned())
        })
        .collect();
    let declared: BTreeSet<String> = bodies().into_iter().map(|body| body.name).collect();
    assert_eq!(documented, declared);
}

fn check_filters<F: IntoParams + Filters>() {
    let parameters = serde_json::to_value(F::into_params(|| None)).expect("JSON");
    let parameters = parameters.as_array().expect("parameters");
    let names: Vec<&str> = parameters
        .iter()
        .filter_map(|p| p["name"].as_str())
        .collect();
    assert_eq!(names, F::NAMES);
    for parameter in parameters {
        let name = parameter["name"].as_str().expect("a name");
        let accepts = |value: &Value| {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            let text: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
            F::parse(&CursorKey([7; 32]), "/x", Some(&format!("{name}={text}"))).is_ok()
        };
        let samples = Samples::of(&parameter["schema"]);
        for good in &samples.good {
            assert!(accepts(good), "{name}={good}");
        }
        // In a query everything is text, so that only texts can be beyond a text's bounds.
        let is_text = parameter["schema"]["type"] == "string";
        for bad in samples.bad.iter().filter(|bad| !is_text || bad.is_string()) {
            assert!(!accepts(bad), "{name}={bad}");
        }
    }
}

#[test]
fn filters_are_read_as_the_document_describes_them() {
    check_filters::<UserFilters>();
    check_filters::<api_keys::KeyFilters>();
}
