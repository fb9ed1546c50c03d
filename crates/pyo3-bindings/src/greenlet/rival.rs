//! The other greenlet: two switchers in one thread would corrupt each other's stacks, so if the real
//! `greenlet` package was imported before this one, its greenlets are made to refuse.

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::ffi::c_void;
use std::ptr::null_mut;

const REMEDY: &std::ffi::CStr =
    c"the greenlet package was imported before gevent, which brings its own \
    greenlet module: import gevent first, or uninstall greenlet";

/// # Safety
/// The GIL is held.
unsafe fn refuse() -> *mut PyObject {
    // SAFETY: called by Python with the GIL held.
    unsafe { ffi::PyErr_SetString(ffi::PyExc_RuntimeError, REMEDY.as_ptr()) };
    null_mut()
}

#[crate::entry]
unsafe extern "C" fn refuse_call(
    _: *mut PyObject,
    _: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as `refuse`.
    unsafe { refuse() }
}

#[crate::entry]
unsafe extern "C" fn refuse_new(
    _: *mut ffi::PyTypeObject,
    _: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as `refuse`.
    unsafe { refuse() }
}

/// Takes the place of `PyGreenlet_New`, `_Switch` and `_Throw` in the rival's table.
#[crate::entry]
unsafe extern "C" fn refuse_from_c() -> *mut PyObject {
    // SAFETY: as `refuse`.
    unsafe { refuse() }
}

/// Disarms the real greenlet if it is in the process.
pub fn disarm(py: Python<'_>) -> PyResult<()> {
    let modules = py
        .import("sys")?
        .getattr("modules")?
        .cast_into::<PyDict>()?;
    let Some(rival) = modules.get_item("greenlet._greenlet")? else {
        return Ok(());
    };
    let Ok(ty) = rival.getattr("greenlet") else {
        return Ok(());
    };
    let ours = super::object::globals().greenlet_type;
    // SAFETY: the GIL is held. Its type is a static one of greenlet's layout; its methods are replaced
    // in the type's dictionary, and the table of its capsule is greenlet's, of twelve pointers.
    unsafe {
        if std::ptr::eq(ty.as_ptr().cast(), ours) || ffi::PyType_Check(ty.as_ptr()) == 0 {
            return Ok(());
        }
        let def = |name: &'static std::ffi::CStr| {
            Box::leak(Box::new(ffi::PyMethodDef {
                ml_name: name.as_ptr(),
                ml_meth: ffi::PyMethodDefPointer {
                    PyCFunctionWithKeywords: refuse_call,
                },
                ml_flags: ffi::METH_VARARGS | ffi::METH_KEYWORDS,
                ml_doc: REMEDY.as_ptr(),
            }))
        };
        let raw = ty.as_ptr().cast::<ffi::PyTypeObject>();
        for name in [c"switch", c"throw"] {
            let method = ffi::PyDescr_NewMethod(raw, def(name));
            if method.is_null()
                || (*raw).tp_dict.is_null()
                || ffi::PyDict_SetItemString((*raw).tp_dict, name.as_ptr(), method) < 0
            {
                ffi::PyErr_Clear();
            }
            ffi::Py_XDECREF(method);
        }
        (*raw).tp_new = Some(refuse_new);
        ffi::PyType_Modified(raw);
        if let Ok(capsule) = rival.getattr("_C_API") {
            let name = c"greenlet._C_API".as_ptr();
            if ffi::PyCapsule_IsValid(capsule.as_ptr(), name) != 0 {
                let table = ffi::PyCapsule_GetPointer(capsule.as_ptr(), name).cast::<*mut c_void>();
                for index in [3, 5, 6] {
                    *table.add(index) = refuse_from_c as *mut c_void;
                }
            }
        }
    }
    Ok(())
}
