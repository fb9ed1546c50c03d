//! What a fiber that serves a connection does with it: receive, send, wait.

use super::{Application, Connection, Phase};
use crate::reject::Reject;
use gevent_hub_core::event_loop::{Interest, Readiness};
use gevent_hub_core::hub::{Hub, Interrupted, Park};
use gevent_hub_core::os;
use gevent_hub_core::reactor::{Nanos, Wake};
use std::fmt;
use std::io::IoSlice;
use std::os::fd::RawFd;
use std::time::Duration;

/// Why a call of a fiber on its connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The system call failed with this errno.
    Os(i32),
    /// The client was too slow.
    TimedOut,
    /// The connection was closed meanwhile.
    Closed,
    /// The client has sent its end in the middle of a body.
    Eof,
    /// The client has sent something that is no body.
    Reject(Reject),
    /// What the server's own handler wanted to send is no response.
    Response(&'static str),
    /// Something other than a wake ended the wait.
    Interrupted(Interrupted),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Os(errno) => std::io::Error::from_raw_os_error(*errno).fmt(f),
            Error::TimedOut => f.write_str("timed out"),
            Error::Closed => f.write_str("the connection was closed"),
            Error::Eof => f.write_str("unexpected end of file"),
            Error::Reject(reject) => reject.fmt(f),
            Error::Response(why) => f.write_str(why),
            Error::Interrupted(i) => i.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// How a fiber parks: what the embedder of the hub has to do beside it.
pub trait Parker {
    /// Parks until a wake.
    ///
    /// # Errors
    /// [`Interrupted`].
    fn park(&self, park: Park<'_>, deadline: Option<Nanos>) -> Result<Wake, Interrupted>;
}

/// Parks and does nothing beside it: for tasks of a Rust program.
#[derive(Debug, Clone, Copy, Default)]
pub struct Straight;

impl Parker for Straight {
    fn park(&self, park: Park<'_>, deadline: Option<Nanos>) -> Result<Wake, Interrupted> {
        park.wait(deadline)
    }
}

/// `timeout` from now.
pub(super) fn after(now: Nanos, timeout: Option<Duration>) -> Option<Nanos> {
    let nanos = u64::try_from(timeout?.as_nanos()).unwrap_or(u64::MAX);
    Some(now.saturating_add(nanos))
}

pub(super) fn last_errno() -> i32 {
    std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

/// Answers to pipelined requests are held back up to so many bytes.
const COALESCE: usize = 64 * 1024;
#[cfg(any(target_os = "linux", target_os = "android"))]
use libc::MSG_MORE;
/// Elsewhere each piece goes at once.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const MSG_MORE: i32 = 0;
/// Up to here it is cheaper to copy than to gather.
const COPY: usize = 8 * 1024;

impl<A: Application> Connection<A> {
    fn wait(
        &self,
        parker: &dyn Parker,
        want: Interest,
        timeout: Option<Duration>,
    ) -> Result<(), Error> {
        if self.phase() == Phase::Closed {
            return Err(Error::Closed);
        }
        Hub::with(|hub| {
            let hub = hub.ok_or(Error::Closed)?;
            // The embedder may let go of the hub while this waits.
            let reactor = hub.reactor().clone();
            let park = hub.prepare();
            let token = park.token();
            let source = self.source();
            let waits = reactor
                .source_wait(source, want, token)
                .map_err(|e| Error::Os(e.raw_os_error().unwrap_or(libc::EIO)))?;
            if !waits {
                return Ok(());
            }
            let outcome = parker.park(park, after(reactor.clock_now(), timeout));
            match outcome {
                Ok(Wake::Ready) => return Ok(()),
                Ok(Wake::Closed) => return Err(Error::Closed),
                _ => reactor.source_unwait(source, token),
            }
            match outcome {
                Ok(Wake::Timeout) => Err(Error::TimedOut),
                Ok(_) => Ok(()),
                Err(interrupted) => Err(Error::Interrupted(interrupted)),
            }
        })
    }

    fn body_timeout(&self) -> Option<Duration> {
        self.server().settings().body_timeout
    }

    /// Receives what is there, or waits for it. 0 is the end.
    fn receive(&self, parker: &dyn Parker, buf: &mut [u8]) -> Result<usize, Error> {
        loop {
            match self.try_receive(buf) {
                Ok(Some(n)) => return Ok(n),
                Ok(None) => self.wait(parker, Readiness::READ, self.body_timeout())?,
                Err(errno) => return Err(Error::Os(errno)),
            }
        }
    }

    /// Reads bytes of the body of the request that is served: as many as `buf` takes, and waits only when
    /// there are none. 0 is the end of the body. The first call that finds none answers an expectation.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(&self, parker: &dyn Parker, buf: &mut [u8]) -> Result<usize, Error> {
        if buf.is_empty() {
            return Ok(0);
        }
        let request = self.number.get();
        self.send_continue(parker)?;
        loop {
            if self.number.get() != request {
                // The request was answered meanwhile by another fiber, and this is the body of the next.
                return Err(Error::Closed);
            }
            let (got, over) = self
                .inbound
                .with(|inbound| {
                    let most = buf.len();
                    let got = inbound.body(most, |bytes| {
                        buf[..bytes.len()].copy_from_slice(bytes);
                        bytes.len()
                    });
                    got.map(|got| (got, !inbound.in_body()))
                })
                .map_err(|reject| self.spoilt(reject))?;
            if got > 0 || over {
                return Ok(got);
            }
            let direct = self.inbound.with(|inbound| inbound.direct());
            let received = if direct >= COPY as u64 && buf.len() >= COPY && !self.is_tls() {
                let most = usize::try_from(direct).unwrap_or(usize::MAX).min(buf.len());
                match self.try_receive(&mut buf[..most]) {
                    Ok(Some(n @ 1..)) => {
                        self.inbound.with(|inbound| inbound.advance(n as u64));
                        return Ok(n);
                    }
                    other => other,
                }
            } else {
                let server = self.server();
                let mut scratch = server.borrow_scratch();
                let received = self.try_receive(&mut scratch);
                if let Ok(Some(n)) = received {
                    self.inbound.with(|inbound| inbound.feed(&scratch[..n]));
                }
                server.give_back(scratch);
                received
            };
            match received {
                Ok(Some(1..)) => {}
                Ok(Some(0)) => return Err(self.ended()),
                // After a wait it is looked anew at what may be read: another fiber may have read some of it.
                Ok(None) => self.wait(parker, Readiness::READ, self.body_timeout())?,
                Err(errno) => return Err(Error::Os(errno)),
            }
        }
    }

    /// Reads bytes that are no HTTP any more, after an upgrade. 0 is the end.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read_raw(&self, parker: &dyn Parker, buf: &mut [u8]) -> Result<usize, Error> {
        let waiting = self.inbound.with(|inbound| {
            let n = inbound.waiting().len().min(buf.len());
            buf[..n].copy_from_slice(&inbound.waiting()[..n]);
            inbound.consume(n);
            n
        });
        if waiting > 0 || buf.is_empty() {
            return Ok(waiting);
        }
        self.receive(parker, buf)
    }

    fn spoilt(&self, reject: Reject) -> Error {
        self.must_close();
        Error::Reject(reject)
    }

    fn ended(&self) -> Error {
        self.must_close();
        Error::Eof
    }

    /// Tells a client that waits with its body to send it, once, unless the answer has begun.
    fn send_continue(&self, parker: &dyn Parker) -> Result<(), Error> {
        if !self.expects.replace(false) || self.answered.get() {
            return Ok(());
        }
        let go_on = IoSlice::new(b"HTTP/1.1 100 Continue\r\n\r\n");
        self.write(parker, &[go_on], false)?;
        self.answered.set(false);
        self.flush(parker)
    }

    /// Sends all of `pieces`, and waits while the client takes no more. While further requests of a pipeline
    /// are there it holds small ones back; they go at the latest when the fiber waits for something.
    ///
    /// `more`: another piece follows, and nothing but sending is done until then. Small ones are held back as
    /// above, and of large ones the kernel may wait with a packet that is not full.
    ///
    /// # Errors
    /// [`Error`]; the connection is of no use then.
    pub fn write(
        &self,
        parker: &dyn Parker,
        pieces: &[IoSlice<'_>],
        more: bool,
    ) -> Result<(), Error> {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let hold = self.has_more() || more && length <= COPY;
        self.put(parker, pieces, length, hold, more)
    }

    /// As [`write`](Self::write), for a block of a body whose next one, or end, the application has yet to make.
    /// It goes at once, or waits for that if it will not be long.
    ///
    /// # Errors
    /// As `write`; also what befell blocks before this one.
    pub fn write_block(&self, parker: &dyn Parker, pieces: &[IoSlice<'_>]) -> Result<(), Error> {
        let server = self.server();
        let length = pieces.iter().map(|piece| piece.len()).sum();
        self.fetch_gathered();
        let holding = self.is_holding();
        let now = server.reactor.clock_now();
        let mut gathering = self.gathering.get();
        let mut cork = false;
        if gathering.is_first() {
            cork = length <= COPY && server.trust.get().is_earned();
            // Tells also whether the fiber has waited when the next block comes.
            self.flush_soon();
        } else if let Some(gap) = gathering.second(now)
            && self.is_to_flush()
        {
            server.trust.set(server.trust.get().after(gap));
        }
        let hold = gathering.may_hold(now, holding) && length <= COPY;
        self.put(parker, pieces, length, hold, cork)?;
        if self.is_holding() {
            gathering.held(now, holding);
        } else {
            gathering.sent(server.reactor.clock_now());
        }
        self.gathering.set(gathering);
        Ok(())
    }

    /// Whether something was held back.
    pub fn is_holding(&self) -> bool {
        self.gathered.get() || self.out.with(|out| !out.is_empty())
    }

    /// Holds `pieces` back, unless that becomes too much, or sends them behind what was.
    fn put(
        &self,
        parker: &dyn Parker,
        pieces: &[IoSlice<'_>],
        length: usize,
        hold: bool,
        more: bool,
    ) -> Result<(), Error> {
        self.answered.set(true);
        self.fetch_gathered();
        if self.is_tls() {
            return self.put_encrypted(parker, pieces, hold, more);
        }
        let held = self.out.with(|out| out.len());
        if hold && held + length <= COALESCE {
            self.hold_back(pieces);
            self.flush_soon();
            return Ok(());
        }
        if more {
            self.flush_soon();
        }
        if held > 0 && length <= COPY {
            self.hold_back(pieces);
            self.corked.set(more);
            return self.flush(parker);
        }
        if held > 0 {
            self.corked.set(length > 0);
            self.flush(parker)?;
        }
        self.corked.set(more);
        self.send_all(parker, pieces, length)
    }

    fn put_encrypted(
        &self,
        parker: &dyn Parker,
        pieces: &[IoSlice<'_>],
        hold: bool,
        more: bool,
    ) -> Result<(), Error> {
        self.encrypt(pieces)?;
        self.corked.set(more);
        if hold || more {
            self.flush_soon();
        }
        if hold {
            return self.flush_beyond(parker, COALESCE);
        }
        self.flush(parker)
    }

    fn hold_back(&self, pieces: &[IoSlice<'_>]) {
        self.out
            .with(|out| pieces.iter().for_each(|p| out.extend_from_slice(p)));
    }

    /// Sends what was held back if it is more than so many bytes.
    fn flush_beyond(&self, parker: &dyn Parker, most: usize) -> Result<(), Error> {
        self.take_tls_output();
        if self.out.with(|out| out.len()) > most {
            return self.flush(parker);
        }
        Ok(())
    }

    /// Sends what was held back.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn flush(&self, parker: &dyn Parker) -> Result<(), Error> {
        self.until_written(parker, || self.try_flush())
    }

    fn send_all(
        &self,
        parker: &dyn Parker,
        pieces: &[IoSlice<'_>],
        length: usize,
    ) -> Result<(), Error> {
        let mut sent = 0;
        self.until_written(parker, || {
            while sent < length {
                match self.try_send(pieces, sent)? {
                    Some(n) => sent += n,
                    None => return Ok(false),
                }
            }
            Ok(true)
        })
    }

    /// Waits for the client, and for `attempt` to say that all is written.
    fn until_written(
        &self,
        parker: &dyn Parker,
        mut attempt: impl FnMut() -> Result<bool, i32>,
    ) -> Result<(), Error> {
        let timeout = self.server().settings().write_timeout;
        let failure = loop {
            match attempt() {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    if let Err(e) = self.wait(parker, Readiness::WRITE, timeout) {
                        break e;
                    }
                }
                Err(errno) => break Error::Os(errno),
            }
        };
        self.must_close();
        Err(failure)
    }

    /// One sendmsg(2) of what is behind the first `skip` bytes; `None` when the client takes nothing now.
    fn try_send(&self, pieces: &[IoSlice<'_>], mut skip: usize) -> Result<Option<usize>, i32> {
        const MOST: usize = 16;
        let mut rest = [IoSlice::new(&[]); MOST];
        let mut n = 0;
        for piece in pieces {
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            if n == MOST {
                break;
            }
            rest[n] = IoSlice::new(&piece[skip..]);
            skip = 0;
            n += 1;
        }
        self.sendmsg(&rest[..n])
    }

    pub(super) fn sendmsg(&self, pieces: &[IoSlice<'_>]) -> Result<Option<usize>, i32> {
        let fd = self.fd();
        let more = if self.corked.get() { MSG_MORE } else { 0 };
        loop {
            let rc = match pieces {
                [one] => {
                    // SAFETY: the piece is readable for its length and outlives the call.
                    unsafe { libc::send(fd, one.as_ptr().cast(), one.len(), os::NO_SIGNAL | more) }
                }
                _ => {
                    // SAFETY: a `msghdr` is numbers and null pointers, for which zeros are valid.
                    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
                    msg.msg_iov = pieces.as_ptr().cast_mut().cast();
                    msg.msg_iovlen = pieces.len() as _;
                    // SAFETY: `IoSlice` has the layout of `iovec`, which the kernel only reads.
                    unsafe { libc::sendmsg(fd, &msg, os::NO_SIGNAL | more) }
                }
            };
            if rc >= 0 {
                return Ok(Some(rc as usize));
            }
            match last_errno() {
                libc::EINTR => {}
                libc::EAGAIN => {
                    self.cannot(Readiness::WRITE);
                    return Ok(None);
                }
                errno => return Err(errno),
            }
        }
    }

    /// Has the kernel send a packet that it was told to wait with.
    pub fn uncork(&self) {
        if self.corked.replace(false) {
            let on: libc::c_int = 1;
            // SAFETY: the option is an int, which outlives the call. A socket that knows no such option
            // was never made to wait.
            unsafe {
                libc::setsockopt(
                    self.fd(),
                    libc::IPPROTO_TCP,
                    libc::TCP_NODELAY,
                    (&raw const on).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                );
            }
        }
    }

    /// Sends as much of what was held back as the client takes now; whether that was all.
    pub(super) fn try_flush(&self) -> Result<bool, i32> {
        self.take_tls_output();
        self.fetch_gathered();
        loop {
            let out = self.out.take();
            if out.is_empty() {
                return Ok(true);
            }
            let sent = self.sendmsg(&[IoSlice::new(&out)]);
            let n = match sent {
                Ok(Some(n)) => n,
                _ => 0,
            };
            if n < out.len() {
                // Nothing was added meanwhile: sending runs no code of others.
                let mut rest = out;
                rest.drain(..n);
                self.out.with(|o| *o = rest);
            }
            if sent?.is_none() {
                return Ok(false);
            }
        }
    }

    /// Sends `count` bytes of a file from `offset` on (sendfile(2)). Gives how many there were.
    ///
    /// # Errors
    /// [`Error`]; `EINVAL` and `ENOSYS`, with nothing sent, for a file that the kernel cannot send.
    pub fn send_file(
        &self,
        parker: &dyn Parker,
        file: RawFd,
        offset: u64,
        count: u64,
    ) -> Result<u64, Error> {
        self.answered.set(true);
        // The head waits for the file's first bytes.
        self.corked.set(count > 0);
        self.flush(parker)?;
        self.corked.set(false);
        let timeout = self.server().settings().write_timeout;
        let mut at = offset as libc::off_t;
        let mut left = count;
        while left > 0 {
            let ask = left.min(1 << 30) as usize;
            let rc = os::send_file(self.fd(), file, &mut at, ask);
            if rc == 0 {
                break;
            }
            if rc > 0 {
                left -= rc as u64;
                continue;
            }
            match last_errno() {
                libc::EINTR => {}
                libc::EAGAIN => {
                    self.cannot(Readiness::WRITE);
                    self.wait(parker, Readiness::WRITE, timeout)?;
                }
                errno => {
                    if left != count {
                        self.must_close();
                    }
                    return Err(Error::Os(errno));
                }
            }
        }
        Ok(count - left)
    }
}
