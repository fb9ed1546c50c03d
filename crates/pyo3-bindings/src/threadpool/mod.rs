//! What a thread pool does for each task: `queue` brings it to a worker, `result` brings the result back.
//!
//! A wake that is sent while the sender holds the GIL makes the other thread run only to find the GIL
//! taken: two switches of threads for nothing. So whoever is about to let go of the GIL anyhow may put
//! its wakes off until then, with `wake_later` and `send_later`: the thread of a hub that goes to
//! sleep next, and a worker that is done.

mod queue;
mod result;

use crate::event_loop::Payload;
use gevent_hub_core::reactor::{Entry, Remote, Wake};
use gevent_sync::parker::Parker;
use pyo3::prelude::*;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

pub use result::finish_from_queue;

#[derive(Default)]
struct Later {
    threads: RefCell<Vec<Arc<Parker>>>,
    results: RefCell<Vec<(Arc<Remote>, usize)>>,
    /// Packed payloads that could not be sent.
    refused: RefCell<Vec<usize>>,
    any: Cell<bool>,
}

thread_local! {
    static LATER: Later = Later::default();
}

/// Wakes a thread at this thread's next [`flush`].
fn wake_later(parker: Arc<Parker>) {
    LATER.with(|later| {
        later.threads.borrow_mut().push(parker);
        later.any.set(true);
    });
}

/// Puts a packed payload into a hub's queue at this thread's next [`flush`].
fn send_later(remote: Arc<Remote>, word: usize) {
    LATER.with(|later| {
        later.results.borrow_mut().push((remote, word));
        later.any.set(true);
    });
}

/// Sends what was put off. Needs no GIL; [`settle`] is to follow when it is held.
#[inline]
pub fn flush() {
    LATER.with(|later| {
        if later.any.replace(false) {
            later.send();
        }
    });
}

impl Later {
    #[cold]
    fn send(&self) {
        for parker in self.threads.take() {
            parker.end(Wake::Event);
        }
        for (remote, word) in self.results.take() {
            if !remote.push(Entry::Call(word)) {
                self.refused.borrow_mut().push(word);
            }
        }
    }
}

/// Drops what could not be sent, since its hub is gone.
///
/// # Safety
/// The GIL is held. May run Python.
pub unsafe fn settle() {
    for word in LATER.with(|later| later.refused.take()) {
        // SAFETY: each word is a packed payload that nobody else has.
        unsafe { Payload::from_word(word) }.discard();
    }
}

/// Sends what this thread has put off.
#[crate::entry]
#[pyfunction]
fn flush_wakes() {
    flush();
    // SAFETY: functions of Python's are called with the GIL held.
    unsafe { settle() };
}

/// Adds the types and functions of this folder.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(flush_wakes, m)?)?;
    queue::register(m)?;
    result::register(m)
}
