//! `Semaphore` and `BoundedSemaphore`.

use super::Obj;
use super::args::{Limit, flag};
use super::linkable::{self, Linkable, reinit};
use super::object::{attribute, class_name, set, text};
use super::told::Told;
use super::wait::{InHub, InThread, begin, hub_for_waiting, limited, wait};
use crate::raw::{
    _PyType_Lookup, Args, answer, answer_bool, boolean, done, fast, method, noargs, none, parsed,
};
use crate::raw_type::NewType;
use crate::statics::{Immortal, intern};
use gevent_sync::links::{self, Taken};
use gevent_sync::parker::Ended;
use gevent_sync::state::Permits;
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr::null_mut;

/// A semaphore.
#[repr(C)]
pub struct Semaphore {
    base: Linkable,
    permits: Permits,
}

struct Statics {
    semaphore: *mut PyTypeObject,
    bounded: *mut PyTypeObject,
    str_acquire: Obj,
    str_release: Obj,
    acquire: Obj,
    release: Obj,
    release_bounded: Obj,
}

static STATICS: Immortal<Statics> = Immortal::new();

fn cast(slf: Obj) -> *mut Semaphore {
    slf.cast()
}

/// Whether an object is exactly a `Semaphore`, whose methods are the native ones.
///
/// # Safety
/// An object; the GIL is held.
#[inline]
pub unsafe fn is_plain(p: Obj) -> bool {
    // SAFETY: the caller's promise.
    STATICS.semaphore == unsafe { ffi::Py_TYPE(p) }
}

/// What a semaphore knows.
///
/// # Safety
/// `me` is a semaphore.
#[inline]
pub unsafe fn permits(me: *mut Linkable) -> *mut Permits {
    // SAFETY: the caller's promise; an address only.
    unsafe { &raw mut (*me.cast::<Semaphore>()).permits }
}

impl Taken for Told {
    #[inline]
    fn take(&self) -> bool {
        // SAFETY: only semaphores are taken from; the GIL is held.
        unsafe { (*permits(self.object())).take() }
    }

    fn give_back(&mut self) {
        // SAFETY: as above; an error that is set survives.
        unsafe {
            let error = crate::tstate::take_raised();
            (*permits(self.object())).add();
            links::check_and_notify(self);
            if !error.is_null() {
                crate::tstate::set_raised(error);
            }
        }
    }
}

/// A new `Semaphore(1, hub)`, of which nobody else knows yet; null with an error set. `hub` is borrowed or
/// null.
///
/// # Safety
/// The GIL is held.
pub unsafe fn new_lock(hub: Obj) -> *mut Semaphore {
    // SAFETY: the caller's promise.
    unsafe {
        let me = Linkable::make(STATICS.semaphore, linkable::Kind::Semaphore);
        let me = me.cast::<Semaphore>();
        if !me.is_null() {
            (*me).permits = Permits::new(1, false);
            linkable::set_hub(me.cast(), hub);
        }
        me
    }
}

/// Makes a semaphore a free lock.
///
/// # Safety
/// A `BoundedSemaphore`; the GIL is held.
pub unsafe fn make_lock(me: *mut Semaphore) {
    // SAFETY: the caller's promise.
    unsafe {
        (*me).permits = Permits::new(1, true);
    }
}

/// Takes a permit if there is one.
///
/// # Safety
/// The GIL is held.
#[inline]
pub unsafe fn try_acquire(me: *mut Semaphore) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        (*me).base.users.saw();
        (*me).permits.take()
    }
}

/// Takes a permit, after waiting for one. `Err` with an error set.
///
/// # Safety
/// The GIL is held; the caller has a reference.
pub unsafe fn acquire_waiting(me: *mut Semaphore, limit: Limit) -> Result<bool, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let ended = match hub_for_waiting()? {
            Some(hub) => {
                begin(&raw mut (*me).base.hub, &hub)?;
                limited(limit, |deadline| {
                    let mut parking = InHub {
                        hub: &hub,
                        shared: (*me).base.users.may_include_others(),
                        deadline,
                        what: c"Semaphore.acquire()",
                        only_told: false,
                    };
                    links::take(&mut Told::new(me.cast()), &mut parking)
                })
            }
            None => {
                let mut parking = InThread::new(limit.without_hub()?);
                links::take(&mut Told::new(me.cast()), &mut parking)
            }
        };
        match ended {
            Ended::Woken(_) => Ok(true),
            Ended::TimedOut => Ok(false),
            Ended::Interrupted => Err(()),
        }
    }
}

