//! RabbitMQ as the carrier of ids: workers of all processes are woken without looking for work all the time.
//!
//! An id in the queue says that there is work; whose turn it is the database says, so that owners and jobs are served as
//! fairly as without RabbitMQ. A worker takes from the queue only while it has nothing to do. When it is woken and
//! finds work it puts an id back, for there may be more, and so idle workers are woken one after the other; an id that
//! wakes a worker for nothing is gone. What the queue loses is found by a look at the database now and then, which is all
//! there is while RabbitMQ is away.

mod wire;

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use auspex_kernel::clock::monotonic;
use auspex_kernel::config::ConfigError;
use auspex_kernel::db::{Db, DbError};
use auspex_kernel::id::JobId;
use auspex_kernel::service::{Boxed, Condition};
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tokio::sync::Notify;

use super::{Carrier, CarrierError, InDatabase};

/// Until it has taken an id, or a worker's wish for one.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Until there is a connection, with its queue.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the end of a connection, or of an attempt, to the next attempt.
const AGAIN: Duration = Duration::from_millis(500);
/// How often a connection is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A peer that is silent for twice as long is gone.
const HEARTBEAT_S: u16 = 5;
/// How often the database is looked at while RabbitMQ works, for what nobody offered: chunks to be tried again, those of
/// workers that died, ids that were lost.
const SWEEP: Duration = Duration::from_secs(5);
/// Ids that the queue holds. More are refused: they would say nothing new.
const QUEUE_MAX: i64 = 100_000;
/// After the queue was found full, until an id is put into it again.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// A queue that was full before that is news again.
const FULL_LOG_PAUSE: Duration = Duration::from_mins(1);
const PERSISTENT: u8 = 2;

/// `[jobs.rabbitmq]`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitMqConfig {
    /// `amqp://`, or `amqps://` for TLS; empty: the database carries ids itself.
    pub url: String,
    /// Whom to trust over TLS; empty: the authorities of the system.
    pub ca_file: PathBuf,
    /// The queue of all processes that work for one database.
    pub queue: String,
}

/// Without the URL, which may have a password in it.
impl std::fmt::Debug for RabbitMqConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RabbitMqConfig")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl RabbitMqConfig {
    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        !self.url.is_empty()
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if self.queue.is_empty() || self.queue.len() > 64 || !self.queue.bytes().all(is_name) {
            let reason = "must be 1 to 64 ASCII letters, digits and the signs - _ . :";
            return Err(ConfigError::wrong("jobs.rabbitmq.queue", reason));
        }
        if self.is_on() {
            self.uri()
                .map_err(|reason| ConfigError::wrong("jobs.rabbitmq.url", reason))?;
        }
        if !self.ca_file.as_os_str().is_empty() {
            wire::roots(&self.ca_file)
                .map_err(|reason| ConfigError::wrong("jobs.rabbitmq.ca_file", reason))?;
        }
        Ok(())
    }

    /// The error does not repeat the URL.
    fn uri(&self) -> Result<AMQPUri, &'static str> {
        let mut uri: AMQPUri = self.url.parse().map_err(|_| {
            "cannot be used; write it as amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for TLS, of which HOST is needed, and percent-encode what is special in URLs"
        })?;
        if uri.query.heartbeat.is_none() {
            uri.query.heartbeat = Some(HEARTBEAT_S);
        }
        Ok(uri)
    }
}

/// Ids travel through a quorum queue of RabbitMQ.
pub struct InRabbitMq {
    database: InDatabase,
    broker: Arc<Broker>,
}

struct Broker {
    config: RabbitMqConfig,
    uri: AMQPUri,
    /// The connection, while it works.
    link: Mutex<Option<Arc<Link>>>,
    /// A call on the connection failed.
    is_suspect: Notify,
    up: Gauge,
}

/// A connection with its queue.
struct Link {
    connection: Connection,
    publisher: Channel,
    /// When the queue was last found full.
    full_at: Mutex<Option<Instant>>,
}

/// What became of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Taken,
    /// There is no queue.
    WithoutQueue,
    /// The queue is full, or another one than the channel knew.
    Refused,
}

/// An id that was taken from the queue. Dropped without [`Token::spend`] it goes back.
struct Token {
    delivery: Delivery,
    /// Ends with this, and what was not acknowledged on it goes back.
    _channel: Channel,
}

impl InRabbitMq {
    /// Connects, or goes on trying to. `pause` is that of [`InDatabase`] while RabbitMQ is away. Call it on the control
    /// runtime.
    ///
    /// # Errors
    /// A message for the operator, without the URL.
    pub async fn open(
        config: RabbitMqConfig,
        db: Db,
        pause: Duration,
    ) -> Result<Self, &'static str> {
        let uri = config.uri()?;
        let broker = Arc::new(Broker {
            config,
            uri,
            link: Mutex::default(),
            is_suspect: Notify::new(),
            up: Gauge::default(),
        });
        let first = broker.connect().await;
        broker.set(first.map(Arc::new), true);
        tokio::spawn(Broker::keep(Arc::downgrade(&broker)));
        Ok(Self {
            database: InDatabase::new(db, pause),
            broker,
        })
    }

    /// Woken by an id of the queue: looks what there is to do, and lets others know.
    async fn look_woken(&self, link: &Arc<Link>, token: Token) -> Result<Option<JobId>, DbError> {
        let found = self.database.look().await?;
        if let Some(job) = &found {
            // If it is lost, the others look a little later.
            let _ = self.broker.publish(link, job).await;
        }
        token.spend().await;
        Ok(found)
    }
}

