//! The suite for quotas, counted in memory and in Redis, and what holds over several replicas.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::Clock;
use auspex_kernel::clock::Steady;
use auspex_kernel::quota::{Quota, QuotaKey, Quotas, RateLimit};

use super::server::RedisServer;
use super::{handle, handle_with};

fn limit(max: u32, window_s: u32) -> RateLimit {
    RateLimit {
        max,
        window_s,
        callers_max: 1000,
    }
}

/// A replica, or a server alone.
struct Replica {
    quota: Arc<Quota>,
    clock: Clock,
}

impl Replica {
    async fn of(server: Option<&RedisServer>, limit: RateLimit) -> Self {
        let redis = match server {
            Some(server) => Some((handle(server).await, QuotaKey([1; 32]))),
            None => None,
        };
        let clock = Clock::system();
        let quota = Quotas::new(redis, clock.clone()).quota(&limit, "tests");
        Self {
            quota: Arc::new(quota),
            clock,
        }
    }

    async fn passes(&self, caller: u64) -> bool {
        self.quota.take(caller, self.clock.steady()).await.allowed
    }

    /// How many of so many requests pass that come one after the other from each of `clients`.
    async fn passed(&self, caller: u64, clients: usize, each: usize) -> usize {
        let client = || {
            let (quota, clock) = (self.quota.clone(), self.clock.clone());
            tokio::spawn(async move {
                let mut passed = 0;
                for _ in 0..each {
                    passed += usize::from(quota.take(caller, clock.steady()).await.allowed);
                }
                passed
            })
        };
        let clients: Vec<_> = (0..clients).map(|_| client()).collect();
        let mut passed = 0;
        for client in clients {
            passed += client.await.unwrap();
        }
        passed
    }
}

async fn a_caller_gets_the_limit_and_no_more(server: Option<&RedisServer>) {
    let replica = Replica::of(server, limit(1000, 60)).await;
    assert_eq!(replica.passed(1, 16, 100).await, 1000);
    assert!(!replica.passes(1).await);
    assert!(replica.passes(2).await, "another caller");
}

async fn what_is_left_and_when_more_comes_is_told(server: Option<&RedisServer>) {
    let replica = Replica::of(server, limit(3, 64)).await;
    for left in [2, 1, 0, 0] {
        let decision = replica.quota.take(1, replica.clock.steady()).await;
        assert_eq!((decision.limit, decision.remaining), (3, left));
        let reset = decision.reset_in.as_secs_f64();
        assert!((63.0..66.0).contains(&reset), "{reset} s");
    }
}

async fn a_window_later_there_is_room_again(server: Option<&RedisServer>) {
    let replica = Replica::of(server, limit(5, 1)).await;
    assert_eq!(replica.passed(1, 2, 5).await, 5);
    let again = async {
        while !replica.passes(1).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(3), again).await;
    in_time.expect("after a window");
}

macro_rules! suite {
    ($($name:ident)*) => {
        mod in_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(None).await;
            })*
        }

        mod in_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some(server) = super::RedisServer::start() else { return };
                super::$name(Some(&server)).await;
            })*
        }
    };
}

suite! {
    a_caller_gets_the_limit_and_no_more
    what_is_left_and_when_more_comes_is_told
    a_window_later_there_is_room_again
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_a_limit_whoever_asks_and_give_back_what_they_do_not_use() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::of(Some(&server), limit(1000, 60)).await);
    }
    // Two at once, one of which stops with permits in its hands.
    let (one, other) = tokio::join!(replicas[0].passed(1, 1, 200), replicas[1].passed(1, 4, 50));
    assert_eq!((one, other), (200, 200));
    // The third takes all that is left; the last few come when they are given back.
    let mut passed = replicas[2].passed(1, 8, 80).await;
    let rest = async {
        while passed < 600 {
            passed += replicas[2].passed(1, 1, 1).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(2), rest).await;
    in_time.expect("nothing is kept by who does not need it");
    for replica in &replicas {
        assert_eq!(replica.passed(1, 4, 50).await, 0, "never more");
    }
}

/// Each request passed at some time between the two.
type Passed = (Steady, Steady);

async fn ask_for(replica: &Replica, limit: Duration, passed: &parking_lot::Mutex<Vec<Passed>>) {
    let begun = replica.clock.steady();
    while replica.clock.steady().since(begun) < limit {
        let before = replica.clock.steady();
        if replica.quota.take(1, before).await.allowed {
            passed.lock().push((before, replica.clock.steady()));
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_no_window_do_replicas_together_let_more_pass() {
    const MAX: usize = 200;
    let Some(server) = RedisServer::start() else {
        return;
    };
    let clock = Clock::system();
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let redis = handle_with(&server, 100).await;
        let quotas = Quotas::new(Some((redis, QuotaKey([1; 32]))), clock.clone());
        let quota = Arc::new(quotas.quota(&limit(MAX as u32, 1), "tests"));
        let clock = clock.clone();
        replicas.push(Replica { quota, clock });
    }
    let passed = parking_lot::Mutex::default();
    let asking = Duration::from_millis(2_900);
    tokio::join!(
        ask_for(&replicas[0], asking, &passed),
        ask_for(&replicas[0], asking, &passed),
        ask_for(&replicas[1], asking, &passed),
    );
    let mut passed = passed.into_inner();
    passed.sort_unstable();
    assert!(passed.len() >= 2 * MAX, "only {} passed", passed.len());
    for (begin, _) in &passed {
        let end = *begin + Duration::from_secs(1);
        let within = passed
            .iter()
            .filter(|(from, to)| from >= begin && *to < end);
        assert!(within.count() <= MAX);
    }
}
