//! The methods of `gevent.Greenlet` that start it, link to it, wait for it and kill it.
//!
//! # Safety
//! The GIL is held. `me` or `slf` is a `Greenlet`, which the caller has a reference to; arguments are borrowed
//! from the caller, or null where they were left out.

use super::attributes::{get_value, is_successful};
use super::life::{self, PyObject_IsGevent};
use super::object::{GreenletObject, Link, StartState};
use super::slots::{fill, tp_new};
use super::types::types;
use crate::event_loop::{Owner, nanos};
use crate::greenlet::{Status, globals};
use crate::hub::{Home, HubCore, Parked, Waiter, get_core, home_of, unexpected_switch};
use crate::raw::{self, Args, absent, boolean, none};
use gevent_hub_core::reactor::{Nanos, Wake, WatcherKind};
use pyo3::ffi::{self, PyObject};
use std::ffi::c_void;
use std::ptr::null_mut;

type Obj = *mut PyObject;

fn cast(slf: Obj) -> *mut GreenletObject {
    slf.cast()
}

// ---- starting --------------------------------------------------------------------------------------

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

pub unsafe extern "C" fn run(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe { life::body(slf.cast()) }
}

// ---- links -----------------------------------------------------------------------------------------

pub unsafe extern "C" fn get_links(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        let list = ffi::PyList_New(0);
        if list.is_null() {
            return list;
        }
        for link in &(*cast(slf)).links {
            if let Link::Callable(p) = link
                && ffi::PyList_Append(list, *p) < 0
            {
                ffi::Py_DECREF(list);
                return null_mut();
            }
        }
        list
    }
}

pub unsafe extern "C" fn has_links(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe { ffi::PyLong_FromSize_t((*cast(slf)).links.len()) }
}

/// `rawlink(callback)`.
///
/// # Safety
/// A `Greenlet` and an object; the GIL is held.
pub unsafe extern "C" fn rawlink(slf: Obj, callback: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        if ffi::PyCallable_Check(callback) == 0 {
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                c"Expected callable: %R".as_ptr(),
                callback,
            );
            return null_mut();
        }
        let me = cast(slf);
        (*me).links.push(Link::Callable(ffi::Py_NewRef(callback)));
        if GreenletObject::is_ready(me) {
            life::tell_late_links(me);
        }
        none()
    }
}

/// `unlink(callback)`.
///
/// # Safety
/// A `Greenlet` and an object; the GIL is held.
pub unsafe extern "C" fn unlink(slf: Obj, callback: Obj) -> Obj {
    // SAFETY: a `Greenlet`. A comparison may run Python, so each callable is held over it and the list
    // is looked at anew.
    unsafe {
        let me = cast(slf);
        let mut i = 0;
        while i < (*me).links.len() {
            if let Link::Callable(p) = (&(*me).links)[i] {
                ffi::Py_INCREF(p);
                let same = ffi::PyObject_RichCompareBool(p, callback, ffi::Py_EQ);
                let links = &(*me).links;
                let still = matches!(links.get(i), Some(Link::Callable(q)) if *q == p);
                if same > 0 && still {
                    (*me).links.remove(i);
                    ffi::Py_DECREF(p);
                }
                ffi::Py_DECREF(p);
                if same < 0 {
                    return null_mut();
                }
                if same > 0 {
                    break;
                }
            }
            i += 1;
        }
        none()
    }
}

pub unsafe extern "C" fn unlink_all(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a `Greenlet`. Fibers that wait are no links of the user's: they stay.
    unsafe {
        let me = cast(slf);
        let all = std::mem::take(&mut (*me).links);
        let mut dropped = Vec::new();
        for link in all {
            match link {
                Link::Callable(p) => dropped.push(p),
                other => (*me).links.push(other),
            }
        }
        for p in dropped {
            ffi::Py_DECREF(p);
        }
        none()
    }
}

pub unsafe extern "C" fn tell_links(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        life::tell_links(cast(slf));
        none()
    }
}

// ---- waiting ---------------------------------------------------------------------------------------

/// How a wait for its end ended.
enum Joined {
    Over,
    TimedOut,
    /// With an error set.
    Failed,
}