/// Puts a permit back and wakes a waiter. The new counter.
///
/// # Safety
/// The GIL is held; the caller has a reference.
#[inline]
pub unsafe fn put_back(me: *mut Semaphore) -> isize {
    // SAFETY: the caller's promise.
    unsafe {
        let counter = (*me).permits.add();
        (*me).base.users.saw();
        Linkable::check_and_notify(me.cast());
        counter
    }
}

// ---- slots -----------------------------------------------------------------------------------------

#[crate::entry]
unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: the slot's contract.
    unsafe { Linkable::make(ty, linkable::Kind::Semaphore).cast() }
}

#[crate::entry]
unsafe extern "C" fn tp_init(slf: Obj, args: Obj, kwargs: Obj) -> c_int {
    // SAFETY: the slot's contract; borrowed arguments.
    unsafe {
        let mut given: Obj = null_mut();
        let mut hub: Obj = null_mut();
        let mut names = [c"value".as_ptr(), c"hub".as_ptr(), std::ptr::null()];
        if ffi::PyArg_ParseTupleAndKeywords(
            args,
            kwargs,
            c"|OO:Semaphore".as_ptr(),
            names.as_mut_ptr().cast(),
            &raw mut given,
            &raw mut hub,
        ) == 0
        {
            return -1;
        }
        let value = if given.is_null() { 1 } else { whole(given) };
        if value == -1 && !ffi::PyErr_Occurred().is_null() {
            return -1;
        }
        if value < 0 {
            let text = c"semaphore initial value must be >= 0";
            ffi::PyErr_SetString(ffi::PyExc_ValueError, text.as_ptr());
            return -1;
        }
        let bounded = ffi::PyObject_TypeCheck(slf, STATICS.bounded) != 0;
        (*cast(slf)).permits = Permits::new(value, bounded);
        linkable::set_hub(slf, hub);
        0
    }
}

#[crate::entry]
unsafe extern "C" fn str(slf: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a semaphore.
    unsafe {
        text(|py| {
            Ok(format!(
                "<{} at {:#x} counter={} _links[{}]>",
                class_name(py, slf)?,
                slf as usize,
                (*cast(slf)).permits.free(),
                (*cast(slf)).base.links.len()
            ))
        })
    }
}

// ---- methods ---------------------------------------------------------------------------------------

#[crate::entry]
unsafe extern "C" fn acquire(slf: Obj, items: *const Obj, n: ffi::Py_ssize_t, names: Obj) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe {
        if try_acquire(cast(slf)) {
            return boolean(true);
        }
        let args = Args::new(items, n, names);
        let Ok([blocking, timeout]) = args.parse(c"acquire", [c"blocking", c"timeout"]) else {
            return null_mut();
        };
        match flag(blocking, true) {
            Err(()) => return null_mut(),
            Ok(false) => return boolean(false),
            Ok(true) => {}
        }
        let taken = match Limit::new(timeout) {
            Ok(limit) => acquire_waiting(cast(slf), limit),
            Err(()) => Err(()),
        };
        answer_bool(taken)
    }
}

#[crate::entry]
unsafe extern "C" fn release(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a semaphore.
    unsafe { ffi::PyLong_FromSsize_t(put_back(cast(slf))) }
}

#[crate::entry]
unsafe extern "C" fn release_bounded(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a semaphore.
    unsafe { give_back(cast(slf)).map_or(null_mut(), |counter| ffi::PyLong_FromSsize_t(counter)) }
}

/// Puts a permit of a bounded semaphore back and wakes a waiter. The new counter; `Err` with an error set if
/// nobody had one.
///
/// # Safety
/// The GIL is held; the caller has a reference.
#[inline]
unsafe fn give_back(me: *mut Semaphore) -> Result<isize, ()> {
    // SAFETY: the caller's promise.
    unsafe {
        let Ok(counter) = (*me).permits.release() else {
            let class = ffi::PyObject_GetAttrString(me.cast(), c"_OVER_RELEASE_ERROR".as_ptr());
            if !class.is_null() {
                ffi::PyErr_SetString(class, c"Semaphore released too many times".as_ptr());
                ffi::Py_DECREF(class);
            }
            return Err(());
        };
        let whole = (*me).permits.is_whole();
        (*me).base.users.saw();
        Linkable::check_and_notify(me.cast());
        if whole && !(*me).base.hub.is_null() {
            // Nobody holds it: the next thread that uses it may be another one.
            set(&raw mut (*me).base.hub, null_mut());
        }
        Ok(counter)
    }
}

