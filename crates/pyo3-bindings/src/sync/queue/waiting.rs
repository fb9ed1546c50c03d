//! How getters and putters of a queue wait for one another.
//!
//! A waiter belongs to the hub of its thread, and only that hub goes on with it; a native thread without a
//! hub blocks. Whoever makes it possible for a waiter to go on has the waiter's hub look after it. The item
//! of a putter is taken with its place in the line. A getter is only told to look, and waits again, in
//! front, if another thread was faster.

use super::Queue;
use super::storage::{How, has_room, len, locked, put, try_get};
use crate::event_loop::Payload;
use crate::hub::HubCore;
use crate::raw::absent;
use crate::sync::Obj;
use crate::sync::args::Limit;
use crate::sync::parker::Parker;
use crate::sync::wait::{Ended, hub_for_waiting, limited, park};
use crate::sync::{enter_python, homes};
use crate::tstate;
use gevent_hub_core::reactor::{Entry, Nanos, Token, Wake};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::collections::VecDeque;
use std::mem;
use std::ptr::null_mut;
use std::sync::Arc;

/// Who waits.
pub enum Who {
    /// A parked greenlet.
    Fiber(Token),
    /// A native thread without a hub.
    Thread(Arc<Parker>),
}

/// A getter or a putter.
pub struct Waiter {
    pub who: Who,
    /// The hub of a greenlet, 0 for a thread.
    pub hub: u64,
    /// What a putter puts: an owned reference, or null.
    pub item: Obj,
}

impl Waiter {
    /// A number that no other waiter of the same hub has.
    fn id(&self) -> u64 {
        match &self.who {
            Who::Fiber(token) => token.0,
            Who::Thread(parker) => Arc::as_ptr(parker) as u64,
        }
    }
}

/// One of the two lines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Getters,
    Putters,
}

impl Line {
    unsafe fn of<'a>(self, me: *mut Queue) -> &'a mut VecDeque<Waiter> {
        // SAFETY: a queue; callers keep the reference for one access that runs no Python.
        unsafe {
            match self {
                Line::Getters => &mut (*me).getters,
                Line::Putters => &mut (*me).putters,
            }
        }
    }

    fn other(self) -> Self {
        match self {
            Line::Getters => Line::Putters,
            Line::Putters => Line::Getters,
        }
    }
}

static EMPTY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static FULL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static SHUT_DOWN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn raise(cell: &PyOnceLock<Py<PyAny>>, name: &str) {
    // SAFETY: callers hold the GIL.
    let py = unsafe { Python::assume_attached() };
    let class = cell.get_or_try_init(py, || {
        py.import("gevent.queue")?.getattr(name).map(Bound::unbind)
    });
    match class {
        // SAFETY: a class of exceptions.
        Ok(class) => unsafe { ffi::PyErr_SetNone(class.as_ptr()) },
        Err(e) => e.restore(py),
    }
}

/// Sets `Empty`.
pub fn raise_empty() {
    raise(&EMPTY, "Empty");
}

/// Sets `Full`.
pub fn raise_full() {
    raise(&FULL, "Full");
}

/// Sets `ShutDown`.
pub fn raise_shut_down() {
    raise(&SHUT_DOWN, "ShutDown");
}

/// The time of a wait is over.
unsafe fn raise_late(line: Line, limit: Limit) {
    // SAFETY: the GIL is held.
    unsafe {
        match (limit, line) {
            (Limit::Timer(timer), _) => ffi::PyErr_SetObject(ffi::Py_TYPE(timer).cast(), timer),
            (_, Line::Getters) => raise_empty(),
            (_, Line::Putters) => raise_full(),
        }
    }
}

/// Whether the running greenlet is the hub, which cannot wait.
#[inline]
pub fn in_hub() -> bool {
    HubCore::current().is_some_and(|hub| hub.td().current.get() == hub.greenlet())
}

