//! Where a greenlet belongs: the hub that it will fall back to, which may be another thread's.

use super::{HubCore, HubObject, HubRef, hub_type};
use crate::greenlet::PyGreenlet;
use gevent_hub_core::reactor::Remote;
use pyo3::ffi;
use std::sync::Arc;

/// The hub of a greenlet.
pub enum Home {
    /// The running thread's.
    Here(HubRef),
    /// Another thread's, and the way to it.
    Away(Arc<Remote>),
    /// None, or one that has ended.
    Nowhere,
}

/// Finds the hub among a greenlet's parents.
///
/// # Safety
/// The GIL is held; null or a greenlet.
pub unsafe fn home_of(parent: *mut PyGreenlet) -> Home {
    let here = HubCore::current_greenlet();
    let mut at = parent;
    // SAFETY: parents form a chain without cycles, and each keeps the next one alive.
    unsafe {
        while !at.is_null() {
            if at == here
                && let Some(hub) = HubCore::current()
            {
                return Home::Here(hub);
            }
            if ffi::PyObject_TypeCheck(at.cast(), hub_type()) != 0 {
                return match &(*at.cast::<HubObject>()).core {
                    Some(core) if !core.remote().is_closed() => Home::Away(core.remote().clone()),
                    _ => Home::Nowhere,
                };
            }
            at = (*at).parent.get();
        }
    }
    Home::Nowhere
}
