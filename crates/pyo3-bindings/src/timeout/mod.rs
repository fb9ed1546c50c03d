//! `gevent.Timeout`: an exception that a timer throws into the greenlet that started it.
//!
//! The reactor's timer is made when the timeout starts and freed when it is cancelled, closed or fires,
//! so that one that is not running holds nothing native. While it runs it holds a reference to itself.
//!
//! # Safety
//! In this module and those below it: the GIL is held. `me` or `t` is a timeout, which the caller has a
//! reference to; arguments are borrowed from the caller, or null where they were left out.

mod methods;
mod slots;
mod text;
mod timer;

pub use timer::{expire, is_of, loop_gone};

use methods::{
    cancel, close, enter, exit, on_expiration, reduce, start, start_new, start_new_or_dummy,
};
use slots::{clear, dealloc, hash, tp_init, tp_new, traverse};
use text::{
    compare, get_exception, get_pending, get_seconds, get_timer, repr, set_exception, set_seconds,
    str,
};
use timer::{halt, is_pending};

use crate::raw::{self, fast, noargs};
use crate::raw_type::NewType;
use crate::statics::{Immortal, intern};
use crate::sync::object::attribute;
use gevent_hub_core::reactor::WatcherId;
use pyo3::exceptions::PyAssertionError;
use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::ffi::c_void;
use std::ptr::null_mut;

type Obj = *mut PyObject;

/// A `Timeout`. Each `Obj` is an owned reference or null.
#[repr(C)]
struct TimeoutObject {
    base: ffi::PyBaseExceptionObject,
    seconds: Obj,
    exception: Obj,
    /// The greenlet that started it, and what it will get, while it runs.
    greenlet: Obj,
    throws: Obj,
    loop_: Obj,
    id: Option<WatcherId>,
    priority: i32,
    counts: bool,
    one_shot: bool,
    closed: bool,
}

struct Statics {
    timeout: *mut PyTypeObject,
    on_expiration: Obj,
    str_on_expiration: Obj,
    str_start: Obj,
    str_close: Obj,
    never: Obj,
}

static STATICS: Immortal<Statics> = Immortal::new();

fn cast(slf: Obj) -> *mut TimeoutObject {
    slf.cast()
}

/// The timer of a timeout that never expires, and what `Timeout._start_new_or_dummy(None)` returns.
#[pyclass(frozen, module = "gevent.timeout", name = "_FakeTimer")]
struct Never;

#[crate::entry]
#[pymethods]
impl Never {
    #[classattr]
    #[pyo3(name = "pending")]
    const PENDING: bool = false;
    #[classattr]
    #[pyo3(name = "active")]
    const ACTIVE: bool = false;

    #[getter]
    fn seconds(&self) -> Option<f64> {
        None
    }

    #[getter]
    fn timer(&self) -> Option<f64> {
        None
    }

    #[getter]
    fn exception(&self) -> Option<f64> {
        None
    }

    #[pyo3(signature = (*_args, **_kwargs))]
    fn start(
        &self,
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, pyo3::types::PyDict>>,
    ) -> PyResult<()> {
        Err(PyAssertionError::new_err(
            "non-expiring timer cannot be started",
        ))
    }

    fn stop(&self) {}

    fn cancel(&self) {}

    fn close(&self) {}

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, _exc: &Bound<'_, PyTuple>) {}
}

/// `Timeout.timer`: what can be seen and done of the native timer.
#[pyclass(frozen, module = "gevent.timeout", name = "_Timer")]
struct TimerView(Py<PyAny>);

#[crate::entry]
#[pymethods]
impl TimerView {
    #[getter]
    fn pending(&self, py: Python<'_>) -> bool {
        // SAFETY: it holds a timeout.
        unsafe { is_pending(cast(self.0.bind(py).as_ptr())) }
    }

    #[getter]
    fn active(&self, py: Python<'_>) -> bool {
        self.pending(py)
    }

