//! `Event`: a flag that can be waited for.

use super::Obj;
use super::linkable::{self, Kind, Linkable};
use super::object::{class_name, text};
use crate::raw::{boolean, fast, noargs, none};
use crate::raw_type::{NewType, takes_nothing};
use crate::statics::Immortal;
use gevent_sync::state::Flag;
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::c_int;
use std::mem::offset_of;

#[repr(C)]
struct Event {
    base: Linkable,
    flag: Flag,
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
    unsafe { (*me.cast::<Event>()).flag.is_raised() }
}

/// Whether an object is exactly an event, whose methods are the native ones.
///
/// # Safety
/// An object; the GIL is held.
#[inline]
pub unsafe fn is_plain(p: Obj) -> bool {
    // SAFETY: the caller's promise.
    TYPE.get() == Some(&unsafe { ffi::Py_TYPE(p) })
}

/// Clears an object that is an event.
///
/// # Safety
/// `slf` is an event.
#[inline]
pub unsafe fn reset(slf: Obj) {
    // SAFETY: the caller's promise.
    unsafe { (*cast(slf)).flag.lower() };
}

/// Sets an event and wakes everyone.
///
/// # Safety
/// `slf` is an event to which the caller has a reference; the GIL is held.
pub unsafe fn raise_flag(slf: Obj) {
    // SAFETY: the caller's promise.
    unsafe {
        (*cast(slf)).base.users.saw();
        (*cast(slf)).flag.raise();
        Linkable::check_and_notify(slf.cast());
    }
}

/// A new event, set or not; null with an error set.
///
/// # Safety
/// The GIL is held.
pub unsafe fn new_event(flag: bool) -> Obj {
    // SAFETY: the type lives for ever.
    unsafe { make(*TYPE, flag) }
}

/// # Safety
/// The GIL is held; `ty` is a type of this layout.
unsafe fn make(ty: *mut PyTypeObject, flag: bool) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        let me = Linkable::make(ty, Kind::Event).cast::<Event>();
        if !me.is_null() {
            (&raw mut (*me).flag).write(Flag::new(flag));
        }
        me.cast()
    }
}

static TYPE: Immortal<*mut PyTypeObject> = Immortal::new();

#[crate::entry]
unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: the slot's contract.
    unsafe { make(ty, false) }
}

#[crate::entry]
unsafe extern "C" fn tp_init(_slf: Obj, args: Obj, kwargs: Obj) -> c_int {
    // SAFETY: the slot's contract.
    unsafe { takes_nothing(args, kwargs, c"Event() takes no arguments") }
}

#[crate::entry]
unsafe extern "C" fn str(slf: Obj) -> Obj {
    // SAFETY: as the C API calls it, on an event.
    unsafe {
        text(|py| {
            let module = Bound::from_borrowed_ptr(py, slf)
                .get_type()
                .getattr("__module__")?;
            Ok(format!(
                "<{module}.{} at {:#x} {} _links[{}]>",
                class_name(py, slf)?,
                slf as usize,
                if (*cast(slf)).flag.is_raised() {
                    "set"
                } else {
                    "clear"
                },
                (*cast(slf)).base.links.len()
            ))
        })
    }
}

#[crate::entry]
unsafe extern "C" fn py_is_set(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on an event.
    unsafe { boolean((*cast(slf)).flag.is_raised()) }
}

#[crate::entry]
unsafe extern "C" fn py_set(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on an event.
    unsafe {
        raise_flag(slf);
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn py_clear(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on an event.
    unsafe {
        (*cast(slf)).flag.lower();
        none()
    }
}

#[crate::entry]
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
            super::wait::py_wait,
            0,
            c"wait(timeout=None)\n\nBlock until the event is set. Returns true if it was set when the call began or while it waited, and false only if *timeout*, in seconds, passed before.",
        ),
        noargs(
            c"_reset_internal_locks",
            nothing,
            c"Do nothing; threading.Event once had this method for the child of a fork.",
        ),
    ];
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        let ty = NewType::of::<Event>(c"gevent.event.Event")
            .about(c"A flag that greenlets and threads can wait for, like `threading.Event`.\n\nGreenlets that wait are woken in the order in which they came. A greenlet that finds the event set while others are being woken runs after them. The event may be cleared again before they run: `wait` tells that it was set at some time while they waited.\n\nAll methods may be called from any native thread, with a hub or without.")
            .below(base)
            .methods(methods)
            .new_by(tp_new)
            .init_by(tp_init)
            .ended_by(linkable::dealloc, linkable::traverse, linkable::clear)
            .str_by(str)
            .weak(offset_of!(Linkable, weak))
            .add(m, None)?;
        TYPE.set(ty);
    }
    Ok(())
}
