//! [`Connection`]: one client, from its beginning to its end. Without a fiber it waits for requests
//! (`attended`); while a request is answered it is its fiber's (`io`, `served`).

use super::gathering::Gathering;
use super::io::last_errno;
use super::tls::Tls;
use super::{Application, Peer, Server};
use crate::inbound::Inbound;
use gevent_hub_core::cell::LocalCell;
use gevent_hub_core::event_loop::{Interest, Key, Readiness};
use gevent_hub_core::reactor::{Kind, Nanos, SourceId, TimerKey};
use std::cell::Cell;
use std::os::fd::RawFd;
use std::rc::Rc;

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It waits for a head; no fiber has to do with it.
    Waiting,
    /// A fiber serves it.
    Served,
    /// It throws away the rest of a body that nobody has read.
    Discarding,
    /// All is said; what the client still sends is thrown away for a while, so that the answer reaches it.
    Lingering,
    /// It is over.
    Closed,
}

/// One client's connection.
pub struct Connection<A: Application> {
    pub(super) server: Rc<Server<A>>,
    pub(super) key: Cell<Key>,
    pub(super) fd: Cell<RawFd>,
    pub(super) source: Cell<SourceId>,
    pub(super) peer: Peer,
    pub(super) phase: Cell<Phase>,
    /// What the source was told to wake the server for.
    pub(super) waits: Cell<Interest>,
    pub(super) inbound: LocalCell<Inbound>,
    /// Of what was received, nobody has looked at all for a head.
    pub(super) unseen: Cell<bool>,
    /// What is to be sent before anything else.
    pub(super) out: LocalCell<Vec<u8>>,
    /// The kernel was told to wait with a packet that is not full.
    pub(super) corked: Cell<bool>,
    /// The entry that flushes is in the queue.
    pub(super) flushing: Cell<bool>,
    pub(super) deadline: Cell<Nanos>,
    pub(super) timer: Cell<Option<(TimerKey, Nanos)>>,
    /// The client waits for `100 Continue`.
    pub(super) expects: Cell<bool>,
    /// Of the request that is served; it may begin anew.
    pub(super) number: Cell<u32>,
    /// An answer to this request was begun.
    pub(super) answered: Cell<bool>,
    pub(super) gathering: Cell<Gathering>,
    /// Its answer is in the server's outbox.
    pub(super) gathered: Cell<bool>,
    pub(super) framing: Cell<u8>,
    pub(super) keep_alive: Cell<bool>,
    /// This side has said that it sends nothing more.
    pub(super) shut: Cell<bool>,
    /// Bytes that were thrown away in this stretch of time.
    pub(super) heard: Cell<u64>,
    /// Until when at most bytes are thrown away; 0 when that has yet to be settled.
    pub(super) until: Cell<Nanos>,
    pub(super) secure: bool,
    pub(super) tls: LocalCell<Option<Box<Tls>>>,
}

impl<A: Application> Connection<A> {
    /// Takes over an accepted descriptor.
    pub(super) fn begin(server: &Server<A>, fd: RawFd, peer: Peer) {
        let tls = match server.tls_session() {
            Ok(session) => session.map(|session| Box::new(Tls::new(session))),
            Err(()) => {
                // SAFETY: nobody else has the descriptor.
                unsafe { libc::close(fd) };
                return;
            }
        };
        let connection = Rc::new(Connection {
            server: server.me.upgrade().expect("a server that accepts is alive"),
            key: Cell::new(Key(0)),
            fd: Cell::new(fd),
            source: Cell::new(server.reactor.source(fd)),
            peer,
            phase: Cell::new(Phase::Waiting),
            waits: Cell::new(Readiness::NONE),
            inbound: LocalCell::default(),
            unseen: Cell::new(false),
            out: LocalCell::default(),
            corked: Cell::new(false),
            flushing: Cell::new(false),
            deadline: Cell::new(Nanos::MAX),
            timer: Cell::new(None),
            expects: Cell::new(false),
            number: Cell::new(0),
            answered: Cell::new(false),
            gathering: Cell::default(),
            gathered: Cell::new(false),
            framing: Cell::new(0),
            keep_alive: Cell::new(true),
            shut: Cell::new(false),
            heard: Cell::new(0),
            until: Cell::new(0),
            secure: tls.is_some(),
            tls: LocalCell::new(tls),
        });
        let key = server.connections.with(|c| c.insert(connection.clone()));
        connection.key.set(key);
        if key.index() >= super::LISTENER {
            // More than the tokens can tell apart.
            connection.close();
            return;
        }
        connection.set_deadline(server.settings.get().idle_timeout);
        // Mostly nothing is there yet: to ask the loop is cheaper than to try.
        connection.cannot(Readiness::READ);
        connection.listen(Readiness::READ);
    }

