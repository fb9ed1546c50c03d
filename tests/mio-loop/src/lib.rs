//! [`MioLoop`]: the `Loop` contract on mio, for tests and benchmarks only.
//!
//! Somebody else's code decides here what is ready, so that a mistake which the loops of gevent have in common
//! shows. mio is edge-triggered throughout; level watchers are made of it by asking poll(2) about every
//! descriptor that an edge has come from, until it is not ready.

use gevent_hub_core::by_readiness::{Begun, Entry, Table};
use gevent_hub_core::event_loop::{
    Cancel, Caps, Counters, Event, How, Interest, Key, Loop, Mode, Op, Readiness, Start, Until,
    Wake, Watch,
};
use gevent_hub_core::os::errno;
use gevent_hub_core::reactor::monotonic;
use mio::event::Event as MioEvent;
use mio::unix::SourceFd;
use mio::{Events, Poll, Token};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::time::Duration;

const WAKE: Token = Token(usize::MAX);

/// What is known of a descriptor.
#[derive(Default)]
struct Place {
    registered: bool,
    /// Part of its token; another one after each registration that ended.
    generation: u32,
    /// It may be ready, for level watchers.
    awake: bool,
}

/// The loop.
pub struct MioLoop {
    poll: Poll,
    events: Events,
    table: Table<Place>,
    /// Descriptors that may be ready, for level watchers.
    awake: Vec<RawFd>,
    waker: Arc<Waker>,
    caps: Caps,
    counters: Counters,
}

/// mio's waker behind a flag.
struct Waker {
    /// Replaced in a forked child only; the old one is left to leak there.
    mio: AtomicPtr<mio::Waker>,
    pending: AtomicBool,
}

fn mio_waker(poll: &Poll) -> io::Result<*mut mio::Waker> {
    mio::Waker::new(poll.registry(), WAKE).map(|w| Box::into_raw(Box::new(w)))
}

impl Waker {
    fn trigger(&self) {
        // SAFETY: from `Box::into_raw`, valid until this is dropped.
        let _ = unsafe { &*self.mio.load(Ordering::Acquire) }.wake();
    }
}

impl Wake for Waker {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::SeqCst) {
            self.trigger();
        }
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // SAFETY: from `Box::into_raw`, and nobody refers to it any more.
        drop(unsafe { Box::from_raw(*self.mio.get_mut()) });
    }
}

fn is_wanted(entry: &Entry<Place>) -> bool {
    entry.wants_edge() || !entry.want(Mode::Level).is_empty()
}

fn readiness(e: &MioEvent) -> Readiness {
    let both = e.is_read_closed() && e.is_write_closed();
    let bits = [
        (e.is_readable(), Readiness::READ),
        (e.is_writable(), Readiness::WRITE),
        (e.is_read_closed(), Readiness::RDHUP),
        (both, Readiness::HUP),
        (e.is_error(), Readiness::ERR),
        (e.is_priority(), Readiness::PRI),
    ];
    let set = bits.iter().filter(|(is, _)| *is);
    set.fold(Readiness::NONE, |all, (_, r)| all.with(*r))
}

/// What poll(2) says of `fd` now, of what level watchers want.
fn ask(fd: RawFd, want: Interest) -> Readiness {
    let pairs = [
        (libc::POLLIN, Readiness::READ),
        (libc::POLLOUT, Readiness::WRITE),
        (libc::POLLPRI, Readiness::PRI),
        (libc::POLLHUP, Readiness::HUP),
        (libc::POLLERR, Readiness::ERR),
    ];
    let wanted = pairs.iter().filter(|(_, r)| want.has(*r));
    let mut p = libc::pollfd {
        fd,
        events: wanted.fold(0, |all, (bit, _)| all | bit),
        revents: 0,
    };
    // SAFETY: one pollfd, which outlives the call.
    unsafe { libc::poll(&mut p, 1, 0) };
    let set = pairs.iter().filter(|(bit, _)| p.revents & bit != 0);
    set.fold(Readiness::NONE, |all, (_, r)| all.with(*r))
}

impl MioLoop {
    /// A loop of the calling thread.
    ///
    /// # Errors
    /// mio's.
    pub fn new() -> io::Result<MioLoop> {
        let poll = Poll::new()?;
        let waker = Waker {
            mio: AtomicPtr::new(mio_waker(&poll)?),
            pending: AtomicBool::new(false),
        };
        Ok(MioLoop {
            poll,
            events: Events::with_capacity(512),
            table: Table::default(),
            awake: Vec::new(),
            waker: Arc::new(waker),
            caps: Caps {
                name: "mio",
                stream: How::Emulated,
                connect: How::Emulated,
                file: How::Offloaded,
                path: How::Offloaded,
            },
            counters: Counters::default(),
        })
    }

    /// Registers `fd`, or again, so that what is ready now is reported; or ends its registration.
    fn update(&mut self, fd: RawFd) -> io::Result<()> {
        let entry = self.table.entry(fd);
        let wanted = is_wanted(entry);
        let place = &mut entry.place;
        self.counters.syscalls += 1;
        let (registry, mut source) = (self.poll.registry(), SourceFd(&fd));
        if !wanted {
            if place.registered {
                let _ = registry.deregister(&mut source);
            }
            place.registered = false;
            place.generation = place.generation.wrapping_add(1);
            return Ok(());
        }
        let token = Token((place.generation as usize) << 32 | fd as usize);
        let all = mio::Interest::READABLE | mio::Interest::WRITABLE;
        #[cfg(target_os = "linux")]
        let all = all | mio::Interest::PRIORITY;
        let result = match registry.register(&mut source, token, all) {
            Err(e) if errno(&e) == libc::EEXIST => registry.reregister(&mut source, token, all),
            result => result,
        };
        place.registered = result.is_ok();
        result
    }

