//! What the raw types of this folder share as Python objects: weak references, memory, texts.

use super::Obj;
use pyo3::ffi::{self, PyGetSetDef, PyMemberDef};
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::ffi::{CStr, c_void};
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

/// The table that says where a type has its list of weak references.
pub fn weakly_referenced(offset: usize) -> *mut c_void {
    let end = PyMemberDef {
        name: std::ptr::null(),
        type_code: 0,
        offset: 0,
        flags: 0,
        doc: std::ptr::null(),
    };
    let table = vec![
        PyMemberDef {
            name: c"__weaklistoffset__".as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset: offset as ffi::Py_ssize_t,
            flags: ffi::Py_READONLY,
            doc: std::ptr::null(),
        },
        end,
    ];
    Box::leak(table.into_boxed_slice()).as_mut_ptr().cast()
}

/// Allocates an object, all zeros behind its head.
///
/// # Safety
/// `ty` is a ready type; the GIL is held.
#[inline]
pub unsafe fn alloc(ty: *mut ffi::PyTypeObject) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        match (*ty).tp_alloc {
            Some(alloc) => alloc(ty, 0),
            None => ffi::PyType_GenericAlloc(ty, 0),
        }
    }
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
