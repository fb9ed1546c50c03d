//! Switching: how control, a value and the Python state go from one greenlet to another, and what a
//! greenlet needs before it can run. What it then does on its own stack is in `life`.
//!
//! A switch has two halves. The sender chooses the real target (`select`: past the dead, starting the
//! new), which may run Python, and then *departs*: it lays the value into the target, counts the
//! references, exchanges the Python states and moves to the other stack; nothing of that runs Python.
//! The target *arrives*: it takes its value, tells the tracer, drops the reference to who switched to
//! it, and returns or raises. A native transfer leaves the Python states as they are, and the values
//! empty; [`ThreadData::install`] makes good for it when Python is to run.

use super::life::{KIND, take_outcome};
use super::object::{Flags, PyGreenlet, Raised, Status, clear, globals, new_ref, replace};
use super::trace;
use crate::thread_data::ThreadData;
use crate::tstate;
use gevent_hub_core::stack;
use pyo3::ffi::{self, PyObject};
use std::ptr::null_mut;

/// What a switch brings to its target. Every pointer is an owned reference.
pub enum Carry {
    /// What `switch` returns there, or the only argument of a greenlet that starts by it.
    Value(*mut PyObject),
    /// The arguments of a `switch` call: a tuple, and a dictionary or null.
    Call(*mut PyObject, *mut PyObject),
    /// An exception instance to be raised there.
    Raise(*mut PyObject),
}

impl Carry {
    /// Drops it unused.
    ///
    /// # Safety
    /// The GIL is held; it may run Python code.
    pub unsafe fn discard(self) {
        // SAFETY: owned references.
        unsafe {
            match self {
                Carry::Value(v) | Carry::Raise(v) => ffi::Py_DECREF(v),
                Carry::Call(args, kwargs) => {
                    ffi::Py_DECREF(args);
                    ffi::Py_XDECREF(kwargs);
                }
            }
        }
    }

    /// For a target that was started before, arguments become one value: one argument is itself, none
    /// or many the tuple, only keywords the dictionary, both the pair. `Err` with an error set.
    ///
    /// # Safety
    /// The GIL is held; the carry owns what it holds.
    unsafe fn collapse(self) -> Result<Carry, Raised> {
        let Carry::Call(args, kwargs) = self else {
            return Ok(self);
        };
        // SAFETY: owned references to a tuple and a dictionary.
        unsafe {
            if !kwargs.is_null() && ffi::PyDict_Size(kwargs) > 0 {
                if ffi::PyTuple_GET_SIZE(args) == 0 {
                    ffi::Py_DECREF(args);
                    return Ok(Carry::Value(kwargs));
                }
                let both = ffi::PyTuple_New(2);
                if both.is_null() {
                    Carry::Call(args, kwargs).discard();
                    return Err(Raised);
                }
                ffi::PyTuple_SET_ITEM(both, 0, args);
                ffi::PyTuple_SET_ITEM(both, 1, kwargs);
                return Ok(Carry::Value(both));
            }
            ffi::Py_XDECREF(kwargs);
            if ffi::PyTuple_GET_SIZE(args) == 1 {
                let one = new_ref(ffi::PyTuple_GET_ITEM(args, 0));
                ffi::Py_DECREF(args);
                return Ok(Carry::Value(one));
            }
            Ok(Carry::Value(args))
        }
    }

    /// For a target that starts: a value becomes the arguments. `Err` with an error set.
    ///
    /// # Safety
    /// As [`collapse`](Self::collapse).
    unsafe fn into_arguments(self) -> Result<Carry, Raised> {
        let Carry::Value(value) = self else {
            return Ok(self);
        };
        // SAFETY: an owned reference.
        unsafe {
            let args = ffi::PyTuple_New(1);
            if args.is_null() {
                ffi::Py_DECREF(value);
                return Err(Raised);
            }
            ffi::PyTuple_SET_ITEM(args, 0, value);
            Ok(Carry::Call(args, null_mut()))
        }
    }
}