/// A `timeout` below zero is an error.
pub unsafe fn check_timeout(timeout: Obj) -> Result<(), ()> {
    // SAFETY: an object or null; the GIL is held.
    unsafe {
        if absent(timeout)
            || (ffi::PyFloat_Check(timeout) == 0 && ffi::PyLong_Check(timeout) == 0)
            || ffi::PyFloat_AsDouble(timeout) >= 0.0
        {
            ffi::PyErr_Clear();
            return Ok(());
        }
        let text = c"'timeout' must be a non-negative number";
        ffi::PyErr_SetString(ffi::PyExc_ValueError, text.as_ptr());
        Err(())
    }
}

// ---- serving those who wait ------------------------------------------------------------------------

/// Lets a waiter go on that was taken off its line: at once, if this is its hub.
unsafe fn finish(waiter: Waiter, wake: Wake) {
    // SAFETY: the GIL is held; the item's reference is the waiter's.
    unsafe {
        match waiter.who {
            Who::Thread(parker) => match wake {
                Wake::Closed => parker.close(),
                Wake::Fault => parker.fail(),
                _ => parker.wake(),
            },
            Who::Fiber(token) => match HubCore::current() {
                Some(hub) if hub.core().id() == waiter.hub => {
                    if in_hub() {
                        hub.core().hand_over(token, wake);
                    } else {
                        hub.core().unpark(token, wake);
                    }
                }
                _ => {
                    homes::push(waiter.hub, Entry::Wake(token, wake));
                }
            },
        }
        drop_item(waiter.item);
    }
}

/// Drops an item's reference, or null.
unsafe fn drop_item(item: Obj) {
    // SAFETY: an owned reference; the GIL is held.
    unsafe {
        if item.is_null() {
            return;
        }
        if ffi::Py_REFCNT(item) == 1 {
            enter_python();
        }
        ffi::Py_DECREF(item);
    }
}

/// Puts the first putter's item into the queue if there is room, and returns the putter, which is to be
/// woken. An item that is refused comes back to its putter as the error.
unsafe fn deliver(me: *mut Queue) -> Option<(Waiter, Wake)> {
    // SAFETY: a queue, to which the caller has a reference.
    unsafe {
        if (*me).putters.is_empty() {
            return None;
        }
        let mut found = None;
        let result = locked(me, || {
            if !has_room(me)? {
                return Ok(());
            }
            let Some(waiter) = (*me).putters.pop_front() else {
                return Ok(());
            };
            let wake = match put(me, waiter.item) {
                Ok(()) => Wake::Ready,
                Err(()) => {
                    let key = (waiter.hub, waiter.id());
                    (*me).failures.push((key, tstate::take_raised()));
                    Wake::Fault
                }
            };
            found = Some((waiter, wake));
            Ok(())
        });
        if result.is_err() {
            ffi::PyErr_WriteUnraisable(me.cast());
        }
        found
    }
}

/// Takes the first getter of `hub` off if there are items.
unsafe fn next_getter(me: *mut Queue, hub: u64) -> Option<Waiter> {
    // SAFETY: a queue, to which the caller has a reference.
    unsafe {
        if (*me).getters.is_empty() || !any_items(me) {
            return None;
        }
        let at = (*me).getters.iter().position(|w| w.hub == hub && hub != 0);
        at.and_then(|at| (*me).getters.remove(at))
    }
}

unsafe fn any_items(me: *mut Queue) -> bool {
    // SAFETY: a queue; an error of a class's `_qsize` is reported.
    unsafe {
        match len(me) {
            Ok(n) => n > 0,
            Err(()) => {
                ffi::PyErr_WriteUnraisable(me.cast());
                false
            }
        }
    }
}

/// In `hub`: goes on with putters while there is room, and with getters while there are items.
unsafe fn unlock(me: *mut Queue, hub: u64) {
    // SAFETY: a queue, to which the caller has a reference.
    unsafe {
        loop {
            let putter = deliver(me);
            let some = putter.is_some();
            if let Some((waiter, wake)) = putter {
                finish(waiter, wake);
            }
            let Some(getter) = next_getter(me, hub) else {
                if some {
                    continue;
                }
                return;
            };
            finish(getter, Wake::Event);
        }
    }
}

