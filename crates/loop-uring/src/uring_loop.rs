//! The [`Loop`] on a ring.

use crate::fork_mark::ForkMark;
use crate::requests::{Phase, RESERVED, Requests, What};
use crate::ring::{Batch, Completion, Ring, now};
use crate::setup::{self, Lacking};
use crate::sqe;
use crate::turns::is_regular;
use crate::waker::Waker;
use gevent_hub_core::event_loop::{
    Cancel, Caps, Counters, Event, How, Interest, Key, Loop, Mode, Op, Readiness, Start, Until,
    Wake, Watch,
};
use io_uring::{cqueue, opcode, squeue};
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;

/// User data of the poll on the waker.
const WAKER: u64 = RESERVED;
/// Of cancels that somebody waits for.
const CANCEL: u64 = RESERVED + 1;
/// Of entries whose completion says nothing.
const IGNORED: u64 = RESERVED + 2;

/// How often a synchronous cancel waits for a completion that is on its way, and how long each time: a
/// request in the hands of a worker thread is left to a later poll.
const CANCEL_ROUNDS: u32 = 3;
const CANCEL_WAIT: u64 = 1_000_000;

/// How often a poll enters the kernel for what has come in: others want to run, too.
const MAX_ENTERS: u32 = 64;

/// The first and the last of the kernel's answers to a signal, which it should keep to itself.
const ERESTARTSYS: i32 = 512;
const ERESTART_RESTARTBLOCK: i32 = 516;

/// How many stages of a request may pass within one poll.
const MAX_ROUNDS: u32 = 4;

/// A loop on io_uring. It must be used by the thread that made it, and only that.
pub struct UringLoop {
    ring: Ring,
    requests: Requests,
    /// What goes to the kernel in the next poll, by user data: stale ones are skipped.
    queue: VecDeque<u64>,
    /// Registrations that fired and will be queued by the next poll.
    resting: Vec<u64>,
    /// Requests of the kernel's that nobody wants any more.
    unwanted: Vec<u64>,
    /// What came in outside of a poll.
    backlog: Vec<Event>,
    /// Kept for its memory.
    asked: Vec<(usize, libc::pollfd)>,
    waker: Arc<Waker>,
    waker_armed: bool,
    /// Rings for those outside who wait for the loop to have something to do. The ring's own descriptor wakes
    /// nobody who waits already, since completion work is left to us, who are asleep elsewhere.
    bell: Option<Arc<Waker>>,
    /// The last synchronous cancel that was refused because a worker has the request.
    busy: bool,
    mark: ForkMark,
    caps: Caps,
    poll_first: bool,
    skip_success: bool,
    /// For the ring of a forked child.
    lacking: Lacking,
    counters: Counters,
    _not_send: PhantomData<*const ()>,
}

impl UringLoop {
    /// A loop of the calling thread.
    ///
    /// # Errors
    /// [`Refused`](crate::Refused), inside of the [`io::Error`], if the kernel has no ring for us; what
    /// eventfd(2) and mmap(2) say otherwise.
    pub fn new() -> io::Result<Self> {
        Self::lacking(Lacking::default())
    }

    /// The same as if the kernel lacked something; for tests.
    ///
    /// # Errors
    /// As [`new`](Self::new), and what is missing.
    #[doc(hidden)]
    pub fn lacking(lacking: Lacking) -> io::Result<Self> {
        let setup = setup::open(&lacking)?;
        let path = if setup.paths {
            How::Native
        } else {
            How::Offloaded
        };
        Ok(UringLoop {
            poll_first: setup.poll_first,
            skip_success: setup.skip_success,
            lacking,
            ring: Ring::new(setup),
            requests: Requests::default(),
            queue: VecDeque::new(),
            resting: Vec::new(),
            unwanted: Vec::new(),
            backlog: Vec::new(),
            asked: Vec::new(),
            waker: Arc::new(Waker::new()?),
            waker_armed: false,
            bell: None,
            busy: false,
            mark: ForkMark::new()?,
            caps: Caps {
                name: "uring",
                stream: How::Native,
                connect: How::Native,
                file: How::Native,
                path,
            },
            counters: Counters::default(),
            _not_send: PhantomData,
        })
    }

    fn enqueue(&mut self, index: u32) {
        self.requests.get(index).phase = Phase::Queued;
        let name = self.requests.user_data(index);
        self.queue.push_back(name);
    }

