//! What the raw types of this folder share as Python objects: weak references, memory, texts.

use super::Obj;
use pyo3::ffi::{self, PyGetSetDef};
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::ffi::{CStr, c_int, c_void};
use std::mem;
use std::ptr::null_mut;

/// A getter and perhaps a setter.
pub const fn attribute(
    name: &'static CStr,
    get: ffi::getter,
    set: Option<ffi::setter>,
    doc: &'static CStr,
) -> PyGetSetDef {
    PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        set,
        doc: doc.as_ptr(),
        closure: null_mut(),
    }
}

/// Allocates an object, all zeros behind its head.
///
/// # Safety
/// `ty` is a ready type; the GIL is held.
#[inline]
pub unsafe fn alloc(ty: *mut ffi::PyTypeObject) -> Obj {
    // SAFETY: the caller's promise.
    unsafe { crate::tstate::tp_alloc(ty) }
}

/// The end of a `tp_dealloc`: frees the memory.
///
/// # Safety
/// The object is dead and its fields are empty.
#[inline]
pub unsafe fn free(slf: Obj) {
    // SAFETY: the caller's promise.
    unsafe {
        let ty = ffi::Py_TYPE(slf);
        match (*ty).tp_free {
            Some(free) => free(slf.cast()),
            None => ffi::PyObject_GC_Del(slf.cast()),
        }
        ffi::Py_DECREF(ty.cast());
    }
}

/// For `tp_traverse`: visits those of the objects that are not null, until the collector has enough.
///
/// # Safety
/// Called by the collector; what the iterator does runs no Python.
#[inline]
pub unsafe fn visit_all(
    objects: impl IntoIterator<Item = Obj>,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    for p in objects {
        if !p.is_null() {
            // SAFETY: the caller's promise; an object.
            let r = unsafe { visit(p, arg) };
            if r != 0 {
                return r;
            }
        }
    }
    0
}

/// An object of ours whose references stand in some of its fields, for the slots below.
///
/// # Safety
/// The struct begins with a `PyObject` of a heap type, and each field is an owned reference or null.
pub unsafe trait Fields: Sized {
    /// Where the fields are. Addresses only.
    ///
    /// # Safety
    /// `me` is alive.
    unsafe fn fields(me: *mut Self) -> impl Iterator<Item = *mut Obj>;

    /// Before the fields are emptied for the last time: drops what is no Python object.
    ///
    /// # Safety
    /// `me` is going; the GIL is held.
    unsafe fn finish(_me: *mut Self) {}
}

/// `tp_dealloc`.
///
/// # Safety
/// The slot's contract.
#[crate::entry]
pub unsafe extern "C" fn dealloc<T: Fields>(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        T::finish(slf.cast());
        clear::<T>(slf);
        free(slf);
    }
}

/// `tp_traverse`.
///
/// # Safety
/// The slot's contract.
#[crate::entry(silent)]
pub unsafe extern "C" fn traverse<T: Fields>(
    slf: Obj,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector's protocol; reading fields runs no Python.
    unsafe {
        let ty: Obj = ffi::Py_TYPE(slf).cast();
        let fields = T::fields(slf.cast()).map(|f| *f);
        visit_all(std::iter::once(ty).chain(fields), visit, arg)
    }
}

/// `tp_clear`.
///
/// # Safety
/// The slot's contract.
#[crate::entry]
pub unsafe extern "C" fn clear<T: Fields>(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol; a field is empty before what it held is dropped.
    unsafe {
        for f in T::fields(slf.cast()) {
            set(f, null_mut());
        }
        0
    }
}

/// For `tp_dealloc`: the weak references to an object die.
///
/// # Safety
/// `list` is the object's field for them; the object is going and the GIL is held.
pub unsafe fn clear_weak(slf: Obj, list: Obj) {
    if !list.is_null() {
        // SAFETY: the caller's promise.
        unsafe { ffi::PyObject_ClearWeakRefs(slf) };
    }
}

/// Puts an owned reference (or null) into a field and drops what was there.
///
/// # Safety
/// The GIL is held; the field owns its value. May run Python.
#[inline]
pub unsafe fn set(field: *mut Obj, value: Obj) {
    // SAFETY: the caller's promise.
    unsafe {
        let old = mem::replace(&mut *field, value);
        ffi::Py_XDECREF(old);
    }
}

/// The setter of a field: None and null empty it.
///
/// # Safety
/// As [`set`]; `value` is borrowed.
pub unsafe fn set_or_empty(field: *mut Obj, value: Obj) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let value = if crate::raw::absent(value) {
            null_mut()
        } else {
            ffi::Py_NewRef(value)
        };
        set(field, value);
    }
    0
}

/// A new reference to a field's value, None for null.
///
/// # Safety
/// The GIL is held.
#[inline]
pub unsafe fn or_none(value: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        if value.is_null() {
            crate::raw::none()
        } else {
            ffi::Py_NewRef(value)
        }
    }
}

/// Runs what makes a text; null with an error set if that fails.
///
/// # Safety
/// The GIL is held.
pub unsafe fn text(make: impl FnOnce(Python<'_>) -> PyResult<String>) -> Obj {
    // SAFETY: the caller's promise.
    let py = unsafe { Python::assume_attached() };
    match make(py) {
        Ok(text) => PyString::new(py, &text).into_ptr(),
        Err(e) => {
            e.restore(py);
            null_mut()
        }
    }
}

/// The name of an object's class.
///
/// # Safety
/// An object; the GIL is held.
pub unsafe fn class_name(py: Python<'_>, slf: Obj) -> PyResult<String> {
    // SAFETY: the caller's promise.
    unsafe {
        Ok(Bound::from_borrowed_ptr(py, slf)
            .get_type()
            .name()?
            .to_string())
    }
}
