//! `Event`: a flag that can be waited for.

use super::Obj;
use super::args::Limit;
use super::linkable::{Kind, Linkable, members};
use super::object::{class_name, free, text};
use super::wait::wait;
use crate::gevent_greenlet::make_type;
use crate::raw::{Args, boolean, fast, noargs, none};
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

#[repr(C)]
struct Event {
    base: Linkable,
    flag: bool,
}

fn cast(slf: Obj) -> *mut Event {
    slf.cast()
}

/// Whether it is set.
///
/// # Safety
/// `me` is an event.
#[inline]
pub unsafe fn is_set(me: *mut Linkable) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*me.cast::<Event>()).flag }
}

/// Whether an object is exactly an event, whose methods are the native ones.
///
/// # Safety
/// An object; the GIL is held.
#[inline]
pub unsafe fn is_plain(p: Obj) -> bool {
    // SAFETY: the caller's promise.
    TYPE.get()
        .is_some_and(|ty| ty.0 == unsafe { ffi::Py_TYPE(p) })
}

/// Clears an object that is an event.
///
/// # Safety
/// `slf` is an event.
#[inline]
pub unsafe fn reset(slf: Obj) {
    // SAFETY: the caller's promise.
    unsafe { (*cast(slf)).flag = false };
}

/// Sets an event and wakes everyone.
///
/// # Safety
/// `slf` is an event to which the caller has a reference; the GIL is held.
pub unsafe fn raise_flag(slf: Obj) {
    // SAFETY: the caller's promise.
    unsafe {
        Linkable::saw_thread(slf.cast());
        (*cast(slf)).flag = true;
        Linkable::check_and_notify(slf.cast());
    }
}

/// A new event, set or not; null with an error set.
///
/// # Safety
/// The GIL is held.
pub unsafe fn new_event(flag: bool) -> Obj {
    // SAFETY: the type lives for ever.
    unsafe {
        let Some(ty) = TYPE.get() else {
            return null_mut();
        };
        let me = Linkable::make(ty.0, Kind::Event).cast::<Event>();
        if !me.is_null() {
            (*me).flag = flag;
        }
        me.cast()
    }
}

struct Type(*mut PyTypeObject);

// SAFETY: an immortal type, used with the GIL held.
unsafe impl Send for Type {}
// SAFETY: as above.
unsafe impl Sync for Type {}

static TYPE: OnceLock<Type> = OnceLock::new();

unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: the slot's contract.
    unsafe { Linkable::make(ty, Kind::Event).cast() }
}

unsafe extern "C" fn tp_init(_slf: Obj, args: Obj, kwargs: Obj) -> c_int {
    // SAFETY: the slot's contract.
    unsafe {
        if ffi::PyTuple_GET_SIZE(args) != 0 || (!kwargs.is_null() && ffi::PyDict_Size(kwargs) != 0)
        {
            let text = c"Event() takes no arguments";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return -1;
        }
        0
    }
}

unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe {
        Linkable::finish(slf.cast());
        free(slf);
    }
}

unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe { Linkable::traverse(slf.cast(), visit, arg) }
}

unsafe extern "C" fn tp_clear(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        Linkable::clear(slf.cast());
        0
    }
}

unsafe extern "C" fn str(slf: Obj) -> Obj {
    // SAFETY: an event.
    unsafe {
        text(|py| {
            let module = Bound::from_borrowed_ptr(py, slf)
                .get_type()
                .getattr("__module__")?;
            Ok(format!(
                "<{module}.{} at {:#x} {} _links[{}]>",
                class_name(py, slf)?,
                slf as usize,
                if (*cast(slf)).flag { "set" } else { "clear" },
                (*cast(slf)).base.links.len()
            ))
        })
    }
}

unsafe extern "C" fn py_is_set(slf: Obj, _: Obj) -> Obj {
    // SAFETY: an event.
    unsafe { boolean((*cast(slf)).flag) }
}

unsafe extern "C" fn py_set(slf: Obj, _: Obj) -> Obj {
    // SAFETY: an event.
    unsafe {
        raise_flag(slf);
        none()
    }
}

unsafe extern "C" fn py_clear(slf: Obj, _: Obj) -> Obj {
    // SAFETY: an event.
    unsafe {
        (*cast(slf)).flag = false;
        none()
    }
}

unsafe extern "C" fn py_wait(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, names: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let args = Args::new(items, n, names);
        let Ok([timeout]) = args.parse(c"wait", [c"timeout"]) else {
            return null_mut();
        };
        let came = match Limit::new(timeout) {
            Ok(limit) => wait(slf.cast(), limit),
            Err(()) => Err(()),
        };
        match came {
            Ok(came) => boolean(came),
            Err(()) => null_mut(),
        }
    }
}

unsafe extern "C" fn nothing(_: Obj, _: Obj) -> Obj {
    // SAFETY: the GIL is held.
    unsafe { none() }
}

/// Adds the type.
pub fn register(m: &Bound<'_, PyModule>, base: *mut PyTypeObject) -> PyResult<()> {
    let is_set_doc = c"Return whether the event is set.";
    let methods = vec![
        noargs(c"is_set", py_is_set, is_set_doc),
        noargs(c"isSet", py_is_set, is_set_doc),
        noargs(c"ready", py_is_set, is_set_doc),
        noargs(c"set", py_set, c"Set the event and wake everyone who waits for it."),
        noargs(c"clear", py_clear, c"Clear the event; from now on `wait` blocks."),
        fast(
            c"wait",
            py_wait,
            0,
            c"wait(timeout=None)\n\nBlock until the event is set. Returns true if it was set when the call began or while it waited, and false only if *timeout*, in seconds, passed before.",
        ),
        noargs(
            c"_reset_internal_locks",
            nothing,
            c"Do nothing; threading.Event once had this method for the child of a fork.",
        ),
    ];
    let slots = [
        (ffi::Py_tp_new, tp_new as *mut c_void),
        (ffi::Py_tp_init, tp_init as *mut c_void),
        (ffi::Py_tp_dealloc, dealloc as *mut c_void),
        (ffi::Py_tp_traverse, traverse as *mut c_void),
        (ffi::Py_tp_clear, tp_clear as *mut c_void),
        (ffi::Py_tp_str, str as *mut c_void),
        (ffi::Py_tp_members, members()),
        (
            ffi::Py_tp_doc,
            c"A flag that greenlets and threads can wait for, like `threading.Event`.\n\nGreenlets that wait are woken in the order in which they came. A greenlet that finds the event set while others are being woken runs after them. The event may be cleared again before they run: `wait` tells that it was set at some time while they waited.\n\nAll methods may be called from any native thread, with a hub or without."
                .as_ptr()
                .cast_mut()
                .cast(),
        ),
    ];
    // SAFETY: at the module's initialisation, with the GIL held; the size is that of the struct.
    unsafe {
        let size = size_of::<Event>();
        let name = c"gevent.event.Event";
        let ty = make_type(m.py(), name, size, base, methods, vec![], &slots)?;
        let _ = TYPE.set(Type(ty));
        m.add("Event", Bound::from_borrowed_ptr(m.py(), ty.cast()))
    }
}
