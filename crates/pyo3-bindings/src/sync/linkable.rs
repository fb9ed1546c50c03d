//! [`Linkable`]: what has a list of waiters, and the ways to those who are linked. The list, its rules, and
//! who is told when are [`gevent_sync::links`].
//!
//! When an object becomes ready, each hub with waiters gets one entry in its queue, and what comes of it
//! is upstream's: the hub calls the functions and goes on with the greenlets one after the other, in the
//! order in which they were linked. A greenlet that finds the object ready while that is going on runs
//! after them.

use super::object::{alloc, clear_weak, free, set, set_or_empty, visit_all};
use super::told::{Told, drop_who};
use super::{Obj, Users, async_result, enter_python, event, homes, semaphore};
use crate::event_loop::Payload;
use crate::hub::HubCore;
use gevent_hub_core::reactor::Entry;
use gevent_sync::links::{self, Link, Linked, Links};
use gevent_sync::parker::Sleeper;
use pyo3::ffi::{self, PyTypeObject};
use std::ffi::{CStr, c_int, c_void};
use std::ptr::null_mut;

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An `AbstractLinkable`, never ready.
    Plain,
    /// An `Event`.
    Event,
    /// An `AsyncResult`.
    Result,
    /// A `Semaphore`.
    Semaphore,
}

/// Who is told.
pub enum Who {
    /// A parked greenlet of the link's hub, or a native thread without a hub.
    Sleeper(Sleeper),
    /// A function; an owned reference.
    Callable(Obj),
}

impl From<Sleeper> for Who {
    #[inline]
    fn from(sleeper: Sleeper) -> Self {
        Who::Sleeper(sleeper)
    }
}

impl links::Who for Who {
    type Function = Obj;

    #[inline]
    fn function(&self) -> Option<Obj> {
        match self {
            Who::Callable(f) => Some(*f),
            Who::Sleeper(_) => None,
        }
    }

    #[inline]
    fn is_thread(&self) -> bool {
        matches!(self, Who::Sleeper(Sleeper::Thread(_)))
    }

    #[inline]
    fn id(&self) -> Option<u64> {
        match self {
            Who::Sleeper(sleeper) => Some(sleeper.id()),
            Who::Callable(_) => None,
        }
    }
}

/// The head of all objects that can be waited for.
#[repr(C)]
pub struct Linkable {
    base: ffi::PyObject,
    /// The list of weak references.
    pub weak: Obj,
    /// The hub of the first greenlet that waited: an owned reference or null.
    pub hub: Obj,
    /// In the order of their coming.
    pub links: Links<Who>,
    /// Which threads use it.
    pub users: Users,
    /// See [`Kind`].
    pub kind: Kind,
}

impl Linkable {
    /// Makes an object of `ty` whose other fields are zeros.
    ///
    /// # Safety
    /// `ty` is one of the types of this folder or below it; the GIL is held.
    pub unsafe fn make(ty: *mut PyTypeObject, kind: Kind) -> *mut Self {
        // SAFETY: zeroed memory, in which what is no plain value is written.
        unsafe {
            let me = alloc(ty).cast::<Linkable>();
            if !me.is_null() {
                (&raw mut (*me).links).write(Links::default());
                (&raw mut (*me).kind).write(kind);
            }
            me
        }
    }

    /// For `tp_dealloc`: before the fields of the type itself go.
    ///
    /// # Safety
    /// The slot's contract.
    pub unsafe fn finish(me: *mut Self) {
        // SAFETY: the object is going; the collector does not look at it any more.
        unsafe {
            ffi::PyObject_GC_UnTrack(me.cast());
            clear_weak(me.cast(), (*me).weak);
            Self::clear(me);
            std::ptr::drop_in_place(&raw mut (*me).links);
        }
    }

    /// Drops what it refers to.
    ///
    /// # Safety
    /// The GIL is held. May run Python.
    pub unsafe fn clear(me: *mut Self) {
        // SAFETY: fields are emptied before what they held is dropped. Waiting greenlets have a
        // reference to the object, so when it is really unreachable only functions are left.
        unsafe {
            set(&raw mut (*me).hub, null_mut());
            if (*me).links.is_empty() {
                return;
            }
            let functions = (*me)
                .links
                .retain(|l| !matches!(l.who, Who::Callable(_)), |_| true);
            functions.into_iter().for_each(|who| drop_who(who));
        }
    }

