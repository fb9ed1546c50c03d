//! The epoll backend of the hub.
//!
//! Two epoll sets. The edge set holds a descriptor once, for everything, edge-triggered; it is told of a
//! descriptor when the first one asks and when it is closed, and of nothing between. The level set, made
//! when the first level watcher starts, is nested in it. Several keys on a descriptor are told apart here.
//!
//! Operations are tried and wait in a queue of their descriptor for the next edge; what only a blocking
//! call can do is left to the offload pool.
//!
//! ```
//! use gevent_hub_core::task;
//! use gevent_loop_epoll::EpollLoop;
//! use std::time::Duration;
//!
//! let slept = task::run(Box::new(EpollLoop::new()?), || {
//!     let sleeper = task::spawn(|| task::sleep(Duration::from_millis(5)));
//!     sleeper.join().unwrap()
//! })?;
//! assert_eq!(slept, Ok(()));
//! # Ok::<(), std::io::Error>(())
//! ```

mod sys;
#[cfg(test)]
mod tests;
mod waker;

use gevent_hub_core::by_readiness::{Begun, Entry, Table};
use gevent_hub_core::event_loop::{
    Cancel, Caps, Counters, Event, How, Interest, Key, Loop, Mode, Op, Readiness, Start, Until,
    Wake, Watch,
};
pub use gevent_hub_core::os::Refused;
use gevent_hub_core::os::{errno, of_call};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use sys::{Epoll, Timeout};
use waker::EventWaker;

/// What the edge set asks for, of every descriptor.
const EDGE: u32 =
    (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET) as u32;
/// The data of the waker's event: no descriptor has this number.
const WAKER: u64 = u32::MAX as u64;
/// The data of the nested set's event.
const NESTED: u64 = u32::MAX as u64 - 1;
/// Events taken by one wait.
const ROOM: usize = 512;
/// Waits that follow one which came back full, within a poll.
const ROUNDS: usize = 16;

/// The place of a descriptor in one of the two epoll sets.
#[derive(Clone, Copy, Default)]
struct Place {
    armed: bool,
    /// Carried by its events; another one after each removal, so that events of a description which lives
    /// on under a closed number are told apart.
    generation: u32,
}

/// Both places of a descriptor.
#[derive(Default)]
struct Places {
    edge: Place,
    level: Place,
}

impl Places {
    fn of(&mut self, mode: Mode) -> &mut Place {
        match mode {
            Mode::Edge => &mut self.edge,
            Mode::Level => &mut self.level,
        }
    }
}

/// Whether the set of `mode` has a reason to hold the descriptor.
fn is_wanted(entry: &Entry<Places>, mode: Mode) -> bool {
    match mode {
        Mode::Edge => entry.wants_edge(),
        Mode::Level => !entry.want(Mode::Level).is_empty(),
    }
}

/// The epoll loop.
pub struct EpollLoop {
    edge: Epoll,
    /// Nested in `edge`; made when it is needed.
    level: Option<Epoll>,
    table: Table<Places>,
    waker: Arc<EventWaker>,
    buffer: Vec<libc::epoll_event>,
    level_buffer: Vec<libc::epoll_event>,
    /// An event came from a description that can no longer be removed: the sets have to be made anew.
    stale: bool,
    caps: Caps,
    counters: Counters,
}

impl EpollLoop {
    /// A loop of the calling thread.
    ///
    /// # Errors
    /// [`Refused`], inside of the [`io::Error`]: `EMFILE`, `ENFILE`, `ENOMEM` of epoll_create1(2), epoll_ctl(2)
    /// and eventfd(2).
    pub fn new() -> io::Result<EpollLoop> {
        let edge = of_call("epoll_create1(2)", Epoll::new())?;
        let waker = Arc::new(of_call("eventfd(2)", EventWaker::new())?);
        let added = edge.set(waker.as_raw_fd(), false, libc::EPOLLIN as u32, WAKER);
        of_call("epoll_ctl(2)", added.1)?;
        Ok(EpollLoop {
            edge,
            level: None,
            table: Table::default(),
            waker,
            buffer: Vec::with_capacity(ROOM),
            level_buffer: Vec::new(),
            stale: false,
            caps: Caps {
                name: "epoll",
                stream: How::Emulated,
                connect: How::Emulated,
                file: How::Offloaded,
                path: How::Offloaded,
            },
            counters: Counters::default(),
        })
    }

