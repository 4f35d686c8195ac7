//! Whom requests go to, without sockets.

use super::*;
use crate::circuit::{Law, Outcome, Verdict};
use crate::health::HealthLaw;
use crate::retry::RetryLaw;
use crate::upstream::{Limits, Protocol};

const MS: Duration = Duration::from_millis(1);

fn plan(count: usize) -> ServicePlan {
    let limits = Limits {
        connect_timeout: MS,
        idle_timeout: MS,
        idle_connections_max: 1,
    };
    let law = Law {
        failure_threshold: 3,
        failure_percent: 50,
        window: Duration::from_secs(10),
        requests_min: 20,
        recovery_timeout: Duration::from_secs(30),
    };
    let retry = RetryLaw {
        retries_max: 0,
        base_delay: MS,
        budget_percent: 0,
        has_jitter: false,
    };
    let places = (1..=count).map(|n| Place::named(format!("127.0.0.1:{n}")));
    ServicePlan {
        name: "x".into(),
        source: Source::Fixed(places.collect()),
        timeout: MS,
        limits,
        protocol: Protocol::Http1,
        tls: None,
        law,
        retry,
        balance: Policy::P2c,
        requests_max: u32::MAX,
        health: None,
        audience: None,
    }
}

fn started(plan: ServicePlan) -> Arc<Service> {
    Service::replacing(plan, None, &Watchers::new())
}

fn service(count: usize) -> Arc<Service> {
    started(plan(count))
}

fn balanced(policy: &str, count: usize, requests_max: u32) -> Arc<Service> {
    started(ServicePlan {
        balance: policy.parse().expect("a policy"),
        requests_max,
        ..plan(count)
    })
}

/// Of servers with these priorities and weights.
fn shared(policy: &str, shares: &[(u16, u16)]) -> Arc<Service> {
    let service = started(ServicePlan {
        source: Source::Srv("x".into()),
        balance: policy.parse().expect("a policy"),
        ..plan(0)
    });
    let places = shares.iter().enumerate().map(|(n, share)| {
        let (priority, weight) = *share;
        let place = Place::named(format!("127.0.0.1:{}", n + 1));
        (place, Share { priority, weight })
    });
    service.set(&places.collect::<Vec<_>>());
    service
}

fn ids(service: &Service) -> Vec<u64> {
    service.endpoints().iter().map(|one| one.id()).collect()
}

fn place(service: &Service, chosen: &Chosen) -> usize {
    let mut ids = ids(service).into_iter();
    ids.position(|id| id == chosen.endpoint.id())
        .expect("one of them")
}

fn at(seconds: i64) -> Steady {
    Steady(seconds * 1_000_000)
}

