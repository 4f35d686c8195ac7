//! What this service records; see [`auspex_kernel::audit`].

use std::sync::Arc;

use auspex_kernel::Random;
use auspex_kernel::audit::{self, Actor};
use auspex_kernel::db::Db;
use auspex_kernel::service::Publisher;

use crate::Inference;
use crate::reload::{Changes, Look, RefreshError};

type Event = audit::Event<Action>;

auspex_kernel::audit_actions! {
    /// What is recorded.
    pub(crate) enum Action {
        ModelsReload = "models.reload";
    }
}

impl Inference {
    /// Looks at the models folder now, and records who wanted it and what came of it. Models can be
    /// replaced while the database is away; then the log alone has the record.
    pub(crate) async fn reload(
        self: &Arc<Self>,
        actor: &Actor,
        publisher: &Publisher,
        db: &Db,
        random: &Random,
    ) -> Result<Changes, RefreshError> {
        let looked = self.refresh(Look::Now, publisher).await;
        let event = event(&looked);
        let recording = db.write(async |transaction| {
            audit::record(transaction, actor, event.clone(), &self.clock, random).await
        });
        if let Err(error) = recording.await {
            tracing::error!(
                %error,
                caller = %actor.subject,
                request.id = actor.request_id,
                outcome = event.outcome.as_str(),
                detail = event.detail,
                "models were reloaded, and the audit record does not show it"
            );
        }
        looked
    }
}

fn event(looked: &Result<Changes, RefreshError>) -> Event {
    let reload = Action::ModelsReload;
    let changes = match looked {
        Ok(changes) => changes,
        Err(RefreshError::Folder(_)) => {
            return Event::failed(reload, "models").with("the models folder cannot be read");
        }
        Err(RefreshError::Document(_)) => {
            return Event::failed(reload, "models").with("the document does not show the changes");
        }
    };
    let counts = [
        ("added", changes.added.len()),
        ("replaced", changes.replaced.len()),
        ("removed", changes.removed.len()),
        ("loading", changes.loading.len()),
        ("failed", changes.failed.len()),
    ];
    let some = counts.iter().filter(|(_, count)| *count > 0);
    let some: Vec<String> = some
        .map(|(what, count)| format!("{what} {count}"))
        .collect();
    Event::new(reload, "models").with(match some.is_empty() {
        true => "no changes".to_owned(),
        false => some.join(", "),
    })
}
