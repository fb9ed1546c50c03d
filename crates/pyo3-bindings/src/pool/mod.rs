//! Groups and pools of greenlets: how a member comes and goes, which happens for each task.
//!
//! What is rare (joining, killing, constructors) is Python, in `gevent.pool`, whose classes are below the
//! type here. Every step that a subclass may override goes through the object's attribute.
//!
//! # Safety
//! The GIL is held. `me` or `slf` is a group, and the caller has a reference to it and to each other object;
//! arguments may be null where they were left out.

mod imap;

use crate::errors::ErrorClass;
use crate::gevent_greenlet::{is_gevent, link, make_greenlet, start_greenlet};
use crate::raw::{Args, answer, done, fast, method, one, parsed_first, required};
use crate::raw_type::NewType;
use crate::statics::{Immortal, intern};
use crate::sync::args::Limit;
use crate::sync::object::{self, Fields, attribute, or_none, set};
use crate::sync::{dummy, event, flag, semaphore};
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::null_mut;

type Obj = *mut PyObject;

/// A group. Each field is an owned reference, or null before the constructor has run.
#[repr(C)]
struct Group {
    base: ffi::PyObject,
    greenlets: Obj,
    dying: Obj,
    /// Set while the group is empty.
    empty: Obj,
    /// What limits a pool.
    semaphore: Obj,
}

struct Names {
    add: Obj,
    start: Obj,
    discard: Obj,
    discard_: Obj,
    clear: Obj,
    set: Obj,
    acquire: Obj,
    release: Obj,
    rawlink: Obj,
    greenlet_class: Obj,
}

static NAMES: Immortal<Names> = Immortal::new();

fn cast(slf: Obj) -> *mut Group {
    slf.cast()
}

/// `Err` with an error set if `__init__` has not filled the fields.
///
/// # Safety
/// As the module says.
unsafe fn check_ready(me: *mut Group) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if !(*me).greenlets.is_null() && !(*me).dying.is_null() && !(*me).empty.is_null() {
            return Ok(());
        }
        let text = c"the group's __init__ was not called";
        ffi::PyErr_SetString(ffi::PyExc_RuntimeError, text.as_ptr());
        Err(())
    }
}

/// A new reference to a field. `Err` with an error set if it was deleted, which whatever runs may do.
///
/// # Safety
/// As the module says.
unsafe fn held(field: Obj, name: &CStr) -> Result<Obj, ()> {
    // SAFETY: a field of a group, or null.
    unsafe {
        if field.is_null() {
            ffi::PyErr_SetString(ffi::PyExc_AttributeError, name.as_ptr());
            return Err(());
        }
        Ok(ffi::Py_NewRef(field))
    }
}

/// Makes a greenlet a member: it will tell its end, and the group is not empty.
///
/// # Safety
/// As the module says.
unsafe fn join_members(slf: Obj, greenlet: Obj) -> Result<(), ()> {
    // SAFETY: a group and an object, which the caller holds.
    unsafe {
        let n = &*NAMES;
        check_ready(cast(slf))?;
        let gevents = is_gevent(greenlet);
        if gevents || ffi::PyObject_HasAttr(greenlet, n.rawlink) != 0 {
            let discard = ffi::PyObject_GetAttr(slf, n.discard_);
            if discard.is_null() {
                return Err(());
            }
            let r = if gevents {
                link(greenlet, discard)
            } else {
                ffi::PyObject_CallMethodOneArg(greenlet, n.rawlink, discard)
            };
            ffi::Py_DECREF(discard);
            done(r)?;
        }
        let members = held((*cast(slf)).greenlets, c"greenlets")?;
        let added = if ffi::PyAnySet_Check(members) != 0 {
            ffi::PySet_Add(members, greenlet) == 0
        } else {
            done(ffi::PyObject_CallMethodOneArg(members, n.add, greenlet)).is_ok()
        };
        ffi::Py_DECREF(members);
        if !added {
            return Err(());
        }
        let empty = held((*cast(slf)).empty, c"_empty_event")?;
        let cleared = if event::is_plain(empty) {
            event::reset(empty);
            Ok(())
        } else {
            done(ffi::PyObject_CallMethodNoArgs(empty, n.clear))
        };
        ffi::Py_DECREF(empty);
        cleared
    }
}

