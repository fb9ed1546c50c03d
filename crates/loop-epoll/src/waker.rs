//! The waker: an eventfd behind a flag, so that many wakes are one write. It is watched for its edges: each
//! write is one, and nobody reads the counter, which would take longer than a process lives to be full.

use crate::sys::{self, Epoll};
use gevent_hub_core::event_loop::Wake;
use gevent_hub_core::os::check;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Wakes an epoll loop. Owns its descriptor, so it may outlive the loop. Usable in a signal handler.
pub struct EventWaker {
    fd: OwnedFd,
    pending: AtomicBool,
}

impl EventWaker {
    pub fn new() -> io::Result<Self> {
        Ok(EventWaker {
            fd: sys::eventfd()?,
            pending: AtomicBool::new(false),
        })
    }

    /// Called by the loop when there was an edge. A wake before this finds the flag set and is covered by the
    /// caller's look at the queues, which follows; one after it is another edge.
    pub fn accept(&self) {
        self.pending.store(false, Ordering::SeqCst);
    }

    /// Has the loop's set tell of the edges.
    pub fn watch(&self, set: &Epoll, data: u64) -> io::Result<()> {
        let edges = (libc::EPOLLIN | libc::EPOLLET) as u32;
        set.set(self.as_raw_fd(), false, edges, data).1
    }

    /// In a forked child: puts a new eventfd in the place of the one shared with the parent.
    pub fn after_fork(&self) -> io::Result<()> {
        let new = sys::eventfd()?;
        // SAFETY: no memory is passed; the old descriptor is replaced at once, so its number stays ours.
        check(unsafe { libc::dup3(new.as_raw_fd(), self.as_raw_fd(), libc::O_CLOEXEC) })?;
        if self.pending.load(Ordering::SeqCst) {
            self.write();
        }
        Ok(())
    }

    fn write(&self) {
        let one = 1u64;
        // SAFETY: eight bytes from `one`. It can fail only when the counter is full: then it is readable.
        unsafe { libc::write(self.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

impl AsRawFd for EventWaker {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Wake for EventWaker {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::SeqCst) {
            self.write();
        }
    }
}