    /// Moves the queue into the ring, as far as the kernel takes it.
    fn flush(&mut self) {
        for name in mem::take(&mut self.resting) {
            if let Some(index) = self.requests.find(name)
                && self.requests.get(index).phase == Phase::Resting
            {
                self.enqueue(index);
            }
        }
        if !self.waker_armed {
            let entry = sqe::poll(self.waker.fd(), libc::POLLIN as u32, true).user_data(WAKER);
            // SAFETY: it points to nothing.
            self.waker_armed = unsafe { self.ring.push(&entry) };
        }
        while let Some(name) = self.queue.pop_front() {
            let Some(index) = self.requests.find(name) else {
                continue;
            };
            let Some(entry) = self.entry(index) else {
                continue;
            };
            // SAFETY: an operation is pinned until it is over; polls point to nothing.
            if !unsafe { self.ring.push(&entry.user_data(name)) } {
                self.queue.push_front(name);
                return;
            }
            self.requests.get(index).phase = Phase::Kernel;
        }
    }

    /// The entry of a queued request.
    fn entry(&mut self, index: u32) -> Option<squeue::Entry> {
        let r = self.requests.get(index);
        if r.phase != Phase::Queued {
            return None;
        }
        match r.what {
            What::Watch { want, mode, .. } => {
                let latched = if mode == Mode::Edge { sqe::LATCHED } else { 0 };
                Some(sqe::poll(r.fd, sqe::poll_mask(want) | latched, r.multishot))
            }
            What::Op { op, .. } => {
                // SAFETY: pinned until it is over, by the contract of `start`.
                let op = unsafe { &*op };
                if r.polling
                    && let Some(want) = sqe::wait_for(op)
                {
                    return Some(sqe::poll(r.fd, sqe::poll_mask(want), false));
                }
                let (fd, forced) = (r.fd, r.forced);
                if self.requests.is_behind(index) {
                    self.requests.get(index).phase = Phase::Waiting;
                    return None;
                }
                let entry = sqe::build(op, self.poll_first && self.requests.drained(fd))?;
                if forced {
                    return Some(entry.flags(squeue::Flags::ASYNC));
                }
                Some(entry)
            }
            What::Free | What::Dead => None,
        }
    }

    /// The operation `index` is over: the one that has waited longest for it goes on.
    fn finish(&mut self, index: u32) {
        if let Some(next) = self.requests.finish(index) {
            self.requests.get(next).phase = Phase::Queued;
            let name = self.requests.user_data(next);
            self.queue.push_front(name);
        }
    }

    /// Gives up what the kernel still has of `index`.
    fn discard(&mut self, index: u32) {
        if self.requests.get(index).phase == Phase::Kernel {
            self.unwanted.push(self.requests.user_data(index));
            self.requests.kill(index);
        } else {
            self.requests.remove(index);
        }
    }

    fn cancel_entry(name: u64) -> squeue::Entry {
        opcode::AsyncCancel::new(name).build()
    }

    /// Puts cancels of everything unwanted into the ring; whether there was anything.
    fn flush_unwanted(&mut self) -> bool {
        let names = mem::take(&mut self.unwanted);
        let any = !names.is_empty();
        for name in names {
            let mut entry = Self::cancel_entry(name).user_data(IGNORED);
            if self.skip_success {
                entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
            }
            // SAFETY: it points to nothing.
            if self.requests.find(name).is_some() && !unsafe { self.ring.push(&entry) } {
                self.unwanted.push(name);
            }
        }
        any
    }

    /// Takes all completions and turns them into events.
    fn drain(&mut self, out: &mut Vec<Event>) {
        let mut batch = Batch::new();
        let mut enters = 0;
        loop {
            let mut any = false;
            for completion in self.ring.take(&mut batch) {
                any = true;
                self.complete(completion, out);
            }
            if any {
                continue;
            }
            // The queue is empty now, and has room for what the kernel kept aside, or has not looked at yet.
            let more = self.ring.overflown() || self.ring.work_left();
            // An enter that waits for nothing looks at 20 pieces of work at most (since Linux 6.10); to look at
            // more it would have to wait for more, and a wait gives the processor away.
            if !more || enters == MAX_ENTERS || self.ring.enter(None).is_err() {
                return;
            }
            enters += 1;
        }
    }

    fn drain_to_backlog(&mut self) {
        let mut events = mem::take(&mut self.backlog);
        self.drain(&mut events);
        self.backlog = events;
    }