impl Carrier for InRabbitMq {
    fn offer<'a>(&'a self, job: &'a JobId) -> Boxed<'a, Result<(), CarrierError>> {
        Box::pin(async {
            match self.broker.link() {
                Some(link) => self.broker.publish(&link, job).await,
                None => {
                    self.database.wake();
                    Ok(())
                }
            }
        })
    }

    fn next(&self) -> Boxed<'_, Result<JobId, CarrierError>> {
        Box::pin(async {
            loop {
                if let Some(job) = self.database.look().await? {
                    return Ok(job);
                }
                let Some(link) = self.broker.link() else {
                    self.database.wait(self.database.pause()).await;
                    continue;
                };
                tokio::select! {
                    token = self.broker.take(&link) => match token {
                        Ok(token) => if let Some(job) = self.look_woken(&link, token).await? {
                            return Ok(job);
                        },
                        Err(_) => {
                            self.broker.suspect(&link);
                            self.database.wait(LOOK).await;
                        }
                    },
                    () = self.database.wait(SWEEP) => {}
                }
            }
        })
    }

    fn condition(&self) -> Option<(&'static str, Condition)> {
        let condition = match self.broker.link() {
            Some(_) => Condition::Works,
            None => Condition::Impaired("does not take ids of jobs".into()),
        };
        Some(("rabbitmq", condition))
    }

    fn register_metrics(&self, registry: &mut Registry) {
        registry.register(
            "rabbitmq_up",
            "Whether RabbitMQ carries ids of jobs: 1 or 0",
            self.broker.up.clone(),
        );
    }
}

impl Broker {
    /// The connection, unless RabbitMQ takes nothing.
    fn link(&self) -> Option<Arc<Link>> {
        let link = self.link.lock().clone();
        link.filter(|link| link.is_useful())
    }

    /// A call on the connection failed: another one is made, with its queue. What fails because that was done changes nothing.
    fn suspect(&self, link: &Arc<Link>) {
        let current = self.link.lock();
        if current.as_ref().is_some_and(|one| Arc::ptr_eq(one, link)) {
            self.is_suspect.notify_one();
        }
    }

    /// Looks after the connection until nobody needs it any more.
    async fn keep(broker: Weak<Self>) {
        loop {
            let Some(broker) = broker.upgrade() else {
                return;
            };
            let suspected = tokio::time::timeout(LOOK, broker.is_suspect.notified()).await;
            let known = broker.link.lock().clone();
            let known = known.filter(|_| suspected.is_err());
            if let Some(link) = known.filter(|link| link.is_there()) {
                // It may be in use or not, by an alarm.
                broker.up.set(i64::from(link.is_useful()));
                continue;
            }
            let was_up = broker.link.lock().take().is_some();
            if was_up {
                broker.set(Err("the connection has ended".into()), true);
            }
            tokio::time::sleep(AGAIN).await;
            let connected = broker.connect().await;
            broker.set(connected.map(Arc::new), false);
        }
    }

    /// Notes how an attempt went. What has not changed is not told again.
    fn set(&self, attempt: Result<Arc<Link>, String>, is_news: bool) {
        self.up.set(i64::from(attempt.is_ok()));
        match attempt {
            Ok(link) => {
                *self.link.lock() = Some(link);
                tracing::info!("RabbitMQ carries ids of jobs");
            }
            Err(error) if is_news => tracing::warn!(
                error,
                "RabbitMQ does not carry ids of jobs; workers look for them in the database"
            ),
            Err(_) => {}
        }
    }

