//! The OpenAPI document of the service.

use super::*;
use crate::fixture::kitchen;

#[test]
fn each_model_has_its_own_operation_in_the_document() {
    let service = service("kitchen");
    let mut document = Inference::operations();
    service.add_model_operations(&mut document);
    let document = serde_json::to_value(&document).expect("a document");
    let operation = &document["paths"]["/v1/models/kitchen/predict"]["post"];
    assert_eq!(operation["operationId"], json!("predict_kitchen"));
    assert_eq!(
        operation["security"],
        json!([{"api_key": ["predict"]}, {"bearer": ["predict"]}])
    );
    let schemas = &document["components"]["schemas"];
    let record = &schemas["kitchen_Record"];
    let package = kitchen();
    let expected = package.schema().json_schema(&package.example_record());
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&record[key], value, "{key}");
    }
    let row = &schemas["kitchen_PredictBody"]["oneOf"][2]["properties"]["features"]["oneOf"][0];
    let scalar = json!({"type": ["string", "number", "boolean", "null"]});
    assert_eq!((&row["items"], &row["maxItems"]), (&scalar, &json!(6)));
    assert_eq!(row["prefixItems"][1], expected["properties"]["sexo"]);
    assert_eq!(
        row["description"],
        "age, sexo, income, active, province, weight"
    );
    assert_eq!(
        schemas["mean_PredictBody"]["oneOf"][2]["properties"]["model_version"]["enum"],
        json!(["latest", "1", "2"])
    );
    let default =
        &document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"];
    assert_eq!(
        default["schema"]["$ref"],
        json!("#/components/schemas/kitchen_PredictBody")
    );
    assert_eq!(default["example"]["age"], json!(56));
    let answer = &operation["responses"]["200"]["content"]["application/json"]["example"];
    assert_eq!(answer["prediction"], json!("yes"));
}

#[test]
fn every_reference_leads_somewhere_and_every_operation_has_a_scope() {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|inner| walk(inner, found));
            }
            Value::Array(list) => list.iter().for_each(|inner| walk(inner, found)),
            _ => {}
        }
    }
    let service = service("kitchen");
    let mut document = Inference::operations();
    service.add_model_operations(&mut document);
    let document = serde_json::to_value(&document).expect("a document");
    let mut references = Vec::new();
    walk(&document, &mut references);
    for reference in references {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 11 + 5);
    for (path, item) in paths {
        for operation in item.as_object().expect("operations").values() {
            assert!(operation["security"][0]["api_key"][0].is_string(), "{path}");
        }
    }
}