    /// The server.
    pub fn server(&self) -> &Rc<Server<A>> {
        &self.server
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What it does.
    #[inline]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Its descriptor; -1 when it is closed.
    #[inline]
    pub fn fd(&self) -> RawFd {
        self.fd.get()
    }

    pub(super) fn source(&self) -> SourceId {
        self.source.get()
    }

    /// Whether bytes of a further request were received.
    pub fn has_more(&self) -> bool {
        self.inbound
            .with(|inbound| !inbound.waiting().is_empty() && !inbound.in_body())
    }

    /// Whether the body of the request was not read to its end.
    pub fn in_body(&self) -> bool {
        self.inbound.with(|inbound| inbound.in_body())
    }

    /// The connection closes after this answer, whatever the client asked for.
    pub fn must_close(&self) {
        self.keep_alive.set(false);
    }

    /// Whether it carries another request after this one.
    pub fn keeps_alive(&self) -> bool {
        self.keep_alive.get() && !self.server.draining.get()
    }

    /// Whether the client still waits for leave to send the body, of which nothing has come. When it is answered
    /// without, nobody can tell the body from its next request: the connection has to close.
    pub fn waits_for_leave(&self) -> bool {
        self.expects.get() && self.in_body() && !self.is_something_waiting()
    }

    /// Takes the bytes that were received and belong to no request: after an upgrade.
    pub fn take_rest(&self) -> Vec<u8> {
        self.inbound.with(Inbound::take_rest)
    }

    /// Receives plain bytes into `buf`; `None` when there is nothing now, `Some(0)` at the end.
    #[inline]
    pub(super) fn try_receive(&self, buf: &mut [u8]) -> Result<Option<usize>, i32> {
        if self.is_tls() {
            self.try_receive_tls(buf)
        } else {
            self.receive_bytes(buf)
        }
    }

    /// recv(2), with results as of `try_receive`.
    pub(super) fn receive_bytes(&self, buf: &mut [u8]) -> Result<Option<usize>, i32> {
        loop {
            // SAFETY: `buf` is writable for its length and outlives the call.
            let n = unsafe { libc::recv(self.fd.get(), buf.as_mut_ptr().cast(), buf.len(), 0) };
            if n >= 0 {
                let n = n as usize;
                let kind = match self.peer {
                    Peer::Local => Kind::UnixStream,
                    _ => Kind::InetStream,
                };
                let reactor = &self.server.reactor;
                reactor.source_was_read(self.source.get(), kind, n, buf.len());
                return Ok(Some(n));
            }
            match last_errno() {
                libc::EINTR => {}
                libc::EAGAIN => {
                    self.cannot(Readiness::READ);
                    return Ok(None);
                }
                errno => return Err(errno),
            }
        }
    }

    pub(super) fn may_be_readable(&self) -> bool {
        self.server.reactor.source_may_read(self.source.get())
    }

    pub(super) fn close_if_idle(&self) {
        let idle = self.phase.get() == Phase::Waiting && self.inbound.with(|i| i.is_idle());
        if idle {
            self.close_tls();
            let _ = self.try_flush();
            self.close();
        }
    }

    /// Closes it, unless a fiber serves it: then it closes after the answer.
    pub(super) fn abandon(&self) {
        match self.phase.get() {
            Phase::Served => self.must_close(),
            _ => self.close(),
        }
    }

    /// Gives the descriptor away, with whatever was received and [not taken](Self::take_rest) lost: the
    /// connection is over for the server.
    pub fn detach(&self) -> RawFd {
        let fd = self.fd.get();
        self.end(false);
        fd
    }

    /// Closes it now. A fiber that serves it gets errors from then on.
    pub fn close(&self) {
        self.end(true);
    }

    fn end(&self, close: bool) {
        if self.phase.replace(Phase::Closed) == Phase::Closed {
            return;
        }
        let server = &self.server;
        if self.shut.get() {
            server.lingering.set(server.lingering.get() - 1);
        }
        self.forget_gathered();
        self.stop_listening();
        if let Some((timer, _)) = self.timer.take() {
            server.reactor.disarm(timer);
        }
        let fd = self.fd.replace(-1);
        if close {
            server.reactor.source_closing(self.source.get());
            // SAFETY: the descriptor is this connection's own, and no one uses it afterwards.
            unsafe { libc::close(fd) };
        } else {
            server.reactor.source_detach(self.source.get());
        }
        drop(self.inbound.take());
        drop(self.out.take());
        drop(self.tls.take());
        drop(server.connections.with(|c| c.remove(self.key.get())));
        server.look_whether_over();
    }
}
