//! What a queue does when it must wait, or lets others go on: Python's side of [`gevent_sync::lines::queue`].

use super::Queue;
use super::storage::{How, has_room, len, locked, put, try_get, try_put};
use crate::errors::ErrorClass;
use crate::raw::absent;
use crate::sync::args::Limit;
use crate::sync::exchange::{Exchange, Held, Item, parking_in_thread};
use crate::sync::wait::{hub_for_waiting, limited};
use crate::sync::{Obj, enter_python};
use crate::tstate;
use gevent_hub_core::reactor::Wake;
use gevent_sync::lines::queue::{self, Got, Put, Store};
use gevent_sync::parker::Ended;
use pyo3::ffi;
use std::ptr::{NonNull, null_mut};

pub static EMPTY: ErrorClass = ErrorClass::new("gevent.queue", "Empty");
pub static FULL: ErrorClass = ErrorClass::new("gevent.queue", "Full");
pub static SHUT_DOWN: ErrorClass = ErrorClass::new("gevent.queue", "ShutDown");

impl Held<Queue> {
    /// What may fail in Python while somebody else is served is reported.
    ///
    /// # Safety
    /// The GIL is held; for an `Err` an error is set.
    unsafe fn reported<R>(&self, result: Result<R, ()>) -> Option<R> {
        if result.is_err() {
            // SAFETY: an error is set and the GIL is held.
            unsafe { ffi::PyErr_WriteUnraisable(self.0.cast()) };
        }
        result.ok()
    }
}

impl Store for Held<Queue> {
    #[inline]
    fn len(&self) -> usize {
        // SAFETY: the queue is alive and the GIL is held.
        unsafe { self.reported(len(self.0)) }.map_or(0, |n| usize::try_from(n).unwrap_or(0))
    }

    #[inline]
    fn has_room(&self) -> bool {
        // SAFETY: as above.
        unsafe { self.reported(has_room(self.0)) }.unwrap_or(false)
    }

    fn guarded<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        // SAFETY: as above; the caller has a reference.
        unsafe { self.reported(locked(self.0, || Ok(f()))) }
    }

    fn put(&self, item: &Item) -> Result<(), Item> {
        // SAFETY: as above; an error is set if it is refused.
        unsafe {
            put(self.0, item.as_ptr()).map_err(|()| NonNull::new_unchecked(tstate::take_raised()))
        }
    }

    fn discard(&self, refusal: Item) {
        // SAFETY: as above; an owned reference, and an error that is set survives.
        unsafe {
            let error = tstate::take_raised();
            ffi::Py_DECREF(refusal.as_ptr());
            if !error.is_null() {
                tstate::set_raised(error);
            }
        }
    }

    fn is_closed(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.0).ledger.is_closed() }
    }
}

/// Sets the error of one whose time is over.
///
/// # Safety
/// The GIL is held.
pub unsafe fn raise_late(limit: Limit, class: &ErrorClass) {
    // SAFETY: the caller's promise.
    unsafe {
        match limit {
            Limit::Timer(timer) => ffi::PyErr_SetObject(ffi::Py_TYPE(timer).cast(), timer),
            _ => class.raise(),
        }
    }
}

