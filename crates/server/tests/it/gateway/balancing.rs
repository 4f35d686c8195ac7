//! Which of several servers get how much.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use auspex_kernel::clock::monotonic;
use parking_lot::Mutex;

use super::backend::{Backend, Then};
use super::{OK, refusal, start_from};
use crate::server::{Server, eventually};

const SOON: Duration = Duration::from_secs(20);
const BROKEN: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

/// A server that answers after a while.
fn slow(ms: u64) -> Backend {
    Backend::start(move |_, stream| {
        std::thread::sleep(Duration::from_millis(ms));
        let _ = stream.write_all(OK.as_bytes());
        Then::Keep
    })
}

/// In front of these; `more` are further lines of the service.
fn in_front_of(backends: &[Backend], more: &str) -> Server {
    let urls: Vec<String> = backends
        .iter()
        .map(|one| format!("\"http://{}\"", one.address))
        .collect();
    let settings = format!(
        "[gateway.services.orders]\nendpoints = [{}]\nretry = {{ retries_max = 0 }}\n\
         circuit_breaker = {{ failure_threshold = 100000, requests_min = 100000 }}\n{more}\n\
         [[gateway.routes]]\npath = \"/orders/{{id}}\"\nservice = \"orders\"\npublic = true\n",
        urls.join(", ")
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auspex.toml");
    std::fs::write(&file, settings).expect("written");
    let many = [("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "1000000")];
    start_from(folder, &file, &many)
}

/// How long requests took, the shortest first, from so many clients at once.
fn times(server: &Server, clients: usize, requests: usize) -> Vec<Duration> {
    let (left, times) = (AtomicUsize::new(requests), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut connection = server.connect();
                let one_less = |left: usize| left.checked_sub(1);
                let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
                while left.fetch_update(set, fetch, one_less).is_ok() {
                    let begun: Instant = monotonic();
                    let answer = connection.send("GET", "/orders/1", &[], b"");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    times.lock().push(begun.elapsed());
                }
            });
        }
    });
    let mut times = times.into_inner();
    times.sort_unstable();
    times
}

#[test]
fn a_slow_server_of_three_is_hardly_felt() {
    const MAX: &str = "requests_max = 4";
    let p99 = |times: &[Duration]| times[times.len() * 99 / 100];
    // Long enough for what a busy machine adds to be little.
    let alone = [100, 100].map(slow);
    let alone = times(&in_front_of(&alone, MAX), 6, 500);
    let all = [100, 1000, 100].map(slow);
    let with_it = times(&in_front_of(&all, MAX), 6, 500);
    let asked = all[1].seen().len();
    assert!(asked < 5, "the slow one was asked {asked} of 500 times");
    let (alone, with_it) = (p99(&alone), p99(&with_it));
    assert!(
        with_it <= alone.mul_f64(1.5),
        "{alone:?} became {with_it:?}"
    );
}

#[test]
fn a_server_that_fails_at_once_attracts_nothing() {
    let broken = Backend::saying(BROKEN);
    let backends = [slow(10), broken, slow(10)];
    let server = in_front_of(&backends, "");
    let failed = (0..300)
        .filter(|_| server.get("/orders/1").status != 200)
        .count();
    assert!((1..=5).contains(&failed), "{failed} of 300 failed");
}

#[test]
fn beyond_what_its_servers_may_have_in_hand_a_service_is_overloaded() {
    let (held, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(())));
    let (count, gate) = (held.clone(), release.clone());
    let closed = gate.lock();
    let opened = release.clone();
    let backend = Backend::start(move |_, stream| {
        count.fetch_add(1, Ordering::SeqCst);
        drop(opened.lock());
        stream.write_all(OK.as_bytes()).expect("sent");
        Then::Keep
    });
    let server = in_front_of(&[backend], "requests_max = 2");
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| server.get("/orders/1").status))
            .collect();
        eventually(SOON, "both are there", || held.load(Ordering::SeqCst) == 2);
        let answer = server.get("/orders/1");
        assert_eq!(
            refusal(&answer),
            (503, "UNAVAILABLE".into(), "overloaded".into())
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
        drop(closed);
        for one in waiting {
            assert_eq!(one.join().expect("answered"), 200);
        }
    });
    assert_eq!(server.get("/orders/1").status, 200);
    assert_eq!(held.load(Ordering::SeqCst), 3);
}

#[test]
fn the_same_value_goes_to_the_same_server() {
    let backends = [(); 4].map(|()| Backend::saying(OK));
    let server = in_front_of(&backends, "balance = \"hash(path.id)\"");
    let mut connection = server.connect();
    for _ in 0..5 {
        for id in 0..40 {
            let path = format!("/orders/{id}");
            assert_eq!(connection.send("GET", &path, &[], b"").status, 200);
        }
    }
    let mut ids = 0;
    for backend in &backends {
        let mut lines: Vec<String> = backend
            .seen()
            .iter()
            .map(|seen| seen.request_line().to_owned())
            .collect();
        assert!(!lines.is_empty(), "every server has some");
        lines.sort_unstable();
        assert_eq!(lines.len() % 5, 0);
        lines.dedup();
        ids += lines.len();
    }
    assert_eq!(ids, 40, "none was asked for at two");
}
