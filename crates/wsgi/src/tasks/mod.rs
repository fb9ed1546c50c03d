//! The server for Rust programs: a function answers each request in a task of its own.
//!
//! ```
//! use gevent_hub_core::task;
//! use gevent_loop_epoll::EpollLoop;
//! use gevent_net::{TcpListener, TcpStream};
//! use gevent_wsgi::tasks::{self, Exchange};
//! use std::io::{Read, Write};
//!
//! let answer = task::run(Box::new(EpollLoop::new()?), || -> std::io::Result<String> {
//!     let listener = TcpListener::bind("127.0.0.1:0")?;
//!     let at = listener.local_addr()?;
//!     let server = tasks::serve(listener, Default::default(), |exchange: &mut Exchange<'_>| {
//!         let body = format!("you asked for {}", String::from_utf8_lossy(exchange.path()));
//!         exchange.respond(200, &[("Content-Type", "text/plain")], body.as_bytes())
//!     })?;
//!     let mut client = TcpStream::connect(at)?;
//!     client.write_all(b"GET /this HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
//!     let mut answer = String::new();
//!     client.read_to_string(&mut answer)?;
//!     server.drain();
//!     Ok(answer)
//! })??;
//! assert!(answer.ends_with("you asked for /this"));
//! # Ok::<(), std::io::Error>(())
//! ```

mod response;
#[cfg(test)]
mod tests;

use crate::answer;
use crate::head::{Head, Version};
use crate::server::{Application, Connection, Error, Next, Server, Settings, Straight};
use gevent_hub_core::task;
use gevent_net::TcpListener;
use response::{Circumstances, Framing, ResponseHead};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// What a handler returns. The client gets a 500 for [`Error::Response`], and for a panic of the handler, if its
/// response has not begun; any other error, or one in the middle of a response, closes the connection.
pub type Outcome = Result<(), Error>;

