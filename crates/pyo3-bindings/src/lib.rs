//! `gevent._core`: the only crate of the workspace that knows Python.
//!
//! A folder is the hot half of the module of gevent that it is named after. What they stand on:
//!
//! - the interpreter: `tstate` and `thread_data` (with `shim.c` and `frames.c`) keep and move what CPython knows of
//!   a greenlet; `observers` tells its tracers and profilers; `barrier.c`, `guards.c` and `outlive.c` see to stacks and threads that outlive it.
//! - the C API by hand: `raw` (method tables, arguments, results), `raw_type` (heap types), `statics`, `signature`.
//! - `entry`: what comes of a panic in a function that the interpreter calls; `memory`: and of an allocation that fails.
//! - `cells` (values under the GIL) and `errors` (an errno as Python's exception).
//!
//! Types that are made, called or switched to all the time are written against the C API; the others are pyo3's.

#![allow(
    clippy::not_unsafe_ptr_arg_deref,
    reason = "a `*mut PyObject` is a live object under the GIL everywhere in this crate, which is no library"
)]
#![allow(
    clippy::result_unit_err,
    reason = "`Err(())` says that the error is set in the interpreter, as NULL does in C"
)]

pub mod cells;
pub mod entry;
pub mod errors;
pub mod event_loop;
pub mod files;
pub mod gevent_greenlet;
pub mod greenlet;
pub mod hub;
pub mod local;
mod memory;
pub mod observers;
pub mod overflow;
pub mod pool;
pub mod raw;
pub mod raw_type;
pub mod resolver;
pub mod running_loop;
pub mod signature;
pub mod socket;
pub mod statics;
pub mod sync;
pub mod thread_data;
pub mod threadpool;
pub mod timeout;
pub mod tstate;
pub mod wsgi;

pub(crate) use gevent_entry::entry;
use pyo3::prelude::*;

/// What threads and types share here exists once in a process, so one interpreter alone can have it.
fn refuse_subinterpreter() -> PyResult<()> {
    // SAFETY: both only read, with the GIL held.
    let is_main = unsafe {
        std::ptr::eq(
            pyo3::ffi::PyInterpreterState_Get(),
            pyo3::ffi::PyInterpreterState_Main(),
        )
    };
    if is_main {
        return Ok(());
    }
    Err(pyo3::exceptions::PyImportError::new_err(
        "gevent works in the main interpreter only; it cannot be imported in a subinterpreter",
    ))
}

#[pymodule]
mod _core {
    use super::*;

    #[pymodule_init]
    fn init(m: &Bound<'_, PyModule>) -> PyResult<()> {
        refuse_subinterpreter()?;
        gevent_hub_core::stack::check_environment()
            .map_err(pyo3::exceptions::PyValueError::new_err)?;
        entry::install();
        overflow::install();
        m.add("greenlet_module", greenlet::module::make(m.py())?)?;
        greenlet::watch::register(m)?;
        event_loop::register(m)?;
        files::register(m)?;
        gevent_greenlet::register(m)?;
        hub::register(m)?;
        local::register(m)?;
        observers::register(m)?;
        resolver::register(m)?;
        socket::register(m)?;
        sync::register(m)?;
        pool::register(m)?;
        threadpool::register(m)?;
        timeout::register(m)?;
        wsgi::register(m)
    }
}
