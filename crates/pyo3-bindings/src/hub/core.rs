//! [`HubCore`]: the native hub of a thread, and how Python greenlets park on it.
//!
//! The hub is a greenlet whose `run` calls `loop.run()`; inside of that, the scheduler of `hub-core` goes
//! on with parked greenlets by native transfers, which leave the Python states alone. Whoever comes back
//! to Python installs its own state first.

use super::reference::{HubRef, Users};
use crate::event_loop::{Loop, LoopHost, Payload, thread_mark};
use crate::gevent_greenlet::TrackedObject;
use crate::greenlet::{
    Carry, Flags, PyGreenlet, arrive, globals, has_delivery, native_transfer, switch_to,
};
use crate::thread_data::ThreadData;
use crate::tstate;
use gevent_hub_core::fiber::Fiber;
use gevent_hub_core::hub::{Embedder, Hub, Interrupted, Park};
use gevent_hub_core::reactor::{Nanos, Reactor, Remote, Revents, Wake, WatcherId};
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::cell::Cell;
use std::ptr::null_mut;
use std::rc::Rc;
use std::sync::Arc;

/// The native side of one `gevent.hub.Hub`. It belongs to one thread.
pub struct HubCore {
    hub: Hub,
    face: Rc<Face>,
    remote: Arc<Remote>,
    users: Users,
    thread: usize,
}

impl Drop for HubCore {
    fn drop(&mut self) {
        crate::sync::homes::leave(self.hub.id());
        // SAFETY: the reference of `new`; hubs are dropped with the GIL held.
        unsafe { ffi::Py_DECREF(self.face.loop_) };
    }
}

/// What the scheduler sees of Python.
struct Face {
    td: &'static ThreadData,
    /// The hub's greenlet, which owns this.
    greenlet: *mut PyGreenlet,
    /// The hub's loop; an owned reference, since `hub.loop` may be replaced.
    loop_: *mut PyObject,
    saved: Cell<*mut ffi::PyThreadState>,
    /// What the greenlet that is coming back from the hub was sent instead of a wake.
    sent: Cell<Sent>,
    stopping: Cell<bool>,
    /// The hub object has a `switch` of its own.
    own_switch: Cell<bool>,
    /// The type whose `switch` was looked at last, its version, and whether it is ours.
    seen: Cell<(*mut ffi::PyTypeObject, u32, bool)>,
}

#[derive(Clone, Copy, Default)]
enum Sent {
    #[default]
    Nothing,
    /// By `switch(value)`: an owned reference.
    Value(*mut PyObject),
    /// By `throw`: the error is set.
    Error,
}

/// How a park of a Python greenlet ended.
pub enum Parked {
    /// By a wake.
    Woken(Wake),
    /// By somebody's `switch(value)`: an owned reference. `granted` is a wake that it overtook.
    Switched(*mut PyObject, Option<Wake>),
    /// By an exception, which is set.
    Raised(Option<Wake>),
}

impl HubCore {
    /// The native hub of `greenlet`, parking on `reactor`.
    ///
    /// # Safety
    /// The GIL is held; `greenlet` is a hub object that outlives it, `loop_` its loop.
    pub unsafe fn new(
        reactor: Rc<Reactor>,
        greenlet: *mut PyGreenlet,
        loop_: *mut PyObject,
    ) -> Rc<Self> {
        // SAFETY: the caller's promise.
        let td = unsafe { ThreadData::get() };
        // SAFETY: the GIL is held.
        unsafe { ffi::Py_INCREF(loop_) };
        let face = Rc::new(Face {
            td,
            greenlet,
            loop_,
            saved: Cell::new(null_mut()),
            sent: Cell::default(),
            stopping: Cell::new(false),
            own_switch: Cell::new(false),
            seen: Cell::new((null_mut(), 0, true)),
        });
        let remote = reactor.remote();
        let hub = Hub::new(reactor, Box::new(Served(face.clone())));
        Rc::new(HubCore {
            hub,
            face,
            remote,
            users: Users::default(),
            thread: thread_mark(),
        })
    }

    /// The way to it for other threads.
    pub fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    /// Whether it is the running thread's.
    pub fn on_thread(&self) -> bool {
        self.thread == thread_mark()
    }

    /// Who uses it.
    #[inline]
    pub(super) fn users(&self) -> &Users {
        &self.users
    }

    /// The hub of the running thread, if it has one that is attached.
    #[inline]
    pub fn current() -> Option<HubRef> {
        // SAFETY: `detach` resets it before the hub goes.
        unsafe { CURRENT.get().as_ref() }.map(HubRef::new)
    }

