//! The memory of a `gevent.Greenlet`: what it has besides a raw greenlet, and who owns it.

use crate::greenlet::{PyGreenlet, Status};
use crate::hub::Waiter;
use crate::thread_data::ThreadData;
use gevent_hub_core::reactor::WatcherId;
use pyo3::ffi::{self, PyObject};
use std::collections::VecDeque;
use std::ptr;
use std::rc::Rc;

use super::group::Group;
use super::spawn_site::SpawnSite;
use crate::sync::object::{set, visit_all};

/// How far a greenlet is with being started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartState {
    /// Nobody has asked for it.
    Never,
    /// It waits in the loop's queue.
    Queued,
    /// A timer of the hub with this id will start it.
    Timer(WatcherId, u64),
    /// It was killed before it started, and never will.
    Cancelled,
    /// It has been entered.
    Done,
}

/// Who wants to know when a greenlet is over.
pub enum Link {
    /// A fiber that joins it.
    Fiber(Waiter),
    /// A callable; an owned reference.
    Callable(*mut PyObject),
    /// A wait for several objects; an owned reference to the greenlet goes into its result.
    Group(Rc<Group>),
}

/// A `gevent.Greenlet`. All `*mut PyObject` are owned references or null.
#[repr(C)]
pub struct GreenletObject {
    /// The raw greenlet; must stay first.
    pub base: PyGreenlet,
    /// What the constructor was given to run.
    pub func: *mut PyObject,
    /// A tuple.
    pub args: *mut PyObject,
    /// A dict, or null for none.
    pub kwargs: *mut PyObject,
    /// What the function returned.
    pub value: *mut PyObject,
    /// Null while it runs; then the three-tuple of `_exc_info`.
    pub exc_info: *mut PyObject,
    /// `minimal_ident`, once it was asked for.
    pub ident: *mut PyObject,
    /// What `_formatinfo` said.
    pub formatted: *mut PyObject,
    /// A weak reference.
    pub spawning_greenlet: *mut PyObject,
    /// A dict that is shared along a tree of spawns.
    pub spawn_tree_locals: *mut PyObject,
    /// Where it was spawned.
    pub site: SpawnSite,
    /// In order of registration.
    pub links: VecDeque<Link>,
    /// See [`StartState`].
    pub start: StartState,
    /// A [`Payload::Notify`](crate::event_loop::Payload) is in the queue.
    pub notifying: bool,
    /// The number of the queue's entry that wakes the last of the fibers that waited for the end.
    pub told: u64,
    /// The fields above were initialised.
    pub live: bool,
}

impl GreenletObject {
    /// Where the references stand that it owns, besides those of the base and of its links.
    ///
    /// # Safety
    /// `this` is allocated.
    unsafe fn fields(this: *mut Self) -> [*mut *mut PyObject; 9] {
        // SAFETY: addresses only.
        unsafe {
            [
                &raw mut (*this).func,
                &raw mut (*this).args,
                &raw mut (*this).kwargs,
                &raw mut (*this).value,
                &raw mut (*this).exc_info,
                &raw mut (*this).ident,
                &raw mut (*this).formatted,
                &raw mut (*this).spawning_greenlet,
                &raw mut (*this).spawn_tree_locals,
            ]
        }
    }

    /// Gives a fresh (zeroed) object its first values.
    ///
    /// # Safety
    /// `this` was just allocated, with the base part made by the greenlet type.
    pub unsafe fn init_fields(this: *mut Self) {
        // SAFETY: the caller's promise; the fields hold no valid Rust value yet, so they are written.
        unsafe {
            for field in Self::fields(this) {
                field.write(ptr::null_mut());
            }
            (&raw mut (*this).site).write(SpawnSite::Unknown);
            (&raw mut (*this).links).write(VecDeque::new());
            (&raw mut (*this).start).write(StartState::Never);
            (*this).notifying = false;
            (*this).told = 0;
            (*this).live = true;
        }
    }

    /// Whether it has ended, well or badly.
    ///
    /// # Safety
    /// `this` is alive and the GIL is held.
    pub unsafe fn is_ready(this: *mut Self) -> bool {
        // SAFETY: the caller's promise.
        unsafe { !(*this).exc_info.is_null() || Self::is_dead(this) }
    }

    /// What `dead` says: it will not run (again).
    ///
    /// # Safety
    /// As `is_ready`.
    pub unsafe fn is_dead(this: *mut Self) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            if is_running_here(this) {
                return false;
            }
            (*this).start == StartState::Cancelled || (*this).base.status.get() == Status::Dead
        }
    }

    /// For `tp_traverse`.
    ///
    /// # Safety
    /// Called by the collector.
    pub unsafe fn traverse(
        this: *mut Self,
        visit: ffi::visitproc,
        arg: *mut std::ffi::c_void,
    ) -> std::ffi::c_int {
        // SAFETY: the collector's protocol; nothing here runs Python.
        unsafe {
            let me = &*this;
            let fields = Self::fields(this).map(|field| *field);
            let r = visit_all(fields.into_iter().chain([me.site.held()]), visit, arg);
            if r != 0 {
                return r;
            }
            for link in &me.links {
                if let Link::Callable(p) = link {
                    let r = visit(*p, arg);
                    if r != 0 {
                        return r;
                    }
                }
            }
            0
        }
    }

    /// Drops what it holds; for `tp_clear` and `tp_dealloc`.
    ///
    /// # Safety
    /// The GIL is held. May run Python.
    pub unsafe fn clear(this: *mut Self) {
        // SAFETY: each field is emptied before what it held is dropped.
        unsafe {
            for field in Self::fields(this) {
                set(field, ptr::null_mut());
            }
            drop(std::mem::take(&mut (*this).site));
            for link in std::mem::take(&mut (*this).links) {
                if let Link::Callable(p) = link {
                    ffi::Py_DECREF(p);
                }
            }
        }
    }
}

/// The object behind a `self` that is known to be a `Greenlet`.
pub fn cast(slf: *mut PyObject) -> *mut GreenletObject {
    slf.cast()
}

/// Whether it is the running greenlet of this thread.
///
/// # Safety
/// The GIL is held.
pub unsafe fn is_running_here(this: *mut GreenletObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe { ThreadData::get().current.get() == this.cast() }
}