/// The function that answers.
type Handler = Rc<dyn Fn(&mut Exchange<'_>) -> Outcome>;

/// The application that starts a task for each connection with a request.
pub struct Tasks {
    handler: Handler,
    /// Closed when the server goes.
    _listener: TcpListener,
}

/// A request head that was kept.
pub struct Request {
    head: Head,
    bytes: Vec<u8>,
}

impl Application for Tasks {
    type Request = Request;

    fn prepare(&self, _: &Rc<Connection<Self>>, head: &Head, bytes: &[u8]) -> Request {
        Request {
            head: head.clone(),
            bytes: bytes.to_vec(),
        }
    }

    fn serve(&self, connection: Rc<Connection<Self>>, request: Request) {
        let handler = self.handler.clone();
        drop(task::spawn(move || {
            let mut request = request;
            loop {
                let mut exchange = Exchange {
                    connection: &connection,
                    request,
                    state: State::Unanswered,
                };
                let outcome = catch_unwind(AssertUnwindSafe(|| handler(&mut exchange)));
                if !exchange.complete(outcome.ok()) {
                    connection.close();
                    return;
                }
                match connection.next() {
                    Next::Request(next) => request = next,
                    Next::Released => return,
                }
            }
        }));
    }
}

/// Serves what `listener` accepts, on the running task's hub.
///
/// # Errors
/// Of the loop.
pub fn serve(
    listener: TcpListener,
    settings: Settings,
    handler: impl Fn(&mut Exchange<'_>) -> Outcome + 'static,
) -> io::Result<Rc<Server<Tasks>>> {
    let fd = listener.as_raw_fd();
    let app = Tasks {
        handler: Rc::new(handler),
        _listener: listener,
    };
    let server = Server::new(app, settings);
    server.accept_from(fd)?;
    Ok(server)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unanswered,
    /// The head was sent; the body follows.
    Streaming(Framing),
    Answered,
}

/// One request and its answer.
pub struct Exchange<'c> {
    connection: &'c Rc<Connection<Tasks>>,
    request: Request,
    state: State,
}

impl Exchange<'_> {
    /// The method.
    pub fn method(&self) -> &[u8] {
        self.request.head.method.of(&self.request.bytes)
    }

    /// The path, still quoted.
    pub fn path(&self) -> &[u8] {
        self.request.head.path(&self.request.bytes).0
    }

    /// The query, without its question mark.
    pub fn query(&self) -> &[u8] {
        self.request.head.path(&self.request.bytes).1
    }

    /// The value of the first field of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let bytes = &self.request.bytes;
        let fields = &self.request.head.fields;
        let found = fields
            .iter()
            .find(|field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()))?;
        Some(found.value.of(bytes))
    }

    /// Reads bytes of the body; 0 is its end.
    ///
    /// # Errors
    /// Of the connection.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        self.connection.read(&Straight, buf)
    }

    /// Reads the rest of the body.
    ///
    /// # Errors
    /// Of the connection.
    pub fn read_all(&mut self) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        let mut buf = [0; 8192];
        loop {
            match self.read(&mut buf)? {
                0 => return Ok(body),
                n => body.extend_from_slice(&buf[..n]),
            }
        }
    }

    fn head(
        &self,
        status: u16,
        fields: &[(&str, &str)],
        length: Option<usize>,
    ) -> Result<ResponseHead, Error> {
        if self.state != State::Unanswered {
            return Err(Error::Response("the response has begun already"));
        }
        let around = Circumstances {
            is_11: self.request.head.version == Version::Http11,
            is_head: response::is_head(self.method()),
            keeps_alive: self.connection.keeps_alive() && !self.connection.waits_for_leave(),
        };
        let head = ResponseHead::new(around, status, fields, length)?;
        if head.closes {
            self.connection.must_close();
        }
        Ok(head)
    }

    fn write(&self, pieces: &[&[u8]]) -> Outcome {
        let mut slices = [IoSlice::new(&[]); 3];
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
        }
        self.connection
            .write(&Straight, &slices[..pieces.len()], false)
    }

    /// Responds with a whole body, whose length becomes the Content-Length. To HEAD, and with 204 and 304, no body
    /// is sent.
    ///
    /// # Errors
    /// [`Error::Response`] if the response has begun already, if `status` is not from 200 to 999, or if a field is
    /// not allowed: a name that is no token, CR, LF or NUL in a value, a Transfer-Encoding, a Content-Length that
    /// differs. Otherwise those of the connection.
    pub fn respond(&mut self, status: u16, fields: &[(&str, &str)], body: &[u8]) -> Outcome {
        let head = self.head(status, fields, Some(body.len()))?;
        self.state = State::Answered;
        if head.framing == Framing::Bodiless {
            self.write(&[&head.bytes])
        } else {
            self.write(&[&head.bytes, body])
        }
    }

    /// Begins a response whose body comes by [`send`](Self::send): of the length that a Content-Length among
    /// `fields` says, or of any.
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub fn begin(&mut self, status: u16, fields: &[(&str, &str)]) -> Outcome {
        let head = self.head(status, fields, None)?;
        self.state = State::Streaming(head.framing);
        self.write(&[&head.bytes])
    }

    /// Sends a piece of the body. An empty one does nothing, and neither does any to HEAD or with 204 or 304.
    ///
    /// # Errors
    /// [`Error::Response`] if no response was [begun](Self::begin), or for more than its Content-Length. Otherwise
    /// those of the connection.
    pub fn send(&mut self, piece: &[u8]) -> Outcome {
        let State::Streaming(framing) = &mut self.state else {
            return Err(Error::Response("no response was begun that has a body"));
        };
        if piece.is_empty() {
            return Ok(());
        }
        match framing {
            Framing::Bodiless => Ok(()),
            Framing::UntilClose => self.write(&[piece]),
            Framing::Length(left) => {
                *left = left
                    .checked_sub(piece.len() as u64)
                    .ok_or(Error::Response("more bytes than the Content-Length"))?;
                self.write(&[piece])
            }
            Framing::Chunked => {
                let mut size = Vec::with_capacity(20);
                answer::chunk_size(&mut size, piece.len());
                self.write(&[&size, piece, b"\r\n"])
            }
        }
    }

    /// Ends the response after the handler returned `outcome`, or panicked: `None`. False: it cannot be ended, and
    /// the client must see that by the end of the connection.
    fn complete(&mut self, outcome: Option<Outcome>) -> bool {
        let finished = match outcome {
            Some(Ok(())) => self.finish(),
            Some(Err(Error::Response(_))) | None if self.state == State::Unanswered => {
                self.connection.must_close();
                self.finish()
            }
            // The response is out as a whole; what failed came after it.
            Some(Err(Error::Response(_))) | None if self.state == State::Answered => {
                self.connection.must_close();
                Ok(())
            }
            _ => return false,
        };
        finished.is_ok()
    }

    fn finish(&mut self) -> Outcome {
        match self.state {
            State::Unanswered => self.respond(500, &[], b""),
            State::Streaming(Framing::Chunked) => {
                self.state = State::Answered;
                self.write(&[b"0\r\n\r\n"])
            }
            State::Streaming(Framing::Length(1..)) => {
                Err(Error::Response("fewer bytes than the Content-Length"))
            }
            State::Streaming(_) | State::Answered => Ok(()),
        }
    }
}
