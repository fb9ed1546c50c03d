//! The [`Loop`] on a ring: what it consists of, and one poll.
//!
//! - `submission`: what goes in.
//! - `completion`: what comes out.
//! - `verify`: events that have to be asked about again.
//! - `cancel`: what ends before it is done.
//! - `bell`: what others wait for, who wait for the loop.
//! - `fork`: the loop in a child.

mod bell;
mod cancel;
mod completion;
mod fork;
mod submission;
mod verify;

use crate::descriptor::pollable;
use crate::fork_mark::ForkMark;
use crate::requests::{RESERVED, Requests, What};
use crate::ring::Ring;
use crate::setup::{self, Lacking};
use crate::sqe;
use crate::waker::Waker;
use gevent_hub_core::event_loop::{
    Cancel, Caps, Counters, Event, How, Interest, Key, Loop, Mode, Op, Start, Until, Wake, Watch,
};
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;

/// User data of the poll on the waker.
const WAKER: u64 = RESERVED;
/// Of cancels that somebody waits for.
const CANCEL: u64 = RESERVED + 1;
/// Of entries whose completion says nothing.
const IGNORED: u64 = RESERVED + 2;

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
        self.forget_ready(key);
    }

    fn fd_closing(&mut self, fd: RawFd, out: &mut Vec<Event>) {
        self.cancel_fd(fd, out);
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
        self.cancel_op(key)
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
        self.bell_fd()
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
        self.end_ops();
    }
}
