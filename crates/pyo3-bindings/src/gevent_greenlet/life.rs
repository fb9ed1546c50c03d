//! The life of a `gevent.Greenlet`: started from the queue, run, reported, its links told.
//!
//! # Safety
//! The GIL is held, with the running greenlet's state installed. `me` or `g` is a greenlet of the type that
//! it is declared as, and the caller has a reference to it.

use super::object::{GreenletObject, Link, StartState};
use super::types::types;
use crate::event_loop::{LoopHost, Payload};
use crate::greenlet::{Carry, Flags, PyGreenlet, globals, switch_to};
use crate::hub::{Home, HubCore, Waiter, get_core, home_of};
use crate::raw::_PyType_Lookup;
use crate::sync::object::set;
use crate::thread_data::ThreadData;
use gevent_hub_core::reactor::{Entry, Wake, WatcherId};
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::cell::Cell;
use std::ptr::null_mut;

/// An entry of the queue: starts a greenlet unless it was cancelled. Owns a reference to it.
pub fn start_from_queue(host: &LoopHost<'_, '_>, p: *mut PyObject) {
    // SAFETY: the queue's own reference to a `Greenlet` or raw greenlet.
    unsafe {
        if PyObject_IsGevent(p) {
            let me = p.cast::<GreenletObject>();
            if (*me).start != StartState::Queued {
                ffi::Py_DECREF(p);
                return;
            }
            (*me).start = StartState::Done;
        }
        enter(host, p);
    }
}

/// A timer that starts a greenlet has fired. The timer's reference to it is used up.
pub fn start_from_timer(host: &LoopHost<'_, '_>, id: WatcherId, p: *mut PyObject) {
    if let Some(r) = host.loop_().get().reactor_ref() {
        r.remove(id);
    }
    // SAFETY: the reference that `start_later` gave to the timer.
    unsafe {
        let me = p.cast::<GreenletObject>();
        if !matches!((*me).start, StartState::Timer(at, _) if at == id) {
            ffi::Py_DECREF(p);
            return;
        }
        (*me).start = StartState::Done;
        enter(host, p);
    }
}

/// The loop of a timer that was to start a greenlet is being destroyed: the timer's reference is moved to
/// `held`.
pub fn loop_gone(py: Python<'_>, p: *mut PyObject, held: &mut Vec<Py<PyAny>>) {
    // SAFETY: the timer's own reference to a `Greenlet`.
    unsafe {
        (*p.cast::<GreenletObject>()).start = StartState::Cancelled;
        held.push(Bound::from_owned_ptr(py, p).unbind());
    }
}

/// Switches to it from the hub, and reports what comes back as an error. Takes the reference.
///
/// # Safety
/// In the hub, with its state installed; `p` is an owned reference to a raw greenlet or `Greenlet`.
unsafe fn enter(host: &LoopHost<'_, '_>, p: *mut PyObject) {
    // SAFETY: the hub runs, with its state installed.
    unsafe {
        let td = ThreadData::get();
        let r = if (*p.cast::<PyGreenlet>()).flags.get().has(Flags::OWN_SWITCH) {
            ffi::PyObject_CallMethodNoArgs(p, globals().str_switch)
        } else {
            let args = globals().empty_tuple;
            ffi::Py_INCREF(args);
            switch_to(td, p.cast(), Carry::Call(args, null_mut()))
        };

        td.install(td.current.get());
        if r.is_null() {
            let py = host.loop_().py();
            let context = Bound::from_borrowed_ptr(py, p);
            host.report(&context, Err(PyErr::fetch(py)));
        } else {
            ffi::Py_DECREF(r);
        }
        ffi::Py_DECREF(p);
        td.empty_drops();
    }
}

/// Whether an object is a `gevent.Greenlet`.
///
/// # Safety
/// An object; the GIL is held.
#[allow(non_snake_case, reason = "named like the C API's checks")]
pub unsafe fn PyObject_IsGevent(p: *mut PyObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe { ffi::PyObject_TypeCheck(p, types().greenlet) != 0 }
}

