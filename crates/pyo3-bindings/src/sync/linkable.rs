//! [`Linkable`]: the list of waiters, and how they are notified.
//!
//! When an object becomes ready, each hub with waiters gets one entry in its queue, and what comes of it
//! is upstream's: the hub calls the functions and goes on with the greenlets one after the other, in the
//! order in which they were linked. A greenlet that finds the object ready while that is going on runs
//! after them.

use super::object::{alloc, attribute, free, or_none, set, weakly_referenced};
use super::parker::Parker;
use super::{Obj, async_result, enter_python, event, homes, semaphore, thread_mark};
use crate::event_loop::{Loop, LoopHost, Payload};
use crate::gevent_greenlet::make_type;
use crate::hub::HubCore;
use crate::raw::{fast, noargs, none, one};
use gevent_hub_core::reactor::{Entry, Token, Wake};
use pyo3::ffi::{self, PyTypeObject};
use pyo3::prelude::*;
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::mem::{self, offset_of};
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

/// One waiter.
pub struct Link {
    /// Who it is.
    pub who: Who,
    /// The hub that it belongs to; 0 if there was none.
    pub hub: u64,
    /// It wants something that only one can have, and another thread may give it.
    pub taking: bool,
    /// It found the object ready, and waits only for those that came before it.
    pub arrived: bool,
    order: u64,
}

/// The head of all objects that can be waited for.
#[repr(C)]
pub struct Linkable {
    base: ffi::PyObject,
    weak: Obj,
    /// The hub of the first greenlet that waited: an owned reference or null.
    pub hub: Obj,
    /// In the order of their coming.
    pub links: VecDeque<Link>,
    order: u64,
    /// The hubs in which a notification is queued or running.
    notifiers: Vec<u64>,
    /// How many notifications are running.
    running: u32,
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
                (&raw mut (*me).links).write(VecDeque::new());
                (&raw mut (*me).notifiers).write(Vec::new());
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
            std::ptr::drop_in_place(&raw mut (*me).notifiers);
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
            let mut at = 0;
            while at < (*me).links.len() {
                if matches!((&(*me).links)[at].who, Who::Callable(_)) {
                    drop_link((*me).links.remove(at));
                    at = 0;
                } else {
                    at += 1;
                }
            }
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
            for link in &(*me).links {
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
        unsafe {
            let order = (*me).order;
            (*me).order += 1;
            (*me).links.push_back(Link {
                who,
                hub,
                taking,
                arrived,
                order,
            });
        }
    }

