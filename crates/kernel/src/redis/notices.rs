//! Notices between replicas: that something has changed in the database, which is where to read what.
//!
//! A notice may be lost, with a connection or with Redis, so nothing may rest on it alone. Whoever
//! listens is told when a connection begins, too: what was told before it was not heard.

use std::time::Duration;

use futures_util::StreamExt as _;
use redis::RedisResult;
use tokio::sync::watch;

use super::{Redis, pipe};

/// Between attempts to listen again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a quiet connection is asked whether it is still there.
const PING: Duration = Duration::from_secs(1);

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Something has changed.
    Changed,
    /// It is listened from now on; what was said before may not have been heard.
    Began,
}

/// Hears the notices of one channel. Several that come at once may be heard as one.
#[derive(Debug)]
pub struct Notices {
    heard: watch::Receiver<Heard>,
    known: Heard,
}

/// How often each was heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Heard {
    changed: u64,
    began: u64,
}

impl Notices {
    /// Those of a server without replicas: none.
    pub fn none() -> Self {
        let (_, heard) = watch::channel(Heard::default());
        Self {
            heard,
            known: Heard::default(),
        }
    }

    /// Waits for the next one. Dropping this loses none.
    pub async fn next(&mut self) -> Notice {
        let known = self.known;
        let Ok(heard) = self.heard.wait_for(|heard| *heard != known).await else {
            // There are none, or the runtime ends.
            return std::future::pending().await;
        };
        let notice = match heard.began != known.began {
            true => Notice::Began,
            false => Notice::Changed,
        };
        self.known = *heard;
        notice
    }
}

impl Redis {
    /// Tells all replicas that something has changed. Nobody waits for it, and nobody learns whether
    /// it was heard.
    pub fn announce(&self, channel: &str) {
        let (redis, channel) = (self.clone(), self.key(channel));
        self.control().spawn(async move {
            let mut publish = pipe();
            publish.cmd("PUBLISH").arg(channel).arg("");
            let _: Result<(u64,), _> = redis.query(&publish).await;
        });
    }

    /// Listens to a channel until nobody has the result any more.
    pub fn listen(&self, channel: &str) -> Notices {
        let (heard, receiver) = watch::channel(Heard::default());
        let (redis, channel) = (self.clone(), self.key(channel));
        self.control().spawn(async move {
            while !heard.is_closed() {
                // That it ended, Redis' state tells too.
                let ended = redis.hear(&channel, &heard).await;
                tracing::debug!(error = ?ended.err(), "notices of other replicas are not heard");
                tokio::time::sleep(PAUSE).await;
            }
        });
        Notices {
            heard: receiver,
            known: Heard::default(),
        }
    }

    /// Hears until the connection fails.
    async fn hear(&self, channel: &str, heard: &watch::Sender<Heard>) -> RedisResult<()> {
        let timeout = self.timeout();
        let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        let subscribing = async {
            let mut connection = self.0.client.get_async_pubsub().await?;
            connection.subscribe(channel).await?;
            RedisResult::Ok(connection)
        };
        let connection = tokio::time::timeout(timeout * 3, subscribing).await;
        let (mut asks, mut messages) = connection.map_err(|_| late())??.split();
        heard.send_modify(|heard| heard.began += 1);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(_) => heard.send_modify(|heard| heard.changed += 1),
                    None => return Ok(()),
                },
                () = heard.closed() => return Ok(()),
                () = tokio::time::sleep(PING) => {
                    let pinged = tokio::time::timeout(timeout, asks.ping::<redis::Value>()).await;
                    pinged.map_err(|_| late())??;
                }
            }
        }
    }
}
