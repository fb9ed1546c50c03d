//! Requests that end before they are done: one that is cancelled, and all of a descriptor that is closed.

use super::completion::outcome;
use super::{CANCEL, IGNORED, UringLoop};
use crate::requests::{Phase, What};
use crate::ring::now;
use gevent_hub_core::event_loop::{Cancel, Event, Key, Until};
use io_uring::{opcode, squeue};
use std::io;
use std::os::fd::RawFd;

/// How often a synchronous cancel waits for a completion that is on its way, and how long each time: a
/// request in the hands of a worker thread is left to a later poll.
const CANCEL_ROUNDS: u32 = 3;
const CANCEL_WAIT: u64 = 1_000_000;

impl UringLoop {
    /// Ends the operation `key`, or asks for its end: see [`Loop::cancel`](super::Loop::cancel).
    pub(super) fn cancel_op(&mut self, key: Key) -> Cancel {
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

    /// Ends everything of `fd`, which is about to be closed: its operations are over, or asked to be.
    pub(super) fn cancel_fd(&mut self, fd: RawFd, out: &mut Vec<Event>) {
        let (mut names, mut keys) = (Vec::new(), Vec::new());
        for index in self.requests.of_fd(fd) {
            let name = self.requests.user_data(index);
            let (what, queued) = (self.requests.get(index).what, !self.in_kernel(name));
            match what {
                What::Watch { key, .. } => {
                    self.forget_ready(key);
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

    /// Waits until the kernel has let go of the memory of every operation.
    pub(super) fn end_ops(&mut self) {
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

    /// Forgets what came in for the registration `key` and was not told yet.
    pub(super) fn forget_ready(&mut self, key: Key) {
        self.backlog
            .retain(|e| !matches!(e, Event::Ready(k, _) if *k == key));
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

    pub(super) fn cancel_entry(name: u64) -> squeue::Entry {
        opcode::AsyncCancel::new(name).build()
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
}