/// Its body: what `run` does. A new reference, or null with an error set.
///
/// # Safety
/// As the module says; `g` is a `Greenlet`, and the one that runs.
pub unsafe fn body(g: *mut PyGreenlet) -> *mut PyObject {
    let me = g.cast::<GreenletObject>();
    // SAFETY: it runs, hence it is alive, and the GIL is held.
    unsafe {
        cancel_start(me);
        (*me).start = StartState::Done;
        let args = if (*me).args.is_null() {
            globals().empty_tuple
        } else {
            (*me).args
        };
        ffi::Py_INCREF(args);
        let kwargs = (*me).kwargs;
        ffi::Py_XINCREF(kwargs);
        let result = match runner(me) {
            Runner::Nothing => crate::raw::none(),
            Runner::Call(f) => {
                let r = crate::tstate::call_at_bottom(f, args, kwargs);
                if r.is_null() {
                    // Keep the error while the callable goes.
                    let e = crate::tstate::take_raised();
                    ffi::Py_DECREF(f);
                    crate::tstate::set_raised(e);
                } else {
                    ffi::Py_DECREF(f);
                }
                r
            }
            Runner::Failed => null_mut(),
        };
        let result = if result.is_null() {
            failed(me)
        } else {
            succeeded(me, result);
            crate::raw::none()
        };
        let e = if result.is_null() {
            crate::tstate::take_raised()
        } else {
            null_mut()
        };
        ffi::Py_DECREF(args);
        ffi::Py_XDECREF(kwargs);
        free(me);
        if result.is_null() {
            crate::tstate::set_raised(e);
        }
        result
    }
}

/// Its end if it gets no stack to run on: the MemoryError that is set is reported as if `run` had raised
/// it. Returns what its parent gets: a new reference, or null with an error set.
///
/// # Safety
/// As the module says; `g` is a `Greenlet` that is dead and has not run, and an error is set.
#[cold]
pub unsafe fn end_unrun(g: *mut PyGreenlet) -> *mut PyObject {
    let me = g.cast::<GreenletObject>();
    // SAFETY: the caller's promise. The error is put by while other code may run.
    unsafe {
        let error = crate::tstate::take_raised();
        cancel_start(me);
        (*me).start = StartState::Done;
        crate::tstate::set_raised(error);
        let result = failed(me);
        let error = if result.is_null() {
            crate::tstate::take_raised()
        } else {
            null_mut()
        };
        free(me);
        if result.is_null() {
            crate::tstate::set_raised(error);
        }
        result
    }
}

enum Runner {
    /// `_run` was not given.
    Nothing,
    /// A new reference.
    Call(*mut PyObject),
    /// With an error set.
    Failed,
}

/// # Safety
/// As the module says.
unsafe fn runner(me: *mut GreenletObject) -> Runner {
    // SAFETY: the caller's promise.
    unsafe {
        let t = types();
        let found = _PyType_Lookup(ffi::Py_TYPE(me.cast()), t.str_run_);
        let in_dict = !(*me).base.dict.get().is_null()
            && !ffi::PyDict_GetItemWithError((*me).base.dict.get(), t.str_run_).is_null();
        if found == t.run_descriptor && !in_dict {
            return if (*me).func.is_null() {
                Runner::Nothing
            } else {
                Runner::Call(ffi::Py_NewRef((*me).func))
            };
        }
        let f = ffi::PyObject_GetAttr(me.cast(), t.str_run_);
        if f.is_null() {
            Runner::Failed
        } else {
            Runner::Call(f)
        }
    }
}

/// Whether the instance has a `_run` of its own or its class one.
///
/// # Safety
/// As the module says.
pub unsafe fn has_runner(me: *mut GreenletObject) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        match runner(me) {
            Runner::Nothing => Ok(()),
            Runner::Call(f) => {
                let ok = ffi::PyCallable_Check(f) != 0;
                ffi::Py_DECREF(f);
                if ok {
                    return Ok(());
                }
                ffi::PyErr_SetString(
                    ffi::PyExc_TypeError,
                    c"The run argument or self._run must be callable".as_ptr(),
                );
                Err(())
            }
            Runner::Failed => Err(()),
        }
    }
}

/// It returned `value` (stolen).
///
/// # Safety
/// As the module says; `value` is an owned reference.
unsafe fn succeeded(me: *mut GreenletObject, value: *mut PyObject) {
    // SAFETY: the caller's promise.
    unsafe {
        set(&raw mut (*me).exc_info, ffi::Py_NewRef(types().success));
        set(&raw mut (*me).value, value);
        tell_links(me);
    }
}

