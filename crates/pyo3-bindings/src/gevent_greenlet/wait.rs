//! Waiting for several greenlets at once, when all of them are plain: `joinall` and `wait`.

use super::group::Group;
use super::object::{GreenletObject, Link};
use crate::event_loop::nanos;
use crate::hub::{HubCore, Parked, Waiter, unexpected_switch};
use crate::raw::{absent, method, parsed};
use gevent_hub_core::reactor::{Nanos, Wake, monotonic};
use pyo3::ffi::{self, PyObject};
use std::ptr::null_mut;
use std::rc::Rc;

// `wait_greenlets(objects, timeout, count)`: see the module's table of functions.
method!(
    parsed: wait_greenlets,
    c"wait_greenlets",
    [c"objects", c"timeout", c"count"],
    |_module, [objects, timeout, count]| {
        let is_sequence = ffi::PyList_Check(objects) != 0 || ffi::PyTuple_Check(objects) != 0;
        if !is_sequence
            || (!absent(timeout)
                && ffi::PyFloat_Check(timeout) == 0
                && ffi::PyLong_Check(timeout) == 0)
        {
            return not_implemented();
        }
        let list = ffi::PySequence_List(objects);
        if list.is_null() {
            return list;
        }
        let r = wait_for(list, timeout, count);
        ffi::Py_DECREF(list);
        r
    }
);

/// # Safety
/// The GIL is held.
unsafe fn not_implemented() -> *mut PyObject {
    // SAFETY: an immortal object; the GIL is held.
    unsafe { ffi::Py_NewRef(ffi::Py_NotImplemented()) }
}

/// # Safety
/// The GIL is held; `list` is a list of `Greenlet`s that nobody else changes, and the others are alive.
unsafe fn wait_for(
    list: *mut PyObject,
    timeout: *mut PyObject,
    count: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: `list` is ours, so its items stay; the GIL is held.
    unsafe {
        let total = ffi::PyList_GET_SIZE(list) as usize;
        let item = |i: usize| ffi::PyList_GET_ITEM(list, i as isize);
        if (0..total).any(|i| !super::is_plain(item(i))) {
            return not_implemented();
        }
        let Ok((wanted, deadline)) = limits(count, total, timeout) else {
            return null_mut();
        };
        if wanted == 0 {
            return ffi::PyList_New(0);
        }
        let Ok(hub) = crate::hub::get_core() else {
            return null_mut();
        };
        if hub.may_block().is_err() {
            return null_mut();
        }
        let group = Rc::new(Group::default());
        group.wanted.set(wanted);
        for i in 0..total {
            enter(&group, item(i).cast());
        }
        let away = (0..total).any(|i| super::ending::is_away(item(i).cast()));
        let parked = park(&group, &hub, deadline, away);
        let ended = std::mem::take(&mut *group.ended.borrow_mut());
        if parked.is_err() || ended.len() < total {
            // Those that have not ended forget it.
            for i in 0..total {
                let me = item(i).cast::<GreenletObject>();
                (*me)
                    .links
                    .retain(|l| !matches!(l, Link::Group(g) if Rc::ptr_eq(g, &group)));
            }
        }
        match parked {
            Ok(()) => first_of(ended, wanted),
            Err(()) => {
                // Keep the error that is set while the references go.
                let e = crate::tstate::take_raised();
                ended.into_iter().for_each(|g| ffi::Py_DECREF(g));
                crate::tstate::set_raised(e);
                null_mut()
            }
        }
    }
}

/// Has `group` told of the end of `me`, or of that it is over already.
///
/// # Safety
/// The GIL is held; `me` is alive.
unsafe fn enter(group: &Rc<Group>, me: *mut GreenletObject) {
    // SAFETY: the caller's promise.
    unsafe {
        let over = GreenletObject::is_ready(me);
        if over && super::ending::is_away(me) {
            // Its own hub may have stopped.
            group.add(ffi::Py_NewRef(me.cast()));
            return;
        }
        (*me).links.push_back(Link::Group(group.clone()));
        if over {
            group.in_turn.set(true);
            super::life::tell_late_links(me);
        }
    }
}

/// Parks until as many of `group` have ended as are wanted, or the deadline has come. `away`: one of them
/// belongs to another hub. `Err` with an error set.
///
/// # Safety
/// The GIL is held.
unsafe fn park(
    group: &Group,
    hub: &HubCore,
    deadline: Option<Nanos>,
    away: bool,
) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let park = hub.core().prepare();
        if group.ended.borrow().len() < group.wanted.get() {
            group.waiter.set(Some(Waiter::new(hub, park.token())));
        } else {
            // As upstream, the others have their turn even so.
            hub.core().unpark(park.token(), Wake::Event);
        }
        let outcome = if away {
            hub.park_for_others(park, deadline)
        } else {
            hub.park(park, deadline)
        };
        group.waiter.set(None);
        match outcome {
            Parked::Woken(_) => Ok(()),
            Parked::Switched(value, _) => {
                unexpected_switch(c"wait()", value);
                Err(())
            }
            Parked::Raised(_) => Err(()),
        }
    }
}

/// The first of `ended`, as many as are wanted, as a list. Takes the references; null with an error set.
///
/// # Safety
/// The GIL is held.
unsafe fn first_of(ended: Vec<*mut PyObject>, wanted: usize) -> *mut PyObject {
    // SAFETY: owned references, each given up once.
    unsafe {
        let result = ffi::PyList_New(0);
        for (i, g) in ended.into_iter().enumerate() {
            if !result.is_null() && i < wanted {
                ffi::PyList_Append(result, g);
            }
            ffi::Py_DECREF(g);
        }
        result
    }
}

/// How many of `total` are waited for, and until when. `Err` with an error set.
///
/// # Safety
/// The GIL is held; the arguments are alive, or null where they were left out.
unsafe fn limits(
    count: *mut PyObject,
    total: usize,
    timeout: *mut PyObject,
) -> Result<(usize, Option<Nanos>), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut wanted = total;
        if !absent(count) {
            let c = ffi::PyLong_AsSsize_t(count);
            if c == -1 && !ffi::PyErr_Occurred().is_null() {
                return Err(());
            }
            wanted = total.min(c.max(0) as usize);
        }
        if absent(timeout) {
            return Ok((wanted, None));
        }
        let s = ffi::PyFloat_AsDouble(timeout);
        if s == -1.0 && !ffi::PyErr_Occurred().is_null() {
            return Err(());
        }
        Ok((wanted, Some(monotonic().saturating_add(nanos(s)))))
    }
}
