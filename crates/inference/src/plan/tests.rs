//! The fast reader against the slow one.

use proptest::prelude::*;

use super::*;
use crate::fixture::{KITCHEN, kitchen, signature, try_package};
use crate::package::Package;
use crate::schema::Kind;
use crate::validate::{Reader, Refusal};
use auspex_engine::{FeatureKind, Output};

const VALID: &str = r#"{"id": 7, "age": 56, "sexo": "H", "income": 1.5e3, "active": true,
    "province": "CORUÑA, B", "weight": 2, "noted": "x"}"#;

/// A package like [`kitchen`] whose model also takes a text, which may be missing.
fn kitchen_with_town() -> Package {
    let mut signature = signature(7, Output::Binary);
    signature.features[6].kind = FeatureKind::Text;
    let (head, examples) = KITCHEN.split_once("[[examples]]").expect("it has examples");
    let town = "[[features]]\nname = \"town\"\nnullable = true\n";
    let manifest = format!("{head}{town}[[examples]]{examples}");
    try_package("kitchen", "1", signature, &manifest).expect("a good package")
}

/// A row's numbers as bits, and its texts.
type Row = (Vec<u64>, Vec<Option<String>>);

/// Rows as they are to the model, wherever their texts lie.
fn content(package: &Package, rows: &RowBuffer) -> Row {
    let fields = package.schema().features.iter().cycle();
    let (mut bits, mut texts) = (Vec::new(), Vec::new());
    for (field, value) in fields.zip(&rows.values) {
        match field.kind {
            Kind::Text => texts.push(rows.texts.get(*value).map(str::to_owned)),
            _ => bits.push(value.to_bits()),
        }
    }
    (bits, texts)
}

/// Reads a text both ways, for a model with a text and for one without; the numbers as the fast
/// reader of the latter has them, if it takes it.
fn both(text: &str) -> Option<(Shape, Vec<u64>)> {
    both_for(&kitchen_with_town(), text);
    both_for(&kitchen(), text).map(|(shape, (bits, _))| (shape, bits))
}

fn both_for(package: &Package, text: &str) -> Option<(Shape, Row)> {
    let versions = ["1", "latest"];
    let mut scratch = Scratch::default();
    let is_version = |asked: &str| versions.contains(&asked);
    let fast = package.plan.read(text, 3, &is_version, &mut scratch);
    let reader = Reader {
        schema: package.schema(),
        rows_max: 3,
        versions: &versions,
    };
    let mut rows = RowBuffer::default();
    let slow = reader.read(text, &mut rows);
    match fast {
        Some(shape) => {
            let row = content(package, &rows);
            assert_eq!(slow, Ok(shape.into()), "{text}");
            assert_eq!(content(package, &scratch.rows), row, "{text}");
            Some((shape, row))
        }
        None => {
            match slow.expect_err(text) {
                Refusal::Malformed(message) => assert!(!message.is_empty()),
                Refusal::Invalid(errors) => assert!(!errors.is_empty(), "{text}"),
            }
            None
        }
    }
}

#[test]
fn texts_reach_the_model_as_they_were_written() {
    let package = kitchen_with_town();
    let town = |value: &str| {
        let text = VALID.replace("\"noted\"", &format!("\"town\": {value}, \"noted\""));
        both_for(&package, &text).map(|(_, (_, texts))| texts[0].clone())
    };
    for (written, meant) in [
        ("\"Lugo\"", Some("Lugo")),
        ("\"\"", Some("")),
        ("\"A Coru\\u00f1a \\\"x\\\"\"", Some("A Coruña \"x\"")),
        ("null", None),
    ] {
        assert_eq!(town(written), Some(meant.map(str::to_owned)), "{written}");
    }
    for wrong in ["3", "true", "[\"Lugo\"]", "\"\\ud800\""] {
        assert_eq!(town(wrong), None, "{wrong}");
    }
    let rows =
        r#"{"features":[[56,"H",null,true,"MADRID",1,"Lugo"],[5,"V",1,true,null,1,"Vigo"]]}"#;
    let (shape, (_, texts)) = both_for(&package, rows).expect("by position");
    assert_eq!(shape, Shape::ValueLists);
    assert_eq!(texts, [Some("Lugo".into()), Some("Vigo".into())]);
}

