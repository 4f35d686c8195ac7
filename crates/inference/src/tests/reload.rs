//! Models that come and go.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auspex_kernel::Clock;
use auspex_kernel::service::StopSignal;

use super::*;
use crate::reload::{Changes, Name};

/// Models of four features without names, of which one is a classifier of two classes.
pub(super) const MEAN: &str = "mean-score/model.ubj";
/// Models of five features.
pub(super) const BINARY: &str = "3.2/binary-logistic.json";
const MULTICLASS: &str = "3.2/multi-softprob.json";

/// A models folder, served.
pub(super) struct Served {
    pub(super) folder: tempfile::TempDir,
    pub(super) service: Arc<Inference>,
    router: Router,
    pub(super) publisher: Publisher,
}

pub(super) fn config_for(folder: &Path) -> Config {
    Config {
        models: folder.to_owned(),
        watch_interval_ms: 20,
        watch_quiet_ms: 0,
        ..config("")
    }
}

impl Served {
    pub(super) async fn new(packages: &[(&str, &str)]) -> Self {
        Self::with(packages, Clock::system(), |_| ()).await
    }

    /// With a clock and settings of its own.
    pub(super) async fn with(
        packages: &[(&str, &str)],
        clock: Clock,
        set: impl FnOnce(&mut Config),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (place, model) in packages {
            put(folder.path(), place, model);
        }
        let mut config = config_for(folder.path());
        set(&mut config);
        let service = Inference::load(&config, clock).expect("models");
        let (publisher, queue) = Publisher::new();
        tokio::spawn(queue.answer_all(|| true));
        Self {
            router: route(&service, publisher.clone()).await,
            folder,
            service,
            publisher,
        }
    }

    pub(super) fn put(&self, place: &str, model: &str) {
        put(self.folder.path(), place, model);
    }

    /// Writes whatever bytes as the model file of a package.
    fn break_package(&self, place: &str, bytes: &[u8]) {
        let file = self.folder.path().join(place).join("model.json");
        fs::write(file, bytes).expect("written");
    }

    pub(super) async fn look(&self, look: Look) -> Changes {
        let refreshed = self.service.refresh(look, &self.publisher).await;
        refreshed.expect("the folder can be read")
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        send(&self.router, request("GET", path, Body::empty())).await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> Reply {
        send(&self.router, request("POST", path, body.to_owned())).await
    }

    /// State, reason, and whether something is served, of a model's package of that version.
    pub(super) async fn package(
        &self,
        model: &str,
        version: &str,
    ) -> Option<(String, String, bool)> {
        let reply = self.get(&format!("/v1/models/{model}")).await;
        if reply.status != StatusCode::OK {
            return None;
        }
        let view = reply.json();
        let mut packages = view["packages"].as_array().expect("a list").iter();
        let package = packages.find(|package| package["version"] == version)?;
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        Some((
            text("state"),
            text("reason"),
            !package["loaded_at"].is_null(),
        ))
    }

    pub(super) fn metrics(&self) -> String {
        let mut registry = Registry::default();
        self.service.register_metrics(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        text
    }
}

pub(super) fn golden(model: &str) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden");
    golden.join(model)
}

/// Puts a package in place as `mv` does: it is whole from the first moment on.
pub(super) fn put(folder: &Path, place: &str, model: &str) {
    let place = folder.join(place);
    fs::create_dir_all(&place).expect("a folder");
    let kind = Path::new(model).extension().expect("its kind");
    let file = place.join("model").with_extension(kind);
    let hidden = place.join(".incoming");
    fs::copy(golden(model), &hidden).expect("copied");
    fs::rename(hidden, file).expect("moved");
}

pub(super) fn names(pairs: &[(&str, &str)]) -> Vec<Name> {
    let owned = |(model, version): &(&str, &str)| (model.to_string(), version.to_string());
    pairs.iter().map(owned).collect()
}

#[tokio::test]
async fn a_package_is_loaded_when_it_looks_the_same_twice() {
    let served = Served::new(&[("a/1", MEAN)]).await;
    served.put("b/1", BINARY);
    assert!(served.look(Look::Watching).await.added.is_empty());
    let (state, _, is_served) = served.package("b", "1").await.expect("listed");
    assert_eq!((&*state, is_served), ("loading", false));
    let reply = served.post("/v1/models/b/predict", "{}").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);