    /// The number of the running thread's hub; 0 if it has none.
    #[inline]
    pub fn current_id() -> u64 {
        // SAFETY: as `current`; nothing runs meanwhile.
        unsafe { CURRENT.get().as_ref() }.map_or(0, |hub| hub.hub.id())
    }

    /// The greenlet of the running thread's hub, borrowed; null if it has none.
    #[inline]
    pub fn current_greenlet() -> *mut PyGreenlet {
        // SAFETY: as `current`; nothing runs meanwhile.
        unsafe { CURRENT.get().as_ref() }.map_or(null_mut(), |hub| hub.face.greenlet)
    }

    /// Whether the running greenlet is the thread's hub.
    #[inline]
    pub fn is_running() -> bool {
        // SAFETY: as `current`; nothing runs meanwhile.
        unsafe { CURRENT.get().as_ref() }
            .is_some_and(|hub| hub.face.td.current.get() == hub.face.greenlet)
    }

    /// Makes it the running thread's hub.
    pub fn attach(self: &Rc<Self>) {
        CURRENT.set(Rc::as_ptr(self));
        crate::sync::homes::arrive(
            self.hub.id(),
            self.hub.reactor().remote(),
            std::ptr::from_ref(&*self.face) as usize,
            replaced_loop,
        );
        // SAFETY: reset by `detach`.
        unsafe { Hub::set_current(&raw const self.hub) };
    }

    /// The opposite of `attach`.
    pub fn detach(&self) {
        crate::sync::homes::leave(self.hub.id());
        if std::ptr::eq(CURRENT.get(), self) {
            CURRENT.set(std::ptr::null());
            // SAFETY: none is none.
            unsafe { Hub::set_current(std::ptr::null()) };
        }
    }

    /// The scheduler.
    #[inline]
    pub fn core(&self) -> &Hub {
        &self.hub
    }

    /// Its reactor.
    #[inline]
    pub fn reactor(&self) -> &Rc<Reactor> {
        self.hub.reactor()
    }

    /// The thread.
    #[inline]
    pub fn td(&self) -> &'static ThreadData {
        self.face.td
    }

    /// The hub's greenlet; borrowed.
    pub fn greenlet(&self) -> *mut PyGreenlet {
        self.face.greenlet
    }

    /// The loop object; borrowed.
    pub fn loop_object(&self) -> *mut PyObject {
        self.face.loop_
    }

    /// Refreshes the loop's time; by the method of `hub.loop` if that was replaced. `Err` with an error set.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline]
    pub unsafe fn update_now(&self) -> Result<(), ()> {
        // SAFETY: the hub is alive; its loop is an owned reference or null.
        unsafe {
            let shown = (*self.face.greenlet.cast::<TrackedObject>()).loop_;
            if shown != self.face.loop_ && !shown.is_null() {
                let r = ffi::PyObject_CallMethodNoArgs(shown, super::update_now_name());
                if r.is_null() {
                    return Err(());
                }
                ffi::Py_DECREF(r);
            }
        }
        self.hub.reactor().update_now();
        Ok(())
    }

    /// Says whether the hub object has a `switch` of its own, besides its class's.
    pub fn set_own_switch(&self, own: bool) {
        self.face.own_switch.set(own);
        // Makes the next block look.
        self.face.seen.set((null_mut(), 0, false));
    }

    /// Whether it was told to end.
    pub fn stopping(&self) -> bool {
        self.face.stopping.get()
    }

    /// Sets BlockingSwitchOutError if the hub itself is running, and calls the running greenlet's
    /// `switch_out` if it has one. `Err` with an error set.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline]
    pub unsafe fn may_block(&self) -> Result<(), ()> {
        // SAFETY: the GIL is held and `current` is alive.
        unsafe {
            let me = self.face.td.current.get();
            if me == self.face.greenlet {
                super::raise_blocking();
                return Err(());
            }
            super::switch_out(me)
        }
    }

    /// Parks the running greenlet.
    ///
    /// # Safety
    /// The GIL is held, with the running greenlet's state installed; it is not the hub's.
    #[inline]
    pub unsafe fn park(&self, park: Park<'_>, deadline: Option<Nanos>) -> Parked {
        self.finish(park.wait_always(deadline))
    }

    /// As `park`, for a wake that only another thread can give: the wait keeps the loop running.
    ///
    /// # Safety
    /// As `park`.
    #[cold]
    pub unsafe fn park_for_others(&self, park: Park<'_>, deadline: Option<Nanos>) -> Parked {
        self.reactor().reference();
        // SAFETY: the caller's promise.
        let outcome = unsafe { self.park(park, deadline) };
        self.reactor().unreference();
        outcome
    }

    /// How a park ended that was interrupted in code that knows no Python.
    pub fn interrupted(&self, interrupted: Interrupted) -> Parked {
        self.finish(Err(interrupted))
    }

    #[inline]
    fn finish(&self, outcome: Result<Wake, Interrupted>) -> Parked {
        let sent = self.face.sent.take();
        match (outcome, sent) {
            (Ok(wake), Sent::Nothing) => Parked::Woken(wake),
            (Ok(wake), Sent::Value(v)) => {
                // SAFETY: an owned reference; the GIL is held.
                unsafe { ffi::Py_DECREF(v) };
                Parked::Woken(wake)
            }
            (Ok(wake), Sent::Error) => Parked::Raised(Some(wake)),
            (Err(e), Sent::Error) => Parked::Raised(e.granted),
            (Err(e), Sent::Value(v)) => Parked::Switched(v, e.granted),
            (Err(e), Sent::Nothing) => {
                // Entered by a native transfer that was not a wake: as `switch()`.
                let v = globals().empty_tuple;
                // SAFETY: an immortal object; the GIL is held.
                unsafe { ffi::Py_INCREF(v) };
                Parked::Switched(v, e.granted)
            }
        }
    }
}

