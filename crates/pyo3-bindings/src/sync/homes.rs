//! Where hubs can be reached from other threads. Asked with the GIL held, so that a fork meets the list free.

use gevent_hub_core::reactor::{Entry, Remote};
use gevent_sync::homes::Homes;
use pyo3::ffi::PyObject;
use std::sync::Arc;

/// A hub's greenlet, and how to ask it for the loop that was put in its own one's place, if one was. To be
/// asked while the hub is attached.
type Replaced = (usize, fn(usize) -> Option<usize>);

static HOMES: Homes<Replaced> = Homes::new();

/// A hub is attached to its loop. `replaced(object)` returns a borrowed loop that was put in that one's
/// place.
pub fn arrive(hub: u64, remote: Arc<Remote>, object: usize, replaced: fn(usize) -> Option<usize>) {
    HOMES.arrive(hub, remote, (object, replaced));
}

/// It is no more.
pub fn leave(hub: u64) {
    HOMES.leave(hub);
}

/// Whether a hub can be reached.
pub fn exists(hub: u64) -> bool {
    HOMES.exists(hub)
}

/// Puts an entry into a hub's queue, from any thread. False if the hub is gone.
pub fn push(hub: u64, entry: Entry) -> bool {
    HOMES.push(hub, entry)
}

/// The object that stands in place of a hub's loop; borrowed.
pub fn replaced_loop(hub: u64) -> Option<*mut PyObject> {
    let (object, replaced) = HOMES.about(hub)?;
    replaced(object).map(|p| p as *mut PyObject)
}
