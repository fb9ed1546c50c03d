//! The attributes of `gevent.Greenlet`, and the methods that only look at its state.

use super::object::{GreenletObject, StartState};
use super::slots::truth;
use super::spawn_site::SpawnSite;
use crate::greenlet::globals;
use crate::raw::{absent, boolean, none};
use crate::sync::object::set;
use pyo3::ffi::{self, PyObject};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

type Obj = *mut PyObject;

fn cast(slf: Obj) -> *mut GreenletObject {
    slf.cast()
}

// ---- state -----------------------------------------------------------------------------------------

#[crate::entry]
pub unsafe extern "C" fn ready(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe { boolean(GreenletObject::is_ready(cast(slf))) }
}

/// # Safety
/// The GIL is held; the caller has a reference to `me`.
pub(super) unsafe fn is_successful(me: *mut GreenletObject) -> bool {
    // SAFETY: a `Greenlet`; its `_exc_info` is a tuple of three.
    unsafe { !(*me).exc_info.is_null() && absent(ffi::PyTuple_GET_ITEM((*me).exc_info, 1)) }
}

#[crate::entry]
pub unsafe extern "C" fn successful(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe { boolean(is_successful(cast(slf))) }
}

#[crate::entry]
pub unsafe extern "C" fn get_dead(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe { boolean(GreenletObject::is_dead(cast(slf))) }
}

#[crate::entry]
pub unsafe extern "C" fn get_started(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe { boolean(truth(slf) != 0) }
}

#[crate::entry]
pub unsafe extern "C" fn get_exception(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a `Greenlet`; its `_exc_info` is a tuple of three.
    unsafe {
        let info = (*cast(slf)).exc_info;
        if info.is_null() {
            none()
        } else {
            ffi::Py_NewRef(ffi::PyTuple_GET_ITEM(info, 1))
        }
    }
}

#[crate::entry]
pub unsafe extern "C" fn get_loop(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a `Greenlet`; its parent should be a hub, which has a loop.
    unsafe {
        let parent = (*cast(slf)).base.parent.get();
        if parent.is_null() {
            return none();
        }
        ffi::PyObject_GetAttrString(parent.cast(), c"loop".as_ptr())
    }
}

#[crate::entry]
pub unsafe extern "C" fn get_start_event(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        let pending = match (*cast(slf)).start {
            StartState::Never => return none(),
            StartState::Queued | StartState::Timer(..) => true,
            StartState::Cancelled | StartState::Done => false,
        };
        super::start_event(slf, pending)
    }
}

// ---- what it runs ----------------------------------------------------------------------------------

#[crate::entry]
pub unsafe extern "C" fn get_run(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        let func = (*cast(slf)).func;
        if func.is_null() {
            super::default_run()
        } else {
            ffi::Py_NewRef(func)
        }
    }
}

macro_rules! plain_field {
    ($get:ident, $set:ident, $field:ident, $empty:expr $(, $is:expr, $text:literal)?) => {
        /// The attribute.
        #[crate::entry]
        pub unsafe extern "C" fn $get(slf: Obj, _: *mut c_void) -> Obj {
            // SAFETY: a `Greenlet`.
            unsafe {
                let p = (*cast(slf)).$field;
                if p.is_null() {
                    $empty
                } else {
                    ffi::Py_NewRef(p)
                }
            }
        }
        plain_field!($set, $field $(, $is, $text)?);
    };
    ($set:ident, $field:ident) => {
        plain_field!($set, $field, |_| true, c"");
    };
    ($set:ident, $field:ident, $is:expr, $text:literal) => {
        /// Sets it; deleting and None empty it.
        #[crate::entry]
        pub unsafe extern "C" fn $set(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
            // SAFETY: a `Greenlet`; `$is` looks at the type and the size of a live object.
            unsafe {
                let is: fn(Obj) -> bool = $is;
                let value = if absent(value) {
                    null_mut()
                } else if is(value) {
                    ffi::Py_NewRef(value)
                } else {
                    ffi::PyErr_SetString(ffi::PyExc_TypeError, $text.as_ptr());
                    return -1;
                };
                set(&raw mut (*cast(slf)).$field, value);
                0
            }
        }
    };
}

plain_field!(set_run, func);
plain_field!(
    get_args,
    set_args,
    args,
    ffi::Py_NewRef(globals().empty_tuple),
    |value| ffi::PyTuple_Check(value) != 0,
    c"args must be a tuple"
);
plain_field!(get_value, set_value, value, none());
plain_field!(
    get_exc_info,
    set_exc_info,
    exc_info,
    none(),
    |value| ffi::PyTuple_Check(value) != 0 && ffi::PyTuple_GET_SIZE(value) == 3,
    c"_exc_info must be a tuple of three"
);
plain_field!(get_ident, set_ident, ident, none());
plain_field!(get_formatted, set_formatted, formatted, none());
plain_field!(get_spawning, set_spawning, spawning_greenlet, none());
plain_field!(set_locals, spawn_tree_locals);

/// `spawn_tree_locals`: made when it is first asked for.
#[crate::entry]
pub unsafe extern "C" fn get_locals(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        match super::tracked::own_locals(&raw mut (*cast(slf)).spawn_tree_locals) {
            Ok(locals) => ffi::Py_NewRef(locals),
            Err(()) => null_mut(),
        }
    }
}

plain_field!(
    set_kwargs,
    kwargs,
    |value| ffi::PyDict_Check(value) != 0,
    c"kwargs must be a dict"
);

/// The keyword arguments: made a dictionary when they are asked for.
#[crate::entry]
pub unsafe extern "C" fn get_kwargs(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        let me = cast(slf);
        if (*me).kwargs.is_null() {
            let d = ffi::PyDict_New();
            if d.is_null() {
                return d;
            }
            set(&raw mut (*me).kwargs, d);
        }
        ffi::Py_NewRef((*me).kwargs)
    }
}

#[crate::entry]
pub unsafe extern "C" fn get_site(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        match &(*cast(slf)).site {
            SpawnSite::Unknown => none(),
            site => site.as_list(),
        }
    }
}

#[crate::entry]
pub unsafe extern "C" fn get_made(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        match &(*cast(slf)).site {
            SpawnSite::Made(made) if !made.is_null() => ffi::Py_NewRef(*made),
            _ => none(),
        }
    }
}

#[crate::entry]
pub unsafe extern "C" fn set_made(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
    // SAFETY: a `Greenlet`. The old site, with its frames, is dropped last.
    unsafe {
        let made = if absent(value) {
            null_mut()
        } else {
            ffi::Py_NewRef(value)
        };
        let site = SpawnSite::Made(made);
        let old = std::mem::replace(&mut (*cast(slf)).site, site);
        drop(old);
        0
    }
}
