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
use crate::report::{Failure, Report};

/// How often timeouts are looked at, and how long a connection rests after a failure.
const TICK: Duration = Duration::from_millis(10);
const EVENTS_MAX: usize = 256;

pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) timeout: Duration,
    /// The complete bytes of each request, in the order of the answers.
    pub(crate) requests: Vec<Vec<u8>>,
}

/// What one connection is about.
struct Client {
    connection: Option<Connection>,
    record: usize,
    /// When the current request was due. Connecting anew counts, as its sender would feel it.
    due: Instant,
    /// The request was already sent once and the server closed the connection instead.
    retried: bool,
    /// After a failure: nothing before this moment.
    rests_until: Option<Instant>,
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
    let measures_from = begins + plan.warmup;
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
        let record = driver.take_record();
        driver.clients.push(Client {
            connection: None,
            record,
            due: begins,
            retried: false,
            rests_until: None,
        });
        driver.connect(index);
    }
    driver.run()?;
    Ok(driver.report)
}

impl Driver<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut last_tick = Instant::now();
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
        loop {
            let client = &mut self.clients[index];
            let Some(connection) = &mut client.connection else {
                return;
            };
            let request = &self.plan.requests[client.record];
            match connection.step(request, writable, read_closed) {
                Ok(Step::Wait) => return,
                Ok(Step::Answered(head)) => {
                    let now = Instant::now();
                    let record = client.record;
                    let latency = now - client.due;
                    let body = connection.body();
                    let outcome = match head.status {
                        200 => self
                            .answers
                            .check(record, body)
                            .map_err(|w| Failure::wrong(&w)),
                        status => Err(Failure::Status(status)),
                    };
                    match outcome {
                        Ok(()) if now >= self.measures_from => {
                            self.report.answered(latency, now < self.ends);
                        }
                        Ok(()) => {}
                        Err(failure) => self.report.failed(&failure, record, body),
                    }
                    let reusable = connection.finish_response();
                    let closes = head.close || !reusable || read_closed;
                    if !self.begin_next(index, now, closes) {
                        return;
                    }
                }
                Err(lost) => {
                    self.on_lost(index, lost);
                    return;
                }
            }
        }
    }

    /// Whether the connection has a new request to send now.
    fn begin_next(&mut self, index: usize, now: Instant, closes: bool) -> bool {
        let record = self.take_record();
        let client = &mut self.clients[index];
        client.record = record;
        client.due = now;
        client.retried = false;
        if now >= self.ends {
            self.drop_connection(index);
            return false;
        }
        if closes {
            self.report.reconnected();
            self.connect(index);
            return false;
        }
        if let Some(connection) = &mut client.connection {
            connection.begin_request(now + self.plan.timeout);
        }
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
        self.clients[index].rests_until = Some(Instant::now() + TICK);
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
            } else if client.rests_until.is_some_and(|until| now >= until) && now < self.ends {
                client.rests_until = None;
                client.due = now;
                client.retried = false;
                client.record = self.take_record();
                self.connect(index);
            }
        }
    }

    fn take_record(&mut self) -> usize {
        let record = self.next_record;
        self.next_record = (record + 1) % self.plan.requests.len();
        record
    }
}
