//! How Python waits: [`InHub`] parks a greenlet, [`InThread`] a native thread without a hub. What they wait
//! for, and what comes of it, is [`gevent_sync`]'s.

use super::args::Limit;
use super::linkable::{Kind, Linkable};
use super::object::set;
use super::parker::wait_after;
use super::told::Told;
use super::{Obj, async_result, in_main_thread, others};
use crate::errors::ErrorClass;
use crate::hub::{self, HubCore, HubRef, Parked, get_core, unexpected_switch};
use crate::raw::{answer_bool, method, parsed};
use crate::tstate;
use gevent_hub_core::reactor::{Nanos, Wake};
use gevent_sync::links;
use gevent_sync::parker::{Ended, Parker, Parking, Sleeper};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::Arc;

static LOOP_EXIT: ErrorClass = ErrorClass::new("gevent.exceptions", "LoopExit");

/// Why a greenlet waits on, though its loop had nothing left to do.
#[derive(PartialEq, Eq)]
enum Hope {
    /// Another thread has sent something to the loop just after it had looked.
    Sent,
    /// There are other threads that could wake it.
    Others,
}

/// Whether the loop ended under a greenlet that may still be woken. Then the error is cleared.
///
/// # Safety
/// The GIL is held and an error is set.
#[cold]
unsafe fn hope(hub: &HubCore) -> Option<Hope> {
    // SAFETY: the GIL is held and an error is set.
    unsafe {
        let py = Python::assume_attached();
        let error = tstate::take_raised();
        // Others first: what a thread has sent at its end is there when it is gone.
        let hope = match LOOP_EXIT.get(py) {
            Ok(class) if ffi::PyErr_GivenExceptionMatches(error, class.as_ptr()) == 0 => None,
            Err(_) => None,
            Ok(_) if others::exist() => Some(Hope::Others),
            Ok(_) => hub.reactor().has_remote().then_some(Hope::Sent),
        };
        if hope.is_some() {
            ffi::Py_DECREF(error);
        } else {
            tstate::set_raised(error);
        }
        hope
    }
}

/// The running greenlet, on this thread's hub. An interruption is an error that is set.
pub struct InHub<'a> {
    /// The hub.
    pub hub: &'a HubCore,
    /// The loop does not end meanwhile: another thread may end the wait.
    pub shared: bool,
    /// The end of the wait.
    pub deadline: Option<Nanos>,
    /// What waits, for the text of an error.
    pub what: &'static CStr,
    /// An error overtook a wake by which nothing was given.
    pub only_told: bool,
}

impl Parking for InHub<'_> {
    #[inline]
    fn hub(&self) -> u64 {
        self.hub.core().id()
    }

    #[inline]
    fn park(
        &mut self,
        enter: impl FnOnce(Sleeper),
        rename: impl Fn(u64, Sleeper) -> bool,
    ) -> (Ended, u64) {
        let hub = self.hub;
        let mut kept = self.shared;
        if kept {
            hub.reactor().reference();
        }
        let mut park = hub.core().prepare();
        let mut token = park.token();
        enter(Sleeper::Fiber(token));
        let ended = loop {
            // SAFETY: the GIL is held; `may_block` has seen that this is not the hub itself.
            match unsafe { hub.park(park, self.deadline) } {
                Parked::Woken(Wake::Timeout) => break Ended::TimedOut,
                Parked::Woken(wake) => break Ended::Woken(wake),
                Parked::Switched(value, _) => {
                    // SAFETY: as above; the reference is ours.
                    unsafe { unexpected_switch(self.what, value) };
                    break Ended::Interrupted;
                }
                Parked::Raised(granted) => {
                    self.only_told = granted == Some(Wake::Event);
                    // SAFETY: as above; an error is set.
                    let hope = if kept { None } else { unsafe { hope(hub) } };
                    match hope {
                        None => break Ended::Interrupted,
                        Some(Hope::Sent) => {}
                        Some(Hope::Others) => {
                            kept = true;
                            hub.reactor().reference();
                        }
                    }
                    park = hub.core().prepare();
                    let new = park.token();
                    if !rename(token.0, Sleeper::Fiber(new)) {
                        break Ended::Woken(Wake::Ready);
                    }
                    token = new;
                }
            }
        };
        if kept {
            hub.reactor().unreference();
        }
        (ended, token.0)
    }

    fn only_told(&self) -> bool {
        self.only_told
    }
}

/// The calling thread, which has no hub.
pub struct InThread {
    parker: Arc<Parker>,
    deadline: Option<Nanos>,
}

impl InThread {
    /// Until this moment.
    pub fn new(deadline: Option<Nanos>) -> Self {
        InThread {
            parker: Parker::new(),
            deadline,
        }
    }
}

impl Parking for InThread {
    fn hub(&self) -> u64 {
        0
    }

    fn park(
        &mut self,
        enter: impl FnOnce(Sleeper),
        _rename: impl Fn(u64, Sleeper) -> bool,
    ) -> (Ended, u64) {
        self.parker.reset();
        let sleeper = Sleeper::Thread(self.parker.clone());
        let id = sleeper.id();
        enter(sleeper);
        // SAFETY: the GIL is held; it is this thread's parker.
        let ended = unsafe { wait_after(&self.parker, self.deadline, || {}) };
        (ended.map_or(Ended::TimedOut, Ended::Woken), id)
    }
}

