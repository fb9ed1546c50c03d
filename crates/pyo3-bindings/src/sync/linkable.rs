//! [`Linkable`]: what has a list of waiters, and how they are notified. The list and its rules are
//! [`gevent_sync::links`].
//!
//! When an object becomes ready, each hub with waiters gets one entry in its queue, and what comes of it
//! is upstream's: the hub calls the functions and goes on with the greenlets one after the other, in the
//! order in which they were linked. A greenlet that finds the object ready while that is going on runs
//! after them.

use super::object::{alloc, set, weakly_referenced};
use super::parker::Parker;
use super::{Obj, async_result, enter_python, event, homes, semaphore, thread_mark};
use crate::event_loop::{Loop, LoopHost, Payload};
use crate::hub::HubCore;
use gevent_hub_core::reactor::{Entry, Token, Wake};
use gevent_sync::links::{self, Link, Links, Next, Ready};
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr::null_mut;
use std::sync::Arc;

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
    /// A parked greenlet of the link's hub.
    Fiber(Token),
    /// A function; an owned reference.
    Callable(Obj),
    /// A native thread without a hub.
    Thread(Arc<Parker>),
}

impl links::Who for Who {
    type Function = Obj;

    fn function(&self) -> Option<Obj> {
        match self {
            Who::Callable(f) => Some(*f),
            _ => None,
        }
    }

    fn is_thread(&self) -> bool {
        matches!(self, Who::Thread(_))
    }
}

/// The head of all objects that can be waited for.
#[repr(C)]
pub struct Linkable {
    base: ffi::PyObject,
    weak: Obj,
    /// The hub of the first greenlet that waited: an owned reference or null.
    pub hub: Obj,
    /// In the order of their coming.
    pub links: Links<Who>,
    /// The only thread that used it; 0 for none, [`MULTI`] for several.
    thread: usize,
    /// See [`Kind`].
    pub kind: Kind,
}

