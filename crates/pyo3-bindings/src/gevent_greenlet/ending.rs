//! The methods of `gevent.Greenlet` that wait for its end and bring it about: `join`, `get`, `kill`, `throw`.
//!
//! # Safety
//! The GIL is held. `me` or `slf` is a `Greenlet`, which the caller has a reference to; arguments are borrowed
//! from the caller, or null where they were left out.

use super::attributes::{get_value, is_successful};
use super::life;
use super::object::{GreenletObject, Link, cast};
use super::types::types;
use crate::event_loop::nanos;
use crate::greenlet::{Status, globals};
use crate::hub::{Home, HubCore, Parked, Waiter, get_core, home_of, unexpected_switch};
use crate::raw::{Args, absent, boolean, method, none, parsed};
use gevent_hub_core::reactor::{Nanos, Wake};
use pyo3::ffi::{self, PyObject};
use std::ptr::null_mut;

type Obj = *mut PyObject;

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
        if !away && (*me).base.parent.get() != hub.greenlet() && !same_thread(me, &hub) {
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
        let token = Waiter::new(&hub, park.token());
        (*me).links.push_back(Link::Fiber(token));
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
        HubCore::current_greenlet() != parent && matches!(home_of(parent), Home::Away(_))
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

method!(parsed: join, c"join", [c"timeout"], |slf, [timeout]| {
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
});

method!(parsed: get, c"get", [c"block", c"timeout"], |slf, [block, timeout]| {
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
});

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

#[crate::entry]
pub unsafe extern "C" fn maybe_kill_before_start(slf: Obj, exception: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a `Greenlet`.
    unsafe {
        match kill_before_start(slf, exception) {
            Ok(dead) => boolean(dead),
            Err(()) => null_mut(),
        }
    }
}

method!(
    parsed: kill,
    c"kill",
    [c"exception", c"block", c"timeout"],
    |slf, [exception, block, timeout]| {
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
        if super::kill::queue(slf, exception, Some(Waiter::new(&hub, park.token()))).is_err() {
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
);

/// `throw(*exception)`: switches to it and raises there, unless it has not started: then it never will.
#[crate::entry]
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