/// A [`Parking`] within a limit of its own, for what parks once.
pub struct Limited<'a>(pub InHub<'a>, pub Limit);

impl Parking for Limited<'_> {
    fn hub(&self) -> u64 {
        self.0.hub()
    }

    fn park(
        &mut self,
        enter: impl FnOnce(Sleeper),
        rename: impl Fn(u64, Sleeper) -> bool,
    ) -> (Ended, u64) {
        let mut enter = Some(enter);
        let mut id = u64::MAX;
        let limit = self.1;
        // SAFETY: the GIL is held.
        let ended = unsafe {
            limited(limit, |deadline| {
                self.0.deadline = deadline;
                let enter = enter.take().expect("it parks once");
                let (ended, last) = self.0.park(enter, &rename);
                id = last;
                ended
            })
        };
        if let Some(enter) = enter {
            // The limit could not be set. What the waiter brings has to be taken over all the same.
            // SAFETY: the GIL is held, and an error is set.
            let error = unsafe { tstate::take_raised() };
            enter(Sleeper::Nobody);
            // SAFETY: the error that was taken.
            unsafe { tstate::set_raised(error) };
        }
        (ended, id)
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
            return Ended::Interrupted;
        }
        ffi::Py_DECREF(r);
        let mut ended = wait(None);
        let mut error = null_mut();
        if ended == Ended::Interrupted {
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
            return Ended::Interrupted;
        }
        ffi::Py_DECREF(r);
        if !error.is_null() {
            tstate::set_raised(error);
        }
        ended
    }
}

/// The hub in which the running greenlet can wait; `None` if its thread has to. Only in the main thread
/// one is made, and not by what waits while one is being made: another thread may hold an import lock that
/// is needed for it. `Err` with an error set.
///
/// # Safety
/// The GIL is held.
#[inline]
pub unsafe fn hub_for_waiting() -> Result<Option<HubRef>, ()> {
    match HubCore::current() {
        Some(hub) => Ok(Some(hub)),
        None if in_main_thread() && !hub::is_being_made() => get_core().map(Some),
        None => Ok(None),
    }
}

/// Notes the hub of a greenlet that is going to wait in the field of what it waits for. `Err` with an error
/// set if it must not.
///
/// # Safety
/// The GIL is held; the field is an owned reference or null.
#[inline]
pub unsafe fn begin(field: *mut Obj, hub: &HubCore) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        hub.may_block()?;
        if (*field).is_null() {
            set(field, ffi::Py_NewRef(hub.greenlet().cast()));
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
            Err(()) => Ended::Interrupted,
            Ok(Some(hub)) => wait_in_hub(me, &hub, limit, false),
            Ok(None) => match limit.without_hub() {
                Ok(deadline) => links::wait(&Told::new(me), &mut InThread::new(deadline), false),
                Err(()) => Ended::Interrupted,
            },
        }
    }
}

/// # Safety
/// As `wait_core`; `hub` is this thread's.
unsafe fn wait_in_hub(me: *mut Linkable, hub: &HubCore, limit: Limit, arrived: bool) -> Ended {
    // SAFETY: as `wait_core`.
    unsafe {
        if begin(&raw mut (*me).hub, hub).is_err() {
            return Ended::Interrupted;
        }
        limited(limit, |deadline| {
            let mut parking = InHub {
                hub,
                shared: (*me).users.may_include_others(),
                deadline,
                what: what(me),
                only_told: false,
            };
            links::wait(&Told::new(me), &mut parking, arrived)
        })
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
        (*me).users.saw();
        if !Linkable::ready(me) {
            return match wait_core(me, limit) {
                Ended::Woken(_) => Ok(true),
                Ended::TimedOut => Ok(false),
                Ended::Interrupted => Err(()),
            };
        }
        // The look at the number comes first: mostly nobody is being woken, and then no hub needs to be held.
        if (*me).links.notifies(HubCore::current_id())
            && let Some(hub) = HubCore::current()
            && hub.td().current.get() != hub.greenlet()
            && wait_in_hub(me, &hub, Limit::Never, true) == Ended::Interrupted
        {
            return Err(());
        }
        Ok(true)
    }
}

/// For the text of an error.
///
/// # Safety
/// `me` is a linkable that is alive.
unsafe fn what(me: *mut Linkable) -> &'static CStr {
    // SAFETY: the caller's promise.
    match unsafe { (*me).kind } {
        Kind::Event => c"Event.wait()",
        Kind::Result => c"AsyncResult.wait()",
        Kind::Semaphore => c"Semaphore.wait()",
        Kind::Plain => c"wait()",
    }
}

// `_wait(timeout=None)`: what `wait` does.
method!(parsed: py_wait, c"wait", [c"timeout"], |slf, [timeout]| {
    let came = match Limit::new(timeout) {
        Ok(limit) => wait(slf.cast(), limit),
        Err(()) => Err(()),
    };
    if came.is_ok() && (*slf.cast::<Linkable>()).kind == Kind::Result {
        return async_result::value(slf);
    }
    answer_bool(came)
});