    fn complete(&mut self, (name, result, flags): Completion, out: &mut Vec<Event>) {
        let more = cqueue::more(flags);
        match name {
            WAKER => {
                self.waker_armed = more;
                if result >= 0 {
                    self.waker.seen();
                    out.push(Event::Woken);
                }
                return;
            }
            CANCEL => {
                self.busy |= result == -libc::EALREADY;
                return;
            }
            _ => {}
        }
        let Some(index) = self.requests.find(name) else {
            return;
        };
        match self.requests.get(index).what {
            What::Watch { key, want, mode } => {
                self.complete_watch(index, (key, want, mode), result, more, out)
            }
            What::Op { key, op } => {
                // SAFETY: pinned until it is over, by the contract of `start`.
                let op = unsafe { &*op };
                self.complete_op(index, key, op, result, flags, out);
            }
            What::Dead if !more => self.requests.remove(index),
            What::Dead | What::Free => {}
        }
    }

    fn complete_watch(
        &mut self,
        index: u32,
        (key, want, mode): (Key, Interest, Mode),
        result: i32,
        more: bool,
        out: &mut Vec<Event>,
    ) {
        if result < 0 {
            match -result {
                // Not ours to report: it ended for reasons of the kernel's.
                libc::ECANCELED | libc::EINTR | libc::EAGAIN | libc::ENOMEM => self.enqueue(index),
                // The descriptor was closed before it was armed. Said once, as poll(2) says POLLNVAL.
                _ => {
                    self.requests.get(index).phase = Phase::Resting;
                    out.push(Event::Ready(key, want.with(Readiness::ERR)));
                }
            }
            return;
        }
        let ready = sqe::readiness(result as u32);
        let asked_for = ready.has(want.with(Readiness::HUP).with(Readiness::ERR));
        if mode == Mode::Edge {
            if !more {
                self.enqueue(index);
            }
            if !ready.is_empty() {
                out.push(Event::Ready(key, ready));
            }
        } else if !asked_for {
            // The kernel adds RDHUP to what it is asked for, and would report it for ever to one who only
            // wants to write. A multishot poll reports it once, and other changes after it.
            if !more {
                self.requests.get(index).multishot = true;
                self.enqueue(index);
            }
        } else {
            let mut index = index;
            if more {
                // Back to one-shot polls, under a new name.
                let fd = self.requests.get(index).fd;
                self.discard(index);
                index = self.requests.insert(fd, What::Watch { key, want, mode });
            }
            let r = self.requests.get(index);
            (r.multishot, r.phase) = (false, Phase::Resting);
            let name = self.requests.user_data(index);
            self.resting.push(name);
            out.push(Event::Ready(key, ready));
        }
    }

    fn complete_op(
        &mut self,
        index: u32,
        key: Key,
        op: &Op,
        result: i32,
        flags: u32,
        out: &mut Vec<Event>,
    ) {
        let r = self.requests.get(index);
        let (fd, cancelling) = (r.fd, r.cancelling);
        let was_polling = mem::take(&mut r.polling);
        let result = match -result {
            // What a worker got when it was interrupted: these are for the kernel's own use.
            ERESTARTSYS..=ERESTART_RESTARTBLOCK => -libc::EINTR,
            _ => result,
        };
        let result = match -result {
            // Asked to end, and interrupted on the way, or between an attempt and the next.
            libc::EINTR if cancelling => -libc::ECANCELED,
            libc::EAGAIN if cancelling && sqe::wait_for(op).is_some() => -libc::ECANCELED,
            _ if cancelling && was_polling => -libc::ECANCELED,
            libc::EINTR => return self.enqueue(index),
            libc::EAGAIN if sqe::wait_for(op).is_some() => {
                // A file has no readiness: what says EAGAIN is that it cannot be tried without blocking.
                let file = matches!(op, Op::Read { .. } | Op::Write { .. }) && is_regular(fd);
                let r = self.requests.get(index);
                (r.polling, r.forced) = (!file, file);
                return self.enqueue(index);
            }
            _ if was_polling => return self.enqueue(index),
            _ => result,
        };
        if sqe::receives(op) && result >= 0 {
            self.requests.set_drained(fd, !cqueue::sock_nonempty(flags));
        }
        self.finish(index);
        out.push(Event::Done(key, outcome(result)));
    }

