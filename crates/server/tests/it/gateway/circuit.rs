//! Endpoints that fail are left alone, and come back.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use auspex_kernel::clock::monotonic;
use parking_lot::Mutex;

use super::backend::{Backend, Then};
use super::{OK, refusal, start};
use crate::server::{Server, eventually};

const BROKEN: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

/// In front of these, with a circuit that opens after three failures for two seconds.
fn in_front_of(addresses: &[SocketAddr]) -> Server {
    open_for(2, addresses)
}

fn open_for(seconds: u32, addresses: &[SocketAddr]) -> Server {
    let endpoints: Vec<String> = addresses
        .iter()
        .map(|a| format!("\"http://{a}\""))
        .collect();
    start(&format!(
        "[gateway.services.orders]\nendpoints = [{}]\ntimeout_ms = 20000\n\
         circuit_breaker = {{ failure_threshold = 3, recovery_timeout_s = {seconds} }}\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\npublic = true\n\
         rate_limit = {{ max = 100000, window_s = 60 }}\n",
        endpoints.join(", ")
    ))
}

/// A backend that is broken while the switch says so.
fn switched() -> (Backend, Arc<AtomicBool>) {
    let is_broken = Arc::new(AtomicBool::new(true));
    let switch = is_broken.clone();
    let backend = Backend::start(move |_, stream| {
        let answer = if switch.load(Ordering::SeqCst) {
            BROKEN
        } else {
            OK
        };
        stream.write_all(answer.as_bytes()).expect("sent");
        Then::Keep
    });
    (backend, is_broken)
}

#[test]
fn three_failures_open_a_circuit_which_then_refuses_at_once() {
    let (backend, is_broken) = switched();
    let server = in_front_of(&[backend.address]);
    let statuses: Vec<u16> = (0..3).map(|_| server.get("/orders/1").status).collect();
    assert_eq!(statuses, [500; 3], "its own answers pass");
    let started = monotonic();
    let mut refused = 0;
    while refused < 20 && started.elapsed() < Duration::from_secs(1) {
        let answer = server.get("/orders/1");
        let wait = answer.header("retry-after");
        assert!(matches!(wait, Some("1" | "2")), "{wait:?}");
        let why = (503, "UNAVAILABLE".into(), "circuit_open".into());
        assert_eq!(refusal(&answer), why);
        refused += 1;
    }
    assert!(refused > 0);
    assert_eq!(backend.seen().len(), 3, "it is left alone");
    is_broken.store(false, Ordering::SeqCst);
    eventually(Duration::from_secs(10), "the service is back", || {
        server.get("/orders/1").status == 200
    });
    (0..10).for_each(|_| assert_eq!(server.get("/orders/1").status, 200));
    let log = server.stop();
    assert!(
        log.contains("circuit opened") && log.contains("circuit closed"),
        "{log}"
    );
}

#[test]
fn one_request_of_a_hundred_is_the_probe() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let probes = Arc::new(AtomicUsize::new(0));
    let (release, released) = mpsc::channel();
    let (asked, fails, released) = (probes.clone(), is_broken.clone(), Mutex::new(released));
    let backend = Backend::start(move |_, stream| {
        if fails.load(Ordering::SeqCst) {
            stream.write_all(BROKEN.as_bytes()).expect("sent");
            return Then::Keep;
        }
        asked.fetch_add(1, Ordering::SeqCst);
        released.lock().recv().expect("the test goes on");
        stream.write_all(OK.as_bytes()).expect("sent");
        Then::Keep
    });
    // After so long another one would try.
    let server = open_for(6, &[backend.address]);
    (0..3).for_each(|_| assert_eq!(server.get("/orders/1").status, 500));
    is_broken.store(false, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let probing = scope.spawn(|| {
            eventually(Duration::from_secs(20), "a probe succeeds", || {
                server.get("/orders/1").status == 200
            });
        });
        eventually(Duration::from_secs(10), "the probe is there", || {
            probes.load(Ordering::SeqCst) == 1
        });
        for _ in 0..100 {
            assert_eq!(refusal(&server.get("/orders/1")).2, "circuit_open");
        }
        assert_eq!(probes.load(Ordering::SeqCst), 1);
        release.send(()).expect("it waits");
        probing.join().expect("the service is back");
    });
}

