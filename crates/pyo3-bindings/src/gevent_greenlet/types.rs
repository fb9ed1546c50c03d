//! The raw types of this folder, and the names and objects that their code uses.

use super::{attributes, ending, links, starting, tracked};
use super::{object::GreenletObject, slots as slot_fns};
use crate::greenlet::{globals, lifecycle};
use crate::raw::{fast, noargs, one};
use crate::raw_type::NewType;
use crate::statics::{Immortal, intern};
use crate::sync::object::attribute;
use pyo3::ffi::{self, PyGetSetDef, PyMethodDef, PyObject, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::c_void;

/// What lives as long as the process.
pub struct Types {
    /// `_core.Greenlet`.
    pub greenlet: *mut PyTypeObject,
    /// `_core.TrackedRawGreenlet`.
    pub tracked: *mut PyTypeObject,
    /// The descriptor of `_run` on `greenlet`.
    pub run_descriptor: *mut PyObject,
    /// The method `run` of `greenlet`.
    pub run_method: *mut PyObject,
    /// The method `switch` that `greenlet` inherits.
    pub switch_method: *mut PyObject,
    /// `(None, None, None)`.
    pub success: *mut PyObject,
    /// `(MemoryError, MemoryError(), None)`, for an end that there is no memory to report.
    pub no_memory: *mut PyObject,
    /// `functools.partial`.
    pub partial: *mut PyObject,
    /// `"_run"`.
    pub str_run_: *mut PyObject,
    /// `"_report_error"`.
    pub str_report_error: *mut PyObject,
    /// `"spawn_tree_locals"`.
    pub str_spawn_tree_locals: *mut PyObject,
    /// `"start"`.
    pub str_start: *mut PyObject,
    /// `"start_later"`.
    pub str_start_later: *mut PyObject,
    /// `"join"`.
    pub str_join: *mut PyObject,
    /// `"spawning_stack_limit"`.
    pub str_stack_limit: *mut PyObject,
}

static TYPES: Immortal<Types> = Immortal::new();

/// The types and names.
#[inline]
pub fn types() -> &'static Types {
    &TYPES
}

fn greenlet_methods() -> Vec<PyMethodDef> {
    let class = ffi::METH_CLASS;
    vec![
        fast(c"spawn", starting::spawn, class, c"spawn(function, *args, **kwargs) -> Greenlet\n\nMake a greenlet and put it into the queue."),
        fast(c"spawn_later", starting::spawn_later, class, c"spawn_later(seconds, function, *args, **kwargs) -> Greenlet\n\nMake a greenlet that starts after some seconds."),
        noargs(c"start", starting::start, c"Put it into the queue, once."),
        one(c"start_later", starting::start_later, c"start_later(seconds)\n\nStart it after some seconds."),
        noargs(c"ready", attributes::ready, c"Whether it has ended."),
        noargs(c"successful", attributes::successful, c"Whether it has ended without an error; GreenletExit is none."),
        one(c"rawlink", links::rawlink, c"rawlink(callback)\n\nHave the hub call callback(self) when it has ended; it must not block or raise."),
        one(c"unlink", links::unlink, c"unlink(callback)\n\nUndo a link."),
        noargs(c"unlink_all", links::unlink_all, c"Undo all links."),
        noargs(c"has_links", links::has_links, c"The number of links."),
        fast(c"join", ending::join, 0, c"join(timeout=None)\n\nWait until it has ended, or some seconds."),
        fast(c"get", ending::get, 0, c"get(block=True, timeout=None)\n\nReturn its value or raise its error, after waiting for it."),
        fast(c"kill", ending::kill, 0, c"kill(exception=..., block=True, timeout=None)\n\nRaise an exception in it; wait for its end if asked to block."),
        fast(c"throw", ending::throw, 0, c"throw(*exception)\n\nSwitch to it at once and raise an exception there; for the hub only."),
        noargs(c"run", starting::run, c"What it does: calls _run and reports how that ended."),
        one(c"_maybe_kill_before_start", ending::maybe_kill_before_start, c"Keep it from starting; return whether it is dead by that."),
        noargs(c"_tell_links", links::tell_links, c"Tell the links that it is over."),
    ]
}

