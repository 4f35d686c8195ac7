//! A models folder with something wrong in it.

use std::fs;
use std::path::Path;

use auspex_kernel::service::Condition;

use super::reload::{BINARY, MEAN, Served, config_for, names, put};
use super::*;
use crate::reads::Reads;
use crate::registry::{Contents, scan};
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
    put_unreadable(&models.join("d"));
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
        problems.contains("\"b\"") && problems.contains("\"d\""),
        "{problems}"
    );
    assert!(!problems.contains("lost+found"), "{problems}");
    let condition = served.service.condition();
    assert_eq!(
        condition,
        Condition::Impaired("the folder of a model cannot be read".into())
    );

    fs::remove_file(models.join("b")).expect("removed");
    fs::rename(models.join(".b"), models.join("b")).expect("moved back");
    fs::remove_file(models.join("d")).expect("removed");
    assert_eq!(served.look(Look::Now).await.failed, vec![]);
    assert_eq!(served.service.condition(), Condition::Works);
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

/// Makes empty files, in folders of their own; a name that ends with a slash is a folder.
fn put_files(folder: &Path, names: &[&str]) {
    for name in names {
        let path = folder.join(name);
        match name.ends_with('/') {
            true => fs::create_dir_all(path).expect("a folder"),
            false => {
                fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                fs::write(path, "").expect("written");
            }
        }
    }
}

fn contents(folder: &Path) -> Contents {
    scan(folder, Layout::of(folder), &Reads::default()).expect("readable")
}

#[test]
fn what_lies_in_the_wrong_place_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    put(folder.path(), "good/1", BINARY);
    for (file, words) in [
        ("model.ubj", "move it to <model>/<version>/model.ubj"),
        (
            "churn.v2.json",
            "move it to churn/1/churn.v2.json, or remove it",
        ),
        (
            "model.toml",
            "move it to <model>/<version>/model.toml, beside its model",
        ),
        (
            "flat/model.json",
            "flat/model.json is not in the folder of a version; move it to flat/1/model.json",
        ),
        (
            "good/model.yaml",
            "move it to good/2/model.toml, beside its model",
        ),
        ("good/new.UBJ", "move it to good/2/new.UBJ"),
        (
            "2/model.ubj",
            "if the models folder is that of one model, name the one above it",
        ),
        (
            "empty/",
            "empty holds no version; put a model there as empty/1/model.ubj",
        ),
        ("documented/README.md", "documented holds no version"),
        ("a\nb.json", "a\\nb.json is not in the folder"),
    ] {
        put_files(folder.path(), &[file]);
        let found = contents(folder.path());
        assert_eq!(found.problems.len(), 1, "{file}: {:?}", found.problems);
        assert!(found.problems[0].contains(words), "{:?}", found.problems);
        assert_eq!(found.places.len(), 1, "{file} hides no neighbour");
        let path = folder.path().join(file);
        match file.split_once('/') {
            Some((model, _)) if model != "good" => fs::remove_dir_all(folder.path().join(model)),
            _ => fs::remove_file(path),
        }
        .expect("removed");
    }
    fs::write(folder.path().join("churn.pkl"), b"\x80\x04\x95").expect("written");
    let problem = &contents(folder.path()).problems[0];
    assert!(
        problem.contains("churn.pkl is not in the folder of a version, and it is a Python pickle")
    );
}

#[test]
fn what_belongs_to_no_model_is_passed_over() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    put(folder.path(), "good/1", BINARY);
    put_files(
        folder.path(),
        &[
            ".DS_Store",
            "._model.ubj",
            ".git/objects/x",
            "lost+found/",
            "__MACOSX/good/1/._model.ubj",
            "README.md",
            "notes.txt",
            "model.ubj~",
            ".model.ubj.swp",
            "model.bak",
            "LICENSE",
            "Thumbs.db",
            "good/README.md",
            "good/.DS_Store",
            "good/__pycache__/x.pyc",
            "good/1/notes.md",
            "good/.incoming/model.ubj",
            "coming/.incoming/model.ubj",
        ],
    );
    let found = contents(folder.path());
    assert_eq!(found.problems, Vec::<String>::new());
    assert_eq!(found.places.len(), 1, "{:?}", found.places);
}

