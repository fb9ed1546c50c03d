//! [`Connection`]: one client. Without a fiber it waits for requests; while a request is answered it is
//! its fiber's.

use super::gathering::Gathering;
use super::io::{after, last_errno};
use super::tls::Tls;
use super::{Application, Peer, Server};
use crate::head::Head;
use crate::inbound::Inbound;
use crate::reject::Reject;
use gevent_hub_core::cell::LocalCell;
use gevent_hub_core::event_loop::{Interest, Key, Readiness};
use gevent_hub_core::reactor::{Entry, Kind, Nanos, SourceId, TimerKey, Wake};
use std::cell::Cell;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

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

/// What follows an answer.
pub enum Next<R> {
    /// Another request, of a pipeline.
    Request(R),
    /// Nothing: the connection was released, and is not the fiber's any more.
    Released,
}

/// How long, and for how many bytes, a client is listened to that is to be closed.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 256 * 1024;

/// One client's connection.
pub struct Connection<A: Application> {
    server: Rc<Server<A>>,
    key: Cell<Key>,
    fd: Cell<RawFd>,
    source: Cell<SourceId>,
    peer: Peer,
    phase: Cell<Phase>,
    /// What the source was told to wake the server for.
    waits: Cell<Interest>,
    pub(super) inbound: LocalCell<Inbound>,
    /// Of what was received, nobody has looked at all for a head.
    unseen: Cell<bool>,
    /// What is to be sent before anything else.
    pub(super) out: LocalCell<Vec<u8>>,
    /// The kernel was told to wait with a packet that is not full.
    pub(super) corked: Cell<bool>,
    /// The entry that flushes is in the queue.
    flushing: Cell<bool>,
    deadline: Cell<Nanos>,
    timer: Cell<Option<(TimerKey, Nanos)>>,
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
    keep_alive: Cell<bool>,
    /// This side has said that it sends nothing more.
    shut: Cell<bool>,
    /// Bytes that are still thrown away.
    budget: Cell<u64>,
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
            budget: Cell::new(0),
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

    /// Takes the bytes that were received and belong to no request: after an upgrade.
    pub fn take_rest(&self) -> Vec<u8> {
        self.inbound.with(Inbound::take_rest)
    }

    // ---- what the hub's fiber does --------------------------------------------------------------------

    /// Has the server woken for `want`, or at once if that is ready.
    fn listen(&self, want: Interest) {
        let server = &self.server;
        let token = server.token(self.key.get());
        if self.waits.get() == want {
            return;
        }
        if !self.waits.get().is_empty() {
            server.reactor.source_unwait(self.source.get(), token);
        }
        self.waits.set(Readiness::NONE);
        match server.reactor.source_wait(self.source.get(), want, token) {
            Ok(true) => self.waits.set(want),
            Ok(false) => server.reactor.push(Entry::Wake(token, Wake::Ready)),
            Err(_) => self.close(),
        }
    }

    fn stop_listening(&self) {
        if !self.waits.replace(Readiness::NONE).is_empty() {
            let token = self.server.token(self.key.get());
            self.server.reactor.source_unwait(self.source.get(), token);
        }
    }

    /// A call gave EAGAIN.
    pub(super) fn cannot(&self, want: Interest) {
        self.server.reactor.source_clear(self.source.get(), want);
    }

    fn set_deadline(&self, timeout: Option<Duration>) {
        let server = &self.server;
        let deadline = after(server.reactor.now(), timeout).unwrap_or(Nanos::MAX);
        self.deadline.set(deadline);
        if deadline == Nanos::MAX {
            return;
        }
        // A timer that is due earlier looks at the deadline then: a request costs none.
        match self.timer.get() {
            Some((_, due)) if due <= deadline => {}
            armed => {
                if let Some((timer, _)) = armed {
                    server.reactor.disarm(timer);
                }
                let token = server.token(self.key.get());
                let timer = server.reactor.arm(deadline, token);
                self.timer.set(Some((timer, deadline)));
            }
        }
    }

