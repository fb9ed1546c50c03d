//! `AsyncResult`: a value or an exception that will be known later.
//!
//! Exceptions are stored with their traceback as bytes; that, and raising them, is done by functions of
//! `gevent.event`.
//!
//! # Safety
//! The GIL is held. `me` or `slf` is a result, which the caller has a reference to.

use super::args::{Limit, flag, raise_timeout};
use super::linkable::{Kind, Linkable};
use super::object::{attribute, class_name, free, or_none, set, set_or_empty, text, visit_all};
use super::wait::wait_core;
use super::{Obj, call_python};
use crate::raw::{Args, boolean, fast, method, noargs, none, parsed, parsed_first};
use crate::raw_type::{NewType, takes_nothing};
use crate::statics::Immortal;
use gevent_sync::parker::Ended;
use gevent_sync::state::Outcome;
use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr::{NonNull, null_mut};

/// A result.
#[repr(C)]
struct AsyncResult {
    base: Linkable,
    /// Owned references. A failure is class, exception and dumped traceback.
    outcome: Outcome<Owned, Owned>,
    /// Which task of an `imap` it is for: an owned reference or null.
    index: Obj,
}

type Owned = NonNull<PyObject>;

const HOME: &std::ffi::CStr = c"gevent.event";

fn cast(slf: Obj) -> *mut AsyncResult {
    slf.cast()
}

/// Whether there is a value or an exception.
///
/// # Safety
/// `me` is a result.
#[inline]
pub unsafe fn is_ready(me: *mut Linkable) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*me.cast::<AsyncResult>()).outcome.is_ready() }
}

/// What `value` and `wait` return: a new reference.
///
/// # Safety
/// A result; the GIL is held.
pub unsafe fn value(slf: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe { or_none(pointer((*cast(slf)).outcome.value())) }
}

/// A value or a failure, borrowed; null for none.
fn pointer(object: Option<&Owned>) -> Obj {
    object.map_or(null_mut(), |o| o.as_ptr())
}

/// A new reference to what is stored.
///
/// # Safety
/// The GIL is held; `object` is alive.
unsafe fn owned(object: Obj) -> Owned {
    // SAFETY: the caller's promise.
    unsafe { NonNull::new_unchecked(ffi::Py_NewRef(object)) }
}

/// Drops what was replaced. May run Python.
///
/// # Safety
/// The GIL is held.
unsafe fn drop_old(old: Option<Owned>) {
    if let Some(old) = old {
        // SAFETY: an owned reference; the GIL is held.
        unsafe { ffi::Py_DECREF(old.as_ptr()) };
    }
}

static TYPE: Immortal<*mut PyTypeObject> = Immortal::new();

/// Whether an object is exactly an `AsyncResult`, whose methods are the native ones.
///
/// # Safety
/// An object; the GIL is held.
pub unsafe fn is_plain(p: Obj) -> bool {
    // SAFETY: the caller's promise.
    TYPE.get() == Some(&unsafe { ffi::Py_TYPE(p) })
}

/// Stores a value (borrowed) and wakes everyone.
///
/// # Safety
/// A result, to which the caller has a reference; the GIL is held.
pub unsafe fn put(slf: Obj, value: Obj) {
    // SAFETY: a result, to which the caller has a reference.
    unsafe {
        (*cast(slf)).base.users.saw();
        drop_old((*cast(slf)).outcome.set(owned(value)));
        Linkable::check_and_notify(slf.cast());
    }
}

/// The value, or the exception raised.
///
/// # Safety
/// As the module says; the result is ready.
unsafe fn outcome(slf: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        match (*cast(slf)).outcome.get() {
            Some(Ok(value)) => ffi::Py_NewRef(value.as_ptr()),
            _ => call_python(HOME, c"_raise_exception", &[slf]),
        }
    }
}

// ---- slots -----------------------------------------------------------------------------------------

#[crate::entry]
unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: the slot's contract.
    unsafe { Linkable::make(ty, Kind::Result).cast() }
}

