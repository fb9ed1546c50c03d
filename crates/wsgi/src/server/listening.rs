//! Accepting: in batches, with pauses when there are no descriptors.

use super::{Application, Connection, Server};
use gevent_hub_core::event_loop::Readiness;
use gevent_hub_core::os;
use gevent_hub_core::reactor::{Entry, Nanos, Reactor, SourceId, TimerKey, Token, Wake};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

/// The first pause after a failure, doubled at each further one up to the last.
const FIRST_PAUSE: Nanos = 10_000_000;
const LAST_PAUSE: Nanos = 1_000_000_000;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An Internet address.
    Internet(SocketAddr),
    /// A Unix socket, whose other end mostly has no name.
    Local,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Internet(address) => address.fmt(f),
            Peer::Local => f.write_str("local"),
        }
    }
}

pub(super) struct Listening {
    fd: RawFd,
    source: SourceId,
    /// It waits for room, or for the end of a pause.
    held: bool,
    pause: Nanos,
    timer: Option<TimerKey>,
}

impl Listening {
    pub(super) fn new(reactor: &Reactor, fd: RawFd) -> Self {
        Listening {
            fd,
            source: reactor.source(fd),
            held: false,
            pause: FIRST_PAUSE,
            timer: None,
        }
    }

    pub(super) fn end(self, reactor: &Reactor, token: Token) {
        if let Some(timer) = self.timer {
            reactor.disarm(timer);
        }
        reactor.source_unwait(self.source, token);
        reactor.source_detach(self.source);
    }

    /// Whether it waits for room.
    pub(super) fn is_held(&self) -> bool {
        self.held && self.timer.is_none()
    }

    /// Whether it was held back, and is not any more.
    pub(super) fn go_on(&mut self) -> bool {
        std::mem::take(&mut self.held) && self.timer.is_none()
    }
}

/// accept(2): close-on-exec and non-blocking.
fn accept(fd: RawFd) -> Result<(RawFd, Peer), i32> {
    // SAFETY: a `sockaddr_storage` is plain numbers, for which zeros are valid.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the address is writable for its length, and both outlive the call.
    match unsafe { os::accept(fd, (&raw mut storage).cast(), &mut len) } {
        Ok(got) => Ok((got as RawFd, peer(&storage))),
        Err(e) => Err(e.raw_os_error().unwrap_or(libc::EIO)),
    }
}

fn peer(storage: &libc::sockaddr_storage) -> Peer {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel filled in an address of this family; the storage is aligned for any.
            let raw = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Peer::Internet(SocketAddr::new(IpAddr::V4(ip), u16::from_be(raw.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let raw = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            Peer::Internet(SocketAddr::new(IpAddr::V6(ip), u16::from_be(raw.sin6_port)))
        }
        _ => Peer::Local,
    }
}

/// How an attempt to accept a batch ended.
enum Batch {
    /// There are more.
    More,
    /// There are none.
    Empty,
    /// The application is full.
    Full,
    Failed(i32),
}

impl<A: Application> Server<A> {
    pub(super) fn accept(&self, reason: Wake) {
        let now_listening = self.listening.with(|l| {
            l.as_mut().map(|l| {
                if reason == Wake::Timeout {
                    l.timer = None;
                }
                (l.fd, l.source)
            })
        });
        let Some((fd, source)) = now_listening else {
            return;
        };
        let token = self.listener_token();
        match self.accept_batch(fd) {
            Batch::More => self.reactor.push(Entry::Wake(token, Wake::Ready)),
            Batch::Full => self.listening.with(|l| {
                if let Some(l) = l {
                    l.held = true;
                }
            }),
            Batch::Empty => {
                self.listening.with(|l| {
                    if let Some(l) = l {
                        l.pause = FIRST_PAUSE;
                    }
                });
                self.reactor.source_clear(source, Readiness::READ);
                match self.reactor.source_wait(source, Readiness::READ, token) {
                    Ok(true) => {}
                    Ok(false) => self.reactor.push(Entry::Wake(token, Wake::Ready)),
                    Err(e) => self.accept_pause(e.raw_os_error().unwrap_or(libc::EIO)),
                }
            }
            Batch::Failed(errno) => self.accept_pause(errno),
        }
    }

    fn accept_batch(&self, fd: RawFd) -> Batch {
        for _ in 0..self.settings.get().batch.max(1) {
            if self.app.is_full() {
                return Batch::Full;
            }
            // It may have stopped the server.
            if self.listening.with(|l| l.is_none()) {
                return Batch::Empty;
            }
            match accept(fd) {
                Ok((fd, peer)) => {
                    self.accepted.set(self.accepted.get() + 1);
                    if !self.app.take(fd, peer) {
                        Connection::begin(self, fd, peer);
                    }
                    if self.listening.with(|l| l.is_none()) {
                        return Batch::Empty;
                    }
                }
                Err(libc::EAGAIN) => return Batch::Empty,
                Err(libc::EINTR | libc::ECONNABORTED) => {}
                Err(errno) => return Batch::Failed(errno),
            }
        }
        Batch::More
    }

    /// Waits a little, and tells the application why.
    fn accept_pause(&self, errno: i32) {
        let token = self.listener_token();
        let now = self.reactor.clock_now();
        self.listening.with(|l| {
            if let Some(l) = l {
                l.timer = Some(self.reactor.arm_sleep(now + l.pause, token, true));
                l.pause = (l.pause * 2).min(LAST_PAUSE);
            }
        });
        self.app.accept_failed(errno);
    }
}
