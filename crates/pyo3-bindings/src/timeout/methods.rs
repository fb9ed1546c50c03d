//! The methods.

use super::slots::{fill, tp_new};
use super::timer::{begin, halt, is_pending};
use super::{Obj, STATICS, cast, is_timeout};
use crate::gevent_greenlet::throw_exception;
use crate::raw::{self, absent, boolean, method, none, parsed};
use pyo3::ffi;
use std::ptr::null_mut;

#[crate::entry]
pub(super) unsafe extern "C" fn start(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a timeout.
    unsafe {
        if begin(cast(slf)).is_ok() {
            none()
        } else {
            null_mut()
        }
    }
}

#[crate::entry]
pub(super) unsafe extern "C" fn close(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a timeout.
    unsafe {
        halt(cast(slf));
        (*cast(slf)).closed = true;
        none()
    }
}

#[crate::entry]
pub(super) unsafe extern "C" fn cancel(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a timeout.
    unsafe {
        halt(cast(slf));
        if (*cast(slf)).one_shot {
            (*cast(slf)).closed = true;
        }
        none()
    }
}

method!(
    parsed: on_expiration,
    c"_on_expiration",
    [c"prev_greenlet", c"ex"],
    |_class, [greenlet, ex]| {
        if greenlet.is_null() || ex.is_null() {
            let text = c"_on_expiration() takes 2 arguments";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return null_mut();
        }
        throw_exception(greenlet, ex)
    }
);

/// Calls `start`, the class's if it has its own.
///
/// # Safety
/// As `timeout` says.
pub(super) unsafe fn start_any(t: Obj) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if ffi::Py_TYPE(t) == STATICS.timeout {
            return begin(cast(t));
        }
        let r = ffi::PyObject_CallMethodNoArgs(t, STATICS.str_start);
        if r.is_null() {
            return Err(());
        }
        ffi::Py_DECREF(r);
        Ok(())
    }
}

/// # Safety
/// As `timeout` says; `class` is a class of timeouts.
pub(super) unsafe fn new_started(
    class: Obj,
    timeout: Obj,
    exception: Obj,
    counts: Obj,
    one_shot: Obj,
) -> Obj {
    // SAFETY: a class of timeouts; arguments are borrowed or null.
    unsafe {
        if !timeout.is_null() && is_timeout(timeout) {
            if !is_pending(cast(timeout)) && start_any(timeout).is_err() {
                return null_mut();
            }
            return ffi::Py_NewRef(timeout);
        }
        let t = if class == STATICS.timeout.cast() {
            let t = tp_new(class.cast(), null_mut(), null_mut());
            if !t.is_null() && fill(cast(t), [timeout, exception, counts, null_mut(), one_shot]) < 0
            {
                ffi::Py_DECREF(t);
                return null_mut();
            }
            t
        } else {
            call_class(class, timeout, exception, counts, one_shot)
        };
        if !t.is_null() && start_any(t).is_err() {
            ffi::Py_DECREF(t);
            return null_mut();
        }
        t
    }
}

/// `class(timeout, exception, ref=counts, _one_shot=one_shot)`.
///
/// # Safety
/// As `timeout` says; `class` is a class of timeouts.
pub(super) unsafe fn call_class(
    class: Obj,
    timeout: Obj,
    exception: Obj,
    counts: Obj,
    one_shot: Obj,
) -> Obj {
    // SAFETY: borrowed arguments or null.
    unsafe {
        let or_none = |p: Obj| if p.is_null() { ffi::Py_None() } else { p };
        let args = raw::pair(or_none(timeout), or_none(exception));
        let kwargs = ffi::PyDict_New();
        let mut t = null_mut();
        if !args.is_null() && !kwargs.is_null() {
            let counts = if counts.is_null() {
                ffi::Py_True()
            } else {
                counts
            };
            let one_shot = if one_shot.is_null() {
                ffi::Py_False()
            } else {
                one_shot
            };
            if ffi::PyDict_SetItemString(kwargs, c"ref".as_ptr(), counts) == 0
                && ffi::PyDict_SetItemString(kwargs, c"_one_shot".as_ptr(), one_shot) == 0
            {
                t = ffi::PyObject_Call(class, args, kwargs);
            }
        }
        ffi::Py_XDECREF(args);
        ffi::Py_XDECREF(kwargs);
        t
    }
}

method!(
    parsed: start_new,
    c"start_new",
    [c"timeout", c"exception", c"ref", c"_one_shot"],
    |class, [timeout, exception, counts, one_shot]| {
        new_started(class, timeout, exception, counts, one_shot)
    }
);

method!(
    parsed: start_new_or_dummy,
    c"_start_new_or_dummy",
    [c"timeout", c"exception", c"ref"],
    |_class, [timeout, exception, counts]| {
        if absent(timeout) {
            return ffi::Py_NewRef(STATICS.never);
        }
        let class = STATICS.timeout.cast();
        new_started(class, timeout, exception, counts, ffi::Py_True())
    }
);

#[crate::entry]
pub(super) unsafe extern "C" fn reduce(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it; the module and its function are owned here.
    unsafe {
        let module = ffi::PyImport_ImportModule(c"gevent.timeout".as_ptr());
        if module.is_null() {
            return module;
        }
        let call = ffi::PyObject_GetAttrString(module, c"_reduced".as_ptr());
        ffi::Py_DECREF(module);
        if call.is_null() {
            return call;
        }
        let reduced = ffi::PyObject_CallOneArg(call, slf);
        ffi::Py_DECREF(call);
        reduced
    }
}

#[crate::entry]
pub(super) unsafe extern "C" fn enter(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a timeout.
    unsafe {
        if !is_pending(cast(slf)) && start_any(slf).is_err() {
            return null_mut();
        }
        ffi::Py_NewRef(slf)
    }
}

#[crate::entry]
pub(super) unsafe extern "C" fn exit(
    slf: Obj,
    items: *const Obj,
    n: ffi::Py_ssize_t,
    _names: Obj,
) -> Obj {
    // SAFETY: as the C API calls it; `value` is the second argument.
    unsafe {
        let r = if ffi::Py_TYPE(slf) == STATICS.timeout {
            close(slf, null_mut())
        } else {
            ffi::PyObject_CallMethodNoArgs(slf, STATICS.str_close)
        };
        if r.is_null() {
            return r;
        }
        ffi::Py_DECREF(r);
        let value = if n > 1 { *items.add(1) } else { null_mut() };
        if value == slf && (*cast(slf)).exception == ffi::Py_False() {
            return boolean(true);
        }
        none()
    }
}