/// The object in place of the loop of a hub's face, if there is one.
fn replaced_loop(face: usize) -> Option<usize> {
    // SAFETY: asked with the GIL held while the hub is attached, so the face and the hub are alive.
    unsafe {
        let face = &*(face as *const Face);
        let shown = (*face.greenlet.cast::<TrackedObject>()).loop_;
        (shown != face.loop_ && !shown.is_null()).then_some(shown as usize)
    }
}

thread_local! {
    static CURRENT: Cell<*const HubCore> = const { Cell::new(std::ptr::null()) };
}

impl Face {
    /// Whether `Hub.switch` was replaced on the hub's class or the hub, so that each block has to call it.
    #[inline]
    fn switch_replaced(&self) -> bool {
        // SAFETY: the hub is alive; the type's fields are read with the GIL held.
        unsafe {
            let ty = ffi::Py_TYPE(self.greenlet.cast());
            let (seen, version, ours) = self.seen.get();
            if seen == ty && version == (*ty).tp_version_tag as u32 && version != 0 && ours {
                return false;
            }
        }
        self.look_at_switch()
    }

    #[cold]
    fn look_at_switch(&self) -> bool {
        // SAFETY: as above; `_PyType_Lookup` returns a borrowed reference and sets no error.
        unsafe {
            let ty = ffi::Py_TYPE(self.greenlet.cast());
            let ours = !self.own_switch.get() && super::is_native_switch(ty);
            self.seen.set((ty, (*ty).tp_version_tag as u32, ours));
            !ours
        }
    }

    #[inline]
    fn enter(&self) {
        self.give_way();
        // SAFETY: in its own greenlet again, whose state is installed.
        if unsafe { self.td.observers.may_be() } {
            self.tell_observers();
        }
    }

    /// Tells who watches the thread that this greenlet goes on. An error of theirs takes the place of what was
    /// sent.
    #[cold]
    fn tell_observers(&self) {
        // They may wait, and so be sent something themselves.
        let sent = self.sent.take();
        // SAFETY: as in `enter`.
        let told = unsafe { self.td.observers.tell() };
        self.sent.set(match (told, sent) {
            (Ok(()), sent) => sent,
            (Err(()), Sent::Value(v)) => {
                // SAFETY: an owned reference; the GIL is held.
                unsafe { tstate::drop_keeping_raised(v) };
                Sent::Error
            }
            (Err(()), _) => Sent::Error,
        });
    }

    #[inline]
    fn give_way(&self) {
        let td = self.td;
        // SAFETY: the GIL is held; `me` is the running greenlet, the hub's is another one.
        unsafe {
            let me = td.current.get();
            let hub = self.greenlet;
            if self.switch_replaced() {
                let r = ffi::PyObject_CallMethodNoArgs(hub.cast(), globals().str_switch);
                self.sent.set(if r.is_null() {
                    Sent::Error
                } else {
                    Sent::Value(r)
                });
                return;
            }
            if (*hub).active() && td.tracer.get().is_null() {
                native_transfer(td, hub);
                if !has_delivery(&*me) && td.origin.get().is_null() {
                    td.install(me);
                    return;
                }
                let r = arrive(td, me);
                self.sent.set(if r.is_null() {
                    Sent::Error
                } else {
                    Sent::Value(r)
                });
                return;
            }
            let args = globals().empty_tuple;
            ffi::Py_INCREF(args);
            let r = switch_to(td, hub, Carry::Call(args, null_mut()));
            self.sent.set(if r.is_null() {
                Sent::Error
            } else {
                Sent::Value(r)
            });
        }
    }

