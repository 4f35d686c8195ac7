//! What happens on a connection, and who ends it when it is too little: a task beside that of the connection,
//! which is woken for each request and would look at every timer then.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use auspex_kernel::service::StopSignal;
use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::upgraded::Tether;
use super::{Bounds, CLOSE_TIMEOUT};
use crate::edge::Admitted;

/// Counts what happens on a connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    pub(super) begun: AtomicU32,
    pub(super) ended: AtomicU32,
    /// Reads and writes that moved bytes.
    pub(super) moves: AtomicU32,
    /// Pieces of answers that hyper took over, and of bodies that came over HTTP/2.
    pub(super) pieces: AtomicU32,
    /// Bytes of another request have arrived.
    pub(super) head_begun: AtomicBool,
    pub(super) http2: AtomicBool,
    /// The server is stopping: each answer says that it is the last.
    pub(super) stopping: AtomicBool,
    /// The connection is to end as soon as nothing is owed to its peer.
    pub(super) is_leaving: AtomicBool,
    /// It ends at once.
    pub(super) is_over: AtomicBool,
    /// Of the connection, to be woken when it has to end.
    pub(super) task: AtomicWaker,
    /// The request in flight is to end when its client leaves.
    pub(super) ends_with_client: AtomicBool,
    /// Set when the connection leaves HTTP.
    pub(super) upgraded: OnceLock<Admitted>,
    pub(super) tether: Tether,
}

impl Activity {
    /// Ends the connection when it breaks a bound, or when the server stops.
    pub(super) async fn look_after(self: Arc<Self>, bounds: Bounds, mut stop: StopSignal) {
        let linger_timeout = bounds.linger_timeout;
        let goodbye = async {
            stop.stop_requested().await;
            self.stopping.store(true, Ordering::Relaxed);
            if !self.http2.load(Ordering::Relaxed) {
                tokio::time::sleep(linger_timeout).await;
            }
            self.leave();
            std::future::pending().await
        };
        let broken = async {
            while Watch::new(self.clone(), bounds.clone()).run().await == Verdict::Close {
                self.leave();
                tokio::time::sleep(CLOSE_TIMEOUT).await;
                // A request may have come at the same moment.
                if !self.is_in_flight() {
                    return;
                }
            }
        };
        tokio::select! {
            () = broken => {}
            () = goodbye => {}
        }
        self.is_over.store(true, Ordering::Relaxed);
        self.task.wake();
    }

    fn is_in_flight(&self) -> bool {
        self.begun.load(Ordering::Relaxed) != self.ended.load(Ordering::Relaxed)
    }

    fn leave(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
        self.task.wake();
    }
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Verdict {
    /// Nothing is owed to the peer.
    Drop,
    /// Idle: say goodbye.
    Close,
}

struct Watch {
    activity: Arc<Activity>,
    bounds: Bounds,
    tick: Duration,
    seen: (u32, u32, bool, u32),
    since: Instant,
}

impl Watch {
    fn new(activity: Arc<Activity>, bounds: Bounds) -> Self {
        let shortest = bounds
            .head_timeout
            .min(bounds.idle_timeout)
            .min(bounds.stall_timeout);
        let tick = (shortest / 8).clamp(Duration::from_millis(5), Duration::from_secs(2));
        Self {
            activity,
            bounds,
            tick,
            seen: (0, 0, false, 0),
            since: Instant::now(),
        }
    }

    async fn run(mut self) -> Verdict {
        loop {
            tokio::time::sleep(self.tick).await;
            if let Some(verdict) = self.look(Instant::now()) {
                return verdict;
            }
        }
    }

