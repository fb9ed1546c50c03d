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

use crate::answer;
use crate::chars::has_member;
use crate::head::{Head, Version};
use crate::server::{Application, Connection, Error, Next, Server, Settings, Straight};
use gevent_hub_core::task;
use gevent_net::TcpListener;
use std::io::{self, IoSlice, Write};
use std::os::fd::AsRawFd;
use std::rc::Rc;

/// What a handler gives: an error ends the connection.
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
                let outcome = handler(&mut exchange).and_then(|()| exchange.finish());
                if outcome.is_err() {
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
    /// The head was sent; the body comes in chunks, or ends with the connection.
    Streaming {
        chunked: bool,
    },
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

    fn head(&mut self, status: u16, fields: &[(&str, &str)], length: Option<usize>) -> Vec<u8> {
        let is_11 = self.request.head.version == Version::Http11;
        let mut out = Vec::with_capacity(256);
        let phrase = crate::reject::phrase(status);
        let _ = write!(out, "HTTP/1.1 {status} {phrase}\r\n");
        for (name, value) in fields {
            let _ = write!(out, "{name}: {value}\r\n");
            if name.eq_ignore_ascii_case("connection") && has_member(value.as_bytes(), "close") {
                self.connection.must_close();
            }
        }
        match length {
            Some(n) if !matches!(status, 204 | 304) => {
                let _ = write!(out, "Content-Length: {n}\r\n");
            }
            None if is_11 => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            None => self.connection.must_close(),
            Some(_) => {}
        }
        let keeps = self.connection.keeps_alive();
        if !keeps {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if !is_11 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(&answer::http_date());
        out.extend_from_slice(b"\r\n\r\n");
        out
    }

    fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    /// Answers with a whole body.
    ///
    /// # Errors
    /// Of the connection.
    pub fn respond(&mut self, status: u16, fields: &[(&str, &str)], body: &[u8]) -> Outcome {
        let head = self.head(status, fields, Some(body.len()));
        self.state = State::Answered;
        let body = if self.is_head() || matches!(status, 204 | 304) {
            &[]
        } else {
            body
        };
        let pieces = [IoSlice::new(&head), IoSlice::new(body)];
        self.connection.write(&Straight, &pieces, false)
    }

    /// Begins an answer whose body comes by [`send`](Self::send).
    ///
    /// # Errors
    /// Of the connection.
    pub fn begin(&mut self, status: u16, fields: &[(&str, &str)]) -> Outcome {
        let head = self.head(status, fields, None);
        let chunked = self.request.head.version == Version::Http11;
        self.state = State::Streaming { chunked };
        self.connection
            .write(&Straight, &[IoSlice::new(&head)], false)
    }

    /// Sends a piece of the body. An empty one does nothing.
    ///
    /// # Errors
    /// Of the connection.
    pub fn send(&mut self, piece: &[u8]) -> Outcome {
        let State::Streaming { chunked } = self.state else {
            return Ok(());
        };
        if piece.is_empty() || self.is_head() {
            return Ok(());
        }
        if !chunked {
            return self
                .connection
                .write(&Straight, &[IoSlice::new(piece)], false);
        }
        let mut size = Vec::with_capacity(20);
        answer::chunk_size(&mut size, piece.len());
        let pieces = [
            IoSlice::new(&size),
            IoSlice::new(piece),
            IoSlice::new(b"\r\n"),
        ];
        self.connection.write(&Straight, &pieces, false)
    }

    fn finish(&mut self) -> Outcome {
        match self.state {
            State::Unanswered => self.respond(500, &[], b""),
            State::Streaming { chunked: true } if !self.is_head() => {
                self.state = State::Answered;
                self.connection
                    .write(&Straight, &[IoSlice::new(b"0\r\n\r\n")], false)
            }
            _ => Ok(()),
        }
    }
}
