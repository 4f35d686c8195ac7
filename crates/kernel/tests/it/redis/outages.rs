//! Redis away, in every way in which it can be: limits are counted here, nobody waits for long, and
//! its return is noticed.

use std::time::Duration;

use auspex_kernel::Clock;
use auspex_kernel::clock::monotonic;
use auspex_kernel::quota::{Quota, QuotaKey, Quotas, RateLimit};
use auspex_kernel::redis::{Reason, Redis, State, pipe};

use super::server::RedisServer;
use super::{becomes, handle};

const LIMIT: RateLimit = RateLimit {
    max: 10,
    window_s: 60,
    callers_max: 100,
};

/// Two replicas with one limit.
struct Pair {
    redis: Redis,
    clock: Clock,
    quotas: [Quota; 2],
}

impl Pair {
    async fn on(server: &RedisServer) -> Self {
        let clock = Clock::system();
        let redis = handle(server).await;
        let other = handle(server).await;
        let quota = |redis| {
            Quotas::new(Some((redis, QuotaKey([1; 32]))), clock.clone()).quota(&LIMIT, "tests")
        };
        Self {
            quotas: [quota(redis.clone()), quota(other)],
            redis,
            clock,
        }
    }

    /// How many of 15 requests pass at one of the two.
    async fn passed(&self, replica: usize, caller: u64) -> usize {
        let mut passed = 0;
        for _ in 0..15 {
            let decision = self.quotas[replica].take(caller, self.clock.steady()).await;
            passed += usize::from(decision.allowed);
        }
        passed
    }

    /// Both together, for a caller of whom nothing is known.
    async fn passed_at_both(&self, caller: u64) -> usize {
        self.passed(0, caller).await + self.passed(1, caller).await
    }

    /// Until the state is this one, and until requests of a new caller are counted so.
    async fn settles(&self, state: State, caller: u64, passed: usize) {
        becomes(&self.redis, |found| found == state).await;
        let mut callers = caller..;
        let counted = async {
            while self.passed_at_both(callers.next().expect("more")).await != passed {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(2), counted).await;
        in_time.unwrap_or_else(|_| panic!("{state:?}: not {passed} requests pass"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_counted_here_while_redis_is_away_and_there_when_it_is_back() {
    let Some(mut server) = RedisServer::start() else {
        return;
    };
    let pair = Pair::on(&server).await;
    assert_eq!(pair.passed_at_both(1).await, 10);

    server.kill();
    // What passed before the outage still counts, at the replica that let it pass.
    assert_eq!(pair.passed(0, 1).await, 0);
    pair.settles(State::Down(Reason::Unreachable), 100, 20)
        .await;
    server.start_again();
    pair.settles(State::Up, 200, 10).await;
    assert_eq!(pair.passed(0, 1).await, 0, "nor is it forgotten with Redis");

    server.freeze();
    let begun = monotonic();
    assert_eq!(pair.passed(0, 2).await, 10);
    let waited = begun.elapsed();
    assert!(
        waited < Duration::from_secs(1),
        "{waited:?} for 15 requests"
    );
    pair.settles(State::Down(Reason::Slow), 300, 20).await;
    server.thaw();
    pair.settles(State::Up, 400, 10).await;

    server.say("REPLICAOF 127.0.0.1 1");
    pair.settles(State::Down(Reason::ReadOnly), 500, 20).await;
    server.say("REPLICAOF NO ONE");
    pair.settles(State::Up, 600, 10).await;

    server.say("CONFIG SET maxmemory 1");
    pair.settles(State::Down(Reason::Full), 700, 20).await;
    server.say("CONFIG SET maxmemory 0");
    pair.settles(State::Up, 800, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_redis_has_forgotten_costs_nothing() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let pair = Pair::on(&server).await;
    for caller in 1..10 {
        server.say("SCRIPT FLUSH");
        assert_eq!(pair.passed_at_both(caller).await, 10);
    }
    assert_eq!(pair.redis.state(), State::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_that_redis_drops_are_not_believed() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let pair = Pair::on(&server).await;
    assert!(!pair.redis.may_evict());
    server.say("CONFIG SET maxmemory-policy allkeys-lru");
    server.say("CONFIG SET maxmemory 3mb");
    let mut states = pair.redis.watch();
    let fill = async {
        for key in 0.. {
            let mut set = pipe();
            set.cmd("SET").arg(key).arg(vec![b'x'; 100_000]);
            let _: Result<(String,), _> = pair.redis.query(&set).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let evicting = states.wait_for(|state| *state == State::Down(Reason::Evicting));
    let in_time = tokio::time::timeout(Duration::from_secs(5), async {
        tokio::select! {
            () = fill => unreachable!("it goes on"),
            found = evicting => drop(found.expect("a handle")),
        }
    });
    in_time.await.expect("it is noticed");
    assert!(pair.redis.may_evict());
    server.say("CONFIG SET maxmemory 0");
    pair.settles(State::Up, 100, 10).await;
    assert!(!pair.redis.may_evict());
}
