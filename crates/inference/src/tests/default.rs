//! Which model answers `POST /predict` while models come and go.

use std::fs;

use auspex_kernel::Clock;

use super::reload::{MEAN, Served};
use super::*;

const ROW: &str = r#"{"features":[1,1,1,1]}"#;

impl Served {
    fn claim(&self, place: &str, is_claimed: bool) {
        let manifest = self.folder.path().join(place).join("model.toml");
        fs::write(manifest, format!("default = {is_claimed}")).expect("written");
    }

    /// Looks, and says which model is the default and how it answers.
    async fn default(&self) -> (Option<String>, StatusCode) {
        let changes = self.look(Look::Now).await;
        assert_eq!(changes.failed, []);
        let name = self.service.models().default_name().map(str::to_owned);
        (name, self.post("/predict", ROW).await.status)
    }

    fn put_away(&self, model: &str) {
        let hidden = self.folder.path().join(format!(".{model}"));
        fs::rename(self.folder.path().join(model), hidden).expect("moved");
    }

    fn put_back(&self, model: &str) {
        let hidden = self.folder.path().join(format!(".{model}"));
        fs::rename(hidden, self.folder.path().join(model)).expect("moved");
    }
}

fn is(name: &str) -> (Option<String>, StatusCode) {
    (Some(name.into()), StatusCode::OK)
}

#[tokio::test]
async fn a_claim_moves_from_one_model_to_another_in_either_order() {
    let served = Served::new(&[("a/1", MEAN), ("z/1", MEAN)]).await;
    served.claim("z/1", true);
    assert_eq!(served.default().await, is("z"));
    // Claimed by both for a while.
    served.claim("a/1", true);
    assert_eq!(served.default().await, is("z"));
    assert_eq!(served.service.rivals(&served.service.models()), ["a", "z"]);
    served.claim("z/1", false);
    assert_eq!(served.default().await, is("a"));
    assert!(served.service.rivals(&served.service.models()).is_empty());
    // Claimed by neither for a while.
    served.claim("a/1", false);
    assert_eq!(served.default().await, is("a"));
    served.claim("z/1", true);
    assert_eq!(served.default().await, is("z"));
    // Both at once.
    served.claim("z/1", false);
    served.claim("a/1", true);
    assert_eq!(served.default().await, is("a"));
}

#[tokio::test]
async fn the_claim_of_the_latest_version_counts() {
    let served = Served::new(&[("a/1", MEAN), ("z/1", MEAN)]).await;
    served.claim("a/1", true);
    assert_eq!(served.default().await, is("a"));
    served.put("a/2", MEAN);
    served.claim("z/1", true);
    assert_eq!(served.default().await, is("z"));
}

#[tokio::test]
async fn while_the_default_model_is_away_no_other_takes_its_place() {
    let served = Served::new(&[("a/1", MEAN)]).await;
    assert_eq!(served.default().await, is("a"));
    served.put("b/1", MEAN);
    assert_eq!(served.default().await, is("a"));
    served.put_away("a");
    let away = (Some("a".to_owned()), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(served.default().await, away);
    let reply = served.post("/predict", ROW).await;
    assert!(reply.message().contains("the default model, a,"));
    served.put_back("a");
    assert_eq!(served.default().await, is("a"));
    served.put_away("a");
    assert_eq!(served.default().await, away);
    served.claim("b/1", true);
    assert_eq!(served.default().await, is("b"));
}

#[tokio::test]
async fn a_start_with_several_claims_or_without_the_configured_model_serves_the_others() {
    let served = Served::new(&[("a/1", MEAN), ("z/1", MEAN)]).await;
    served.claim("a/1", true);
    served.claim("z/1", true);
    let start = |default: &str| {
        let config = Config {
            models: served.folder.path().to_owned(),
            ..config(default)
        };
        Inference::load(&config, Clock::system()).expect("it starts")
    };
    let several = start("");
    assert_eq!(several.models().ready().count(), 2);
    assert_eq!(several.models().default_name(), None);
    assert_eq!(several.rivals(&several.models()), ["a", "z"]);
    let away = start("absent").models();
    assert_eq!(away.default_name(), Some("absent"));
    assert!(away.default_model().is_none());
    let configured = start("z");
    let models = configured.models();
    assert_eq!(models.default_model().map(|model| model.name()), Some("z"));
    assert!(configured.rivals(&models).is_empty());
}
