//! The module `greenlet._greenlet`: functions, exceptions and constants, as `gevent._core` makes it.

use super::object::{Globals, PyGreenlet, clear, globals, new_ref, replace, set_globals};
use super::{capi, lifecycle, rival, types};
use crate::thread_data::ThreadData;
use crate::tstate;
use pyo3::exceptions::PyImportError;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::ffi::{CStr, c_int};
use std::ptr::{self, null_mut};

/// The running greenlet, a new reference; null with RuntimeError at the end of the interpreter.
///
/// # Safety
/// The GIL is held.
#[inline]
pub unsafe fn current_or_error() -> *mut PyGreenlet {
    // SAFETY: the caller's promise.
    unsafe {
        let td = ThreadData::get();
        if tstate::finalizing() {
            let text = c"greenlet is being finalized";
            ffi::PyErr_SetString(ffi::PyExc_RuntimeError, text.as_ptr());
            return null_mut();
        }
        if td.needs_attention() {
            td.tidy();
        }
        new_ref(td.current.get())
    }
}

#[crate::entry]
unsafe extern "C" fn getcurrent(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe { current_or_error().cast() }
}

#[crate::entry]
unsafe extern "C" fn settrace(_: *mut PyObject, tracer: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe {
        let td = ThreadData::get();
        let old = shown_tracer(td);
        clear(&td.quiet_tracer);
        if ptr::eq(tracer, ffi::Py_None()) {
            clear(&td.tracer);
        } else {
            replace(&td.tracer, new_ref(tracer));
        }
        old
    }
}

#[crate::entry]
unsafe extern "C" fn gettrace(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe { shown_tracer(ThreadData::get()) }
}

/// What `gettrace` returns: a new reference.
///
/// # Safety
/// The GIL is held.
unsafe fn shown_tracer(td: &ThreadData) -> *mut PyObject {
    let tracer = match td.tracer.get() {
        none if none.is_null() => td.quiet_tracer.get(),
        tracer => tracer,
    };
    // SAFETY: the GIL is held; the thread owns both.
    unsafe {
        new_ref(if tracer.is_null() {
            ffi::Py_None()
        } else {
            tracer
        })
    }
}

#[crate::entry]
unsafe extern "C" fn set_thread_local(
    _: *mut PyObject,
    args: *mut *mut PyObject,
    nargs: ffi::Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe {
        if nargs != 2 {
            let text = c"set_thread_local expected 2 arguments, got %zd";
            return ffi::PyErr_Format(ffi::PyExc_TypeError, text.as_ptr(), nargs);
        }
        if ffi::PyDict_SetItem(ffi::PyThreadState_GetDict(), *args, *args.add(1)) < 0 {
            return null_mut();
        }
        new_ref(ffi::Py_None())
    }
}

/// Greenlets of ended threads are cleaned up when the thread ends: nothing is ever pending.
#[crate::entry]
unsafe extern "C" fn pending_cleanups(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe { ffi::PyLong_FromLong(0) }
}

#[crate::entry]
unsafe extern "C" fn total_mains(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe { ffi::PyLong_FromSsize_t(ThreadData::main_greenlets()) }
}

#[crate::entry]
unsafe extern "C" fn cleanup_clocks(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe {
        match lifecycle::cleanup_clocks() {
            Some(clocks) => ffi::PyLong_FromLongLong(clocks),
            None => new_ref(ffi::Py_None()),
        }
    }
}

#[crate::entry]
unsafe extern "C" fn enable_cleanup(_: *mut PyObject, flag: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe {
        let on = ffi::PyObject_IsTrue(flag);
        if on < 0 {
            return null_mut();
        }
        lifecycle::enable_cleanup(on != 0);
        new_ref(ffi::Py_None())
    }
}

#[crate::entry]
unsafe extern "C" fn trash_nesting(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe {
        let nesting = tstate::trash_nesting(ffi::PyThreadState_Get());
        ffi::PyLong_FromLong(nesting.unwrap_or(0).into())
    }
}

fn functions() -> *mut ffi::PyMethodDef {
    use ffi::PyMethodDefPointer as P;
    let f = |name: &'static CStr, pointer: P, flags: c_int, doc: &'static CStr| ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: pointer,
        ml_flags: flags,
        ml_doc: doc.as_ptr(),
    };
    let none = ffi::METH_NOARGS;
    let mut list = vec![
        f(
            c"getcurrent",
            P { PyCFunction: getcurrent },
            none,
            c"getcurrent()\n\nThe greenlet that calls this.",
        ),
        f(
            c"settrace",
            P { PyCFunction: settrace },
            ffi::METH_O,
            c"settrace(callback)\n\nSet this thread's tracer, or None, and return the old one. It is \
              called with an event\n('switch' or 'throw') and the pair of greenlets, in the second.",
        ),
        f(
            c"gettrace",
            P { PyCFunction: gettrace },
            none,
            c"gettrace()\n\nThis thread's tracer, or None.",
        ),
        f(
            c"set_thread_local",
            P { PyCFunctionFast: set_thread_local },
            ffi::METH_FASTCALL,
            c"set_thread_local(key, value)\n\nSet an item of the thread state's dictionary. For tests.",
        ),
        f(
            c"get_pending_cleanup_count",
            P { PyCFunction: pending_cleanups },
            none,
            c"get_pending_cleanup_count()\n\nEnded threads that wait for their clean-up. For tests.",
        ),
        f(
            c"get_total_main_greenlets",
            P { PyCFunction: total_mains },
            none,
            c"get_total_main_greenlets()\n\nHow many main greenlets exist. For tests.",
        ),
        f(
            c"get_clocks_used_doing_optional_cleanup",
            P { PyCFunction: cleanup_clocks },
            none,
            c"get_clocks_used_doing_optional_cleanup()\n\nProcessor time, in ticks of CLOCKS_PER_SEC, \
              spent on finding main greenlets that ended\nthreads leaked; None when that is off.",
        ),
        f(
            c"enable_optional_cleanup",
            P { PyCFunction: enable_cleanup },
            ffi::METH_O,
            c"enable_optional_cleanup(flag)\n\nTurn the search for leaked main greenlets on or off.",
        ),
    ];
    if cfg!(not(Py_3_13)) {
        list.push(f(
            c"get_tstate_trash_delete_nesting",
            P {
                PyCFunction: trash_nesting,
            },
            none,
            c"get_tstate_trash_delete_nesting()\n\nThe nesting of the trashcan. For tests.",
        ));
    }
    list.push(ffi::PyMethodDef::zeroed());
    list.leak().as_mut_ptr()
}

