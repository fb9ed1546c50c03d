//! [`Exchange`]: the head of queues and channels, and the ways to those in their lines. Who is served when,
//! and what comes of a wait, is [`gevent_sync::lines`].

use super::linkable::{drop_entry, schedule};
use super::object::{alloc, attribute, clear_weak, or_none, set, visit_all};
use super::wait::{InHub, InThread, begin};
use super::{Obj, Users, enter_python, homes, in_hub};
use crate::event_loop::Payload;
use crate::hub::HubCore;
use gevent_hub_core::reactor::{Entry, Nanos, Wake};
use gevent_sync::lines::{Line, Lines, Owner, Waiter};
use gevent_sync::parker::Sleeper;
use pyo3::ffi::{self, PyGetSetDef, PyObject, PyTypeObject};
use std::ffi::{c_int, c_void};
use std::ptr::{NonNull, null_mut};

/// An owned reference to an item, or to the error with which one was refused.
pub type Item = NonNull<PyObject>;

/// The head of a queue or channel.
#[repr(C)]
pub struct Exchange {
    base: ffi::PyObject,
    /// The list of weak references.
    pub weak: Obj,
    /// The hub of the first greenlet that waited: an owned reference or null.
    hub: Obj,
    /// Those who wait, and what is left for them.
    pub lines: Lines<Item, Item>,
    /// Which threads use it.
    pub users: Users,
    /// Looks after the waiters, in the hub of that number.
    round: unsafe fn(Obj, u64),
}

impl Exchange {
    /// Makes an object of `ty`, all zeros behind its head; null with an error set. `round` is called from a
    /// hub's queue, with the object held.
    ///
    /// # Safety
    /// The instances of `ty` begin with an `Exchange`; the GIL is held.
    pub unsafe fn make(ty: *mut PyTypeObject, round: unsafe fn(Obj, u64)) -> *mut Self {
        // SAFETY: zeroed memory, in which what is no plain value is written.
        unsafe {
            let me = alloc(ty).cast::<Exchange>();
            if !me.is_null() {
                (&raw mut (*me).lines).write(Lines::default());
                (&raw mut (*me).round).write(round);
            }
            me
        }
    }

    /// For `tp_dealloc`, when the collector does not look at it any more. Waiting greenlets and threads have
    /// references to the object, so that whoever is left in a line waits on a stack that was given up.
    ///
    /// # Safety
    /// The slot's contract.
    pub unsafe fn finish(me: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe {
            clear_weak(me.cast(), (*me).weak);
            Self::clear(me);
            std::ptr::drop_in_place(&raw mut (*me).lines);
        }
    }

    /// For `tp_clear`.
    ///
    /// # Safety
    /// The collector's protocol. May run Python.
    pub unsafe fn clear(me: *mut Self) {
        // SAFETY: the fields are empty before what they held is dropped.
        unsafe {
            set(&raw mut (*me).hub, null_mut());
            let mail = (*me).lines.take_mail();
            let items = (*me).lines.take_items();
            for item in mail.into_iter().chain(items) {
                ffi::Py_DECREF(item.as_ptr());
            }
        }
    }

    /// For `tp_traverse`, with the type.
    ///
    /// # Safety
    /// The collector's protocol.
    pub unsafe fn traverse(me: *mut Self, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
        // SAFETY: the caller's promise; nothing here runs Python.
        unsafe {
            let lines = &(*me).lines;
            let putters = lines.line(Line::Putters).iter();
            let items = putters.filter_map(|w| w.item).chain(lines.mail().copied());
            let ty: Obj = ffi::Py_TYPE(me.cast()).cast();
            let all = [ty, (*me).hub]
                .into_iter()
                .chain(items.map(NonNull::as_ptr));
            visit_all(all, visit, arg)
        }
    }

    /// How the running greenlet waits. `Err` with an error set if it must not.
    ///
    /// # Safety
    /// The GIL is held; the hub is this thread's.
    #[inline]
    pub unsafe fn parking<'a>(
        me: *mut Self,
        hub: &'a HubCore,
        deadline: Option<Nanos>,
        what: &'static std::ffi::CStr,
    ) -> Result<InHub<'a>, ()> {
        // SAFETY: the caller's promise.
        unsafe {
            begin(&raw mut (*me).hub, hub)?;
            let shared = (*me).users.may_include_others();
            Ok(InHub {
                hub,
                shared,
                deadline,
                what,
                only_told: false,
            })
        }
    }
}

/// An object that begins with an [`Exchange`], and to which the maker of this has a reference for as long.
/// The GIL is held meanwhile.
pub struct Held<T>(pub *mut T);

/// What begins with an [`Exchange`].
///
/// # Safety
/// It does, and is `repr(C)`.
pub unsafe trait Headed {}

