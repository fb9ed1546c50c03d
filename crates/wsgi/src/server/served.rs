//! A connection between two answers of its fiber: to the next request of a pipeline, or back to the hub.

use super::{Application, Connection, Phase};
use gevent_hub_core::event_loop::Readiness;
use gevent_hub_core::reactor::{Entry, Wake};
use std::rc::Rc;

/// What follows an answer.
pub enum Next<R> {
    /// Another request, of a pipeline.
    Request(R),
    /// Nothing: the connection was released, and is not the fiber's any more.
    Released,
}

impl<A: Application> Connection<A> {
    /// After an answer: the next request of a pipeline, or the end of the fiber's part.
    pub fn next(self: &Rc<Self>) -> Next<A::Request> {
        match self.following() {
            Some(request) => Next::Request(request),
            None => Next::Released,
        }
    }

    pub(super) fn is_something_waiting(&self) -> bool {
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
        if !self.keeps_alive() || self.waits_for_leave() {
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
        self.uncork();
        match self.discard() {
            Ok(true) => return true,
            Ok(false) => {
                self.phase.set(Phase::Discarding);
                // The client takes the answer first.
                self.until.set(0);
                self.set_deadline(self.server.settings.get().write_timeout);
                if self.flush_or_wait() {
                    self.limit_discarding();
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
}