    fn awaken(&mut self, fd: RawFd) {
        let place = &mut self.table.entry(fd).place;
        if !std::mem::replace(&mut place.awake, true) {
            self.awake.push(fd);
        }
    }

    /// Tells level watchers what is ready.
    fn level(&mut self, out: &mut Vec<Event>) {
        for fd in std::mem::take(&mut self.awake) {
            let entry = self.table.entry(fd);
            entry.place.awake = false;
            let want = entry.want(Mode::Level);
            if want.is_empty() {
                continue;
            }
            self.counters.syscalls += 1;
            let got = ask(fd, want);
            if !got.is_empty() {
                self.table.tell(fd, Mode::Level, got, out);
                self.awaken(fd);
            }
        }
    }

    fn edge(&mut self, token: Token, got: Readiness, out: &mut Vec<Event>) {
        let fd = (token.0 & 0xffff_ffff) as RawFd;
        let Some(entry) = self.table.get(fd) else {
            return;
        };
        if entry.place.generation as usize != token.0 >> 32 {
            return;
        }
        let (ops, level) = (entry.has_ops(), !entry.want(Mode::Level).is_empty());
        self.table.tell(fd, Mode::Edge, got, out);
        if ops {
            self.counters.syscalls += self.table.try_ops(fd, got, out);
        }
        if level {
            self.awaken(fd);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.counters.syscalls += 1;
        match self.poll.poll(&mut self.events, timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }
}

impl Loop for MioLoop {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn watch(&mut self, fd: RawFd, key: Key, want: Interest, mode: Mode) -> io::Result<Watch> {
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        match self.table.forget(key) {
            Some((old, _)) if old != fd => self.update(old)?,
            _ => {}
        }
        self.table.add(fd, key, want, mode);
        if let Err(e) = self.update(fd) {
            self.table.forget(key);
            return match errno(&e) {
                libc::EPERM => Ok(Watch::AlwaysReady),
                _ => Err(e),
            };
        }
        self.awaken(fd);
        Ok(Watch::Armed)
    }

    fn unwatch(&mut self, key: Key) {
        if let Some((fd, _)) = self.table.forget(key)
            && !is_wanted(self.table.entry(fd))
        {
            let _ = self.update(fd);
        }
    }

    fn fd_closing(&mut self, fd: RawFd, out: &mut Vec<Event>) {
        self.table.close(fd, out);
        if self.table.get(fd).is_some_and(|e| e.place.registered) {
            let _ = self.update(fd);
        }
    }

    unsafe fn start(&mut self, key: Key, op: Pin<&mut Op>) -> Start {
        // SAFETY: it is not moved out of, only read and pointed to.
        let op = unsafe { op.get_unchecked_mut() };
        self.counters.syscalls += 1;
        // SAFETY: the caller's promise.
        let fd = match unsafe { self.table.begin(key, op) } {
            Begun::Done(result) => return Start::Done(result),
            Begun::Blocking => return Start::Offload,
            Begun::Waits(fd) => fd,
        };
        let result = if self.table.entry(fd).place.registered {
            Ok(())
        } else {
            self.update(fd)
        };
        match result {
            Ok(()) => Start::Parked,
            Err(e) => {
                self.table.drop_op(key);
                match errno(&e) {
                    libc::EPERM => Start::Offload,
                    _ => Start::Done(Err(e)),
                }
            }
        }
    }

    fn cancel(&mut self, key: Key) -> Cancel {
        self.table.drop_op(key);
        Cancel::Cancelled
    }

    fn poll(&mut self, until: Until, out: &mut Vec<Event>) -> io::Result<()> {
        let before = out.len();
        self.counters.polls += 1;
        self.level(out);
        let timeout = match until {
            _ if out.len() > before => Some(Duration::ZERO),
            Until::Now => Some(Duration::ZERO),
            Until::At(at) => Some(Duration::from_nanos(at.saturating_sub(monotonic()))),
            Until::Forever => None,
        };
        self.wait(timeout)?;
        let told = out.len() > before;
        let events: Vec<_> = self
            .events
            .iter()
            .map(|e| (e.token(), readiness(e)))
            .collect();
        for (token, got) in events {
            if token == WAKE {
                self.waker.pending.store(false, Ordering::SeqCst);
                out.push(Event::Woken);
            } else {
                self.edge(token, got, out);
            }
        }
        if !told {
            self.level(out);
        }
        self.counters.events += (out.len() - before) as u64;
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn after_fork(&mut self) -> io::Result<()> {
        self.poll = Poll::new()?;
        let new = mio_waker(&self.poll)?;
        self.waker.mio.store(new, Ordering::Release);
        if self.waker.pending.load(Ordering::SeqCst) {
            self.waker.trigger();
        }
        let all: Vec<RawFd> = self
            .table
            .all()
            .filter(|(_, e)| is_wanted(e))
            .map(|(fd, _)| fd)
            .collect();
        for fd in all {
            self.table.entry(fd).place.registered = false;
            match self.update(fd) {
                Err(e) if !matches!(errno(&e), libc::EBADF | libc::EPERM) => return Err(e),
                _ => self.awaken(fd),
            }
        }
        Ok(())
    }

    fn as_raw_fd(&mut self) -> Option<RawFd> {
        Some(self.poll.as_raw_fd())
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