impl<T: Headed> Owner for Held<T> {
    type Item = Item;
    type Mail = Item;

    #[inline]
    fn lines<R>(&self, f: impl FnOnce(&mut Lines<Item, Item>) -> R) -> R {
        // SAFETY: the object is alive and the GIL is held; `f` does not come to the lines otherwise.
        f(unsafe { &mut (*self.0.cast::<Exchange>()).lines })
    }

    #[inline]
    fn here(&self) -> u64 {
        HubCore::current_id()
    }

    fn exists(&self, hub: u64) -> bool {
        homes::exists(hub)
    }

    #[inline]
    fn schedule(&self, hub: u64) -> bool {
        // SAFETY: as above; the entry has a reference of its own.
        unsafe {
            let queued = schedule(self.0.cast(), Payload::Queue, hub, self.here());
            if !queued {
                // The caller has a reference too.
                ffi::Py_DECREF(self.0.cast());
            }
            queued
        }
    }

    #[inline]
    fn wake(&self, waiter: Waiter<Item>, why: Wake, at_once: bool) {
        match waiter.sleeper {
            Sleeper::Thread(parker) => parker.end(why),
            Sleeper::Fiber(token) => match HubCore::current() {
                Some(hub) if hub.core().id() == waiter.hub => {
                    if at_once && in_hub() {
                        hub.core().hand_over(token, why);
                    } else {
                        hub.core().unpark(token, why);
                    }
                }
                _ => {
                    homes::push(waiter.hub, Entry::Wake(token, why));
                }
            },
            Sleeper::Nobody => {}
        }
        if let Some(item) = waiter.item {
            // SAFETY: the waiter's own reference; the GIL is held.
            unsafe {
                if ffi::Py_REFCNT(item.as_ptr()) == 1 {
                    enter_python();
                }
                ffi::Py_DECREF(item.as_ptr());
            }
        }
    }

    fn release(&self, item: Option<Item>) {
        if let Some(item) = item {
            // SAFETY: as above.
            unsafe { ffi::Py_DECREF(item.as_ptr()) };
        }
    }
}

/// An entry of a hub's queue: waiters are to be served. Owns a reference to the object.
///
/// # Safety
/// From the queue, in the hub.
pub unsafe fn serve_from_queue(p: Obj) {
    // SAFETY: the entry's own reference.
    unsafe {
        if let Some(hub) = HubCore::current() {
            ((*p.cast::<Exchange>()).round)(p, hub.core().id());
        }
        drop_entry(p);
    }
}

/// How a native thread without a hub waits. `Err` with an error set.
///
/// # Safety
/// The GIL is held.
pub unsafe fn parking_in_thread(limit: super::args::Limit) -> Result<InThread, ()> {
    // SAFETY: the caller's promise.
    Ok(InThread::new(unsafe { limit.without_hub() }?))
}

// ---- attributes ------------------------------------------------------------------------------------

/// A tuple with None for each waiter, or its item.
///
/// # Safety
/// The GIL is held; `slf` begins with an [`Exchange`].
unsafe fn shown(slf: Obj, line: Line) -> Obj {
    // SAFETY: the items are held before anything is allocated.
    unsafe {
        let line = (*slf.cast::<Exchange>()).lines.line(line);
        let items: Vec<Obj> = line
            .iter()
            .map(|w| or_none(w.item.map_or(null_mut(), NonNull::as_ptr)))
            .collect();
        let tuple = ffi::PyTuple_New(items.len() as isize);
        for (at, item) in items.into_iter().enumerate() {
            if tuple.is_null() {
                ffi::Py_DECREF(item);
            } else {
                ffi::PyTuple_SET_ITEM(tuple, at as isize, item);
            }
        }
        tuple
    }
}

#[crate::entry]
unsafe extern "C" fn get_hub(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on an exchange.
    unsafe { or_none((*slf.cast::<Exchange>()).hub) }
}

#[crate::entry]
unsafe extern "C" fn get_getters(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on an exchange.
    unsafe { shown(slf, Line::Getters) }
}

#[crate::entry]
unsafe extern "C" fn get_putters(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on an exchange.
    unsafe { shown(slf, Line::Putters) }
}

/// What queues and channels have in common.
pub fn attributes() -> Vec<PyGetSetDef> {
    vec![
        attribute(
            c"hub",
            get_hub,
            None,
            c"The hub of the first greenlet that waited. It says nothing about who may use the object.",
        ),
        attribute(
            c"getters",
            get_getters,
            None,
            c"Those who wait for an item, each as None.",
        ),
        attribute(
            c"putters",
            get_putters,
            None,
            c"The items of those who wait to put one.",
        ),
    ]
}
