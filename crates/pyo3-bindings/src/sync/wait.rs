//! Waiting for a [`Linkable`]: in a greenlet, or in a native thread without a hub.

use super::args::Limit;
use super::linkable::{Kind, Linkable, Who};
use super::parker::Parker;
use super::{Obj, async_result, call_python, in_main_thread};
use crate::hub::{HubCore, Parked, get_core, unexpected_switch};
use crate::raw::{Args, boolean};
use crate::tstate;
use gevent_hub_core::reactor::{Nanos, Token, Wake};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::ffi::CStr;
use std::ptr::null_mut;

/// How a wait ended.
pub enum Ended {
    /// By this wake.
    Woken(Wake),
    /// The time is over.
    TimedOut,
    /// An error is set.
    Raised,
}

static LOOP_EXIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Whether the loop ended under a greenlet, though there are other threads that could wake it. Then the
/// error is cleared.
#[cold]
unsafe fn may_go_on() -> bool {
    // SAFETY: the GIL is held and an error is set.
    unsafe {
        let py = Python::assume_attached();
        let error = tstate::take_raised();
        let class = LOOP_EXIT.get_or_try_init(py, || {
            py.import("gevent.exceptions")?
                .getattr("LoopExit")
                .map(Bound::unbind)
        });
        let goes_on = match class {
            Ok(class) if ffi::PyErr_GivenExceptionMatches(error, class.as_ptr()) != 0 => {
                let r = call_python(c"gevent._abstract_linkable", c"_other_threads_exist", &[]);
                if r.is_null() {
                    ffi::PyErr_Clear();
                }
                let others = r == ffi::Py_True();
                ffi::Py_XDECREF(r);
                others
            }
            _ => false,
        };
        if goes_on {
            ffi::Py_DECREF(error);
        } else {
            tstate::set_raised(error);
        }
        goes_on
    }
}

/// Parks the running greenlet on its hub. `link` gets the park's name, and `rename` is told if that
/// changes; it says whether the waiter is still linked. With `shared`, the loop does not end meanwhile.
/// Returns the last name as well.
///
/// # Safety
/// The GIL is held; `hub` is this thread's.
pub unsafe fn park(
    hub: &HubCore,
    shared: bool,
    deadline: Option<Nanos>,
    what: &CStr,
    link: impl FnOnce(Token),
    rename: impl Fn(Token, Token) -> bool,
) -> (Ended, Token) {
    // SAFETY: the caller's promise; `may_block` has seen that this is not the hub itself.
    unsafe {
        let mut kept = shared;
        if kept {
            hub.reactor().reference();
        }
        let mut park = hub.core().prepare();
        let mut token = park.token();
        link(token);
        let ended = loop {
            match hub.park(park, deadline) {
                Parked::Woken(Wake::Timeout) => break Ended::TimedOut,
                Parked::Woken(wake) => break Ended::Woken(wake),
                Parked::Switched(value, _) => {
                    unexpected_switch(what, value);
                    break Ended::Raised;
                }
                Parked::Raised(_) => {
                    if kept || !may_go_on() {
                        break Ended::Raised;
                    }
                    kept = true;
                    hub.reactor().reference();
                    park = hub.core().prepare();
                    let new = park.token();
                    if !rename(token, new) {
                        break Ended::Woken(Wake::Ready);
                    }
                    token = new;
                }
            }
        };
        if kept {
            hub.reactor().unreference();
        }
        (ended, token)
    }
}

/// Runs `wait` with a deadline, or with a `Timeout` started around it. If that is what is raised, the
/// time is over.
///
/// # Safety
/// The GIL is held.
pub unsafe fn limited(limit: Limit, mut wait: impl FnMut(Option<Nanos>) -> Ended) -> Ended {
    // SAFETY: the caller's promise; the timer is held by the caller's arguments.
    unsafe {
        let timer = match limit {
            Limit::Never => return wait(None),
            Limit::At(at) => return wait(Some(at)),
            Limit::Timer(timer) => timer,
        };
        let r = ffi::PyObject_CallMethod(timer, c"__enter__".as_ptr(), std::ptr::null());
        if r.is_null() {
            return Ended::Raised;
        }
        ffi::Py_DECREF(r);
        let mut ended = wait(None);
        let mut error = null_mut();
        if matches!(ended, Ended::Raised) {
            error = tstate::take_raised();
            if error == timer {
                ffi::Py_DECREF(error);
                error = null_mut();
                ended = Ended::TimedOut;
            }
        }
        let r = ffi::PyObject_CallMethod(timer, c"close".as_ptr(), std::ptr::null());
        if r.is_null() {
            ffi::Py_XDECREF(error);
            return Ended::Raised;
        }
        ffi::Py_DECREF(r);
        if !error.is_null() {
            tstate::set_raised(error);
        }
        ended
    }
}