#[crate::entry]
unsafe extern "C" fn enter(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a semaphore.
    unsafe {
        let s = &*STATICS;
        let ty = ffi::Py_TYPE(slf);
        let ours =
            ty == s.bounded || ty == s.semaphore || _PyType_Lookup(ty, s.str_acquire) == s.acquire;
        if ours {
            if !try_acquire(cast(slf)) && acquire_waiting(cast(slf), Limit::Never).is_err() {
                return null_mut();
            }
            return none();
        }
        answer(done(ffi::PyObject_CallMethodNoArgs(slf, s.str_acquire)))
    }
}

#[crate::entry]
unsafe extern "C" fn exit(slf: Obj, _items: *const Obj, _n: ffi::Py_ssize_t, _names: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a semaphore.
    unsafe {
        let s = &*STATICS;
        let ty = ffi::Py_TYPE(slf);
        let found = if ty == s.bounded {
            s.release_bounded
        } else {
            _PyType_Lookup(ty, s.str_release)
        };
        if found == s.release_bounded {
            return answer(give_back(cast(slf)).map(drop));
        }
        if found == s.release {
            put_back(cast(slf));
            return none();
        }
        answer(done(ffi::PyObject_CallMethodNoArgs(slf, s.str_release)))
    }
}

method!(parsed: py_wait, c"wait", [c"timeout"], |slf, [timeout]| {
    if !(*cast(slf)).permits.is_free() {
        let Ok(limit) = Limit::new(timeout) else {
            return null_mut();
        };
        if wait(slf.cast(), limit).is_err() {
            return null_mut();
        }
    }
    ffi::PyLong_FromSsize_t((*cast(slf)).permits.free())
});

#[crate::entry]
unsafe extern "C" fn locked(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a semaphore.
    unsafe { boolean(!(*cast(slf)).permits.is_free()) }
}

#[crate::entry]
unsafe extern "C" fn ready(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a semaphore.
    unsafe { boolean((*cast(slf)).permits.is_free()) }
}

#[crate::entry]
unsafe extern "C" fn start_notify(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a semaphore.
    unsafe {
        Linkable::check_and_notify(slf.cast());
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn at_fork_reinit(slf: Obj, _: Obj) -> Obj {
    // SAFETY: as the C API calls it, on a semaphore.
    unsafe {
        reinit(slf.cast());
        (*cast(slf)).permits.reset();
        none()
    }
}

#[crate::entry]
unsafe extern "C" fn get_counter(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a semaphore.
    unsafe { ffi::PyLong_FromSsize_t((*cast(slf)).permits.free()) }
}

/// The whole part of a number, which upstream takes from a `float` too (`Pool(n / 2)`); -1 with an
/// error set if it is no number.
///
/// # Safety
/// The GIL is held; `value` is an object.
unsafe fn whole(value: Obj) -> isize {
    // SAFETY: the caller's promise.
    unsafe {
        if ffi::PyFloat_Check(value) == 0 {
            return ffi::PyNumber_AsSsize_t(value, ffi::PyExc_OverflowError);
        }
        let number = ffi::PyNumber_Long(value);
        if number.is_null() {
            return -1;
        }
        let n = ffi::PyLong_AsSsize_t(number);
        ffi::Py_DECREF(number);
        n
    }
}

/// # Safety
/// The GIL is held; `value` is an object or null.
unsafe fn set_number(value: Obj, put: impl FnOnce(isize)) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        if value.is_null() {
            ffi::PyErr_SetString(ffi::PyExc_TypeError, c"cannot be deleted".as_ptr());
            return -1;
        }
        let number = whole(value);
        if number == -1 && !ffi::PyErr_Occurred().is_null() {
            return -1;
        }
        put(number);
        0
    }
}

#[crate::entry]
unsafe extern "C" fn set_counter(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
    // SAFETY: as the C API calls it, on a semaphore.
    unsafe { set_number(value, |n| (*cast(slf)).permits.set_free(n)) }
}

#[crate::entry]
unsafe extern "C" fn get_initial(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: as the C API calls it, on a semaphore.
    unsafe { ffi::PyLong_FromSsize_t((*cast(slf)).permits.most()) }
}

#[crate::entry]
unsafe extern "C" fn set_initial(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
    // SAFETY: as the C API calls it, on a semaphore.
    unsafe { set_number(value, |n| (*cast(slf)).permits.set_most(n)) }
}

