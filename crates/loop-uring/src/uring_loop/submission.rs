//! What goes into the ring: requests that are queued, and cancels of those that nobody wants any more.

use super::{IGNORED, UringLoop, WAKER};
use crate::requests::{Phase, What};
use crate::sqe;
use gevent_hub_core::event_loop::Mode;
use io_uring::squeue;
use std::mem;

impl UringLoop {
    pub(super) fn enqueue(&mut self, index: u32) {
        self.requests.get(index).phase = Phase::Queued;
        let name = self.requests.user_data(index);
        self.queue.push_back(name);
    }

    /// Moves the queue into the ring, as far as the kernel takes it.
    pub(super) fn flush(&mut self) {
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

    /// Gives up what the kernel still has of `index`.
    pub(super) fn discard(&mut self, index: u32) {
        if self.requests.get(index).phase == Phase::Kernel {
            self.unwanted.push(self.requests.user_data(index));
            self.requests.kill(index);
        } else {
            self.requests.remove(index);
        }
    }

    /// Puts cancels of everything unwanted into the ring; whether there was anything.
    pub(super) fn flush_unwanted(&mut self) -> bool {
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
}