    /// Cancels requests that the kernel has, and waits for their completions as long as these are on their
    /// way. One system call, as a rule: with deferred completion work a parked request can touch its memory
    /// only inside of our own calls.
    fn cancel_in_kernel(&mut self, names: &[u64]) {
        self.drain_to_backlog();
        self.busy = false;
        for &name in names {
            if self.requests.find(name).is_some() {
                // SAFETY: it points to nothing.
                unsafe { self.ring.push(&Self::cancel_entry(name).user_data(CANCEL)) };
            }
        }
        for round in 0..CANCEL_ROUNDS {
            if !names.iter().any(|&name| self.in_kernel(name)) || (round > 0 && self.busy) {
                return;
            }
            let wait = (round > 0).then(|| Until::At(now() + CANCEL_WAIT));
            if self.ring.enter(wait).is_err() {
                return;
            }
            self.drain_to_backlog();
        }
    }

    /// Submits what there is, and waits if nothing has come since `before`.
    fn turn(&mut self, until: Until, before: usize, out: &mut Vec<Event>) -> io::Result<()> {
        self.flush();
        if self.flush_unwanted() {
            // What these bring is not worth waking for, so it is not waited for together with the rest.
            self.ring.enter(None)?;
            self.drain(out);
        }
        let sleep = until != Until::Now && out.len() == before && !self.ring.has_completions();
        if sleep || self.ring.has_work() {
            self.ring.enter(sleep.then_some(until))?;
        }
        self.drain(out);
        Ok(())
    }

    /// Has the kernel wait for everything, and ring the bell, while we do not poll.
    fn leave_to_others(&mut self) -> io::Result<()> {
        self.flush();
        self.flush_unwanted();
        self.ring.enter(None)?;
        let Some(bell) = &self.bell else {
            return Ok(());
        };
        // It has rung for what this poll has taken, too.
        bell.silence();
        if self.ring.has_completions() || self.ring.work_left() || !self.backlog.is_empty() {
            bell.wake();
        }
        Ok(())
    }

    /// Asks poll(2) about events, of those after `before`, that may not be true; all of them in one call.
    ///
    /// A request keeps what it was woken with. So a level-triggered event that is `old` may have been
    /// consumed since, and is taken back; and PRI, with which sockets wake their pollers whatever has come,
    /// would have its hearers look for urgent data in vain at each message.
    fn verify(&mut self, before: usize, out: &mut Vec<Event>, old: bool) {
        let mut asked = mem::take(&mut self.asked);
        asked.clear();
        for (place, event) in out.iter().enumerate().skip(before) {
            if let Event::Ready(key, ready) = event
                && (old || ready.has(Readiness::PRI))
                && let Some(index) = self.requests.watch(*key)
                && let r = self.requests.get(index)
                && let What::Watch { want, mode, .. } = r.what
            {
                let events = match mode {
                    Mode::Level if old => sqe::poll_mask(want) as i16,
                    Mode::Edge if ready.has(Readiness::PRI) => libc::POLLPRI,
                    _ => continue,
                };
                let question = libc::pollfd {
                    fd: r.fd,
                    events,
                    revents: 0,
                };
                asked.push((place, question));
            }
        }
        if !asked.is_empty() {
            self.ask(&mut asked);
            for &(place, answer) in asked.iter().rev() {
                let now = sqe::readiness(u32::from(answer.revents as u16));
                let Event::Ready(_, ready) = &mut out[place] else {
                    continue;
                };
                if answer.events == libc::POLLPRI {
                    *ready = ready.without(Readiness::PRI).with(now);
                } else if now.is_empty() {
                    out.remove(place);
                } else {
                    *ready = now;
                }
            }
        }
        self.asked = asked;
    }

    /// One poll(2) that does not wait.
    fn ask(&mut self, asked: &mut [(usize, libc::pollfd)]) {
        self.ring.syscalls += 1;
        let mut questions: Vec<_> = asked.iter().map(|(_, question)| *question).collect();
        let n = questions.len() as libc::nfds_t;
        // SAFETY: as many valid entries as it is told.
        let answered = unsafe { libc::poll(questions.as_mut_ptr(), n, 0) } >= 0;
        for ((_, question), answer) in asked.iter_mut().zip(questions) {
            // Without an answer everything stays as it was told.
            question.revents = if answered {
                answer.revents
            } else {
                answer.events
            };
        }
    }

    fn in_kernel(&mut self, name: u64) -> bool {
        self.requests
            .find(name)
            .is_some_and(|i| self.requests.get(i).phase == Phase::Kernel)
    }