    /// Takes the waiter with this park off. False if it is not there: somebody has given it what it
    /// waits for.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn remove(me: *mut Self, hub: u64, token: Token) -> bool {
        // SAFETY: the caller's promise; nothing runs meanwhile.
        unsafe {
            let at = (*me)
                .links
                .iter()
                .position(|l| matches!(l.who, Who::Fiber(t) if t == token && l.hub == hub));
            let found = at.is_some_and(|at| (*me).links.remove(at).is_some());
            Self::revoke_if_alone(me);
            found
        }
    }

    /// With nobody linked, a notification that is queued is revoked: it would be the news of a past
    /// event for whoever is linked next.
    unsafe fn revoke_if_alone(me: *mut Self) {
        // SAFETY: the GIL is held.
        unsafe {
            if (*me).links.is_empty() && (*me).running == 0 {
                (*me).notifiers.clear();
            }
        }
    }

    /// The waiter goes on waiting under another name.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn rename(me: *mut Self, hub: u64, old: Token, new: Token) -> bool {
        // SAFETY: the caller's promise; nothing runs meanwhile.
        unsafe {
            for link in &mut (*me).links {
                if link.hub == hub && matches!(link.who, Who::Fiber(t) if t == old) {
                    link.who = Who::Fiber(new);
                    return true;
                }
            }
            false
        }
    }

    /// Takes a native thread off. False if it was woken.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn remove_thread(me: *mut Self, parker: &Arc<Parker>) -> bool {
        // SAFETY: the caller's promise; nothing runs meanwhile.
        unsafe {
            let at = (*me)
                .links
                .iter()
                .position(|l| matches!(&l.who, Who::Thread(p) if Arc::ptr_eq(p, parker)));
            at.is_some_and(|at| (*me).links.remove(at).is_some())
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
        unsafe { (*me).notifiers.contains(&hub) }
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
            let all = (*me).kind != Kind::Semaphore;
            let mut gone = Vec::new();
            let mut inline = false;
            let mut indirect = Vec::new();
            let mut at = 0;
            while at < (*me).links.len() && Self::ready(me) {
                let link = &(&(*me).links)[at];
                if let Who::Thread(parker) = &link.who {
                    let parker = parker.clone();
                    if link.taking {
                        semaphore::give(me);
                    }
                    (*me).links.remove(at);
                    parker.wake();
                    continue;
                }
                let hub = if link.hub == 0 { here } else { link.hub };
                if hub != here && hub != 0 {
                    if !homes::exists(hub) {
                        gone.push((*me).links.remove(at));
                        continue;
                    }
                    if let (true, Who::Fiber(token)) = (link.taking, &link.who) {
                        let entry = Entry::Wake(*token, Wake::Ready);
                        (*me).links.remove(at);
                        if homes::push(hub, entry) {
                            semaphore::give(me);
                        }
                        continue;
                    }
                }
                if !(*me).notifiers.contains(&hub) {
                    (*me).notifiers.push(hub);
                    if hub == 0 {
                        inline = true;
                    } else if hub != here && homes::replaced_loop(hub).is_some() {
                        indirect.push(hub);
                    } else if !schedule(me, hub, here) {
                        Self::forget_notifier(me, hub);
                    }
                }
                if !all {
                    // First come, first served: the others are thought of when that hub is through.
                    break;
                }
                at += 1;
            }
            for hub in indirect {
                Self::ask(me, hub);
            }
            if inline {
                // No hub at all: nothing else is running, so it may as well happen now.
                Self::notify(me, 0);
            }
            gone.into_iter().for_each(|l| drop_link(l));
        }
    }

    /// Has the object in place of another thread's loop schedule the notification.
    #[cold]
    unsafe fn ask(me: *mut Self, hub: u64) {
        // SAFETY: the caller has a reference; the loop is held over the call.
        unsafe {
            let Some(loop_) = homes::replaced_loop(hub) else {
                return Self::forget_notifier(me, hub);
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
                Self::forget_notifier(me, hub);
            } else {
                ffi::Py_DECREF(r);
            }
        }
    }

    unsafe fn forget_notifier(me: *mut Self, hub: u64) {
        // SAFETY: the GIL is held.
        unsafe { (*me).notifiers.retain(|h| *h != hub) };
    }

    /// In `hub`: calls the links that belong to it.
    unsafe fn notify(me: *mut Self, hub: u64) {
        // SAFETY: the caller has a reference.
        unsafe {
            (*me).running += 1;
            let left = Self::run_links(me, hub);
            (*me).running -= 1;
            Self::forget_notifier(me, hub);
            if !left {
                Self::check_and_notify(me);
            } else if !Self::notifies(me, hub) {
                (*me).notifiers.push(hub);
                if hub == 0 {
                    Self::notify(me, 0);
                } else if !schedule(me, hub, hub) {
                    Self::forget_notifier(me, hub);
                }
            }
        }
    }

    /// Calls what was linked before, then those that came to wait in the meantime. Links that are added
    /// by one of the calls are not called. True if greenlets are left that know that it was ready.
    unsafe fn run_links(me: *mut Self, hub: u64) -> bool {
        // SAFETY: the caller has a reference; no reference into the list is kept over a call.
        unsafe {
            let belongs = |l: &Link, arrived: bool| {
                l.arrived == arrived
                    && (l.hub == hub || l.hub == 0)
                    && !matches!(l.who, Who::Thread(_))
            };
            let all = (*me).kind != Kind::Semaphore;
            let mut called: Vec<Obj> = Vec::new();
            let mut over = false;
            for arrived in [false, true] {
                let limit = (*me).order;
                let last = match (*me).links.iter().rev().find(|l| belongs(l, arrived)) {
                    Some(Link {
                        who: Who::Callable(f),
                        ..
                    }) => *f,
                    _ => null_mut(),
                };
                loop {
                    let next = |l: &Link| belongs(l, arrived) && l.order < limit;
                    let Some(at) = (*me).links.iter().position(next) else {
                        break;
                    };
                    if !(arrived || all || Self::ready(me)) {
                        over = true;
                        break;
                    }
                    let Some(link) = (*me).links.remove(at) else {
                        break;
                    };
                    match link.who {
                        Who::Fiber(token) => {
                            if let Some(h) = HubCore::current() {
                                h.core().hand_over(token, Wake::Event);
                            }
                        }
                        Who::Callable(f) => {
                            // One function is called once in a round, even if it was linked twice.
                            let fresh = !called.contains(&f);
                            called.push(f);
                            if fresh {
                                call(f, me.cast());
                            }
                            if f == last {
                                // As upstream: what comes after it has a round of its own.
                                break;
                            }
                        }
                        Who::Thread(_) => {}
                    }
                }
                if over {
                    break;
                }
            }
            if !called.is_empty() {
                enter_python();
                called.into_iter().for_each(|f| ffi::Py_DECREF(f));
            }
            !over && (*me).links.iter().any(|l| belongs(l, true))
        }
    }
}

