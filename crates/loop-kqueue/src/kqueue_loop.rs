//! The loop: two planes of registrations, operations by readiness, subjects, the wait.

use crate::plane::{Filters, Place, What, has_ended, is_closed};
use crate::subjects::{Subjects, adding};
use crate::sys::*;
use crate::waker::Waker;
use gevent_hub_core::by_readiness::{Begun, Entry, Table};
use gevent_hub_core::event_loop::{
    Cancel, Caps, Counters, Event, How, Interest, Key, Loop, Mode, Op, Readiness, Start, Subject,
    Until, Wake, Watch,
};
use gevent_hub_core::os::{errno, of_call};
use gevent_hub_core::reactor::monotonic;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;

/// Events taken by one wait.
const ROOM: usize = 256;
/// Waits that follow one which came back full, within a poll.
const ROUNDS: usize = 16;

/// What is known of a descriptor, in each plane.
#[derive(Default)]
struct Places {
    what: What,
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

/// What the queue of `mode` should hold of a descriptor.
fn wanted(entry: &Entry<Places>, mode: Mode) -> Filters {
    let what = entry.place.what;
    let mut filters = Filters::of(entry.want(mode), what);
    if mode == Mode::Edge {
        if entry.has_ops() {
            filters.insert(Filters::BOTH);
        }
        // Urgent data ends the wait of a reader, as it does for poll(2).
        if filters.has(Filters::READ) {
            filters.insert(Filters::of(Readiness::PRI, what));
        }
    }
    filters
}

/// The kqueue loop.
pub struct KqueueLoop {
    /// Owns the edge queue.
    waker: Arc<Waker>,
    /// Nested in the edge queue; made when it is needed.
    level: Option<Queue>,
    /// Asked about directions that nobody watches; made when it is needed.
    scratch: Option<Queue>,
    table: Table<Places>,
    subjects: Subjects,
    /// The process that the queues are of.
    pid: u32,
    /// Descriptors with events in the batch at hand.
    touched: Vec<RawFd>,
    buffer: Vec<Kevent>,
    caps: Caps,
    counters: Counters,
}

impl KqueueLoop {
    /// A loop of the calling thread.
    ///
    /// # Errors
    /// [`Refused`](crate::Refused), inside of the [`io::Error`]: `EMFILE`, `ENFILE`, `ENOMEM` of kqueue(2) and
    /// kevent(2).
    pub fn new() -> io::Result<KqueueLoop> {
        let edge = of_call("kqueue(2)", Queue::open())?;
        Ok(KqueueLoop {
            waker: Arc::new(of_call("kevent(2)", Waker::new(edge))?),
            level: None,
            scratch: None,
            table: Table::default(),
            subjects: Subjects::default(),
            pid: std::process::id(),
            touched: Vec::new(),
            buffer: vec![Kevent::default(); ROOM],
            caps: Caps {
                name: "kqueue",
                stream: How::Emulated,
                connect: How::Emulated,
                file: How::Offloaded,
                path: How::Offloaded,
            },
            counters: Counters::default(),
        })
    }

    /// Makes the queue of `mode` hold what is wanted of `fd`; `renew` as in [`Place::update`].
    fn update(&mut self, fd: RawFd, mode: Mode, renew: bool) -> io::Result<()> {
        let entry = self.table.entry(fd);
        let filters = wanted(entry, mode);
        let mut place = *entry.place.of(mode);
        if mode == Mode::Level && self.level.is_none() {
            if filters.is_empty() {
                return Ok(());
            }
            self.make_level()?;
        }
        let (queue, clear) = match (mode, &self.level) {
            (Mode::Level, Some(level)) => (level, 0),
            _ => (self.waker.queue(), EV_CLEAR),
        };
        self.counters.syscalls += 1;
        let result = place.update(queue, fd, filters, clear, renew);
        *self.table.entry(fd).place.of(mode) = place;
        result
    }

    /// A forked child has no queues. The reactor says so in its at-fork hook; this is for processes that forked
    /// without any.
    fn notice_fork(&mut self) -> io::Result<()> {
        if self.pid != std::process::id() {
            self.after_fork()?;
        }
        Ok(())
    }

    fn make_level(&mut self) -> io::Result<()> {
        let level = Queue::open()?;
        let nest = Kevent::new(level.as_raw_fd() as usize, EVFILT_READ, EV_ADD);
        self.waker.queue().kevent(&[nest], &mut [], Some(0))?;
        self.counters.syscalls += 2;
        self.level = Some(level);
        Ok(())
    }