/// Waits until it is over. `what` names the method for the text of an error.
///
/// # Safety
/// As the module says.
unsafe fn wait_for_end(
    me: *mut GreenletObject,
    deadline: Option<Nanos>,
    what: &std::ffi::CStr,
) -> Joined {
    // SAFETY: a `Greenlet`, held by the caller; the GIL is held.
    unsafe {
        let Ok(hub) = get_core() else {
            return Joined::Failed;
        };
        if hub.may_block().is_err() {
            return Joined::Failed;
        }
        let away = is_away(me);
        if !away && (*me).base.parent.get() != hub.greenlet() && !same_thread(me, hub) {
            // Of another thread, without a hub that could tell: greenlet's own error says so.
            let r = ffi::PyObject_CallMethodNoArgs(
                (*me).base.parent.get().cast(),
                globals().str_switch,
            );
            ffi::Py_XDECREF(r);
            return if r.is_null() {
                Joined::Failed
            } else {
                Joined::Over
            };
        }
        let park = hub.core().prepare();
        let token = Waiter::new(hub, park.token());
        (*me).links.push(Link::Fiber(token));
        let outcome = if away {
            hub.park_for_others(park, deadline)
        } else {
            hub.park(park, deadline)
        };
        match outcome {
            Parked::Woken(Wake::Timeout) => {
                forget(me, token);
                Joined::TimedOut
            }
            Parked::Woken(_) => Joined::Over,
            Parked::Switched(value, _) => {
                forget(me, token);
                unexpected_switch(what, value);
                Joined::Failed
            }
            Parked::Raised(_) => {
                forget(me, token);
                Joined::Failed
            }
        }
    }
}

/// # Safety
/// As the module says.
unsafe fn same_thread(me: *mut GreenletObject, hub: &HubCore) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let main = (*me).base.main_in_lineage();
        main.is_null() || main == hub.td().main
    }
}

/// Whether it belongs to another thread's hub.
///
/// # Safety
/// The GIL is held.
#[inline]
pub unsafe fn is_away(me: *mut GreenletObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let parent = (*me).base.parent.get();
        HubCore::current().is_none_or(|hub| hub.greenlet() != parent)
            && matches!(home_of(parent), Home::Away(_))
    }
}

/// # Safety
/// As the module says.
unsafe fn forget(me: *mut GreenletObject, token: Waiter) {
    // SAFETY: a `Greenlet`; nothing runs Python here.
    unsafe {
        (*me)
            .links
            .retain(|l| !matches!(l, Link::Fiber(t) if *t == token))
    };
}

/// A timeout argument as a deadline. `Err(true)`: it is a Timeout object; `Err(false)`: an error is set.
///
/// # Safety
/// As the module says.
unsafe fn deadline_of(timeout: Obj) -> Result<Option<Nanos>, bool> {
    // SAFETY: the caller's promise.
    unsafe {
        if absent(timeout) {
            return Ok(None);
        }
        if ffi::PyFloat_Check(timeout) == 0
            && ffi::PyLong_Check(timeout) == 0
            && super::is_timeout(timeout)
        {
            return Err(true);
        }
        let seconds = ffi::PyFloat_AsDouble(timeout);
        if seconds == -1.0 && !ffi::PyErr_Occurred().is_null() {
            return Err(false);
        }
        Ok(Some(
            gevent_hub_core::reactor::monotonic().saturating_add(nanos(seconds)),
        ))
    }
}

pub unsafe extern "C" fn join(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, names: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let args = Args::new(items, n, names);
        let Ok([timeout]) = args.parse(c"join", [c"timeout"]) else {
            return null_mut();
        };
        if GreenletObject::is_ready(cast(slf)) {
            return none();
        }
        let deadline = match deadline_of(timeout) {
            Ok(d) => d,
            Err(true) => return super::call_cold(c"_join_under", slf, timeout),
            Err(false) => return null_mut(),
        };
        match wait_for_end(cast(slf), deadline, c"Greenlet.join()") {
            Joined::Over | Joined::TimedOut => none(),
            Joined::Failed => null_mut(),
        }
    }
}

pub unsafe extern "C" fn get(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, names: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let args = Args::new(items, n, names);
        let Ok([block, timeout]) = args.parse(c"get", [c"block", c"timeout"]) else {
            return null_mut();
        };
        let me = cast(slf);
        if !GreenletObject::is_ready(me) {
            let block = if block.is_null() {
                1
            } else {
                ffi::PyObject_IsTrue(block)
            };
            if block < 0 {
                return null_mut();
            }
            if block == 0 {
                return super::raise_timeout(null_mut());
            }
            let deadline = match deadline_of(timeout) {
                Ok(d) => d,
                Err(true) => return super::call_cold(c"_get_under", slf, timeout),
                Err(false) => return null_mut(),
            };
            match wait_for_end(me, deadline, c"Greenlet.get()") {
                Joined::Over => {}
                Joined::TimedOut => return super::raise_timeout(timeout),
                Joined::Failed => return null_mut(),
            }
        }
        if is_successful(me) {
            return get_value(slf, null_mut());
        }
        super::call_cold(c"_raise_exception_of", slf, null_mut())
    }
}

