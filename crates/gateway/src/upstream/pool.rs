//! Connections of HTTP/1.1 at rest, for each thread its own: no request waits for another's to take one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::time::{Duration, Instant};

use auspex_kernel::clock::monotonic;
use auspex_kernel::quota::Spread;

use super::http1::Connection;

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

#[derive(Default)]
struct Pool {
    /// By endpoint; the one used last at the end.
    resting: HashMap<u64, Vec<Resting>, BuildHasherDefault<Spread>>,
    /// A task closes what has rested too long.
    has_clearer: bool,
}

struct Resting {
    connection: Box<Connection>,
    until: Instant,
}

/// The connection to an endpoint that was used last. It must be looked at before it is used.
pub(super) fn take(endpoint: u64) -> Option<Box<Connection>> {
    let taken = POOL.with_borrow_mut(|pool| pool.resting.get_mut(&endpoint)?.pop())?;
    (monotonic() < taken.until).then_some(taken.connection)
}

/// Keeps a connection for the next request, unless there are enough.
pub(super) fn keep(connection: Box<Connection>) {
    let limits = connection.rested.limits;
    let until = monotonic() + limits.idle_timeout;
    let begins_clearing = POOL.with_borrow_mut(|pool| {
        let resting = pool.resting.entry(connection.rested.endpoint).or_default();
        if resting.len() < limits.idle_connections_max {
            resting.push(Resting { connection, until });
        }
        !std::mem::replace(&mut pool.has_clearer, true)
    });
    if begins_clearing {
        tokio::spawn(clear(limits.idle_timeout));
    }
}

/// Closes what has rested too long, until there is nothing left.
async fn clear(mut pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let now = monotonic();
        let next = POOL.with_borrow_mut(|pool| {
            pool.resting.retain(|_, resting| {
                resting.retain(|one| now < one.until);
                !resting.is_empty()
            });
            let next = pool.resting.values().flatten().map(|one| one.until).min();
            pool.has_clearer = next.is_some();
            next
        });
        match next {
            Some(next) => pause = next.saturating_duration_since(now),
            None => return,
        }
    }
}
