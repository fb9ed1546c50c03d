//! The [`Loop`] on epoll.

#[cfg(test)]
mod tests;

use crate::interest::{EDGE, level_events, readiness};
use crate::places::{LEVEL, Origin, Places, Set, data_of, is_wanted};
use crate::sys::{Epoll, Timeout};
use crate::waker::EventWaker;
use gevent_hub_core::by_readiness::{Begun, Table};
use gevent_hub_core::event_loop::{
    Cancel, Caps, Counters, Event, How, Interest, Key, Loop, Mode, Op, Readiness, Start, Until,
    Wake, Watch,
};
use gevent_hub_core::os::{errno, of_call};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;

/// The data of the waker's event: no descriptor has this number.
const WAKER: u64 = u32::MAX as u64;
/// The data of the nested set's event.
const NESTED: u64 = u32::MAX as u64 - 1;
/// Events taken by one wait.
const ROOM: usize = 512;
/// Waits that follow one which came back full, within a poll.
const ROUNDS: usize = 16;

/// The epoll loop.
pub struct EpollLoop {
    main: Epoll,
    /// In `main`; made when it is needed.
    nested: Option<Epoll>,
    table: Table<Places>,
    waker: Arc<EventWaker>,
    buffer: Vec<libc::epoll_event>,
    nested_buffer: Vec<libc::epoll_event>,
    /// An event came from a description that can no longer be removed: the sets have to be made anew.
    stale: bool,
    caps: Caps,
    counters: Counters,
}