    fn look(&mut self, now: Instant) -> Option<Verdict> {
        let begun = self.activity.begun.load(Ordering::Relaxed);
        let ended = self.activity.ended.load(Ordering::Relaxed);
        let http2 = self.activity.http2.load(Ordering::Relaxed);
        let in_flight = begun != ended;
        // HTTP/2 peers also send frames that begin no request (acknowledgements, pings).
        let in_head = begun == 0 || (!http2 && self.activity.head_begun.load(Ordering::Relaxed));
        // Trickled bytes keep an answer or a body alive, but not a head; on HTTP/2 they may be pings
        // from a peer that reads nothing.
        let moves = match (in_flight, http2) {
            (true, true) => self.activity.pieces.load(Ordering::Relaxed),
            (true, false) => self.activity.moves.load(Ordering::Relaxed),
            (false, _) => 0,
        };
        let state = (begun, ended, in_head, moves);
        if state != self.seen {
            self.seen = state;
            self.since = now;
            return None;
        }
        let (limit, verdict) = match (in_flight, in_head) {
            (true, _) => (self.bounds.stall_timeout, Verdict::Drop),
            (false, true) => (self.bounds.head_timeout, Verdict::Drop),
            (false, false) => (self.bounds.idle_timeout, Verdict::Close),
        };
        (now - self.since >= limit).then_some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;
    use crate::connection::InFlight;

    fn watch() -> (Watch, Arc<Activity>, Instant) {
        let activity = Arc::new(Activity::default());
        let bounds = Bounds {
            head_bytes_max: 65_536,
            http2_streams_max: 10,
            head_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(90),
            linger_timeout: Duration::from_millis(500),
        };
        let watch = Watch::new(activity.clone(), bounds);
        let start = watch.since;
        (watch, activity, start)
    }

    /// Checks every second while `each` happens. Returns the verdict and the second it was given in.
    fn verdict_after(
        mut watch: Watch,
        start: Instant,
        mut each: impl FnMut(u64),
    ) -> Option<(u64, Verdict)> {
        (1..200).find_map(|s| {
            each(s);
            watch
                .look(start + Duration::from_secs(s))
                .map(|verdict| (s, verdict))
        })
    }

    #[test]
    fn a_silent_connection_and_a_trickled_head_end_alike() {
        let (watch, _, start) = watch();
        let (second, verdict) = verdict_after(watch, start, |_| ()).expect("a verdict");
        assert_eq!((second, verdict), (16, Verdict::Drop));
        let (watch, activity, start) = self::watch();
        let trickle = |_| {
            activity.moves.fetch_add(1, Ordering::Relaxed);
            activity.head_begun.store(true, Ordering::Relaxed);
        };
        assert_eq!(
            verdict_after(watch, start, trickle),
            Some((16, Verdict::Drop))
        );
    }

    #[test]
    fn an_idle_connection_is_closed_and_a_second_head_is_timed_too() {
        let (watch, activity, start) = watch();
        drop(InFlight::begin(&activity, Version::HTTP_11));
        let verdict = verdict_after(watch, start, |_| ());
        assert_eq!(verdict, Some((61, Verdict::Close)));

        let (watch, activity, start) = self::watch();
        drop(InFlight::begin(&activity, Version::HTTP_11));
        let verdict = verdict_after(watch, start, |second| {
            activity.head_begun.store(second >= 30, Ordering::Relaxed);
        });
        assert_eq!(verdict, Some((45, Verdict::Drop)));
    }

    #[test]
    fn http2_chatter_begins_no_head() {
        let (watch, activity, start) = watch();
        drop(InFlight::begin(&activity, Version::HTTP_2));
        let chatter = |_| activity.head_begun.store(true, Ordering::Relaxed);
        assert_eq!(
            verdict_after(watch, start, chatter),
            Some((61, Verdict::Close))
        );
    }

    #[test]
    fn pings_do_not_keep_an_answer_alive_that_nobody_takes() {
        let (watch, activity, start) = watch();
        let _request = InFlight::begin(&activity, Version::HTTP_2);
        let pings = |_| {
            activity.moves.fetch_add(1, Ordering::Relaxed);
        };
        assert_eq!(
            verdict_after(watch, start, pings),
            Some((91, Verdict::Drop))
        );
    }

    #[test]
    fn a_request_in_flight_lives_while_bytes_move() {
        let (watch, activity, start) = watch();
        let _request = InFlight::begin(&activity, Version::HTTP_11);
        let moving = |second| {
            if second < 50 {
                activity.moves.fetch_add(1, Ordering::Relaxed);
            }
        };
        assert_eq!(
            verdict_after(watch, start, moving),
            Some((139, Verdict::Drop))
        );
    }
}