/// Takes an item out of a field that usually is a set. Uses the reference up. `Err` with an error set.
///
/// # Safety
/// As the module says; `field` is what a field of a group holds, an owned reference.
unsafe fn discard_from(field: Obj, item: Obj) -> Result<(), ()> {
    // SAFETY: it is held over what may run Python.
    unsafe {
        let r = if ffi::PyAnySet_Check(field) != 0 {
            if ffi::PySet_Discard(field, item) < 0 {
                Err(())
            } else {
                Ok(())
            }
        } else {
            done(ffi::PyObject_CallMethodOneArg(field, NAMES.discard, item))
        };
        ffi::Py_DECREF(field);
        r
    }
}

/// # Safety
/// As the module says.
unsafe fn leave_members(slf: Obj, greenlet: Obj) -> Result<(), ()> {
    // SAFETY: a group and an object, which the caller holds.
    unsafe {
        check_ready(cast(slf))?;
        discard_from(held((*cast(slf)).greenlets, c"greenlets")?, greenlet)?;
        let dying = held((*cast(slf)).dying, c"dying")?;
        if ffi::PyAnySet_Check(dying) == 0 || ffi::PySet_Size(dying) > 0 {
            discard_from(dying, greenlet)?;
        } else {
            ffi::Py_DECREF(dying);
        }
        let members = held((*cast(slf)).greenlets, c"greenlets")?;
        let count = ffi::PyObject_Size(members);
        ffi::Py_DECREF(members);
        match count {
            -1 => return Err(()),
            0 => {}
            _ => return Ok(()),
        }
        let empty = held((*cast(slf)).empty, c"_empty_event")?;
        let told = if event::is_plain(empty) {
            event::raise_flag(empty);
            Ok(())
        } else {
            done(ffi::PyObject_CallMethodNoArgs(empty, NAMES.set))
        };
        ffi::Py_DECREF(empty);
        told
    }
}

#[crate::entry]
unsafe extern "C" fn add(slf: Obj, greenlet: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe { answer(join_members(slf, greenlet)) }
}

#[crate::entry]
unsafe extern "C" fn discard(slf: Obj, greenlet: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe { answer(leave_members(slf, greenlet)) }
}

/// The error of a pool without room.
static FULL: ErrorClass = ErrorClass::new("gevent.pool", "PoolFull");

/// Takes a place in a pool. `Err` with an error set.
///
/// # Safety
/// As the module says.
unsafe fn take_place(semaphore: Obj, blocking: Obj, timeout: Obj) -> Result<bool, ()> {
    // SAFETY: an object that the caller holds; arguments are borrowed or null.
    unsafe {
        if semaphore::is_plain(semaphore) {
            if semaphore::try_acquire(semaphore.cast()) {
                return Ok(true);
            }
            if !flag(blocking, true)? {
                return Ok(false);
            }
            return semaphore::acquire_waiting(semaphore.cast(), Limit::new(timeout)?);
        }
        if dummy::is_plain(semaphore) {
            return Ok(true);
        }
        let or = |given: Obj, default: Obj| if given.is_null() { default } else { given };
        let r = ffi::PyObject_CallMethodObjArgs(
            semaphore,
            NAMES.acquire,
            or(blocking, ffi::Py_True()),
            or(timeout, ffi::Py_None()),
            null_mut::<PyObject>(),
        );
        if r.is_null() {
            return Err(());
        }
        let taken = flag(r, false);
        ffi::Py_DECREF(r);
        taken
    }
}