#[test]
fn a_record_becomes_its_row_in_any_order() {
    let expected = [56.0, 0.0, 1500.0, 1.0, 1.0, 2.0].map(f64::to_bits);
    assert_eq!(both(VALID), Some((Shape::Record, expected.to_vec())));
    let turned = r#"{"weight":2.0,"province":"CORU\u00d1A, B","active":1,"income":1500,"sexo":"H","age":56.0}"#;
    assert_eq!(both(turned), Some((Shape::Record, expected.to_vec())));
}

#[test]
fn absent_fields_are_missing_or_have_their_default() {
    let (_, row) =
        both(r#"{"age":1,"sexo":"V","active":false}"#).expect("nothing else is required");
    assert!(f64::from_bits(row[2]).is_nan() && f64::from_bits(row[4]).is_nan());
    assert_eq!(f64::from_bits(row[5]), 1.5);
}

#[test]
fn all_forms_of_a_body_are_read() {
    let values = r#"[56,"H",null,true,"MADRID",1]"#;
    assert_eq!(
        both(&format!("[{VALID},{VALID}]")).map(|r| r.0),
        Some(Shape::Records)
    );
    assert_eq!(
        both(&format!("[{VALID}]")).map(|r| r.0),
        Some(Shape::Records)
    );
    assert_eq!(
        both(&format!("{{\"features\":{values}}}")).map(|r| r.0),
        Some(Shape::Values)
    );
    let rows = format!("{{\"model_version\":\"latest\",\"features\":[{values},{values}]}}");
    let (shape, bits) = both(&rows).expect("a list by position");
    assert_eq!((shape, bits.len()), (Shape::ValueLists, 12));
}

#[test]
fn what_is_wrong_is_refused_by_both() {
    let values = r#"[56,"H",null,true,"MADRID",1]"#;
    for text in [
        "",
        " ",
        "null",
        "3",
        "\"x\"",
        "true",
        "{",
        "[]",
        "{}",
        "[{}]",
        "[[]]",
        "NaN",
        "[1]",
        r#"{"features":[]}"#,
        r#"{"features":{}}"#,
        r#"{"features":[[]]}"#,
        r#"{"features":null}"#,
        r#"{"features":[56,"H",null,true,"MADRID"]}"#,
        r#"{"features":[56,"H",null,true,"MADRID",1,1]}"#,
        &format!(r#"{{"features":{values},"features":{values}}}"#),
        &format!(r#"{{"features":{values},"age":3}}"#),
        &format!(r#"{{"features":{values},"model_version":"9"}}"#),
        &format!(r#"{{"features":{values},"model_version":1}}"#),
        &format!(r#"{{"features":[{values},3]}}"#),
        &format!(r#"{{"features":[{values},{values},{values},{values}]}}"#),
        &format!("[{VALID},{VALID},{VALID},{VALID}]"),
        &format!("{VALID} x"),
        &VALID.replace("56", "1e999"),
        &VALID.replace("56", "56.5"),
        &VALID.replace("56", "131"),
        &VALID.replace("56", "\"56\""),
        &VALID.replace("56", "null"),
        &VALID.replace("56", "true"),
        &VALID.replace("56", "[56]"),
        &VALID.replace("1.5e3", "1e39"),
        &VALID.replace("\"H\"", "\"X\""),
        &VALID.replace("\"H\"", "\"\\ud800\""),
        &VALID.replace("\"x\"", "[1]"),
        &VALID.replace("7", "1e999"),
        &VALID.replace("\"x\"", "{}"),
        &VALID.replace("\"noted\"", "\"id\""),
        &VALID.replace("\"weight\"", "\"age\""),
        &VALID.replace("\"weight\"", "\"waist\""),
        &VALID.replace("\"noted\"", "\"model_version\""),
    ] {
        assert_eq!(both(text), None, "{text}");
    }
}

#[test]
fn floats_are_the_nearest_ones() {
    let text = VALID.replace("2,", "0.1000000000000000055511151231257827,");
    let (_, row) = both(&text).expect("a number");
    assert_eq!(f64::from_bits(row[5]), 0.1);
    let parsed: f64 = serde_json::from_str("2.017351698988807e285").expect("a number");
    assert_eq!(
        parsed, 2.017351698988807e285,
        "serde_json must be built with float_roundtrip"
    );
}

/// A model of a number and two integers, of which one has a least value.
fn whole_numbers() -> Package {
    let mut signature = signature(3, Output::Binary);
    signature.features[1].kind = FeatureKind::Integer;
    let manifest = "[[features]]\nname = \"f2\"\ntype = \"integer\"\nmin = -10\n";
    try_package("m", "1", signature, manifest).expect("a good package")
}

#[test]
fn integers_are_rounded_once_where_training_did_so() {
    let package = whole_numbers();
    let middle = (1u64 << 53) + (1 << 29);
    for (written, number, integer) in [
        (middle + 1, middle as f64, ((1u64 << 53) + (1 << 30)) as f64),
        (middle, middle as f64, (1u64 << 53) as f64),
        // What a float holds is left as it is.
        (16_777_217, 16_777_217.0, 16_777_217.0),
    ] {
        let text = format!("{{\"f0\":{written},\"f1\":{written},\"f2\":{written}}}");
        let (_, (bits, _)) = both_for(&package, &text).expect("three numbers");
        assert_eq!(
            bits,
            [number, integer, integer].map(f64::to_bits),
            "{written}"
        );
    }
}

#[test]
fn plain_records_do_not_need_the_json_library() {
    let package = kitchen();
    let plain = VALID.replace("1.5e3", "1500.25");
    let mut scratch = Scratch {
        seen: vec![0; package.plan.required.len()],
        ..Scratch::default()
    };
    assert_eq!(
        scan::scan(&package.plan, &plain, 1, &mut scratch),
        Some(Shape::Record)
    );
    assert_eq!(scratch.rows.values[2], 1500.25);
    let list = format!("[ {plain} , {plain} ]");
    assert_eq!(
        scan::scan(&package.plan, &list, 2, &mut scratch),
        Some(Shape::Records)
    );
    assert_eq!(scan::scan(&package.plan, &list, 1, &mut scratch), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn decimals_are_scanned_to_the_nearest_float(
        text in "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?",
    ) {
        let field = Field::new("weight", crate::schema::Kind::Number);
        let schema = Schema { features: vec![field], unused: Vec::new() };
        let plan = Plan::new(&schema);
        let mut scratch = Scratch { seen: vec![0], ..Scratch::default() };
        let body = format!("{{\"weight\":{text}}}");
        let exact: f64 = text.parse().expect("a number");
        if scan::scan(&plan, &body, 1, &mut scratch).is_some() {
            prop_assert_eq!(scratch.rows.values[0].to_bits(), exact.to_bits());
        }
        plan.read(&body, 1, &|_| false, &mut scratch).expect("a number");
        prop_assert_eq!(scratch.rows.values[0].to_bits(), exact.to_bits());
    }
}

#[test]
fn the_order_of_fields_is_learned() {
    let package = kitchen();
    let mut scratch = Scratch::default();
    package
        .plan
        .read(VALID, 1, &|_| false, &mut scratch)
        .expect("valid");
    let guess = |at: usize| package.plan.next[at].load(Ordering::Relaxed) as usize;
    assert_eq!(&*package.plan.names[guess(package.plan.names.len())], "id");
    assert_eq!(&*package.plan.names[guess(5)], "noted");
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec!["id", "age", "sexo", "income", "active", "province", "weight", "noted", "town"]),
        1 => prop::sample::select(vec!["features", "model_version", "stranger", "", "ag", "\\u0061ge", "\\ud800"]),
    ]
    .prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> {
    let usual = vec![
        "56",
        "\"H\"",
        "\"V\"",
        "1.5",
        "true",
        "false",
        "\"MADRID\"",
        "\"CORUÑA, A\"",
        "null",
        "0",
        "1",
    ];
    let odd = vec![
        "-1",
        "-0",
        "-0.0",
        "56.0",
        "56.5",
        "1e2",
        "1e999",
        "-1e999",
        "1e39",
        "1e-400",
        "131",
        "18446744073709551616",
        "\"\"",
        "\"CORUÑA, C\"",
        "\"\\ud800\"",
        "[1]",
        "{}",
        "[]",
        "{\"a\":1}",
        "[[1]]",
        "NaN",
        "01",
        "+1",
        "\"1\"",
        "\"latest\"",
        "[56,\"H\",null,true,\"MADRID\",1]",
        "[[56,\"V\",3,false,null,1]]",
    ];
    prop_oneof![6 => prop::sample::select(usual), 1 => prop::sample::select(odd)]
        .prop_map(str::to_owned)
}

fn object() -> impl Strategy<Value = String> {
    let fitting = Just(VALID.to_owned());
    let pair = (key(), value()).prop_map(|(key, value)| format!("\"{key}\":{value}"));
    let random =
        prop::collection::vec(pair, 0..9).prop_map(|pairs| format!("{{{}}}", pairs.join(",")));
    prop_oneof![fitting, random, changed()]
}

/// The valid record with one value replaced.
fn changed() -> impl Strategy<Value = String> {
    let fields = vec![
        "7",
        "56",
        "\"H\"",
        "1.5e3",
        "true",
        "\"CORUÑA, B\"",
        "2,",
        "\"x\"",
        "\"age\"",
        "\"id\"",
    ];
    (prop::sample::select(fields), value()).prop_map(|(old, new)| {
        let new = if old.ends_with(',') {
            format!("{new},")
        } else {
            new
        };
        VALID.replacen(old, &new, 1)
    })
}

fn body() -> impl Strategy<Value = String> {
    let list = |of: BoxedStrategy<String>| {
        prop::collection::vec(of, 0..5).prop_map(|items| format!("[{}]", items.join(",")))
    };
    let cells = || list(value().boxed());
    let fitting = || {
        let rows = [
            "[56,\"H\",null,true,\"MADRID\",1]",
            "[56,\"H\",null,true,\"MADRID\",1,\"Lugo\"]",
        ];
        prop::sample::select(rows.to_vec()).prop_map(str::to_owned)
    };
    let row = prop_oneof![fitting(), cells()].boxed();
    let features = prop_oneof![row.clone(), list(row)];
    let version = prop_oneof![
        Just(""),
        Just(",\"model_version\":\"1\""),
        Just(",\"model_version\":2")
    ];
    prop_oneof![
        3 => object(),
        3 => list(object().boxed()),
        2 => (features, version).prop_map(|(rows, version)| format!("{{\"features\":{rows}{version}}}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn both_readers_have_the_same_opinion(text in body()) {
        both(&text);
    }

    #[test]
    fn also_of_whole_numbers(
        value in prop_oneof![any::<i64>().prop_map(i128::from), any::<u64>().prop_map(i128::from), -1i128 << 66..1 << 66],
        rounded in any::<bool>(),
        form in 0usize..3,
    ) {
        // Every second one lies between two floats of 32 bits.
        let value = if rounded { value >> 30 << 30 | 1 << 29 } else { value };
        let package = whole_numbers();
        let texts = [
            format!("{{\"f0\":{value},\"f1\":{value},\"f2\":{value}}}"),
            format!("[{{\"f0\":{value} ,\"f1\":{value}\n,\"f2\":{value}}}]"),
            format!("{{\"features\":[{value},{value},{value}]}}"),
        ];
        if let Some((_, (bits, _))) = both_for(&package, &texts[form]) {
            let (once, twice) = (value as f32, value as f64 as f32);
            prop_assert_eq!(f64::from_bits(bits[0]) as f32, twice);
            let is_integer = i64::try_from(value).is_ok() || u64::try_from(value).is_ok();
            prop_assert_eq!(f64::from_bits(bits[1]) as f32, if is_integer { once } else { twice });
        } else {
            prop_assert!(value < -10);
        }
    }

    #[test]
    fn also_of_damaged_texts(text in body(), at in 0usize..500, byte in prop::sample::select(b"{}[]\",:0eE.-ntf\\ \n".to_vec())) {
        let mut bytes = text.into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(text) = String::from_utf8(bytes) {
            both(&text);
        }
    }
}
