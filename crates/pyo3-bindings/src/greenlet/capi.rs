//! The C interface that extension modules get from the capsule `greenlet._C_API`: twelve pointers, in
//! the order of greenlet's header.

use super::attributes;
use super::object::{PyGreenlet, globals, new_ref, replace};
use super::switch::{self, Carry};
use super::types;
use crate::thread_data::ThreadData;
use pyo3::ffi::{self, PyObject};
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

#[repr(transparent)]
struct Table(UnsafeCell<[*mut c_void; 12]>);

// SAFETY: written once at import and read by C code, with the GIL held.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([null_mut(); 12]));

/// Whether `g` is a greenlet; else an error is set.
///
/// # Safety
/// The GIL is held; `g` is an object or null.
unsafe fn checked(g: *mut PyGreenlet) -> bool {
    // SAFETY: the callers hold the GIL and pass an object or null.
    unsafe {
        if g.is_null() || !PyGreenlet::check(g.cast()) {
            ffi::PyErr_BadArgument();
            return false;
        }
    }
    true
}

#[crate::entry]
unsafe extern "C" fn api_new(run: *mut PyObject, parent: *mut PyGreenlet) -> *mut PyGreenlet {
    // SAFETY: the interface's contract: the GIL is held, the arguments are objects or null.
    unsafe {
        let g = types::make(globals().greenlet_type);
        if g.is_null() {
            return null_mut();
        }
        if !run.is_null() {
            replace(&(*g).run, new_ref(run));
        }
        if !parent.is_null()
            && !std::ptr::eq(parent.cast(), ffi::Py_None())
            && attributes::set_parent(g.cast(), parent.cast(), null_mut()) < 0
        {
            ffi::Py_DECREF(g.cast());
            return null_mut();
        }
        g
    }
}

#[crate::entry]
unsafe extern "C" fn api_getcurrent() -> *mut PyGreenlet {
    // SAFETY: the GIL is held.
    unsafe { super::module::current_or_error() }
}

#[crate::entry]
unsafe extern "C" fn api_throw(
    g: *mut PyGreenlet,
    ty: *mut PyObject,
    value: *mut PyObject,
    tb: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the interface's contract.
    unsafe {
        if !checked(g) {
            return null_mut();
        }
        let ty = if ty.is_null() { globals().exit } else { ty };
        let exc = types::make_exception(ty, value, tb);
        if exc.is_null() {
            return null_mut();
        }
        types::guarded(null_mut(), || types::throw_into(ThreadData::get(), g, exc))
    }
}

#[crate::entry]
unsafe extern "C" fn api_switch(
    g: *mut PyGreenlet,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the interface's contract.
    unsafe {
        if !checked(g) {
            return null_mut();
        }
        let args = if args.is_null() {
            globals().empty_tuple
        } else {
            args
        };
        if ffi::PyTuple_Check(args) == 0 {
            ffi::PyErr_BadArgument();
            return null_mut();
        }
        let kwargs = if kwargs.is_null() || ffi::PyDict_Check(kwargs) == 0 {
            null_mut()
        } else {
            kwargs
        };
        let carry = Carry::Call(new_ref(args), new_ref(kwargs));
        types::guarded(null_mut(), || {
            switch::switch_to(ThreadData::get(), g, carry)
        })
    }
}

#[crate::entry]
unsafe extern "C" fn api_setparent(g: *mut PyGreenlet, parent: *mut PyGreenlet) -> c_int {
    // SAFETY: the interface's contract.
    unsafe { attributes::set_parent(g.cast(), parent.cast(), null_mut()) }
}

#[crate::entry]
unsafe extern "C" fn api_main(g: *mut PyGreenlet) -> c_int {
    // SAFETY: the interface's contract.
    unsafe {
        if checked(g) {
            (*g).is_main().into()
        } else {
            -1
        }
    }
}

#[crate::entry]
unsafe extern "C" fn api_started(g: *mut PyGreenlet) -> c_int {
    // SAFETY: the interface's contract.
    unsafe {
        if checked(g) {
            (*g).started().into()
        } else {
            -1
        }
    }
}

#[crate::entry]
unsafe extern "C" fn api_active(g: *mut PyGreenlet) -> c_int {
    // SAFETY: the interface's contract.
    unsafe { if checked(g) { (*g).active().into() } else { -1 } }
}

#[crate::entry]
unsafe extern "C" fn api_getparent(g: *mut PyGreenlet) -> *mut PyGreenlet {
    // SAFETY: the interface's contract.
    unsafe {
        if checked(g) {
            new_ref((*g).parent.get())
        } else {
            null_mut()
        }
    }
}

/// Makes the capsule; null with an error set if it fails.
///
/// # Safety
/// The GIL is held and the globals are set.
pub unsafe fn capsule() -> *mut PyObject {
    let g = globals();
    // SAFETY: nobody has the table before the capsule exists; the GIL is held.
    unsafe {
        *TABLE.0.get() = [
            g.greenlet_type.cast(),
            g.error.cast(),
            g.exit.cast(),
            api_new as *mut c_void,
            api_getcurrent as *mut c_void,
            api_throw as *mut c_void,
            api_switch as *mut c_void,
            api_setparent as *mut c_void,
            api_main as *mut c_void,
            api_started as *mut c_void,
            api_active as *mut c_void,
            api_getparent as *mut c_void,
        ];
        ffi::PyCapsule_New(TABLE.0.get().cast(), c"greenlet._C_API".as_ptr(), None)
    }
}