    fn take_done(&mut self, key: Key) -> Option<io::Result<u32>> {
        let at = self
            .backlog
            .iter()
            .position(|e| matches!(e, Event::Done(k, _) if *k == key))?;
        match self.backlog.remove(at) {
            Event::Done(_, result) => Some(result),
            _ => None,
        }
    }

    /// Whether `op`, under way when this process was forked, is done once and by the parent: a child that repeats
    /// it would write twice, or take a part of the file that the parent then misses.
    fn is_the_parents(op: &Op) -> bool {
        sqe::writes(op) || sqe::moves(op) && is_regular(sqe::fd_of(op))
    }

    /// In a child: a new ring, on which everything goes on.
    fn rebuild(&mut self) -> io::Result<()> {
        self.ring.replace(setup::open(&self.lacking)?);
        self.waker.renew()?;
        self.waker_armed = false;
        if let Some(bell) = &self.bell {
            bell.renew()?;
            self.ring.ring_bell(bell.fd())?;
        }
        self.mark.set();
        self.unwanted.clear();
        self.queue.clear();
        self.resting.clear();
        for index in self.requests.indices() {
            let r = self.requests.get(index);
            let cancelling = r.cancelling;
            match r.what {
                // SAFETY: the child has a copy of the memory, where it was.
                What::Op { key, op } if cancelling || Self::is_the_parents(unsafe { &*op }) => {
                    self.backlog
                        .push(Event::Done(key, outcome(-libc::ECANCELED)));
                    self.requests.remove(index);
                }
                What::Watch { .. } | What::Op { .. } => self.enqueue(index),
                What::Dead => self.requests.remove(index),
                What::Free => {}
            }
        }
        Ok(())
    }
}

/// A result of the kernel's.
fn outcome(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// Whether `fd` can be polled at all: epoll refuses files and directories and devices that have no
/// readiness, and so does this loop, for the same answer.
fn pollable(fd: RawFd) -> io::Result<bool> {
    // SAFETY: all zeros is a valid stat, and an out pointer that is valid for the call.
    let kind = unsafe {
        let mut st: libc::stat = mem::zeroed();
        if libc::fstat(fd, &mut st) != 0 {
            return Err(io::Error::last_os_error());
        }
        st.st_mode & libc::S_IFMT
    };
    match kind {
        libc::S_IFREG | libc::S_IFDIR => Ok(false),
        // Only its driver knows; epoll asks it.
        libc::S_IFCHR => {
            // SAFETY: plain calls; the epoll descriptor is ours and closed again.
            unsafe {
                let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
                if epoll < 0 {
                    return Err(io::Error::last_os_error());
                }
                let mut event = libc::epoll_event { events: 0, u64: 0 };
                let added = libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event);
                let refused =
                    added != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM);
                libc::close(epoll);
                Ok(!refused)
            }
        }
        _ => Ok(true),
    }
}

impl Loop for UringLoop {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn watch(&mut self, fd: RawFd, key: Key, want: Interest, mode: Mode) -> io::Result<Watch> {
        if let Some(index) = self.requests.watch(key) {
            let r = self.requests.get(index);
            if r.fd == fd
                && matches!(r.what, What::Watch { want: w, mode: m, .. } if w == want && m == mode)
            {
                return Ok(Watch::Armed);
            }
            self.discard(index);
        }
        self.ring.syscalls += 1;
        if !pollable(fd)? {
            return Ok(Watch::AlwaysReady);
        }
        let index = self.requests.insert(fd, What::Watch { key, want, mode });
        self.requests.get(index).multishot = mode == Mode::Edge;
        self.enqueue(index);
        Ok(Watch::Armed)
    }

    fn unwatch(&mut self, key: Key) {
        if let Some(index) = self.requests.watch(key) {
            self.discard(index);
        }
        self.backlog
            .retain(|e| !matches!(e, Event::Ready(k, _) if *k == key));
    }

