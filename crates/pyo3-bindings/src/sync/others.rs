//! Whether a native thread besides the caller's could end a wait.
//!
//! Threads that gevent started for itself (workers of pools, monitors) do not count: they use objects of the
//! program only while they run a task, and then the loop knows about it. Who starts one says so before, and
//! it tells here that it is one; that it has ended is seen.

use pyo3::ffi;
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Guarded by the GIL; the lock is for the compiler.
static HELPERS: Mutex<Helpers> = Mutex::new(Helpers::new());

struct Helpers {
    /// How many have a Python state, but have not told who they are.
    starting: usize,
    /// The identifiers of their Python states.
    known: Vec<i64>,
}

impl Helpers {
    const fn new() -> Self {
        Helpers {
            starting: 0,
            known: Vec::new(),
        }
    }
}

fn helpers<R>(f: impl FnOnce(&mut Helpers) -> R) -> R {
    f(&mut HELPERS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A helper is about to be started.
#[pyfunction]
fn helper_thread_starts() {
    helpers(|h| h.starting += 1);
}

/// It could not be started.
#[pyfunction]
fn helper_thread_failed() {
    helpers(|h| h.starting = h.starting.saturating_sub(1));
}

/// The calling thread is the helper that was started.
#[pyfunction]
fn helper_thread_begins() {
    // SAFETY: a function that Python calls has the GIL, and so a state.
    let id = unsafe { ffi::PyThreadState_GetID(ffi::PyThreadState_Get()) };
    helpers(|h| {
        h.starting = h.starting.saturating_sub(1);
        h.known.push(id);
    });
}

/// In the child of a fork: the calling thread is the only one.
pub fn forget() {
    helpers(|h| *h = Helpers::new());
}

/// Whether a thread of the program's, besides the calling one, has a Python state.
///
/// # Safety
/// The GIL is held.
#[cold]
pub unsafe fn exist() -> bool {
    helpers(|h| {
        // SAFETY: the GIL is held, without which no state leaves the list; a new one comes at its head.
        unsafe {
            let me = ffi::PyThreadState_Get();
            let mut state =
                ffi::PyInterpreterState_ThreadHead(ffi::PyThreadState_GetInterpreter(me));
            let (mut others, mut alive) = (0, 0);
            while !state.is_null() {
                let id = ffi::PyThreadState_GetID(state);
                if let Some(at) = h.known.iter().position(|known| *known == id) {
                    h.known.swap(at, alive);
                    alive += 1;
                } else if state != me {
                    others += 1;
                }
                state = ffi::PyThreadState_Next(state);
            }
            h.known.truncate(alive);
            others > h.starting
        }
    })
}

/// Adds what helpers call.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(helper_thread_starts, m)?)?;
    m.add_function(wrap_pyfunction!(helper_thread_failed, m)?)?;
    m.add_function(wrap_pyfunction!(helper_thread_begins, m)?)
}