#[test]
fn links_to_nothing_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    put(folder.path(), "good/1", BINARY);
    let link = |place: &str| {
        let place = folder.path().join(place);
        fs::create_dir_all(place.parent().expect("a folder")).expect("made");
        std::os::unix::fs::symlink("nowhere", place).expect("a link");
    };
    for place in [
        "away",
        "churn.ubj",
        "a/1",
        "b/1/model.ubj",
        "c/1/model.toml",
    ] {
        link(place);
    }
    put(folder.path(), "c/1", BINARY);
    let found = contents(folder.path());
    assert_eq!(
        found.unreadable,
        ["away"],
        "what was loaded of it is served on"
    );
    let [away, churn] = &found.problems[..] else {
        panic!("{:?}", found.problems)
    };
    assert!(away.starts_with("away is a link to something that is not there; put back"));
    assert!(churn.starts_with("churn.ubj is a link to something that is not there"));
    let service =
        Inference::load(&config_for(folder.path()), Clock::system()).expect("one is good");
    let models = service.models();
    let failed = models.failed().map(|(model, package)| {
        let reason = package.reason.as_deref().expect("failed");
        assert!(
            reason.contains("is a link to something that is not there"),
            "{reason}"
        );
        (model.name(), reason.split(" is ").next().expect("a word"))
    });
    let expected = [("a", "it"), ("b", "model.ubj"), ("c", "model.toml")];
    assert_eq!(failed.collect::<Vec<_>>(), expected);
}

#[test]
fn however_much_is_in_the_wrong_place_a_bounded_number_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for number in 0..200 {
        put_files(folder.path(), &[&format!("{number}.json")]);
    }
    let problems = contents(folder.path()).problems;
    assert_eq!(problems.len(), 51);
    assert!(problems[50].starts_with("and more"));
}

#[test]
fn a_model_beside_folders_of_models_does_not_hide_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    put(folder.path(), "good/1", BINARY);
    put(folder.path(), "", BINARY);
    fs::write(folder.path().join("model.toml"), "").expect("written");
    let service = Inference::load(&config_for(folder.path()), Clock::system()).expect("served");
    let models = service.models();
    let names: Vec<&str> = models.ready().map(|model| model.name()).collect();
    assert_eq!(names, ["good"]);
    assert_eq!(service.folder.load().problems.len(), 2);
    // Without them it is a package.
    fs::remove_dir_all(folder.path().join("good")).expect("removed");
    assert_eq!(Layout::of(folder.path()), Layout::Package);
}

#[tokio::test]
async fn a_bad_package_impairs_health_until_it_is_mended() {
    let served = Served::new(&[("a/1", MEAN)]).await;
    assert_eq!(served.service.condition(), Condition::Works);
    put_files(served.folder.path(), &["b/1/model.json"]);
    let changes = served.look(Look::Now).await;
    let reason = "model.json: the file is empty".to_owned();
    assert_eq!(changes.failed, [(("b".into(), "1".into()), reason)]);
    let condition = served.service.condition();
    assert_eq!(
        condition,
        Condition::Impaired("a package cannot be loaded".into())
    );
    put_files(served.folder.path(), &["c/1/model.json"]);
    served.look(Look::Now).await;
    let condition = served.service.condition();
    let both = Condition::Impaired("2 packages cannot be loaded".into());
    assert_eq!(condition, both);
    fs::remove_dir_all(served.folder.path().join("c")).expect("removed");
    served.put("b/1", BINARY);
    served.look(Look::Now).await;
    served.look(Look::Now).await;
    assert_eq!(served.service.condition(), Condition::Works);
    fs::remove_dir_all(served.folder.path().join("a")).expect("removed");
    fs::remove_dir_all(served.folder.path().join("b")).expect("removed");
    served.look(Look::Now).await;
    assert_eq!(served.service.condition(), Condition::Fails);
}

#[test]
fn a_strict_start_wants_all_of_the_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let strictly = |default: &str| {
        let config = Config {
            default_model: default.into(),
            ..config_for(folder.path())
        };
        let service = Inference::load(&config, Clock::system()).expect("not strict");
        service.check_strictly().map_err(|error| error.to_string())
    };
    let refused = |default: &str, words: &str| {
        let error = strictly(default).expect_err("refused");
        assert!(
            error.contains(words) && error.contains("without --strict"),
            "{error}"
        );
    };
    refused("", "there is no model in it");
    put(folder.path(), "good/1", BINARY);
    assert_eq!(strictly(""), Ok(()));
    refused("other", "the default model, other, is not in it");
    put_files(folder.path(), &["stray.json"]);
    refused("", "stray.json is not in the folder of a version");
    fs::remove_file(folder.path().join("stray.json")).expect("removed");
    put_files(folder.path(), &["bad/2/model.ubj"]);
    refused("", "\n  bad 2: model.ubj: the file is empty\n");
    for number in 0..40 {
        put_files(folder.path(), &[&format!("stray{number}.json")]);
    }
    refused("", "\n  and 21 more, see");
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
