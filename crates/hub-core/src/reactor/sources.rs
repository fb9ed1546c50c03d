//! Sources: descriptors that fibers wait for, registered once and edge-triggered, with a latch of
//! readiness for each direction.
//!
//! A descriptor that was never waited for costs nothing: the latches start full, so the first call is
//! tried, and only its EAGAIN leads to a registration. From then on the kernel is told nothing more until
//! the descriptor is closed.

use super::{Class, Entry, Nanos, Reactor, SourceId, Token, Wake};
use crate::event_loop::{Interest, Key, Mode, Readiness, Watch};
use crate::os;
use crate::slab::Slab;
use std::io;
use std::os::fd::RawFd;

/// What makes a read return at once.
const READABLE: Readiness = Readiness(
    Readiness::READ.0 | Readiness::RDHUP.0 | Readiness::HUP.0 | Readiness::ERR.0 | Readiness::PRI.0,
);
/// What makes a write return at once.
const WRITABLE: Readiness = Readiness(Readiness::WRITE.0 | Readiness::HUP.0 | Readiness::ERR.0);

/// What a latched bit says besides "data": while one is set, a short read tells nothing, because an end of file
/// that came with the same edge, or urgent data, would be waited for in vain.
const MORE_THAN_DATA: Readiness =
    Readiness(Readiness::RDHUP.0 | Readiness::HUP.0 | Readiness::ERR.0 | Readiness::PRI.0);
/// After so many nanoseconds it is looked whether a doubtful source is empty, if the loop has not slept before.
const OLD: Nanos = 1_000_000;

/// Linux's TCP by several ways; the number is no protocol of other systems.
pub(super) const IPPROTO_MPTCP: i32 = 262;

/// What is known of a descriptor; decides what a short read means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A stream socket of TCP: a short read has emptied it.
    InetStream,
    /// A stream socket of AF_UNIX: a short read has mostly emptied it, but it ends also where descriptors or
    /// credentials do. recvmsg(2) would tell, and costs as much as the EAGAIN that it spares.
    UnixStream,
    /// Anything else: only EAGAIN tells that it is empty.
    Other,
}

impl Kind {
    /// Asks the kernel what `fd` is.
    pub fn probe(fd: RawFd) -> Self {
        let domain = os::socket_domain(fd).unwrap_or(-1);
        let ty = os::socket_option(fd, libc::SO_TYPE).unwrap_or(-1);
        Self::of(domain, ty, os::socket_protocol(fd).unwrap_or(0))
    }

    /// From the arguments of socket(2). SCTP's streams have messages, of which a read ends with the first.
    pub fn of(domain: i32, ty: i32, protocol: i32) -> Self {
        match (domain, protocol) {
            _ if ty & !os::SOCKET_FLAGS != libc::SOCK_STREAM => Kind::Other,
            (libc::AF_INET | libc::AF_INET6, 0 | libc::IPPROTO_TCP | IPPROTO_MPTCP) => {
                Kind::InetStream
            }
            (libc::AF_UNIX, _) => Kind::UnixStream,
            _ => Kind::Other,
        }
    }
}

#[derive(Clone, Copy)]
struct Waiter {
    want: Interest,
    token: Token,
}

struct Source {
    fd: RawFd,
    registered: bool,
    /// The kernel does not poll it, so that it is always ready.
    always: bool,
    /// Taken for empty, without the kernel's word.
    doubtful: bool,
    read: Readiness,
    write: Readiness,
    waiters: Vec<Waiter>,
}

impl Source {
    fn serves(&self, want: Interest) -> bool {
        (want.has(Readiness::READ) && !self.read.is_empty())
            || (want.has(Readiness::WRITE) && !self.write.is_empty())
    }

    fn has(&self, any: Readiness) -> bool {
        self.read.with(self.write).has(any)
    }
}

#[derive(Default)]
pub(super) struct Sources {
    slab: Slab<Source>,
    /// Those that were doubtful; an event since then says more than a look would.
    doubts: Vec<Key>,
    /// When the first of them was read.
    since: Nanos,
}

impl Sources {
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn forget_waiters(&mut self) {
        for key in self.slab.keys() {
            if let Some(source) = self.slab.get_mut(key) {
                source.waiters.clear();
            }
        }
    }
}

