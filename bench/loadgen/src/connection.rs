//! One keep-alive connection: a request out, a response in, never blocking.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::http::{Head, Malformed, ResponseParser};

const BUFFER_BYTES: usize = 16 * 1024;

pub(crate) struct Connection {
    stream: TcpStream,
    state: State,
    /// When the current wait is over.
    deadline: Instant,
    /// Responses read so far; a connection with some is a reused one.
    served: u64,
    buffer: Vec<u8>,
    filled: usize,
    parser: ResponseParser,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Sending { sent: usize },
    Receiving,
}

/// Where a connection got to.
pub(crate) enum Step {
    /// Nothing more to do before the next event.
    Wait,
    /// A response is complete; its body is in [`Connection::body`].
    Answered(Head),
}

/// Why a connection can go on no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    Connect,
    ConnectTimeout,
    AnswerTimeout,
    /// The server closed a reused connection before the first byte of the answer.
    ClosedIdle,
    Closed,
    Malformed(Malformed),
}

impl Connection {
    /// Begins to connect.
    pub(crate) fn open(
        address: SocketAddr,
        registry: &Registry,
        token: Token,
        deadline: Instant,
    ) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            stream,
            state: State::Connecting,
            deadline,
            served: 0,
            buffer: vec![0; BUFFER_BYTES],
            filled: 0,
            parser: ResponseParser::new(),
        })
    }

    pub(crate) fn close(mut self, registry: &Registry) {
        // Closing the socket forgets the registration as well.
        registry.deregister(&mut self.stream).ok();
    }

    /// Goes as far as it can without waiting. `request` is the same until the response is
    /// complete; `writable` and `read_closed` are what the latest event said.
    pub(crate) fn step(
        &mut self,
        request: &[u8],
        writable: bool,
        read_closed: bool,
    ) -> Result<Step, Lost> {
        if self.state == State::Connecting {
            if !writable {
                return Ok(Step::Wait);
            }
            match (self.stream.take_error(), self.stream.peer_addr()) {
                (Ok(None), Ok(_)) => self.state = State::Sending { sent: 0 },
                (Ok(None), Err(error)) if error.kind() == ErrorKind::NotConnected => {
                    return Ok(Step::Wait);
                }
                _ => return Err(Lost::Connect),
            }
        }
        if let State::Sending { sent } = self.state {
            self.state = self.send(request, sent)?;
        }
        self.receive(read_closed)
    }

    fn send(&mut self, request: &[u8], mut sent: usize) -> Result<State, Lost> {
        while sent < request.len() {
            match self.stream.write(&request[sent..]) {
                Ok(0) => return Err(self.closed()),
                Ok(bytes) => sent += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(State::Sending { sent });
                }
                Err(_) => return Err(self.closed()),
            }
        }
        Ok(State::Receiving)
    }

    fn receive(&mut self, read_closed: bool) -> Result<Step, Lost> {
        loop {
            if self.filled == self.buffer.len() {
                // Bounded by the parser, which refuses long heads and bodies.
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            let space = self.buffer.len() - self.filled;
            let bytes = match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(self.closed()),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Step::Wait),
                Err(_) => return Err(self.closed()),
            };
            self.filled += bytes;
            if let Some(head) = self
                .parser
                .advance(&self.buffer[..self.filled])
                .map_err(Lost::Malformed)?
            {
                return Ok(Step::Answered(head));
            }
            // A short read empties a stream socket (epoll(7)): asking again would only cost a call,
            // unless the end of the stream is what comes next.
            if bytes < space && !read_closed {
                return Ok(Step::Wait);
            }
        }
    }

    fn closed(&self) -> Lost {
        if self.filled == 0 && self.served > 0 {
            Lost::ClosedIdle
        } else {
            Lost::Closed
        }
    }

    /// The body of the response that [`Self::step`] told of.
    pub(crate) fn body(&self) -> &[u8] {
        self.parser.body(&self.buffer[..self.filled])
    }

    /// Forgets the response. False when the connection must not be used again, because the server
    /// answered before it was asked completely or sent more than its answer.
    pub(crate) fn finish_response(&mut self) -> bool {
        let clean = self.state == State::Receiving && self.parser.consumed() == self.filled;
        self.served += 1;
        self.filled = 0;
        self.parser.reset();
        clean
    }

    /// Sends the next request on a connection whose last response is finished. What the server
    /// answers is read at the next event, not before: it cannot be there yet.
    pub(crate) fn begin_request(&mut self, request: &[u8], deadline: Instant) -> Result<(), Lost> {
        self.deadline = deadline;
        self.state = self.send(request, 0)?;
        Ok(())
    }

    pub(crate) fn overdue(&self, now: Instant) -> Option<Lost> {
        if now < self.deadline {
            None
        } else if self.state == State::Connecting {
            Some(Lost::ConnectTimeout)
        } else {
            Some(Lost::AnswerTimeout)
        }
    }
}