/// More than one thread used the object.
const MULTI: usize = 1;

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
            if !(*me).weak.is_null() {
                ffi::PyObject_ClearWeakRefs(me.cast());
            }
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
            let ty: Obj = ffi::Py_TYPE(me.cast()).cast();
            let mut r = visit(ty, arg);
            if r == 0 && !(*me).hub.is_null() {
                r = visit((*me).hub, arg);
            }
            for link in (*me).links.iter() {
                if r != 0 {
                    break;
                }
                if let Who::Callable(f) = link.who {
                    r = visit(f, arg);
                }
            }
            r
        }
    }

    /// Remembers that the calling thread uses the object.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline]
    pub unsafe fn saw_thread(me: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe {
            let mark = thread_mark();
            if (*me).thread != mark {
                (*me).thread = if (*me).thread == 0 { mark } else { MULTI };
            }
        }
    }

    /// Whether several threads have used it.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn is_shared(me: *mut Self) -> bool {
        // SAFETY: the caller's promise.
        unsafe { (*me).thread == MULTI }
    }

    /// Adds a waiter at the end.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn push(me: *mut Self, who: Who, hub: u64, taking: bool, arrived: bool) {
        // SAFETY: the caller's promise; nothing runs meanwhile.
        unsafe { (*me).links.push(who, hub, taking, arrived) };
    }

    /// Takes the waiter with this park off. False if it is not there: somebody has given it what it
    /// waits for.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn remove(me: *mut Self, hub: u64, token: Token) -> bool {
        // SAFETY: the caller's promise; nothing runs meanwhile.
        unsafe {
            let is = |l: &Link<Who>| l.hub == hub && matches!(l.who, Who::Fiber(t) if t == token);
            (*me).links.remove(is).is_some()
        }
    }

    /// The waiter goes on waiting under another name.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn rename(me: *mut Self, hub: u64, old: Token, new: Token) -> bool {
        // SAFETY: the caller's promise; nothing runs meanwhile.
        unsafe {
            let is = |l: &Link<Who>| l.hub == hub && matches!(l.who, Who::Fiber(t) if t == old);
            let found = (*me).links.find(is);
            found.map(|link| link.who = Who::Fiber(new)).is_some()
        }
    }

    /// Takes a native thread off. False if it was woken.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn remove_thread(me: *mut Self, parker: &Arc<Parker>) -> bool {
        // SAFETY: the caller's promise; nothing runs meanwhile.
        unsafe {
            let is = |l: &Link<Who>| matches!(&l.who, Who::Thread(p) if Arc::ptr_eq(p, parker));
            (*me).links.remove(is).is_some()
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
                Kind::Semaphore => semaphore::is_free(me),
            }
        }
    }

    /// Whether a notification is queued or running in this hub.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn notifies(me: *mut Self, hub: u64) -> bool {
        // SAFETY: the caller's promise.
        unsafe { (*me).links.notifies(hub) }
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
                Self::choose(me);
            }
        }
    }

    /// Wakes native threads, and queues notifications in the hubs of the others.
    unsafe fn choose(me: *mut Self) {
        // SAFETY: as `check_and_notify`. No Python runs before the end.
        unsafe {
            let here = HubCore::current().map_or(0, |h| h.core().id());
            let mut object = Object {
                me,
                here,
                indirect: Vec::new(),
                inline: false,
                gone: Vec::new(),
            };
            (*me).links.choose(here, &mut object);
            for hub in object.indirect {
                Self::ask(me, hub);
            }
            if object.inline {
                // No hub at all: nothing else is running, so it may as well happen now.
                Self::notify(me, 0);
            }
            object.gone.into_iter().for_each(|who| drop_who(who));
        }
    }

    /// Has the object in place of another thread's loop schedule the notification.
    #[cold]
    unsafe fn ask(me: *mut Self, hub: u64) {
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

    /// In `hub`: calls the links that belong to it.
    unsafe fn notify(me: *mut Self, hub: u64) {
        // SAFETY: the caller has a reference; no reference into the list is kept over a call.
        unsafe {
            let tells_all = (*me).kind != Kind::Semaphore;
            let mut functions: Vec<Obj> = Vec::new();
            let mut round = (*me).links.begin(hub);
            let blocked = loop {
                let ready = || tells_all || Self::ready(me);
                match (*me).links.next(&mut round, ready) {
                    Next::Blocked => break true,
                    Next::Done => break false,
                    Next::Tell(Who::Fiber(token), _) => {
                        if let Some(h) = HubCore::current() {
                            h.core().hand_over(token, Wake::Event);
                        }
                    }
                    Next::Tell(Who::Callable(f), fresh) => {
                        functions.push(f);
                        if fresh {
                            call(f, me.cast());
                        }
                    }
                    Next::Tell(Who::Thread(_), _) => {}
                }
            };
            if !functions.is_empty() {
                enter_python();
                functions.into_iter().for_each(|f| ffi::Py_DECREF(f));
            }
            if !(*me).links.end(&round, blocked) {
                Self::check_and_notify(me);
            } else if hub == 0 {
                Self::notify(me, 0);
            } else if !schedule(me, hub, hub) {
                (*me).links.forget(hub);
            }
        }
    }
}

/// What the list asks while it chooses whom to wake. Runs no Python.
struct Object {
    me: *mut Linkable,
    here: u64,
    /// Hubs whose loop was replaced by something of Python's.
    indirect: Vec<u64>,
    /// Waiters are to be told at once, by this thread, which has no hub.
    inline: bool,
    gone: Vec<Who>,
}

impl Ready<Who> for Object {
    fn is_ready(&self) -> bool {
        // SAFETY: the object is alive, and the GIL is held.
        unsafe { Linkable::ready(self.me) }
    }

    fn tells_all(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.me).kind != Kind::Semaphore }
    }

    fn give(&self) {
        // SAFETY: as above; only those who wait for a semaphore take something.
        unsafe { semaphore::give(self.me) };
    }

    fn exists(&self, hub: u64) -> bool {
        homes::exists(hub)
    }

    fn wake_thread(&self, who: Who) {
        if let Who::Thread(parker) = who {
            parker.wake();
        }
    }

    fn hand_over(&self, hub: u64, who: Who) -> Result<bool, Who> {
        match who {
            Who::Fiber(token) => Ok(homes::push(hub, Entry::Wake(token, Wake::Ready))),
            other => Err(other),
        }
    }

    fn schedule(&mut self, hub: u64) -> bool {
        if hub == 0 {
            self.inline = true;
        } else if hub != self.here && homes::replaced_loop(hub).is_some() {
            self.indirect.push(hub);
        } else {
            // SAFETY: the caller of `choose` has a reference; the GIL is held.
            return unsafe { schedule(self.me, hub, self.here) };
        }
        true
    }

    fn drop_later(&mut self, who: Who) {
        self.gone.push(who);
    }
}

