//! A greenlet's life on its own stack: the first switch arrives, `run` is called, and its result goes to the
//! parent, which goes on.

use super::object::{Flags, PyGreenlet, Raised, Status, clear, globals, new_ref};
use super::switch::{Carry, become_current, lay_down, select};
use super::trace;
use crate::thread_data::ThreadData;
use crate::tstate;
use gevent_hub_core::fiber::{Fiber, FiberKind, FiberState};
use gevent_hub_core::stack::{self, PooledStack};
use pyo3::ffi::{self, PyObject};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

/// The fibers of greenlets.
pub(super) static KIND: FiberKind = FiberKind { run: body, reaped };

/// What runs on a greenlet's own stack.
///
/// # Safety
/// Called by the switcher only, on the stack of a greenlet that [`equip`] prepared, with the GIL held.
unsafe fn body(fiber: &Fiber) -> *const Fiber {
    // SAFETY: only greenlets' fibers are of this kind; the thread is alive while it runs.
    unsafe {
        let me = PyGreenlet::from_fiber(fiber);
        let td = &*(*me).thread();
        let result = match catch_unwind(AssertUnwindSafe(|| begin(td, me))) {
            Ok(result) => result,
            Err(panic) => {
                crate::entry::raise(&*panic);
                null_mut()
            }
        };
        match catch_unwind(AssertUnwindSafe(|| end(td, me, result))) {
            Ok(next) => next,
            Err(_) => ffi::Py_FatalError(
                c"greenlet: a panic while a result was handed to the parent".as_ptr(),
            ),
        }
    }
}

/// The first switch arrives: calls `run`. Returns its result, or null with an error set.
///
/// # Safety
/// As [`arrive`]; `me` has just begun to run on its own stack.
unsafe fn begin(td: &ThreadData, me: *mut PyGreenlet) -> *mut PyObject {
    // SAFETY: `me` is current.
    unsafe {
        let g = &*me;
        td.install(me);
        let args = g.value.replace(null_mut());
        let kwargs = g.kwargs.replace(null_mut());
        let mut exc = g.exc.replace(null_mut());
        let origin = td.origin.replace(null_mut());
        if !td.tracer.get().is_null()
            && !origin.is_null()
            && let Err(error) = trace::call(td, origin, me, !exc.is_null())
        {
            ffi::Py_XDECREF(exc);
            exc = error;
        }
        ffi::Py_XDECREF(origin.cast());
        td.empty_drops();
        let result = if !exc.is_null() {
            tstate::set_raised(exc);
            null_mut()
        } else if let Some(native) = g.native_run.get() {
            native(me)
        } else {
            // The slot is the only reference: one on this stack would leak if it were abandoned.
            tstate::call_at_bottom(g.run.get(), args, kwargs)
        };
        if args.is_null() && kwargs.is_null() && g.run.get().is_null() {
            return result;
        }
        // Dropping may run code, which must not find an error set.
        let error = if result.is_null() {
            tstate::take_raised()
        } else {
            null_mut()
        };
        ffi::Py_XDECREF(args);
        ffi::Py_XDECREF(kwargs);
        clear(&g.run);
        if result.is_null() {
            tstate::set_raised(error);
        }
        result
    }
}

/// `run` has returned: hands the result to the parent and chooses who goes on.
///
/// # Safety
/// The GIL is held; `me` is current in this thread and runs on its own stack, and `result` is owned, or null
/// with an error set. Nothing that has to be dropped is left on the stack.
unsafe fn end(td: &ThreadData, me: *mut PyGreenlet, result: *mut PyObject) -> *const Fiber {
    // SAFETY: `me` is current until another greenlet is made so; then only its memory is needed,
    // which `origin` or the drop list keeps.
    unsafe {
        let g = &*me;
        let mut carry = take_outcome(result);
        td.install(me);
        g.state.finish(td.tstate);
        g.status.set(Status::Dead);
        g.bound.set(null_mut());
        let first = g.parent.get();
        if let Carry::Value(value) = carry
            && !first.is_null()
            && drops_results(td, &*first)
        {
            // The state stays installed until somebody installs another; the drop list keeps the
            // object until then.
            td.drop_later(value);
            td.drop_later(me.cast());
            become_current(td, first);
            return &raw const (*first).fiber;
        }
        let mut parent = new_ref(first);
        while !parent.is_null() {
            match select(td, parent, carry) {
                Ok((target, carry)) => {
                    lay_down(&*target, carry);
                    td.origin.set(me);
                    become_current(td, target);
                    td.install(target);
                    // Nothing may be freed on this stack any more.
                    td.drop_soon(parent.cast());
                    return &raw const (*target).fiber;
                }
                Err(Raised) => {
                    carry = Carry::Raise(tstate::take_raised());
                    let above = new_ref((*parent).parent.get());
                    ffi::Py_DECREF(parent.cast());
                    parent = above;
                }
            }
        }
        if let Carry::Raise(exc) = carry {
            tstate::set_raised(exc);
            ffi::PyErr_WriteUnraisable(me.cast());
        }
        ffi::Py_FatalError(
            c"greenlet: ran out of parent greenlets while propagating exception; cannot continue"
                .as_ptr(),
        )
    }
}

/// What a body's result (null: a pending error) means to the parent: `GreenletExit` is a value.
///
/// # Safety
/// The GIL is held; `result` is owned, or null with an error set.
pub(super) unsafe fn take_outcome(result: *mut PyObject) -> Carry {
    if !result.is_null() {
        return Carry::Value(result);
    }
    // SAFETY: the GIL is held.
    unsafe {
        if ffi::PyErr_Occurred().is_null() {
            let text = c"a greenlet returned NULL without setting an exception";
            ffi::PyErr_SetString(ffi::PyExc_SystemError, text.as_ptr());
        }
        if ffi::PyErr_ExceptionMatches(globals().exit) != 0 {
            Carry::Value(tstate::take_raised_as_value())
        } else {
            Carry::Raise(tstate::take_raised())
        }
    }
}

/// Whether results for `parent` are dropped without waking its Python state.
fn drops_results(td: &ThreadData, parent: &PyGreenlet) -> bool {
    let flags = parent.flags.get();
    flags.has(Flags::DROPS_RESULTS)
        && flags.has(Flags::PARKED_NATIVELY)
        && parent.active()
        && td.tracer.get().is_null()
}

/// Its stack is free: called on the stack of whoever resumed it.
///
/// # Safety
/// Called by the switcher only, once, for a greenlet's fiber that has finished; `stack` was its.
unsafe fn reaped(fiber: *const Fiber, stack: PooledStack) {
    // SAFETY: the object is kept by `origin` or by the drop list.
    unsafe {
        let g = &*PyGreenlet::from_fiber(fiber);
        debug_assert_eq!(g.fiber.state(), FiberState::Finished);
        g.state.forget();
    }
    stack::release(stack);
}
