//! Semaphores, locks, events, asynchronous results and queues: the raw types behind the public modules.
//!
//! What they know, who waits for them, who is told when, and what comes of a wait is [`gevent_sync`]'s; here
//! Python's values are converted, its functions called and its errors raised. All state is guarded by the
//! GIL: nothing that can run Python happens between looking at an object and changing it. A greenlet is
//! only ever gone on with by its own hub; other threads ask that hub through its reactor's remote queue
//! ([`homes`]). A wake hands something over only if it comes from another thread, since the hub goes on
//! with a greenlet at once; and a greenlet that was interrupted with such a gift under way gives it back.

pub mod args;
pub mod async_result;
mod channel;
pub mod dummy;
pub mod event;
pub mod exchange;
pub mod homes;
pub mod linkable;
mod linkable_type;
pub mod object;
mod others;
pub mod parker;
pub mod queue;
mod rlock;
pub mod semaphore;
mod thread_lock;
mod told;
mod wait;

pub use args::flag;

use crate::hub::HubCore;
use crate::thread_data::ThreadData;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::ffi::CStr;
use std::sync::atomic::{AtomicUsize, Ordering};

type Obj = *mut PyObject;

thread_local! {
    static THREAD: u8 = const { 0 };
}

/// The main thread's mark: the only one in which waiting makes a hub.
static MAIN: AtomicUsize = AtomicUsize::new(0);

/// A number that differs between living threads, and is neither 0 nor 1.
#[inline]
fn thread_mark() -> usize {
    THREAD.with(|t| std::ptr::from_ref(t) as usize)
}

/// Which threads have used an object: none, one, or several.
#[derive(Clone, Copy, Default)]
pub struct Users(usize);

impl Users {
    const SEVERAL: usize = 1;

    /// The calling thread uses it.
    #[inline]
    pub fn saw(&mut self) {
        let mark = thread_mark();
        if self.0 != mark {
            self.0 = if self.0 == 0 { mark } else { Self::SEVERAL };
        }
    }

    /// Whether another thread has used it, and there is one that may do so again: then the caller may wait
    /// for it, though nothing is left in its loop.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline]
    pub unsafe fn may_include_others(self) -> bool {
        // SAFETY: the caller's promise.
        self.0 == Self::SEVERAL && unsafe { others::exist() }
    }
}

/// Whether the running greenlet is the hub, which cannot wait.
#[inline]
pub fn in_hub() -> bool {
    HubCore::is_running()
}

/// Says that the calling thread is the main one: at the import of gevent, and in the child of a fork.
#[crate::entry]
#[pyfunction]
fn set_main_thread() {
    MAIN.store(thread_mark(), Ordering::Relaxed);
    others::forget();
}

fn in_main_thread() -> bool {
    MAIN.load(Ordering::Relaxed) == thread_mark()
}

/// Calls `module.name(*args)`; null with an error set. For what is rare and lives in Python.
///
/// # Safety
/// The GIL is held; `args` are alive.
unsafe fn call_python(module: &CStr, name: &CStr, args: &[Obj]) -> Obj {
    // SAFETY: the GIL is held; arguments are borrowed.
    unsafe {
        let m = ffi::PyImport_ImportModule(module.as_ptr());
        if m.is_null() {
            return m;
        }
        let f = ffi::PyObject_GetAttrString(m, name.as_ptr());
        ffi::Py_DECREF(m);
        if f.is_null() {
            return f;
        }
        let r = ffi::PyObject_Vectorcall(f, args.as_ptr(), args.len(), std::ptr::null_mut());
        ffi::Py_DECREF(f);
        r
    }
}

/// Python is about to run on behalf of the running greenlet.
///
/// # Safety
/// The GIL is held.
pub(crate) unsafe fn enter_python() {
    // SAFETY: the caller's promise.
    unsafe {
        let td = ThreadData::get();
        td.install(td.current.get());
    }
}

/// Adds the types and functions of this folder.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    set_main_thread();
    m.add_function(wrap_pyfunction!(set_main_thread, m)?)?;
    others::register(m)?;
    let base = linkable_type::register(m)?;
    semaphore::register(m, base)?;
    rlock::register(m)?;
    event::register(m, base)?;
    async_result::register(m, base)?;
    queue::register(m)?;
    channel::register(m)?;
    dummy::register(m)
}
