//! asyncio's running loop and current task belong to a greenlet, though asyncio keeps them in the thread.
//!
//! When another greenlet goes on, they are taken out of the thread and kept here until theirs does. A raw
//! greenlet shares them with its parent, unless that is the hub: it was started to do a part of the
//! parent's work, as SQLAlchemy's are. A look at one number tells at each switch that there is nothing to
//! do.
//!
//! # Safety
//! The GIL is held; a thread's state is that of the thread which runs.

use crate::greenlet::PyGreenlet;
use crate::hub::HubCore;
use crate::thread_data::ThreadData;
use crate::tstate;
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::cell::{Cell, UnsafeCell};
use std::ffi::c_int;
use std::ptr::null_mut;

type Obj = *mut PyObject;

unsafe extern "C" {
    fn gl_loop_mark(ts: *mut PyThreadState) -> u64;
    fn gl_take_loop(ts: *mut PyThreadState, loop_: *mut Obj, task: *mut Obj) -> c_int;
    fn gl_put_loop(ts: *mut PyThreadState, loop_: Obj, task: Obj);
}

/// A loop and a task: owned references or null.
#[derive(Clone, Copy)]
struct Running {
    loop_: Obj,
    task: Obj,
}

/// The loops of greenlets that do not run, in one thread.
#[derive(Default)]
pub struct Loops {
    /// What `gl_loop_mark` said last.
    mark: Cell<u64>,
    /// A loop is installed, or kept here.
    any: Cell<bool>,
    kept: UnsafeCell<Vec<(*mut PyGreenlet, Running)>>,
}

/// `_asyncio._get_running_loop` and `_set_running_loop`; null if there is no such module.
///
/// # Safety
/// As the module says.
unsafe fn functions() -> (Obj, Obj) {
    // SAFETY: the GIL is held. A module that is loaded is a look-up in a dictionary.
    unsafe {
        let name = ffi::PyUnicode_InternFromString(c"_asyncio".as_ptr());
        let module = ffi::PyImport_GetModule(name);
        ffi::Py_XDECREF(name);
        if module.is_null() {
            ffi::PyErr_Clear();
            return (null_mut(), null_mut());
        }
        let get = ffi::PyObject_GetAttrString(module, c"_get_running_loop".as_ptr());
        let set = ffi::PyObject_GetAttrString(module, c"_set_running_loop".as_ptr());
        ffi::Py_DECREF(module);
        ffi::PyErr_Clear();
        (get, set)
    }
}

/// Whether a loop runs in the thread.
///
/// # Safety
/// As the module says.
unsafe fn runs(ts: *mut PyThreadState) -> bool {
    // SAFETY: the GIL is held, and `ts` is the thread's.
    unsafe {
        if cfg!(Py_3_13) {
            return gl_loop_mark(ts) != 0;
        }
        let found = by_function(|get, _| ffi::PyObject_CallNoArgs(get));
        let runs = !found.is_null() && found != ffi::Py_None();
        ffi::Py_XDECREF(found);
        runs
    }
}

/// Calls `f` with asyncio's two functions, if it ever ran a loop in this thread; an error is dropped.
///
/// # Safety
/// As the module says.
unsafe fn by_function(f: impl FnOnce(Obj, Obj) -> Obj) -> Obj {
    // SAFETY: the caller's promise.
    unsafe {
        let dict = ffi::PyThreadState_GetDict();
        if dict.is_null()
            || ffi::PyDict_GetItemString(dict, c"__asyncio_running_event_loop__".as_ptr()).is_null()
        {
            return null_mut();
        }
        let (get, set) = functions();
        let found = if get.is_null() || set.is_null() {
            null_mut()
        } else {
            f(get, set)
        };
        ffi::Py_XDECREF(get);
        ffi::Py_XDECREF(set);
        ffi::PyErr_Clear();
        found
    }
}