    pub(super) fn woken(self: &Rc<Self>, reason: Wake) {
        match reason {
            Wake::Timeout => {
                self.timer.set(None);
                self.time_is_over();
                return;
            }
            Wake::Event => {
                self.flushing.set(false);
                self.uncork();
                if self.phase.get() != Phase::Served {
                    // Whoever has brought it there has seen to what was held back.
                    return;
                }
            }
            _ => self.waits.set(Readiness::NONE),
        }
        match self.phase.get() {
            Phase::Closed => {}
            Phase::Served => self.send_held(),
            Phase::Lingering if !self.shut.get() => self.linger(),
            _ => {
                if self.flush_or_wait() {
                    self.go_on();
                }
            }
        }
    }

    /// Whether nothing is to be sent any more; else it waits for that.
    fn flush_or_wait(&self) -> bool {
        match self.try_flush() {
            Ok(true) => true,
            Ok(false) => {
                self.listen(Readiness::WRITE);
                false
            }
            Err(_) => {
                self.close();
                false
            }
        }
    }

    fn time_is_over(self: &Rc<Self>) {
        if matches!(self.phase.get(), Phase::Served | Phase::Closed) {
            return;
        }
        let server = &self.server;
        let now = server.reactor.now();
        if now < self.deadline.get() {
            if self.deadline.get() != Nanos::MAX {
                let timer = server
                    .reactor
                    .arm(self.deadline.get(), server.token(self.key.get()));
                self.timer.set(Some((timer, self.deadline.get())));
            }
            return;
        }
        let partial = self.phase.get() == Phase::Waiting
            && self.inbound.with(|inbound| !inbound.waiting().is_empty());
        if partial {
            self.refuse(Reject::new(408, "the head took too long"));
        } else {
            self.close();
        }
    }

    /// Receives and does what can be done with it.
    fn go_on(self: &Rc<Self>) {
        let server = &self.server;
        loop {
            let phase = self.phase.get();
            if phase == Phase::Waiting && server.app.is_full() {
                // It is not the client that is late now.
                self.deadline.set(Nanos::MAX);
                server.stall(self.key.get());
                return;
            }
            if phase == Phase::Waiting && self.deadline.get() == Nanos::MAX {
                // There is room again, and the client's time counts.
                self.begin_waiting(server);
            }
            let outcome = if self.unseen.replace(false) {
                self.next_head(server, &[]).map(Some)
            } else {
                let mut scratch = server.borrow_scratch();
                let outcome = match self.try_receive(&mut scratch) {
                    Ok(Some(0)) | Err(_) => {
                        self.close();
                        Ok(None)
                    }
                    Ok(Some(n)) if phase == Phase::Lingering => {
                        self.listened_to(n as u64);
                        Ok(Some(None))
                    }
                    Ok(Some(n)) => self.take(server, &scratch[..n]).map(Some),
                    Ok(None) => {
                        self.listen(self.want_read());
                        Ok(None)
                    }
                };
                server.give_back(scratch);
                outcome
            };
            match outcome {
                Ok(Some(Some(request))) => {
                    server.app.serve(self.clone(), request);
                    break;
                }
                Ok(Some(None)) if self.phase.get() != Phase::Closed => {
                    if !self.unseen.get() && !self.may_be_readable() && !self.has_plain() {
                        self.listen(self.want_read());
                        break;
                    }
                }
                Ok(_) => break,
                Err(reject) => {
                    self.refuse(reject);
                    break;
                }
            }
        }
        server.room();
    }

    /// Takes what was received; a request, if that makes one complete.
    fn take(
        self: &Rc<Self>,
        server: &Server<A>,
        fresh: &[u8],
    ) -> Result<Option<A::Request>, Reject> {
        if self.phase.get() != Phase::Discarding {
            return self.next_head(server, fresh);
        }
        self.inbound.with(|inbound| inbound.feed(fresh));
        if !self.discard()? {
            return Ok(None);
        }
        if !self.keeps_alive() {
            self.linger();
            return Ok(None);
        }
        self.begin_waiting(server);
        // Behind the body a request may be complete already. It is looked at when there is room for it.
        self.unseen.set(self.is_something_waiting());
        Ok(None)
    }