    /// Goes on with a greenlet from the loop; the running greenlet is the one that runs the loop.
    #[inline]
    fn go_on(&self, fiber: *const Fiber) {
        let td = self.td;
        // SAFETY: the fiber is a greenlet's that is parked in this thread, hence alive.
        unsafe {
            let me = td.current.get();
            let target = PyGreenlet::from_fiber(fiber);
            let own_switch = (*target).flags.get().has(Flags::OWN_SWITCH);
            if td.tracer.get().is_null() && !own_switch {
                native_transfer(td, target);
                if has_delivery(&*me) || !td.origin.get().is_null() {
                    self.was_sent(arrive(td, me));
                }
                if td.has_drops() {
                    // It has ended: what it leaves is dropped by the loop's greenlet.
                    td.install(me);
                    td.empty_drops();
                }
                return;
            }
            td.install(me);
            if own_switch {
                let r = ffi::PyObject_CallMethodNoArgs(target.cast(), globals().str_switch);
                self.was_sent(r);
                return;
            }
            let args = globals().empty_tuple;
            ffi::Py_INCREF(args);
            self.was_sent(switch_to(td, target, Carry::Value(args)));
        }
    }

    /// The loop was switched to, or something was thrown into it.
    fn was_sent(&self, value: *mut PyObject) {
        if !value.is_null() {
            // SAFETY: an owned reference, with this greenlet's state installed.
            unsafe { ffi::Py_DECREF(value) };
            return;
        }
        self.with_host(|host| {
            let py = host.loop_().py();
            let error = PyErr::fetch(py);
            if super::is_hub_destroyed(py, &error) {
                self.stopping.set(true);
                if let Some(r) = host.loop_().get().reactor_ref() {
                    r.break_(true);
                }
                return;
            }
            // SAFETY: the hub is alive.
            let context = unsafe { Bound::from_borrowed_ptr(py, self.greenlet.cast()) };
            host.report(&context, Err(error));
        });
    }

    #[inline]
    fn with_host<R>(&self, f: impl FnOnce(&LoopHost<'_, '_>) -> R) -> R {
        // SAFETY: the scheduler runs with the GIL held.
        let py = unsafe { Python::assume_attached() };
        // SAFETY: the hub keeps its loop; what is called here may drop the hub, so hold the loop.
        let loop_ =
            unsafe { Bound::from_borrowed_ptr(py, self.loop_).cast_into_unchecked::<Loop>() };
        f(&LoopHost::new(&loop_))
    }
}

struct Served(Rc<Face>);

impl Embedder for Served {
    #[inline]
    fn enter_hub(&self) {
        self.0.enter();
    }

    #[inline]
    fn resume(&self, fiber: *const Fiber) {
        self.0.go_on(fiber);
    }

    #[inline]
    fn expect(&self, fiber: *const Fiber, near: bool) {
        // SAFETY: a greenlet's fiber that is parked in this thread, hence alive.
        unsafe { PyGreenlet::expect(fiber, near) };
    }

    #[inline]
    fn current(&self) -> *const Fiber {
        self.0.td.switcher.current()
    }

    fn was_overtaken(&self) -> bool {
        let sent = &self.0.sent;
        match sent.get() {
            Sent::Nothing => false,
            Sent::Error => true,
            Sent::Value(v) => {
                sent.set(Sent::Nothing);
                // SAFETY: an owned reference; the GIL is held.
                unsafe { ffi::Py_DECREF(v) };
                false
            }
        }
    }

    fn call(&self, payload: usize) {
        if Payload::is_native(payload) {
            return LoopHost::call_natively(payload);
        }
        self.0.with_host(|host| host.call(payload));
    }

    fn fire(&self, id: WatcherId, data: usize, revents: Revents) {
        self.0.with_host(|host| host.fire_word(id, data, revents));
    }

    fn patience(&self) -> Nanos {
        self.0
            .with_host(|host| host.loop_().get().alarm().patience())
    }

    fn last_look(&self) {
        self.0.with_host(|host| host.last_look());
    }

    fn before_sleep(&self) {
        self.0.saved.set(crate::event_loop::release_gil());
    }

    fn after_sleep(&self) {
        // SAFETY: saved by `before_sleep`.
        unsafe { crate::event_loop::take_gil(self.0.saved.get()) };
    }

    fn tick(&self) {
        self.0.with_host(|host| host.tidy());
    }
}
