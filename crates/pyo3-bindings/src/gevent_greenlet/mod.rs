//! `gevent.Greenlet` and `TrackedRawGreenlet`: raw types on top of the raw greenlet.
//!
//! What is called for every greenlet is here; what is rare (`repr`, names, error reports, links that
//! spawn) is in `python/gevent/greenlet.py`, whose class `Greenlet` is a subclass of this one.

mod attributes;
mod ending;
mod group;
mod kill;
mod life;
mod links;
mod object;
mod slots;
mod spawn_site;
mod starting;
mod tracked;
mod types;
mod wait;

pub use kill::throw as throw_exception;
pub use life::{
    PyObject_IsGevent as is_gevent, end_unrun, forget_notice, leave_links, leave_running_links,
    loop_gone, notify_from_queue, spawn_now, start_from_queue, start_from_timer,
};
pub use links::{rawlink as link, unlink};
pub use starting::make as make_greenlet;
pub use tracked::TrackedObject;
pub use types::tracked_type;

use crate::greenlet::{Flags, PyGreenlet, globals, make_exception, throw_into};
use crate::raw::{self, Args};
use crate::thread_data::ThreadData;
use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// `gevent.greenlet.Greenlet`, the public subclass.
static PUBLIC: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());
/// The spawn callbacks: null or a set with something in it.
static SPAWN_CALLBACKS: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());
/// Whether spawners are remembered (GEVENT_TRACK_GREENLET_TREE).
static TRACKING: AtomicBool = AtomicBool::new(true);

#[inline]
fn public_class() -> *mut PyTypeObject {
    PUBLIC.load(Ordering::Relaxed)
}

#[inline]
fn tracking() -> bool {
    TRACKING.load(Ordering::Relaxed)
}

/// Whether an object is exactly a `gevent.Greenlet`, whose methods are the native ones.
///
/// # Safety
/// An object; the GIL is held.
#[inline]
pub unsafe fn is_plain_greenlet(p: *mut PyObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe { ffi::Py_TYPE(p) == public_class() }
}

/// What a greenlet returned, borrowed; `None` if it has not ended, or with an error.
///
/// # Safety
/// `p` is a `Greenlet`; the GIL is held.
pub unsafe fn outcome_of(p: *mut PyObject) -> Option<*mut PyObject> {
    let me = p.cast::<object::GreenletObject>();
    // SAFETY: the caller's promise.
    unsafe {
        let good = (*me).exc_info == types::types().success && !(*me).value.is_null();
        good.then_some((*me).value)
    }
}

/// Whether a greenlet has ended.
///
/// # Safety
/// `p` is a `Greenlet`; the GIL is held.
pub unsafe fn has_ended(p: *mut PyObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe { object::GreenletObject::is_ready(p.cast()) }
}

/// Calls `start` of what may be a greenlet. `Err` with an error set.
///
/// # Safety
/// An object and the string "start"; the GIL is held.
pub unsafe fn start_greenlet(p: *mut PyObject, name: *mut PyObject) -> Result<(), ()> {
    // SAFETY: the caller's promise.
    unsafe {
        if is_plain_greenlet(p)
            && (*p.cast::<object::GreenletObject>())
                .base
                .dict
                .get()
                .is_null()
        {
            return life::start(p.cast());
        }
        let r = ffi::PyObject_CallMethodNoArgs(p, name);
        if r.is_null() {
            return Err(());
        }
        ffi::Py_DECREF(r);
        Ok(())
    }
}

/// Whether the methods of this class are the native ones.
///
/// # Safety
/// `ty` is only compared; the types have been made.
unsafe fn is_plain_class(ty: *mut PyTypeObject) -> bool {
    ty == public_class() || ty == types::types().greenlet
}

/// Whether it is a `Greenlet` whose methods are the native ones.
///
/// # Safety
/// The GIL is held; `p` is alive.
unsafe fn is_plain(p: *mut PyObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe { is_gevent(p) && is_plain_class(ffi::Py_TYPE(p)) }
}

