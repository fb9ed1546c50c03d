//! The raw type below `gevent.queue.Channel`: what goes from hand to hand. Who meets whom is
//! [`gevent_sync::lines::channel`]; constructors and texts are Python.
//!
//! # Safety
//! The GIL is held. `me` or `slf` is a channel, which the caller has a reference to; arguments are borrowed
//! from the caller, or null where they were left out.

use super::args::{Limit, flag};
use super::exchange::{self, Exchange, Headed, Held, parking_in_thread};
use super::object::free;
use super::queue::waiting::{EMPTY, FULL, raise_late};
use super::wait::{Limited, hub_for_waiting};
use super::{Obj, enter_python, in_hub};
use crate::raw::{answer, boolean, fast, method, noargs, parsed, parsed_first};
use crate::raw_type::NewType;
use gevent_hub_core::reactor::monotonic;
use gevent_sync::lines::Line;
use gevent_sync::lines::channel::{self, Alone};
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::{CStr, c_int, c_void};
use std::mem::offset_of;
use std::ptr::{NonNull, null_mut};

/// A channel.
#[repr(C)]
struct Channel {
    head: Exchange,
}

// SAFETY: `repr(C)`, and the exchange is its first field.
unsafe impl Headed for Channel {}

fn cast(slf: Obj) -> *mut Channel {
    slf.cast()
}

/// # Safety
/// As the module says.
unsafe fn round(slf: Obj, hub: u64) {
    channel::round(&Held(cast(slf)), hub);
}

#[crate::entry]
unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: the slot's contract.
    unsafe { Exchange::make(ty, round).cast() }
}

#[crate::entry]
unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        Exchange::finish(slf.cast());
        free(slf);
    }
}

#[crate::entry(silent)]
unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe { Exchange::traverse(slf.cast(), visit, arg) }
}

#[crate::entry]
unsafe extern "C" fn clear(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        Exchange::clear(slf.cast());
        0
    }
}

/// For how long to wait for somebody. Without blocking, whoever waits already is met all the same, which
/// takes the hub's next turn. `Err` with an error set.
///
/// # Safety
/// As the module says.
unsafe fn limit(block: Obj, timeout: Obj) -> Result<Limit, ()> {
    // SAFETY: arguments, borrowed or null; the GIL is held.
    unsafe {
        if flag(block, true)? {
            Limit::new(timeout)
        } else {
            Ok(Limit::At(monotonic()))
        }
    }
}

/// # Safety
/// As the module says; `item` is not null.
unsafe fn put_item(me: *mut Channel, item: Obj, block: Obj, timeout: Obj) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let channel = Held(me);
        let owned = || NonNull::new_unchecked(ffi::Py_NewRef(item));
        if in_hub() {
            let put = channel::put_now(&channel, owned());
            // The getter that was gone on with has left its state.
            enter_python();
            return put.map_err(|item| {
                ffi::Py_DECREF(item.as_ptr());
                FULL.raise();
            });
        }
        (*me).head.users.saw();
        let limit = limit(block, timeout)?;
        let put = if let Some(hub) = hub_for_waiting()? {
            let parking = Exchange::parking(me.cast(), &hub, None, c"a channel")?;
            channel::put(&channel, &mut Limited(parking, limit), owned())
        } else {
            channel::put(&channel, &mut parking_in_thread(limit)?, owned())
        };
        put.map_err(|alone| alone_raised(alone, limit, &FULL))
    }
}

/// # Safety
/// As the module says.
unsafe fn get_item(me: *mut Channel, block: Obj, timeout: Obj) -> Result<Obj, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let channel = Held(me);
        if in_hub() {
            let item = channel::get_now(&channel);
            enter_python();
            return item.map(NonNull::as_ptr).ok_or_else(|| EMPTY.raise());
        }
        (*me).head.users.saw();
        let limit = limit(block, timeout)?;
        let got = if let Some(hub) = hub_for_waiting()? {
            let parking = Exchange::parking(me.cast(), &hub, None, c"a channel")?;
            channel::get(&channel, &mut Limited(parking, limit))
        } else {
            channel::get(&channel, &mut parking_in_thread(limit)?)
        };
        got.map(NonNull::as_ptr)
            .map_err(|alone| alone_raised(alone, limit, &EMPTY))
    }
}