    /// For `tp_traverse`.
    ///
    /// # Safety
    /// Called by the collector.
    pub unsafe fn traverse(me: *mut Self, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
        // SAFETY: the collector's protocol; nothing here runs Python.
        unsafe {
            let functions = (*me).links.iter().map(|link| match link.who {
                Who::Callable(f) => f,
                Who::Sleeper(_) => null_mut(),
            });
            let ty: Obj = ffi::Py_TYPE(me.cast()).cast();
            visit_all([ty, (*me).hub].into_iter().chain(functions), visit, arg)
        }
    }

    /// Whether a wait would not block.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline]
    pub unsafe fn ready(me: *mut Self) -> bool {
        // SAFETY: the kind says which type it is.
        unsafe {
            match (*me).kind {
                Kind::Plain => false,
                Kind::Event => event::is_set(me),
                Kind::Result => async_result::is_ready(me),
                Kind::Semaphore => (*semaphore::permits(me)).is_free(),
            }
        }
    }

    /// Wakes who is linked, if the object is ready. Any thread may call this.
    ///
    /// # Safety
    /// The GIL is held, and the caller has a reference to the object.
    #[inline]
    pub unsafe fn check_and_notify(me: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe {
            if !(*me).links.is_empty() {
                links::check_and_notify(&mut Told::new(me));
            }
        }
    }

    /// Has the object in place of another thread's loop schedule the notification.
    ///
    /// # Safety
    /// The GIL is held; the caller has a reference to `me`.
    #[cold]
    pub(super) unsafe fn ask(me: *mut Self, hub: u64) {
        // SAFETY: the caller has a reference; the loop is held over the call.
        unsafe {
            let Some(loop_) = homes::replaced_loop(hub) else {
                return (*me).links.forget(hub);
            };
            ffi::Py_INCREF(loop_);
            let name = ffi::PyUnicode_InternFromString(c"run_callback_threadsafe".as_ptr());
            let f = ffi::PyObject_GetAttrString(me.cast(), c"_notify_links".as_ptr());
            let r = if f.is_null() {
                null_mut()
            } else {
                ffi::PyObject_CallMethodOneArg(loop_, name, f)
            };
            ffi::Py_XDECREF(f);
            ffi::Py_XDECREF(name);
            ffi::Py_DECREF(loop_);
            if r.is_null() {
                ffi::PyErr_WriteUnraisable(me.cast());
                (*me).links.forget(hub);
            } else {
                ffi::Py_DECREF(r);
            }
        }
    }
}

/// Queues an entry for an object in `hub`, with a reference to it that is the entry's. False if the hub is
/// gone: then the reference is the caller's.
///
/// # Safety
/// The GIL is held; `here` is the hub of the calling thread, or 0.
#[inline]
pub unsafe fn schedule(slf: Obj, what: fn(Obj) -> Payload, hub: u64, here: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { ffi::Py_INCREF(slf) };
    let entry = Entry::Call(what(slf).into_word());
    match HubCore::current() {
        Some(h) if hub == here => {
            h.reactor().push(entry);
            true
        }
        _ => homes::push(hub, entry),
    }
}

/// Drops the reference of an entry of a hub's queue, when that was dealt with.
///
/// # Safety
/// The entry's own reference; in the hub, with the GIL held.
#[inline]
pub unsafe fn drop_entry(p: Obj) {
    // SAFETY: the caller's promise.
    unsafe {
        if ffi::Py_REFCNT(p) == 1 {
            enter_python();
        }
        ffi::Py_DECREF(p);
    }
}

/// An entry of a hub's queue: a notification is due. Owns a reference to the object. The Python state
/// that is in may be any greenlet's.
///
/// # Safety
/// From the queue, in the hub.
pub unsafe fn notify_from_queue(p: Obj) {
    // SAFETY: the queue's own reference.
    unsafe {
        let me = p.cast::<Linkable>();
        if let Some(hub) = HubCore::current() {
            let id = hub.core().id();
            // Else it was revoked.
            if (*me).links.notifies(id) {
                links::notify(&mut Told::new(me), id);
            }
        }
        drop_entry(p);
    }
}