    /// Sorts the events of a wait. Those of descriptors are gathered, because a descriptor has one event for
    /// each direction, and delivered at the end.
    fn deliver(&mut self, mode: Mode, events: &[Kevent], out: &mut Vec<Event>) -> io::Result<()> {
        let level = self.level.as_ref().map(|l| l.as_raw_fd() as usize);
        let mut nested = false;
        for event in events {
            if mode == Mode::Edge && self.waker.is_wake(event) {
                self.waker.accept();
                out.push(Event::Woken);
                continue;
            }
            match event.filter {
                EVFILT_PROC | EVFILT_VNODE => self.subjects.tell(event, out),
                EVFILT_READ if mode == Mode::Edge && Some(event.ident) == level => nested = true,
                _ => self.gather(mode, event),
            }
        }
        self.settle(mode, out);
        if nested {
            self.deliver_level(out)?;
        }
        Ok(())
    }

    fn deliver_level(&mut self, out: &mut Vec<Event>) -> io::Result<()> {
        let mut events = vec![Kevent::default(); ROOM];
        // The order of a queue is kept by asking until it is empty, but what is ready for long comes again and
        // again: one round is enough, as the next poll brings the next one.
        let Some(level) = &self.level else {
            return Ok(());
        };
        self.counters.syscalls += 1;
        let n = match level.kevent(&[], &mut events, Some(0)) {
            Err(e) if errno(&e) == libc::EINTR => return Ok(()),
            result => result?,
        };
        self.deliver(Mode::Level, &events[..n], out)
    }

    fn gather(&mut self, mode: Mode, event: &Kevent) {
        let fd = event.ident as RawFd;
        let Some(entry) = self.table.get(fd) else {
            return;
        };
        let (what, mut place) = (entry.place.what, *entry.place.of(mode));
        let (scratch, calls) = (&mut self.scratch, &mut self.counters.syscalls);
        let before = place.got;
        place.note(event, what, |filter| {
            *calls += 2;
            if scratch.is_none() {
                *scratch = Queue::open().ok();
            }
            scratch.as_ref().is_some_and(|q| has_ended(q, fd, filter))
        });
        *entry.place.of(mode) = place;
        if before.is_empty() {
            self.touched.push(fd);
        }
    }

    /// Delivers what was gathered.
    fn settle(&mut self, mode: Mode, out: &mut Vec<Event>) {
        let touched = std::mem::take(&mut self.touched);
        for &fd in &touched {
            let entry = self.table.entry(fd);
            let got = std::mem::take(&mut entry.place.of(mode).got);
            if wanted(entry, mode).is_empty() {
                self.silence(fd, mode);
                continue;
            }
            let try_ops = mode == Mode::Edge && entry.has_ops();
            self.table.tell(fd, mode, got, out);
            if try_ops {
                self.counters.syscalls += self.table.try_ops(fd, got, out);
            }
        }
        self.touched = touched;
        self.touched.clear();
    }

    /// An event came for nobody: the last watcher is gone, or the descriptor was not closed after all.
    fn silence(&mut self, fd: RawFd, mode: Mode) {
        let place = self.table.entry(fd).place.of(mode);
        place.armed = Filters::BOTH;
        place.armed.insert(Filters::EXCEPT);
        let _ = self.update(fd, mode, false);
    }

    fn forget_places(&mut self, fd: RawFd) {
        if let Some(entry) = self.table.get(fd) {
            entry.place = Places::default();
        }
    }

