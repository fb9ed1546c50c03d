//! `gevent.thread.LockType`: the lock that stands for `threading.Lock` in patched programs.

use super::args::{Limit, flag, seconds};
use super::linkable;
use super::semaphore::{self, Semaphore, acquire_waiting, try_acquire};
use super::{Obj, call_python};
use crate::raw::{Args, answer_bool, boolean, fast, noargs, none};
use crate::raw_type::{NewType, takes_nothing};
use gevent_hub_core::reactor::monotonic;
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::{CStr, c_int};
use std::ptr::null_mut;

/// The limit of an acquire. `Ok(None)`: it is not to wait at all. `Err` with an error set.
///
/// # Safety
/// The GIL is held; the caller has a reference to `slf`, a lock, and to the arguments, which may be null.
unsafe fn limit(slf: Obj, blocking: Obj, timeout: Obj) -> Result<Option<Limit>, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let blocking = flag(blocking, true)?;
        let value = if timeout.is_null() {
            -1.0
        } else {
            seconds(timeout)?
        };
        if value == -1.0 {
            return Ok(blocking.then_some(Limit::Never));
        }
        let fail = |class: Obj, text: &CStr| {
            ffi::PyErr_SetString(class, text.as_ptr());
            Err(())
        };
        if !blocking {
            let text = c"can't specify a timeout for a non-blocking call";
            return fail(ffi::PyExc_ValueError, text);
        }
        if value < 0.0 {
            return fail(
                ffi::PyExc_ValueError,
                c"timeout value must be strictly positive",
            );
        }
        let most = ffi::PyObject_GetAttrString(slf, c"_TIMEOUT_MAX".as_ptr());
        if most.is_null() {
            return Err(());
        }
        let most_seconds = seconds(most);
        ffi::Py_DECREF(most);
        if value > most_seconds? {
            return fail(ffi::PyExc_OverflowError, c"timeout value is too large");
        }
        let nanos = crate::event_loop::nanos(value);
        Ok(Some(Limit::At(monotonic().saturating_add(nanos))))
    }
}

#[crate::entry]
unsafe extern "C" fn acquire(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, names: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let me = slf.cast::<Semaphore>();
        if n == 0 && names.is_null() && try_acquire(me) {
            return boolean(true);
        }
        let args = Args::new(items, n, names);
        let Ok([blocking, timeout]) = args.parse(c"acquire", [c"blocking", c"timeout"]) else {
            return null_mut();
        };
        let Ok(limit) = limit(slf, blocking, timeout) else {
            return null_mut();
        };
        if try_acquire(me) {
            return boolean(true);
        }
        let Some(limit) = limit else {
            // A loop that goes on trying would never get it.
            let r = call_python(c"gevent.thread", c"_let_others_run", &[]);
            if r.is_null() {
                return r;
            }
            ffi::Py_DECREF(r);
            return boolean(false);
        };
        answer_bool(acquire_waiting(me, limit))
    }
}

#[crate::entry]
unsafe extern "C" fn enter(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a lock.
    unsafe {
        let me = slf.cast::<Semaphore>();
        if !try_acquire(me) && acquire_waiting(me, Limit::Never).is_err() {
            return null_mut();
        }
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn tp_init(slf: Obj, args: Obj, kwargs: Obj) -> c_int {
    // SAFETY: the slot's contract; borrowed arguments.
    unsafe {
        if takes_nothing(args, kwargs, c"LockType() takes no arguments") < 0 {
            return -1;
        }
        semaphore::make_lock(slf.cast());
        0
    }
}

#[crate::entry]
unsafe extern "C" fn reinit(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a lock.
    unsafe {
        linkable::reinit(slf.cast());
        semaphore::make_lock(slf.cast());
        none()
    }
}

/// Adds the type; `base` is `BoundedSemaphore`.
pub fn register(m: &Bound<'_, PyModule>, base: *mut PyTypeObject) -> PyResult<()> {
    let methods = vec![
        fast(
            c"acquire",
            acquire,
            0,
            c"acquire(blocking=True, timeout=-1)\n\nAcquire the lock, waiting for it if *blocking*, at most *timeout* seconds unless -1.",
        ),
        noargs(c"__enter__", enter, c"Acquire it."),
        noargs(
            c"_at_fork_reinit",
            reinit,
            c"Make it free, in the child after a fork.",
        ),
    ];
    // SAFETY: at the module's initialisation, with the GIL held. Nothing was made of the type yet.
    unsafe {
        let ty = NewType::of::<Semaphore>(c"gevent.thread.LockType")
            .about(c"A lock. It cannot be subclassed, as the one it replaces.")
            .below(base)
            .methods(methods)
            .init_by(tp_init)
            .ended_by(linkable::dealloc, linkable::traverse, linkable::clear)
            .add(m, None)?;
        (*ty).tp_flags &= !ffi::Py_TPFLAGS_BASETYPE;
    }
    Ok(())
}