/// Drops, in the child of a fork, the parent's other threads.
///
/// # Safety
/// A linkable; the GIL is held.
pub unsafe fn reinit(me: *mut Linkable) {
    // SAFETY: the caller's promise; what is dropped is dropped last.
    unsafe {
        let here = HubCore::current_id();
        (*me).users = Users::default();
        let stays = |l: &Link<Who>| !links::Who::is_thread(&l.who) && (l.hub == 0 || l.hub == here);
        // What is queued in this thread's hub still is.
        let gone = (*me).links.retain(stays, |hub| hub == here);
        set(&raw mut (*me).hub, null_mut());
        gone.into_iter().for_each(|who| drop_who(who));
    }
}

/// Sets `hub` (borrowed); None and null empty it.
///
/// # Safety
/// A linkable; the GIL is held.
pub unsafe fn set_hub(slf: Obj, value: Obj) {
    // SAFETY: the caller's promise.
    unsafe { set_or_empty(&raw mut (*slf.cast::<Linkable>()).hub, value) };
}

/// `tp_init(hub=None)` of a linkable; `format` has the name of the class.
///
/// # Safety
/// The slot's contract; `slf` is a linkable.
pub unsafe fn init_with_hub(slf: Obj, args: Obj, kwargs: Obj, format: &CStr) -> c_int {
    // SAFETY: the caller's promise; the argument is borrowed.
    unsafe {
        let mut hub: Obj = null_mut();
        let mut names = [c"hub".as_ptr(), std::ptr::null()];
        if ffi::PyArg_ParseTupleAndKeywords(
            args,
            kwargs,
            format.as_ptr(),
            names.as_mut_ptr().cast(),
            &raw mut hub,
        ) == 0
        {
            return -1;
        }
        set_hub(slf, hub);
        0
    }
}

/// Links a function, which is called at once if the object is ready and there is no hub.
///
/// # Safety
/// A linkable and a callable; the GIL is held.
pub unsafe fn link(me: *mut Linkable, callback: Obj) {
    // SAFETY: the caller's promise.
    unsafe {
        (*me).users.saw();
        let hub = match HubCore::current() {
            Some(hub) => hub.core().id(),
            None => crate::hub::id_of((*me).hub),
        };
        let f = ffi::Py_NewRef(callback);
        (*me).links.push(Who::Callable(f), hub, false, false);
        Linkable::check_and_notify(me);
    }
}

/// Takes the first function off that is equal to `callback`. `Err` with an error set.
///
/// # Safety
/// As [`link`].
pub unsafe fn unlink(me: *mut Linkable, callback: Obj) -> Result<(), ()> {
    // SAFETY: the caller's promise. A comparison may run Python, so the function is held over it, and the
    // list is looked at anew.
    unsafe {
        let mut last = None;
        while let Some((order, f)) = (*me).links.function_after(last) {
            ffi::Py_INCREF(f);
            let same = ffi::PyObject_RichCompareBool(f, callback, ffi::Py_EQ);
            ffi::Py_DECREF(f);
            if same < 0 {
                return Err(());
            }
            if same > 0 {
                if let Some(who) = (*me).links.remove(|l| l.order() == order) {
                    drop_who(who);
                }
                break;
            }
            last = Some(order);
        }
        Ok(())
    }
}

/// In the running thread's hub: tells the links that belong to it.
///
/// # Safety
/// A linkable that the caller holds; the GIL is held.
pub unsafe fn notify_here(me: *mut Linkable) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut told = Told::new(me);
        let hub = told.here();
        links::notify(&mut told, hub);
        // Whoever was gone on with has left their state.
        enter_python();
    }
}

// ---- the slots of types that add no references ------------------------------------------------------

/// `tp_dealloc`.
///
/// # Safety
/// The slot's contract.
#[crate::entry]
pub unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe {
        Linkable::finish(slf.cast());
        free(slf);
    }
}

/// `tp_traverse`.
///
/// # Safety
/// The slot's contract.
#[crate::entry(silent)]
pub unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe { Linkable::traverse(slf.cast(), visit, arg) }
}

/// `tp_clear`.
///
/// # Safety
/// The slot's contract.
#[crate::entry]
pub unsafe extern "C" fn clear(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        Linkable::clear(slf.cast());
        0
    }
}
