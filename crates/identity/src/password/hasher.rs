//! The threads on which passwords are hashed, and the three queues before them.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::Random;
use auspex_kernel::clock::monotonic;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{Parameters, Password, Verified};

/// How much lower than the threads that serve requests these rank (`nice`, 0 to 19).
const NICE: i32 = 10;

/// Which queue a password waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The address has logged in to this account lately. Always served before strangers, so that a
    /// flood of guesses does not keep an owner waiting.
    Known,
    /// Everybody else.
    Stranger,
    /// From an address that has failed too often. Served when nobody else waits.
    Suspect,
}

/// The lane is full, or the machine has no memory to hash in. To be answered by 503 and
/// `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked; try again in a moment")]
pub struct Busy;

/// Hashes and checks passwords on threads of its own, which end when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Hasher {
    queue: Arc<Queue>,
    _alive: Arc<CloseOnDrop>,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

impl Hasher {
    /// Starts `threads` threads. Each lane holds up to `queue_max` passwords that wait.
    ///
    /// # Errors
    /// A number that cannot be used, or the operating system starts no thread.
    pub(crate) fn start(
        parameters: Parameters,
        threads: usize,
        queue_max: usize,
        random: &Random,
    ) -> io::Result<Self> {
        let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidInput, reason);
        parameters.check().map_err(invalid)?;
        if threads == 0 || queue_max == 0 {
            let reason = "passwords need at least one thread and one place to wait";
            return Err(invalid(reason.into()));
        }
        let queue = Arc::new(Queue::new(queue_max));
        let hasher = Self {
            queue: Arc::clone(&queue),
            _alive: Arc::new(CloseOnDrop(Arc::clone(&queue))),
        };
        for _ in 0..threads {
            let (queue, random) = (Arc::clone(&queue), random.clone());
            let work = move || {
                yield_to_predictions();
                while let Some(job) = queue.next() {
                    let began = monotonic();
                    job.run(parameters, &random);
                    queue.rest(began.elapsed());
                }
            };
            let thread = std::thread::Builder::new().name("password".into());
            thread.spawn(work)?;
        }
        Ok(hasher)
    }

    /// The password's hash in the PHC string format, to be stored.
    ///
    /// # Errors
    /// [`Busy`].
    pub(crate) async fn hash(&self, password: Password, lane: Lane) -> Result<String, Busy> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(lane, Job::Hash(password, reply))?;
        answer.await.map_err(|_| Busy)
    }

    /// Whether the password is the one stored as `stored`. Without one, as for a name that does not
    /// exist, it takes as long and does not match.
    ///
    /// # Errors
    /// [`Busy`].
    pub(crate) async fn verify(
        &self,
        password: Password,
        stored: Option<String>,
        lane: Lane,
    ) -> Result<Verified, Busy> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .push(lane, Job::Verify(password, stored, reply))?;
        answer.await.map_err(|_| Busy)
    }
}

/// Predictions share these cores and are promised in milliseconds; a login may take a little longer.
/// On Linux a thread has a priority of its own. Where it cannot be had, nothing is lost but that.
fn yield_to_predictions() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        tracing::debug!(%error, "password hashing runs at normal priority");
    }
}

enum Job {
    Hash(Password, oneshot::Sender<String>),
    Verify(Password, Option<String>, oneshot::Sender<Verified>),
}

impl Job {
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Hash(_, reply) => reply.is_closed(),
            Self::Verify(_, _, reply) => reply.is_closed(),
        }
    }

    /// A job that fails drops its reply, which its caller takes for [`Busy`].
    fn run(self, parameters: Parameters, random: &Random) {
        match self {
            Self::Hash(password, reply) => {
                if let Some(hash) = parameters.hash(&password, random) {
                    // The caller may have left meanwhile.
                    let _ = reply.send(hash);
                }
            }
            Self::Verify(password, stored, reply) => {
                if let Some(verified) = parameters.verify(&password, stored.as_deref(), random) {
                    let _ = reply.send(verified);
                }
            }
        }
    }
}

struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    max: usize,
}

#[derive(Default)]
struct Waiting {
    known: VecDeque<Job>,
    strangers: VecDeque<Job>,
    suspects: VecDeque<Job>,
    closed: bool,
}