    async fn connect(&self) -> Result<Link, String> {
        let connecting = Link::open(self.uri.clone(), &self.config);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".into()),
        }
    }

    /// Puts an id into the queue, and waits until it is safe there. A queue that is full needs none.
    async fn publish(&self, link: &Arc<Link>, job: &JobId) -> Result<(), CarrierError> {
        if link.was_full_lately() {
            return Ok(());
        }
        let publishing = async {
            let sent = self.send(&link.publisher, job).await?;
            if sent != Sent::Refused {
                return Ok((sent, false));
            }
            // A channel that knew a queue from before it was made anew is refused for ever.
            let other = link.connection.create_channel().await?;
            other
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            let sent = self.send(&other, job).await?;
            Ok::<_, lapin::Error>((sent, sent != Sent::Refused))
        };
        let reason = match tokio::time::timeout(CALL_TIMEOUT, publishing).await {
            Ok(Ok((Sent::Refused, _))) => {
                link.note_full();
                return Ok(());
            }
            Ok(Ok((Sent::Taken, false))) => return Ok(()),
            Ok(Ok((Sent::Taken, true))) => {
                self.suspect(link);
                return Ok(());
            }
            Ok(Ok((Sent::WithoutQueue, _))) => "its queue is gone".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        self.suspect(link);
        Err(CarrierError::RabbitMq(reason))
    }

    async fn send(&self, channel: &Channel, job: &JobId) -> Result<Sent, lapin::Error> {
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        // Without its queue it would be taken and lost.
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let (queue, id) = (self.config.queue.as_str().into(), job.as_str().as_bytes());
        let sent = channel.basic_publish("".into(), queue, options, id, properties);
        let confirmation = sent.await?.await?;
        Ok(match (confirmation.is_ack(), confirmation.take_message()) {
            (true, None) => Sent::Taken,
            (true, Some(_)) => Sent::WithoutQueue,
            (false, _) => Sent::Refused,
        })
    }

    /// The next id in the queue. It waits until there is one.
    async fn take(&self, link: &Link) -> Result<Token, lapin::Error> {
        let asking = async {
            let channel = link.connection.create_channel().await?;
            channel.basic_qos(1, BasicQosOptions::default()).await?;
            let (queue, options) = (
                self.config.queue.as_str().into(),
                BasicConsumeOptions::default(),
            );
            let consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default());
            Ok::<_, lapin::Error>((consumer.await?, channel))
        };
        let Ok(asked) = tokio::time::timeout(CALL_TIMEOUT, asking).await else {
            return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
        };
        let (mut consumer, channel) = asked?;
        let Some(delivery) = consumer.next().await else {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        };
        // Nothing follows it, neither now nor when it has been acknowledged.
        let cancelling = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        let _ = tokio::time::timeout(CALL_TIMEOUT, cancelling).await;
        Ok(Token {
            delivery: delivery?,
            _channel: channel,
        })
    }
}

impl Link {
    async fn open(uri: AMQPUri, config: &RabbitMqConfig) -> Result<Self, lapin::Error> {
        let properties = ConnectionProperties::default().with_connection_name("auspex".into());
        let connection = wire::connect(uri, &config.ca_file, properties).await?;
        let publisher = connection.create_channel().await?;
        publisher
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        );
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(QUEUE_MAX));
        arguments.insert(
            "x-overflow".into(),
            AMQPValue::LongString("reject-publish".into()),
        );
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        publisher
            .queue_declare(config.queue.as_str().into(), options, arguments)
            .await?;
        Ok(Self {
            connection,
            publisher,
            full_at: Mutex::default(),
        })
    }

    /// Whether the queue was full so lately that it is not tried again.
    fn was_full_lately(&self) -> bool {
        let full_at = self.full_at.lock();
        full_at.is_some_and(|at| at.elapsed() < FULL_PAUSE)
    }

    fn note_full(&self) {
        let before = self.full_at.lock().replace(monotonic());
        if before.is_none_or(|at| at.elapsed() > FULL_LOG_PAUSE) {
            tracing::warn!(
                "the queue of RabbitMQ is full; workers find the jobs that have no place in it in the database"
            );
        }
    }

    fn is_there(&self) -> bool {
        self.connection.status().connected() && self.publisher.status().connected()
    }

    /// Whether it is worth a call: it is there, and RabbitMQ has not stopped publishers for want of memory or disk.
    fn is_useful(&self) -> bool {
        self.is_there() && !self.connection.status().blocked()
    }
}

impl Token {
    /// It has done what it was for.
    async fn spend(self) {
        // Otherwise it wakes somebody again.
        let acknowledged = self.delivery.ack(BasicAckOptions::default());
        let _ = tokio::time::timeout(CALL_TIMEOUT, acknowledged).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_without_repeating_a_password() {
        let check = |url: &str, queue: &str| {
            let config = RabbitMqConfig {
                url: url.into(),
                ca_file: PathBuf::new(),
                queue: queue.into(),
            };
            assert!(!format!("{config:?}").contains("secret"));
            config.check().map_err(|error| error.to_string())
        };
        for url in [
            "",
            "amqp://127.0.0.1",
            "amqp://user:secret@rabbit.internal:5673/%2f",
            "amqps://user:secret@[::1]/vhost?heartbeat=10",
        ] {
            assert_eq!(check(url, "auspex.jobs"), Ok(()), "{url}");
        }
        for url in [
            "127.0.0.1:5672",
            "http://127.0.0.1",
            "amqp://user:secret@host:port",
            "amqp://user:secret@host/?heartbeat=soon",
        ] {
            let refused = check(url, "auspex.jobs").expect_err(url);
            assert!(refused.contains("jobs.rabbitmq.url"), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
        for queue in ["", "with space", "ü", &"x".repeat(65)] {
            assert!(check("", queue).is_err(), "{queue}");
        }
    }
}