/// Sets the error of one to whom nobody came.
///
/// # Safety
/// As the module says.
unsafe fn alone_raised(alone: Alone, limit: Limit, late: &crate::errors::ErrorClass) {
    if alone == Alone::Late {
        // SAFETY: the GIL is held.
        unsafe { raise_late(limit, late) };
    }
}

fn item_or_null(got: Result<Obj, ()>) -> Obj {
    got.unwrap_or(null_mut())
}

method!(
    parsed_first: put,
    c"put",
    [c"item", c"block", c"timeout"],
    |slf, [item, block, timeout]| answer(put_item(cast(slf), item, block, timeout))
);

#[crate::entry]
unsafe extern "C" fn put_nowait(slf: Obj, item: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe { answer(put_item(cast(slf), item, ffi::Py_False(), null_mut())) }
}

method!(parsed: get, c"get", [c"block", c"timeout"], |slf, [block, timeout]| {
    item_or_null(get_item(cast(slf), block, timeout))
});

#[crate::entry]
unsafe extern "C" fn get_nowait(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe { item_or_null(get_item(cast(slf), ffi::Py_False(), null_mut())) }
}

#[crate::entry]
unsafe extern "C" fn next(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a channel.
    unsafe { super::queue::next_of(item_or_null(get_item(cast(slf), null_mut(), null_mut()))) }
}

#[crate::entry]
unsafe extern "C" fn balance(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a channel.
    unsafe {
        let lines = &(*cast(slf)).head.lines;
        let waiting = |line| lines.line(line).len() as isize;
        ffi::PyLong_FromSsize_t(waiting(Line::Putters) - waiting(Line::Getters))
    }
}

#[crate::entry]
unsafe extern "C" fn nothing(_: Obj, _: Obj) -> Obj {
    // SAFETY: the GIL is held.
    unsafe { ffi::PyLong_FromLong(0) }
}

#[crate::entry]
unsafe extern "C" fn yes(_: Obj, _: Obj) -> Obj {
    // SAFETY: the GIL is held.
    unsafe { boolean(true) }
}

/// Adds the type.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    const NEXT: &CStr = c"Get an item; the class StopIteration ends the iteration.";
    let methods = vec![
        fast(
            c"put",
            put,
            0,
            c"put(item, block=True, timeout=None)\n\nWait until somebody takes *item*, at most *timeout* seconds; then raise `Full`.",
        ),
        crate::raw::one(
            c"put_nowait",
            put_nowait,
            c"put_nowait(item)\n\nHand *item* to a waiting getter or raise `Full`.",
        ),
        fast(
            c"get",
            get,
            0,
            c"get(block=True, timeout=None)\n\nWait until somebody puts an item, at most *timeout* seconds; then raise `Empty`.",
        ),
        noargs(
            c"get_nowait",
            get_nowait,
            c"Return the item of a waiting putter or raise `Empty`.",
        ),
        noargs(c"__next__", next, NEXT),
        noargs(c"next", next, NEXT),
        noargs(c"qsize", nothing, c"Return 0."),
        noargs(c"empty", yes, c"Return true."),
        noargs(c"full", yes, c"Return true."),
    ];
    let mut attributes = exchange::attributes();
    attributes.push(super::object::attribute(
        c"balance",
        balance,
        None,
        c"How many more putters than getters wait.",
    ));
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        NewType::of::<Channel>(c"gevent._core.ChannelBase")
            .about(c"The native part of channels.")
            .methods(methods)
            .attributes(attributes)
            .new_by(tp_new)
            .ended_by(dealloc, traverse, clear)
            .weak(offset_of!(Exchange, weak))
            .add(m, None)?;
    }
    Ok(())
}