// ---- the types -------------------------------------------------------------------------------------

const ABOUT: &std::ffi::CStr = c"Semaphore(value=1) -> Semaphore\n\nA counter that `release` increases and `acquire` decreases, which waits while it is zero.\n\nGreenlets of one thread are woken in the order in which they came, and one that finds the counter above zero need not queue. A waiter of another native thread is given the semaphore by the `release` itself, so that no thread can keep it to itself.\n\nAll methods may be called from any native thread; neither those that do not block nor a thread without a hub ever create a hub. A semaphore is a context manager, and belongs to nobody: any greenlet may release it. `BoundedSemaphore` finds releases too many.";

const ABOUT_BOUNDED: &std::ffi::CStr = c"BoundedSemaphore(value=1) -> BoundedSemaphore\n\nA `Semaphore` whose counter must not exceed its initial value: a release too many is a ValueError instead of a silent mistake.";

/// Adds the types.
pub fn register(m: &Bound<'_, PyModule>, base: *mut PyTypeObject) -> PyResult<()> {
    let acquire_doc = c"acquire(blocking=True, timeout=None)\n\nDecrease the counter, after waiting until it is above zero. Returns true if that was done. It was not if the counter was zero and *blocking* is false, or it stayed zero for *timeout* seconds.";
    let methods = vec![
        fast(c"acquire", acquire, 0, acquire_doc),
        fast(c"_py3k_acquire", acquire, 0, acquire_doc),
        noargs(
            c"release",
            release,
            c"Increase the counter and wake a waiter. Returns the counter before anyone was woken.",
        ),
        noargs(c"__enter__", enter, c"Acquire it."),
        fast(c"__exit__", exit, 0, c"Release it."),
        fast(
            c"wait",
            py_wait,
            0,
            c"wait(timeout=None)\n\nWait until `acquire` would not block, at most *timeout* seconds; acquire nothing. Returns the counter, which is 0 if the time is over or another greenlet was faster.",
        ),
        noargs(c"locked", locked, c"Return whether `acquire` would have to wait."),
        noargs(c"ready", ready, c"Return whether `acquire` would not have to wait."),
        noargs(
            c"_start_notify",
            start_notify,
            c"Wake waiters if the counter is above zero.",
        ),
        noargs(
            c"_at_fork_reinit",
            at_fork_reinit,
            c"Drop the other threads of the parent, in the child after a fork.",
        ),
    ];
    let bounded_methods = vec![noargs(
        c"release",
        release_bounded,
        c"Increase the counter and wake a waiter; an error if nobody had acquired it.",
    )];
    let counter = attribute(
        c"counter",
        get_counter,
        Some(set_counter),
        c"How often `acquire` would not wait.",
    );
    let initial = attribute(
        c"_initial_value",
        get_initial,
        Some(set_initial),
        c"What the counter must not exceed.",
    );
    // SAFETY: at the module's initialisation, with the GIL held.
    unsafe {
        let new = |name, about| {
            NewType::of::<Semaphore>(name)
                .about(about)
                .new_by(tp_new)
                .init_by(tp_init)
                .ended_by(linkable::dealloc, linkable::traverse, linkable::clear)
                .str_by(str)
        };
        let semaphore = new(c"gevent._semaphore.Semaphore", ABOUT)
            .below(base)
            .methods(methods)
            .attributes(vec![counter])
            .weak(offset_of!(Linkable, weak))
            .add(m, None)?;
        let bounded = new(c"gevent._semaphore.BoundedSemaphore", ABOUT_BOUNDED)
            .below(semaphore)
            .methods(bounded_methods)
            .attributes(vec![initial])
            .add(m, None)?;
        let error = ffi::PyExc_ValueError;
        if ffi::PyObject_SetAttrString(bounded.cast(), c"_OVER_RELEASE_ERROR".as_ptr(), error) < 0 {
            return Err(PyErr::fetch(m.py()));
        }
        let (str_acquire, str_release) = (intern(c"acquire"), intern(c"release"));
        STATICS.set(Statics {
            semaphore,
            bounded,
            str_acquire,
            str_release,
            acquire: _PyType_Lookup(semaphore, str_acquire),
            release: _PyType_Lookup(semaphore, str_release),
            release_bounded: _PyType_Lookup(bounded, str_release),
        });
        super::thread_lock::register(m, bounded)
    }
}