/// A `timeout` below zero is an error for `get`, as upstream has it; a `put` is late.
///
/// # Safety
/// The GIL is held; `timeout` is an object or null.
pub unsafe fn check_timeout(timeout: Obj) -> Result<(), ()> {
    // SAFETY: the caller's promise.
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

/// Looks after the waiters, in a hub.
///
/// # Safety
/// A queue that the caller holds; the hub runs.
pub unsafe fn round(slf: Obj, hub: u64) {
    queue::round(&Held::<Queue>(slf.cast()), hub);
}

/// Has the waiters served whose turn it is. Any thread may call this; it runs no Python unless the class
/// overrides `_qsize`, or a thread's item is put.
///
/// # Safety
/// The GIL is held; the caller has a reference.
#[inline]
pub unsafe fn wake(me: *mut Queue) {
    queue::notify(&Held(me));
}

/// Ends all waits with `ShutDown`.
///
/// # Safety
/// The GIL is held; the caller has a reference.
pub unsafe fn shut(me: *mut Queue) {
    queue::shut(&Held(me));
}

/// Waits for an item. Null with an error set.
///
/// # Safety
/// The GIL is held; the caller has a reference.
pub unsafe fn wait_to_get(me: *mut Queue, how: How, limit: Limit) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        let queue = Held(me);
        let attempt = || try_get(me, how);
        let mut got = Got::Failed;
        match hub_for_waiting() {
            Err(()) => return null_mut(),
            Ok(Some(hub)) => {
                let Ok(mut parking) = Exchange::parking(me.cast(), &hub, None, c"a queue") else {
                    return null_mut();
                };
                let ended = limited(limit, |deadline| {
                    parking.deadline = deadline;
                    got = queue::get(&queue, &mut parking, attempt);
                    match got {
                        Got::Item(_) | Got::Closed => Ended::Woken(Wake::Event),
                        Got::Late => Ended::TimedOut,
                        Got::Failed => Ended::Interrupted,
                    }
                });
                match ended {
                    // It was the limit that interrupted it.
                    Ended::TimedOut => got = Got::Late,
                    Ended::Interrupted => got = drop_item(got),
                    Ended::Woken(_) => {}
                }
            }
            Ok(None) => {
                let Ok(mut parking) = parking_in_thread(limit) else {
                    return null_mut();
                };
                got = queue::get(&queue, &mut parking, attempt);
                // It may have been woken in place of somebody else.
                let error = tstate::take_raised();
                queue::notify(&queue);
                if !error.is_null() {
                    tstate::set_raised(error);
                }
            }
        }
        match got {
            Got::Item(item) => return item,
            Got::Closed => SHUT_DOWN.raise(),
            Got::Late => raise_late(limit, &EMPTY),
            Got::Failed => {}
        }
        null_mut()
    }
}

/// An error came after all.
///
/// # Safety
/// The GIL is held; an item is an owned reference.
unsafe fn drop_item(got: Got<Obj>) -> Got<Obj> {
    if let Got::Item(item) = got {
        // SAFETY: an owned reference that nobody will have; an error that is set survives.
        unsafe {
            let error = tstate::take_raised();
            ffi::Py_DECREF(item);
            tstate::set_raised(error);
        }
    }
    Got::Failed
}

/// Waits until an item was taken. `Err` with an error set.
///
/// # Safety
/// The GIL is held; the caller has references to the queue and the item.
pub unsafe fn wait_to_put(me: *mut Queue, item: Obj, limit: Limit) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let queue = Held(me);
        let mut put = Put::Failed;
        if let Some(hub) = hub_for_waiting()? {
            let mut parking = Exchange::parking(me.cast(), &hub, None, c"a queue")?;
            let ended = limited(limit, |deadline| {
                parking.deadline = deadline;
                // The waiter gets its own reference.
                let item = NonNull::new_unchecked(ffi::Py_NewRef(item));
                put = queue::put(&queue, &mut parking, item);
                match put {
                    Put::Failed => Ended::Interrupted,
                    Put::Late => Ended::TimedOut,
                    _ => Ended::Woken(Wake::Event),
                }
            });
            match ended {
                Ended::TimedOut => put = Put::Late,
                Ended::Interrupted => put = Put::Failed,
                Ended::Woken(_) => {}
            }
        } else {
            let mut parking = parking_in_thread(limit)?;
            let item = NonNull::new_unchecked(ffi::Py_NewRef(item));
            put = queue::put(&queue, &mut parking, item);
        }
        match put {
            Put::Done => return Ok(()),
            Put::Closed => SHUT_DOWN.raise(),
            Put::Refused(Some(error)) => tstate::set_raised(error.as_ptr()),
            Put::Refused(None) => {
                let text = c"the item was refused";
                ffi::PyErr_SetString(ffi::PyExc_RuntimeError, text.as_ptr());
            }
            Put::Late => raise_late(limit, &FULL),
            Put::Failed => {}
        }
        Err(())
    }
}

/// Puts an item from the hub, which cannot wait: makes room by going on with getters.
///
/// # Safety
/// As `wait_to_put`; the hub runs.
pub unsafe fn put_in_hub(me: *mut Queue, item: Obj) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        while !try_put(me, item)? {
            if !queue::serve_a_getter(&Held(me)) {
                FULL.raise();
                return Err(());
            }
            enter_python();
        }
        Ok(())
    }
}

/// Gets an item in the hub, which cannot wait: goes on with putters. Null with an error set.
///
/// # Safety
/// As `wait_to_get`; the hub runs.
pub unsafe fn get_in_hub(me: *mut Queue, how: How) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        while queue::serve_a_putter(&Held(me)) {
            enter_python();
            match try_get(me, how) {
                Ok(Some(item)) => return item,
                Ok(None) => {}
                Err(()) => return null_mut(),
            }
        }
        EMPTY.raise();
        null_mut()
    }
}
