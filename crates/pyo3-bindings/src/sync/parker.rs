//! How a native thread without a hub waits.

use crate::tstate;
use gevent_hub_core::reactor::{Nanos, monotonic};
use pyo3::ffi;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// One wait of one thread. It takes no lock that a fork could leave locked.
pub struct Parker {
    thread: Thread,
    woken: AtomicBool,
}

impl Parker {
    /// For the calling thread.
    pub fn new() -> Arc<Self> {
        Arc::new(Parker {
            thread: thread::current(),
            woken: AtomicBool::new(false),
        })
    }

    /// Ends the wait, from any thread.
    pub fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Whether it was ended.
    pub fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Makes it usable once more.
    pub fn reset(&self) {
        self.woken.store(false, Ordering::Release);
    }

    /// Waits without the GIL until woken or `deadline`. True if woken.
    ///
    /// # Safety
    /// The GIL is held, by the thread that made it.
    pub unsafe fn wait(&self, deadline: Option<Nanos>) -> bool {
        // SAFETY: the GIL is held, and taken again before anything of Python's is touched.
        unsafe {
            let saved = ffi::PyEval_SaveThread();
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
            while tstate::finalizing() {
                // The interpreter ends: it would end this thread in the middle of our frames.
                thread::park();
            }
            ffi::PyEval_RestoreThread(saved);
        }
        self.is_woken()
    }
}
