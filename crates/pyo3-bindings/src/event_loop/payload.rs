//! What the binding puts behind the `usize` of queue entries and watchers: tagged pointers.

use crate::event_loop::callback::Callback;
use pyo3::ffi;

const MASK: usize = 7;
const NOTIFY: usize = 3;

/// A payload of [`Entry::Call`](gevent_hub_core::reactor::Entry::Call); it owns what it points to.
pub enum Payload {
    /// A `callback` object to call.
    Callback(*mut ffi::PyObject),
    /// A greenlet to start, if it has not been cancelled.
    Start(*mut ffi::PyObject),
    /// Native work for the loop's thread, run with the hub's Python state installed.
    Job(Box<Job>),
    /// A greenlet whose links are to be told that it is over.
    Notify(*mut ffi::PyObject),
    /// An event, semaphore or result whose waiters are to be told.
    Links(*mut ffi::PyObject),
    /// A queue whose waiters are to be served.
    Queue(*mut ffi::PyObject),
    /// The result of a task of a thread pool.
    Done(*mut ffi::PyObject),
    /// Something that was needed so long.
    Drop(*mut ffi::PyObject),
}

/// Native work for the loop's thread.
pub type Job = Box<dyn FnOnce()>;

impl Payload {
    /// Packs it into a word.
    pub fn into_word(self) -> usize {
        match self {
            Payload::Callback(p) => p as usize,
            Payload::Start(p) => p as usize | 1,
            Payload::Job(b) => Box::into_raw(b) as usize | 2,
            Payload::Notify(p) => p as usize | NOTIFY,
            Payload::Done(p) => p as usize | 4,
            Payload::Links(p) => p as usize | 5,
            Payload::Queue(p) => p as usize | 6,
            Payload::Drop(p) => p as usize | 7,
        }
    }

    /// Unpacks it.
    ///
    /// # Safety
    /// `word` came from [`into_word`](Self::into_word) and is unpacked once.
    pub unsafe fn from_word(word: usize) -> Self {
        let p = (word & !MASK) as *mut ffi::PyObject;
        match word & MASK {
            0 => Payload::Callback(p),
            1 => Payload::Start(p),
            // SAFETY: packed from a box by `into_word`.
            2 => Payload::Job(unsafe { Box::from_raw((word & !MASK) as *mut Job) }),
            NOTIFY => Payload::Notify(p),
            4 => Payload::Done(p),
            5 => Payload::Links(p),
            6 => Payload::Queue(p),
            _ => Payload::Drop(p),
        }
    }

    /// Whether a word is one that is run without the hub's Python state, of which it mostly has no need.
    #[inline]
    pub fn is_native(word: usize) -> bool {
        word & MASK >= 5
    }

    /// Whether a word stands for news that primitives or other threads have, and not for a greenlet's turn or a
    /// callback. A primitive counts on it being told.
    pub fn is_news(word: &usize) -> bool {
        matches!(word & MASK, 2 | 4 | 5)
    }

    /// In a forked child: an entry for others than the running greenlet will not be run, nor what it owns freed.
    ///
    /// # Safety
    /// `word` is in a queue; the GIL is held.
    pub unsafe fn left_behind(word: usize) {
        if word & MASK == NOTIFY {
            // SAFETY: a `Greenlet`, by its tag.
            unsafe { crate::gevent_greenlet::leave_links((word & !MASK) as *mut ffi::PyObject) };
        }
    }

    /// Gives up what it owns without running it. The GIL is held.
    pub fn discard(self) {
        match self {
            // SAFETY: an owned reference; the GIL is held.
            Payload::Callback(p) => unsafe {
                Callback::forget(p);
                ffi::Py_DECREF(p);
            },
            // SAFETY: as above.
            Payload::Notify(p) => unsafe {
                crate::gevent_greenlet::forget_notice(p);
                ffi::Py_DECREF(p);
            },
            Payload::Start(p)
            | Payload::Done(p)
            | Payload::Links(p)
            | Payload::Queue(p)
            | Payload::Drop(p) => {
                // SAFETY: an owned reference; the GIL is held.
                unsafe { ffi::Py_DECREF(p) }
            }
            Payload::Job(job) => drop(job),
        }
    }
}

/// What a reactor watcher belongs to; borrowed: the owner keeps itself alive while it is active.
#[derive(Clone, Copy)]
pub enum Owner {
    /// A Python watcher object.
    Watcher(*mut ffi::PyObject),
    /// A `Timeout`.
    Timeout(*mut ffi::PyObject),
    /// A greenlet to be started by a timer.
    StartLater(*mut ffi::PyObject),
}

impl Owner {
    /// Packs it into a word.
    pub fn into_word(self) -> usize {
        match self {
            Owner::Watcher(p) => p as usize,
            Owner::Timeout(p) => p as usize | 1,
            Owner::StartLater(p) => p as usize | 2,
        }
    }

    /// Unpacks it.
    pub fn from_word(word: usize) -> Self {
        let p = (word & !MASK) as *mut ffi::PyObject;
        match word & MASK {
            0 => Owner::Watcher(p),
            1 => Owner::Timeout(p),
            _ => Owner::StartLater(p),
        }
    }
}
