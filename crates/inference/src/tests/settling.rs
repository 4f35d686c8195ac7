//! Packages that are still being written.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use auspex_kernel::{Clock, Timestamp};

use super::reload::{BINARY, MEAN, Served, golden, names};
use super::*;

const QUIET: Duration = Duration::from_secs(2);

/// A server whose time stands still.
async fn served(packages: &[(&str, &str)]) -> (Served, Clock) {
    let clock = Clock::manual(Timestamp(0));
    let set = |config: &mut Config| config.watch_quiet_ms = 2000;
    (Served::with(packages, clock.clone(), set).await, clock)
}

/// A place for the files of a package.
fn folder(served: &Served, place: &str) -> PathBuf {
    let folder = served.folder.path().join(place);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

#[tokio::test]
async fn a_package_is_loaded_when_nothing_has_changed_for_a_while() {
    let (served, clock) = served(&[("a/1", MEAN)]).await;
    served.put("b/1", BINARY);
    for _ in 0..3 {
        let changes = served.look(Look::Watching).await;
        assert_eq!(changes.loading, names(&[("b", "1")]));
    }
    clock.advance(QUIET - Duration::from_millis(1));
    assert!(served.look(Look::Watching).await.added.is_empty());
    clock.advance(Duration::from_millis(1));
    let changes = served.look(Look::Watching).await;
    assert_eq!(changes.added, names(&[("b", "1")]));
}

#[tokio::test]
async fn a_new_version_is_not_the_latest_while_its_manifest_may_still_come() {
    let (served, clock) = served(&[("a/1", BINARY)]).await;
    served.put("a/2", BINARY);
    served.look(Look::Watching).await;
    clock.advance(QUIET / 2);
    served.look(Look::Watching).await;
    let manifest = folder(&served, "a/2").join("model.toml");
    fs::write(manifest, "title = \"whole\"").expect("written");
    clock.advance(QUIET / 2);
    served.look(Look::Watching).await;
    let model = served.get("/v1/models/a").await.json();
    assert_eq!(model["latest"], json!("1"));
    clock.advance(QUIET);
    served.look(Look::Watching).await;
    let model = served.get("/v1/models/a").await.json();
    assert_eq!(
        (&model["latest"], &model["title"]),
        (&json!("2"), &json!("whole"))
    );
}

#[tokio::test]
async fn a_manifest_waits_for_the_model_that_comes_under_a_hidden_name() {
    let (served, clock) = served(&[("a/1", BINARY)]).await;
    let place = folder(&served, "a/1");
    fs::write(place.join("model.toml"), "title = \"new\"").expect("written");
    let whole = fs::read(golden(BINARY)).expect("a model");
    let hidden = place.join(".model.json.x7Hq2");
    for part in 1..5 {
        fs::write(&hidden, &whole[..whole.len() * part / 5]).expect("written");
        clock.advance(QUIET);
        let changes = served.look(Look::Watching).await;
        assert_eq!(changes.loading, names(&[("a", "1")]));
    }
    fs::write(&hidden, &whole).expect("written");
    fs::rename(hidden, place.join("model.json")).expect("moved");
    served.look(Look::Watching).await;
    clock.advance(QUIET);
    let changes = served.look(Look::Watching).await;
    assert_eq!(changes.replaced, names(&[("a", "1")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_does_not_load_what_is_being_written_at_this_moment() {
    let (served, _) = served(&[("a/1", MEAN)]).await;
    served.put("b/1", BINARY);
    let hidden = folder(&served, "b/1").join(".model.toml.x7Hq2");
    let changes = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for length in 1..100 {
                fs::write(&hidden, "#".repeat(length)).expect("written");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let runtime = tokio::runtime::Handle::current();
        let looked = tokio::task::block_in_place(|| runtime.block_on(served.look(Look::Now)));
        assert!(!writing.is_finished(), "the look is short");
        looked
    });
    assert_eq!(changes.loading, names(&[("b", "1")]));
    let changes = served.look(Look::Now).await;
    assert_eq!(changes.added, names(&[("b", "1")]));
}