    /// Tells the kernel what one of the sets shall hold of `fd`, or to forget it.
    fn update(&mut self, fd: RawFd, mode: Mode) -> io::Result<()> {
        let entry = self.table.entry(fd);
        let wanted = is_wanted(entry, mode);
        let events = match mode {
            Mode::Edge => EDGE,
            Mode::Level => level_events(entry.want(mode)),
        };
        let place = *entry.place.of(mode);
        if mode == Mode::Level && wanted && self.level.is_none() {
            self.make_level()?;
        }
        let set = match (mode, &self.level) {
            (Mode::Edge, _) => &self.edge,
            (Mode::Level, Some(level)) => level,
            (Mode::Level, None) => return Ok(()),
        };
        if wanted {
            let (calls, result) = set.set(fd, place.armed, events, data_of(fd, place));
            self.counters.syscalls += u64::from(calls);
            self.table.entry(fd).place.of(mode).armed = result.is_ok();
            result
        } else {
            if place.armed {
                self.counters.syscalls += 1;
                // It fails when the descriptor was closed: then it is gone already, or its description lives
                // on elsewhere, and the next event of it is recognised by its generation.
                let _ = set.delete(fd);
            }
            *self.table.entry(fd).place.of(mode) = Place {
                armed: false,
                generation: place.generation.wrapping_add(1),
            };
            Ok(())
        }
    }

    fn make_level(&mut self) -> io::Result<()> {
        let level = Epoll::new()?;
        self.edge
            .set(level.as_raw_fd(), false, libc::EPOLLIN as u32, NESTED)
            .1?;
        self.counters.syscalls += 2;
        self.level = Some(level);
        Ok(())
    }

    /// The events of one wait, from the set of `mode`.
    fn deliver(
        &mut self,
        mode: Mode,
        buffer: &[libc::epoll_event],
        out: &mut Vec<Event>,
    ) -> io::Result<()> {
        for e in buffer {
            let (data, events) = (e.u64, e.events);
            match data & u64::from(u32::MAX) {
                WAKER => {
                    self.waker.accept();
                    self.counters.syscalls += 1;
                    out.push(Event::Woken);
                }
                NESTED => self.deliver_level(out)?,
                fd => self.ready(
                    fd as RawFd,
                    (data >> 32) as u32,
                    mode,
                    readiness(events),
                    out,
                ),
            }
        }
        Ok(())
    }

    fn deliver_level(&mut self, out: &mut Vec<Event>) -> io::Result<()> {
        let Some(level) = &mut self.level else {
            return Ok(());
        };
        let mut buffer = std::mem::take(&mut self.level_buffer);
        buffer.clear();
        buffer.reserve(ROOM);
        self.counters.syscalls += 1;
        let mut result = level.wait(&mut buffer, Timeout::Zero);
        if result.is_ok() {
            result = self.deliver(Mode::Level, &buffer, out);
        }
        self.level_buffer = buffer;
        result
    }

    fn ready(
        &mut self,
        fd: RawFd,
        generation: u32,
        mode: Mode,
        got: Readiness,
        out: &mut Vec<Event>,
    ) {
        let Some(entry) = self.table.get(fd) else {
            return;
        };
        let place = *entry.place.of(mode);
        if !place.armed || place.generation != generation {
            return self.drop_stale(fd, mode, place);
        }
        if !is_wanted(entry, mode) {
            let removed = self.update(fd, mode);
            debug_assert!(removed.is_ok());
            return;
        }
        let try_ops = mode == Mode::Edge && entry.has_ops();
        self.table.tell(fd, mode, got, out);
        if try_ops {
            self.counters.syscalls += self.table.try_ops(fd, got, out);
        }
    }

    /// An event of a registration that we have removed: its description lives on under another number, or in
    /// another process (epoll(7), Q6). If it cannot be removed now, the sets are made anew.
    fn drop_stale(&mut self, fd: RawFd, mode: Mode, place: Place) {
        let set = match mode {
            Mode::Edge => Some(&self.edge),
            Mode::Level => self.level.as_ref(),
        };
        self.counters.syscalls += 1;
        self.stale |= place.armed || set.is_some_and(|s| s.delete(fd).is_err());
    }