/// However long its circuit was still to be open.
#[test]
fn a_server_that_is_started_again_is_back_at_once() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound")
    };
    let server = start(&format!(
        "[gateway.services.orders]\nendpoints = [\"http://{address}\"]\nretry = {{ retries_max = 0 }}\n\
         circuit_breaker = {{ failure_threshold = 3, recovery_timeout_s = 3600 }}\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\npublic = true\n"
    ));
    let statuses: Vec<u16> = (0..4).map(|_| server.get("/orders/1").status).collect();
    assert_eq!(statuses, [502, 502, 502, 503]);
    let listener = TcpListener::bind(address).expect("it is free");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {
                    stream.write_all(OK.as_bytes()).expect("sent");
                }
            });
        }
    });
    eventually(Duration::from_secs(10), "the service is back", || {
        server.get("/orders/1").status == 200
    });
}

#[test]
fn a_server_whose_connections_broke_is_back_once_it_answers() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let switch = is_broken.clone();
    let backend = Backend::start(move |_, stream| {
        if switch.load(Ordering::SeqCst) {
            return Then::Close;
        }
        stream.write_all(OK.as_bytes()).expect("sent");
        Then::Keep
    });
    let server = start(&format!(
        "[gateway.services.orders]\nendpoints = [\"http://{}\"]\nretry = {{ retries_max = 0 }}\n\
         circuit_breaker = {{ failure_threshold = 3, recovery_timeout_s = 3600 }}\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\npublic = true\n",
        backend.address
    ));
    for _ in 0..3 {
        assert_eq!(refusal(&server.get("/orders/1")).2, "cut_off");
    }
    is_broken.store(false, Ordering::SeqCst);
    eventually(Duration::from_secs(10), "the service is back", || {
        server.get("/orders/1").status == 200
    });
}

/// Whoever is slow to send a body may be the one that tries.
#[test]
fn a_client_that_is_slow_to_send_keeps_no_circuit_open() {
    let (backend, is_broken) = switched();
    let server = in_front_of(&[backend.address]);
    (0..3).for_each(|_| assert_eq!(server.get("/orders/1").status, 500));
    is_broken.store(false, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(2_100));
    let mut slow = server.connect();
    slow.raw(b"POST /orders/slow HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc");
    eventually(Duration::from_secs(5), "it tries", || {
        let gateway = server.get("/v1/gateway").json();
        gateway["services"][0]["endpoints"][0]["changes"][0]["to"] == "half_open"
    });
    eventually(Duration::from_secs(10), "another one tries", || {
        server.get("/orders/1").status == 200
    });
    drop(slow);
}

#[test]
fn one_bad_endpoint_of_three_is_left_alone() {
    let good = [(); 2].map(|()| Backend::saying(OK));
    let (bad, _) = switched();
    let server = in_front_of(&[good[0].address, bad.address, good[1].address]);
    let failed = (0..300)
        .filter(|_| server.get("/orders/1").status != 200)
        .count();
    // Three open it; a probe now and then fails too.
    assert!((1..=10).contains(&failed), "{failed} of 300 failed");
    assert!(good.iter().all(|one| one.seen().len() > 50), "both work");
}

#[test]
fn what_is_no_fault_of_the_endpoint_opens_nothing() {
    let backend = Backend::start(|seen, stream| {
        match seen.request_line().contains("slow") {
            true => std::thread::sleep(Duration::from_millis(50)),
            false => {
                let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer.as_bytes()).expect("sent");
                return Then::Keep;
            }
        }
        let _ = stream.write_all(OK.as_bytes());
        Then::Keep
    });
    let server = in_front_of(&[backend.address]);
    for _ in 0..10 {
        assert_eq!(server.get("/orders/missing").status, 404);
        let hurried = [("X-Request-Timeout-Ms", "1")];
        let answer = server.connect().send("GET", "/orders/slow", &hurried, b"");
        assert_eq!(refusal(&answer).2, "timeout");
        let mut leaving = server.connect();
        leaving.raw(b"GET /orders/slow HTTP/1.1\r\nhost: x\r\n\r\n");
        drop(leaving);
    }
    assert_eq!(server.get("/orders/slow").status, 200);
}