unsafe fn drop_link(link: Option<Link>) {
    if let Some(Link {
        who: Who::Callable(f),
        ..
    }) = link
    {
        // SAFETY: the link's own reference; the GIL is held.
        unsafe { ffi::Py_DECREF(f) };
    }
}

/// Calls a link; an error is the hub's, or printed where there is no hub.
unsafe fn call(f: Obj, arg: Obj) {
    // SAFETY: owned or borrowed references that outlive the call; the GIL is held.
    unsafe {
        enter_python();
        let r = ffi::PyObject_CallOneArg(f, arg);
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

// ---- the type --------------------------------------------------------------------------------------

unsafe extern "C" fn tp_new(ty: *mut PyTypeObject, _args: Obj, _kwargs: Obj) -> Obj {
    // SAFETY: the slot's contract.
    unsafe { Linkable::make(ty, Kind::Plain).cast() }
}

unsafe extern "C" fn tp_init(slf: Obj, args: Obj, kwargs: Obj) -> c_int {
    // SAFETY: the slot's contract.
    unsafe {
        let mut hub: Obj = null_mut();
        let mut names = [c"hub".as_ptr(), std::ptr::null()];
        if ffi::PyArg_ParseTupleAndKeywords(
            args,
            kwargs,
            c"|O:AbstractLinkable".as_ptr(),
            names.as_mut_ptr().cast(),
            &raw mut hub,
        ) == 0
        {
            return -1;
        }
        set_hub(slf, hub, null_mut())
    }
}

unsafe extern "C" fn dealloc(slf: Obj) {
    // SAFETY: the slot's contract.
    unsafe {
        Linkable::finish(slf.cast());
        free(slf);
    }
}

unsafe extern "C" fn traverse(slf: Obj, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe { Linkable::traverse(slf.cast(), visit, arg) }
}

unsafe extern "C" fn clear(slf: Obj) -> c_int {
    // SAFETY: the collector's protocol.
    unsafe {
        Linkable::clear(slf.cast());
        0
    }
}

unsafe extern "C" fn linkcount(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a linkable.
    unsafe { ffi::PyLong_FromSize_t((*slf.cast::<Linkable>()).links.len()) }
}

unsafe extern "C" fn py_ready(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a linkable.
    unsafe {
        let text = c"%s does not say when it is ready";
        ffi::PyErr_Format(
            ffi::PyExc_TypeError,
            text.as_ptr(),
            (*ffi::Py_TYPE(slf)).tp_name,
        )
    }
}

unsafe extern "C" fn rawlink(slf: Obj, callback: Obj) -> Obj {
    // SAFETY: a linkable.
    unsafe {
        if ffi::PyCallable_Check(callback) == 0 {
            let text = c"Expected callable: %R";
            return ffi::PyErr_Format(ffi::PyExc_TypeError, text.as_ptr(), callback);
        }
        let me = slf.cast::<Linkable>();
        Linkable::saw_thread(me);
        let hub = match HubCore::current() {
            Some(hub) => hub.core().id(),
            None => crate::hub::id_of((*me).hub),
        };
        let f = ffi::Py_NewRef(callback);
        Linkable::push(me, Who::Callable(f), hub, false, false);
        Linkable::check_and_notify(me);
        none()
    }
}

unsafe extern "C" fn unlink(slf: Obj, callback: Obj) -> Obj {
    // SAFETY: a linkable. A comparison may run Python, so the function is held over it, and the list is
    // looked at anew.
    unsafe {
        let me = slf.cast::<Linkable>();
        let mut at = 0;
        while let Some(link) = (*me).links.get(at) {
            let order = link.order;
            if let Who::Callable(f) = link.who {
                ffi::Py_INCREF(f);
                let same = ffi::PyObject_RichCompareBool(f, callback, ffi::Py_EQ);
                ffi::Py_DECREF(f);
                if same < 0 {
                    return null_mut();
                }
                if same > 0 {
                    let found = (*me).links.iter().position(|l| l.order == order);
                    if let Some(found) = found {
                        let link = (*me).links.remove(found);
                        Linkable::revoke_if_alone(me);
                        drop_link(link);
                    }
                    break;
                }
            }
            // The next one that came later than this.
            at = (*me).links.partition_point(|l| l.order <= order);
        }
        none()
    }
}

unsafe extern "C" fn check(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a linkable.
    unsafe {
        Linkable::check_and_notify(slf.cast());
        none()
    }
}

unsafe extern "C" fn notify_links(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a linkable.
    unsafe {
        let hub = HubCore::current().map_or(0, |h| h.core().id());
        Linkable::notify(slf.cast(), hub);
        none()
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
        // What is queued in this thread's hub still is.
        (*me).notifiers.retain(|h| *h == here);
        (*me).thread = 0;
        let mut gone = Vec::new();
        for link in mem::take(&mut (*me).links) {
            let stays = !matches!(link.who, Who::Thread(_)) && (link.hub == 0 || link.hub == here);
            if stays {
                (*me).links.push_back(link);
            } else {
                gone.push(link);
            }
        }
        set(&raw mut (*me).hub, null_mut());
        gone.into_iter().for_each(|l| drop_link(Some(l)));
    }
}

unsafe extern "C" fn at_fork_reinit(slf: Obj, _: Obj) -> Obj {
    // SAFETY: a linkable.
    unsafe {
        reinit(slf.cast());
        none()
    }
}

unsafe extern "C" fn get_hub(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a linkable.
    unsafe { or_none((*slf.cast::<Linkable>()).hub) }
}

/// Sets `hub`; None and null empty it.
///
/// # Safety
/// A linkable; the GIL is held.
pub unsafe extern "C" fn set_hub(slf: Obj, value: Obj, _: *mut c_void) -> c_int {
    // SAFETY: a linkable.
    unsafe {
        let value = if crate::raw::absent(value) {
            null_mut()
        } else {
            ffi::Py_NewRef(value)
        };
        set(&raw mut (*slf.cast::<Linkable>()).hub, value);
        0
    }
}

/// The functions that are linked; a greenlet or thread that waits is shown as None.
unsafe extern "C" fn get_links(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a linkable. Filling the list runs no Python that could change the links: it is not tracked
    // by the collector's allocation count until it is appended to, so the pointers are taken first.
    unsafe {
        let found: Vec<Obj> = (*slf.cast::<Linkable>())
            .links
            .iter()
            .map(|l| match l.who {
                Who::Callable(f) => ffi::Py_NewRef(f),
                _ => none(),
            })
            .collect();
        let list = ffi::PyList_New(found.len() as isize);
        for (at, f) in found.into_iter().enumerate() {
            if list.is_null() {
                ffi::Py_DECREF(f);
            } else {
                ffi::PyList_SET_ITEM(list, at as isize, f);
            }
        }
        list
    }
}

unsafe extern "C" fn get_notifier(slf: Obj, _: *mut c_void) -> Obj {
    // SAFETY: a linkable.
    unsafe {
        match (*slf.cast::<Linkable>()).notifiers.len() {
            0 => none(),
            n => ffi::PyLong_FromSize_t(n),
        }
    }
}

/// The table of a linkable's weak references.
pub fn members() -> *mut c_void {
    weakly_referenced(offset_of!(Linkable, weak))
}

unsafe extern "C" fn wait_fallback(
    slf: Obj,
    items: *const Obj,
    n: ffi::Py_ssize_t,
    names: Obj,
) -> Obj {
    // SAFETY: as the C API calls it.
    unsafe { super::wait::py_wait(slf, items, n, names) }
}

/// Adds the base type and returns it.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<*mut PyTypeObject> {
    let py = m.py();
    let methods = vec![
        noargs(
            c"linkcount",
            linkcount,
            c"Return how many functions and waiters are linked to this object.",
        ),
        noargs(
            c"ready",
            py_ready,
            c"Return whether waiting for this object would not block.",
        ),
        one(
            c"rawlink",
            rawlink,
            c"rawlink(callback)\n\nCall *callback* with this object, once, when it is ready. The call is made in the hub of the current thread, so *callback* must not block.",
        ),
        one(
            c"unlink",
            unlink,
            c"unlink(callback)\n\nDo not call *callback* any more, which was given to rawlink.",
        ),
        noargs(
            c"_check_and_notify",
            check,
            c"Wake what is linked, if the object is ready.",
        ),
        noargs(
            c"_notify_links",
            notify_links,
            c"In a hub: call the links that belong to it.",
        ),
        fast(c"_wait", wait_fallback, 0, c"_wait(timeout=None)"),
        noargs(
            c"_at_fork_reinit",
            at_fork_reinit,
            c"Drop the other threads of the parent, in the child after a fork.",
        ),
    ];
    let attributes = vec![
        attribute(
            c"hub",
            get_hub,
            Some(set_hub),
            c"The hub of the first greenlet that waited. It says nothing about who may use the object.",
        ),
        attribute(
            c"_links",
            get_links,
            None,
            c"The functions that are linked; None for each greenlet and thread that waits.",
        ),
        attribute(
            c"_notifier",
            get_notifier,
            None,
            c"In how many hubs a notification is due or running; None if in none.",
        ),
    ];
    let slots = [
        (ffi::Py_tp_new, tp_new as *mut c_void),
        (ffi::Py_tp_init, tp_init as *mut c_void),
        (ffi::Py_tp_dealloc, dealloc as *mut c_void),
        (ffi::Py_tp_traverse, traverse as *mut c_void),
        (ffi::Py_tp_clear, clear as *mut c_void),
        (ffi::Py_tp_members, members()),
        (
            ffi::Py_tp_doc,
            c"The base of objects that can be waited for."
                .as_ptr()
                .cast_mut()
                .cast(),
        ),
    ];
    // SAFETY: at the module's initialisation, with the GIL held; the size is that of the struct.
    unsafe {
        let base = make_type(
            py,
            c"gevent._abstract_linkable.AbstractLinkable",
            size_of::<Linkable>(),
            &raw mut ffi::PyBaseObject_Type,
            methods,
            attributes,
            &slots,
        )?;
        m.add(
            "AbstractLinkable",
            Bound::from_borrowed_ptr(py, base.cast()),
        )?;
        Ok(base)
    }
}
