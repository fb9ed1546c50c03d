//! Where hubs can be reached from other threads, by the number that names a hub for ever.

use gevent_hub_core::reactor::{Entry, Remote};
use pyo3::ffi::PyObject;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

struct Home {
    hub: u64,
    remote: Arc<Remote>,
    /// The hub object's loop, if that was replaced; asked with the GIL held, while the hub is attached.
    replaced: fn(usize) -> Option<usize>,
    object: usize,
}

static HOMES: Mutex<Vec<Home>> = Mutex::new(Vec::new());

/// Taken with the GIL held and for no longer than a look, so that a fork meets it free.
fn homes() -> MutexGuard<'static, Vec<Home>> {
    HOMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A hub is attached to its loop. `replaced(object)` returns a borrowed loop that was put in that one's
/// place.
pub fn arrive(hub: u64, remote: Arc<Remote>, object: usize, replaced: fn(usize) -> Option<usize>) {
    leave(hub);
    homes().push(Home {
        hub,
        remote,
        replaced,
        object,
    });
}

/// It is no more.
pub fn leave(hub: u64) {
    let gone = {
        let mut homes = homes();
        let at = homes.iter().position(|home| home.hub == hub);
        at.map(|at| homes.swap_remove(at))
    };
    drop(gone);
}

/// Whether a hub can be reached.
pub fn exists(hub: u64) -> bool {
    homes()
        .iter()
        .any(|home| home.hub == hub && !home.remote.is_closed())
}

/// Puts an entry into a hub's queue, from any thread. False if the hub is gone.
pub fn push(hub: u64, entry: Entry) -> bool {
    let remote = homes()
        .iter()
        .find(|home| home.hub == hub)
        .map(|home| home.remote.clone());
    remote.is_some_and(|remote| remote.push(entry))
}

/// The object that stands in place of a hub's loop; borrowed.
pub fn replaced_loop(hub: u64) -> Option<*mut PyObject> {
    let found = homes()
        .iter()
        .find(|home| home.hub == hub)
        .map(|home| (home.replaced, home.object));
    let (replaced, object) = found?;
    replaced(object).map(|p| p as *mut PyObject)
}
