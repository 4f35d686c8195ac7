//! A models folder with something wrong in it.

use std::fs;
use std::path::Path;

use super::reload::{BINARY, MEAN, Served, names};
use super::*;
use crate::reads::Reads;
use crate::registry::scan;
use crate::reload::Changes;

/// Makes a folder that nobody can read, not even an administrator: a link to itself.
fn put_unreadable(folder: &Path) {
    std::os::unix::fs::symlink(folder, folder).expect("a link");
}

#[tokio::test]
async fn one_model_that_cannot_be_read_stops_no_other_and_serves_on() {
    let served = Served::new(&[("a/1", MEAN), ("b/1", BINARY)]).await;
    let models = served.folder.path();
    fs::rename(models.join("b"), models.join(".b")).expect("moved");
    put_unreadable(&models.join("b"));
    put_unreadable(&models.join("lost+found"));
    served.put("c/1", BINARY);
    for _ in 0..3 {
        served.look(Look::Watching).await;
    }
    let ready = served.get("/v1/models").await.json();
    let ready: Vec<&Value> = ready["data"].as_array().expect("a list").iter().collect();
    let names_of: Vec<&str> = ready.iter().filter_map(|m| m["name"].as_str()).collect();
    assert_eq!(names_of, ["a", "b", "c"]);
    let problems = served.service.folder.load().problems.join("\n");
    assert!(
        problems.contains("\"b\"") && problems.contains("lost+found"),
        "{problems}"
    );

    fs::remove_file(models.join("b")).expect("removed");
    fs::rename(models.join(".b"), models.join("b")).expect("moved back");
    fs::remove_file(models.join("lost+found")).expect("removed");
    assert_eq!(served.look(Look::Now).await.failed, vec![]);
    assert!(served.service.folder.load().problems.is_empty());
}

#[tokio::test]
async fn only_a_reload_withdraws_the_last_package() {
    let served = Served::new(&[("a/1", MEAN)]).await;
    fs::remove_dir_all(served.folder.path().join("a")).expect("removed");
    for _ in 0..3 {
        let watching = served
            .service
            .refresh(Look::Watching, &served.publisher)
            .await;
        let error = watching.expect_err("nothing is left").to_string();
        assert!(error.contains("reload withdraws"), "{error}");
    }
    assert!(served.metrics().contains("models_folder_readable 0"));
    assert!(!served.service.folder.load().is_readable);
    assert!(served.package("a", "1").await.is_some());

    let changes = served.look(Look::Now).await;
    assert_eq!(changes.removed, names(&[("a", "1")]));
    assert!(served.service.folder.load().is_readable);
    assert_eq!(served.look(Look::Watching).await, Changes::default());
}

#[test]
fn a_model_file_outside_the_folder_of_a_version_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(folder.path().join("flat")).expect("a folder");
    for file in ["model.ubj", "flat/model.json", "flat/README.md"] {
        fs::write(folder.path().join(file), "").expect("written");
    }
    let contents = scan(
        folder.path(),
        crate::registry::Layout::Folder,
        &Reads::default(),
    )
    .expect("readable");
    assert!(contents.places.is_empty());
    let problems = contents.problems;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("move it to <model>/<version>/model.ubj"));
    assert!(problems[1].contains("move it to flat/1/model.json"));
}

#[tokio::test]
async fn a_package_that_does_not_answer_is_named_and_stops_no_other() {
    let served = Served::new(&[("a/1", MEAN)]).await;
    served.put("b/1", BINARY);
    let hung = served.folder.path().join("a/1");
    // As if a read of it had not returned.
    served.service.reads.hold(&hung);
    let changes = served.look(Look::Now).await;
    assert_eq!(changes.added, names(&[("b", "1")]));
    let (state, reason, is_served) = served.package("a", "1").await.expect("listed");
    assert_eq!((state.as_str(), is_served), ("failed", true));
    assert!(reason.contains("does not answer"), "{reason}");

    served.service.reads.release(&hung);
    served.look(Look::Now).await;
    let (state, reason, _) = served.package("a", "1").await.expect("listed");
    assert_eq!((state.as_str(), reason.as_str()), ("ready", ""));
}