/// # Safety
/// As the module says.
unsafe fn give_place(semaphore: Obj) -> Result<(), ()> {
    // SAFETY: an object; it is held over the call.
    unsafe {
        ffi::Py_INCREF(semaphore);
        let r = if semaphore::is_plain(semaphore) {
            semaphore::put_back(semaphore.cast());
            Ok(())
        } else if dummy::is_plain(semaphore) {
            Ok(())
        } else {
            done(ffi::PyObject_CallMethodNoArgs(semaphore, NAMES.release))
        };
        ffi::Py_DECREF(semaphore);
        r
    }
}

/// # Safety
/// As the module says.
unsafe fn semaphore_of(slf: Obj) -> Result<Obj, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let semaphore = (*cast(slf)).semaphore;
        if semaphore.is_null() {
            let text = c"the pool's __init__ was not called";
            ffi::PyErr_SetString(ffi::PyExc_RuntimeError, text.as_ptr());
            return Err(());
        }
        Ok(semaphore)
    }
}

method!(
    parsed_first: pool_add,
    c"add",
    [c"greenlet", c"blocking", c"timeout"],
    |slf, [greenlet, blocking, timeout]| {
        // The semaphore is held over the wait.
        let Ok(semaphore) = semaphore_of(slf) else {
            return null_mut();
        };
        ffi::Py_INCREF(semaphore);
        let joined = match take_place(semaphore, blocking, timeout) {
            Err(()) => Err(()),
            Ok(false) => {
                FULL.raise();
                Err(())
            }
            Ok(true) => join_members(slf, greenlet).inspect_err(|()| {
                let error = crate::tstate::take_raised();
                if give_place(semaphore).is_err() {
                    ffi::PyErr_Clear();
                }
                crate::tstate::set_raised(error);
            }),
        };
        ffi::Py_DECREF(semaphore);
        answer(joined)
    }
);

#[crate::entry]
unsafe extern "C" fn pool_discard(slf: Obj, greenlet: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let left = leave_members(slf, greenlet);
        answer(left.and_then(|()| give_place(semaphore_of(slf)?)))
    }
}

#[crate::entry]
unsafe extern "C" fn start(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, kwnames: Obj) -> Obj {
    // SAFETY: as the C API calls it: before the arguments there is room for one more.
    unsafe {
        let greenlet = if n == 0 { null_mut() } else { *items };
        if required(greenlet, c"start", c"greenlet").is_err() {
            return null_mut();
        }
        let plain = n == 1 && kwnames.is_null();
        let r = if plain {
            ffi::PyObject_CallMethodOneArg(slf, NAMES.add, greenlet)
        } else {
            let all = Args::new(items, n, kwnames);
            let (tuple, kwargs) = (all.tuple_from(0), all.dict(None));
            let f = ffi::PyObject_GetAttr(slf, NAMES.add);
            let r = match kwargs {
                Ok(kwargs) if !tuple.is_null() && !f.is_null() => {
                    let r = ffi::PyObject_Call(f, tuple, kwargs);
                    ffi::Py_XDECREF(kwargs);
                    r
                }
                _ => null_mut(),
            };
            ffi::Py_XDECREF(tuple);
            ffi::Py_XDECREF(f);
            r
        };
        if done(r).is_err() {
            return null_mut();
        }
        answer(start_greenlet(greenlet, NAMES.start))
    }
}

#[crate::entry]
unsafe extern "C" fn spawn(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, kwnames: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        let class = ffi::PyObject_GetAttr(slf, NAMES.greenlet_class);
        if class.is_null() {
            return class;
        }
        let greenlet = make_greenlet(class, &Args::new(items, n, kwnames), 0);
        ffi::Py_DECREF(class);
        if greenlet.is_null() {
            return greenlet;
        }
        let r = ffi::PyObject_CallMethodOneArg(slf, NAMES.start, greenlet);
        if done(r).is_err() {
            ffi::Py_DECREF(greenlet);
            return null_mut();
        }
        greenlet
    }
}

// ---- the type --------------------------------------------------------------------------------------

