//! Requests that tell of the end of a job, signed as Standard Webhooks has it
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>): retried, bounded, and
//! never to where they must not go, see [`auspex_kernel::outward`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auspex_kernel::db::{Db, DbError};
use auspex_kernel::outward::{self, chain};
use auspex_kernel::secrets::load_or_create;
use auspex_kernel::service::StopSignal;
use auspex_kernel::{Clock, Random, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::StatusCode;
use serde_json::json;
use sha2::Sha256;

use crate::types::{CallbackState, Job};
use crate::{Core, Jobs, store};

const SECRET: &str = "jobs.callbacks";
/// What a secret begins with, for programs that look for leaked ones.
const PREFIX: &str = "whsec_";
/// After each attempt; the last is used again.
const DELAYS_S: [u64; 7] = [5, 60, 300, 1_800, 7_200, 18_000, 36_000];
const PAUSE: Duration = Duration::from_secs(1);
/// Beside the time that a request may take, until its sender is taken for dead.
const LEASE: Duration = Duration::from_secs(30);
/// Requests that are under way at once.
const SENDERS: usize = 8;

/// What callbacks are signed with: each caller has a secret of their own, which is derived from one that all processes on
/// the database share.
#[derive(Clone)]
pub struct Secrets([u8; 32]);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Secrets {
    pub(crate) async fn open(db: &Db, clock: &Clock, random: &Random) -> Result<Self, DbError> {
        load_or_create(db, clock, random, SECRET).await.map(Self)
    }

    fn of(&self, owner: &str) -> [u8; 32] {
        mac(&self.0, owner.as_bytes())
    }

    /// The secret of a caller, as receivers are configured with it.
    pub fn shown(&self, owner: &str) -> String {
        format!("{PREFIX}{}", STANDARD.encode(self.of(owner)))
    }

    /// The headers of a callback.
    fn sign(
        &self,
        owner: &str,
        id: &str,
        now: Timestamp,
        body: &str,
    ) -> [(&'static str, String); 3] {
        let time = now.unix_seconds();
        let signature = mac(&self.of(owner), format!("{id}.{time}.{body}").as_bytes());
        [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", time.to_string()),
            (
                "webhook-signature",
                format!("v1,{}", STANDARD.encode(signature)),
            ),
        ]
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Sends callbacks.
#[derive(Clone, Debug)]
pub struct Outgoing {
    client: reqwest::Client,
}

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
enum Answered {
    Delivered,
    /// The receiver says that nobody is there any more.
    Gone,
    Failed(String),
}

impl Jobs {
    /// What sends the callbacks of these jobs.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn outgoing(&self) -> Result<Outgoing, String> {
        let config = &self.core.config.callbacks;
        let limit = Duration::from_millis(config.timeout_ms);
        let client = outward::client(config.allow_private_addresses, limit)?;
        Ok(Outgoing { client })
    }

    /// Sends callbacks until `stop` is given.
    pub(crate) async fn call_back(&self, outgoing: &Outgoing, stop: &StopSignal) {
        let is_failing = &AtomicBool::new(false);
        let sender = |_| {
            let mut stop = stop.clone();
            async move {
                loop {
                    let sending = async {
                        let sent = self.send_callback(outgoing).await;
                        let was_failing = is_failing.swap(sent.is_err(), Ordering::Relaxed);
                        match sent {
                            Ok(true) => {}
                            Ok(false) => tokio::time::sleep(PAUSE).await,
                            Err(error) => {
                                if !was_failing {
                                    tracing::warn!(%error, "callbacks of jobs are not sent; it is tried again");
                                }
                                tokio::time::sleep(10 * PAUSE).await;
                            }
                        }
                    };
                    tokio::select! {
                        biased;
                        () = stop.stop_requested() => return,
                        () = sending => {}
                    }
                }
            }
        };
        futures_util::future::join_all((0..SENDERS).map(sender)).await;
    }

    /// Sends the next callback that is due, if there is one.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn send_callback(&self, outgoing: &Outgoing) -> Result<bool, DbError> {
        let core = &self.core;
        let lease = LEASE + Duration::from_millis(core.config.callbacks.timeout_ms);
        // Of each owner one is on its way at a time: whoever does not answer keeps only their own waiting.
        let claiming = core.claiming_callback.lock().await;
        let busy = core.calling.lock().clone();
        let claimed = core
            .db
            .write(async |transaction| store::callbacks::claim(transaction, lease, &busy).await);
        let Some(job) = claimed.await? else {
            return Ok(false);
        };
        let _calling = Calling::begin(core, &job.owner);
        drop(claiming);
        self.send(outgoing, &job).await?;
        Ok(true)
    }

    async fn send(&self, outgoing: &Outgoing, job: &Job) -> Result<(), DbError> {
        let core = &self.core;
        let attempts = job
            .callback
            .as_ref()
            .map_or(0, |callback| callback.attempts);
        let max = core.config.callbacks.attempts_max;
        // Its senders have died, each time.
        let answered = match attempts > max {
            true => Answered::Failed("it was not sent in time".into()),
            false => core.tell(outgoing, job).await,
        };
        core.metrics.count_callback(answered == Answered::Delivered);
        let (state, again) = match &answered {
            Answered::Delivered => (CallbackState::Delivered, None),
            Answered::Failed(_) if attempts < max => {
                let place = (attempts.max(1) as usize - 1).min(DELAYS_S.len() - 1);
                let delay = Duration::from_secs(DELAYS_S[place]);
                (CallbackState::Due, Some(delay))
            }
            Answered::Failed(_) | Answered::Gone => (CallbackState::GivenUp, None),
        };
        if state == CallbackState::GivenUp {
            tracing::warn!(job.id = %job.id, attempts, reason = ?answered, "a callback was given up");
        }
        let noted = core.db.write(async |transaction| {
            store::callbacks::note(transaction, job, state, again).await
        });
        noted.await
    }
}

/// A callback of this owner is on its way, until it is dropped.
struct Calling<'c> {
    core: &'c Core,
    owner: &'c str,
}

impl<'c> Calling<'c> {
    fn begin(core: &'c Core, owner: &'c str) -> Self {
        core.calling.lock().insert(owner.to_owned());
        Self { core, owner }
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.core.calling.lock().remove(self.owner);
    }
}

impl Core {
    async fn tell(&self, outgoing: &Outgoing, job: &Job) -> Answered {
        let Some(callback) = &job.callback else {
            return Answered::Gone;
        };
        let allow_private = self.config.callbacks.allow_private_addresses;
        // The settings may have changed since it was submitted.
        let url = reqwest::Url::parse(&callback.url).ok();
        let Some(url) = url.filter(|url| outward::check_url(url, allow_private).is_ok()) else {
            return Answered::Failed("its address is not allowed".into());
        };
        let now = self.clock.now();
        let ended_at = job.ended_at.map(Timestamp::to_rfc3339);
        let body = json!({
            "type": format!("job.{}", job.status.as_str()),
            "timestamp": ended_at,
            "data": {
                "id": job.id.as_str(),
                "status": job.status.as_str(),
                "model": job.pinned.model,
                "model_version": job.pinned.version,
                "progress": {"done": job.done, "total": job.rows, "errors": job.wrong},
            },
        })
        .to_string();
        // One end of a job is one message, however often it is sent; a job that is run again ends again.
        let end = job.ended_at.map_or(0, |at| at.0);
        let id = format!("msg_{}_{end}", job.id);
        let mut request = outgoing.client.post(url);
        for (name, value) in self.secrets.sign(&job.owner, &id, now, &body) {
            request = request.header(name, value);
        }
        let request = request
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body);
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Answered::Delivered,
            Ok(answer) if answer.status() == StatusCode::GONE => Answered::Gone,
            Ok(answer) => Answered::Failed(format!("the answer is {}", answer.status())),
            Err(error) => Answered::Failed(chain(&error.without_url())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let content = r#"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}"#;
        let signature = STANDARD.encode(mac(&key, content.as_bytes()));
        assert_eq!(signature, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_caller_has_a_secret_of_their_own() {
        let secrets = Secrets([7; 32]);
        let (one, two) = (secrets.shown("user:A"), secrets.shown("user:B"));
        assert_ne!(one, two);
        let key = STANDARD.decode(one.strip_prefix(PREFIX).unwrap()).unwrap();
        let signed = secrets.sign("user:A", "msg_1", Timestamp(5_000_000), "{}");
        let expected = STANDARD.encode(mac(&key, b"msg_1.5.{}"));
        assert_eq!(signed[2].1, format!("v1,{expected}"));
        assert_eq!(signed[1].1, "5");
    }
}