#[crate::entry]
unsafe extern "C" fn tp_init(_slf: Obj, args: Obj, kwargs: Obj) -> c_int {
    // SAFETY: the slot's contract.
    unsafe { takes_nothing(args, kwargs, c"AsyncResult() takes no arguments") }
}

/// `AsyncResult()` itself, and not a subclass, which inherits no vectorcall: no tuple for no arguments.
#[crate::entry]
unsafe extern "C" fn make(ty: Obj, _: *const Obj, nargs: usize, names: Obj) -> Obj {
    // SAFETY: vectorcall's contract.
    unsafe {
        let named = !names.is_null() && ffi::PyTuple_GET_SIZE(names) > 0;
        if named || ffi::PyVectorcall_NARGS(nargs) > 0 {
            let text = c"AsyncResult() takes no arguments";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return null_mut();
        }
        Linkable::make(ty.cast(), Kind::Result).cast()
    }
}

/// # Safety
/// As the module says; nobody uses the result any more.
unsafe fn empty(me: *mut AsyncResult) {
    // SAFETY: a result that nobody uses any more; fields are empty before what they held is dropped.
    unsafe {
        let (value, failure) = (*me).outcome.take();
        drop_old(value);
        drop_old(failure);
        set(&raw mut (*me).index, null_mut());
    }
}

#[crate::entry]
unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe {
        Linkable::finish(slf.cast());
        empty(cast(slf));
        free(slf);
    }
}

#[crate::entry(silent)]
unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        let outcome = &(*cast(slf)).outcome;
        let (value, failure) = (pointer(outcome.value()), pointer(outcome.failure()));
        match visit_all([value, failure, (*cast(slf)).index], visit, arg) {
            0 => Linkable::traverse(slf.cast(), visit, arg),
            r => r,
        }
    }
}

#[crate::entry]
unsafe extern "C" fn clear(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        empty(cast(slf));
        Linkable::clear(slf.cast());
        0
    }
}

#[crate::entry]
unsafe extern "C" fn str(slf: Obj) -> Obj {
    // SAFETY: a result; what is shown is held meanwhile.
    unsafe {
        text(|py| {
            let mut words = class_name(py, slf)?;
            let value = Bound::from_owned_ptr(py, value(slf));
            let exception = Bound::from_owned_ptr(py, get_exception(slf, null_mut()));
            let failed = (*cast(slf)).outcome.failure().is_some();
            if !value.is_none() || failed {
                words.push_str(&format!(" value={}", value.repr()?));
            }
            if !failed {
                words.push_str(" unset");
            } else if !exception.is_none() {
                words.push_str(&format!(" exception={}", exception.repr()?));
            }
            let n = (*cast(slf)).base.links.len();
            Ok(format!("<{words}  _links[{n}]>"))
        })
    }
}

/// `result(source)`: takes over the result of what it was linked to.
#[crate::entry]
unsafe extern "C" fn call(slf: Obj, args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        if ffi::PyTuple_GET_SIZE(args) != 1 {
            let text = c"__call__() takes one argument: the source";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return null_mut();
        }
        let source = ffi::PyTuple_GET_ITEM(args, 0);
        let good = ffi::PyObject_CallMethod(source, c"successful".as_ptr(), std::ptr::null());
        if good.is_null() {
            return null_mut();
        }
        let truth = ffi::PyObject_IsTrue(good);
        ffi::Py_DECREF(good);
        if truth < 0 {
            return null_mut();
        }
        if truth == 0 {
            return call_python(HOME, c"_take_exception", &[slf, source]);
        }
        let value = ffi::PyObject_GetAttrString(source, c"value".as_ptr());
        if value.is_null() {
            return null_mut();
        }
        put(slf, value);
        ffi::Py_DECREF(value);
        none()
    }
}

// ---- methods ---------------------------------------------------------------------------------------

method!(parsed: py_set, c"set", [c"value"], |slf, [value]| {
    put(
        slf,
        if value.is_null() {
            ffi::Py_None()
        } else {
            value
        },
    );
    none()
});

