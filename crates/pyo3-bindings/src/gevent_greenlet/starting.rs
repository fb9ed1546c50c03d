//! The methods of `gevent.Greenlet` that make one, start it and are its body.
//!
//! # Safety
//! The GIL is held. `me` or `slf` is a `Greenlet`, which the caller has a reference to; arguments are borrowed
//! from the caller, or null where they were left out.

use super::ending::is_away;
use super::life;
use super::object::{StartState, cast};
use super::slots::{fill, tp_new};
use super::types::types;
use crate::event_loop::{Owner, nanos};
use crate::greenlet::globals;
use crate::hub::get_core;
use crate::raw::{self, Args, none};
use gevent_hub_core::reactor::WatcherKind;
use pyo3::ffi::{self, PyObject};
use std::ptr::null_mut;

type Obj = *mut PyObject;

/// Makes a greenlet of `class` from the arguments behind `skip`; null with an error set.
///
/// # Safety
/// `class` is a callable; the GIL is held.
pub unsafe fn make(class: Obj, args: &Args, skip: usize) -> Obj {
    // SAFETY: `class` is a type; the GIL is held.
    unsafe {
        if class == super::public_class().cast() && args.len() > skip && args.keywords() == 0 {
            let g = tp_new(class.cast(), null_mut(), null_mut());
            if g.is_null() {
                return g;
            }
            let rest = if args.len() == skip + 1 {
                ffi::Py_NewRef(globals().empty_tuple)
            } else {
                args.tuple_from(skip + 1)
            };
            if rest.is_null() || fill(g.cast(), args.at(skip), rest, null_mut()).is_err() {
                ffi::Py_DECREF(g);
                return null_mut();
            }
            return g;
        }
        let rest = args.tuple_from(skip);
        let Ok(kwargs) = args.dict(None) else {
            ffi::Py_XDECREF(rest);
            return null_mut();
        };
        let g = if rest.is_null() {
            null_mut()
        } else {
            ffi::PyObject_Call(class, rest, kwargs)
        };
        ffi::Py_XDECREF(rest);
        ffi::Py_XDECREF(kwargs);
        g
    }
}

#[crate::entry]
pub unsafe extern "C" fn spawn(
    class: Obj,
    items: *const Obj,
    n: ffi::Py_ssize_t,
    names: Obj,
) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let args = Args::new(items, n, names);
        let g = make(class, &args, 0);
        if g.is_null() {
            return g;
        }
        let ok = if class == super::public_class().cast() {
            life::start(g.cast()).is_ok()
        } else {
            let r = ffi::PyObject_CallMethodNoArgs(g, types().str_start);
            ffi::Py_XDECREF(r);
            !r.is_null()
        };
        if ok {
            return g;
        }
        ffi::Py_DECREF(g);
        null_mut()
    }
}

#[crate::entry]
pub unsafe extern "C" fn spawn_later(
    class: Obj,
    items: *const Obj,
    n: ffi::Py_ssize_t,
    names: Obj,
) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let args = Args::new(items, n, names);
        let named = if args.is_empty() {
            find_keyword(&args, c"seconds")
        } else {
            null_mut()
        };
        if args.is_empty() && named.is_null() {
            let text = c"spawn_later() missing 1 required positional argument: 'seconds'";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return null_mut();
        }
        let seconds = if named.is_null() { args.at(0) } else { named };
        let has_run = !find_keyword(&args, c"run").is_null();
        if class == super::public_class().cast() && args.len() < 2 && !has_run {
            ffi::PyErr_SetString(ffi::PyExc_TypeError, c"".as_ptr());
            return null_mut();
        }
        let g = if named.is_null() {
            make(class, &args, 1)
        } else {
            let Ok(kwargs) = args.dict(Some(c"seconds")) else {
                return null_mut();
            };
            let g = ffi::PyObject_Call(class, globals().empty_tuple, kwargs);
            ffi::Py_XDECREF(kwargs);
            g
        };
        if g.is_null() {
            return g;
        }
        let r = if class == super::public_class().cast() {
            start_later(g, seconds)
        } else {
            ffi::PyObject_CallMethodOneArg(g, types().str_start_later, seconds)
        };
        if r.is_null() {
            ffi::Py_DECREF(g);
            return null_mut();
        }
        ffi::Py_DECREF(r);
        g
    }
}

/// # Safety
/// The GIL is held.
unsafe fn find_keyword(args: &Args, name: &std::ffi::CStr) -> Obj {
    for i in 0..args.keywords() {
        let (k, v) = args.keyword(i);
        // SAFETY: keyword names are strings.
        if unsafe { raw::is_name(k, name) } {
            return v;
        }
    }
    null_mut()
}

#[crate::entry]
pub unsafe extern "C" fn start(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        if life::start(cast(slf)).is_ok() {
            none()
        } else {
            null_mut()
        }
    }
}

#[crate::entry]
pub unsafe extern "C" fn start_later(slf: Obj, seconds: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        let me = cast(slf);
        if (*me).start != StartState::Never {
            return none();
        }
        let after = ffi::PyFloat_AsDouble(seconds);
        if after == -1.0 && !ffi::PyErr_Occurred().is_null() {
            return null_mut();
        }
        if super::call_spawn_callbacks(slf).is_err() {
            return null_mut();
        }
        let away = is_away(me);
        if away {
            life::start_later_away(me, after);
            return none();
        }
        let Ok(hub) = get_core() else {
            return null_mut();
        };
        let r = hub.reactor();
        let word = Owner::StartLater(slf).into_word();
        let id = r.add(
            WatcherKind::Timer {
                after: nanos(after),
                repeat: 0,
            },
            word,
        );
        r.update_now();
        if let Err(e) = r.start(id) {
            r.remove(id);
            crate::hub::set_os_error(&e);
            return null_mut();
        }
        (*me).start = StartState::Timer(id, hub.core().id());
        // The timer's reference.
        ffi::Py_INCREF(slf);
        none()
    }
}

#[crate::entry]
pub unsafe extern "C" fn run(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe { life::body(slf.cast()) }
}
