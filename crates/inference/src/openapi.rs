//! The service's part of the OpenAPI document, and a typed operation for each loaded model.

use std::collections::BTreeMap;

use auspex_kernel::http::error_responses;
use serde_json::{Value, json};
use utoipa::openapi::path::Operation;
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::{OpenApi, PathItem, Ref, RefOr, Response, Schema};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use crate::explain::TOP_MAX;
use crate::names::LATEST;
use crate::package::Package;
use crate::schema::Field;
use crate::{Inference, Model};

/// A JSON Schema in the types of the document.
///
/// # Panics
/// If the types of the document do not know such a schema, which the tests of this crate would see.
pub(crate) fn schema_of(schema: Value) -> RefOr<Schema> {
    serde_json::from_value(schema).expect("a schema of the kinds used here")
}

/// Gives a name in the document to a schema written as JSON; after the colon are the components that
/// it refers to.
macro_rules! components {
    ($($(#[$doc:meta])* $name:ident $(: $($part:ident),+)? = $schema:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                schema_of($schema)
            }
        }

        impl ToSchema for $name {
            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                let parts: Vec<(String, RefOr<Schema>)> =
                    vec![$($((stringify!($part).to_owned(), $part::schema())),+)?];
                schemas.extend(parts);
            }
        }
    )*};
}

components! {
    /// The body of a prediction for any model.
    PredictBody = {
        let value = json!({"type": ["string", "number", "boolean", "null"]});
        let record = json!({
            "type": "object",
            "description": "A value for each field of the model's schema",
            "additionalProperties": value,
        });
        body_schema(&record, &json!({"type": "array", "items": value, "minItems": 1}), None, 1000)
    };
    /// The answer of `POST /predict`.
    PredictionNumbers: Explanation, Contribution = json!({
        "type": "object",
        "required": ["predictions"],
        "properties": {
            "predictions": {"type": "array", "items": numbers()},
            "explanations": {
                "type": "array",
                "items": explanation(),
                "description": "One for each instance, where the body asks for them",
            },
        },
        "example": {"predictions": [[0.3658644, 0.6341356]]},
    });
    /// What a model gives beside its first output.
    MoreOutputs = json!({
        "type": "object",
        "additionalProperties": true,
        "description": "What the model gives beside the first output, by name; only of models that give more than one",
    });
    /// What one feature added to a margin.
    Contribution = closed(&[&json!({
        "feature": {"type": "string"},
        "contribution": {"type": "number"},
    })], &json!({}));
    /// What made a margin: `base`, the `contributions` and `others` add up to `margin`.
    Explanation = {
        let contributions = json!({"$ref": reference("Contribution")});
        closed(&[&json!({
            "label": {
                "type": ["string", "integer", "null"],
                "description": "The class whose margin it is: the predicted one, or the second of two; null for plain numbers",
            },
            "margin": {"type": ["number", "null"], "description": "What the model's sums gave, such as log-odds"},
            "base": {"type": ["number", "null"], "description": "The mean margin of the rows the model was trained with"},
            "contributions": {
                "type": "array",
                "items": contributions,
                "description": "What features added to the base, the largest first, up or down",
            },
            "others": {"type": "number", "description": "What all other features added together"},
        })], &json!({}))
    };
    /// What a model says of one record.
    PredictedRow = closed(&[&predicted()], &beside());
    /// The answer to one record.
    PredictionOfOne = closed(&[&about_answer(), &predicted()], &beside());
    /// The answer to a list.
    PredictionOfMany = {
        let list = json!({"type": "array", "items": {"$ref": reference("PredictedRow")}});
        closed(&[&about_answer(), &json!({"predictions": list})], &json!({}))
    };
    /// The answer of the named models.
    Prediction: MoreOutputs, Explanation, Contribution, PredictedRow, PredictionOfOne, PredictionOfMany = json!({"oneOf": [
        {"$ref": reference("PredictionOfOne")},
        {"$ref": reference("PredictionOfMany")},
    ]});
    /// A JSON Schema.
    RecordSchema = json!({"type": "object", "additionalProperties": true});
}

