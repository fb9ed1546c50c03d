//! `gevent.thread.LockType`: the lock that stands for `threading.Lock` in patched programs.

use super::args::{Limit, flag, seconds};
use super::linkable::{self, Linkable};
use super::object::free;
use super::semaphore::{self, Semaphore, acquire_waiting, try_acquire};
use super::{Obj, call_python};
use crate::gevent_greenlet::make_type;
use crate::raw::{Args, boolean, fast, noargs, none};
use gevent_hub_core::reactor::monotonic;
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::null_mut;

/// The limit of an acquire. `Ok(None)`: it is not to wait at all. `Err` with an error set.
unsafe fn limit(slf: Obj, blocking: Obj, timeout: Obj) -> Result<Option<Limit>, ()> {
    // SAFETY: a lock and arguments that the caller holds.
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
        match acquire_waiting(me, limit) {
            Ok(taken) => boolean(taken),
            Err(()) => null_mut(),
        }
    }
}

unsafe extern "C" fn enter(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a lock.
    unsafe {
        let me = slf.cast::<Semaphore>();
        if !try_acquire(me) && acquire_waiting(me, Limit::Never).is_err() {
            return null_mut();
        }
        none()
    }
}

unsafe extern "C" fn tp_init(slf: Obj, args: Obj, kwargs: Obj) -> c_int {
    // SAFETY: the slot's contract; borrowed arguments.
    unsafe {
        if ffi::PyTuple_GET_SIZE(args) != 0 || (!kwargs.is_null() && ffi::PyDict_Size(kwargs) != 0)
        {
            let text = c"LockType() takes no arguments";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return -1;
        }
        semaphore::make_lock(slf.cast());
        0
    }
}

unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe {
        Linkable::finish(slf.cast());
        free(slf);
    }
}

unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe { Linkable::traverse(slf.cast(), visit, arg) }
}

unsafe extern "C" fn clear(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        Linkable::clear(slf.cast());
        0
    }
}

unsafe extern "C" fn reinit(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a lock.
    unsafe {
        linkable::reinit(slf.cast());
        semaphore::make_lock(slf.cast());
        none()
    }
}

/// Adds the type; `base` is `BoundedSemaphore`.
pub fn register(m: &Bound<'_, PyModule>, base: *mut PyTypeObject) -> PyResult<()> {
    let py = m.py();
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
    let slots = [
        (ffi::Py_tp_init, tp_init as *mut c_void),
        (ffi::Py_tp_dealloc, dealloc as *mut c_void),
        (ffi::Py_tp_traverse, traverse as *mut c_void),
        (ffi::Py_tp_clear, clear as *mut c_void),
        (
            ffi::Py_tp_doc,
            c"A lock. It cannot be subclassed, as the one it replaces."
                .as_ptr()
                .cast_mut()
                .cast(),
        ),
    ];
    // SAFETY: at the module's initialisation, with the GIL held; the size is that of the struct. Nothing
    // was made of the type yet.
    unsafe {
        let ty = make_type(
            py,
            c"gevent.thread.LockType",
            size_of::<Semaphore>(),
            base,
            methods,
            vec![],
            &slots,
        )?;
        (*ty).tp_flags &= !ffi::Py_TPFLAGS_BASETYPE;
        m.add("LockType", Bound::from_borrowed_ptr(py, ty.cast()))
    }
}
