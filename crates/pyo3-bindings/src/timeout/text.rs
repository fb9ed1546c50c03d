//! Attributes, texts and comparison.

use super::timer::is_pending;
use super::{Obj, STATICS, TimerView, cast, is_timeout};
use crate::raw::{absent, boolean, none};
use crate::sync::object::set;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

#[crate::entry]
pub(super) unsafe extern "C" fn get_pending(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a timeout.
    unsafe { boolean(is_pending(cast(slf))) }
}

#[crate::entry]
pub(super) unsafe extern "C" fn get_timer(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a timeout.
    unsafe {
        if absent((*cast(slf)).seconds) || (*cast(slf)).closed {
            return ffi::Py_NewRef(STATICS.never);
        }
        let py = Python::assume_attached();
        match Bound::new(py, TimerView(Bound::from_borrowed_ptr(py, slf).unbind())) {
            Ok(v) => v.into_ptr(),
            Err(e) => {
                e.restore(py);
                null_mut()
            }
        }
    }
}

macro_rules! attribute {
    ($get:ident, $set:ident, $field:ident) => {
        #[crate::entry]
        pub(super) unsafe extern "C" fn $get(slf: Obj, _: *mut c_void) -> Obj {
            // SAFETY: a timeout.
            unsafe {
                let p = (*cast(slf)).$field;
                if p.is_null() {
                    none()
                } else {
                    ffi::Py_NewRef(p)
                }
            }
        }

        #[crate::entry]
        pub(super) unsafe extern "C" fn $set(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
            // SAFETY: a timeout.
            unsafe {
                let value = if value.is_null() {
                    none()
                } else {
                    ffi::Py_NewRef(value)
                };
                set(&raw mut (*cast(slf)).$field, value);
                0
            }
        }
    };
}

attribute!(get_seconds, set_seconds, seconds);
attribute!(get_exception, set_exception, exception);

fn text_of(py: Python<'_>, p: Obj, repr: bool) -> PyResult<String> {
    // SAFETY: null or an object that is alive.
    let p = unsafe { Bound::from_borrowed_ptr(py, if p.is_null() { ffi::Py_None() } else { p }) };
    Ok(if repr {
        p.repr()?.to_string()
    } else {
        p.str()?.to_string()
    })
}

/// # Safety
/// The GIL is held.
pub(super) unsafe fn finish(py: Python<'_>, text: PyResult<String>) -> Obj {
    match text.map(|t| pyo3::types::PyString::new(py, &t)) {
        Ok(t) => t.into_ptr(),
        Err(e) => {
            e.restore(py);
            null_mut()
        }
    }
}

#[crate::entry]
pub(super) unsafe extern "C" fn repr(slf: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a timeout.
    unsafe {
        let py = Python::assume_attached();
        let me = cast(slf);
        let text = (|| -> PyResult<String> {
            let class = Bound::from_borrowed_ptr(py, slf)
                .get_type()
                .name()?
                .to_string();
            let seconds = text_of(py, (*me).seconds, false)?;
            let exception = if absent((*me).exception) {
                String::new()
            } else {
                format!(" exception={}", text_of(py, (*me).exception, true)?)
            };
            let pending = if is_pending(me) { " pending" } else { "" };
            Ok(format!(
                "<{class} at {:#x} seconds={seconds}{exception}{pending}>",
                slf as usize
            ))
        })();
        finish(py, text)
    }
}

#[crate::entry]
pub(super) unsafe extern "C" fn str(slf: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a timeout.
    unsafe {
        let py = Python::assume_attached();
        let me = cast(slf);
        let text = (|| -> PyResult<String> {
            if absent((*me).seconds) {
                return Ok(String::new());
            }
            let seconds = Bound::from_borrowed_ptr(py, (*me).seconds);
            let plural = if seconds.eq(1)? { "" } else { "s" };
            let mut text = format!("{} second{plural}", seconds.str()?);
            if (*me).exception == ffi::Py_False() {
                text.push_str(" (silent)");
            } else if !absent((*me).exception) {
                text.push_str(&format!(": {}", text_of(py, (*me).exception, false)?));
            }
            Ok(text)
        })();
        finish(py, text)
    }
}

/// `<` compares seconds, with another timeout or a number; nothing else is ordered.
#[crate::entry]
pub(super) unsafe extern "C" fn compare(a: Obj, b: Obj, op: c_int) -> Obj {
    // SAFETY: a timeout and an object.
    unsafe {
        let other = match op {
            ffi::Py_LT if is_timeout(b) => (*cast(b)).seconds,
            ffi::Py_LT => b,
            _ => {
                return ffi::PyBaseObject_Type
                    .tp_richcompare
                    .map_or(null_mut(), |f| f(a, b, op));
            }
        };
        let r = ffi::PyObject_RichCompare((*cast(a)).seconds, other, ffi::Py_LT);
        if r.is_null() && !is_timeout(b) && ffi::PyErr_ExceptionMatches(ffi::PyExc_TypeError) != 0 {
            ffi::PyErr_Clear();
            return ffi::Py_NewRef(ffi::Py_NotImplemented());
        }
        r
    }
}
