//! `DummySemaphore`: has the methods of a semaphore and no limit.

use super::Obj;
use super::object::{self, Fields, alloc, class_name, clear_weak, text};
use crate::raw::{boolean, fast, method, noargs, none, one, parsed};
use crate::raw_type::NewType;
use crate::statics::Immortal;
use pyo3::ffi::{self, PyGetSetDef, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr::null_mut;

/// It has nothing but what every object of Python's has.
#[repr(C)]
struct Dummy {
    base: ffi::PyObject,
    weak: Obj,
    /// Its attributes: an owned reference or null.
    dict: Obj,
}

// SAFETY: the struct begins so, and this is its only reference.
unsafe impl Fields for Dummy {
    unsafe fn fields(me: *mut Self) -> impl Iterator<Item = *mut Obj> {
        // SAFETY: the caller's promise.
        std::iter::once(unsafe { &raw mut (*me).dict })
    }

    unsafe fn finish(me: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe { clear_weak(me.cast(), (*me).weak) };
    }
}

static TYPE: Immortal<*mut PyTypeObject> = Immortal::new();

/// Whether an object is exactly a `DummySemaphore`, whose methods do nothing.
///
/// # Safety
/// An object; the GIL is held.
#[inline]
pub unsafe fn is_plain(p: Obj) -> bool {
    // SAFETY: the caller's promise.
    TYPE.get() == Some(&unsafe { ffi::Py_TYPE(p) })
}

#[crate::entry]
unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: the slot's contract; all zeros is a good value.
    unsafe { alloc(ty) }
}

#[crate::entry]
unsafe extern "C" fn tp_init(_slf: Obj, args: Obj, kwargs: Obj) -> c_int {
    // SAFETY: the slot's contract; the argument is borrowed.
    unsafe {
        let mut value: Obj = null_mut();
        let mut names = [c"value".as_ptr(), std::ptr::null()];
        let ok = ffi::PyArg_ParseTupleAndKeywords(
            args,
            kwargs,
            c"|O:DummySemaphore".as_ptr(),
            names.as_mut_ptr().cast(),
            &raw mut value,
        );
        if ok == 0 { -1 } else { 0 }
    }
}

#[crate::entry]
unsafe extern "C" fn str(slf: Obj) -> Obj {
    // SAFETY: as the C API calls it, on an object.
    unsafe { text(|py| Ok(format!("<{}>", class_name(py, slf)?))) }
}

#[crate::entry]
unsafe extern "C" fn no(_: Obj, _: Obj) -> Obj {
    // SAFETY: the GIL is held.
    unsafe { boolean(false) }
}

#[crate::entry]
unsafe extern "C" fn yes(_: Obj, _: Obj) -> Obj {
    // SAFETY: the GIL is held.
    unsafe { boolean(true) }
}

#[crate::entry]
unsafe extern "C" fn nothing(_: Obj, _: Obj) -> Obj {
    // SAFETY: the GIL is held.
    unsafe { none() }
}

#[crate::entry]
unsafe extern "C" fn exit(_: Obj, _: *const Obj, _: ffi::Py_ssize_t, _: Obj) -> Obj {
    // SAFETY: the GIL is held.
    unsafe { none() }
}

method!(parsed: acquire, c"acquire", [c"blocking", c"timeout"], |_me, _args| boolean(true));

method!(parsed: wait, c"wait", [c"timeout"], |_me, _args| ffi::PyLong_FromLong(1));

/// Adds the type.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let methods = vec![
        noargs(c"locked", no, c"Return false."),
        noargs(c"ready", yes, c"Return true."),
        noargs(c"release", nothing, c"Do nothing."),
        one(c"rawlink", nothing, c"rawlink(callback)\n\nDo nothing."),
        one(c"unlink", nothing, c"unlink(callback)\n\nDo nothing."),
        fast(c"wait", wait, 0, c"wait(timeout=None)\n\nReturn 1 at once."),
        fast(
            c"acquire",
            acquire,
            0,
            c"acquire(blocking=True, timeout=None)\n\nReturn true at once.",
        ),
        noargs(c"__enter__", nothing, c"Do nothing."),
        fast(c"__exit__", exit, 0, c"Do nothing."),
    ];
    let dict = PyGetSetDef {
        name: c"__dict__".as_ptr(),
        get: Some(ffi::PyObject_GenericGetDict),
        set: Some(ffi::PyObject_GenericSetDict),
        doc: std::ptr::null(),
        closure: null_mut::<c_void>(),
    };
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        let ty = NewType::of::<Dummy>(c"gevent.lock.DummySemaphore")
            .about(c"DummySemaphore(value=None) -> DummySemaphore\n\nHas the methods of a `Semaphore` that is never exhausted: nothing blocks or counts. Use it where a limit is optional. *value* is ignored.")
            .methods(methods)
            .attributes(vec![dict])
            .new_by(tp_new)
            .init_by(tp_init)
            .ended_by(
                object::dealloc::<Dummy>,
                object::traverse::<Dummy>,
                object::clear::<Dummy>,
            )
            .str_by(str)
            .offsets(&[
                (c"__weaklistoffset__", offset_of!(Dummy, weak)),
                (c"__dictoffset__", offset_of!(Dummy, dict)),
            ])
            .add(m, None)?;
        TYPE.set(ty);
    }
    Ok(())
}