// ---- killing ---------------------------------------------------------------------------------------

/// Keeps it from starting, and reports its death if it is dead by that. `Err` with an error set.
///
/// # Safety
/// As the module says.
unsafe fn kill_before_start(slf: Obj, exception: Obj) -> Result<bool, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let me = cast(slf);
        life::cancel_start(me);
        life::free(me);
        let dead = GreenletObject::is_dead(me);
        if dead && (*me).exc_info.is_null() {
            let r = super::call_cold(c"_died_before_start", slf, exception);
            if r.is_null() {
                return Err(());
            }
            ffi::Py_DECREF(r);
        }
        Ok(dead)
    }
}

pub unsafe extern "C" fn maybe_kill_before_start(slf: Obj, exception: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        match kill_before_start(slf, exception) {
            Ok(dead) => boolean(dead),
            Err(()) => null_mut(),
        }
    }
}

pub unsafe extern "C" fn kill(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, names: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let args = Args::new(items, n, names);
        let Ok([exception, block, timeout]) =
            args.parse(c"kill", [c"exception", c"block", c"timeout"])
        else {
            return null_mut();
        };
        let exception = if exception.is_null() {
            globals().exit
        } else {
            exception
        };
        let block = if block.is_null() {
            1
        } else {
            ffi::PyObject_IsTrue(block)
        };
        if block < 0 {
            return null_mut();
        }
        match kill_before_start(slf, exception) {
            Err(()) => return null_mut(),
            Ok(true) => return none(),
            Ok(false) => {}
        }
        if GreenletObject::is_ready(cast(slf)) {
            return none();
        }
        if block == 0 {
            return match super::kill::queue(slf, exception, None) {
                Ok(()) => none(),
                Err(()) => null_mut(),
            };
        }
        let Ok(hub) = get_core() else {
            return null_mut();
        };
        if hub.may_block().is_err() {
            return null_mut();
        }
        let park = hub.core().prepare();
        if super::kill::queue(slf, exception, Some(Waiter::new(hub, park.token()))).is_err() {
            return null_mut();
        }
        let outcome = if is_away(cast(slf)) {
            hub.park_for_others(park, None)
        } else {
            hub.park(park, None)
        };
        match outcome {
            Parked::Woken(_) => {}
            Parked::Switched(value, _) => {
                unexpected_switch(c"Greenlet.kill()", value);
                return null_mut();
            }
            Parked::Raised(_) => return null_mut(),
        }
        if !super::is_plain_class(ffi::Py_TYPE(slf)) {
            let timeout = if timeout.is_null() {
                ffi::Py_None()
            } else {
                timeout
            };
            return ffi::PyObject_CallMethodOneArg(slf, types().str_join, timeout);
        }
        if timeout.is_null() {
            join(slf, std::ptr::null(), 0, null_mut())
        } else {
            join(slf, &raw const timeout, 1, null_mut())
        }
    }
}

/// `throw(*exception)`: switches to it and raises there, unless it has not started: then it never will.
pub unsafe extern "C" fn throw(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, names: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let args = Args::new(items, n, names);
        let me = cast(slf);
        life::cancel_start(me);
        let mut result = none();
        if !GreenletObject::is_dead(me) {
            ffi::Py_DECREF(result);
            result = super::throw_raw(slf, &args);
        }
        if (*me).exc_info.is_null()
            && (*me).base.status.get() != Status::Live
            && GreenletObject::is_dead(me)
        {
            // It was never entered, so nothing has reported its end.
            let error = if result.is_null() {
                crate::tstate::take_raised()
            } else {
                null_mut()
            };
            let exception = args.tuple_from(0);
            let r = if exception.is_null() {
                null_mut()
            } else {
                super::call_cold(c"_died_before_start_args", slf, exception)
            };
            ffi::Py_XDECREF(exception);
            if r.is_null() {
                ffi::Py_XDECREF(result);
                ffi::Py_XDECREF(error);
                return null_mut();
            }
            ffi::Py_DECREF(r);
            if result.is_null() {
                crate::tstate::set_raised(error);
            }
        }
        result
    }
}

/// Whether it is a `Greenlet` whose methods are the native ones.
///
/// # Safety
/// The GIL is held; `p` is alive.
pub unsafe fn is_plain(p: Obj) -> bool {
    // SAFETY: the caller's promise.
    unsafe { PyObject_IsGevent(p) && super::is_plain_class(ffi::Py_TYPE(p)) }
}
