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

mod ops;
mod sys;
mod table;
#[cfg(test)]
mod tests;
mod waker;

use gevent_hub_core::event_loop::{
    Cancel, Caps, Counters, Event, How, Interest, Key, Loop, Mode, Op, Readiness, Start, Until,
    Wake, Watch,
};
use ops::Try;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
pub use sys::Refused;
use sys::{Epoll, Timeout, errno, of_call};
use table::{KeyMap, Place, Table, Watcher};
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

/// An operation that waits.
struct Waiting {
    fd: RawFd,
    want: Readiness,
    op: *mut Op,
}

/// The epoll loop.
pub struct EpollLoop {
    edge: Epoll,
    /// Nested in `edge`; made when it is needed.
    level: Option<Epoll>,
    table: Table,
    ops: KeyMap<Waiting>,
    waker: Arc<EventWaker>,
    mask: Option<libc::sigset_t>,
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
            ops: KeyMap::default(),
            waker,
            mask: None,
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
        let (wanted, events) = match mode {
            Mode::Edge => (entry.wants_edge(), EDGE),
            Mode::Level => {
                let want = entry.level_want();
                (!want.is_empty(), level_events(want))
            }
        };
        let place = *entry.place(mode);
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
            self.table.entry(fd).place(mode).armed = result.is_ok();
            result
        } else {
            if place.armed {
                self.counters.syscalls += 1;
                // It fails when the descriptor was closed: then it is gone already, or its description lives
                // on elsewhere, and the next event of it is recognised by its generation.
                let _ = set.delete(fd);
            }
            *self.table.entry(fd).place(mode) = Place {
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

    fn forget(&mut self, key: Key) -> Option<(RawFd, Mode)> {
        let fd = self.table.fds.remove(&key)?;
        let entry = self.table.entry(fd);
        let at = entry.watchers.iter().position(|w| w.key == key)?;
        Some((fd, entry.watchers.swap_remove(at).mode))
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
        let mut result = level.wait(&mut buffer, Timeout::Zero, None);
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
        let place = *entry.place(mode);
        if !place.armed || place.generation != generation {
            return self.drop_stale(fd, mode, place);
        }
        let wanted = match mode {
            Mode::Edge => entry.wants_edge(),
            Mode::Level => !entry.level_want().is_empty(),
        };
        if !wanted {
            let removed = self.update(fd, mode);
            debug_assert!(removed.is_ok());
            return;
        }
        for w in entry.watchers.iter().filter(|w| w.mode == mode) {
            let seen = match mode {
                Mode::Edge => {
                    Readiness(got.0 & (w.want.0 | !(Readiness::READ.0 | Readiness::WRITE.0)))
                }
                Mode::Level => got,
            };
            if ops::serves(w.want, seen) {
                out.push(Event::Ready(w.key, seen));
            }
        }
        if mode == Mode::Edge && !entry.ops.is_empty() {
            self.try_ops(fd, got, out);
        }
    }

    /// Tries the operations that wait for `fd`, oldest first, until one of each direction has to wait on.
    fn try_ops(&mut self, fd: RawFd, got: Readiness, out: &mut Vec<Event>) {
        let mut stuck = Readiness::NONE;
        let queue = std::mem::take(&mut self.table.entry(fd).ops);
        let mut rest = Vec::new();
        for key in queue {
            let Some(waiting) = self.ops.get_mut(&key) else {
                continue;
            };
            if waiting.want.has(stuck) || !ops::serves(waiting.want, got) {
                rest.push(key);
                continue;
            }
            self.counters.syscalls += 1;
            // SAFETY: whoever started it keeps it, and what it points to, until it is over.
            match unsafe { ops::attempt(&mut *waiting.op, true) } {
                Try::Wait(want) => {
                    waiting.want = want;
                    stuck = stuck.with(want);
                    rest.push(key);
                }
                Try::Done(result) => {
                    self.ops.remove(&key);
                    out.push(Event::Done(key, result));
                }
                Try::Blocking => {
                    self.ops.remove(&key);
                    out.push(Event::Done(
                        key,
                        Err(io::Error::from_raw_os_error(libc::EAGAIN)),
                    ));
                }
            }
        }
        self.table.entry(fd).ops = rest;
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
            for place in [&mut entry.edge, &mut entry.level] {
                place.armed = false;
                place.generation = place.generation.wrapping_add(1);
            }
            if entry.wants_edge() {
                again.push((fd, Mode::Edge));
            }
            if !entry.level_want().is_empty() {
                again.push((fd, Mode::Level));
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
        match self.forget(key) {
            Some((old, old_mode)) if (old, old_mode) != (fd, mode) => self.update(old, old_mode)?,
            _ => {}
        }
        self.table.fds.insert(key, fd);
        self.table
            .entry(fd)
            .watchers
            .push(Watcher { key, want, mode });
        // Also when the kernel knows the descriptor: a new edge watcher has to hear of what is ready by now,
        // and the number may have been closed and opened again without our being told.
        match self.update(fd, mode) {
            Ok(()) => Ok(Watch::Armed),
            Err(e) => {
                self.forget(key);
                if errno(&e) == libc::EPERM {
                    Ok(Watch::AlwaysReady)
                } else {
                    Err(e)
                }
            }
        }
    }

    fn unwatch(&mut self, key: Key) {
        let Some((fd, mode)) = self.forget(key) else {
            return;
        };
        let entry = self.table.entry(fd);
        let update = match mode {
            Mode::Edge => !entry.wants_edge(),
            // The last level watcher is removed from the set only if an event comes for nobody, as libev
            // does it: often the same descriptor is watched again before that.
            Mode::Level => !entry.level_want().is_empty(),
        };
        if update {
            let _ = self.update(fd, mode);
        }
    }

    fn fd_closing(&mut self, fd: RawFd, out: &mut Vec<Event>) {
        let Some(entry) = self.table.get(fd) else {
            return;
        };
        for w in std::mem::take(&mut entry.watchers) {
            self.table.fds.remove(&w.key);
        }
        let entry = self.table.entry(fd);
        for key in std::mem::take(&mut entry.ops) {
            if self.ops.remove(&key).is_some() {
                out.push(Event::Done(
                    key,
                    Err(io::Error::from_raw_os_error(libc::ECANCELED)),
                ));
            }
        }
        for mode in [Mode::Edge, Mode::Level] {
            if self.table.entry(fd).place(mode).armed {
                let _ = self.update(fd, mode);
            }
        }
    }

    unsafe fn start(&mut self, key: Key, op: Pin<&mut Op>) -> Start {
        // SAFETY: it is not moved out of, only read and pointed to.
        let op = unsafe { op.get_unchecked_mut() };
        let Some(fd) = ops::fd_of(op) else {
            return Start::Offload;
        };
        if fd < 0 {
            return Start::Done(Err(io::Error::from_raw_os_error(libc::EBADF)));
        }
        self.counters.syscalls += 1;
        // SAFETY: the caller's promise.
        let want = match unsafe { ops::attempt(op, false) } {
            Try::Done(result) => return Start::Done(result),
            Try::Blocking => return Start::Offload,
            Try::Wait(want) => want,
        };
        self.table.entry(fd).ops.push(key);
        self.ops.insert(key, Waiting { fd, want, op });
        // An edge that came before this is still to be delivered, so a registration needs no renewal.
        let result = if self.table.entry(fd).edge.armed {
            Ok(())
        } else {
            self.update(fd, Mode::Edge)
        };
        match result {
            Ok(()) => Start::Parked,
            Err(e) => {
                self.table.entry(fd).ops.retain(|k| *k != key);
                self.ops.remove(&key);
                if errno(&e) == libc::EPERM {
                    Start::Offload
                } else {
                    Start::Done(Err(e))
                }
            }
        }
    }

    fn cancel(&mut self, key: Key) -> Cancel {
        if let Some(waiting) = self.ops.remove(&key) {
            let entry = self.table.entry(waiting.fd);
            entry.ops.retain(|k| *k != key);
            // The registration stays for the next operation, until the descriptor is closed.
        }
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
            result = self.edge.wait(&mut buffer, timeout, self.mask.as_ref());
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

    fn set_signal_mask(&mut self, during_wait: Option<libc::sigset_t>) {
        self.mask = during_wait;
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

    fn as_raw_fd(&self) -> Option<RawFd> {
        Some(self.edge.as_raw_fd())
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