    assert_eq!(
        served.look(Look::Watching).await.added,
        names(&[("b", "1")])
    );
    assert_eq!(
        served.package("b", "1").await,
        Some(("ready".into(), String::new(), true))
    );
    let reply = served
        .post("/v1/models/b/predict", r#"{"features":[1,1,1,1,1]}"#)
        .await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(served.look(Look::Watching).await, Changes::default());
}

#[tokio::test]
async fn a_package_that_is_still_being_written_is_left_alone() {
    let served = Served::new(&[("a/1", MEAN)]).await;
    let whole = fs::read(golden(BINARY)).expect("a model");
    fs::create_dir_all(served.folder.path().join("b/1")).expect("a folder");
    for part in 1..5 {
        served.break_package("b/1", &whole[..whole.len() * part / 5]);
        let changes = served.look(Look::Watching).await;
        assert_eq!(
            (changes.failed, changes.loading),
            (vec![], names(&[("b", "1")]))
        );
    }
    served.break_package("b/1", &whole);
    served.look(Look::Watching).await;
    assert_eq!(
        served.look(Look::Watching).await.added,
        names(&[("b", "1")])
    );
    assert!(served.metrics().contains("model_refusals_total 0"));
}

#[tokio::test]
async fn the_last_good_version_serves_on_while_its_package_is_broken() {
    let served = Served::new(&[("b/1", BINARY)]).await;
    let ask = async || {
        let body = r#"{"features":[1,1,1,1,1]}"#;
        served.post("/v1/models/b/predict", body).await.json()["probability"].clone()
    };
    let before = ask().await;
    served.break_package("b/1", b"{\"learner\":");
    let changes = served.look(Look::Now).await;
    assert_eq!(changes.failed[0].0, ("b".into(), "1".into()));
    assert!(
        changes.failed[0].1.starts_with("model.json: "),
        "{changes:?}"
    );

    assert_eq!(ask().await, before);
    let (state, reason, is_served) = served.package("b", "1").await.expect("listed");
    assert_eq!((&*state, is_served), ("failed", true));
    assert!(
        !reason.contains(&*served.folder.path().to_string_lossy()),
        "{reason}"
    );
    let version = served.get("/v1/models/b/versions/1").await.json();
    assert_eq!(version["package"]["state"], json!("failed"));
    assert!(
        served
            .metrics()
            .contains("model_failed{model=\"b\",version=\"1\"} 1")
    );
    // It is not tried again until it changes.
    served.look(Look::Watching).await;
    served.look(Look::Watching).await;
    assert!(served.metrics().contains("model_refusals_total 1"));

    served.put("b/1", "3.2/reg-logistic.json");
    served.look(Look::Watching).await;
    assert_eq!(
        served.look(Look::Watching).await.replaced,
        names(&[("b", "1")])
    );
    assert_eq!(ask().await, Value::Null, "a regression");
    assert!(
        !served.metrics().contains("model_failed{"),
        "{}",
        served.metrics()
    );
}

#[tokio::test]
async fn a_package_that_was_never_good_is_listed_with_its_reason() {
    let served = Served::new(&[("a/1", MEAN)]).await;
    served.put("b/2", BINARY);
    served.break_package("b/2", b"\x80\x04\x95");
    served.look(Look::Now).await;
    let list = served.get("/v1/models").await.json();
    assert_eq!(list["data"][1]["name"], json!("b"));
    assert_eq!(list["data"][1]["state"], json!("failed"));
    assert_eq!(list["data"][1]["latest"], Value::Null);
    let (_, reason, _) = served.package("b", "2").await.expect("listed");
    assert!(reason.contains("a Python pickle"), "{reason}");
    for path in [
        "/v1/models/b/predict",
        "/v1/models/b/versions/2/predict",
        "/v1/models/b/versions/latest/predict",
    ] {
        let reply = served.post(path, "{}").await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(reply.message().contains("GET /v1/models/b says why"));
    }
    for path in [
        "/v1/models/b/schema",
        "/v1/models/b/versions/2",
        "/v1/models/b/versions/latest",
        "/v1/models/b/versions/2/schema",
    ] {
        let reply = served.get(path).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(reply.message().contains("GET /v1/models/b says why"));
    }
    let reply = served.post("/v1/models/b/versions/1/predict", "{}").await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_version_that_could_not_be_loaded_is_the_same_in_the_path_and_the_body() {
    let served = Served::new(&[("b/1", BINARY)]).await;
    served.put("b/2", BINARY);
    served.break_package("b/2", b"{");
    served.look(Look::Now).await;
    let ask = async |version: &str| {
        let body = format!(r#"{{"features":[1,1,1,1,1],"model_version":"{version}"}}"#);
        served.post("/v1/models/b/predict", &body).await
    };
    let in_body = ask("2").await;
    let row = r#"{"features":[1,1,1,1,1]}"#;
    let in_path = served.post("/v1/models/b/versions/2/predict", row).await;
    assert_eq!(in_path.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        (in_body.status, in_body.message()),
        (in_path.status, in_path.message())
    );
    for (version, status) in [
        ("1", StatusCode::OK),
        ("latest", StatusCode::OK),
        ("3", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        assert_eq!(ask(version).await.status, status, "{version}");
    }
}

#[tokio::test]
async fn a_removed_package_is_withdrawn_with_its_metrics_and_requests_in_flight_end_well() {
    let served = Served::new(&[("a/1", MEAN), ("a/2", MEAN), ("b/1", BINARY)]).await;
    let model = served.service.models().model("b").cloned().expect("loaded");
    let version = Arc::downgrade(model.latest().expect("loaded"));
    let target = Target::latest(model).expect("loaded");
    fs::remove_dir_all(served.folder.path().join("b")).expect("removed");
    fs::remove_dir_all(served.folder.path().join("a/2")).expect("removed");

    // A package that is replaced by removing it first is not seen to be gone in between.
    assert!(served.look(Look::Watching).await.removed.is_empty());
    assert!(served.package("b", "1").await.is_some());
    let removed = served.look(Look::Watching).await.removed;
    assert_eq!(removed, names(&[("a", "2"), ("b", "1")]));
    assert_eq!(
        served.get("/v1/models/b").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        served.get("/v1/models/a").await.json()["latest"],
        json!("1")
    );
    let metrics = served.metrics();
    assert!(
        !metrics.contains("\"b\"") && !metrics.contains("version=\"2\""),
        "{metrics}"
    );

    let rows = format!(r#"{{"features":[{}]}}"#, vec!["[1,1,1,1,1]"; 40].join(","));
    let answer = served
        .service
        .predict(target, rows.into(), protocol::records::Records::Full, "r");
    assert!(answer.await.is_ok(), "more rows than are predicted inline");
    assert!(version.upgrade().is_none(), "the last request has ended");
}

#[tokio::test]
async fn calls_at_once_load_once_and_a_call_without_changes_loads_nothing() {
    let served = Served::new(&[("a/1", MEAN)]).await;
    served.put("b/1", BINARY);
    served.put("c/1", BINARY);
    served.break_package("c/1", b"x");
    // None of them can look before all of them wait.
    let looking = served.service.catalogue.lock().await;
    let (one, two, three, ()) = tokio::join!(
        served.post("/v1/models/reload", ""),
        served.post("/v1/models/reload", ""),
        served.post("/v1/models/reload", ""),
        async { drop(looking) }
    );
    let expected = json!({
        "added": [{"model": "b", "version": "1"}], "replaced": [], "removed": [], "loading": [],
        "failed": [{"model": "c", "version": "1",
            "reason": "model.json: not a model file of a known format; XGBoost's UBJSON and JSON, LightGBM's text, CatBoost's own format and JSON, pickles and files of skops with models of scikit-learn, and ONNX are read"}],
    });
    for reply in [one, two, three] {
        assert_eq!(
            (reply.status, reply.json()),
            (StatusCode::OK, expected.clone())
        );
    }
    let metrics = served.metrics();
    assert!(
        metrics.contains("model_loads_total 2") && metrics.contains("model_refusals_total 1"),
        "{metrics}"
    );
    let again = served.post("/v1/models/reload", "").await.json();
    assert_eq!(again["added"], json!([]));
    assert!(served.metrics().contains("model_loads_total 2"));
}

#[tokio::test]
async fn a_folder_that_cannot_be_read_changes_nothing() {
    let served = Served::new(&[("a/1", MEAN)]).await;
    let elsewhere = served.folder.path().with_extension("away");
    fs::rename(served.folder.path(), &elsewhere).expect("moved");
    let reply = served.post("/v1/models/reload", "").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!reply.message().contains(&*elsewhere.to_string_lossy()));
    assert!(served.package("a", "1").await.is_some());
    let is_readable = "models_folder_readable ";
    assert!(served.metrics().contains(&format!("{is_readable}0")));
    fs::rename(elsewhere, served.folder.path()).expect("moved back");
    assert_eq!(served.look(Look::Now).await, Changes::default());
    assert!(served.metrics().contains(&format!("{is_readable}1")));
}

#[tokio::test]
async fn of_several_models_none_is_the_default_by_being_loaded_first() {
    let served = Served::new(&[("a/1", MEAN), ("b/1", BINARY)]).await;
    assert!(served.service.models().default_model().is_none());
    served.put("c/1", BINARY);
    served.look(Look::Now).await;
    assert!(served.service.models().default_model().is_none());
}

#[tokio::test]
async fn files_that_are_no_part_of_a_package_do_not_reload_it() {
    let served = Served::new(&[("a/1", MEAN)]).await;
    let others = ["README.md", ".model.ubj.swp", "training.log"];
    for name in others
        .into_iter()
        .chain(["model.log", "model.tmp", "model.bak"])
    {
        fs::write(served.folder.path().join("a/1").join(name), "x").expect("written");
    }
    assert_eq!(served.look(Look::Watching).await, Changes::default());
    assert_eq!(served.look(Look::Now).await, Changes::default());
}

#[test]
fn the_start_needs_a_folder_and_says_which_packages_are_broken() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let load = |config: &Config| Inference::load(config, Clock::system());
    let config = config_for(folder.path());
    let empty = load(&config).expect("models may come");
    assert_eq!(empty.models().all().len(), 0);
    put(folder.path(), "broken/1", BINARY);
    fs::write(folder.path().join("broken/1/model.json"), "{}").expect("written");
    let broken = load(&config).expect("it may be mended").models();
    assert_eq!((broken.all().len(), broken.ready().count()), (1, 0));
    let error = load(&config_for(&folder.path().join("broken/1")))
        .expect_err("nothing to serve")
        .to_string();
    assert!(
        error.contains("broken 1: model.json: `learner` is missing"),
        "{error}"
    );
    put(folder.path(), "good/1", BINARY);
    let models = load(&config).expect("the other one is good").models();
    let ready: Vec<&str> = models.ready().map(|model| model.name()).collect();
    assert_eq!((ready, models.all().len()), (vec!["good"], 2));
    let gone = config_for(&folder.path().join("gone"));
    assert!(load(&gone).is_err());
}

#[tokio::test]
async fn the_folder_is_watched_until_a_stop() {
    let served = Served::new(&[("a/1", MEAN)]).await;
    let (stop, signal) = StopSignal::new();
    let watching = tokio::spawn(
        served
            .service
            .clone()
            .watch(served.publisher.clone(), signal),
    );
    served.put("b/1", BINARY);
    let seen = async {
        while served.service.models().ready().count() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen)
        .await
        .expect("noticed");
    stop.send_replace(true);
    let ended = tokio::time::timeout(Duration::from_secs(20), watching).await;
    ended.expect("in time").expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_replacements_under_load_fail_no_request() {
    let served = Served::new(&[("b/1", BINARY)]).await;
    let single = r#"{"features":[1,1,1,1,1]}"#;
    let many = format!(r#"{{"features":[{}]}}"#, vec!["[1,1,1,1,1]"; 40].join(","));
    let stop = Arc::new(AtomicBool::new(false));
    let clients = [single.to_owned(), single.to_owned(), many].map(|body| {
        let (router, stop) = (served.router.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut answers = BTreeSet::new();
            while !stop.load(Ordering::Relaxed) {
                let path = "/v1/models/b/predict";
                let reply = send(&router, request("POST", path, body.clone())).await;
                assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.error);
                let answer = reply.json();
                let row = answer.pointer("/predictions/0").unwrap_or(&answer);
                answers.insert(row["probabilities"].to_string());
                tokio::task::yield_now().await;
            }
            answers
        })
    });
    let mut old = Vec::new();
    for turn in 0..50 {
        let model = served.service.models().model("b").cloned().expect("served");
        old.push(Arc::downgrade(model.latest().expect("served")));
        drop(model);
        served.put("b/1", [MULTICLASS, BINARY][turn % 2]);
        let changes = served.look(Look::Now).await;
        assert_eq!(changes.replaced, names(&[("b", "1")]), "{changes:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut answers = BTreeSet::new();
    for client in clients {
        answers.append(&mut client.await.expect("no request failed"));
    }
    assert_eq!(answers.len(), 2, "one answer per model: {answers:?}");
    assert!(
        old.iter().all(|version| version.upgrade().is_none()),
        "old versions are dropped"
    );
}