/// Takes what runs out of the thread.
///
/// # Safety
/// As the module says.
unsafe fn take(ts: *mut PyThreadState) -> Running {
    let mut running = Running {
        loop_: null_mut(),
        task: null_mut(),
    };
    // SAFETY: the GIL is held, and `ts` is the thread's. The loop is held over its being unset, so nothing
    // is dropped for good and no Python runs.
    unsafe {
        if gl_take_loop(ts, &raw mut running.loop_, &raw mut running.task) != 0 {
            return running;
        }
        running.loop_ = by_function(|get, set| {
            let found = ffi::PyObject_CallNoArgs(get);
            if found.is_null() || found == ffi::Py_None() {
                ffi::Py_XDECREF(found);
                return null_mut();
            }
            ffi::Py_XDECREF(ffi::PyObject_CallOneArg(set, ffi::Py_None()));
            found
        });
    }
    running
}

/// Puts it (stolen) into the thread, which has none.
///
/// # Safety
/// As the module says; nothing was put into the thread since [`take`].
unsafe fn put(ts: *mut PyThreadState, running: Running) {
    // SAFETY: as `take`.
    unsafe {
        if cfg!(Py_3_13) {
            return gl_put_loop(ts, running.loop_, running.task);
        }
        let (get, set) = functions();
        if !set.is_null() {
            ffi::Py_XDECREF(ffi::PyObject_CallOneArg(set, running.loop_));
        }
        ffi::Py_XDECREF(get);
        ffi::Py_XDECREF(set);
        // The thread has its own reference now.
        ffi::Py_DECREF(running.loop_);
        ffi::PyErr_Clear();
    }
}

/// Whose loop a greenlet uses.
///
/// # Safety
/// The GIL is held; `g` is a greenlet that is alive, or null.
unsafe fn owner(mut g: *mut PyGreenlet) -> *mut PyGreenlet {
    let hub = HubCore::current_greenlet();
    // SAFETY: parents are owned references of greenlets that are alive.
    unsafe {
        while g != hub {
            let parent = (*g).parent.get();
            if parent.is_null() || parent == hub {
                break;
            }
            g = parent;
        }
    }
    g
}

impl Loops {
    /// The Python state of `to` was installed in place of that of `from`; `mark` is what `gl_loop_mark` says now.
    ///
    /// # Safety
    /// In the thread of `td`, whose this is, with the GIL held; both are alive.
    #[inline]
    pub unsafe fn switched(
        &self,
        td: &ThreadData,
        from: *mut PyGreenlet,
        to: *mut PyGreenlet,
        mark: u64,
    ) {
        if self.any.get() || mark != self.mark.get() {
            // SAFETY: the caller's promise.
            unsafe { self.exchange(td, from, to) };
        }
    }

    /// # Safety
    /// As the module says.
    #[cold]
    unsafe fn exchange(&self, td: &ThreadData, from: *mut PyGreenlet, to: *mut PyGreenlet) {
        // SAFETY: as `switched`. The list is not borrowed over a call.
        unsafe {
            let error = tstate::take_raised();
            let (from, to) = (owner(from), owner(to));
            if from == to {
                // A loop that runs is to be looked at again when somebody else goes on.
                let kept = !(*self.kept.get()).is_empty();
                self.any.set(kept || runs(td.tstate));
            } else {
                let running = take(td.tstate);
                if !running.loop_.is_null() {
                    if (*from).active() {
                        (*self.kept.get()).push((from, running));
                    } else {
                        // It has ended, and left its loop running.
                        td.drop_soon(running.loop_);
                        if !running.task.is_null() {
                            td.drop_soon(running.task);
                        }
                    }
                }
                let kept = &mut *self.kept.get();
                let place = kept.iter().position(|(g, _)| *g == to);
                let back = place.map(|at| kept.swap_remove(at).1);
                self.any.set(back.is_some() || !kept.is_empty());
                if let Some(running) = back {
                    put(td.tstate, running);
                }
            }
            self.mark.set(gl_loop_mark(td.tstate));
            if !error.is_null() {
                tstate::set_raised(error);
            }
        }
    }

    /// Drops what is kept, when the thread ends.
    ///
    /// # Safety
    /// The GIL is held. Runs Python.
    pub unsafe fn clear(&self) {
        // SAFETY: taken before anything runs.
        unsafe {
            for (_, running) in std::mem::take(&mut *self.kept.get()) {
                ffi::Py_DECREF(running.loop_);
                ffi::Py_XDECREF(running.task);
            }
        }
    }
}