impl Reactor {
    /// Makes a source of `fd`, which is non-blocking. The loop hears of it at the first wait.
    pub fn source(&self, fd: RawFd) -> SourceId {
        let source = Source {
            fd,
            registered: false,
            always: false,
            doubtful: false,
            read: Readiness::READ,
            write: Readiness::WRITE,
            waiters: Vec::new(),
        };
        SourceId(self.sources.with(|s| s.slab.insert(source)))
    }

    /// Clears the latch of the directions in `want`: to be called when a read or a write gave EAGAIN, which
    /// says that neither data nor an end nor an error is there.
    #[inline]
    pub fn source_clear(&self, id: SourceId, want: Interest) {
        self.sources.with(|s| {
            if let Some(s) = s.slab.get_mut(id.0).filter(|s| !s.always) {
                if want.has(Readiness::READ) {
                    s.read = Readiness::NONE;
                }
                if want.has(Readiness::WRITE) {
                    s.write = Readiness::NONE;
                }
            }
        });
    }

    /// A read with flags 0 has given `got` of the `asked` bytes: where that tells that nothing more is there, it
    /// is taken for EAGAIN.
    #[inline]
    pub fn source_was_read(&self, id: SourceId, kind: Kind, got: usize, asked: usize) {
        if got == 0 || got >= asked || kind == Kind::Other {
            return;
        }
        self.sources.with(|all| {
            let Some(s) = all.slab.get_mut(id.0) else {
                return;
            };
            // Before the registration the kernel is asked anyway.
            if s.always || !s.registered || s.has(MORE_THAN_DATA) {
                return;
            }
            s.read = Readiness::NONE;
            if kind == Kind::UnixStream && !std::mem::replace(&mut s.doubtful, true) {
                if all.doubts.is_empty() {
                    all.since = self.now.get();
                }
                all.doubts.push(id.0);
            }
        });
    }

    /// Whether a read is worth a system call: false once one has emptied the descriptor, until the loop reports
    /// it ready.
    #[inline]
    pub fn source_may_read(&self, id: SourceId) -> bool {
        self.sources.with(|all| {
            let s = all.slab.get(id.0);
            s.is_some_and(|s| s.has(MORE_THAN_DATA.with(Readiness::READ)))
        })
    }

    /// As [`settle_doubts`](Self::settle_doubts), if it is a while since the first was read; for each poll.
    #[inline]
    pub(super) fn settle_old_doubts(&self) {
        let now = self.now.get();
        let old = |all: &mut Sources| !all.doubts.is_empty() && now - all.since >= OLD;
        if self.sources.with(old) {
            self.settle_all_doubts();
        }
    }

    /// Looks whether the doubtful sources are empty, before a sleep that data which is there already would not
    /// end; true if one was not.
    #[inline]
    pub(super) fn settle_doubts(&self) -> bool {
        !self.sources.with(|all| all.doubts.is_empty()) && self.settle_all_doubts()
    }

    fn settle_all_doubts(&self) -> bool {
        let mut doubts = self.sources.with(|all| std::mem::take(&mut all.doubts));
        let mut found = false;
        for key in doubts.drain(..) {
            let fd = self.sources.with(|all| {
                let s = all.slab.get_mut(key)?;
                std::mem::take(&mut s.doubtful).then_some(s.fd)
            });
            // Where the kernel does not say, a read will.
            if fd.is_some_and(|fd| os::unread(fd).unwrap_or(1) > 0) {
                found = true;
                self.source_event(key, Readiness::READ);
            }
        }
        self.sources.with(|all| all.doubts = doubts);
        found
    }

    /// The latched readiness; before the registration, READ and WRITE until they are cleared.
    #[inline]
    pub fn source_ready(&self, id: SourceId) -> Readiness {
        self.sources.with(|s| {
            s.slab
                .get(id.0)
                .map_or(Readiness::NONE, |s| s.read.with(s.write))
        })
    }

    /// Tells the loop of a source that nobody waits for yet: readiness ends its polls and is latched.
    ///
    /// # Errors
    /// As [`source_wait`](Self::source_wait).
    pub fn source_watch(&self, id: SourceId) -> io::Result<()> {
        self.sources.with(|s| match s.slab.get_mut(id.0) {
            Some(s) if s.registered => Ok(()),
            Some(s) => self.register(id, s),
            None => Err(io::Error::from_raw_os_error(libc::EBADF)),
        })
    }