/// Switches to `target` or, if that is dead, to the parent that stands for it, and returns what is
/// switched back: a new reference, or null with an error set.
///
/// # Safety
/// The GIL is held, the running greenlet's state is installed, `td` is this thread's; `target` is kept
/// alive by the caller.
pub unsafe fn switch_to(td: &ThreadData, target: *mut PyGreenlet, carry: Carry) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        match select(td, target, carry) {
            Ok((target, carry)) => depart(td, target, carry),
            Err(Raised) => null_mut(),
        }
    }
}

/// Sets the error for a greenlet that cannot be switched to from this thread; `Ok` if it can.
///
/// # Safety
/// The GIL is held; `td` is this thread's.
pub(crate) unsafe fn check_thread(td: &ThreadData, g: &PyGreenlet) -> Result<(), Raised> {
    let theirs = g.main_in_lineage();
    if theirs == td.main {
        return Ok(());
    }
    // SAFETY: the GIL is held; the main greenlets are alive.
    unsafe {
        if theirs.is_null() {
            let text = c"cannot switch to a garbage collected greenlet";
            ffi::PyErr_SetString(globals().error, text.as_ptr());
        } else if (*theirs).td.get().is_null() {
            let text = c"cannot switch to a different thread (which happens to have exited)";
            ffi::PyErr_SetString(globals().error, text.as_ptr());
        } else {
            let text = c"Cannot switch to a different thread\n\tCurrent:  %R\n\tExpected: %R";
            ffi::PyErr_Format(globals().error, text.as_ptr(), td.main, theirs);
        }
    }
    Err(Raised)
}

/// Finds the greenlet to depart for: `first` itself, or the nearest live parent of a dead one; starts
/// it if it is new. `Err` with an error set and the carry dropped.
///
/// # Safety
/// The GIL is held, with the running greenlet's state installed; `td` is this thread's, and the caller has a
/// reference to `first` that lasts over what runs Python.
pub(super) unsafe fn select(
    td: &ThreadData,
    first: *mut PyGreenlet,
    carry: Carry,
) -> Result<(*mut PyGreenlet, Carry), Raised> {
    // SAFETY: `first` is kept alive by the caller, its parents by it; whatever runs Python code is
    // followed by a new look at the state, and the target is held over it.
    unsafe {
        if check_thread(td, &*first).is_err() {
            discard_keeping_error(carry);
            return Err(Raised);
        }
        let mut carry = carry;
        let mut target = first;
        loop {
            let g = &*target;
            match g.status.get() {
                Status::Live => {
                    if matches!(carry, Carry::Call(..)) {
                        // This may collect garbage: look again afterwards.
                        ffi::Py_INCREF(target.cast());
                        let collapsed = carry.collapse();
                        ffi::Py_DECREF(target.cast());
                        carry = collapsed?;
                        continue;
                    }
                    if g.flags
                        .get()
                        .has(Flags(Flags::FAIL_SWITCH.0 | Flags::FAIL_STACKS.0))
                        && target != td.current.get()
                    {
                        fail_on_purpose(g, target != first, false);
                        discard_keeping_error(carry);
                        return Err(Raised);
                    }
                    return Ok((target, carry));
                }
                Status::New => match start(td, target, carry) {
                    Started::Yes(carry) => return Ok((target, carry)),
                    Started::Meanwhile(back) => carry = back,
                    Started::NoStack(back) => {
                        // It is dead now, and its parent gets what it ended with.
                        carry = refuse(td, target, back);
                    }
                    Started::Failed => return Err(Raised),
                },
                Status::Dead => {
                    let parent = g.parent.get();
                    if parent.is_null() {
                        let text = c"cannot switch to a garbage collected greenlet";
                        ffi::PyErr_SetString(globals().error, text.as_ptr());
                        discard_keeping_error(carry);
                        return Err(Raised);
                    }
                    target = parent;
                }
            }
        }
    }
}