/// The properties that tell what an answer is about.
fn about_answer() -> Value {
    json!({
        "model": {"type": "string"},
        "model_version": {"type": "string"},
        "labels": {
            "type": ["array", "null"],
            "items": {"type": ["string", "integer"]},
            "description": "Names of the classes in the order of `probabilities`; null for plain numbers",
        },
        "request_id": {"type": "string"},
    })
}

/// The properties of a prediction.
fn predicted() -> Value {
    json!({
        "prediction": {
            "type": ["string", "number", "array", "null"],
            "items": {"type": ["number", "null"]},
            "description": "The label of the most probable class, or the predicted number (a list where the model gives several; null where it is not finite)",
        },
        "probability": {"type": ["number", "null"], "description": "Of the predicted class; null for plain numbers"},
        "probabilities": {"type": ["array", "null"], "items": {"type": ["number", "null"]}},
    })
}

/// What some predictions have beside that.
fn beside() -> Value {
    json!({"outputs": {"$ref": reference("MoreOutputs")}, "explanation": explanation()})
}

/// That of a row; a model of several numbers has one for each.
fn explanation() -> Value {
    let one = json!({"$ref": reference("Explanation")});
    json!({"oneOf": [one, {"type": "array", "items": one}]})
}

fn numbers() -> Value {
    json!({"type": "array", "items": {"type": ["number", "null"]}})
}

/// An object that has all of these properties, perhaps some more, and no other.
fn closed(properties: &[&Value], optional: &Value) -> Value {
    let of = |parts: &[&Value]| -> serde_json::Map<String, Value> {
        let parts = parts.iter().filter_map(|part| part.as_object()).flatten();
        parts.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let mut all = of(properties);
    let required: Vec<String> = all.keys().cloned().collect();
    all.extend(of(&[optional]));
    json!({"type": "object", "required": required, "properties": all, "additionalProperties": false})
}

/// Values by position. There is nothing behind the last place, which `maxItems` says: makers of clients
/// refuse `items: false`.
fn row_schema(fields: &[Field]) -> Value {
    let places: Vec<Value> = fields.iter().map(Field::json_schema).collect();
    let names: Vec<&str> = fields.iter().map(|field| &*field.name).collect();
    let count = fields.len();
    let mut row = json!({
        "type": "array",
        "description": names.join(", "),
        "minItems": count,
        "maxItems": count,
    });
    if places.iter().all(|place| *place == places[0]) {
        row["items"] = places[0].clone();
    } else {
        row["items"] = json!({"type": ["string", "number", "boolean", "null"]});
        row["prefixItems"] = json!(places);
    }
    row
}

/// The three forms of a body: a record, a list of records, values by position.
fn body_schema(record: &Value, row: &Value, versions: Option<&[&str]>, rows_max: usize) -> Value {
    let list = |items: &Value| json!({"type": "array", "items": items, "minItems": 1, "maxItems": rows_max});
    let version = match versions {
        Some(names) => json!({"type": "string", "enum": names}),
        None => json!({"type": "string"}),
    };
    json!({"oneOf": [record, list(record), {
        "type": "object",
        "description": "Values by position, in the order of the model's schema",
        "required": ["features"],
        "properties": {
            "features": {"oneOf": [row, list(row)]},
            "model_version": version,
            "explain": {
                "type": ["integer", "boolean"],
                "minimum": 1,
                "maximum": TOP_MAX,
                "description": "Asks for an explanation of each prediction: by how many features, or true for all",
            },
        },
        "additionalProperties": false,
    }]})
}

/// The error answers of predictions.
pub(crate) struct PredictErrors;

impl IntoResponses for PredictErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        error_responses(&[400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503])
    }
}

/// The error answers of a reload.
pub(crate) struct ReloadErrors;

impl IntoResponses for ReloadErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        error_responses(&[401, 403, 429, 500, 503])
    }
}

/// The error answers of what is read of one version.
pub(crate) struct VersionErrors;

impl IntoResponses for VersionErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        error_responses(&[304, 401, 403, 404, 429, 500, 503])
    }
}

/// The JSON Schema of a package's records, as a document of its own.
pub(crate) fn record_document(package: &Package) -> Value {
    let model = package.model();
    let mut document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": package.title().unwrap_or(model),
    });
    if let Some(description) = package.description() {
        document["description"] = json!(description);
    }
    let schema = package.schema().json_schema(&package.example_record());
    for (key, value) in schema.as_object().into_iter().flatten() {
        document[key] = value.clone();
    }
    document
}

