//! How this service meets the composition root.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::CursorKey;
use auspex_kernel::audit::Action as _;
use auspex_kernel::config::ConfigError;
use auspex_kernel::db::{Connection, DbError};
use auspex_kernel::idempotency::Idempotency;
use auspex_kernel::policy::{Answer, Policy};
use auspex_kernel::service::{
    Boxed, Context, Documented, HealthCheck, Migrations, OpenError, Routes, Running, Service,
    StopSignal,
};
use prometheus_client::registry::Registry;
use utoipa::openapi::OpenApi;

use crate::carrier::{Carrier, InDatabase, InRabbitMq};
use crate::http::{self, Desk};
use crate::{Action, Config, Jobs, Outgoing, migration, store};

const TAG: &str = "Predictions of many records, carried out beside requests";

/// The jobs service, open.
pub struct JobsService {
    jobs: Jobs,
    outgoing: Outgoing,
    config: Config,
    desk: Desk,
    idempotency: Idempotency,
    cursors: CursorKey,
}

impl Service for JobsService {
    const NAME: &'static str = "jobs";
    const DEFAULTS: &'static str = crate::config::DEFAULTS;
    const ACTIONS: &'static [&'static str] = Action::TEXTS;
    type Config = Config;

    fn check(config: &Config) -> Result<(), ConfigError> {
        config.check()
    }

    fn migrations() -> Option<Migrations> {
        Some(Migrations::of::<migration::Migrator>())
    }

    fn is_in_use(connection: &Connection) -> Boxed<'_, Result<bool, DbError>> {
        Box::pin(store::jobs::are_any(connection))
    }

    fn operations() -> OpenApi {
        http::document()
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
            predictor,
            ..
        } = context;
        let predictor = predictor.ok_or("jobs need a service that predicts, opened before them")?;
        let pause = Duration::from_millis(config.poll_interval_ms);
        let carrier: Arc<dyn Carrier> = match config.rabbitmq.is_on() {
            true => Arc::new(InRabbitMq::open(config.rabbitmq.clone(), db.clone(), pause).await?),
            false => Arc::new(InDatabase::new(db.clone(), pause)),
        };
        let idempotency = Idempotency::new(db.clone(), clock.clone());
        let jobs = Jobs::open(
            db,
            config.clone(),
            carrier,
            predictor,
            clock.clone(),
            random,
        )
        .await?;
        let desk = Desk::new(jobs.clone(), config.clone(), clock);
        Ok(Arc::new(Self {
            outgoing: jobs.outgoing()?,
            jobs,
            config,
            desk,
            idempotency,
            cursors,
        }))
    }
}

impl Running for JobsService {
    fn routes(self: Arc<Self>) -> Routes {
        let input = Policy {
            streams_body: true,
            body_bytes_max: Some(self.config.input_bytes_max),
            body_timeout: Some(Duration::from_secs(self.config.input_timeout_s)),
            // The body may take its time, and has a bound of its own.
            request_timeout: Some(Duration::MAX),
            ..Policy::default()
        };
        let stream = Policy {
            answer: Answer::Stream,
            ..Policy::default()
        };
        let (idempotency, cursors) = (self.idempotency.clone(), self.cursors.clone());
        let router = http::router(self.desk.clone(), idempotency, cursors);
        Routes::new(router, documented())
            .with_policy(&http::INPUTS, input)
            .with_policy(&http::STREAMS, stream)
    }

    fn health_checks(&self) -> Vec<HealthCheck<'_>> {
        let checks = self
            .jobs
            .carrier_condition()
            .map(|(name, condition)| HealthCheck {
                needed: false,
                ..HealthCheck::with(name, std::future::ready(condition))
            });
        checks.into_iter().collect()
    }

    fn register_metrics(&self, registry: &mut Registry) {
        self.jobs.register_metrics(registry);
    }

    fn background(self: Arc<Self>, stop: StopSignal) -> Boxed<'static, ()> {
        Box::pin(async move {
            tokio::join!(
                self.jobs.work(&stop),
                self.jobs.call_back(&self.outgoing, &stop),
                self.jobs.keep_up(stop.clone()),
            );
        })
    }
}

fn documented() -> Documented {
    Documented::new(http::document()).with_tags(&[(http::TAG, TAG)])
}