    fn begin_waiting(&self, server: &Server<A>) {
        self.phase.set(Phase::Waiting);
        let settings = server.settings.get();
        let partial = self.inbound.with(|inbound| !inbound.waiting().is_empty());
        self.set_deadline(if partial {
            settings.head_timeout
        } else {
            settings.idle_timeout
        });
    }

    /// Looks for a head in what waits and `fresh`, and has the application prepare the request.
    fn next_head(
        self: &Rc<Self>,
        server: &Server<A>,
        fresh: &[u8],
    ) -> Result<Option<A::Request>, Reject> {
        let rules = server.settings.get().rules;
        let mut head: Box<Head> = server.head.take().unwrap_or_default();
        // While the application prepares, which may run any code, nothing is borrowed.
        let mut inbound = self.inbound.take();
        let was_served = self.phase.replace(Phase::Served);
        let was_idle = inbound.is_idle();
        let found = inbound.head(fresh, &mut head, &rules, |head, bytes| {
            self.keep_alive.set(head.keep_alive);
            self.expects.set(head.expect_continue);
            self.number.set(self.number.get().wrapping_add(1));
            self.answered.set(false);
            self.gathering.set(Gathering::default());
            server.app.prepare(self, head, bytes)
        });
        server.head.with(|h| *h = Some(head));
        if self.phase.get() != Phase::Closed {
            self.inbound.with(|i| *i = inbound);
        }
        match found {
            Ok(Some(request)) => {
                server.requests.set(server.requests.get() + 1);
                Ok(Some(request))
            }
            Ok(None) => {
                if self.phase.get() == Phase::Served {
                    self.phase.set(was_served);
                }
                if was_idle && was_served == Phase::Waiting {
                    self.set_deadline(server.settings.get().head_timeout);
                }
                Ok(None)
            }
            Err(reject) => Err(reject),
        }
    }

    /// Throws bytes of the body away; whether it is over.
    fn discard(&self) -> Result<bool, Reject> {
        let thrown = self.inbound.with(|inbound| {
            let mut thrown = 0;
            loop {
                let n = inbound.body(usize::MAX, <[u8]>::len)?;
                thrown += n as u64;
                if n == 0 || !inbound.in_body() {
                    return Ok((thrown, !inbound.in_body()));
                }
            }
        });
        let (thrown, over) = thrown?;
        self.budget.set(self.budget.get().saturating_sub(thrown));
        if !over && self.budget.get() == 0 {
            self.linger();
            return Ok(false);
        }
        Ok(over)
    }

    fn listened_to(&self, n: u64) {
        self.budget.set(self.budget.get().saturating_sub(n));
        if self.budget.get() == 0 {
            self.close();
        }
    }

    /// Answers by an error and closes.
    fn refuse(self: &Rc<Self>, reject: Reject) {
        let server = &self.server;
        let discarding = self.phase.get() == Phase::Discarding;
        let line = self.inbound.with(|inbound| match discarding {
            true => Vec::new(),
            false => inbound.first_line().to_vec(),
        });
        server.app.refused(self, reject, &line);
        if self.phase.get() == Phase::Closed {
            return;
        }
        if self.phase.get() != Phase::Discarding {
            let answer = crate::answer::refusal(reject);
            if self.is_tls() {
                let _ = self.encrypt(&[std::io::IoSlice::new(&answer)]);
            } else {
                self.out.with(|out| out.extend_from_slice(&answer));
            }
        }
        self.linger();
    }

    /// Sends what is left, says that nothing follows, and listens a while.
    fn linger(&self) {
        if self.phase.get() == Phase::Closed {
            return;
        }
        self.phase.set(Phase::Lingering);
        self.close_tls();
        match self.try_flush() {
            Ok(true) => {}
            Ok(false) => {
                self.set_deadline(self.server().settings().write_timeout);
                self.listen(Readiness::WRITE);
                return;
            }
            Err(_) => return self.close(),
        }
        self.shut.set(true);
        // SAFETY: no memory is passed.
        if unsafe { libc::shutdown(self.fd.get(), libc::SHUT_WR) } < 0 {
            return self.close();
        }
        self.inbound.with(|inbound| drop(inbound.take_rest()));
        self.budget.set(LINGER_BYTES);
        self.set_deadline(Some(LINGER));
        self.listen(Readiness::READ);
    }

