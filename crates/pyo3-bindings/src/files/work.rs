//! An operation of the loop's own with the memory that it uses, and the greenlet that waits for it.
//!
//! The kernel may write to that memory until it says that the operation is over. So the memory belongs to
//! the operation and not to the greenlet: one that is killed, or whose time is up, cancels the operation
//! and goes, and what the kernel will not let go of yet stays behind with the loop, which frees it.

use crate::event_loop::Payload;
use crate::hub::{HubCore, HubRef, Parked, unexpected_switch};
use gevent_hub_core::event_loop::{Cancel, How, Op};
use gevent_hub_core::reactor::{Entry, OpId, Reactor, Started};
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::ffi::CString;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

/// What keeps the memory of an operation valid.
pub enum Held {
    /// It has none.
    Nothing,
    /// An owned reference to the object that the memory is a part of.
    Object(*mut PyObject),
    /// An exported buffer, which its exporter must neither move nor free.
    Buffer(Box<ffi::Py_buffer>),
    /// A path.
    Path(CString),
}

impl Drop for Held {
    /// The GIL is held: greenlets run with it, and so do the jobs of the queue.
    fn drop(&mut self) {
        // SAFETY: an owned reference, or a buffer that was filled and is released once.
        unsafe {
            match self {
                Held::Object(object) => ffi::Py_DECREF(*object),
                Held::Buffer(buffer) => ffi::PyBuffer_Release(&mut **buffer),
                Held::Nothing | Held::Path(_) => {}
            }
        }
    }
}

/// An operation and what it holds.
struct Work {
    op: Op,
    held: Held,
}

/// How [`perform`] went.
pub enum Performed {
    /// The loop did it.
    Over(io::Result<u32>),
    /// The loop does not do such a thing, or nothing can wait here: the caller does it by a call that blocks,
    /// while it keeps what is given back.
    Blocking(Held),
}

/// The hub of the running thread, if its loop reads and writes files by itself and the running greenlet may
/// wait for it.
pub fn native_hub() -> Option<HubRef> {
    let hub = HubCore::current()?;
    let waits = hub.td().current.get() != hub.greenlet();
    (waits && hub.reactor().caps().file == How::Native).then_some(hub)
}

/// Has the loop carry out `op`, on memory that `held` keeps, while the running greenlet waits.
///
/// # Errors
/// What was thrown into the greenlet. The operation is over then, or will be without it.
pub fn perform(py: Python<'_>, op: Op, held: Held) -> PyResult<Performed> {
    let Some(hub) = native_hub() else {
        return Ok(Performed::Blocking(held));
    };
    // SAFETY: the GIL is held.
    if unsafe { hub.may_block() }.is_err() {
        return Err(PyErr::fetch(py));
    }
    let closes = matches!(op, Op::OpenAt { .. });
    let mut work = Box::new(Work { op, held });
    let reactor = hub.reactor();
    let park = hub.core().prepare();
    // SAFETY: the box is not moved out of, and is dropped only when the reactor says that the operation is over.
    let started = unsafe { reactor.op_start(Pin::new_unchecked(&mut work.op), park.token()) };
    let id = match started {
        Started::Done(result) => return Ok(Performed::Over(result)),
        Started::Offload => return Ok(Performed::Blocking(work.held)),
        Started::Parked(id) => id,
    };
    // SAFETY: the GIL is held with the running greenlet's state in, which is not the hub's.
    let thrown = match unsafe { hub.park(park, None) } {
        Parked::Woken(_) => None,
        Parked::Raised(_) => Some(PyErr::fetch(py)),
        Parked::Switched(value, _) => {
            // SAFETY: the GIL is held; an owned reference.
            unsafe { unexpected_switch(c"a wait for a file", value) };
            Some(PyErr::fetch(py))
        }
    };
    match thrown {
        None => {
            let lost = || Err(io::Error::from_raw_os_error(libc::ECANCELED));
            Ok(Performed::Over(reactor.op_take(id).unwrap_or_else(lost)))
        }
        Some(error) => {
            give_up(reactor, id, work, closes);
            Err(error)
        }
    }
}

/// Ends an operation whose greenlet has gone. `closes`: its result is a descriptor that nobody will have.
fn give_up(reactor: &Rc<Reactor>, id: OpId, work: Box<Work>, closes: bool) {
    match reactor.op_cancel(id) {
        Cancel::Cancelled => {}
        Cancel::Finished(result) => settle(result, closes),
        Cancel::Pending => {
            let home = Rc::downgrade(reactor);
            let job: Box<dyn FnOnce()> = Box::new(move || {
                if let Some(result) = home.upgrade().and_then(|r| r.op_take(id)) {
                    settle(result, closes);
                }
                drop(work);
            });
            reactor.op_abandon(id, Entry::Call(Payload::Job(Box::new(job)).into_word()));
        }
    }
}

fn settle(result: io::Result<u32>, closes: bool) {
    if let Ok(fd) = result
        && closes
    {
        // SAFETY: just opened, and known to nobody else.
        unsafe { libc::close(fd as i32) };
    }
}