/// The errors that greenlet's own tests ask for.
///
/// # Safety
/// The GIL is held.
unsafe fn fail_on_purpose(g: &PyGreenlet, is_parent: bool, first_time: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        if g.flags.get().has(Flags::FAIL_STACKS) {
            ffi::Py_FatalError(
                c"greenlet: Failed low-level slp_switch(). The stack is probably corrupt.".as_ptr(),
            );
        }
        let text = if first_time {
            c"Failed to switch stacks into a greenlet for the first time."
        } else {
            c"Failed to switch stacks into a running greenlet."
        };
        ffi::PyErr_SetString(ffi::PyExc_SystemError, text.as_ptr());
        if is_parent {
            g.abandon();
        }
    }
}

/// # Safety
/// The GIL is held; the carry owns what it holds.
unsafe fn discard_keeping_error(carry: Carry) {
    // SAFETY: the caller's promise.
    unsafe {
        let pending = tstate::take_raised();
        carry.discard();
        if !pending.is_null() {
            tstate::set_raised(pending);
        }
    }
}

/// There is no memory for a stack.
struct NoStack;

enum Started {
    /// It has a stack and a state; departing for it runs its body.
    Yes(Carry),
    /// Somebody started it while its `run` was looked up: here is the carry again.
    Meanwhile(Carry),
    /// There is no memory for its stack: here is the carry again. No error is set.
    NoStack(Carry),
    /// An error is set and the carry is dropped.
    Failed,
}

/// Ends a new greenlet that gets no stack, as if it had begun and failed: an exception that was thrown
/// into it is what it ends with, else it is a MemoryError of its own. Returns what its parent gets. It
/// may run Python code.
///
/// # Safety
/// As [`select`]; `target` is new.
#[cold]
#[inline(never)]
unsafe fn refuse(td: &ThreadData, target: *mut PyGreenlet, carry: Carry) -> Carry {
    // SAFETY: the drop list holds the target, and by it its parent, over what runs here and beyond.
    unsafe {
        let g = &*target;
        td.hold(new_ref(target.cast()));
        replace(&g.main, new_ref(td.main));
        g.status.set(Status::Dead);
        g.bound.set(null_mut());
        g.add_flag(Flags::HAD_NO_STACK);
        let result = match carry {
            Carry::Raise(exc) => {
                tstate::set_raised(exc);
                null_mut()
            }
            unused => {
                unused.discard();
                let text = c"no memory for the stack of a greenlet";
                ffi::PyErr_SetString(ffi::PyExc_MemoryError, text.as_ptr());
                if crate::gevent_greenlet::is_gevent(target.cast()) {
                    crate::gevent_greenlet::end_unrun(target)
                } else {
                    null_mut()
                }
            }
        };
        let outcome = take_outcome(result);
        clear(&g.run);
        outcome
    }
}