/// An entry of a hub's queue: waiters are to be served. Owns a reference to the queue.
///
/// # Safety
/// From the queue, in the hub.
pub unsafe fn serve_from_queue(p: Obj) {
    let me = p.cast::<Queue>();
    // SAFETY: the entry's own reference.
    unsafe {
        if let Some(hub) = HubCore::current() {
            let id = hub.core().id();
            unlock(me, id);
            (*me).notifiers.retain(|h| *h != id);
            wake(me);
        }
        if ffi::Py_REFCNT(p) > 1 {
            ffi::Py_DECREF(p);
        } else {
            enter_python();
            ffi::Py_DECREF(p);
        }
    }
}

/// Goes on with getters of this thread from its hub, which wants to put. False if there are none.
unsafe fn serve_a_getter(me: *mut Queue) -> bool {
    // SAFETY: a queue; the hub runs.
    unsafe {
        let hub = HubCore::current().map_or(0, |h| h.core().id());
        let getter = next_getter(me, hub);
        let found = getter.is_some();
        if let Some(getter) = getter {
            finish(getter, Wake::Event);
            enter_python();
        }
        found
    }
}

/// Has the waiters served whose turn it is. Any thread may call this; it runs no Python unless the class
/// overrides `_qsize`, or a thread's item is put.
///
/// # Safety
/// The GIL is held; the caller has a reference.
pub unsafe fn wake(me: *mut Queue) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*me).getters.is_empty() && (*me).putters.is_empty() {
            return;
        }
        let here = HubCore::current().map_or(0, |h| h.core().id());
        let mut left = if (*me).getters.is_empty() {
            0
        } else {
            len(me).unwrap_or_else(|()| {
                ffi::PyErr_WriteUnraisable(me.cast());
                0
            })
        };
        // As many getters as there are items.
        let mut at = 0;
        while left > 0 {
            let Some(getter) = (*me).getters.get(at) else {
                break;
            };
            left -= 1;
            match &getter.who {
                Who::Thread(parker) => {
                    parker.wake();
                    (*me).getters.remove(at);
                }
                Who::Fiber(_) => {
                    let hub = getter.hub;
                    if hub != here && !homes::exists(hub) {
                        (*me).getters.remove(at);
                    } else {
                        schedule(me, hub, here);
                        at += 1;
                    }
                }
            }
        }
        if (*me).putters.is_empty() {
            return;
        }
        match has_room(me) {
            Err(()) => return ffi::PyErr_WriteUnraisable(me.cast()),
            Ok(false) => return,
            Ok(true) => {}
        }
        if here != 0 {
            return schedule(me, here, here);
        }
        match (*me).putters.front() {
            Some(w) if w.hub != 0 && homes::exists(w.hub) => {
                let hub = w.hub;
                schedule(me, hub, here);
            }
            Some(_) => {
                if let Some((waiter, wake)) = deliver(me) {
                    finish(waiter, wake);
                }
            }
            None => {}
        }
    }
}

/// Queues a look at the waiters in `hub`.
#[inline]
unsafe fn schedule(me: *mut Queue, hub: u64, here: u64) {
    // SAFETY: the entry has a reference of its own.
    unsafe {
        if (*me).notifiers.contains(&hub) {
            return;
        }
        ffi::Py_INCREF(me.cast());
        let entry = Entry::Call(Payload::Queue(me.cast()).into_word());
        let queued = match HubCore::current() {
            Some(h) if hub == here => {
                h.reactor().push(entry);
                true
            }
            _ => homes::push(hub, entry),
        };
        if queued {
            (*me).notifiers.push(hub);
        } else {
            // The caller has a reference too.
            ffi::Py_DECREF(me.cast());
        }
    }
}

/// Ends all waits with `ShutDown`.
///
/// # Safety
/// The GIL is held; the caller has a reference.
pub unsafe fn shut(me: *mut Queue) {
    // SAFETY: the caller's promise.
    unsafe {
        let waiters = mem::take(&mut (*me).getters)
            .into_iter()
            .chain(mem::take(&mut (*me).putters));
        let here = HubCore::current();
        for waiter in waiters {
            match (&waiter.who, here) {
                // Not at once, though this may be the hub: whoever shuts it down goes on first.
                (Who::Fiber(token), Some(hub)) if hub.core().id() == waiter.hub => {
                    hub.core().unpark(*token, Wake::Closed);
                    if !waiter.item.is_null() {
                        ffi::Py_DECREF(waiter.item);
                    }
                }
                _ => finish(waiter, Wake::Closed),
            }
        }
    }
}

