//! Keeps N connections busy from one thread.
//!
//! A closed loop: each connection sends its next request as soon as the last one is answered. The
//! generator shares the machine with the server it measures, so it waits in `epoll`, sends bytes
//! prepared beforehand and asks the kernel for as little as it can. Every wait has an end.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::answers::Answers;
use crate::connection::{Connection, Lost, Step};
use crate::http::Head;
use crate::report::{Failure, Report};

/// How often timeouts are looked at, and how long a connection rests after a failure.
const TICK: Duration = Duration::from_millis(10);
/// The share of the warm-up over which connections are opened one by one: opened all at once, a
/// server with several processes may take them all into one of them and leave the others idle.
const OPENING: f64 = 0.5;
const EVENTS_MAX: usize = 256;

pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) timeout: Duration,
    /// The complete bytes of each request, in the order of the answers.
    pub(crate) requests: Vec<Vec<u8>>,
    /// Whether each is sent once, and the run ends with the last answer. It is measured from the
    /// beginning then.
    pub(crate) is_once: bool,
}

/// What one connection is about.
struct Client {
    connection: Option<Connection>,
    record: usize,
    /// When the current request was due. Connecting anew counts, as its sender would feel it.
    due: Instant,
    /// The request was already sent once and the server closed the connection instead.
    retried: bool,
    /// Without a connection: when to open one.
    rests_until: Instant,
}

struct Driver<'a> {
    plan: &'a Plan,
    poll: Poll,
    clients: Vec<Client>,
    next_record: usize,
    answers: Answers,
    report: Report,
    measures_from: Instant,
    ends: Instant,
}

/// Runs the plan to its end. Fails only when the operating system refuses to poll.
pub(crate) fn drive(plan: &Plan, answers: Answers) -> io::Result<Report> {
    let begins = Instant::now();
    let warmup = if plan.is_once {
        Duration::ZERO
    } else {
        plan.warmup
    };
    let measures_from = begins + warmup;
    let mut driver = Driver {
        plan,
        poll: Poll::new()?,
        clients: Vec::new(),
        next_record: 0,
        answers,
        report: Report::new(plan.connections, plan.duration),
        measures_from,
        ends: measures_from + plan.duration,
    };
    for index in 0..plan.connections {
        let share = OPENING * index as f64 / plan.connections as f64;
        let opens = begins + warmup.mul_f64(share);
        driver.clients.push(Client {
            connection: None,
            record: 0,
            due: opens,
            retried: false,
            rests_until: opens,
        });
    }
    driver.run()?;
    if plan.is_once {
        driver.report.lasted(begins.elapsed());
    }
    Ok(driver.report)
}

impl Driver<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut last_tick = Instant::now();
        self.tick(last_tick);
        loop {
            match self.poll.poll(&mut events, Some(TICK)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                let Token(index) = event.token();
                self.on_ready(index, event.is_writable(), event.is_read_closed());
            }
            let now = Instant::now();
            if now - last_tick >= TICK {
                last_tick = now;
                self.tick(now);
            }
            if now >= self.ends
                && self
                    .clients
                    .iter()
                    .all(|client| client.connection.is_none())
            {
                return Ok(());
            }
        }
    }

    /// Events of a connection that was replaced meanwhile may arrive here; they do no harm, since
    /// reading and writing a socket that is not ready changes nothing.
    fn on_ready(&mut self, index: usize, writable: bool, read_closed: bool) {
        let client = &mut self.clients[index];
        let Some(connection) = &mut client.connection else {
            return;
        };
        match connection.step(&self.plan.requests[client.record], writable, read_closed) {
            Ok(Step::Wait) => {}
            Ok(Step::Answered(head)) => self.on_answer(index, head, read_closed),
            Err(lost) => self.on_lost(index, lost),
        }
    }

    fn on_answer(&mut self, index: usize, head: Head, read_closed: bool) {
        let now = Instant::now();
        let client = &mut self.clients[index];
        let Some(connection) = &mut client.connection else {
            return;
        };
        let body = connection.body();
        let outcome = match head.status {
            200 => self
                .answers
                .check(client.record, body)
                .map_err(|w| Failure::wrong(&w)),
            status => Err(Failure::Status(status)),
        };
        match outcome {
            Ok(()) if now < self.measures_from => {}
            Ok(()) => {
                let in_time = self.plan.is_once || now < self.ends;
                self.report.answered(now - client.due, in_time);
            }
            Err(failure) => self.report.failed(&failure, client.record, body),
        }
        let reusable = connection.finish_response() && !head.close && !read_closed;

        if now >= self.ends || !self.renew_request(index, now) {
            self.drop_connection(index);
            return;
        }
        if !reusable {
            self.report.reconnected();
            self.connect(index);
            return;
        }
        let client = &mut self.clients[index];
        let Some(connection) = &mut client.connection else {
            return;
        };
        let deadline = now + self.plan.timeout;
        if let Err(lost) = connection.begin_request(&self.plan.requests[client.record], deadline) {
            self.on_lost(index, lost);
        }
    }

    /// Whether there is another request.
    fn renew_request(&mut self, index: usize, now: Instant) -> bool {
        let Some(record) = self.take_record() else {
            self.ends = self.ends.min(now);
            return false;
        };
        let client = &mut self.clients[index];
        client.record = record;
        client.due = now;
        client.retried = false;
        true
    }

    fn on_lost(&mut self, index: usize, lost: Lost) {
        let client = &mut self.clients[index];
        // A server may close an idle connection at any time; the request that crosses the closing
        // is sent again, once (RFC 9112 §9.3.1).
        if lost == Lost::ClosedIdle && !client.retried {
            client.retried = true;
            self.report.reconnected();
            self.connect(index);
            return;
        }
        let record = client.record;
        self.fail(index, &Failure::from(lost), record);
    }

    fn fail(&mut self, index: usize, failure: &Failure, record: usize) {
        self.report.failed(failure, record, b"");
        self.drop_connection(index);
        self.clients[index].rests_until = Instant::now() + TICK;
    }

    fn connect(&mut self, index: usize) {
        self.drop_connection(index);
        let deadline = Instant::now() + self.plan.timeout;
        match Connection::open(
            self.plan.address,
            self.poll.registry(),
            Token(index),
            deadline,
        ) {
            Ok(connection) => self.clients[index].connection = Some(connection),
            Err(_) => self.fail(index, &Failure::Connect, self.clients[index].record),
        }
    }

    fn drop_connection(&mut self, index: usize) {
        if let Some(connection) = self.clients[index].connection.take() {
            connection.close(self.poll.registry());
        }
    }

    fn tick(&mut self, now: Instant) {
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if let Some(connection) = &client.connection {
                if let Some(lost) = connection.overdue(now) {
                    self.on_lost(index, lost);
                }
            } else if (client.rests_until..self.ends).contains(&now)
                && self.renew_request(index, now)
            {
                self.connect(index);
            }
        }
    }

    fn take_record(&mut self) -> Option<usize> {
        let (record, count) = (self.next_record, self.plan.requests.len());
        if self.plan.is_once && record == count {
            return None;
        }
        let next = record + 1;
        self.next_record = if self.plan.is_once {
            next
        } else {
            next % count
        };
        Some(record)
    }
}