/// Gives a new greenlet what it needs to run. It looks `run` up, which may run any code.
///
/// # Safety
/// As [`select`]; `target` is new.
#[inline]
unsafe fn start(td: &ThreadData, target: *mut PyGreenlet, carry: Carry) -> Started {
    // SAFETY: the GIL is held; the target is held by us while Python code runs.
    unsafe {
        let g = &*target;
        let mut run = null_mut();
        if g.native_run.get().is_none() {
            ffi::Py_INCREF(target.cast());
            run = if ffi::Py_TYPE(target.cast()) == globals().greenlet_type
                && !g.run.get().is_null()
            {
                new_ref(g.run.get())
            } else {
                ffi::PyObject_GetAttr(target.cast(), globals().str_run)
            };
            let allowed = !run.is_null() && check_thread(td, g).is_ok();
            // The caller holds the first target and that its parents; but the look-up may have
            // changed parents, and then this is the last reference.
            let last = ffi::Py_REFCNT(target.cast()) == 1;
            if !allowed || last {
                if allowed {
                    let text = c"cannot switch to a garbage collected greenlet";
                    ffi::PyErr_SetString(globals().error, text.as_ptr());
                }
                discard_keeping_error(carry);
                let pending = tstate::take_raised();
                ffi::Py_XDECREF(run);
                ffi::Py_DECREF(target.cast());
                tstate::set_raised(pending);
                return Started::Failed;
            }
            ffi::Py_DECREF(target.cast());
            if g.started() {
                ffi::Py_INCREF(target.cast());
                ffi::Py_DECREF(run);
                ffi::Py_DECREF(target.cast());
                return Started::Meanwhile(carry);
            }
        }
        let Ok(carry) = carry.into_arguments() else {
            ffi::Py_XDECREF(run);
            return Started::Failed;
        };
        if g.started() {
            // The tuple's allocation collected garbage, and that started it.
            ffi::Py_XDECREF(run);
            return Started::Meanwhile(carry);
        }
        if g.flags
            .get()
            .has(Flags(Flags::FAIL_SWITCH.0 | Flags::FAIL_STACKS.0))
        {
            fail_on_purpose(g, false, true);
            ffi::Py_XDECREF(run);
            discard_keeping_error(carry);
            return Started::Failed;
        }
        if equip(td, g).is_err() {
            ffi::Py_XDECREF(run);
            if g.started() {
                // Dropping the callable has run code that started it.
                return Started::Meanwhile(carry);
            }
            if !g.flags.get().has(Flags::DROPS_RESULTS) {
                return Started::NoStack(carry);
            }
            // A hub serves its thread for ever: whoever wanted it is told, and may try again.
            ffi::PyErr_NoMemory();
            discard_keeping_error(carry);
            return Started::Failed;
        }
        // What was in the slot is what was looked up, or is dropped with the greenlet's own run.
        let old = g.run.replace(run);
        if !old.is_null() {
            if old == run {
                ffi::Py_DECREF(old);
            } else {
                td.drop_later(old);
            }
        }
        Started::Yes(carry)
    }
}

/// Gives a new greenlet a stack and a Python state in this thread, and marks it started: a transfer to
/// it runs its body. Runs no Python. `Err`, without an error set, if there is no memory for a stack.
///
/// # Safety
/// The GIL is held; `g` is new.
unsafe fn equip(td: &ThreadData, g: &PyGreenlet) -> Result<(), NoStack> {
    let stack = match g.stack_size.get() {
        0 => stack::acquire(),
        size => stack::acquire_sized(size),
    };
    let Ok(stack) = stack else {
        return Err(NoStack);
    };
    // SAFETY: the stack and its annex are the greenlet's until it is reaped; the object does not move,
    // and it is not freed while it is live (its deallocator finishes or abandons it first).
    unsafe {
        let span = (stack.limit_addr(), stack.base_addr() - stack.limit_addr());
        g.state.make_fresh(td.tstate, stack.annex(), span);
        g.fiber.prepare(stack, &KIND);
        replace(&g.main, new_ref(td.main));
        g.status.set(Status::Live);
        g.bound.set(td.main);
    }
    Ok(())
}

/// Goes to `target` with `carry` and returns what comes back.
///
/// # Safety
/// As [`switch_to`]; `target` is live in this thread, and a carry for one that has not run yet is its
/// arguments or an exception, for another a value or an exception.
#[inline]
pub unsafe fn depart(td: &ThreadData, target: *mut PyGreenlet, carry: Carry) -> *mut PyObject {
    let me = td.current.get();
    // SAFETY: both are alive: `current` owns one, the caller holds the other until `current` does.
    unsafe {
        lay_down(&*target, carry);
        if target != me {
            td.origin.set(me);
            become_current(td, target);
            td.install(target);
            td.switcher.transfer(&raw const (*target).fiber);
        } else {
            td.origin.set(new_ref(me));
        }
        arrive(td, me)
    }
}