// ---- waiting ---------------------------------------------------------------------------------------

/// Takes a waiter off. False if it is not there any more.
unsafe fn leave(me: *mut Queue, line: Line, hub: u64, id: u64) -> bool {
    // SAFETY: a queue; the item is dropped when the line is whole, and its putter has another reference.
    unsafe {
        let waiters = line.of(me);
        let at = waiters.iter().position(|w| w.hub == hub && w.id() == id);
        let Some(waiter) = at.and_then(|at| waiters.remove(at)) else {
            return false;
        };
        if !waiter.item.is_null() {
            ffi::Py_DECREF(waiter.item);
        }
        true
    }
}

unsafe fn enter(me: *mut Queue, line: Line, who: Who, hub: u64, item: Obj, first: bool) {
    // SAFETY: a queue; the waiter gets its own reference.
    unsafe {
        if !item.is_null() {
            ffi::Py_INCREF(item);
        }
        let waiter = Waiter { who, hub, item };
        if first {
            line.of(me).push_front(waiter);
        } else {
            line.of(me).push_back(waiter);
        }
        if !line.other().of(me).is_empty() {
            wake(me);
        }
    }
}

/// Sets the error with which a putter's item was refused.
unsafe fn raise_failure(me: *mut Queue, hub: u64, id: u64) {
    // SAFETY: a queue; the error is an owned reference.
    unsafe {
        let at = (*me).failures.iter().position(|(key, _)| *key == (hub, id));
        match at {
            Some(at) => tstate::set_raised((*me).failures.swap_remove(at).1),
            None => {
                let text = c"the item was refused";
                ffi::PyErr_SetString(ffi::PyExc_RuntimeError, text.as_ptr());
            }
        }
    }
}

/// Parks once in a line. The outcome, and whether the waiter had been taken off.
unsafe fn park_in(
    me: *mut Queue,
    hub: &HubCore,
    line: Line,
    item: Obj,
    first: bool,
    deadline: Option<Nanos>,
) -> (Ended, bool) {
    // SAFETY: a queue, to which the caller has a reference; the hub is this thread's.
    unsafe {
        let id = hub.core().id();
        let (ended, token) = park(
            hub,
            (*me).is_shared(),
            deadline,
            c"a queue",
            |token| enter(me, line, Who::Fiber(token), id, item, first),
            |old, new| {
                for waiter in line.of(me) {
                    if waiter.hub == id && matches!(waiter.who, Who::Fiber(t) if t == old) {
                        waiter.who = Who::Fiber(new);
                        return true;
                    }
                }
                false
            },
        );
        match ended {
            Ended::Woken(Wake::Closed) => {
                raise_shut_down();
                (Ended::Raised, true)
            }
            Ended::Woken(Wake::Fault) => {
                raise_failure(me, id, token.0);
                (Ended::Raised, true)
            }
            Ended::Woken(_) => (ended, true),
            _ => {
                let taken = !leave(me, line, id, token.0);
                (ended, taken)
            }
        }
    }
}

/// Waits for an item. Null with an error set.
///
/// # Safety
/// The GIL is held; the caller has a reference.
pub unsafe fn wait_to_get(me: *mut Queue, how: How, limit: Limit) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        let hub = match hub_for_waiting() {
            Err(()) => return null_mut(),
            Ok(None) => return get_in_thread(me, how, limit),
            Ok(Some(hub)) => hub,
        };
        if (*me).begin(hub).is_err() {
            return null_mut();
        }
        let mut item = null_mut();
        let ended = limited(limit, |deadline| {
            let mut again = false;
            loop {
                match try_get(me, how) {
                    Ok(Some(found)) => {
                        item = found;
                        return Ended::Woken(Wake::Event);
                    }
                    Ok(None) => {}
                    Err(()) => return Ended::Raised,
                }
                if (*me).is_shut {
                    raise_shut_down();
                    return Ended::Raised;
                }
                match park_in(me, hub, Line::Getters, null_mut(), again, deadline).0 {
                    Ended::Woken(_) => again = true,
                    other => return other,
                }
            }
        });
        match ended {
            Ended::Woken(_) => item,
            Ended::TimedOut => {
                raise_late(Line::Getters, limit);
                null_mut()
            }
            Ended::Raised => null_mut(),
        }
    }
}

