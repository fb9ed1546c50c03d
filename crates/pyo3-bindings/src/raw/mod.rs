//! Small helpers for types and functions that are written against the C API by hand, because they are
//! hot or extend the raw greenlet: method tables, argument parsing, error exits.

mod args;

pub(crate) use args::method;
pub use args::{Args, Passed, parsed, parsed_first, required};

use pyo3::ffi::{self, PyMethodDef, PyMethodDefPointer, PyObject};
use std::ffi::{CStr, c_int};
use std::ptr::null_mut;

/// A fast function with keywords.
pub type FastKw = unsafe extern "C" fn(
    *mut PyObject,
    *const *mut PyObject,
    ffi::Py_ssize_t,
    *mut PyObject,
) -> *mut PyObject;
/// A function of one argument, or of none.
pub type Plain = unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject;

/// A method without arguments.
pub const fn noargs(name: &'static CStr, f: Plain, doc: &'static CStr) -> PyMethodDef {
    def(
        name,
        PyMethodDefPointer { PyCFunction: f },
        ffi::METH_NOARGS,
        doc,
    )
}

/// A method of one argument.
pub const fn one(name: &'static CStr, f: Plain, doc: &'static CStr) -> PyMethodDef {
    def(
        name,
        PyMethodDefPointer { PyCFunction: f },
        ffi::METH_O,
        doc,
    )
}

/// A method with positional and keyword arguments; `extra` adds flags such as METH_CLASS.
pub const fn fast(name: &'static CStr, f: FastKw, extra: c_int, doc: &'static CStr) -> PyMethodDef {
    let meth = PyMethodDefPointer {
        PyCFunctionFastWithKeywords: f,
    };
    def(
        name,
        meth,
        ffi::METH_FASTCALL | ffi::METH_KEYWORDS | extra,
        doc,
    )
}

const fn def(
    name: &'static CStr,
    meth: PyMethodDefPointer,
    flags: c_int,
    doc: &'static CStr,
) -> PyMethodDef {
    PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: meth,
        ml_flags: flags,
        ml_doc: doc.as_ptr(),
    }
}

/// Whether a string object has this text.
///
/// # Safety
/// `name` is a string and the GIL is held.
pub unsafe fn is_name(name: *mut PyObject, text: &CStr) -> bool {
    unsafe extern "C" {
        fn PyUnicode_CompareWithASCIIString(
            s: *mut PyObject,
            text: *const std::ffi::c_char,
        ) -> c_int;
    }
    // SAFETY: the caller's promise; it cannot fail.
    unsafe { PyUnicode_CompareWithASCIIString(name, text.as_ptr()) == 0 }
}

/// A new reference to None.
///
/// # Safety
/// The GIL is held.
pub unsafe fn none() -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { ffi::Py_NewRef(ffi::Py_None()) }
}

/// A new reference to True or False.
///
/// # Safety
/// The GIL is held.
pub unsafe fn boolean(value: bool) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { ffi::PyBool_FromLong(value.into()) }
}

/// What a function returns that has nothing to say: None, or null where an error is set.
///
/// # Safety
/// The GIL is held.
pub unsafe fn answer(done: Result<(), ()>) -> *mut PyObject {
    match done {
        // SAFETY: the caller's promise.
        Ok(()) => unsafe { none() },
        Err(()) => null_mut(),
    }
}

/// True or False, or null where an error is set.
///
/// # Safety
/// The GIL is held.
pub unsafe fn answer_bool(done: Result<bool, ()>) -> *mut PyObject {
    match done {
        // SAFETY: the caller's promise.
        Ok(value) => unsafe { boolean(value) },
        Err(()) => null_mut(),
    }
}

/// Drops the result of a call. `Err` if it is null.
///
/// # Safety
/// An owned reference or null; the GIL is held.
pub unsafe fn done(r: *mut PyObject) -> Result<(), ()> {
    if r.is_null() {
        return Err(());
    }
    // SAFETY: the caller's promise.
    unsafe { ffi::Py_DECREF(r) };
    Ok(())
}

/// Whether an argument was left out or is None.
///
/// # Safety
/// The GIL is held.
pub unsafe fn absent(arg: *mut PyObject) -> bool {
    // SAFETY: a comparison of pointers.
    arg.is_null() || arg == unsafe { ffi::Py_None() }
}

/// A tuple of two, which steals nothing; null with an error set.
///
/// # Safety
/// The GIL is held; both are objects.
pub unsafe fn pair(a: *mut PyObject, b: *mut PyObject) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { ffi::PyTuple_Pack(2, a, b) }
}

unsafe extern "C" {
    /// What a type or its bases have under a name: borrowed, or null without an error. Uses the
    /// interpreter's method cache. Exported by every CPython that is supported.
    pub fn _PyType_Lookup(ty: *mut ffi::PyTypeObject, name: *mut PyObject) -> *mut PyObject;
}

unsafe extern "C" {
    fn PyCMethod_New(
        def: *mut PyMethodDef,
        slf: *mut PyObject,
        module: *mut PyObject,
        class: *mut ffi::PyTypeObject,
    ) -> *mut PyObject;
}

/// Adds hand-written functions to a module; `home` is the public module that they say they are from.
///
/// # Errors
/// Of the C API.
pub fn add_functions(
    m: &pyo3::Bound<'_, pyo3::types::PyModule>,
    home: &str,
    mut defs: Vec<PyMethodDef>,
) -> pyo3::PyResult<()> {
    use pyo3::types::{PyModuleMethods, PyString};
    let py = m.as_any().py();
    let home = PyString::new(py, home);
    crate::signature::sign(&mut defs, "");
    for def in Box::leak(defs.into_boxed_slice()) {
        // SAFETY: the definition lives for ever, and its name is a terminated string.
        let (f, name) = unsafe {
            let f = PyCMethod_New(def, null_mut(), home.as_ptr(), null_mut());
            (
                pyo3::Bound::from_owned_ptr_or_err(py, f)?,
                CStr::from_ptr(def.ml_name),
            )
        };
        m.add(name.to_string_lossy().as_ref(), f)?;
    }
    Ok(())
}

/// Makes hand-written methods descriptors of `class`, each with its name.
///
/// # Errors
/// Of the C API.
pub fn descriptors<'py>(
    class: &pyo3::Bound<'py, pyo3::types::PyType>,
    mut defs: Vec<PyMethodDef>,
) -> pyo3::PyResult<
    Vec<(
        pyo3::Bound<'py, pyo3::types::PyString>,
        pyo3::Bound<'py, pyo3::PyAny>,
    )>,
> {
    use pyo3::types::{PyString, PyTypeMethods};
    let py = class.as_any().py();
    crate::signature::sign(&mut defs, "$self");
    let defs = Box::leak(defs.into_boxed_slice()).iter_mut();
    defs.map(|def| {
        // SAFETY: the definition lives for ever, and its name is a terminated string.
        let (descriptor, name) = unsafe {
            let descriptor = ffi::PyDescr_NewMethod(class.as_type_ptr(), def);
            (
                pyo3::Bound::from_owned_ptr_or_err(py, descriptor)?,
                CStr::from_ptr(def.ml_name),
            )
        };
        Ok((PyString::intern(py, &name.to_string_lossy()), descriptor))
    })
    .collect()
}