/// It raised: the error is set. GreenletExit counts as a value; everything else is stored and reported
/// by the class's `_report_error`. Returns None, or null with an error set.
///
/// # Safety
/// As the module says; an error is set.
unsafe fn failed(me: *mut GreenletObject) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        if ffi::PyErr_ExceptionMatches(globals().exit) != 0 {
            let e = crate::tstate::take_raised();
            // It becomes the greenlet's value; its traceback would keep the frames, with all that they
            // refer to, for as long as somebody keeps the greenlet.
            ffi::PyException_SetTraceback(e, ffi::Py_None());
            succeeded(me, e);
            return crate::raw::none();
        }
        let (mut t, mut v, mut tb) = (null_mut(), null_mut(), null_mut());
        #[allow(
            deprecated,
            reason = "the one call that gives the three parts on every version"
        )]
        {
            ffi::PyErr_Fetch(&raw mut t, &raw mut v, &raw mut tb);
            ffi::PyErr_NormalizeException(&raw mut t, &raw mut v, &raw mut tb);
        }
        if !tb.is_null() {
            ffi::PyException_SetTraceback(v, tb);
        }
        let none = ffi::Py_None();
        let part = |p: *mut PyObject| if p.is_null() { none } else { p };
        let info = ffi::PyTuple_Pack(3, part(t), part(v), part(tb));
        ffi::Py_XDECREF(t);
        ffi::Py_XDECREF(v);
        ffi::Py_XDECREF(tb);
        let r = if info.is_null() {
            info
        } else {
            let r = ffi::PyObject_CallMethodOneArg(me.cast(), types().str_report_error, info);
            ffi::Py_DECREF(info);
            r
        };
        if r.is_null() && (*me).exc_info.is_null() {
            // Not even the report could be made, for want of memory most likely. It is over all the same.
            let error = crate::tstate::take_raised();
            set(&raw mut (*me).exc_info, ffi::Py_NewRef(types().no_memory));
            tell_links(me);
            crate::tstate::set_raised(error);
        }
        r
    }
}

/// Forgets what it was to run.
///
/// # Safety
/// As the module says.
pub unsafe fn free(me: *mut GreenletObject) {
    // SAFETY: the caller's promise.
    unsafe {
        set(&raw mut (*me).func, null_mut());
        let empty = globals().empty_tuple;
        set(&raw mut (*me).args, ffi::Py_NewRef(empty));
        let kwargs = (*me).kwargs;
        if !kwargs.is_null() {
            ffi::PyDict_Clear(kwargs);
        }
        let dict = (*me).base.dict.get();
        if !dict.is_null() && ffi::PyDict_DelItem(dict, types().str_run_) < 0 {
            ffi::PyErr_Clear();
        }
    }
}

/// Makes sure that it is not started any more, if it has not been.
///
/// # Safety
/// As the module says.
pub unsafe fn cancel_start(me: *mut GreenletObject) {
    // SAFETY: the caller's promise.
    unsafe {
        match (*me).start {
            StartState::Never | StartState::Queued => (*me).start = StartState::Cancelled,
            StartState::Timer(id, home) => {
                (*me).start = StartState::Cancelled;
                // Another hub's timer fires all the same, and drops its reference then.
                if let Some(hub) = HubCore::current()
                    && hub.core().id() == home
                {
                    hub.reactor().remove(id);
                    // The timer's reference; the caller has one too.
                    ffi::Py_DECREF(me.cast());
                }
            }
            StartState::Cancelled | StartState::Done => {}
        }
    }
}

/// Makes a `gevent.Greenlet` that calls `callable` without arguments. From the hub it is entered at once, as by
/// a callback of the hub that switches to it; from elsewhere it is put into the queue. Before that `join` may
/// make it a member of a group. `Err` with an error set.
///
/// # Safety
/// The GIL is held, with the running greenlet's state installed; `td` is this thread's.
pub unsafe fn spawn_now(
    td: &ThreadData,
    callable: *mut PyObject,
    join: impl FnOnce(*mut PyObject) -> Result<(), ()>,
) -> Result<(), ()> {
    // SAFETY: the caller's promise; the new greenlet is held until it was entered.
    unsafe {
        let g = super::slots::plain(callable)?;
        let joined = join(g.cast());
        if joined.is_err() {
            ffi::Py_DECREF(g);
            return joined;
        }
        let hub = get_core()?;
        if td.current.get() != hub.greenlet() {
            let started = start(g.cast());
            ffi::Py_DECREF(g);
            return started;
        }
        let told = super::call_spawn_callbacks(g);
        if told.is_err() {
            ffi::Py_DECREF(g);
            return told;
        }
        (*g.cast::<GreenletObject>()).start = StartState::Done;
        let args = globals().empty_tuple;
        ffi::Py_INCREF(args);
        let r = switch_to(td, g.cast(), Carry::Call(args, null_mut()));
        td.install(td.current.get());
        ffi::Py_DECREF(g);
        if r.is_null() {
            return Err(());
        }
        ffi::Py_DECREF(r);
        Ok(())
    }
}

