//! How circuits behave when the network fails in front of a service that is well.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::clock::monotonic;
use parking_lot::Mutex;
use serde_json::Value;

use super::backend::{Backend, Then};
use super::faults::{Fault, Faulty};
use super::{OK, refusal, start};
use crate::server::{Server, eventually};

const SOON: Duration = Duration::from_secs(20);

/// In front of this, without retries.
fn in_front_of(faulty: &Faulty, breaker: &str) -> Server {
    start(&format!(
        "[gateway.services.orders]\nendpoints = [\"http://{}\"]\ntimeout_ms = 5000\n\
         retry = {{ retries_max = 0 }}\ncircuit_breaker = {{ {breaker} }}\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\npublic = true\n\
         rate_limit = {{ max = 1000000, window_s = 60 }}\n",
        faulty.address
    ))
}

/// The changes of the only circuit, oldest first.
fn changes(server: &Server) -> Vec<Value> {
    let gateway = server.get("/v1/gateway").json();
    let mut changes = gateway["services"][0]["endpoints"][0]["changes"]
        .as_array()
        .expect("a list")
        .clone();
    changes.reverse();
    changes
}

fn reason(server: &Server) -> String {
    let answer = server.get("/orders/1");
    match answer.status {
        200 => "ok".to_owned(),
        _ => refusal(&answer).2,
    }
}

#[test]
fn three_failures_then_refusal_then_one_probe_then_all_is_well() {
    let holds = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let (release, released) = mpsc::channel();
    let (held, counted, released) = (holds.clone(), asked.clone(), Mutex::new(released));
    let backend = Backend::start(move |_, stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        if held.load(Ordering::SeqCst) {
            released
                .lock()
                .recv_timeout(SOON)
                .expect("the test goes on");
        }
        stream.write_all(OK.as_bytes()).expect("sent");
        Then::Keep
    });
    let faulty = Faulty::before(backend.address);
    let server = in_front_of(&faulty, "failure_threshold = 3, recovery_timeout_s = 2");
    assert_eq!(reason(&server), "ok");

    // Where connections break it may be tried earlier.
    faulty.set(Fault::Garbage);
    let reasons: Vec<String> = (0..3).map(|_| reason(&server)).collect();
    assert_eq!(reasons, ["invalid"; 3]);
    let begun = monotonic();
    assert_eq!(reason(&server), "circuit_open", "attempt 4");
    assert!(begun.elapsed() < Duration::from_millis(500), "at once");
    assert_eq!((faulty.requests(), asked.load(Ordering::SeqCst)), (4, 1));

    // Each probe that fails makes the wait longer.
    eventually(SOON, "two probes fail", || {
        let _ = server.get("/orders/1");
        changes(&server).len() >= 5
    });
    let waits: Vec<f64> = changes(&server)
        .iter()
        .filter(|change| change["to"] == "open")
        .map(|change| {
            let time = |name: &str| {
                let text = change[name].as_str().expect("a time");
                Timestamp::parse_rfc3339(text).expect("RFC 3339")
            };
            time("open_until").since(time("at")).as_secs_f64()
        })
        .collect();
    for (wait, (least, most)) in waits
        .iter()
        .zip([(1.99, 2.01), (3.99, 5.01), (7.99, 10.01)])
    {
        assert!((least..most).contains(wait), "{waits:?}");
    }

    // One of a hundred at once is the probe, and the others do not wait for it.
    faulty.set(Fault::None);
    holds.store(true, Ordering::SeqCst);
    let until = changes(&server).last().expect("one")["open_until"].clone();
    let until = Timestamp::parse_rfc3339(until.as_str().expect("a time")).expect("RFC 3339");
    let clock = auspex_kernel::Clock::system();
    std::thread::sleep(until.since(clock.now()) + Duration::from_millis(50));
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(|| {
                    let reason = reason(&server);
                    if reason == "circuit_open" {
                        refused.fetch_add(1, Ordering::SeqCst);
                    }
                    reason
                })
            })
            .collect();
        eventually(SOON, "all but one are refused", || {
            refused.load(Ordering::SeqCst) == 99
        });
        assert_eq!(
            asked.load(Ordering::SeqCst),
            2,
            "the first of all, and the probe"
        );
        holds.store(false, Ordering::SeqCst);
        release.send(()).expect("it waits");
        let reasons = clients.into_iter().map(|one| one.join().expect("no panic"));
        assert_eq!(reasons.filter(|reason| reason == "ok").count(), 1);
    });
    (0..10).for_each(|_| assert_eq!(reason(&server), "ok"));
    assert_eq!(changes(&server).last().expect("one")["to"], "closed");
}

#[test]
fn half_of_the_requests_failing_open_it_though_never_three_in_a_row() {
    let backend = Backend::saying(OK);
    let faulty = Faulty::before(backend.address);
    let server = in_front_of(&faulty, "failure_threshold = 3, requests_min = 20");
    faulty.set(Fault::ResetHalf);
    let mut reasons: Vec<String> = Vec::new();
    while reasons.last().is_none_or(|last| last != "circuit_open") {
        reasons.push(reason(&server));
        assert!(reasons.len() < 30, "{reasons:?}");
    }
    assert_eq!(reasons.len(), 21, "{reasons:?}");
    let cause = changes(&server)[0]["cause"].clone();
    assert_eq!(
        cause,
        "10 of 20 requests within 10 s failed, the last: reset"
    );
}

#[test]
fn neither_refusals_of_the_service_nor_impatient_clients_open_it() {
    let backend = Backend::start(|seen, stream| {
        let status = seen.request_line().split('/').nth(2).expect("a path");
        let status = status.split(' ').next().expect("a status");
        let answer = format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).expect("sent");
        Then::Keep
    });
    let faulty = Faulty::before(backend.address);
    let server = in_front_of(&faulty, "failure_threshold = 3, requests_min = 20");
    for _ in 0..10 {
        for status in [400, 401, 403, 404, 408, 409, 422, 429, 451] {
            assert_eq!(server.get(&format!("/orders/{status}")).status, status);
        }
    }
    faulty.set(Fault::Silence);
    let before = faulty.requests();
    for _ in 0..30 {
        let hurried = [("X-Request-Timeout-Ms", "1")];
        let answer = server.connect().send("GET", "/orders/200", &hurried, b"");
        assert_eq!(refusal(&answer).2, "timeout");
        let mut leaving = server.connect();
        leaving.raw(b"GET /orders/200 HTTP/1.1\r\nhost: x\r\n\r\n");
    }
    assert!(faulty.requests() > before);
    faulty.set(Fault::None);
    assert_eq!(server.get("/orders/200").status, 200);
    assert_eq!(changes(&server), [Value::Null; 0]);
}

#[test]
fn answers_that_end_too_early_count_and_slow_ones_do_not() {
    let backend = Backend::saying(OK);
    let faulty = Faulty::before(backend.address);
    let server = in_front_of(&faulty, "failure_threshold = 3");
    faulty.set(Fault::Slow(1));
    (0..3).for_each(|_| assert_eq!(reason(&server), "ok"));
    faulty.set(Fault::Cut(20));
    (0..3).for_each(|_| assert_eq!(reason(&server), "cut_off"));
    assert_eq!(reason(&server), "circuit_open");
}
