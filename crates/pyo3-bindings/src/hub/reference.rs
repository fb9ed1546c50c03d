//! [`HubRef`]: the native hub of the running thread, for as long as somebody uses it.
//!
//! A wait calls Python (`switch_out`, a replaced `hub.loop`, a `Timeout`'s methods) and gives way to other greenlets;
//! any of them may destroy the hub. So nobody gets a plain reference to it: whoever asks for the hub holds it, its
//! greenlet and its loop until it is done. The references are counted without atomics, since a hub and all who use
//! it are in one thread.

use super::HubCore;
use crate::greenlet::PyGreenlet;
use crate::thread_data::ThreadData;
use crate::tstate;
use pyo3::ffi;
use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;

/// Who uses a native hub.
#[derive(Default)]
pub(super) struct Users {
    /// How many [`HubRef`]s there are. While there are some, one reference to the hub's greenlet is owned.
    count: Cell<usize>,
    /// The hub object let go of it while it was in use: the last user frees it.
    retired: Cell<bool>,
}

/// The running thread's native hub, kept while this lives.
pub struct HubRef(NonNull<HubCore>);

thread_local! {
    /// Hubs of this thread that were let go of while somebody used them.
    static RETIRED: RefCell<Vec<NonNull<HubCore>>> = const { RefCell::new(Vec::new()) };
}

impl HubRef {
    /// Of a hub that is alive, in its own thread with the GIL held.
    #[inline]
    pub fn new(hub: &HubCore) -> Self {
        let users = hub.users();
        let n = users.count.get();
        if n == 0 {
            // SAFETY: the greenlet of a hub that nobody uses yet owns the hub, hence is alive; the GIL is held.
            unsafe { ffi::Py_INCREF(hub.greenlet().cast()) };
        }
        users.count.set(n + 1);
        HubRef(NonNull::from(hub))
    }
}

impl Clone for HubRef {
    #[inline]
    fn clone(&self) -> Self {
        HubRef::new(self)
    }
}

impl Deref for HubRef {
    type Target = HubCore;

    #[inline]
    fn deref(&self) -> &HubCore {
        // SAFETY: a hub is not freed while it has users, see `let_go`.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for HubRef {
    #[inline]
    fn drop(&mut self) {
        let users = self.users();
        let n = users.count.get() - 1;
        users.count.set(n);
        if n == 0 {
            // SAFETY: this was the last one.
            unsafe { unused(self.0) };
        }
    }
}

/// Gives back what the users of a hub kept. An error that is set survives.
///
/// # Safety
/// The GIL is held in the hub's thread, and nobody uses the hub any more.
#[inline]
unsafe fn unused(hub: NonNull<HubCore>) {
    // SAFETY: the caller's promise; the first user took the reference.
    unsafe {
        let greenlet = hub.as_ref().greenlet();
        if !hub.as_ref().users().retired.get() && ffi::Py_REFCNT(greenlet.cast()) > 1 {
            ffi::Py_DECREF(greenlet.cast());
            return;
        }
        free(hub, greenlet);
    }
}

/// # Safety
/// As [`unused`].
#[cold]
unsafe fn free(hub: NonNull<HubCore>, greenlet: *mut PyGreenlet) {
    // SAFETY: as `unused`; a retired hub is owned by its users.
    unsafe {
        let error = tstate::take_raised();
        if hub.as_ref().users().retired.get() {
            RETIRED.with_borrow_mut(|all| all.retain(|h| *h != hub));
            drop(Rc::from_raw(hub.as_ptr().cast_const()));
        }
        ffi::Py_DECREF(greenlet.cast());
        if !error.is_null() {
            tstate::set_raised(error);
        }
    }
}

/// The hub object gives its native side up: it is freed now, or by its last user.
///
/// # Safety
/// The GIL is held, in the hub's thread.
pub(super) unsafe fn let_go(hub: Rc<HubCore>) {
    if hub.users().count.get() == 0 {
        return;
    }
    hub.users().retired.set(true);
    // SAFETY: `into_raw` gives no null.
    let hub = unsafe { NonNull::new_unchecked(Rc::into_raw(hub).cast_mut()) };
    RETIRED.with_borrow_mut(|all| all.push(hub));
}

/// The thread ends: greenlets that are still parked in it never go on, so what they kept of `hub`, and of hubs before
/// it, is given back in their place.
///
/// # Safety
/// The GIL is held in the thread that ends, which will not go on with a greenlet.
pub(super) unsafe fn thread_ends(hub: Option<HubRef>, td: &ThreadData) {
    if td.current.get() != td.main {
        // Another stack than the thread's own is in use.
        return;
    }
    // Retired hubs are owned by their users.
    for hub in RETIRED.take().into_iter().map(HubRef).chain(hub) {
        // This is the last one.
        hub.users().count.set(1);
    }
}