    /// Makes `token` wait for any of `want`: at the next readiness [`Wake::Ready`] goes to the queue, once. The
    /// wait keeps the loop running. `Ok(false)`: it is ready already, so that nothing will come.
    ///
    /// # Errors
    /// `EBADF` when the source is closed or the reactor destroyed, and what the backend says at the first
    /// registration.
    #[inline]
    pub fn source_wait(&self, id: SourceId, want: Interest, token: Token) -> io::Result<bool> {
        self.sources.with(|s| {
            let s = s
                .slab
                .get_mut(id.0)
                .ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
            if !s.registered {
                self.register(id, s)?;
            }
            if s.serves(want) {
                return Ok(false);
            }
            s.waiters.push(Waiter { want, token });
            self.waits.set(self.waits.get() + 1);
            self.reference();
            Ok(true)
        })
    }

    #[cold]
    fn register(&self, id: SourceId, s: &mut Source) -> io::Result<()> {
        let both = Readiness::READ.with(Readiness::WRITE);
        let watch =
            self.with_backend(|b| b.watch(s.fd, Class::Source.key(id.0), both, Mode::Edge))?;
        s.registered = true;
        // Its first wait is the one that is not saved.
        self.registrations.set(self.registrations.get() + 1);
        if watch == Watch::AlwaysReady {
            s.always = true;
            (s.read, s.write) = (Readiness::READ, Readiness::WRITE);
        }
        Ok(())
    }

    /// Takes a wait back. A wake that is in the queue already stays there.
    #[inline]
    pub fn source_unwait(&self, id: SourceId, token: Token) {
        let gone = self.sources.with(|s| {
            let Some(s) = s.slab.get_mut(id.0) else {
                return 0;
            };
            let before = s.waiters.len();
            s.waiters.retain(|w| w.token != token);
            before - s.waiters.len()
        });
        self.refs.set(self.refs.get() - gone as i64);
    }

    /// The descriptor of a source.
    pub fn source_fd(&self, id: SourceId) -> Option<RawFd> {
        self.sources.with(|s| s.slab.get(id.0).map(|s| s.fd))
    }

    /// To be called before close(2): whoever waits gets [`Wake::Closed`], all registrations of the descriptor
    /// are dropped, its operations are cancelled, and `id` is dead.
    pub fn source_closing(&self, id: SourceId) {
        let Some(source) = self.sources.with(|s| s.slab.remove(id.0)) else {
            return;
        };
        for w in &source.waiters {
            self.unreference();
            self.queue.push(Entry::Wake(w.token, Wake::Closed));
        }
        self.fd_closing(source.fd);
    }

    /// Forgets a source whose descriptor goes on without it (`detach()`); waiters get [`Wake::Closed`].
    pub fn source_detach(&self, id: SourceId) {
        let Some(source) = self.sources.with(|s| s.slab.remove(id.0)) else {
            return;
        };
        for w in &source.waiters {
            self.unreference();
            self.queue.push(Entry::Wake(w.token, Wake::Closed));
        }
        if source.registered {
            let _ = self.with_backend(|b| {
                b.unwatch(Class::Source.key(id.0));
                Ok(())
            });
        }
    }

    /// Tells the backend that `fd` is about to be closed: every registration and operation on it ends. Watchers
    /// on it stay active and hear nothing more.
    pub fn fd_closing(&self, fd: RawFd) {
        let mut events = self.events.take();
        let _ = self.with_backend(|b| {
            b.fd_closing(fd, &mut events);
            Ok(())
        });
        self.dispatch(&mut events);
        self.events.with(|e| *e = events);
    }

    pub(super) fn source_event(&self, key: Key, readiness: Readiness) {
        self.sources.with(|s| {
            let Some(s) = s.slab.get_mut(key) else { return };
            if readiness.has(READABLE) {
                s.doubtful = false;
            }
            s.read = s.read.with(Readiness(readiness.0 & READABLE.0));
            s.write = s.write.with(Readiness(readiness.0 & WRITABLE.0));
            let mut i = 0;
            while i < s.waiters.len() {
                let w = s.waiters[i];
                if s.serves(w.want) {
                    s.waiters.remove(i);
                    self.unreference();
                    self.watchers
                        .with(|all| all.pending.push_wake(w.token, Wake::Ready));
                } else {
                    i += 1;
                }
            }
        });
    }
}