impl EpollLoop {
    /// A loop of the calling thread.
    ///
    /// # Errors
    /// [`Refused`](crate::Refused), inside of the [`io::Error`]: `EMFILE`, `ENFILE`, `ENOMEM` of epoll_create1(2), epoll_ctl(2)
    /// and eventfd(2).
    pub fn new() -> io::Result<EpollLoop> {
        let main = of_call("epoll_create1(2)", Epoll::new())?;
        let waker = Arc::new(of_call("eventfd(2)", EventWaker::new())?);
        of_call("epoll_ctl(2)", waker.watch(&main, WAKER))?;
        Ok(EpollLoop {
            main,
            nested: None,
            table: Table::default(),
            waker,
            buffer: Vec::with_capacity(ROOM),
            nested_buffer: Vec::new(),
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

    /// Tells the kernel what the registration of `mode` shall be, or to forget it.
    fn update(&mut self, fd: RawFd, mode: Mode) -> io::Result<()> {
        let entry = self.table.entry(fd);
        let level = entry.place.set_of_level();
        let set = match mode {
            Mode::Edge => Set::Main,
            Mode::Level => level,
        };
        if is_wanted(entry, mode) {
            let moves = mode == Mode::Edge && entry.place.level.armed && level == Set::Main;
            if moves {
                self.make_room(fd)?;
            }
            self.arm(fd, mode, set, moves)
        } else {
            if entry.place.of(mode).armed {
                // It fails when the descriptor was closed: then it is gone already, or its description lives
                // on elsewhere, and the next event of it is recognised by its generation.
                let _ = self.delete(fd, set);
            }
            self.table.entry(fd).place.of(mode).leave();
            Ok(())
        }
    }

    /// Registers `fd` in a set, or renews its registration there; `takes_over` says that it is the other mode's.
    fn arm(&mut self, fd: RawFd, mode: Mode, set: Set, takes_over: bool) -> io::Result<()> {
        let entry = self.table.entry(fd);
        let events = match mode {
            Mode::Edge => EDGE,
            Mode::Level => level_events(entry.want(mode)),
        };
        let place = *entry.place.of(mode);
        let epoll = match set {
            Set::Main => &self.main,
            Set::Nested => self.nested()?,
        };
        let expected = place.armed || takes_over;
        let (calls, result) = epoll.set(fd, expected, events, data_of(fd, mode, place));
        self.counters.syscalls += u64::from(calls);
        let places = &mut self.table.entry(fd).place;
        places.of(mode).armed = result.is_ok();
        if mode == Mode::Level {
            places.level_is_nested = set == Set::Nested;
        }
        result
    }

    /// Moves the level's registration from the main set to the nested one, but leaves it there to be taken over.
    fn make_room(&mut self, fd: RawFd) -> io::Result<()> {
        let before = self.table.entry(fd).place.level;
        self.table.entry(fd).place.level.leave();
        let moved = match is_wanted(self.table.entry(fd), Mode::Level) {
            true => self.arm(fd, Mode::Level, Set::Nested, false),
            false => Ok(()),
        };
        if moved.is_err() {
            let places = &mut self.table.entry(fd).place;
            (places.level, places.level_is_nested) = (before, false);
        }
        moved
    }

    /// The nested set.
    fn nested(&mut self) -> io::Result<&Epoll> {
        let nested = match self.nested.take() {
            Some(nested) => nested,
            None => {
                let nested = Epoll::new()?;
                self.counters.syscalls += 2;
                let fd = nested.as_raw_fd();
                self.main.set(fd, false, libc::EPOLLIN as u32, NESTED).1?;
                nested
            }
        };
        Ok(self.nested.insert(nested))
    }

    fn delete(&mut self, fd: RawFd, set: Set) -> io::Result<()> {
        let epoll = match set {
            Set::Main => Some(&self.main),
            Set::Nested => self.nested.as_ref(),
        };
        self.counters.syscalls += 1;
        epoll.map_or(Ok(()), |epoll| epoll.delete(fd))
    }

    /// The events of one wait for a set.
    fn deliver(
        &mut self,
        set: Set,
        buffer: &[libc::epoll_event],
        out: &mut Vec<Event>,
    ) -> io::Result<()> {
        for e in buffer {
            let (data, events) = (e.u64, e.events);
            match data & u64::from(u32::MAX) {
                WAKER => {
                    self.waker.accept();
                    out.push(Event::Woken);
                }
                NESTED => self.deliver_nested(out)?,
                _ => self.ready(Origin::of(data, set), readiness(events), out),
            }
        }
        Ok(())
    }

    fn deliver_nested(&mut self, out: &mut Vec<Event>) -> io::Result<()> {
        let Some(nested) = &mut self.nested else {
            return Ok(());
        };
        let mut buffer = std::mem::take(&mut self.nested_buffer);
        buffer.clear();
        buffer.reserve(ROOM);
        self.counters.syscalls += 1;
        let mut result = nested.wait(&mut buffer, Timeout::Zero);
        if result.is_ok() {
            result = self.deliver(Set::Nested, &buffer, out);
        }
        self.nested_buffer = buffer;
        result
    }

    fn ready(&mut self, origin: Origin, got: Readiness, out: &mut Vec<Event>) {
        let Origin { fd, mode, .. } = origin;
        let Some(entry) = self.table.get(fd) else {
            return;
        };
        let place = *entry.place.of(mode);
        if !place.armed || place.generation != origin.generation {
            let replaced = entry.place.is_in(origin.set);
            return self.drop_stale(fd, origin.set, replaced);
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
    fn drop_stale(&mut self, fd: RawFd, set: Set, replaced: bool) {
        self.stale |= replaced || self.delete(fd, set).is_err();
    }

    /// Makes both sets anew and registers all again. Descriptors that are closed by now are left out.
    fn rebuild(&mut self) -> io::Result<()> {
        let main = Epoll::new()?;
        self.waker.watch(&main, WAKER)?;
        self.main = main;
        self.nested = None;
        self.stale = false;
        let mut again = Vec::new();
        for (fd, entry) in self.table.all() {
            for mode in [Mode::Edge, Mode::Level] {
                entry.place.of(mode).leave();
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
            result = self.main.wait(&mut buffer, timeout);
            if result.is_ok() {
                result = self.deliver(Set::Main, &buffer, out);
            }
            // The events of level watchers would come again.
            let is_full = buffer.len() == ROOM;
            if result.is_err() || !is_full || buffer.iter().any(|e| e.u64 as u32 & LEVEL != 0) {
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
        Some(self.main.as_raw_fd())
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