impl Waiting {
    fn strangers_wait(&self) -> bool {
        !self.strangers.is_empty() || !self.suspects.is_empty()
    }
}

impl Queue {
    fn new(max: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            max,
        }
    }

    fn push(&self, lane: Lane, job: Job) -> Result<(), Busy> {
        let mut waiting = self.waiting.lock();
        let jobs = match lane {
            Lane::Known => &mut waiting.known,
            Lane::Stranger => &mut waiting.strangers,
            Lane::Suspect => &mut waiting.suspects,
        };
        if jobs.len() >= self.max {
            // Callers who gave up must not keep others out.
            jobs.retain(|job| !job.is_abandoned());
        }
        if jobs.len() >= self.max {
            return Err(Busy);
        }
        jobs.push_back(job);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for the next job whose caller is still there; `None` once the queue is closed.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.closed {
                return None;
            }
            let job = waiting.known.pop_front();
            let job = job.or_else(|| waiting.strangers.pop_front());
            match job.or_else(|| waiting.suspects.pop_front()) {
                Some(job) if job.is_abandoned() => {}
                Some(job) => return Some(job),
                None => self.changed.wait(&mut waiting),
            }
        }
    }

    /// While strangers queue up, a thread rests for as long as it has worked, or until somebody known
    /// comes: low priority alone leaves predictions neither cache nor memory to work with. Without a
    /// queue there is no rest.
    fn rest(&self, worked: Duration) {
        let end = monotonic() + worked;
        let mut waiting = self.waiting.lock();
        while !waiting.closed && waiting.known.is_empty() && waiting.strangers_wait() {
            if self.changed.wait_until(&mut waiting, end).timed_out() {
                return;
            }
        }
    }

    fn close(&self) {
        self.waiting.lock().closed = true;
        self.changed.notify_all();
    }
}