/// # Safety
/// `target` is not parked with something in its slots; it owns what is laid there.
#[inline]
pub(super) unsafe fn lay_down(target: &PyGreenlet, carry: Carry) {
    match carry {
        Carry::Value(value) => target.value.set(value),
        Carry::Raise(exc) => target.exc.set(exc),
        Carry::Call(args, kwargs) => {
            target.value.set(args);
            target.kwargs.set(kwargs);
        }
    }
}

/// `td.current = target`, with the reference that belongs to it.
///
/// # Safety
/// `target` is alive, and `td` is the running thread's, which holds the GIL. The reference that `current` had
/// to the greenlet before it is dealt with by the caller.
#[inline]
pub(super) unsafe fn become_current(td: &ThreadData, target: *mut PyGreenlet) {
    // SAFETY: alive by the caller.
    unsafe {
        let g = &*target;
        if g.flags.get().has(Flags::PARKED_NATIVELY) {
            g.remove_flag(Flags::PARKED_NATIVELY);
        } else {
            ffi::Py_INCREF(target.cast());
        }
    }
    td.current.set(target);
    td.switches.set(td.switches.get() + 1);
}

/// The second half of a switch: the running greenlet `me` was switched to, and takes what was sent.
///
/// # Safety
/// The GIL is held; `me` is current in this thread.
#[inline]
pub unsafe fn arrive(td: &ThreadData, me: *mut PyGreenlet) -> *mut PyObject {
    // SAFETY: `me` is current, hence alive.
    unsafe {
        td.install(me);
        let value = (*me).value.replace(null_mut());
        let origin = td.origin.replace(null_mut());
        if td.tracer.get().is_null() && !value.is_null() {
            ffi::Py_XDECREF(origin.cast());
            return value;
        }
        arrive_slowly(td, me, value, origin)
    }
}

/// # Safety
/// As [`arrive`]; `value` and `origin` are owned, or null.
#[cold]
#[inline(never)]
unsafe fn arrive_slowly(
    td: &ThreadData,
    me: *mut PyGreenlet,
    mut value: *mut PyObject,
    origin: *mut PyGreenlet,
) -> *mut PyObject {
    // SAFETY: as `arrive`; all pointers are owned.
    unsafe {
        let mut exc = (*me).exc.replace(null_mut());
        if !td.tracer.get().is_null()
            && !origin.is_null()
            && let Err(error) = trace::call(td, origin, me, !exc.is_null())
        {
            // The tracer's error takes the place of what was sent.
            ffi::Py_XDECREF(value);
            ffi::Py_XDECREF(exc);
            value = null_mut();
            exc = error;
        }
        ffi::Py_XDECREF(origin.cast());
        if !exc.is_null() {
            ffi::Py_XDECREF(value);
            tstate::set_raised(exc);
            return null_mut();
        }
        if value.is_null() {
            // Resumed natively, which is as `switch()`.
            value = new_ref(globals().empty_tuple);
        }
        value
    }
}

/// Parks the running greenlet and goes on with `to`, without touching Python's state or any reference
/// count: the parked greenlet keeps the reference that `current` had. Returns when somebody resumes
/// the caller. If that was done from Python (`switch`, `throw`), there is something for [`arrive`] in
/// its slots, see [`has_delivery`]; else it was another native transfer. Either way
/// [`ThreadData::install`] comes before any Python.
///
/// # Safety
/// The GIL is held; `to` is live in this thread.
#[inline]
pub unsafe fn native_transfer(td: &ThreadData, to: *mut PyGreenlet) {
    let me = td.current.get();
    // SAFETY: both are alive; the parked one keeps its own reference.
    unsafe {
        (*me).add_flag(Flags::PARKED_NATIVELY);
        become_current(td, to);
        td.switcher.transfer(&raw const (*to).fiber);
    }
}

/// Whether the running greenlet, back from [`native_transfer`], was resumed from Python and has a value
/// or an exception to take with [`arrive`].
#[inline]
pub fn has_delivery(g: &PyGreenlet) -> bool {
    !g.value.get().is_null() || !g.exc.get().is_null()
}
