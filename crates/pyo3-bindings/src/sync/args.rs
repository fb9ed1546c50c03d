//! Arguments that several types have: a timeout in seconds or as a `gevent.Timeout`, flags.

use super::Obj;
use crate::event_loop::nanos;
use crate::raw::absent;
use crate::timeout::is_timeout;
use gevent_hub_core::reactor::{Nanos, monotonic};
use pyo3::ffi;
use std::ptr::null_mut;

/// For how long to wait.
#[derive(Clone, Copy)]
pub enum Limit {
    /// For ever.
    Never,
    /// Until a moment of the monotonic clock.
    At(Nanos),
    /// Until this `Timeout` (borrowed) is raised.
    Timer(Obj),
}

impl Limit {
    /// From an argument, borrowed or null. `Err` with an error set.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline]
    pub unsafe fn new(timeout: Obj) -> Result<Self, ()> {
        // SAFETY: the caller's promise.
        unsafe {
            if absent(timeout) {
                return Ok(Limit::Never);
            }
            Self::given(timeout)
        }
    }

    /// # Safety
    /// As [`new`](Self::new), with an object that is not None.
    unsafe fn given(timeout: Obj) -> Result<Self, ()> {
        // SAFETY: the caller's promise.
        unsafe {
            if ffi::PyFloat_Check(timeout) == 0
                && ffi::PyLong_Check(timeout) == 0
                && is_timeout(timeout)
            {
                return Ok(Limit::Timer(timeout));
            }
            let seconds = seconds(timeout)?;
            Ok(Limit::At(monotonic().saturating_add(nanos(seconds))))
        }
    }

    /// The moment, if a native thread waits: a `Timeout` counts by its seconds. `Err` with an error set.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn without_hub(self) -> Result<Option<Nanos>, ()> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Limit::Never => Ok(None),
                Limit::At(at) => Ok(Some(at)),
                Limit::Timer(timer) => {
                    let value = ffi::PyObject_GetAttrString(timer, c"seconds".as_ptr());
                    if value.is_null() {
                        return Err(());
                    }
                    let limit = Limit::new(value);
                    ffi::Py_DECREF(value);
                    match limit? {
                        Limit::At(at) => Ok(Some(at)),
                        _ => Ok(None),
                    }
                }
            }
        }
    }
}

/// A number of seconds. `Err` with an error set.
///
/// # Safety
/// The GIL is held.
pub unsafe fn seconds(value: Obj) -> Result<f64, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let seconds = ffi::PyFloat_AsDouble(value);
        if seconds == -1.0 && !ffi::PyErr_Occurred().is_null() {
            return Err(());
        }
        Ok(seconds)
    }
}

/// The truth of an argument, or what it is when left out. `Err` with an error set.
///
/// # Safety
/// The GIL is held.
#[inline]
pub unsafe fn flag(value: Obj, default: bool) -> Result<bool, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if value.is_null() {
            return Ok(default);
        }
        if value == ffi::Py_True() {
            return Ok(true);
        }
        match ffi::PyObject_IsTrue(value) {
            -1 => Err(()),
            truth => Ok(truth != 0),
        }
    }
}

/// Raises `Timeout(seconds)` without making a hub for it: for threads that have none. Returns null.
///
/// # Safety
/// The GIL is held; `timeout` is the argument, or null.
pub unsafe fn raise_timeout(timeout: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        if !absent(timeout) && is_timeout(timeout) {
            ffi::PyErr_SetObject(ffi::Py_TYPE(timeout).cast(), timeout);
            return null_mut();
        }
        if absent(timeout) || crate::hub::HubCore::current().is_some() {
            return crate::timeout::raise_new(if absent(timeout) { null_mut() } else { timeout });
        }
        crate::timeout::raise_new(null_mut());
        let error = crate::tstate::take_raised();
        let r = ffi::PyObject_SetAttrString(error, c"seconds".as_ptr(), timeout);
        if r == 0 {
            crate::tstate::set_raised(error);
        } else {
            ffi::Py_DECREF(error);
        }
        null_mut()
    }
}
