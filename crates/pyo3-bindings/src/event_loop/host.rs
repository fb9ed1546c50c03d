//! Who runs the reactor for Python: calls callbacks, lets go of the GIL around sleeps, looks at signals.

use super::{Callback, Loop, Owner, Payload, Watcher};
use crate::thread_data::ThreadData;
use gevent_hub_core::reactor::{Entry, Host, Nanos, Reactor, Revents, RunMode, WatcherId};
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::Cell;
use std::io;
use std::ptr;

/// Runs what one loop brings.
pub struct LoopHost<'a, 'py> {
    loop_: &'a Bound<'py, Loop>,
    saved: Cell<*mut ffi::PyThreadState>,
}

impl<'a, 'py> LoopHost<'a, 'py> {
    /// For `loop_`, which the calling thread owns.
    pub fn new(loop_: &'a Bound<'py, Loop>) -> Self {
        LoopHost {
            loop_,
            saved: Cell::new(ptr::null_mut()),
        }
    }

    /// Runs it, as the scheduler of its hub if there is one.
    ///
    /// # Errors
    /// Of the backend.
    pub fn run(&self, reactor: &Reactor, mode: RunMode) -> io::Result<bool> {
        let result = match self.loop_.get().hub() {
            // This keeps the hub while the run lasts, should a callback destroy it.
            Some(hub) => reactor.run(hub.core(), mode),
            None => reactor.run(self, mode),
        };
        // Python code follows.
        // SAFETY: the GIL is held, and the greenlet that runs the loop is the current one again.
        unsafe {
            let td = ThreadData::get();
            td.install(td.current.get());
        }
        result
    }

    /// The loop.
    pub fn loop_(&self) -> &Bound<'py, Loop> {
        self.loop_
    }

    /// Hands an error to the loop's handler; one that the handler itself raises ends the run.
    pub fn report(&self, context: &Bound<'_, PyAny>, result: PyResult<()>) {
        if let Err(error) = result
            && let Err(second) = Loop::handle_error_of(self.loop_, context, error)
        {
            second.write_unraisable(self.loop_.py(), Some(context));
        }
    }

    /// A queue entry of which [`Payload::is_native`] is true.
    #[inline]
    pub fn call_natively(word: usize) {
        // SAFETY: queue words are packed payloads, run once, in the hub; they own a reference.
        unsafe {
            match Payload::from_word(word) {
                Payload::Links(p) => crate::sync::linkable::notify_from_queue(p),
                Payload::Queue(p) => crate::sync::exchange::serve_from_queue(p),
                Payload::Drop(p) => crate::sync::linkable::drop_entry(p),
                other => other.discard(),
            }
        }
    }

    /// A queue entry that is not a wake.
    pub fn call(&self, word: usize) {
        if Payload::is_native(word) {
            return Self::call_natively(word);
        }
        install();
        // SAFETY: queue words are packed payloads, run once.
        match unsafe { Payload::from_word(word) } {
            Payload::Callback(p) => {
                let py = self.loop_.py();
                // SAFETY: the queue's own reference.
                let callback = unsafe { Bound::from_owned_ptr(py, p) };
                // SAFETY: only `Callback` objects are packed this way.
                let call = unsafe { callback.cast_unchecked::<Callback>() }.get();
                let result = call.fire(py);
                self.report(&callback, result);
                call.done();
            }
            Payload::Start(p) => crate::gevent_greenlet::start_from_queue(self, p),
            Payload::Notify(p) => crate::gevent_greenlet::notify_from_queue(self, p),
            Payload::Done(p) => {
                let report = |result: &Bound<'_, PyAny>, error| self.report(result, Err(error));
                // SAFETY: the queue's own reference, in the hub.
                unsafe { crate::threadpool::finish_from_queue(p, report) };
            }
            Payload::Job(job) => job(),
            Payload::Links(_) | Payload::Queue(_) | Payload::Drop(_) => {}
        }
    }

    /// A watcher is due.
    pub fn fire_word(&self, id: WatcherId, word: usize, revents: Revents) {
        install();
        let py = self.loop_.py();
        match Owner::from_word(word) {
            Owner::Watcher(p) => {
                // SAFETY: an active or pending watcher holds a reference to itself.
                let watcher =
                    unsafe { Bound::from_borrowed_ptr(py, p).cast_into_unchecked::<Watcher>() };
                let result = Watcher::fire(&watcher, revents);
                self.report(watcher.as_any(), result);
            }
            Owner::Timeout(p) => crate::timeout::expire(self, id, p),
            Owner::StartLater(p) => crate::gevent_greenlet::start_from_timer(self, id, p),
        }
    }

    /// Before a long sleep: runs the handlers of signals that have come; what comes from now on ends the sleep.
    pub fn last_look(&self) {
        install();
        self.check_signals();
        let (py, me) = (self.loop_.py(), self.loop_.get());
        let Some(reactor) = me.reactor_ref().cloned() else {
            return;
        };
        // A handler may have run the loop, or main: then the alarm is off again.
        while me.alarm().set(py, &reactor) {
            match py.check_signals() {
                Ok(()) if me.alarm().is_set() => return,
                Ok(()) => {}
                Err(error) => {
                    me.alarm().unset(py);
                    self.report(py.None().bind(py), Err(error));
                }
            }
            if reactor.is_destroyed() {
                return;
            }
        }
    }

    fn check_signals(&self) {
        let py = self.loop_.py();
        let result = py.check_signals();
        self.report(py.None().bind(py), result);
    }

    /// Runs the handlers of signals that have come, and drops what was left to be dropped.
    pub fn tidy(&self) {
        let me = self.loop_.get();
        if me.alarm().is_set() {
            install();
            me.alarm().unset(self.loop_.py());
        }
        // SAFETY: the GIL is held; dropping and handlers run in the context of the running greenlet.
        unsafe {
            let td = ThreadData::get();
            td.install(td.current.get());
            td.empty_drops();
            if td.needs_attention() {
                td.tidy();
            }
            // After a poll that did not sleep.
            crate::threadpool::flush();
            crate::threadpool::settle();
        }
        self.check_signals();
    }
}

