//! [`Told`]: a linkable as the rules of [`gevent_sync::links`] see it, and what of telling is put off until its
//! links may be touched.

use super::linkable::{Kind, Linkable, Who, schedule};
use super::{Obj, enter_python, homes, semaphore};
use crate::event_loop::{Loop, LoopHost, Payload};
use crate::hub::HubCore;
use gevent_hub_core::reactor::{Entry, Wake};
use gevent_sync::links::{self, Linked, Links};
use gevent_sync::parker::Sleeper;
use pyo3::ffi;
use pyo3::prelude::*;

/// A linkable as [`gevent_sync::links`] sees it. Its maker holds the object and the GIL.
pub struct Told {
    me: *mut Linkable,
    here: u64,
    /// What is put off, which is mostly nothing.
    later: Option<Box<Later>>,
}

#[derive(Default)]
struct Later {
    /// Hubs whose loop was replaced by something of Python's.
    indirect: Vec<u64>,
    /// Waiters are to be told at once, by this thread, which has no hub.
    inline: bool,
    gone: Vec<Who>,
    /// Functions that were called.
    called: Vec<Obj>,
}

impl Told {
    /// For one use, by the calling thread.
    ///
    /// # Safety
    /// A linkable to which the caller has a reference; the GIL is held.
    #[inline]
    pub unsafe fn new(me: *mut Linkable) -> Self {
        Told {
            me,
            here: HubCore::current_id(),
            later: None,
        }
    }

    fn later(&mut self) -> &mut Later {
        self.later.get_or_insert_default()
    }

    /// Does what was put off.
    ///
    /// # Safety
    /// The GIL is held; the caller has a reference to the object.
    #[cold]
    unsafe fn catch_up(&mut self, later: Later) {
        // SAFETY: the maker of this holds the object and the GIL.
        unsafe {
            enter_python();
            for hub in later.indirect {
                Linkable::ask(self.me, hub);
            }
            if later.inline {
                // No hub at all: nothing else is running, so it may as well happen now.
                links::notify(self, 0);
            }
            later.gone.into_iter().for_each(|who| drop_who(who));
            for f in later.called {
                ffi::Py_DECREF(f);
            }
        }
    }

    /// The object.
    pub fn object(&self) -> *mut Linkable {
        self.me
    }
}

impl Linked for Told {
    type Who = Who;

    #[inline]
    fn links<R>(&self, f: impl FnOnce(&mut Links<Who>) -> R) -> R {
        // SAFETY: the object is alive, and the GIL is held; `f` does not come to the links otherwise.
        f(unsafe { &mut (*self.me).links })
    }

    #[inline]
    fn here(&self) -> u64 {
        self.here
    }

    #[inline]
    fn is_ready(&self) -> bool {
        // SAFETY: as above.
        unsafe { Linkable::ready(self.me) }
    }

    #[inline]
    fn tells_all(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.me).kind != Kind::Semaphore }
    }

    fn give(&self) {
        // SAFETY: as above; only those who wait for a semaphore take something.
        unsafe { (*semaphore::permits(self.me)).give() };
    }

    fn exists(&self, hub: u64) -> bool {
        homes::exists(hub)
    }

    fn wake_thread(&self, who: Who) {
        if let Who::Sleeper(Sleeper::Thread(parker)) = who {
            parker.end(Wake::Event);
        }
    }

    fn hand_over(&self, hub: u64, who: Who) -> bool {
        match who {
            Who::Sleeper(Sleeper::Fiber(token)) => {
                homes::push(hub, Entry::Wake(token, Wake::Ready))
            }
            _ => false,
        }
    }

    fn schedule(&mut self, hub: u64) -> bool {
        if hub == 0 {
            self.later().inline = true;
        } else if hub != self.here && homes::replaced_loop(hub).is_some() {
            self.later().indirect.push(hub);
        } else {
            // SAFETY: as above; the entry has a reference of its own.
            return unsafe {
                let queued = schedule(self.me.cast(), Payload::Links, hub, self.here);
                if !queued {
                    // The caller has a reference too.
                    ffi::Py_DECREF(self.me.cast());
                }
                queued
            };
        }
        true
    }

    fn drop_later(&mut self, who: Who) {
        self.later().gone.push(who);
    }

    #[inline]
    fn tell(&mut self, who: Who, fresh: bool) {
        match who {
            Who::Sleeper(Sleeper::Fiber(token)) => {
                if let Some(h) = HubCore::current() {
                    h.core().hand_over(token, Wake::Event);
                }
            }
            Who::Callable(f) => {
                self.later().called.push(f);
                if fresh {
                    // SAFETY: the link's reference is kept until the object is settled.
                    unsafe { call(f, self.me.cast()) };
                }
            }
            Who::Sleeper(_) => {}
        }
    }

    #[inline]
    fn settle(&mut self) {
        if let Some(later) = self.later.take() {
            // SAFETY: as above.
            unsafe { self.catch_up(*later) };
        }
    }
}

/// Drops the reference to a function.
///
/// # Safety
/// The GIL is held; the link is gone, and `who` was its own.
pub(super) unsafe fn drop_who(who: Who) {
    if let Who::Callable(f) = who {
        // SAFETY: the link's own reference; the GIL is held.
        unsafe { ffi::Py_DECREF(f) };
    }
}

/// Calls a link; an error is the hub's, or printed where there is no hub.
///
/// # Safety
/// The GIL is held; the caller has a reference to both.
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