    // ---- what its fiber does ---------------------------------------------------------------------------

    /// After an answer: the next request of a pipeline, or the end of the fiber's part.
    pub fn next(self: &Rc<Self>) -> Next<A::Request> {
        match self.following() {
            Some(request) => Next::Request(request),
            None => Next::Released,
        }
    }

    fn is_something_waiting(&self) -> bool {
        self.inbound.with(|inbound| !inbound.waiting().is_empty())
    }

    /// The next request, if it was received already. Else the connection is given back: it waits for one, or
    /// closes.
    fn following(self: &Rc<Self>) -> Option<A::Request> {
        let server = &self.server;
        if self.phase.get() != Phase::Served {
            return None;
        }
        let unread = self.in_body();
        // A client that waits with its body is not told that it shall send it.
        let waits = unread && self.expects.get() && !self.is_something_waiting();
        if !self.keeps_alive() || waits {
            self.close_behind_answer(unread);
            return None;
        }
        if unread && !self.skip_body() {
            return None;
        }
        if self.is_something_waiting() {
            match self.next_head(server, &[]) {
                Ok(Some(request)) => return Some(request),
                Ok(None) => {}
                Err(reject) => {
                    self.refuse(reject);
                    return None;
                }
            }
        }
        self.uncork();
        self.begin_waiting(server);
        if self.flush_or_wait() {
            self.listen_again();
        }
        None
    }

    fn close_behind_answer(&self, unread: bool) {
        self.uncork();
        if unread || self.is_something_waiting() || self.may_be_readable() {
            return self.linger();
        }
        self.close_tls();
        match self.try_flush() {
            Ok(true) | Err(_) => self.close(),
            Ok(false) => self.linger(),
        }
    }

    /// Throws away what was received of a body that nobody has read. Whether that was all of it; else the rest
    /// is seen to without the fiber.
    fn skip_body(&self) -> bool {
        let settings = self.server.settings.get();
        self.uncork();
        self.budget.set(settings.discard);
        let left = self.inbound.with(|inbound| inbound.left());
        if left.is_some_and(|left| left > settings.discard) {
            self.linger();
            return false;
        }
        match self.discard() {
            Ok(true) => return true,
            Ok(false) if self.phase.get() != Phase::Served => {}
            Ok(false) => {
                self.phase.set(Phase::Discarding);
                self.set_deadline(settings.body_timeout);
                if self.flush_or_wait() {
                    self.listen_again();
                }
            }
            Err(reject) => {
                self.server.app.refused(self, reject, b"");
                self.linger();
            }
        }
        false
    }

    /// Waits for more, or goes on at once with what TLS has decrypted already.
    fn listen_again(&self) {
        if self.has_plain() {
            let token = self.server.token(self.key.get());
            self.server.reactor.push(Entry::Wake(token, Wake::Ready));
        } else {
            self.listen(Readiness::READ);
        }
    }

    /// Has what is held back sent when the fiber waits for something: before any other fiber runs.
    pub(super) fn flush_soon(&self) {
        if !self.flushing.replace(true) {
            let token = self.server.token(self.key.get());
            self.server
                .reactor
                .push_first(Entry::Wake(token, Wake::Event));
        }
    }

    /// Whether the fiber has not waited since then.
    pub(super) fn is_to_flush(&self) -> bool {
        self.flushing.get()
    }

    /// Sends what is held back as far as the client takes it, and has the rest sent when it does. An error is
    /// left to the next call of the fiber.
    pub fn send_held(&self) {
        self.uncork();
        if self.try_flush() == Ok(false) {
            self.listen(Readiness::WRITE);
        }
    }

    // ---- both ------------------------------------------------------------------------------------------

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

    fn may_be_readable(&self) -> bool {
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