/// # Safety
/// As the module says.
unsafe fn fields(me: *mut Group) -> [*mut Obj; 4] {
    // SAFETY: addresses only.
    unsafe {
        [
            &raw mut (*me).greenlets,
            &raw mut (*me).dying,
            &raw mut (*me).empty,
            &raw mut (*me).semaphore,
        ]
    }
}

// SAFETY: the struct begins so, and these are all of its references.
unsafe impl Fields for Group {
    unsafe fn fields(me: *mut Self) -> impl Iterator<Item = *mut Obj> {
        // SAFETY: the caller's promise.
        unsafe { fields(me) }.into_iter()
    }
}

/// A getter and a setter of the field with this index.
macro_rules! field {
    ($get:ident, $set:ident, $at:expr) => {
        #[crate::entry]
        unsafe extern "C" fn $get(slf: Obj, _: *mut c_void) -> Obj {
            // SAFETY: a group.
            unsafe { or_none(*fields(cast(slf))[$at]) }
        }

        #[crate::entry]
        unsafe extern "C" fn $set(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
            // SAFETY: a group; null deletes.
            unsafe {
                ffi::Py_XINCREF(value);
                set(fields(cast(slf))[$at], value);
                0
            }
        }
    };
}

field!(get_greenlets, set_greenlets, 0);
field!(get_dying, set_dying, 1);
field!(get_empty, set_empty, 2);
field!(get_semaphore, set_semaphore, 3);

/// Adds the types.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        NAMES.set(Names {
            add: intern(c"add"),
            start: intern(c"start"),
            discard: intern(c"discard"),
            discard_: intern(c"_discard"),
            clear: intern(c"clear"),
            set: intern(c"set"),
            acquire: intern(c"acquire"),
            release: intern(c"release"),
            rawlink: intern(c"rawlink"),
            greenlet_class: intern(c"greenlet_class"),
        });
    }
    let methods = vec![
        one(
            c"add",
            add,
            c"add(greenlet)\n\nMake *greenlet* a member. A full pool blocks until there is room.\n\nThe greenlet should not have been started, or it may end before it is a member.",
        ),
        one(
            c"_discard",
            discard,
            c"_discard(greenlet)\n\nForget *greenlet*, which has ended.",
        ),
        fast(
            c"start",
            start,
            0,
            c"start(greenlet, *args, **kwargs)\n\nAdd *greenlet*, which must not have been started, with the other arguments, and start it.",
        ),
        fast(
            c"spawn",
            spawn,
            0,
            c"spawn(*args, **kwargs)\n\nMake a greenlet with these arguments, add it, start it and return it.",
        ),
        fast(
            c"_pool_add",
            pool_add,
            0,
            c"_pool_add(greenlet, blocking=True, timeout=None)\n\nMake *greenlet* a member, after waiting for room, at most *timeout* seconds.\n\nRaises `PoolFull` if there is no room then, or not at once if *blocking* is false.",
        ),
        one(
            c"_pool_discard",
            pool_discard,
            c"_pool_discard(greenlet)\n\nForget *greenlet*, which has ended, and give its place away.",
        ),
    ];
    let attributes = vec![
        attribute(
            c"greenlets",
            get_greenlets,
            Some(set_greenlets),
            c"The members.",
        ),
        attribute(
            c"dying",
            get_dying,
            Some(set_dying),
            c"Members that have been told to end, so that they are told once.",
        ),
        attribute(
            c"_empty_event",
            get_empty,
            Some(set_empty),
            c"An event that is set while there are no members.",
        ),
        attribute(
            c"_semaphore",
            get_semaphore,
            Some(set_semaphore),
            c"What limits a pool.",
        ),
    ];
    // SAFETY: as above.
    unsafe {
        NewType::of::<Group>(c"gevent.pool.GroupBase")
            .about(c"The base of groups and pools.")
            .methods(methods)
            .attributes(attributes)
            .ended_by(
                object::dealloc::<Group>,
                object::traverse::<Group>,
                object::clear::<Group>,
            )
            .add(m, None)?;
    }
    imap::register(m)
}