fn greenlet_attributes() -> Vec<PyGetSetDef> {
    use attributes as m;
    vec![
        attribute(c"_run", m::get_run, Some(m::set_run), c"What it runs."),
        attribute(
            c"args",
            m::get_args,
            Some(m::set_args),
            c"The positional arguments.",
        ),
        attribute(
            c"kwargs",
            m::get_kwargs,
            Some(m::set_kwargs),
            c"The keyword arguments.",
        ),
        attribute(
            c"value",
            m::get_value,
            Some(m::set_value),
            c"What the function returned.",
        ),
        attribute(
            c"_exc_info",
            m::get_exc_info,
            Some(m::set_exc_info),
            c"None while it runs; then type, value and dumped traceback.",
        ),
        attribute(
            c"exception",
            m::get_exception,
            None,
            c"The error that it ended with, or None.",
        ),
        attribute(
            c"dead",
            m::get_dead,
            None,
            c"Whether it will not run, or not again.",
        ),
        attribute(
            c"started",
            m::get_started,
            None,
            c"Whether it was started and has not ended.",
        ),
        attribute(c"loop", m::get_loop, None, c"The loop of its hub."),
        attribute(
            c"_links",
            links::get_links,
            None,
            c"The callables that are linked.",
        ),
        attribute(
            c"_start_event",
            m::get_start_event,
            None,
            c"None if it was never started; else something with pending and active.",
        ),
        attribute(
            c"_ident",
            m::get_ident,
            Some(m::set_ident),
            c"minimal_ident, once it was asked for.",
        ),
        attribute(
            c"_formatted_info",
            m::get_formatted,
            Some(m::set_formatted),
            c"What _formatinfo found.",
        ),
        attribute(
            c"spawning_greenlet",
            m::get_spawning,
            Some(m::set_spawning),
            c"A weak reference to the greenlet that spawned it.",
        ),
        attribute(
            c"spawn_tree_locals",
            m::get_locals,
            Some(m::set_locals),
            c"A dictionary that the tree of spawned greenlets shares.",
        ),
        attribute(
            c"_spawning_site",
            m::get_site,
            None,
            c"Code and line of the frames that spawned it, innermost first.",
        ),
        attribute(
            c"_spawning_made",
            m::get_made,
            Some(m::set_made),
            c"spawning_stack, once it was made.",
        ),
    ]
}

fn tracked_attributes() -> Vec<PyGetSetDef> {
    use tracked as t;
    vec![
        attribute(
            c"spawning_greenlet",
            t::get_spawning,
            Some(t::set_spawning),
            c"A weak reference to the greenlet that spawned it.",
        ),
        attribute(
            c"spawn_tree_locals",
            t::get_locals,
            Some(t::set_locals),
            c"A dictionary that the tree of spawned greenlets shares.",
        ),
        attribute(c"loop", t::get_loop, Some(t::set_loop), c"The event loop."),
    ]
}

/// `_core.TrackedRawGreenlet`.
pub fn tracked_type() -> *mut PyTypeObject {
    types().tracked
}

/// Makes the types and adds them to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    let base = globals().greenlet_type;
    // SAFETY: at the module's initialisation, with the GIL held; sizes are those of the structs.
    unsafe {
        let greenlet = NewType::of::<GreenletObject>(c"gevent._core.Greenlet")
            .below(base)
            .methods(greenlet_methods())
            .attributes(greenlet_attributes())
            .new_by(slot_fns::tp_new)
            .init_by(slot_fns::tp_init)
            .ended_by(slot_fns::dealloc, slot_fns::traverse, slot_fns::clear)
            .slot(ffi::Py_tp_is_gc, lifecycle::is_gc as *mut c_void)
            .slot(ffi::Py_nb_bool, slot_fns::truth as *mut c_void)
            .add(m, None)?;
        let tracked = NewType::of::<tracked::TrackedObject>(c"gevent._core.TrackedRawGreenlet")
            .below(base)
            .attributes(tracked_attributes())
            .new_by(tracked::tp_new)
            .init_by(tracked::tp_init)
            .ended_by(tracked::dealloc, tracked::traverse, tracked::clear)
            .slot(ffi::Py_tp_is_gc, lifecycle::is_gc as *mut c_void)
            .add(m, None)?;
        let str_run_ = intern(c"_run");
        let none = ffi::Py_None();
        let made = Types {
            greenlet,
            tracked,
            run_descriptor: crate::raw::_PyType_Lookup(greenlet, str_run_),
            run_method: crate::raw::_PyType_Lookup(greenlet, globals().str_run),
            switch_method: crate::raw::_PyType_Lookup(greenlet, globals().str_switch),
            success: ffi::PyTuple_Pack(3, none, none, none),
            no_memory: {
                let kind = ffi::PyExc_MemoryError;
                let error = ffi::PyObject_CallNoArgs(kind);
                ffi::PyTuple_Pack(3, kind, error, none)
            },
            partial: py
                .import("functools")?
                .getattr("partial")?
                .unbind()
                .into_ptr(),
            str_run_,
            str_report_error: intern(c"_report_error"),
            str_spawn_tree_locals: intern(c"spawn_tree_locals"),
            str_start: intern(c"start"),
            str_start_later: intern(c"start_later"),
            str_join: intern(c"join"),
            str_stack_limit: intern(c"spawning_stack_limit"),
        };
        TYPES.set(made);
    }
    Ok(())
}