    fn stop(&self, py: Python<'_>) {
        // SAFETY: it holds a timeout.
        unsafe { halt(cast(self.0.bind(py).as_ptr())) };
    }

    fn close(&self, py: Python<'_>) {
        self.stop(py);
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.0)
    }
}

/// Whether an object is a `Timeout`.
///
/// # Safety
/// An object; the GIL is held.
pub unsafe fn is_timeout(p: Obj) -> bool {
    // SAFETY: the caller's promise.
    unsafe { ffi::PyObject_TypeCheck(p, STATICS.timeout) != 0 }
}

/// Raises a new `Timeout(seconds)`; null for none. Returns null.
///
/// # Safety
/// The GIL is held.
pub unsafe fn raise_new(seconds: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        let ty: Obj = STATICS.timeout.cast();
        let t = if seconds.is_null() {
            ffi::PyObject_CallNoArgs(ty)
        } else {
            ffi::PyObject_CallOneArg(ty, seconds)
        };
        if !t.is_null() {
            ffi::PyErr_SetObject(ty, t);
            ffi::Py_DECREF(t);
        }
        null_mut()
    }
}

/// Adds the type and its dummy.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    let fake = Bound::new(py, Never)?;
    let methods = vec![
        noargs(c"start", start, c"Start it: it will be raised in this greenlet after its seconds."),
        noargs(c"cancel", cancel, c"Stop it, if it runs. It can be started again."),
        noargs(c"close", close, c"Stop it for good."),
        fast(c"_on_expiration", on_expiration, 0, c"_on_expiration(prev_greenlet, ex)\n\nThrow. For subclasses to override."),
        fast(c"start_new", start_new, ffi::METH_CLASS, c"start_new(timeout=None, exception=None, ref=True)\n\nMake one of seconds, or take one, and start it."),
        fast(c"_start_new_or_dummy", start_new_or_dummy, ffi::METH_STATIC, c"_start_new_or_dummy(timeout, exception=None, ref=True)\n\nThe same, but for None something that does nothing."),
        noargs(c"__reduce__", reduce, c"For copies, which do not run: the seconds and the exception."),
        noargs(c"__enter__", enter, c"Start it, unless it runs."),
        fast(c"__exit__", exit, 0, c"Close it; suppress it if its exception is False."),
    ];
    let attributes = vec![
        attribute(c"pending", get_pending, None, c"Whether it runs."),
        attribute(c"timer", get_timer, None, c"Its timer."),
        attribute(
            c"seconds",
            get_seconds,
            Some(set_seconds),
            c"After how many seconds it is raised; None for never.",
        ),
        attribute(
            c"exception",
            get_exception,
            Some(set_exception),
            c"What is raised instead of itself, if not None, False or a text.",
        ),
    ];
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        let timeout = NewType::of::<TimeoutObject>(c"gevent.timeout.Timeout")
            .about(c"Timeout(seconds=None, exception=None, ref=True, priority=-1)\n\nRaise an exception in the current greenlet after some seconds: this one, unless another is given. Always close it when its time is over; a with statement does.")
            .below(ffi::PyExc_BaseException.cast())
            .methods(methods)
            .attributes(attributes)
            .new_by(tp_new)
            .init_by(tp_init)
            .ended_by(dealloc, traverse, clear)
            .repr_by(repr)
            .str_by(str)
            .slot(ffi::Py_tp_richcompare, compare as *mut c_void)
            .slot(ffi::Py_tp_hash, hash as *mut c_void)
            .add(m, None)?;
        let str_on_expiration = intern(c"_on_expiration");
        STATICS.set(Statics {
            timeout,
            on_expiration: raw::_PyType_Lookup(timeout, str_on_expiration),
            str_on_expiration,
            str_start: intern(c"start"),
            str_close: intern(c"close"),
            never: fake.clone().into_ptr(),
        });
    }
    m.add("_FakeTimer", fake)
}
