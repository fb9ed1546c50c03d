//! A connection without a fiber, as the hub's own sees to it: it waits for a head, and throws away what nobody
//! reads.

use super::gathering::Gathering;
use super::io::after;
use super::{Application, Connection, Phase, Server};
use crate::head::Head;
use crate::reject::Reject;
use gevent_hub_core::event_loop::{Interest, Readiness};
use gevent_hub_core::reactor::{Entry, Nanos, Wake};
use std::rc::Rc;
use std::time::Duration;

/// A client that is to be closed is listened to as long as it sends this much in each stretch, up to
/// [`Settings::linger`](super::Settings::linger).
const STRETCH: Duration = Duration::from_secs(5);
const LEAST: u64 = 5 * 1024;
/// The same in all, when the server ends or so many clients are listened to already.
const HURRY: Duration = Duration::from_secs(2);
const MANY: usize = 1000;
/// Bytes that are thrown away before others have their turn.
const TURN: u64 = 256 * 1024;

impl<A: Application> Connection<A> {
    /// Has the server woken for `want`, or at once if that is ready.
    pub(super) fn listen(&self, want: Interest) {
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

    pub(super) fn stop_listening(&self) {
        if !self.waits.replace(Readiness::NONE).is_empty() {
            let token = self.server.token(self.key.get());
            self.server.reactor.source_unwait(self.source.get(), token);
        }
    }

    /// A call gave EAGAIN.
    pub(super) fn cannot(&self, want: Interest) {
        self.server.reactor.source_clear(self.source.get(), want);
    }

    pub(super) fn set_deadline(&self, timeout: Option<Duration>) {
        let now = self.server.reactor.now();
        self.set_deadline_at(after(now, timeout).unwrap_or(Nanos::MAX));
    }

    fn set_deadline_at(&self, deadline: Nanos) {
        let server = &self.server;
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
    pub(super) fn flush_or_wait(&self) -> bool {
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
        if self.may_go_on_sending(now) {
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
        let mut thrown_away = 0;
        loop {
            let phase = self.phase.get();
            if phase == Phase::Discarding && self.until.get() == 0 {
                self.limit_discarding();
            }
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
                let received = match phase {
                    // Nothing of it has to be understood.
                    Phase::Lingering => self.receive_bytes(&mut scratch),
                    _ => self.try_receive(&mut scratch),
                };
                if phase != Phase::Waiting
                    && let Ok(Some(n)) = received
                {
                    thrown_away += n as u64;
                }
                let outcome = match received {
                    Ok(Some(0)) | Err(_) => {
                        self.close();
                        Ok(None)
                    }
                    Ok(Some(n)) if phase == Phase::Lingering => {
                        self.heard.set(self.heard.get().saturating_add(n as u64));
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
                    if thrown_away >= TURN {
                        // A client may send as fast as it is listened to.
                        let token = server.token(self.key.get());
                        server.reactor.push(Entry::Wake(token, Wake::Ready));
                        break;
                    }
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

    pub(super) fn begin_waiting(&self, server: &Server<A>) {
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
    pub(super) fn next_head(
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
    pub(super) fn discard(&self) -> Result<bool, Reject> {
        self.inbound.with(|inbound| {
            loop {
                let n = inbound.body(usize::MAX, <[u8]>::len)?;
                if n == 0 || !inbound.in_body() {
                    return Ok(!inbound.in_body());
                }
            }
        })
    }

    /// Until when a client may send, at most, what is thrown away.
    fn limit(&self) -> Nanos {
        let server = &self.server;
        let settings = server.settings.get();
        let hurry = server.draining.get() || server.lingering.get() > MANY;
        let most = match settings.linger {
            Some(most) if !hurry => Some(most),
            Some(most) => Some(most.min(HURRY)),
            None => hurry.then_some(HURRY),
        };
        after(server.reactor.clock_now(), most).unwrap_or(Nanos::MAX)
    }

    /// The rest of a body that nobody reads is received from now on.
    pub(super) fn limit_discarding(&self) {
        let until = self.limit();
        self.until.set(until);
        self.set_deadline_at(until);
    }

    fn begin_stretch(&self, now: Nanos) {
        self.heard.set(0);
        let stretch = after(now, Some(STRETCH)).unwrap_or(Nanos::MAX);
        self.set_deadline_at(stretch.min(self.until.get()));
    }

    /// Whether a client that is to be closed has sent enough lately to be listened to further.
    fn may_go_on_sending(&self, now: Nanos) -> bool {
        let goes_on = self.phase.get() == Phase::Lingering
            && self.shut.get()
            && self.heard.get() >= LEAST
            && now < self.until.get();
        if goes_on {
            self.begin_stretch(now);
        }
        goes_on
    }

    /// The server ends: it listens no longer than it must to what it throws away.
    pub(super) fn hurry(&self) {
        match self.phase.get() {
            Phase::Discarding => self.linger(),
            Phase::Lingering if self.shut.get() => {
                let until = self.until.get().min(self.limit());
                self.until.set(until);
                self.set_deadline_at(until.min(self.deadline.get()));
            }
            _ => {}
        }
    }

    /// Answers by an error and closes.
    pub(super) fn refuse(self: &Rc<Self>, reject: Reject) {
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

    /// Sends what is left, says that nothing follows, and listens a while (RFC 9112 §9.6): to be closed while it
    /// sends is a reset for the client, which may lose an answer that it has not read.
    pub(super) fn linger(&self) {
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
        drop(self.tls.take());
        let lingering = &self.server.lingering;
        lingering.set(lingering.get() + 1);
        self.until.set(self.limit());
        self.begin_stretch(self.server.reactor.clock_now());
        self.listen(Readiness::READ);
    }
}
