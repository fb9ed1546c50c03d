//! `AbstractLinkable`: the base type of what can be waited for, as Python sees it.

use super::Obj;
use super::linkable::{self, Kind, Linkable, Who};
use super::object::{attribute, or_none};
use crate::raw::{answer, fast, noargs, none, one};
use crate::raw_type::NewType;
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;

#[crate::entry]
unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: the slot's contract.
    unsafe { Linkable::make(ty, Kind::Plain).cast() }
}

#[crate::entry]
unsafe extern "C" fn tp_init(slf: Obj, args: Obj, kwargs: Obj) -> c_int {
    // SAFETY: the slot's contract.
    unsafe { linkable::init_with_hub(slf, args, kwargs, c"|O:AbstractLinkable") }
}

#[crate::entry]
unsafe extern "C" fn linkcount(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a linkable.
    unsafe { ffi::PyLong_FromSize_t((*slf.cast::<Linkable>()).links.len()) }
}

#[crate::entry]
unsafe extern "C" fn py_ready(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a linkable.
    unsafe {
        let text = c"%s does not say when it is ready";
        ffi::PyErr_Format(
            ffi::PyExc_TypeError,
            text.as_ptr(),
            (*ffi::Py_TYPE(slf)).tp_name,
        )
    }
}

#[crate::entry]
unsafe extern "C" fn rawlink(slf: Obj, callback: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a linkable.
    unsafe {
        if ffi::PyCallable_Check(callback) == 0 {
            let text = c"Expected callable: %R";
            return ffi::PyErr_Format(ffi::PyExc_TypeError, text.as_ptr(), callback);
        }
        linkable::link(slf.cast(), callback);
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn unlink(slf: Obj, callback: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a linkable.
    unsafe { answer(linkable::unlink(slf.cast(), callback)) }
}

#[crate::entry]
unsafe extern "C" fn check(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a linkable.
    unsafe {
        Linkable::check_and_notify(slf.cast());
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn notify_links(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a linkable.
    unsafe {
        linkable::notify_here(slf.cast());
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn at_fork_reinit(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a linkable.
    unsafe {
        linkable::reinit(slf.cast());
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn get_hub(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a linkable.
    unsafe { or_none((*slf.cast::<Linkable>()).hub) }
}

#[crate::entry]
unsafe extern "C" fn set_hub(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
    // SAFETY: as the C API calls it, on a linkable.
    unsafe {
        linkable::set_hub(slf, value);
        0
    }
}

/// The functions that are linked; a greenlet or thread that waits is shown as None.
#[crate::entry]
unsafe extern "C" fn get_links(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a linkable. Filling the list runs no Python that could change the links: it is not tracked
    // by the collector's allocation count until it is appended to, so the pointers are taken first.
    unsafe {
        let found: Vec<Obj> = (*slf.cast::<Linkable>())
            .links
            .iter()
            .map(|l| match l.who {
                Who::Callable(f) => ffi::Py_NewRef(f),
                _ => none(),
            })
            .collect();
        let list = ffi::PyList_New(found.len() as isize);
        for (at, f) in found.into_iter().enumerate() {
            if list.is_null() {
                ffi::Py_DECREF(f);
            } else {
                ffi::PyList_SET_ITEM(list, at as isize, f);
            }
        }
        list
    }
}

#[crate::entry]
unsafe extern "C" fn get_notifier(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a linkable.
    unsafe {
        match (*slf.cast::<Linkable>()).links.notifiers() {
            0 => none(),
            n => ffi::PyLong_FromSize_t(n),
        }
    }
}

/// Adds the base type and returns it.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<*mut PyTypeObject> {
    let methods = vec![
        noargs(
            c"linkcount",
            linkcount,
            c"Return how many functions and waiters are linked to this object.",
        ),
        noargs(
            c"ready",
            py_ready,
            c"Return whether waiting for this object would not block.",
        ),
        one(
            c"rawlink",
            rawlink,
            c"rawlink(callback)\n\nCall *callback* with this object, once, when it is ready. The call is made in the hub of the current thread, so *callback* must not block.",
        ),
        one(
            c"unlink",
            unlink,
            c"unlink(callback)\n\nDo not call *callback* any more, which was given to rawlink.",
        ),
        noargs(
            c"_check_and_notify",
            check,
            c"Wake what is linked, if the object is ready.",
        ),
        noargs(
            c"_notify_links",
            notify_links,
            c"In a hub: call the links that belong to it.",
        ),
        fast(c"_wait", super::wait::py_wait, 0, c"_wait(timeout=None)"),
        noargs(
            c"_at_fork_reinit",
            at_fork_reinit,
            c"Drop the other threads of the parent, in the child after a fork.",
        ),
    ];
    let attributes = vec![
        attribute(
            c"hub",
            get_hub,
            Some(set_hub),
            c"The hub of the first greenlet that waited. It says nothing about who may use the object.",
        ),
        attribute(
            c"_links",
            get_links,
            None,
            c"The functions that are linked; None for each greenlet and thread that waits.",
        ),
        attribute(
            c"_notifier",
            get_notifier,
            None,
            c"In how many hubs a notification is due or running; None if in none.",
        ),
    ];
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        NewType::of::<Linkable>(c"gevent._abstract_linkable.AbstractLinkable")
            .about(c"The base of objects that can be waited for.")
            .methods(methods)
            .attributes(attributes)
            .new_by(tp_new)
            .init_by(tp_init)
            .ended_by(linkable::dealloc, linkable::traverse, linkable::clear)
            .weak(offset_of!(Linkable, weak))
            .add(m, None)
    }
}