/// # Safety
/// The GIL is held; the caller has a reference to `g`.
unsafe fn call_spawn_callbacks(g: *mut PyObject) -> Result<(), ()> {
    let set = SPAWN_CALLBACKS.load(Ordering::Relaxed);
    if set.is_null() {
        return Ok(());
    }
    // SAFETY: an owned set; iterated over a copy, since callbacks may change it.
    unsafe {
        let list = ffi::PySequence_List(set);
        if list.is_null() {
            return Err(());
        }
        for i in 0..ffi::PyList_GET_SIZE(list) {
            let r = crate::tstate::call_one_at_bottom(ffi::PyList_GET_ITEM(list, i), g);
            if r.is_null() {
                ffi::Py_DECREF(list);
                return Err(());
            }
            ffi::Py_DECREF(r);
        }
        ffi::Py_DECREF(list);
    }
    Ok(())
}

static COLD: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// Calls a function of `gevent.greenlet` with a greenlet and perhaps another argument (null for none).
///
/// # Safety
/// The GIL is held; the caller has a reference to `g` and `arg`.
unsafe fn call_cold(name: &'static CStr, g: *mut PyObject, arg: *mut PyObject) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        let py = Python::assume_attached();
        let module =
            match COLD.get_or_try_init(py, || py.import("gevent.greenlet").map(Bound::unbind)) {
                Ok(m) => m.as_ptr(),
                Err(e) => {
                    e.restore(py);
                    return null_mut();
                }
            };
        let f = ffi::PyObject_GetAttrString(module, name.as_ptr());
        if f.is_null() {
            return f;
        }
        let r = ffi::PyObject_CallFunctionObjArgs(f, g, arg, null_mut::<PyObject>());
        ffi::Py_DECREF(f);
        r
    }
}

/// `greenlet.throw(*args)` of the raw type.
///
/// # Safety
/// The GIL is held; the caller has a reference to `g`.
unsafe fn throw_raw(g: *mut PyObject, args: &Args) -> *mut PyObject {
    // SAFETY: arguments are borrowed for the call.
    unsafe {
        if args.len() > 3 {
            let text = c"throw() takes at most 3 arguments (%zd given)";
            return ffi::PyErr_Format(ffi::PyExc_TypeError, text.as_ptr(), args.len() as isize);
        }
        let arg = |i: usize| {
            if i < args.len() {
                args.at(i)
            } else {
                null_mut()
            }
        };
        let ty = if args.is_empty() {
            globals().exit
        } else {
            arg(0)
        };
        let exc = make_exception(ty, arg(1), arg(2));
        if exc.is_null() {
            return null_mut();
        }
        throw_into(ThreadData::get(), g.cast(), exc)
    }
}

/// The body of a greenlet without one: does nothing.
#[crate::entry]
#[pyfunction]
#[pyo3(signature = (*_args, **_kwargs))]
fn _nothing(
    _args: &Bound<'_, pyo3::types::PyTuple>,
    _kwargs: Option<&Bound<'_, pyo3::types::PyDict>>,
) {
}

static NOTHING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// A new reference to a function that takes anything and does nothing.
///
/// # Safety
/// The GIL is held.
pub unsafe fn nothing() -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { default_run() }
}

/// # Safety
/// The GIL is held.
unsafe fn default_run() -> *mut PyObject {
    // SAFETY: the GIL is held; set when the module was made.
    unsafe {
        let py = Python::assume_attached();
        match NOTHING.get(py) {
            Some(f) => f.clone_ref(py).into_ptr(),
            None => raw::none(),
        }
    }
}

/// What `_start_event` shows of a greenlet that was started.
#[pyclass(frozen, module = "gevent._core")]
struct StartEvent {
    greenlet: Py<PyAny>,
    pending: bool,
}

#[crate::entry]
#[pymethods]
impl StartEvent {
    #[getter]
    fn pending(&self) -> bool {
        self.pending
    }

    #[getter]
    fn active(&self) -> bool {
        self.pending
    }

    /// Keeps the greenlet from starting.
    fn stop(&self, py: Python<'_>) {
        // SAFETY: it holds a `Greenlet`.
        unsafe { life::cancel_start(self.greenlet.bind(py).as_ptr().cast()) };
    }

    /// The same as `stop`.
    fn close(&self, py: Python<'_>) {
        self.stop(py);
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.greenlet)
    }
}