method!(
    parsed_first: set_exception,
    c"set_exception",
    [c"exception", c"exc_info"],
    |slf, [exception, info]| {
        let info = if info.is_null() { ffi::Py_None() } else { info };
        let dumped = call_python(HOME, c"_dumped", &[exception, info]);
        if dumped.is_null() {
            return null_mut();
        }
        (*cast(slf)).base.users.saw();
        drop_old((*cast(slf)).outcome.fail(NonNull::new_unchecked(dumped)));
        Linkable::check_and_notify(slf.cast());
        none()
    }
);

/// Waits for a result and returns it; a null `limit` is "do not block".
///
/// # Safety
/// As the module says.
unsafe fn wait_for(slf: Obj, limit: Option<Limit>, timeout: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(limit) = limit else {
            return raise_timeout(null_mut());
        };
        (*cast(slf)).base.users.saw();
        match wait_core(slf.cast(), limit) {
            Ended::Woken(_) if is_ready(slf.cast()) => outcome(slf),
            Ended::Woken(_) => raise_timeout(null_mut()),
            Ended::TimedOut => raise_timeout(timeout),
            Ended::Interrupted => null_mut(),
        }
    }
}

#[crate::entry]
unsafe extern "C" fn get(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, names: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        if is_ready(slf.cast()) {
            return outcome(slf);
        }
        let args = Args::new(items, n, names);
        let Ok([block, timeout]) = args.parse(c"get", [c"block", c"timeout"]) else {
            return null_mut();
        };
        let limit = match flag(block, true) {
            Err(()) => return null_mut(),
            Ok(false) => None,
            Ok(true) => match Limit::new(timeout) {
                Ok(limit) => Some(limit),
                Err(()) => return null_mut(),
            },
        };
        wait_for(slf, limit, timeout)
    }
}

#[crate::entry]
unsafe extern "C" fn get_nowait(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe {
        if is_ready(slf.cast()) {
            outcome(slf)
        } else {
            raise_timeout(null_mut())
        }
    }
}

method!(parsed: result, c"result", [c"timeout"], |slf, [timeout]| {
    if is_ready(slf.cast()) {
        return outcome(slf);
    }
    match Limit::new(timeout) {
        Ok(limit) => wait_for(slf, Some(limit), timeout),
        Err(()) => null_mut(),
    }
});

#[crate::entry]
unsafe extern "C" fn ready(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe { boolean(is_ready(slf.cast())) }
}

#[crate::entry]
unsafe extern "C" fn successful(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe { boolean((*cast(slf)).outcome.value().is_some()) }
}

#[crate::entry]
unsafe extern "C" fn no(_: Obj, _: Obj) -> Obj {
    // SAFETY: the GIL is held.
    unsafe { boolean(false) }
}

#[crate::entry]
unsafe extern "C" fn raise_exception(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe { call_python(HOME, c"_raise_exception", &[slf]) }
}

// ---- attributes ------------------------------------------------------------------------------------

#[crate::entry]
unsafe extern "C" fn get_value(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe { value(slf) }
}

#[crate::entry]
unsafe extern "C" fn get_exception(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a result; its `exc_info` is a tuple of three.
    unsafe {
        let info = pointer((*cast(slf)).outcome.failure());
        if info.is_null() {
            none()
        } else {
            ffi::Py_NewRef(ffi::PyTuple_GET_ITEM(info, 1))
        }
    }
}

#[crate::entry]
unsafe extern "C" fn get_exc_info(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe {
        let info = pointer((*cast(slf)).outcome.failure());
        if info.is_null() {
            return ffi::PyTuple_New(0);
        }
        let info = ffi::Py_NewRef(info);
        let r = call_python(HOME, c"_loaded", &[info]);
        ffi::Py_DECREF(info);
        r
    }
}

#[crate::entry]
unsafe extern "C" fn get_dumped(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe {
        let info = pointer((*cast(slf)).outcome.failure());
        if info.is_null() {
            ffi::PyTuple_New(0)
        } else {
            ffi::Py_NewRef(info)
        }
    }
}

#[crate::entry]
unsafe extern "C" fn get_index(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a result.
    unsafe { or_none((*cast(slf)).index) }
}