/// Puts it into the queue, once.
///
/// # Safety
/// As the module says.
pub unsafe fn start(me: *mut GreenletObject) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if (*me).start != StartState::Never {
            return Ok(());
        }
        super::call_spawn_callbacks(me.cast())?;
        (*me).start = StartState::Queued;
        ffi::Py_INCREF(me.cast());
        let entry = Entry::Call(Payload::Start(me.cast()).into_word());
        match HubCore::current() {
            Some(hub) if hub.greenlet() == (*me).base.parent.get() => hub.reactor().push(entry),
            _ => send_home(me.cast(), entry)?,
        }
        Ok(())
    }
}

/// Puts an entry into the queue of a greenlet's own hub, which may be another thread's; if it has none any
/// more, into the running thread's. `Err` with an error set.
///
/// # Safety
/// As the module says.
#[cold]
pub unsafe fn send_home(g: *mut PyGreenlet, entry: Entry) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        match home_of((*g).parent.get()) {
            Home::Away(remote) if remote.push(entry) => {}
            Home::Here(hub) => hub.reactor().push(entry),
            Home::Away(_) | Home::Nowhere => get_core()?.reactor().push(entry),
        }
        Ok(())
    }
}

/// As `start_later`, by the greenlet's own thread.
///
/// # Safety
/// As the module says.
#[cold]
pub unsafe fn start_later_away(me: *mut GreenletObject, seconds: f64) {
    // SAFETY: alive; the GIL is held, here and in the job.
    unsafe {
        (*me).start = StartState::Queued;
        let held = Bound::from_borrowed_ptr(Python::assume_attached(), me.cast()).unbind();
        let job: Box<dyn FnOnce()> = Box::new(move || {
            let py = Python::assume_attached();
            let me = held.as_ptr().cast::<GreenletObject>();
            if (*me).start != StartState::Queued {
                return;
            }
            (*me).start = StartState::Never;
            if let Err(e) = held.call_method1(py, "start_later", (seconds,)) {
                e.write_unraisable(py, Some(held.bind(py)));
            }
        });
        let entry = Entry::Call(Payload::Job(Box::new(job)).into_word());
        if send_home(me.cast(), entry).is_err() {
            ffi::PyErr_WriteUnraisable(me.cast());
        }
    }
}

/// Tells whoever waits that it has just ended, all in one place of the queue: fibers alone are woken by entries
/// of their own, which needs no Python; with others among the links, the loop goes through them in order.
///
/// # Safety
/// As the module says.
pub unsafe fn tell_links(me: *mut GreenletObject) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*me).links.is_empty() || (*me).notifying {
            return;
        }
        let links = &(*me).links;
        if links.iter().any(|l| match l {
            Link::Callable(_) => true,
            Link::Group(group) => group.in_turn.get(),
            Link::Fiber(_) => false,
        }) {
            for link in links {
                if let Link::Group(group) = link {
                    group.in_turn.set(true);
                }
            }
            tell_late_links(me);
            return;
        }
        let mut woken = false;
        for link in std::mem::take(&mut (*me).links) {
            if let Fate::Fiber(waiter) = fate(me, link) {
                waiter.wake(Wake::Event);
                woken = true;
            }
        }
        let Some(hub) = HubCore::current() else {
            (*me).told = 0;
            return;
        };
        (*me).told = hub.reactor().last_number();
        if woken {
            // As upstream's hub, which goes on with them while it has the greenlet in its hands.
            let held = Payload::Drop(ffi::Py_NewRef(me.cast()));
            hub.reactor().push(Entry::Call(held.into_word()));
        }
    }
}