/// # Safety
/// The GIL is held; the caller has a reference to `g`.
unsafe fn start_event(g: *mut PyObject, pending: bool) -> *mut PyObject {
    // SAFETY: the GIL is held and `g` is alive.
    unsafe {
        let py = Python::assume_attached();
        let greenlet = Bound::from_borrowed_ptr(py, g).unbind();
        match Bound::new(py, StartEvent { greenlet, pending }) {
            Ok(e) => e.into_ptr(),
            Err(e) => {
                e.restore(py);
                null_mut()
            }
        }
    }
}

/// Whether an argument is a `gevent.Timeout`.
///
/// # Safety
/// The GIL is held; `p` is alive.
unsafe fn is_timeout(p: *mut PyObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe { crate::timeout::is_timeout(p) }
}

/// Raises a new `gevent.Timeout(seconds)`; null for none. Returns null.
///
/// # Safety
/// The GIL is held; `seconds` is alive or null.
unsafe fn raise_timeout(seconds: *mut PyObject) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { crate::timeout::raise_new(seconds) }
}

#[crate::entry]
unsafe extern "C" fn had_no_stack(_: *mut PyObject, g: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the C API calls it.
    unsafe {
        raw::boolean(
            PyGreenlet::check(g)
                && (*g.cast::<PyGreenlet>())
                    .flags
                    .get()
                    .has(Flags::HAD_NO_STACK),
        )
    }
}

#[crate::entry]
unsafe extern "C" fn has_stack(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // It goes back to the pool, where the next greenlet finds it.
    let one = gevent_hub_core::stack::acquire();
    // SAFETY: the GIL is held.
    unsafe { raw::boolean(one.is_ok()) }
}

/// Tells the native side which class is `gevent.Greenlet`.
#[crate::entry]
#[pyfunction]
fn set_greenlet_class(class: &Bound<'_, pyo3::types::PyType>) {
    // Kept for ever, as the module that defines it is.
    PUBLIC.store(class.clone().into_ptr().cast(), Ordering::Relaxed);
}

/// Replaces the set of spawn callbacks; None or an empty one turns them off.
#[crate::entry]
#[pyfunction]
fn set_spawn_callbacks(callbacks: Option<Bound<'_, PyAny>>) -> PyResult<()> {
    let new = match callbacks {
        Some(c) if c.is_truthy()? => c.into_ptr(),
        _ => null_mut(),
    };
    let old = SPAWN_CALLBACKS.swap(new, Ordering::Relaxed);
    // SAFETY: the static's own reference; the GIL is held.
    unsafe { ffi::Py_XDECREF(old) };
    Ok(())
}

/// Turns the remembering of spawners on or off.
#[crate::entry]
#[pyfunction]
fn set_tracking(on: bool) {
    TRACKING.store(on, Ordering::Relaxed);
}

/// Adds the types and functions of this folder.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    types::register(m)?;
    m.add_function(wrap_pyfunction!(set_greenlet_class, m)?)?;
    m.add_function(wrap_pyfunction!(set_spawn_callbacks, m)?)?;
    m.add_function(wrap_pyfunction!(set_tracking, m)?)?;
    let nothing = wrap_pyfunction!(_nothing, m)?;
    m.add("_nothing", &nothing)?;
    let _ = NOTHING.set(py, nothing.into_any().unbind());
    crate::raw::add_functions(
        m,
        "gevent.hub",
        vec![
            raw::fast(
                c"spawn_raw",
                tracked::spawn_raw,
                0,
                c"spawn_raw(function, *args, **kwargs) -> greenlet\n\nSchedule a raw greenlet, which has no methods of gevent's.",
            ),
            raw::one(
                c"had_no_stack",
                had_no_stack,
                c"had_no_stack(greenlet) -> bool\n\nWhether it ended without having run, as there was no memory for its stack.",
            ),
            raw::noargs(
                c"has_stack",
                has_stack,
                c"has_stack() -> bool\n\nWhether there is a stack for one more greenlet of this thread.",
            ),
            raw::fast(
                c"wait_greenlets",
                wait::wait_greenlets,
                0,
                c"wait_greenlets(objects, timeout, count)\n\nWait for greenlets and return those that ended, in order; NotImplemented if one has methods of its own.",
            ),
            raw::fast(
                c"throw_all",
                kill::throw_all,
                0,
                c"throw_all(greenlets, exception)\n\nIn the hub: throw into each that lives; return those that still do.",
            ),
        ],
    )
}
