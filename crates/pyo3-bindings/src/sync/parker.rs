//! How a native thread without a hub waits.

use crate::tstate;
use gevent_hub_core::reactor::{Nanos, monotonic};
use pyo3::ffi;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// One wait of one thread. It takes no lock that a fork could leave locked.
pub struct Parker {
    thread: Thread,
    reason: AtomicU8,
}

/// Not woken yet.
const ASLEEP: u8 = 0;
/// Woken: what is waited for may be there, or was taken.
const WOKEN: u8 = 1;
/// Woken, because what is waited for will never come.
const CLOSED: u8 = 2;
/// Woken, because it went wrong.
const FAILED: u8 = 3;

impl Parker {
    /// For the calling thread.
    pub fn new() -> Arc<Self> {
        Arc::new(Parker {
            thread: thread::current(),
            reason: AtomicU8::new(ASLEEP),
        })
    }

    fn end(&self, reason: u8) {
        self.reason.store(reason, Ordering::Release);
        self.thread.unpark();
    }

    /// Ends the wait, from any thread.
    pub fn wake(&self) {
        self.end(WOKEN);
    }

    /// Ends it for good.
    pub fn close(&self) {
        self.end(CLOSED);
    }

    /// Ends it with an error, which is kept elsewhere.
    pub fn fail(&self) {
        self.end(FAILED);
    }

    /// Whether it was ended.
    pub fn is_woken(&self) -> bool {
        self.reason.load(Ordering::Acquire) != ASLEEP
    }

    /// Whether by `close`.
    pub fn is_closed(&self) -> bool {
        self.reason.load(Ordering::Acquire) == CLOSED
    }

    /// Whether by `fail`.
    pub fn has_failed(&self) -> bool {
        self.reason.load(Ordering::Acquire) == FAILED
    }

    /// Makes it usable once more.
    pub fn reset(&self) {
        self.reason.store(ASLEEP, Ordering::Release);
    }

    /// Waits without the GIL until woken or `deadline`. True if woken.
    ///
    /// # Safety
    /// The GIL is held, by the thread that made it.
    pub unsafe fn wait(&self, deadline: Option<Nanos>) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.wait_after(deadline, || {}) }
    }

    /// The same; `first` is called when the GIL is free.
    ///
    /// # Safety
    /// As [`wait`](Self::wait); `first` touches nothing of Python's.
    pub unsafe fn wait_after(&self, deadline: Option<Nanos>, first: impl FnOnce()) -> bool {
        // SAFETY: the GIL is held, and taken again before anything of Python's is touched.
        unsafe {
            let saved = ffi::PyEval_SaveThread();
            first();
            while !self.is_woken() {
                match deadline {
                    None => thread::park(),
                    Some(at) => {
                        let now = monotonic();
                        if now >= at {
                            break;
                        }
                        thread::park_timeout(Duration::from_nanos(at - now));
                    }
                }
            }
            tstate::restore_thread(saved);
        }
        self.is_woken()
    }
}