    fn fd_closing(&mut self, fd: RawFd, out: &mut Vec<Event>) {
        let (mut names, mut keys) = (Vec::new(), Vec::new());
        for index in self.requests.of_fd(fd) {
            let name = self.requests.user_data(index);
            let (what, queued) = (self.requests.get(index).what, !self.in_kernel(name));
            match what {
                What::Watch { key, .. } => {
                    self.backlog
                        .retain(|e| !matches!(e, Event::Ready(k, _) if *k == key));
                    self.discard(index);
                }
                What::Op { key, .. } if queued => {
                    self.requests.remove(index);
                    out.push(Event::Done(key, outcome(-libc::ECANCELED)));
                }
                What::Op { key, .. } => {
                    self.requests.get(index).cancelling = true;
                    keys.push(key);
                }
                What::Dead | What::Free => {}
            }
            if self.in_kernel(name) {
                names.push(name);
            }
        }
        if !names.is_empty() {
            self.cancel_in_kernel(&names);
            for key in keys {
                out.extend(self.take_done(key).map(|result| Event::Done(key, result)));
            }
        }
        self.requests.set_drained(fd, false);
    }

    unsafe fn start(&mut self, key: Key, op: Pin<&mut Op>) -> Start {
        // SAFETY: the operation is not moved through the pointer.
        let op: *mut Op = unsafe { op.get_unchecked_mut() };
        // SAFETY: valid now, and until it is over, by the caller's promise.
        let what = unsafe { &*op };
        let native = match what {
            Op::OpenAt { .. } | Op::Statx { .. } | Op::Fsync { .. } => {
                self.caps.path == How::Native
            }
            other => sqe::build(other, false).is_some(),
        };
        if !native {
            return Start::Offload;
        }
        let index = self.requests.insert(sqe::fd_of(what), What::Op { key, op });
        self.enqueue(index);
        Start::Parked
    }

    fn cancel(&mut self, key: Key) -> Cancel {
        let Some(index) = self.requests.op(key) else {
            return self
                .take_done(key)
                .map_or(Cancel::Cancelled, Cancel::Finished);
        };
        if self.requests.get(index).phase != Phase::Kernel {
            self.finish(index);
            return Cancel::Cancelled;
        }
        self.requests.get(index).cancelling = true;
        let name = self.requests.user_data(index);
        self.cancel_in_kernel(&[name]);
        match self.take_done(key) {
            Some(Err(e)) if e.raw_os_error() == Some(libc::ECANCELED) => Cancel::Cancelled,
            Some(result) => Cancel::Finished(result),
            None => Cancel::Pending,
        }
    }

    fn poll(&mut self, until: Until, out: &mut Vec<Event>) -> io::Result<()> {
        if self.mark.forked() {
            self.rebuild()?;
        }
        self.counters.polls += 1;
        let before = out.len();
        out.append(&mut self.backlog);
        // What came in before this poll may have been consumed since.
        let old = out.len() > before || self.ring.work_left() || self.ring.has_completions();
        for _ in 0..MAX_ROUNDS {
            self.turn(until, before, out)?;
            // Nothing for our caller, but a request of ours goes into its next stage.
            if out.len() > before || self.queue.is_empty() {
                break;
            }
        }
        self.verify(before, out, old);
        self.counters.events += (out.len() - before) as u64;
        if self.bell.is_some() {
            self.leave_to_others()?;
        }
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn after_fork(&mut self) -> io::Result<()> {
        self.rebuild()
    }

    fn as_raw_fd(&mut self) -> Option<RawFd> {
        if self.bell.is_none() {
            let bell = Arc::new(Waker::new().ok()?);
            self.ring.ring_bell(bell.fd()).ok()?;
            self.waker.ring(&bell);
            self.bell = Some(bell);
            self.leave_to_others().ok()?;
        }
        self.bell.as_ref().map(|bell| bell.fd())
    }

    fn counters(&self) -> Counters {
        Counters {
            syscalls: self.ring.syscalls,
            saved: self.ring.saved,
            ..self.counters
        }
    }
}

impl Drop for UringLoop {
    /// Waits until the kernel has let go of the memory of every operation.
    fn drop(&mut self) {
        if self.mark.forked() {
            self.ring.leave();
            return;
        }
        let mut events = Vec::new();
        for index in self.requests.indices() {
            let r = self.requests.get(index);
            let phase = r.phase;
            match r.what {
                What::Op { .. } if phase != Phase::Kernel => self.requests.remove(index),
                What::Op { .. } => {
                    self.requests.get(index).cancelling = true;
                    let entry =
                        Self::cancel_entry(self.requests.user_data(index)).user_data(IGNORED);
                    // SAFETY: it points to nothing.
                    unsafe { self.ring.push(&entry) };
                }
                _ => {}
            }
        }
        while self.requests.has_ops() {
            if self.ring.enter(Some(Until::Forever)).is_err() {
                break;
            }
            self.drain(&mut events);
        }
    }
}
