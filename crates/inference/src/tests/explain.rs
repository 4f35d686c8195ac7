//! What explanations answer.

use super::*;

#[tokio::test]
async fn a_prediction_is_explained_where_the_body_asks() {
    let path = "/v1/models/mean/versions/1/predict";
    let asked = |explain: &str| {
        post(
            path,
            format!("{{\"features\":[3, 5],\"explain\":{explain}}}"),
        )
    };
    let explanation = |top, others: f64| json!({"label": null, "margin": 4.0, "base": 0.0, "contributions": top, "others": others});
    let of = |feature: &str, contribution: f64| json!({"feature": feature, "contribution": contribution});
    let both = json!([of("f1", 2.5), of("f0", 1.5)]);
    let answer = asked("true").await.json();
    assert_eq!(
        (&answer["prediction"], &answer["explanation"]),
        (&json!(4.0), &explanation(both, 0.0))
    );
    let one = asked("1").await.json();
    assert_eq!(one["explanation"], explanation(json!([of("f1", 2.5)]), 1.5));
    let plain = post(path, r#"{"features":[3, 5]}"#).await;
    assert_eq!(asked("false").await.body, plain.body);
    for wrong in ["0", "1001", "2.5", "null", "\"all\""] {
        let refused = asked(wrong).await;
        let message = "explain: must be an integer from 1 to 1000, or true";
        assert_eq!(
            (refused.status, refused.fields()),
            (StatusCode::UNPROCESSABLE_ENTITY, vec![message.to_owned()])
        );
    }
    let twice = post(path, r#"{"features":[3, 5],"explain":1,"explain":1}"#).await;
    assert_eq!(twice.fields(), ["explain: is given more than once"]);
}

#[tokio::test]
async fn the_explain_route_takes_every_body_that_predict_takes() {
    let path = "/v1/models/kitchen/explain";
    let record = r#"{"age":6,"sexo":"V","income":null,"active":true,"weight":2}"#;
    let by_position = r#"{"features":[6,"V",null,true,null,2]}"#;
    let one = post(path, record).await.json();
    let explanation = &one["explanation"];
    let contributions = [
        ("age", 1.5),
        ("weight", 0.5),
        ("sexo", 0.25),
        ("active", 0.25),
        ("income", 0.0),
        ("province", 0.0),
    ];
    let contributions =
        contributions.map(|(feature, c)| json!({"feature": feature, "contribution": c}));
    assert_eq!(
        *explanation,
        json!({"label": "yes", "margin": 2.5, "base": 0.0, "contributions": contributions, "others": 0.0})
    );
    assert_eq!(
        (&one["prediction"], &one["model_version"]),
        (&json!("yes"), &json!("1"))
    );
    assert_eq!(
        post("/v1/models/kitchen/versions/1/explain", by_position)
            .await
            .json(),
        one
    );
    let list = post(path, format!("[{record},{RECORD}]")).await.json();
    assert_eq!(list["predictions"][0]["explanation"], *explanation);
    assert_eq!(list["predictions"][1]["explanation"]["margin"], json!(0.0));
    let top = post(&format!("{path}?top=2"), record).await.json();
    assert_eq!(
        top["explanation"]["contributions"],
        json!(contributions[..2])
    );
    assert_eq!(top["explanation"]["others"], json!(0.5));
}

#[tokio::test]
async fn each_row_is_explained_by_its_own_class_or_number() {
    let pair = post("/v1/models/pair/explain", r#"{"features":[[1,3],[5,7]]}"#)
        .await
        .json();
    let bases = |row: usize, index: usize| &pair["predictions"][row]["explanation"][index];
    for row in 0..2 {
        for index in 0..2 {
            assert_eq!(bases(row, index)["base"], json!(index as f64));
            assert_eq!(
                bases(row, index)["margin"],
                pair["predictions"][row]["prediction"][index]
            );
        }
    }
    // The fixture always predicts the last of its three classes.
    let three = post("/v1/models/three/explain", r#"{"features":[1,3]}"#)
        .await
        .json();
    assert_eq!(
        (&three["prediction"], &three["explanation"]["label"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(three["explanation"]["base"], json!(2.0));
    // Texts reach the engine with the rows that they belong to.
    let towns = r#"[{"town": "Lugo", "age": 2}, {"town": "Pontevedra"}]"#;
    let towns = post("/v1/models/town/explain", towns).await.json();
    for row in towns["predictions"].as_array().expect("two") {
        assert_eq!(row["explanation"]["margin"], row["prediction"]);
        assert!(row["outputs"]["risk"]["explanation"].is_null());
    }
}

#[tokio::test]
async fn the_numbers_of_the_default_model_are_explained_beside_them() {
    let body = r#"{"features":[[0,"H",0,false,null,0],[4,"H",0,false,null,0]],"explain":1}"#;
    let answer = post("/predict", body).await.json();
    assert_eq!(answer["predictions"][0], json!([0.5, 0.5]));
    let margins = [0, 1].map(|row| answer["explanations"][row]["margin"].clone());
    assert_eq!(margins, [json!(0.0), json!(0.8)]);
}

#[tokio::test]
async fn long_lists_are_explained_as_short_ones_are() {
    let rows: Vec<[usize; 2]> = (0..40).map(|row| [row, 0]).collect();
    let body = json!({"features": rows, "explain": 1}).to_string();
    let answer = post("/v1/models/mean/versions/1/predict", body)
        .await
        .json();
    for row in 1..40 {
        let explanation = &answer["predictions"][row]["explanation"];
        let expected = json!([{"feature": "f0", "contribution": row as f64 / 2.0}]);
        assert_eq!(explanation["contributions"], expected);
    }
}

#[tokio::test]
async fn what_cannot_be_explained_is_refused_with_the_reason() {
    let class = try_package("class", "1", signature(2, Output::Class { classes: 3 }), "");
    let wide = try_package(
        "wide",
        "1",
        signature(3000, Output::Numbers { count: 3 }),
        "",
    );
    let packages = vec![class.expect("good"), wide.expect("good")];
    let service = Inference::from_packages(packages, &config(""));
    let router = route(&service, Publisher::new().0).await;
    let ask = async |path: &str, body: String| send(&router, request("POST", path, body)).await;
    let row = r#"{"features":[1,2]}"#.to_owned();
    assert_eq!(
        ask("/v1/models/class/predict", row.clone()).await.status,
        StatusCode::OK
    );
    let refused = ask("/v1/models/class/explain", row.clone()).await;
    let message = "explain: cannot be had: there are no explanations for models of this kind";
    assert_eq!(refused.fields(), [message]);
    let view = send(
        &router,
        request("GET", "/v1/models/class/versions/1", Body::empty()),
    )
    .await
    .json();
    assert_eq!(view["explanations"]["available"], json!(false));
    for query in ["top=0", "top=1001", "top=x", "limit=3", "top=1&top=2"] {
        let refused = ask(&format!("/v1/models/class/explain?{query}"), row.clone()).await;
        let message = "(query): takes only top, an integer from 1 to 1000";
        assert_eq!(
            (refused.status, refused.fields()),
            (StatusCode::UNPROCESSABLE_ENTITY, vec![message.to_owned()])
        );
    }
    // An answer is bounded, however many features and instances there are.
    let rows = |count: usize| json!({"features": vec![vec![0; 3000]; count]}).to_string();
    let few = ask("/v1/models/wide/explain", rows(1)).await.json();
    let contributions = few["predictions"][0]["explanation"][2]["contributions"].as_array();
    assert_eq!(contributions.map(Vec::len), Some(1000));
    assert_eq!(
        ask("/v1/models/wide/explain?top=600", rows(50))
            .await
            .status,
        StatusCode::OK
    );
    let refused = ask("/v1/models/wide/explain", rows(50)).await;
    let message = "explain: would name 150000 contributions, and one answer holds at most 100000; ask for fewer \
                   features, or for fewer instances at once";
    assert_eq!(refused.fields(), [message]);
}

#[tokio::test]
async fn the_version_says_whether_it_explains() {
    let view = get("/v1/models/kitchen/versions/1").await.json();
    assert_eq!(
        view["explanations"],
        json!({"available": true, "bytes": 6, "reason": null})
    );
}