    /// Makes both sets anew and registers all again. Descriptors that are closed by now are left out.
    fn rebuild(&mut self) -> io::Result<()> {
        let edge = Epoll::new()?;
        edge.set(self.waker.as_raw_fd(), false, libc::EPOLLIN as u32, WAKER)
            .1?;
        self.edge = edge;
        self.level = None;
        self.stale = false;
        let mut again = Vec::new();
        for (fd, entry) in self.table.all() {
            for mode in [Mode::Edge, Mode::Level] {
                let place = entry.place.of(mode);
                place.armed = false;
                place.generation = place.generation.wrapping_add(1);
                if is_wanted(entry, mode) {
                    again.push((fd, mode));
                }
            }
        }
        for (fd, mode) in again {
            match self.update(fd, mode) {
                Err(e) if !matches!(errno(&e), libc::EBADF | libc::EPERM) => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    fn timeout(until: Until) -> Timeout {
        match until {
            Until::Now => Timeout::Zero,
            Until::Forever => Timeout::Infinite,
            Until::At(at) => match at.saturating_sub(gevent_hub_core::reactor::monotonic()) {
                0 => Timeout::Zero,
                nanos => Timeout::Nanos(nanos),
            },
        }
    }
}

fn data_of(fd: RawFd, place: Place) -> u64 {
    u64::from(place.generation) << 32 | fd as u64
}

fn level_events(want: Interest) -> u32 {
    let mut events = 0;
    if want.has(Readiness::READ) {
        events |= libc::EPOLLIN;
    }
    if want.has(Readiness::WRITE) {
        events |= libc::EPOLLOUT;
    }
    if want.has(Readiness::PRI) {
        events |= libc::EPOLLPRI;
    }
    events as u32
}

fn readiness(events: u32) -> Readiness {
    let pairs = [
        (libc::EPOLLIN, Readiness::READ),
        (libc::EPOLLOUT, Readiness::WRITE),
        (libc::EPOLLRDHUP, Readiness::RDHUP),
        (libc::EPOLLHUP, Readiness::HUP),
        (libc::EPOLLERR, Readiness::ERR),
        (libc::EPOLLPRI, Readiness::PRI),
    ];
    let set = pairs.iter().filter(|(bit, _)| events & *bit as u32 != 0);
    set.fold(Readiness::NONE, |all, (_, r)| all.with(*r))
}

impl Loop for EpollLoop {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn watch(&mut self, fd: RawFd, key: Key, want: Interest, mode: Mode) -> io::Result<Watch> {
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        match self.table.forget(key) {
            Some((old, old_mode)) if (old, old_mode) != (fd, mode) => self.update(old, old_mode)?,
            _ => {}
        }
        self.table.add(fd, key, want, mode);
        // Also when the kernel knows the descriptor: a new edge watcher has to hear of what is ready by now,
        // and the number may have been closed and opened again without our being told.
        match self.update(fd, mode) {
            Ok(()) => Ok(Watch::Armed),
            Err(e) => {
                self.table.forget(key);
                if errno(&e) == libc::EPERM {
                    Ok(Watch::AlwaysReady)
                } else {
                    Err(e)
                }
            }
        }
    }

    fn unwatch(&mut self, key: Key) {
        let Some((fd, mode)) = self.table.forget(key) else {
            return;
        };
        let wanted = is_wanted(self.table.entry(fd), mode);
        // The last level watcher is removed from the set only if an event comes for nobody, as libev does it:
        // often the same descriptor is watched again before that.
        if wanted == (mode == Mode::Level) {
            let _ = self.update(fd, mode);
        }
    }

    fn fd_closing(&mut self, fd: RawFd, out: &mut Vec<Event>) {
        self.table.close(fd, out);
        for mode in [Mode::Edge, Mode::Level] {
            let entry = self.table.get(fd);
            if entry.is_some_and(|e| e.place.of(mode).armed) {
                let _ = self.update(fd, mode);
            }
        }
    }

    unsafe fn start(&mut self, key: Key, op: Pin<&mut Op>) -> Start {
        // SAFETY: it is not moved out of, only read and pointed to.
        let op = unsafe { op.get_unchecked_mut() };
        // SAFETY: the caller's promise.
        let begun = unsafe { self.table.begin(key, op) };
        self.counters.syscalls += u64::from(!matches!(begun, Begun::Blocking));
        let fd = match begun {
            Begun::Done(result) => return Start::Done(result),
            Begun::Blocking => return Start::Offload,
            Begun::Waits(fd) => fd,
        };
        // An edge that came before this is still to be delivered, so a registration needs no renewal.
        let result = if self.table.entry(fd).place.edge.armed {
            Ok(())
        } else {
            self.update(fd, Mode::Edge)
        };
        match result {
            Ok(()) => Start::Parked,
            Err(e) => {
                self.table.drop_op(key);
                if errno(&e) == libc::EPERM {
                    Start::Offload
                } else {
                    Start::Done(Err(e))
                }
            }
        }
    }

    fn cancel(&mut self, key: Key) -> Cancel {
        // The registration stays for the next operation, until the descriptor is closed.
        self.table.drop_op(key);
        Cancel::Cancelled
    }

    fn poll(&mut self, until: Until, out: &mut Vec<Event>) -> io::Result<()> {
        let before = out.len();
        self.counters.polls += 1;
        let mut timeout = Self::timeout(until);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(());
        for _ in 0..ROUNDS {
            self.counters.syscalls += 1;
            result = self.edge.wait(&mut buffer, timeout);
            if result.is_ok() {
                result = self.deliver(Mode::Edge, &buffer, out);
            }
            if result.is_err() || buffer.len() < ROOM {
                break;
            }
            timeout = Timeout::Zero;
        }
        self.buffer = buffer;
        if self.stale && result.is_ok() {
            result = self.rebuild();
        }
        self.counters.events += (out.len() - before) as u64;
        result
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn after_fork(&mut self) -> io::Result<()> {
        // The sets are shared with the parent: closing our descriptors of them, which `rebuild` does by
        // dropping them, leaves the parent's registrations alone; epoll_ctl(2) would not.
        self.waker.after_fork()?;
        self.rebuild()
    }

    fn as_raw_fd(&mut self) -> Option<RawFd> {
        Some(self.edge.as_raw_fd())
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