    /// Registers all again, in queues that have nothing. Descriptors that are closed by now are left out.
    fn register_all(&mut self) -> io::Result<()> {
        let mut again = Vec::new();
        for (fd, entry) in self.table.all() {
            for mode in [Mode::Edge, Mode::Level] {
                *entry.place.of(mode) = Place::default();
                if !wanted(entry, mode).is_empty() {
                    again.push((fd, mode));
                }
            }
        }
        for (fd, mode) in again {
            match self.update(fd, mode, true) {
                Err(e) if !is_closed(&e) => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// One wait. An interruption is no event.
    fn wait(&mut self, timeout: Option<u64>) -> io::Result<usize> {
        let queue = self.waker.queue();
        self.counters.syscalls += 1;
        match queue.kevent(&[], &mut self.buffer, timeout) {
            Err(e) if errno(&e) == libc::EINTR => Ok(0),
            result => result,
        }
    }
}

impl Loop for KqueueLoop {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn watch(&mut self, fd: RawFd, key: Key, want: Interest, mode: Mode) -> io::Result<Watch> {
        self.notice_fork()?;
        match self.table.forget(key) {
            Some((old, old_mode)) if (old, old_mode) != (fd, mode) => {
                self.update(old, old_mode, false)?;
            }
            _ => {}
        }
        self.counters.syscalls += 1;
        let what = What::of(fd)?;
        if what == What::File {
            return Ok(Watch::AlwaysReady);
        }
        self.table.entry(fd).place.what = what;
        self.table.add(fd, key, want, mode);
        // Renewed, because a new edge watcher has to hear of what is ready by now, and the number may have been
        // closed and opened again without our being told.
        if let Err(e) = self.update(fd, mode, true) {
            self.table.forget(key);
            return Err(e);
        }
        let filters = Filters::of(want, what);
        if self.table.entry(fd).place.of(mode).armed.has(filters) {
            return Ok(Watch::Armed);
        }
        self.table.forget(key);
        Ok(Watch::AlwaysReady)
    }

    fn watch_subject(&mut self, what: Subject, key: Key) -> io::Result<()> {
        self.notice_fork()?;
        self.counters.syscalls += 1;
        self.waker
            .queue()
            .kevent(&[adding(what)], &mut [], Some(0))?;
        self.subjects.add(what, key);
        Ok(())
    }

    fn unwatch(&mut self, key: Key) {
        let Some((fd, mode)) = self.table.forget(key) else {
            for change in self.subjects.remove(key) {
                self.counters.syscalls += 1;
                // It fails when the process has ended, or the file was closed.
                let _ = self.waker.queue().kevent(&[change], &mut [], Some(0));
            }
            return;
        };
        let left = wanted(self.table.entry(fd), mode);
        // The last level watcher is removed from the queue only if an event comes for nobody, as libev does it:
        // often the same descriptor is watched again before that.
        if left.is_empty() != (mode == Mode::Level) {
            let _ = self.update(fd, mode, false);
        }
    }

    fn fd_closing(&mut self, fd: RawFd, out: &mut Vec<Event>) {
        self.table.close(fd, out);
        if !Queue::FORGETS_CLOSED && self.table.get(fd).is_some() {
            for mode in [Mode::Edge, Mode::Level] {
                let _ = self.update(fd, mode, false);
            }
        }
        self.forget_places(fd);
        self.subjects.close(fd);
    }

    unsafe fn start(&mut self, key: Key, op: Pin<&mut Op>) -> Start {
        if let Err(e) = self.notice_fork() {
            return Start::Done(Err(e));
        }
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
        let result = What::of(fd).and_then(|what| {
            self.table.entry(fd).place.what = what;
            self.update(fd, Mode::Edge, false)
        });
        match result {
            Ok(()) if self.table.entry(fd).place.edge.armed.has(Filters::BOTH) => Start::Parked,
            Ok(()) => {
                self.table.drop_op(key);
                Start::Offload
            }
            Err(e) => {
                self.table.drop_op(key);
                Start::Done(Err(e))
            }
        }
    }

    fn cancel(&mut self, key: Key) -> Cancel {
        // The registration stays for the next operation, until the descriptor is closed or an event of it comes.
        self.table.drop_op(key);
        Cancel::Cancelled
    }

    fn poll(&mut self, until: Until, out: &mut Vec<Event>) -> io::Result<()> {
        self.notice_fork()?;
        let before = out.len();
        self.counters.polls += 1;
        let mut timeout = match until {
            Until::Now => Some(0),
            Until::At(at) => Some(at.saturating_sub(monotonic())),
            Until::Forever => None,
        };
        for _ in 0..ROUNDS {
            let n = self.wait(timeout)?;
            let buffer = std::mem::take(&mut self.buffer);
            let result = self.deliver(Mode::Edge, &buffer[..n], out);
            self.buffer = buffer;
            result?;
            if n < ROOM {
                break;
            }
            timeout = Some(0);
        }
        self.counters.events += (out.len() - before) as u64;
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn after_fork(&mut self) -> io::Result<()> {
        self.pid = std::process::id();
        for queue in [self.level.take(), self.scratch.take()]
            .into_iter()
            .flatten()
        {
            queue.abandon();
        }
        self.subjects.clear();
        self.waker.after_fork(Queue::open()?)?;
        self.register_all()
    }

    fn as_raw_fd(&mut self) -> Option<RawFd> {
        Some(self.waker.queue().as_raw_fd())
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