#[crate::entry]
unsafe extern "C" fn set_index(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
    // SAFETY: as the C API calls it, on a result.
    unsafe { set_or_empty(&raw mut (*cast(slf)).index, value) }
}

const ABOUT: &std::ffi::CStr = c"A value or an exception that will be known later.\n\n`set` and `set_exception` store it and wake those who wait; `get` returns or raises it::\n\n    >>> from gevent.event import AsyncResult\n    >>> result = AsyncResult()\n    >>> result.set(100)\n    >>> result.get()\n    100\n\nIt can be linked to a greenlet, and then holds that greenlet's result::\n\n    >>> import gevent\n    >>> result = AsyncResult()\n    >>> gevent.spawn(lambda: 1/0).link(result)\n    >>> try:\n    ...     result.get()\n    ... except ZeroDivisionError:\n    ...     print('ZeroDivisionError')\n    ZeroDivisionError\n\nThose who wait are woken in the order in which they came. All methods may be called from any native thread, with a hub or without.";

/// Adds the type.
pub fn register(m: &Bound<'_, PyModule>, base: *mut PyTypeObject) -> PyResult<()> {
    let set_doc = c"set(value=None)\n\nStore *value* and wake everyone who waits.";
    let methods = vec![
        noargs(c"ready", ready, c"Return whether there is a value or an exception."),
        noargs(c"done", ready, c"Return whether there is a value or an exception."),
        noargs(c"successful", successful, c"Return whether there is a value."),
        fast(c"set", py_set, 0, set_doc),
        fast(c"set_result", py_set, 0, set_doc),
        fast(
            c"set_exception",
            set_exception,
            0,
            c"set_exception(exception, exc_info=None)\n\nStore *exception* and wake everyone who waits. *exc_info* is a tuple as of sys.exc_info(); its traceback is shown when the exception is raised.",
        ),
        fast(
            c"get",
            get,
            0,
            c"get(block=True, timeout=None)\n\nReturn the value or raise the exception, after waiting until there is one. If none comes within *timeout* seconds, or there is none yet and *block* is false, gevent.Timeout is raised.",
        ),
        noargs(
            c"get_nowait",
            get_nowait,
            c"Return the value or raise the exception; if there is none yet, gevent.Timeout.",
        ),
        fast(
            c"result",
            result,
            0,
            c"result(timeout=None)\n\nThe same as get(timeout=timeout).",
        ),
        fast(
            c"wait",
            super::wait::py_wait,
            0,
            c"wait(timeout=None)\n\nWait until there is a value or an exception, at most *timeout* seconds. Returns the value, or None if there is an exception or the time is over.",
        ),
        noargs(c"cancel", no, c"Return false: what is to come cannot be called off."),
        noargs(c"cancelled", no, c"Return false."),
        noargs(c"_raise_exception", raise_exception, c"Raise the exception."),
    ];
    let attributes = vec![
        attribute(
            c"value",
            get_value,
            None,
            c"The value, or None as long as there is none.",
        ),
        attribute(
            c"exception",
            get_exception,
            None,
            c"The exception, or None if there is none.",
        ),
        attribute(
            c"exc_info",
            get_exc_info,
            None,
            c"Type, exception and traceback that were stored, or ().",
        ),
        attribute(
            c"_exc_info",
            get_dumped,
            None,
            c"The same, with the traceback as bytes.",
        ),
        attribute(
            c"_imap_task_index",
            get_index,
            Some(set_index),
            c"Which task of an imap it is for.",
        ),
    ];
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        let ty = NewType::of::<AsyncResult>(c"gevent.event.AsyncResult")
            .about(ABOUT)
            .below(base)
            .methods(methods)
            .attributes(attributes)
            .new_by(tp_new)
            .init_by(tp_init)
            .ended_by(dealloc, traverse, clear)
            .str_by(str)
            .call_by(call)
            .weak(offset_of!(Linkable, weak))
            .add(m, None)?;
        (*ty).tp_vectorcall = Some(make);
        TYPE.set(ty);
    }
    Ok(())
}
