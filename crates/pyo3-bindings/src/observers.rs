//! Telling who watches Python code (trace and profile functions, tools of `sys.monitoring`) that another
//! greenlet goes on.
//!
//! They learn of a switch only by the next call or return, where they may ask which greenlet runs. A
//! greenlet that comes back from a wait in native code makes none by itself, and the lines that follow
//! would be put down to the greenlet that ran before. So it calls a Python function that does nothing, if
//! somebody watches.

use crate::cells::GilCell;
use crate::raw::{self, one};
use crate::tstate;
use pyo3::ffi::{self, PyObject, PyThreadState};
use pyo3::prelude::*;
use std::cell::Cell;
use std::ptr::null_mut;

unsafe extern "C" {
    fn gl_tracers(ts: *mut PyThreadState) -> *const [usize; 2];
    fn gl_monitoring(ts: *mut PyThreadState) -> *const usize;
}

/// What of the word of `gl_monitoring` is the version; the rest are requests to the evaluation loop.
const VERSION: usize = if cfg!(Py_3_13) { !0xff } else { !0 };
/// How many tools `sys.monitoring` offers; trace and profile functions have numbers above.
const TOOLS: u8 = 6;
/// `PY_START` and `PY_RETURN`.
const CALLS: usize = 1 << 0 | 1 << 2;

/// What is called in a greenlet that goes on; an owned reference or null.
static RESUMED: GilCell<*mut PyObject> = GilCell::new(null_mut());

/// Who watches a thread.
pub struct Observers {
    /// The thread's profile and trace functions, 0 for none.
    functions: *const [usize; 2],
    /// Changes whenever some tool of the interpreter wants other events than before.
    monitoring: *const usize,
    /// The version in which no tool wanted to know of calls.
    quiet: Cell<usize>,
    /// The last version in which one did.
    loud: Cell<usize>,
}

impl Observers {
    /// Those of the thread state, in which nobody has been looked for yet.
    ///
    /// # Safety
    /// The GIL is held; `ts` is the thread's, and outlives the value.
    pub unsafe fn of(ts: *mut PyThreadState) -> Self {
        // SAFETY: the caller's promise.
        let (functions, monitoring) = unsafe { (gl_tracers(ts), gl_monitoring(ts)) };
        Observers {
            functions,
            monitoring,
            quiet: Cell::new(0),
            loud: Cell::new(0),
        }
    }

    /// # Safety
    /// As [`tell`](Self::tell).
    #[inline]
    unsafe fn version(&self) -> usize {
        // SAFETY: a word of the interpreter's, which only it writes, with the GIL held.
        unsafe { self.monitoring.read_volatile() & VERSION }
    }

    /// # Safety
    /// As [`tell`](Self::tell).
    #[inline]
    unsafe fn functions(&self) -> bool {
        // SAFETY: two words of the thread state, which outlives this and is read with the GIL held.
        let [profile, trace] = unsafe { self.functions.read() };
        profile | trace != 0
    }

    /// Whether somebody may watch: a quick look, to be confirmed by [`tell`](Self::tell).
    ///
    /// # Safety
    /// As [`tell`](Self::tell).
    #[inline]
    pub unsafe fn may_be(&self) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.functions() || (cfg!(Py_3_12) && self.version() != self.quiet.get()) }
    }

    /// Makes a call and a return for who watches. An error that is set is kept. `Err` with an error set if a
    /// watcher raised.
    ///
    /// # Safety
    /// In the thread of this, with the GIL held and the running greenlet's state installed.
    #[cold]
    pub unsafe fn tell(&self) -> Result<(), ()> {
        // SAFETY: the caller's promise; the function lives for ever. What it may run (a trace function) is as
        // in any call of Python code, and no borrow is alive.
        unsafe {
            let resumed = RESUMED.get();
            if resumed.is_null() {
                return Ok(());
            }
            let pending = tstate::take_raised();
            let told = if self.functions() || self.tools() {
                raw::done(ffi::PyObject_CallNoArgs(resumed))
            } else {
                Ok(())
            };
            if pending.is_null() {
                return told;
            }
            match told {
                Ok(()) => tstate::set_raised(pending),
                Err(()) => ffi::Py_DECREF(pending),
            }
            told
        }
    }

    /// Whether a tool wants to know of the calls of all code. No error is left set.
    ///
    /// # Safety
    /// As [`tell`](Self::tell).
    unsafe fn tools(&self) -> bool {
        // SAFETY: the GIL is held.
        let version = unsafe { self.version() };
        if version == self.quiet.get() {
            return false;
        }
        if version == self.loud.get() {
            return true;
        }
        // SAFETY: as above; a borrowed reference to a module, or null.
        let wanted = unsafe {
            let monitoring = ffi::PySys_GetObject(c"monitoring".as_ptr());
            let py = Python::assume_attached();
            Bound::from_borrowed_ptr_or_opt(py, monitoring).is_some_and(|m| wants_calls(&m))
        };
        let seen = if wanted { &self.loud } else { &self.quiet };
        seen.set(version);
        wanted
    }
}

fn wants_calls(monitoring: &Bound<'_, PyAny>) -> bool {
    let Ok(events_of) = monitoring.getattr("get_events") else {
        return false;
    };
    (0..TOOLS).any(|tool| {
        let events = events_of.call1((tool,));
        events
            .and_then(|e| e.extract::<usize>())
            .is_ok_and(|e| e & CALLS != 0)
    })
}

#[crate::entry]
unsafe extern "C" fn call_when_resumed(_: *mut PyObject, function: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the C API calls it; the old function is dropped after it was replaced.
    unsafe {
        let old = RESUMED.get();
        RESUMED.set(ffi::Py_NewRef(function));
        ffi::Py_XDECREF(old);
        raw::none()
    }
}

/// Adds the function.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    raw::add_functions(
        m,
        "gevent.hub",
        vec![one(
            c"call_when_resumed",
            call_when_resumed,
            c"Have the function called in each greenlet that comes back from the hub, where code is traced, profiled or monitored.",
        )],
    )
}