/// Tells links that were made after the end. As upstream, they are told by the entry that is already there for
/// those before them, even while it runs: a fiber that it woke and that waits again for what is over goes on
/// before anything else that is queued.
///
/// # Safety
/// As the module says.
pub unsafe fn tell_late_links(me: *mut GreenletObject) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*me).notifying {
            return;
        }
        (*me).notifying = true;
        ffi::Py_INCREF(me.cast());
        let entry = Entry::Call(Payload::Notify(me.cast()).into_word());
        let told = std::mem::take(&mut (*me).told);
        match HubCore::current() {
            Some(hub) if hub.greenlet() == (*me).base.parent.get() => match told {
                0 => hub.reactor().push(entry),
                told => hub.reactor().push_after(told, entry),
            },
            _ => {
                if send_home(me.cast(), entry).is_err() {
                    ffi::PyErr_WriteUnraisable(me.cast());
                }
            }
        }
    }
}

/// What becomes of a link when the greenlet has ended.
enum Fate {
    /// It wakes this park.
    Fiber(Waiter),
    /// It is to be called; an owned reference.
    Call(*mut PyObject),
    /// It waits for others too.
    Nothing,
}

/// # Safety
/// As the module says.
unsafe fn fate(me: *mut GreenletObject, link: Link) -> Fate {
    match link {
        Link::Fiber(waiter) => Fate::Fiber(waiter),
        // SAFETY: alive; the group takes a reference.
        Link::Group(group) => match group.add(unsafe { ffi::Py_NewRef(me.cast()) }) {
            Some(waiter) => Fate::Fiber(waiter),
            None => Fate::Nothing,
        },
        Link::Callable(f) => Fate::Call(f),
    }
}

thread_local! {
    /// The greenlet whose links the hub goes through.
    static TELLING: Cell<*mut PyObject> = const { Cell::new(null_mut()) };
}

/// An entry of the queue: calls the links of a greenlet that is over. Owns a reference to it.
pub fn notify_from_queue(host: &LoopHost<'_, '_>, p: *mut PyObject) {
    let me = p.cast::<GreenletObject>();
    let outer = TELLING.replace(p);
    // SAFETY: the queue's own reference. Links may add and remove links: one at a time is taken out.
    unsafe {
        while let Some(link) = (*me).links.pop_front() {
            let callable = match fate(me, link) {
                Fate::Call(callable) => callable,
                Fate::Fiber(waiter) => {
                    waiter.hand_over(Wake::Event);
                    continue;
                }
                Fate::Nothing => continue,
            };
            // A greenlet that was gone on with may have left its own state here.
            crate::sync::enter_python();
            let r = crate::tstate::call_one_at_bottom(callable, p);
            if r.is_null() {
                let py = host.loop_().py();
                let error = PyErr::fetch(py);
                let context = crate::raw::pair(callable, p);
                if !context.is_null() {
                    let context = Bound::from_owned_ptr(py, context);
                    host.report(&context, Err(error));
                }
            } else {
                ffi::Py_DECREF(r);
            }
            ffi::Py_DECREF(callable);
        }
        (*me).notifying = false;
        TELLING.set(outer);
        crate::sync::enter_python();
        ffi::Py_DECREF(p);
    }
}

/// The entry that was to call the links of a greenlet is given up: later links want one of their own.
///
/// # Safety
/// A `Greenlet`; the GIL is held.
pub unsafe fn forget_notice(p: *mut PyObject) {
    // SAFETY: the caller's promise.
    unsafe { (*p.cast::<GreenletObject>()).notifying = false };
}

/// In a forked child: as `forget_notice`, and the links, which are others' matters, are not told any more.
///
/// # Safety
/// As `forget_notice`.
pub unsafe fn leave_links(p: *mut PyObject) {
    // SAFETY: the caller's promise. What the links hold is not freed, since that may run code.
    unsafe {
        forget_notice(p);
        std::mem::forget(std::mem::take(&mut (*p.cast::<GreenletObject>()).links));
    }
}

/// `leave_links` for the greenlet whose links the hub was going through: it never comes back to that.
///
/// # Safety
/// The GIL is held.
pub unsafe fn leave_running_links() {
    let p = TELLING.replace(null_mut());
    if !p.is_null() {
        // SAFETY: the entry that is never gone on with holds it.
        unsafe { leave_links(p) };
    }
}
