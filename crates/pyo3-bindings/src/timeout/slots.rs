//! The slots: how a timeout is made, visited, cleared, freed, compared and hashed.

use super::{Obj, TimeoutObject, cast};
use crate::hub::get_core;
use crate::raw::{absent, none};
use crate::sync::object::{self, Fields, set};
use pyo3::ffi::{self, PyTypeObject};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

#[crate::entry]
pub(super) unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: the base's constructor allocates, zeroed, an object of `ty`.
    unsafe {
        let base = ffi::PyExc_BaseException.cast::<PyTypeObject>();
        let Some(new) = (*base).tp_new else {
            return null_mut();
        };
        let t = crate::tstate::tp_new(new, ty, crate::greenlet::globals().empty_tuple, null_mut());
        if !t.is_null() {
            let me = cast(t);
            (&raw mut (*me).id).write(None);
            (*me).counts = true;
            (*me).priority = -1;
        }
        t
    }
}

#[crate::entry]
pub(super) unsafe extern "C" fn tp_init(slf: Obj, args: Obj, kwargs: Obj) -> c_int {
    // SAFETY: the slot's contract; borrowed arguments.
    unsafe {
        let mut v: [Obj; 5] = [null_mut(); 5];
        let names = [c"seconds", c"exception", c"ref", c"priority", c"_one_shot"];
        let mut list: Vec<_> = names.iter().map(|n| n.as_ptr()).collect();
        list.push(std::ptr::null());
        let [seconds, exception, counts, priority, one_shot] = &mut v;
        if ffi::PyArg_ParseTupleAndKeywords(
            args,
            kwargs,
            c"|OOOOO:Timeout".as_ptr(),
            list.as_mut_ptr().cast(),
            &raw mut *seconds,
            &raw mut *exception,
            &raw mut *counts,
            &raw mut *priority,
            &raw mut *one_shot,
        ) == 0
        {
            return -1;
        }
        fill(cast(slf), v)
    }
}

/// Sets the fields from the constructor's arguments, borrowed or null.
///
/// # Safety
/// As `timeout` says.
pub(super) unsafe fn fill(
    me: *mut TimeoutObject,
    [seconds, exception, counts, priority, one_shot]: [Obj; 5],
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        for (flag, arg) in [
            (&raw mut (*me).counts, counts),
            (&raw mut (*me).one_shot, one_shot),
        ] {
            if !arg.is_null() {
                let truth = ffi::PyObject_IsTrue(arg);
                if truth < 0 {
                    return -1;
                }
                *flag = truth != 0;
            }
        }
        if !absent(priority) {
            let p = ffi::PyLong_AsLong(priority);
            if p == -1 && !ffi::PyErr_Occurred().is_null() {
                return -1;
            }
            (*me).priority = p.clamp(-2, 2) as i32;
        }
        if !absent(seconds) {
            let s = ffi::PyFloat_AsDouble(seconds);
            if s == -1.0 && !ffi::PyErr_Occurred().is_null() {
                return -1;
            }
            let Ok(hub) = get_core() else { return -1 };
            set(&raw mut (*me).loop_, ffi::Py_NewRef(hub.loop_object()));
        }
        let keep = |p: Obj| {
            if p.is_null() {
                none()
            } else {
                ffi::Py_NewRef(p)
            }
        };
        set(&raw mut (*me).seconds, keep(seconds));
        set(&raw mut (*me).exception, keep(exception));
        0
    }
}

// SAFETY: an exception is an object, its class is on the heap, and these are all of the references that the
// part behind the exception owns.
unsafe impl Fields for TimeoutObject {
    unsafe fn fields(me: *mut Self) -> impl Iterator<Item = *mut Obj> {
        // SAFETY: addresses only.
        unsafe {
            [
                &raw mut (*me).seconds,
                &raw mut (*me).exception,
                &raw mut (*me).greenlet,
                &raw mut (*me).throws,
                &raw mut (*me).loop_,
            ]
        }
        .into_iter()
    }
}

#[crate::entry(silent)]
pub(super) unsafe extern "C" fn traverse(
    slf: Obj,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        let r = object::traverse::<TimeoutObject>(slf, visit, arg);
        if r != 0 {
            return r;
        }
        match (*ffi::PyExc_BaseException.cast::<PyTypeObject>()).tp_traverse {
            Some(f) => f(slf, visit, arg),
            None => 0,
        }
    }
}

#[crate::entry]
pub(super) unsafe extern "C" fn clear(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        object::clear::<TimeoutObject>(slf);
        match (*ffi::PyExc_BaseException.cast::<PyTypeObject>()).tp_clear {
            Some(f) => f(slf),
            None => 0,
        }
    }
}

#[crate::entry]
pub(super) unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract. A running timeout holds a reference to itself, so this one does not run.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        object::clear::<TimeoutObject>(slf);
        let ty: Obj = ffi::Py_TYPE(slf).cast();
        // On CPython 3.10 the base untracks it without asking whether it is tracked.
        ffi::PyObject_GC_Track(slf.cast());
        if let Some(f) = (*ffi::PyExc_BaseException.cast::<PyTypeObject>()).tp_dealloc {
            f(slf);
        }
        // The base is a static type, whose deallocator leaves the type's count alone.
        ffi::Py_DECREF(ty);
    }
}

#[crate::entry]
pub(super) unsafe extern "C" fn hash(slf: Obj) -> ffi::Py_hash_t {
    // SAFETY: `object.__hash__`.
    unsafe { ffi::PyBaseObject_Type.tp_hash.map_or(0, |f| f(slf)) }
}