/// Drops the reference to a function.
unsafe fn drop_who(who: Who) {
    if let Who::Callable(f) = who {
        // SAFETY: the link's own reference; the GIL is held.
        unsafe { ffi::Py_DECREF(f) };
    }
}

/// Calls a link; an error is the hub's, or printed where there is no hub.
unsafe fn call(f: Obj, arg: Obj) {
    // SAFETY: owned or borrowed references that outlive the call; the GIL is held.
    unsafe {
        enter_python();
        let r = crate::tstate::call_one_at_bottom(f, arg);
        enter_python();
        if !r.is_null() {
            ffi::Py_DECREF(r);
            return;
        }
        let py = Python::assume_attached();
        let error = PyErr::fetch(py);
        let Some(hub) = HubCore::current() else {
            error.display(py);
            return;
        };
        let context = crate::raw::pair(f, arg);
        if context.is_null() {
            error.display(py);
            return;
        }
        let context = Bound::from_owned_ptr(py, context);
        let loop_ = Bound::from_borrowed_ptr(py, hub.loop_object()).cast_into_unchecked::<Loop>();
        LoopHost::new(&loop_).report(&context, Err(error));
    }
}

/// Queues a notification in `hub`. False if that is gone.
#[inline]
unsafe fn schedule(me: *mut Linkable, hub: u64, here: u64) -> bool {
    // SAFETY: the entry has a reference of its own.
    unsafe {
        ffi::Py_INCREF(me.cast());
        let entry = Entry::Call(Payload::Links(me.cast()).into_word());
        let queued = match HubCore::current() {
            Some(h) if hub == here => {
                h.reactor().push(entry);
                true
            }
            _ => homes::push(hub, entry),
        };
        if !queued {
            // The caller has a reference too.
            ffi::Py_DECREF(me.cast());
        }
        queued
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
        if let Some(hub) = HubCore::current() {
            let id = hub.core().id();
            // Else it was revoked.
            if Linkable::notifies(p.cast(), id) {
                Linkable::notify(p.cast(), id);
            }
        }
        if ffi::Py_REFCNT(p) > 1 {
            ffi::Py_DECREF(p);
        } else {
            enter_python();
            ffi::Py_DECREF(p);
        }
    }
}

/// Drops, in the child of a fork, the parent's other threads.
///
/// # Safety
/// A linkable; the GIL is held.
pub unsafe fn reinit(me: *mut Linkable) {
    // SAFETY: the caller's promise; what is dropped is dropped last.
    unsafe {
        let here = HubCore::current().map_or(0, |h| h.core().id());
        (*me).thread = 0;
        let stays =
            |l: &Link<Who>| !matches!(l.who, Who::Thread(_)) && (l.hub == 0 || l.hub == here);
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
    unsafe {
        let value = if crate::raw::absent(value) {
            null_mut()
        } else {
            ffi::Py_NewRef(value)
        };
        set(&raw mut (*slf.cast::<Linkable>()).hub, value);
    }
}

/// Links a function, which is called at once if the object is ready and there is no hub.
///
/// # Safety
/// A linkable and a callable; the GIL is held.
pub unsafe fn link(me: *mut Linkable, callback: Obj) {
    // SAFETY: the caller's promise.
    unsafe {
        Linkable::saw_thread(me);
        let hub = match HubCore::current() {
            Some(hub) => hub.core().id(),
            None => crate::hub::id_of((*me).hub),
        };
        let f = ffi::Py_NewRef(callback);
        Linkable::push(me, Who::Callable(f), hub, false, false);
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
        let hub = HubCore::current().map_or(0, |h| h.core().id());
        Linkable::notify(me, hub);
    }
}

/// The table of a linkable's weak references.
pub fn members() -> *mut c_void {
    weakly_referenced(offset_of!(Linkable, weak))
}