/// Puts the running greenlet's Python state in: Python is about to run.
#[inline]
fn install() {
    // SAFETY: hosts run with the GIL held, on the thread of the loop.
    unsafe {
        let td = ThreadData::get();
        td.install(td.current.get());
    }
}

/// Lets go of the GIL.
pub fn release_gil() -> *mut ffi::PyThreadState {
    install();
    // SAFETY: the GIL is held, with the state of the greenlet that runs the loop installed.
    let saved = unsafe { ffi::PyEval_SaveThread() };
    crate::threadpool::flush();
    saved
}

/// Takes it again.
///
/// # Safety
/// `saved` is what [`release_gil`] returned.
pub unsafe fn take_gil(saved: *mut ffi::PyThreadState) {
    // SAFETY: the caller's promise.
    unsafe { crate::tstate::restore_thread(saved) };
}

impl Host for LoopHost<'_, '_> {
    fn fire(&self, id: WatcherId, data: usize, revents: Revents) {
        self.fire_word(id, data, revents);
    }

    fn run_entry(&self, entry: Entry) {
        // Without a hub nothing parks here, so there are no wakes.
        if let Entry::Call(word) = entry {
            self.call(word);
        }
    }

    fn patience(&self) -> Nanos {
        self.loop_.get().alarm().patience()
    }

    fn last_look(&self) {
        LoopHost::last_look(self);
    }

    fn before_sleep(&self) {
        self.saved.set(release_gil());
    }

    fn after_sleep(&self) {
        // SAFETY: saved by `before_sleep`.
        unsafe { take_gil(self.saved.get()) };
    }

    fn tick(&self) {
        self.tidy();
    }
}

/// Gives up what a destroyed loop's watcher was for. What it held is moved to `held`; nothing runs.
pub fn release_owner(py: Python<'_>, word: usize, held: &mut Vec<Py<PyAny>>) {
    match Owner::from_word(word) {
        Owner::Watcher(p) => {
            // SAFETY: it was active, hence alive.
            let watcher =
                unsafe { Bound::from_borrowed_ptr(py, p).cast_into_unchecked::<Watcher>() };
            Watcher::loop_gone(&watcher, held);
        }
        Owner::Timeout(p) => crate::timeout::loop_gone(py, p, held),
        Owner::StartLater(p) => crate::gevent_greenlet::loop_gone(py, p, held),
    }
}