fn bits(round: u64) -> u64 {
    (round + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Asks often, each time for so long per endpoint; how many each was asked, and then answers with success.
fn asked(service: &Service, rounds: u64, took: &[Duration], now: Steady) -> Vec<usize> {
    let mut counts = vec![0; service.endpoints().len()];
    for round in 0..rounds {
        let Ok(chosen) = service.choose(now, bits(round), None, &[]) else {
            panic!("none");
        };
        let index = place(service, &chosen);
        counts[index] += 1;
        chosen.endpoint.load.tell(took[index], false, now);
        let _ = chosen.permit.tell(Outcome::Success, "", now, 0.5);
    }
    counts
}

fn break_endpoint(service: &Service, index: usize, now: Steady) {
    let mut others = ids(service);
    others.remove(index);
    for _ in 0..3 {
        let chosen = service.choose(now, 7, None, &others);
        let chosen = chosen.expect("closed until now");
        chosen.endpoint.load.tell(MS / 10, true, now);
        let _ = chosen.permit.tell(Outcome::Failure, "x", now, 0.5);
    }
}

fn fail(endpoint: &Endpoint) {
    let Verdict::Pass(permit) = endpoint.circuit.admit(at(0)) else {
        panic!("it is open");
    };
    let _ = permit.tell(Outcome::Failure, "x", at(0), 0.5);
}

fn check(endpoint: &Endpoint, failure: Option<&str>, times: usize) {
    let health = endpoint.health.as_ref().expect("it is checked");
    (0..times).for_each(|_| health.begin(at(0), 0.0).tell(failure, at(0)));
}

#[test]
fn equals_get_equal_shares_and_slow_ones_less() {
    let counts = asked(&service(3), 3000, &[MS; 3], at(0));
    assert!(
        counts.iter().all(|count| (700..1300).contains(count)),
        "{counts:?}"
    );
    let counts = asked(&service(3), 3000, &[MS, MS, 10 * MS], at(0));
    assert!(counts[2] < 30, "{counts:?}");
}

#[test]
fn one_bad_endpoint_of_three_is_left_alone_and_the_service_stays_whole() {
    let service = service(3);
    break_endpoint(&service, 1, at(0));
    let counts = asked(&service, 1000, &[MS; 3], at(1));
    assert_eq!(counts[1], 0, "{counts:?}");
    assert_eq!(service.asked(), (2, 3));
}

#[test]
fn an_endpoint_whose_time_has_come_is_probed_in_spite_of_its_load() {
    let service = service(2);
    break_endpoint(&service, 1, at(0));
    assert_eq!(asked(&service, 100, &[MS; 2], at(29))[1], 0);
    let probe = service.choose(at(30), 7, None, &[]).expect("one");
    assert_eq!(place(&service, &probe), 1);
    assert_eq!(
        asked(&service, 100, &[MS; 2], at(30))[1],
        0,
        "one probe, and while it runs it is not asked"
    );
    assert_eq!(service.asked(), (1, 2));
    probe.endpoint.load.forget();
    drop(probe.in_hand);
    let _ = probe.permit.tell(Outcome::Success, "", at(31), 0.5);
    assert_eq!(service.asked(), (2, 2));
    assert!(asked(&service, 100, &[MS; 2], at(31))[1] > 20);
}

#[test]
fn when_all_are_open_it_says_for_how_long() {
    let service = service(2);
    break_endpoint(&service, 0, at(0));
    break_endpoint(&service, 1, at(10));
    let refused = service.choose(at(11), 7, None, &[]).expect_err("none");
    assert_eq!(refused, Failure::CircuitOpen(Duration::from_secs(19)));
    assert!(service.refuses(at(11)) && !service.refuses(at(30)));
}

#[test]
fn without_endpoints_it_says_so() {
    let refused = service(0).choose(at(0), 7, None, &[]).expect_err("none");
    assert_eq!(refused, Failure::NoEndpoint);
}

#[test]
fn endpoints_whose_checks_fail_are_left_alone_until_they_succeed() {
    let law = HealthLaw {
        path: http::uri::PathAndQuery::from_static("/health"),
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        unhealthy_after: 3,
        healthy_after: 2,
    };
    let checked = ServicePlan {
        health: Some(law),
        ..plan(2)
    };
    let service = started(checked.clone());
    let endpoints = service.endpoints();
    check(&endpoints[0], Some("500"), 3);
    assert_eq!(asked(&service, 100, &[MS; 2], at(0)), [0, 100]);
    check(&endpoints[1], Some("timeout"), 3);
    let refused = service.choose(at(0), 7, None, &[]).expect_err("none");
    assert_eq!(refused, Failure::Unhealthy(Duration::from_secs(10)));
    assert!(service.refuses(at(0)) && service.asked() == (0, 2));
    // A change elsewhere leaves what is known.
    let longer = ServicePlan {
        timeout: 2 * MS,
        ..checked
    };
    let service = Service::replacing(longer, Some(&service), &service.watchers);
    assert!(service.refuses(at(0)));
    check(&endpoints[0], None, 2);
    assert_eq!(asked(&service, 100, &[MS; 2], at(0)), [100, 0]);
    // A circuit that is open, too, is not tried while the checks fail.
    check(&endpoints[1], None, 2);
    break_endpoint(&service, 1, at(0));
    check(&endpoints[1], Some("500"), 3);
    assert_eq!(asked(&service, 100, &[MS; 2], at(60)), [100, 0]);
    check(&endpoints[1], None, 2);
    let probe = service.choose(at(60), 7, None, &[]).expect("one");
    assert_eq!(place(&service, &probe), 1);
}

#[test]
fn an_endpoint_has_no_more_requests_at_once_than_it_may() {
    for policy in ["p2c", "round-robin", "least-requests", "hash(ip)"] {
        let service = balanced(policy, 3, 4);
        let choose = |round| service.choose(at(0), bits(round), Some(1), &[]);
        let mut held: Vec<Chosen> = (0..12).map(|n| choose(n).expect("room")).collect();
        let counts: Vec<u32> = service
            .endpoints()
            .iter()
            .map(|one| one.load.in_hand())
            .collect();
        assert_eq!(counts, [4; 3], "{policy}");
        for round in 0..10 {
            assert_eq!(choose(round).expect_err("full"), Failure::Overloaded);
        }
        let freed = place(&service, &held.swap_remove(5));
        let next = choose(99).expect("room");
        assert_eq!(place(&service, &next), freed, "{policy}");
    }
}

#[test]
fn while_the_quick_ones_have_room_a_slow_one_is_not_asked() {
    let service = balanced("p2c", 3, 4);
    let endpoints = service.endpoints();
    for (endpoint, ms) in endpoints.iter().zip([1, 1, 10]) {
        endpoint.load.tell(ms * MS, false, at(0));
    }
    for round in 0..1000 {
        let held = (0..8).map(|n| service.choose(at(0), bits(8 * round + n), None, &[]));
        let held: Vec<_> = held.map(|chosen| chosen.expect("room")).collect();
        assert_eq!(endpoints[2].load.in_hand(), 0, "round {round}");
        drop(held);
    }
}

#[test]
fn the_least_busy_one_is_asked() {
    let service = balanced("least-requests", 4, u32::MAX);
    let busy: Vec<_> = service.endpoints()[..3]
        .iter()
        .map(|one| one.load.begin(1).expect("room"))
        .collect();
    for round in 0..100 {
        let chosen = service.choose(at(0), bits(round), None, &[]).expect("one");
        assert_eq!(place(&service, &chosen), 3);
    }
    drop(busy);
    let counts = asked(&service, 1000, &[MS; 4], at(0));
    assert!(counts.iter().all(|count| *count > 150), "{counts:?}");
}

#[test]
fn turns_go_round() {
    let service = balanced("round-robin", 3, u32::MAX);
    assert_eq!(asked(&service, 300, &[MS, MS, 100 * MS], at(0)), [100; 3]);
    break_endpoint(&service, 1, at(0));
    let counts = asked(&service, 300, &[MS; 3], at(0));
    assert_eq!(counts, [150, 0, 150]);
}

#[test]
fn weights_are_shares_and_priorities_come_one_after_the_other() {
    for policy in ["p2c", "round-robin", "least-requests"] {
        let service = shared(policy, &[(1, 3), (1, 1), (2, 9)]);
        let counts = asked(&service, 4000, &[MS; 3], at(0));
        assert!((2700..3300).contains(&counts[0]), "{policy}: {counts:?}");
        assert_eq!(counts[0] + counts[1], 4000, "{policy}: {counts:?}");
        break_endpoint(&service, 0, at(0));
        assert_eq!(asked(&service, 100, &[MS; 3], at(1)), [0, 100, 0]);
        break_endpoint(&service, 1, at(0));
        assert_eq!(asked(&service, 100, &[MS; 3], at(1)), [0, 0, 100]);
    }
    // Weights may change without a change of the servers.
    let service = shared("round-robin", &[(1, 1), (1, 1)]);
    let before = ids(&service);
    let places = service.endpoints().into_iter().zip([1, 3]);
    let places = places.map(|(one, weight)| {
        let priority = 1;
        (one.place().clone(), Share { priority, weight })
    });
    service.set(&places.collect::<Vec<_>>());
    assert_eq!(ids(&service), before);
    assert_eq!(asked(&service, 400, &[MS; 2], at(0)), [100, 300]);
}

#[test]
fn a_key_goes_to_its_endpoint_and_a_lost_endpoint_moves_its_own_keys_alone() {
    let service = balanced("hash(ip)", 5, u32::MAX);
    let owner = |key: u64, tried: &[u64]| {
        let key = ring::hash(&key.to_be_bytes());
        let chosen = service.choose(at(1), bits(key), Some(key), tried);
        place(&service, &chosen.expect("one"))
    };
    let owners = || -> Vec<usize> { (0..500).map(|key| owner(key, &[])).collect() };
    let before = owners();
    assert_eq!(owners(), before);
    let tried = [ids(&service)[before[0]]];
    assert_ne!(owner(0, &tried), before[0], "another one after a failure");
    break_endpoint(&service, 2, at(0));
    for (old, new) in before.iter().zip(owners()) {
        assert!(new != 2 && (*old == 2 || *old == new), "{old} to {new}");
    }
    // Its own keys try it again, and no others.
    let choose = |key: usize| {
        let key = ring::hash(&(key as u64).to_be_bytes());
        service
            .choose(at(30), bits(key), Some(key), &[])
            .expect("one")
    };
    let [other, own] = [0, 2].map(|owner| before.iter().position(|one| *one == owner));
    assert_eq!(place(&service, &choose(other.expect("some"))), 0);
    let probe = choose(own.expect("some"));
    assert_eq!(place(&service, &probe), 2);
    probe.endpoint.load.forget();
    drop(probe.in_hand);
    let _ = probe.permit.tell(Outcome::Success, "", at(30), 0.5);
    assert_eq!(owners(), before, "they come back");
    let counts = asked(&service, 1000, &[MS; 5], at(1));
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}

#[test]
fn endpoints_that_did_not_change_live_on() {
    let old = service(2);
    assert!(Arc::ptr_eq(
        &old,
        &Service::replacing(plan(2), Some(&old), &old.watchers)
    ));
    let longer = ServicePlan {
        timeout: 2 * MS,
        balance: Policy::RoundRobin,
        requests_max: 7,
        ..plan(3)
    };
    let new = Service::replacing(longer, Some(&old), &old.watchers);
    assert_eq!(ids(&new)[..2], ids(&old));
    // What happens to them is seen by both.
    break_endpoint(&new, 0, at(0));
    assert_eq!((old.asked(), new.asked()), ((1, 2), (2, 3)));
    let mut stricter = plan(2);
    stricter.law.failure_threshold = 1;
    let stricter = Service::replacing(stricter, Some(&old), &old.watchers);
    assert!(ids(&stricter).iter().all(|id| !ids(&old).contains(id)));
}

/// Looking at all of them would take a hundred times as long.
#[test]
fn a_choice_among_a_thousand_takes_hardly_longer_than_among_ten() {
    let time = |service: &Service| {
        let choose = |round| drop(service.choose(at(1), bits(round), Some(bits(round)), &[]));
        let run = || {
            let begun = auspex_kernel::clock::monotonic();
            (0..2_000).for_each(choose);
            begun.elapsed()
        };
        (0..7).map(|_| run()).min().expect("some")
    };
    let open = |count| {
        let service = service(count);
        for endpoint in service.endpoints() {
            (0..3).for_each(|_| fail(&endpoint));
        }
        assert!(service.refuses(at(1)));
        service
    };
    let full = |count| {
        let service = balanced("p2c", count, 1);
        let all = service.endpoints();
        let held = all.iter().map(|one| one.load.begin(1).expect("room"));
        held.for_each(std::mem::forget);
        service
    };
    let policies = ["p2c", "round-robin", "least-requests", "hash(ip)"];
    let mut cases: Vec<_> = policies
        .iter()
        .map(|policy| (*policy, [10, 1000].map(|count| balanced(policy, count, 9))))
        .collect();
    cases.push(("all open", [10, 1000].map(open)));
    cases.push(("all full", [10, 1000].map(full)));
    for (case, [few, many]) in &cases {
        let (few, many) = (time(few), time(many));
        assert!(many < 20 * few, "{case}: {few:?}, and {many:?} of 1000");
    }
}

#[test]
fn of_many_a_few_are_asked_at_a_time_and_all_of_them_in_turn() {
    for policy in ["p2c", "least-requests"] {
        let service = balanced(policy, 1_000, u32::MAX);
        let ask = |round, now| {
            let chosen = service.choose(now, bits(round), None, &[]);
            place(&service, &chosen.expect("one of them"))
        };
        let at_a_time: std::collections::HashSet<_> =
            (0..1_000).map(|round| ask(round, at(1))).collect();
        assert!(at_a_time.len() <= NEAR + SAMPLE, "{policy}: {at_a_time:?}");
        // Twice through all of them.
        let rounds = 2 * NEAR_ROUND.as_micros() as u64 / 50;
        let usual = rounds as i32 / 1_000;
        let mut counts = vec![0; 1_000];
        for round in 0..rounds {
            counts[ask(round, Steady(50 * round as i64))] += 1;
        }
        let (least, most) = (counts.iter().min(), counts.iter().max());
        assert!(least > Some(&(usual / 4)), "{policy}: {least:?}");
        assert!(most < Some(&(usual * 2)), "{policy}: {most:?}");
    }
}

#[test]
fn where_those_that_are_near_are_busy_others_are_asked() {
    for policy in ["p2c", "least-requests"] {
        let service = balanced(policy, 1_000, u32::MAX);
        let ask = |round| service.choose(at(1), bits(round), None, &[]);
        let held: Vec<Chosen> = (0..800).map(|round| ask(round).expect("one")).collect();
        let loads = service.endpoints();
        let most = loads.iter().map(|one| one.load.in_hand()).max();
        assert!(most <= Some(4), "{policy}: {most:?}");
        let asked = loads.iter().filter(|one| one.load.in_hand() > 0).count();
        assert!(asked > 450, "{policy}: {asked}");
        drop(held);
    }
}

#[test]
fn threads_ask_different_ones_first() {
    let service = balanced("p2c", 1_000, u32::MAX);
    let ask = |round| {
        let chosen = service.choose(at(1), bits(round), None, &[]);
        place(&service, &chosen.expect("one of them"))
    };
    let asked = parking_lot::Mutex::new(std::collections::HashSet::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| asked.lock().extend((0..64).map(ask)));
        }
    });
    let asked = asked.into_inner().len();
    assert!(asked > 3 * NEAR, "{asked}");
}
