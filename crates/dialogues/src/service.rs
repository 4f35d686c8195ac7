//! How this service meets the composition root.

use std::path::Path;
use std::sync::Arc;

use auspex_kernel::CursorKey;
use auspex_kernel::audit::Action as _;
use auspex_kernel::config::ConfigError;
use auspex_kernel::db::{Connection, DbError, sqlite_file};
use auspex_kernel::policy::{Answer, Policy, Runs};
use auspex_kernel::quota::RateLimit;
use auspex_kernel::service::{
    Boxed, Context, Documented, HealthCheck, Migrations, OpenError, OwnDatabase, Routes, Running,
    Service, StopSignal, Warning,
};
use prometheus_client::registry::Registry;
use utoipa::openapi::OpenApi;

use crate::http::{self, Desk};
use crate::keys::release;
use crate::pending::Marks;
use crate::{Action, Config, Dialogues, keys_url, migration, store};

const TAG: &str = "Texts of customers, kept and read only with their consent";

/// The dialogues service, open.
pub struct DialoguesService {
    dialogues: Dialogues,
    desk: Desk,
    cursors: CursorKey,
    text_bytes_max: usize,
    rate_limit: RateLimit,
}

impl Service for DialoguesService {
    const NAME: &'static str = "dialogues";
    const DEFAULTS: &'static str = crate::config::DEFAULTS;
    const ACTIONS: &'static [&'static str] = Action::TEXTS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), ConfigError> {
        config.check()
    }

    fn migrations() -> Option<Migrations> {
        Some(Migrations::of::<migration::Migrator>())
    }

    fn operations() -> OpenApi {
        http::document()
    }

    fn is_in_use(connection: &Connection) -> Boxed<'_, Result<bool, DbError>> {
        Box::pin(store::holds_anything(connection))
    }

    fn own_databases(config: &Config, data_dir: &Path, tables_url: &str) -> Vec<OwnDatabase> {
        let main_is_sqlite = sqlite_file(tables_url).is_some();
        vec![OwnDatabase {
            holds: "the keys of the customers' texts",
            url: keys_url(config, main_is_sqlite, data_dir),
            migrations: vec![Migrations::of::<migration::KeysMigrator>()],
            is_missed: |connection| Box::pin(store::messages::are_any(connection)),
            release: |texts, keys| Box::pin(release(texts, keys)),
        }]
    }

    fn document(_: &Config) -> Result<Documented, OpenError> {
        Ok(documented())
    }

    async fn open(config: Config, context: Context) -> Result<Arc<Self>, OpenError> {
        let Context {
            db,
            clock,
            random,
            cursors,
            data_dir,
            control,
            redis,
            ..
        } = context;
        let (text_bytes_max, shows_ids) = (config.pending.text_bytes_max, !config.pseudonyms);
        let rate_limit = config.rate_limit;
        let own_marks = Marks::new(&random)?;
        let dialogues = Dialogues::open(db, config, &data_dir, clock, random).await?;
        let (dialogues, marks) = match redis {
            Some(redis) => dialogues.sharing(redis).await?,
            None => (dialogues, own_marks),
        };
        let replayed = dialogues.replay_erasures().await?;
        if replayed.erasures + replayed.keys > 0 {
            tracing::warn!(
                erasures = replayed.erasures,
                texts = replayed.texts,
                keys = replayed.keys,
                "erasures were carried out that were cut off, or that a restored backup had undone"
            );
        }
        let desk = Desk {
            dialogues: dialogues.clone(),
            marks,
            control,
            text_bytes_max,
            shows_ids,
        };
        Ok(Arc::new(Self {
            dialogues,
            desk,
            cursors,
            text_bytes_max,
            rate_limit,
        }))
    }
}

impl Running for DialoguesService {
    fn routes(self: Arc<Self>) -> Routes {
        let decision = Policy {
            caller_limit: Some(self.rate_limit),
            ..Policy::default()
        };
        let text = Policy {
            runs: Runs::Inline,
            body_bytes_max: Some(http::body_bytes_max(self.text_bytes_max)),
            ..decision
        };
        let stream = Policy {
            answer: Answer::Stream,
            ..Policy::default()
        };
        let router = http::router(self.desk.clone(), self.cursors.clone());
        Routes::new(router, documented())
            .with_handler(&http::TEXTS, &http::push_text(&self.desk))
            .with_handler(&http::MESSAGES, &http::push_message(&self.desk))
            .with_policy(&http::TEXTS, text)
            .with_policy(&http::MESSAGES, text)
            .with_policy(&http::DECISIONS, decision)
            .with_policy(&http::STREAMS, stream)
    }

    fn health_checks(&self) -> Vec<HealthCheck<'_>> {
        // Predictions, logins and all else are answered without it.
        vec![HealthCheck {
            needed: false,
            ..HealthCheck::new("keys", self.dialogues.keys_are_well())
        }]
    }

    fn register_metrics(&self, registry: &mut Registry) {
        self.dialogues.register_metrics(registry);
    }

    fn background(self: Arc<Self>, mut stop: StopSignal) -> Boxed<'static, ()> {
        Box::pin(async move {
            let stop = async { stop.stop_requested().await };
            self.dialogues.watch(stop).await;
        })
    }

    fn warnings(&self) -> Vec<Warning> {
        let together = self.dialogues.keys_are_with_texts().then(|| Warning {
            code: "KEYS_WITH_TEXTS",
            message:
                "the customers' keys are in the database of their texts, so that a backup holds \
                      both and an erasure does not reach into it; name another database with \
                      dialogues.keys_url"
                    .to_owned(),
        });
        let evicting = self.dialogues.waiting_may_be_dropped().then(|| Warning {
            code: "REDIS_MAY_EVICT",
            message: "Redis may drop keys to make room, so that no texts are taken; set its \
                      maxmemory-policy to noeviction"
                .to_owned(),
        });
        together.into_iter().chain(evicting).collect()
    }
}

fn documented() -> Documented {
    Documented::new(http::document()).with_tags(&[(http::TAG, TAG)])
}