/// The threads hold the queue; only what the callers hold can tell that there are none left.
struct CloseOnDrop(Arc<Queue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::from(text)
    }

    fn hasher(parameters: Parameters) -> Hasher {
        Hasher::start(parameters, 2, 8, &Random::system()).unwrap()
    }

    /// A job that says its number, and the caller waiting for it.
    fn job(number: usize) -> (Job, oneshot::Receiver<String>) {
        let (reply, caller) = oneshot::channel();
        (Job::Hash(password(&number.to_string()), reply), caller)
    }

    fn number(job: Option<Job>) -> String {
        match job {
            Some(Job::Hash(password, _)) => password.0.to_string(),
            _ => panic!("a hash job was expected"),
        }
    }

    #[test]
    fn a_thread_rests_only_while_strangers_queue_up() {
        let queue = Queue::new(8);
        let rests_through = |rest: Duration| {
            let began = monotonic();
            queue.rest(rest);
            began.elapsed() >= rest
        };
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(20));
        assert!(!rests_through(long), "nobody waits");
        let (stranger, _waits) = job(1);
        queue.push(Lane::Stranger, stranger).unwrap();
        assert!(rests_through(short), "a stranger waits");
        let (known, _waits_too) = job(2);
        queue.push(Lane::Known, known).unwrap();
        assert!(!rests_through(long), "somebody known waits");
    }

    #[tokio::test]
    async fn a_password_matches_its_own_hash_alone() {
        let hasher = hasher(Parameters::default());
        let stored = hasher.hash(password("correct horse"), Lane::Known).await;
        let stored = stored.unwrap();
        assert!(
            stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{stored}"
        );
        for (text, matches) in [
            ("correct horse", true),
            ("correct horsf", false),
            ("", false),
        ] {
            let verified = hasher
                .verify(password(text), Some(stored.clone()), Lane::Stranger)
                .await;
            let expected = Verified {
                matches,
                rehashed: None,
            };
            assert_eq!(verified, Ok(expected), "{text}");
        }
        let again = hasher.hash(password("correct horse"), Lane::Known).await;
        assert_ne!(again.unwrap(), stored, "every hash has a salt of its own");
    }

    #[tokio::test]
    async fn a_weaker_hash_is_replaced_on_success_only() {
        let weak = Parameters {
            memory_kib: 64,
            iterations: 1,
            parallelism: 1,
        };
        let stored = weak
            .hash(&password("correct horse"), &Random::system())
            .unwrap();
        let hasher = hasher(Parameters::default());
        let wrong = hasher
            .verify(password("x"), Some(stored.clone()), Lane::Known)
            .await;
        assert_eq!(
            wrong,
            Ok(Verified {
                matches: false,
                rehashed: None
            })
        );

        let right = hasher
            .verify(password("correct horse"), Some(stored), Lane::Known)
            .await;
        let fresh = right.unwrap().rehashed.expect("a new hash");
        assert!(fresh.contains("m=19456,t=2,p=1"), "{fresh}");
        let verified = hasher
            .verify(password("correct horse"), Some(fresh), Lane::Known)
            .await;
        assert_eq!(
            verified,
            Ok(Verified {
                matches: true,
                rehashed: None
            })
        );
    }

    #[test]
    fn known_addresses_go_first_and_each_lane_keeps_its_order() {
        let queue = Queue::new(8);
        let lanes = [
            Lane::Stranger,
            Lane::Suspect,
            Lane::Stranger,
            Lane::Known,
            Lane::Stranger,
            Lane::Known,
        ];
        let callers: Vec<_> = lanes
            .into_iter()
            .enumerate()
            .map(|(i, lane)| {
                let (job, caller) = job(i);
                queue.push(lane, job).unwrap();
                caller
            })
            .collect();
        let order: Vec<String> = lanes.iter().map(|_| number(queue.next())).collect();
        assert_eq!(order, ["3", "5", "0", "2", "4", "1"]);
        drop(callers);
    }

    #[test]
    fn each_lane_is_bounded_by_itself_and_by_those_who_still_wait() {
        let queue = Queue::new(2);
        let mut callers = Vec::new();
        let mut push = |lane, i| {
            let (job, caller) = job(i);
            let pushed = queue.push(lane, job);
            callers.push(caller);
            (pushed, callers.len() - 1)
        };
        assert!(push(Lane::Stranger, 0).0.is_ok());
        assert!(push(Lane::Stranger, 1).0.is_ok());
        assert_eq!(push(Lane::Stranger, 2).0, Err(Busy));
        assert!(
            push(Lane::Known, 3).0.is_ok(),
            "strangers take no owner's place"
        );
        callers.remove(0);
        let (job, _caller) = job(4);
        assert!(
            queue.push(Lane::Stranger, job).is_ok(),
            "who left makes room"
        );
    }

    #[test]
    fn jobs_whose_callers_left_are_skipped() {
        let queue = Queue::new(8);
        let (abandoned, caller) = job(0);
        queue.push(Lane::Known, abandoned).unwrap();
        let (wanted, _waiting) = job(1);
        queue.push(Lane::Stranger, wanted).unwrap();
        drop(caller);
        assert_eq!(number(queue.next()), "1");
    }

    #[tokio::test]
    async fn threads_end_with_the_last_handle() {
        let hasher = Hasher::start(Parameters::default(), 2, 8, &Random::system()).unwrap();
        let queue = Arc::downgrade(&hasher.queue);
        let clone = hasher.clone();
        drop(hasher);
        assert!(
            clone
                .hash(password("correct horse"), Lane::Known)
                .await
                .is_ok()
        );
        drop(clone);
        let end = monotonic() + Duration::from_secs(10);
        while queue.strong_count() > 0 {
            assert!(monotonic() < end, "a thread still holds the queue");
            std::thread::yield_now();
        }
    }

    #[test]
    fn numbers_that_cannot_be_used_are_refused() {
        let start = |parameters, threads, queue_max| {
            Hasher::start(parameters, threads, queue_max, &Random::system())
                .map_err(|error| error.to_string())
        };
        let least = Parameters::default();
        assert!(start(least, 1, 1).is_ok());
        for weaker in [
            Parameters {
                memory_kib: 19_455,
                ..least
            },
            Parameters {
                iterations: 1,
                ..least
            },
            Parameters {
                parallelism: 0,
                ..least
            },
            Parameters {
                memory_kib: u32::MAX,
                ..least
            },
        ] {
            let error = start(weaker, 1, 1).expect_err("out of range");
            assert!(error.contains("19456 to 1048576 KiB"), "{error}");
        }
        assert!(start(least, 0, 1).is_err() && start(least, 1, 0).is_err());
    }
}