/// The hub in which the running greenlet can wait; `None` if its thread has to. Only in the main thread
/// one is made. `Err` with an error set.
///
/// # Safety
/// The GIL is held.
#[inline]
pub unsafe fn hub_for_waiting() -> Result<Option<&'static HubCore>, ()> {
    match HubCore::current() {
        Some(hub) => Ok(Some(hub)),
        None if in_main_thread() => get_core().map(Some),
        None => Ok(None),
    }
}

/// Notes the hub of a greenlet that is going to wait. `Err` with an error set if it must not.
///
/// # Safety
/// The GIL is held.
#[inline]
pub unsafe fn begin(me: *mut Linkable, hub: &HubCore) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        hub.may_block()?;
        if (*me).hub.is_null() {
            (*me).hub = ffi::Py_NewRef(hub.greenlet().cast());
        }
        Ok(())
    }
}

/// Waits until notified; for objects that give nothing away.
///
/// # Safety
/// The GIL is held; the caller has a reference to `me`.
pub unsafe fn wait_core(me: *mut Linkable, limit: Limit) -> Ended {
    // SAFETY: the caller's promise.
    unsafe {
        match hub_for_waiting() {
            Err(()) => Ended::Raised,
            Ok(None) => wait_in_thread(me, limit),
            Ok(Some(hub)) => wait_in_hub(me, hub, limit, false),
        }
    }
}

unsafe fn wait_in_hub(me: *mut Linkable, hub: &HubCore, limit: Limit, arrived: bool) -> Ended {
    // SAFETY: as `wait_core`.
    unsafe {
        if begin(me, hub).is_err() {
            return Ended::Raised;
        }
        limited(limit, |deadline| {
            if !arrived && Linkable::ready(me) {
                return Ended::Woken(Wake::Event);
            }
            let id = hub.core().id();
            let (ended, token) = park(
                hub,
                Linkable::is_shared(me),
                deadline,
                what(me),
                |token| Linkable::push(me, Who::Fiber(token), id, false, arrived),
                |old, new| Linkable::rename(me, id, old, new),
            );
            if !matches!(ended, Ended::Woken(_)) {
                Linkable::remove(me, id, token);
            }
            ended
        })
    }
}

unsafe fn wait_in_thread(me: *mut Linkable, limit: Limit) -> Ended {
    // SAFETY: as `wait_core`.
    unsafe {
        let Ok(deadline) = limit.without_hub() else {
            return Ended::Raised;
        };
        if Linkable::ready(me) {
            return Ended::Woken(Wake::Event);
        }
        let parker = Parker::new();
        Linkable::push(me, Who::Thread(parker.clone()), 0, false, false);
        parker.wait(deadline);
        if Linkable::remove_thread(me, &parker) {
            Ended::TimedOut
        } else {
            Ended::Woken(Wake::Event)
        }
    }
}

/// Waits in a thread for something that is given by taking the link off. True if it was given.
///
/// # Safety
/// As [`wait_core`].
pub unsafe fn take_in_thread(me: *mut Linkable, deadline: Option<Nanos>) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let parker = Parker::new();
        Linkable::push(me, Who::Thread(parker.clone()), 0, true, false);
        parker.wait(deadline);
        !Linkable::remove_thread(me, &parker)
    }
}

/// Waits unless it is ready. If it is, but others are just being woken, they run first. `Ok(true)` if it
/// was ready or became so in time.
///
/// # Safety
/// As [`wait_core`].
pub unsafe fn wait(me: *mut Linkable, limit: Limit) -> Result<bool, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        Linkable::saw_thread(me);
        if !Linkable::ready(me) {
            return match wait_core(me, limit) {
                Ended::Woken(_) => Ok(true),
                Ended::TimedOut => Ok(false),
                Ended::Raised => Err(()),
            };
        }
        if let Some(hub) = HubCore::current()
            && Linkable::notifies(me, hub.core().id())
            && hub.td().current.get() != hub.greenlet()
            && matches!(wait_in_hub(me, hub, Limit::Never, true), Ended::Raised)
        {
            return Err(());
        }
        Ok(true)
    }
}

/// For the text of an error.
unsafe fn what(me: *mut Linkable) -> &'static CStr {
    // SAFETY: a linkable.
    match unsafe { (*me).kind } {
        Kind::Event => c"Event.wait()",
        Kind::Result => c"AsyncResult.wait()",
        Kind::Semaphore => c"Semaphore.wait()",
        Kind::Plain => c"wait()",
    }
}

/// `_wait(timeout=None)`: what `wait` does.
///
/// # Safety
/// As the C API calls it.
pub unsafe fn py_wait(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, names: Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        let args = Args::new(items, n, names);
        let Ok([timeout]) = args.parse(c"wait", [c"timeout"]) else {
            return null_mut();
        };
        let Ok(limit) = Limit::new(timeout) else {
            return null_mut();
        };
        match wait(slf.cast(), limit) {
            Err(()) => null_mut(),
            Ok(_) if (*slf.cast::<Linkable>()).kind == Kind::Result => async_result::value(slf),
            Ok(came) => boolean(came),
        }
    }
}
