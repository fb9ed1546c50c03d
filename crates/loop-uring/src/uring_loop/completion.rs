//! What comes out of the ring, and the events that it makes.

use super::{CANCEL, UringLoop, WAKER};
use crate::descriptor::is_regular;
use crate::requests::{Phase, What};
use crate::ring::{Batch, Completion};
use crate::sqe;
use gevent_hub_core::event_loop::{Event, Interest, Key, Mode, Op, Readiness};
use io_uring::cqueue;
use std::io;
use std::mem;

/// How often a poll enters the kernel for what has come in: others want to run, too.
const MAX_ENTERS: u32 = 64;

/// The first and the last of the kernel's answers to a signal, which it should keep to itself.
const ERESTARTSYS: i32 = 512;
const ERESTART_RESTARTBLOCK: i32 = 516;

impl UringLoop {
    /// Takes all completions and turns them into events.
    pub(super) fn drain(&mut self, out: &mut Vec<Event>) {
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

    pub(super) fn drain_to_backlog(&mut self) {
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
        } else if asked_for {
            self.rest(index, (key, want, mode), more);
            out.push(Event::Ready(key, ready));
        } else if !more {
            // The kernel adds RDHUP to what it is asked for, and would report it for ever to one who only
            // wants to write. A multishot poll reports it once, and other changes after it.
            self.requests.get(index).multishot = true;
            self.enqueue(index);
        }
    }

    /// Lets a level-triggered registration that fired rest until the next poll.
    fn rest(&mut self, mut index: u32, (key, want, mode): (Key, Interest, Mode), more: bool) {
        if more {
            // Back to one-shot polls, under a new name.
            let fd = self.requests.get(index).fd;
            self.discard(index);
            index = self.requests.insert(fd, What::Watch { key, want, mode });
        }
        let r = self.requests.get(index);
        (r.multishot, r.phase) = (false, Phase::Resting);
        self.resting.push(self.requests.user_data(index));
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
        let fd = r.fd;
        let was_polling = mem::take(&mut r.polling);
        let result = match next_stage(op, result, r.cancelling, was_polling) {
            Stage::Over(result) => result,
            Stage::Again => return self.enqueue(index),
            Stage::WhenReady => {
                // A file has no readiness: what says EAGAIN is that it cannot be tried without blocking.
                let file = matches!(op, Op::Read { .. } | Op::Write { .. }) && is_regular(fd);
                (r.polling, r.forced) = (!file, file);
                return self.enqueue(index);
            }
        };
        if sqe::receives(op) && result >= 0 {
            self.requests.set_drained(fd, !cqueue::sock_nonempty(flags));
        }
        self.finish(index);
        out.push(Event::Done(key, outcome(result)));
    }

    /// The operation `index` is over: the one that has waited longest for it goes on.
    pub(super) fn finish(&mut self, index: u32) {
        if let Some(next) = self.requests.finish(index) {
            self.requests.get(next).phase = Phase::Queued;
            let name = self.requests.user_data(next);
            self.queue.push_front(name);
        }
    }
}

/// A result of the kernel's.
pub(super) fn outcome(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// What becomes of an operation after a completion.
enum Stage {
    Over(i32),
    Again,
    /// Once the descriptor is ready.
    WhenReady,
}

/// What follows from the kernel's `result` of a request for `op`, which was the operation itself or, if it
/// `was_polling`, a poll in its place.
fn next_stage(op: &Op, result: i32, cancelling: bool, was_polling: bool) -> Stage {
    let result = match -result {
        // What a worker got when it was interrupted: these are for the kernel's own use.
        ERESTARTSYS..=ERESTART_RESTARTBLOCK => -libc::EINTR,
        _ => result,
    };
    let waits = || sqe::wait_for(op).is_some();
    match -result {
        // Asked to end, and interrupted on the way, or between an attempt and the next.
        libc::EINTR if cancelling => Stage::Over(-libc::ECANCELED),
        libc::EAGAIN if cancelling && waits() => Stage::Over(-libc::ECANCELED),
        _ if cancelling && was_polling => Stage::Over(-libc::ECANCELED),
        libc::EINTR => Stage::Again,
        libc::EAGAIN if waits() => Stage::WhenReady,
        _ if was_polling => Stage::Again,
        _ => Stage::Over(result),
    }
}
