//! The methods of `gevent.Greenlet` that link to its end, and undo it.
//!
//! # Safety
//! The GIL is held. `me` or `slf` is a `Greenlet`, which the caller has a reference to; arguments are borrowed
//! from the caller, or null where they were left out.

use super::life;
use super::object::{GreenletObject, Link, cast};
use crate::raw::none;
use pyo3::ffi::{self, PyObject};
use std::ffi::c_void;
use std::ptr::null_mut;

type Obj = *mut PyObject;

#[crate::entry]
pub unsafe extern "C" fn get_links(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        let list = ffi::PyList_New(0);
        if list.is_null() {
            return list;
        }
        for link in &(*cast(slf)).links {
            if let Link::Callable(p) = link
                && ffi::PyList_Append(list, *p) < 0
            {
                ffi::Py_DECREF(list);
                return null_mut();
            }
        }
        list
    }
}

#[crate::entry]
pub unsafe extern "C" fn has_links(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe { ffi::PyLong_FromSize_t((*cast(slf)).links.len()) }
}

/// `rawlink(callback)`.
///
/// # Safety
/// A `Greenlet` and an object; the GIL is held.
#[crate::entry]
pub unsafe extern "C" fn rawlink(slf: Obj, callback: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        if ffi::PyCallable_Check(callback) == 0 {
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                c"Expected callable: %R".as_ptr(),
                callback,
            );
            return null_mut();
        }
        let me = cast(slf);
        (*me)
            .links
            .push_back(Link::Callable(ffi::Py_NewRef(callback)));
        if GreenletObject::is_ready(me) {
            life::tell_late_links(me);
        }
        none()
    }
}

/// `unlink(callback)`.
///
/// # Safety
/// A `Greenlet` and an object; the GIL is held.
#[crate::entry]
pub unsafe extern "C" fn unlink(slf: Obj, callback: Obj) -> Obj {
    // SAFETY: a `Greenlet`. A comparison may run Python, so each callable is held over it and the list
    // is looked at anew.
    unsafe {
        let me = cast(slf);
        let mut i = 0;
        while i < (*me).links.len() {
            if let Link::Callable(p) = (&(*me).links)[i] {
                ffi::Py_INCREF(p);
                let same = ffi::PyObject_RichCompareBool(p, callback, ffi::Py_EQ);
                let links = &(*me).links;
                let still = matches!(links.get(i), Some(Link::Callable(q)) if *q == p);
                if same > 0 && still {
                    (*me).links.remove(i);
                    ffi::Py_DECREF(p);
                }
                ffi::Py_DECREF(p);
                if same < 0 {
                    return null_mut();
                }
                if same > 0 {
                    break;
                }
            }
            i += 1;
        }
        none()
    }
}

#[crate::entry]
pub unsafe extern "C" fn unlink_all(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a `Greenlet`. Fibers that wait are no links of the user's: they stay.
    unsafe {
        let me = cast(slf);
        let all = std::mem::take(&mut (*me).links);
        let mut dropped = Vec::new();
        for link in all {
            match link {
                Link::Callable(p) => dropped.push(p),
                other => (*me).links.push_back(other),
            }
        }
        for p in dropped {
            ffi::Py_DECREF(p);
        }
        none()
    }
}

#[crate::entry]
pub unsafe extern "C" fn tell_links(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        life::tell_links(cast(slf));
        none()
    }
}
