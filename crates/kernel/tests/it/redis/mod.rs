//! What replicas share, on a Redis of the test's own that is stopped, frozen and filled.

pub(crate) mod server;

mod outages;
mod quotas;

use std::time::Duration;

use auspex_kernel::redis::{Notice, Redis, RedisConfig, State};

use server::RedisServer;

/// A replica's handle.
pub(crate) async fn handle(server: &RedisServer) -> Redis {
    handle_with(server, 250).await
}

pub(crate) async fn handle_with(server: &RedisServer, timeout_ms: u64) -> Redis {
    let config = RedisConfig {
        url: server.url(),
        prefix: "test:".into(),
        timeout_ms,
    };
    Redis::open(&config).await.expect("a usable URL")
}

/// Waits until it is so, and not longer than what is promised.
pub(crate) async fn becomes(redis: &Redis, is_wanted: impl Fn(State) -> bool) {
    let mut states = redis.watch();
    let waiting = states.wait_for(|state| is_wanted(*state));
    let in_time = tokio::time::timeout(Duration::from_secs(2), waiting).await;
    in_time.expect("within two seconds").expect("a handle");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notices_are_heard_by_others_and_a_lost_connection_is_told() {
    let Some(mut server) = RedisServer::start() else {
        return;
    };
    let (one, other) = (handle(&server).await, handle(&server).await);
    let mut notices = other.listen("news");
    let mut next = async || {
        let next = tokio::time::timeout(Duration::from_secs(5), notices.next());
        next.await.expect("something is heard")
    };
    assert_eq!(next().await, Notice::Began);
    one.announce("news");
    assert_eq!(next().await, Notice::Changed);
    one.announce("other news");
    server.kill();
    server.start_again();
    assert_eq!(next().await, Notice::Began);
    becomes(&one, |state| state == State::Up).await;
    one.announce("news");
    assert_eq!(next().await, Notice::Changed);
    // A connection that nobody has closed, and that nothing comes through.
    server.freeze();
    becomes(&one, |state| state != State::Up).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    server.thaw();
    assert_eq!(next().await, Notice::Began);
}