impl Inference {
    /// Adds for each loaded model its record and body as components and `POST
    /// /v1/models/<model>/predict` as an operation with them; `POST /predict` gets the body of the
    /// default model, and the routes with a placeholder the bodies of all.
    pub fn add_model_operations(&self, document: &mut OpenApi) {
        let template = operation(document, "/v1/models/{model}/predict").map(|found| found.clone());
        let mut bodies = Vec::new();
        let models = self.models();
        for model in models.ready() {
            let Some(latest) = model.latest() else {
                continue;
            };
            let package = latest.package();
            let body = self.add_components(document, model, package);
            if let Some(operation) = &template {
                let operation = typed(operation.clone(), package, &body);
                let mut item = PathItem::default();
                item.post = Some(operation);
                let path = format!("/v1/models/{}/predict", model.name());
                document.paths.paths.insert(path, item);
            }
            if models
                .default_model()
                .is_some_and(|default| default.name() == model.name())
                && let Some(operation) = operation(document, "/predict")
            {
                operation.request_body = Some(request_body(&body, package));
            }
            bodies.push(json!({"$ref": reference(&body)}));
        }
        if let Some(components) = &mut document.components
            && !bodies.is_empty()
        {
            components
                .schemas
                .insert("PredictBody".into(), schema_of(json!({"anyOf": bodies})));
        }
    }

    /// Adds the model's record and body; returns the name of the body.
    fn add_components(&self, document: &mut OpenApi, model: &Model, package: &Package) -> String {
        let (record, body) = (
            format!("{}_Record", model.name()),
            format!("{}_PredictBody", model.name()),
        );
        let row = row_schema(&package.schema().features);
        let mut versions: Vec<&str> = vec![LATEST];
        versions.extend(
            model
                .versions()
                .iter()
                .map(|version| version.package().version()),
        );
        let rows_max = self.config.instances_max;
        let schema = body_schema(
            &json!({"$ref": reference(&record)}),
            &row,
            Some(&versions),
            rows_max,
        );
        let record_schema = package.schema().json_schema(&package.example_record());
        let components = document.components.get_or_insert_default();
        components.schemas.insert(record, schema_of(record_schema));
        components.schemas.insert(body.clone(), schema_of(schema));
        body
    }
}

fn reference(component: &str) -> String {
    Ref::from_schema_name(component).ref_location
}

fn operation<'d>(document: &'d mut OpenApi, path: &str) -> Option<&'d mut Operation> {
    document.paths.paths.get_mut(path)?.post.as_mut()
}

/// The operation of one model, made from that of all models. Its id depends on no other model.
fn typed(mut operation: Operation, package: &Package, body: &str) -> Operation {
    operation.operation_id = Some(format!("predict_{}", package.model()));
    operation.summary = Some(format!(
        "Predict with {}",
        package.title().unwrap_or(package.model())
    ));
    operation.description = package.description().map(str::to_owned);
    operation.parameters = None;
    operation.request_body = Some(request_body(body, package));
    if let Some(RefOr::T(response)) = operation.responses.responses.get_mut("200")
        && let Some(RefOr::T(content)) = response.content.get_mut("application/json")
    {
        content.example = example_answer(package);
    }
    operation
}

/// What the model answers to its example; `None` if it refuses one that was made up.
fn example_answer(package: &Package) -> Option<Value> {
    let (mut values, mut answer) = (Vec::new(), Vec::new());
    package
        .predict(&package.sample_rows()[0], &mut values)
        .ok()?;
    package
        .writer
        .single(&values.as_slice().into(), "req_01JD3V9K2Q4W", &mut answer);
    Some(serde_json::from_slice(&answer).expect("answers are JSON"))
}

fn request_body(body: &str, package: &Package) -> RefOr<RequestBody> {
    let content = json!({"schema": {"$ref": reference(body)}, "example": package.example_record()});
    let body = json!({"content": {"application/json": content}, "required": true});
    serde_json::from_value(body).expect("a request body")
}