/// Makes the globals: types, exceptions, names.
///
/// # Safety
/// At the module's initialisation, once.
unsafe fn make_globals(py: Python<'_>) -> PyResult<*mut ffi::PyTypeObject> {
    // SAFETY: the GIL is held; all references made here live as long as the process.
    unsafe {
        let intern = |text: &CStr| ffi::PyUnicode_InternFromString(text.as_ptr());
        let ty = types::make_greenlet_type();
        let globals = Globals {
            greenlet_type: ty,
            error: ffi::PyErr_NewException(c"greenlet.error".as_ptr(), null_mut(), null_mut()),
            exit: ffi::PyErr_NewException(
                c"greenlet.GreenletExit".as_ptr(),
                ffi::PyExc_BaseException,
                null_mut(),
            ),
            empty_tuple: ffi::PyTuple_New(0),
            str_run: intern(c"run"),
            str_switch: intern(c"switch"),
            str_throw: intern(c"throw"),
            thread_key: intern(c"gevent._core.thread"),
        };
        let broken = if ty.is_null() {
            null_mut()
        } else {
            types::make_unswitchable_type(ty)
        };
        if broken.is_null() || globals.exit.is_null() || globals.error.is_null() {
            return Err(PyErr::fetch(py));
        }
        set_globals(globals);
        Ok(broken)
    }
}

/// Adds `value` (stolen) to a module's dictionary.
///
/// # Safety
/// `module` is a module and `value` an owned reference or null.
unsafe fn add(
    py: Python<'_>,
    module: *mut PyObject,
    name: &CStr,
    value: *mut PyObject,
) -> PyResult<()> {
    // SAFETY: the caller's promise.
    unsafe {
        if value.is_null() || ffi::PyObject_SetAttrString(module, name.as_ptr(), value) < 0 {
            ffi::Py_XDECREF(value);
            return Err(PyErr::fetch(py));
        }
        ffi::Py_DECREF(value);
        Ok(())
    }
}

/// Makes the module, after the self-test of the interpreter's layout.
///
/// # Errors
/// ImportError if this interpreter is not the one that the library was built for.
pub fn make(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: the GIL is held throughout; each object is checked before it is used.
    unsafe {
        tstate::self_test().map_err(PyImportError::new_err)?;
        let broken = make_globals(py)?;
        let g = globals();
        let module = ffi::PyModule_New(c"greenlet._greenlet".as_ptr());
        if module.is_null() || ffi::PyModule_AddFunctions(module, functions()) < 0 {
            return Err(PyErr::fetch(py));
        }
        add(py, module, c"greenlet", new_ref(g.greenlet_type.cast()))?;
        add(py, module, c"UnswitchableGreenlet", broken.cast())?;
        add(py, module, c"error", new_ref(g.error))?;
        add(py, module, c"GreenletExit", new_ref(g.exit))?;
        for name in [
            c"GREENLET_USE_GC",
            c"GREENLET_USE_TRACING",
            c"GREENLET_USE_CONTEXT_VARS",
            c"GREENLET_USE_STANDARD_THREADING",
        ] {
            add(py, module, name, ffi::PyLong_FromLong(1))?;
        }
        add(
            py,
            module,
            c"CLOCKS_PER_SEC",
            ffi::PyLong_FromLong(1_000_000),
        )?;
        add(py, module, c"_C_API", capi::capsule())?;
        // The type carries the module's chief names, as greenlet's does.
        for name in [
            c"getcurrent",
            c"error",
            c"GreenletExit",
            c"settrace",
            c"gettrace",
        ] {
            let value = ffi::PyObject_GetAttrString(module, name.as_ptr());
            let dict = (*g.greenlet_type).tp_dict;
            if value.is_null() || ffi::PyDict_SetItemString(dict, name.as_ptr(), value) < 0 {
                return Err(PyErr::fetch(py));
            }
            ffi::Py_DECREF(value);
        }
        ffi::PyType_Modified(g.greenlet_type);
        rival::disarm(py)?;
        Ok(Bound::from_owned_ptr(py, module))
    }
}
