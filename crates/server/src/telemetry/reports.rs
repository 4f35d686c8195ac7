//! Reports of internal errors to Sentry, without personal data: route template, request id, cause.

use std::time::Duration;

use auspex_kernel::{ApiError, RequestId};
use sentry::protocol::{Event, Level};
use sentry::types::Dsn;

/// A Sentry client of its own, so that nothing else in the process adds to what is sent.
pub(crate) struct Reports {
    client: sentry::ClientInitGuard,
}

/// The error does not repeat the DSN, which is a secret.
pub(super) fn read_dsn(text: &str) -> Result<Dsn, String> {
    text.parse()
        .map_err(|error| format!("must be of the form https://KEY@HOST/PROJECT: {error}"))
}

impl Reports {
    pub(crate) fn new(dsn: &str, environment: &str) -> Result<Self, String> {
        let dsn = read_dsn(dsn)?;
        let mut options = sentry::ClientOptions::default();
        options.dsn = Some(dsn);
        options.release = Some(concat!("auspex@", env!("CARGO_PKG_VERSION")).into());
        options.environment = Some(environment.to_owned().into());
        options.send_default_pii = false;
        options.server_name = None;
        Ok(Self {
            client: sentry::init(options),
        })
    }

    pub(crate) fn send(&self, error: &ApiError, method: &str, route: &str, id: &RequestId) {
        let mut event = Event {
            level: Level::Error,
            message: error.cause(),
            transaction: Some(format!("{method} {route}")),
            ..Event::default()
        };
        event
            .tags
            .insert("request.id".into(), id.as_str().to_owned());
        self.client.capture_event(event, None);
    }

    /// Sends what is left, within two seconds.
    pub(crate) fn flush(&self) {
        self.client.close(Some(Duration::from_secs(2)));
    }
}
