//! The connections of HTTP/2, for each thread its own: a few for each endpoint.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use auspex_kernel::clock::monotonic;

use super::Endpoint;
use super::http2::Line;
use crate::error::Failure;

/// For each endpoint. When all are full, requests wait on the one with the fewest.
const LINES_MAX: usize = 8;

/// Held by whoever opens a connection; when that failed last, and why.
pub(super) type Door = Arc<tokio::sync::Mutex<Option<(Instant, Failure)>>>;

thread_local! {
    static LINES: RefCell<Lines> = RefCell::default();
}

#[derive(Default)]
struct Lines {
    /// By endpoint.
    known: HashMap<u64, Known>,
    /// A task closes what nobody uses.
    has_clearer: bool,
}

#[derive(Default)]
struct Known {
    lines: Vec<Kept>,
    door: Door,
}

struct Kept {
    line: Arc<Line>,
    /// Of an unused one.
    until: Instant,
    idle_timeout: Duration,
}

impl Kept {
    fn in_use(&self) -> usize {
        Arc::strong_count(&self.line) - 1
    }
}

/// A connection to an endpoint with room for one more request.
pub(super) fn take(endpoint: &Endpoint) -> Option<Arc<Line>> {
    LINES.with_borrow_mut(|lines| {
        let lines = &mut lines.known.get_mut(&endpoint.id)?.lines;
        lines.retain(|kept| kept.line.is_open());
        let is_full = lines.len() >= LINES_MAX;
        let idlest = lines.iter_mut().min_by_key(|kept| kept.in_use())?;
        if idlest.in_use() >= idlest.line.streams_max() && !is_full {
            return None;
        }
        idlest.until = monotonic() + idlest.idle_timeout;
        Some(idlest.line.clone())
    })
}

/// Where whoever opens a connection to an endpoint waits for others who do.
pub(super) fn door(endpoint: u64) -> Door {
    LINES.with_borrow_mut(|lines| lines.known.entry(endpoint).or_default().door.clone())
}

/// Keeps a new connection for the requests to come.
pub(super) fn keep(endpoint: &Endpoint, line: Arc<Line>) {
    let idle_timeout = endpoint.limits.idle_timeout;
    let kept = Kept {
        line,
        until: monotonic() + idle_timeout,
        idle_timeout,
    };
    let begins_clearing = LINES.with_borrow_mut(|lines| {
        let known = lines.known.entry(endpoint.id).or_default();
        known.lines.push(kept);
        !std::mem::replace(&mut lines.has_clearer, true)
    });
    if begins_clearing {
        tokio::spawn(clear(idle_timeout));
    }
}

/// Closes what nobody has used for too long, until there is nothing left.
async fn clear(mut pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let now = monotonic();
        let next = LINES.with_borrow_mut(|lines| {
            lines.known.retain(|_, known| {
                known.lines.retain_mut(|kept| {
                    if kept.in_use() > 0 {
                        kept.until = now + kept.idle_timeout;
                    }
                    kept.line.is_open() && now < kept.until
                });
                !known.lines.is_empty() || Arc::strong_count(&known.door) > 1
            });
            let all = lines.known.values().flat_map(|known| &known.lines);
            let next = all.map(|kept| kept.until).min();
            lines.has_clearer = next.is_some();
            next
        });
        match next {
            Some(next) => pause = next.saturating_duration_since(now),
            None => return,
        }
    }
}