unsafe fn get_in_thread(me: *mut Queue, how: How, limit: Limit) -> Obj {
    // SAFETY: as `wait_to_get`.
    unsafe {
        let Ok(deadline) = limit.without_hub() else {
            return null_mut();
        };
        let parker = Parker::new();
        let id = Arc::as_ptr(&parker) as u64;
        let mut again = false;
        let item = loop {
            match try_get(me, how) {
                Ok(Some(item)) => break item,
                Ok(None) => {}
                Err(()) => break null_mut(),
            }
            if (*me).is_shut {
                raise_shut_down();
                break null_mut();
            }
            parker.reset();
            let who = Who::Thread(parker.clone());
            enter(me, Line::Getters, who, 0, null_mut(), again);
            parker.wait(deadline);
            if leave(me, Line::Getters, 0, id) {
                match try_get(me, how) {
                    Ok(Some(item)) => break item,
                    Ok(None) => raise_late(Line::Getters, limit),
                    Err(()) => {}
                }
                break null_mut();
            }
            again = true;
        };
        if again {
            // It may have been woken in place of somebody else.
            let error = tstate::take_raised();
            wake(me);
            if !error.is_null() {
                tstate::set_raised(error);
            }
        }
        item
    }
}

/// Waits until an item was taken. `Err` with an error set.
///
/// # Safety
/// The GIL is held; the caller has references to the queue and the item.
pub unsafe fn wait_to_put(me: *mut Queue, item: Obj, limit: Limit) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(hub) = hub_for_waiting()? else {
            return put_in_thread(me, item, limit);
        };
        (*me).begin(hub)?;
        let mut taken = false;
        let ended = limited(limit, |deadline| {
            let (ended, gone) = park_in(me, hub, Line::Putters, item, false, deadline);
            taken = gone;
            ended
        });
        match ended {
            Ended::Woken(_) => Ok(()),
            // It went into the queue at the last moment.
            Ended::TimedOut if taken && !(*me).is_shut => Ok(()),
            Ended::TimedOut => {
                raise_late(Line::Putters, limit);
                Err(())
            }
            Ended::Raised => Err(()),
        }
    }
}

unsafe fn put_in_thread(me: *mut Queue, item: Obj, limit: Limit) -> Result<(), ()> {
    // SAFETY: as `wait_to_put`.
    unsafe {
        let deadline = limit.without_hub()?;
        let parker = Parker::new();
        let id = Arc::as_ptr(&parker) as u64;
        let who = Who::Thread(parker.clone());
        enter(me, Line::Putters, who, 0, item, false);
        parker.wait(deadline);
        if leave(me, Line::Putters, 0, id) {
            raise_late(Line::Putters, limit);
            return Err(());
        }
        if parker.is_closed() {
            raise_shut_down();
            return Err(());
        }
        if parker.has_failed() {
            raise_failure(me, 0, id);
            return Err(());
        }
        Ok(())
    }
}

/// Puts an item from the hub, which cannot wait: makes room by going on with getters.
///
/// # Safety
/// As `wait_to_put`; the hub runs.
pub unsafe fn put_in_hub(me: *mut Queue, item: Obj) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        loop {
            if super::storage::try_put(me, item)? {
                return Ok(());
            }
            if !serve_a_getter(me) {
                raise_full();
                return Err(());
            }
        }
    }
}

/// Gets an item in the hub, which cannot wait: goes on with putters. Null with an error set.
///
/// # Safety
/// As `wait_to_get`; the hub runs.
pub unsafe fn get_in_hub(me: *mut Queue, how: How) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        while let Some((waiter, reason)) = deliver(me) {
            finish(waiter, reason);
            enter_python();
            match try_get(me, how) {
                Ok(Some(item)) => return item,
                Ok(None) => {}
                Err(()) => return null_mut(),
            }
        }
        raise_empty();
        null_mut()
    }
}
