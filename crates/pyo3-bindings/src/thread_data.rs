//! What a Python thread knows about its greenlets: which runs, which state is installed, what waits to
//! be dropped. One [`ThreadData`] for each `PyThreadState` (not for each OS thread: a foreign thread
//! gets a new thread state at each `PyGILState_Ensure`).
//!
//! It lives in a capsule in the thread state's dictionary, so it ends in `PyThreadState_Clear`, with the
//! GIL held. Whoever clears a thread state that is not its own (after a fork, at finalisation) only
//! detaches it: the stacks of that thread's greenlets are then never touched again.

use crate::greenlet::object::{Flags, PyGreenlet, Status, globals};
use crate::observers::Observers;
use crate::running_loop::Loops;
use crate::tstate;
use gevent_hub_core::fiber::{Fiber, Switcher};
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::cell::{Cell, UnsafeCell};
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicIsize, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The data of the thread that asked last. The GIL protects it; it is only a shortcut, valid if its
/// thread state is the running one.
static LAST: AtomicPtr<ThreadData> = AtomicPtr::new(null_mut());

/// Main greenlets that exist.
static MAIN_GREENLETS: AtomicIsize = AtomicIsize::new(0);

/// What exists, as addresses by serial number. Changed with the GIL held, as the process is copied, so that
/// no copy has it locked.
static ALL: Mutex<Vec<(u64, usize)>> = Mutex::new(Vec::new());

/// The serial number that the next one gets.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

/// A stretch of a thread in which it does not switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    serial: u64,
    switches: u64,
}

impl Stretch {
    /// Whether its thread, which may be another one, lives and has not switched since. No thread of the parent
    /// lives in a forked child, but for the one that has forked.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn lasts(&self) -> bool {
        let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter().find(|(serial, _)| *serial == self.serial);
        // SAFETY: what is listed exists, and the GIL guards its cells.
        found.is_some_and(|&(_, td)| unsafe {
            (*(td as *const ThreadData)).switches.get() == self.switches
        })
    }
}

thread_local! {
    /// The id of the thread state that is being cleared in this OS thread, if any.
    static ENDED: Cell<i64> = const { Cell::new(-1) };
}

/// Called when a thread ends, see [`ThreadData::on_exit`].
pub type ExitHook = unsafe fn(&ThreadData, bool);

/// One Python thread. Every method wants the GIL, and all but those marked so, the thread itself.
pub struct ThreadData {
    /// A number that no other one has had.
    serial: u64,
    /// The thread state this belongs to.
    pub tstate: *mut PyThreadState,
    /// The running greenlet; one reference to it is owned.
    pub current: Cell<*mut PyGreenlet>,
    /// The greenlet of the thread's own stack; one reference is owned.
    pub main: *mut PyGreenlet,
    /// Whose Python state is in the thread state. It is `current` whenever Python code runs; after a
    /// native transfer it may be a parked one. Never a freed one.
    pub installed: Cell<*mut PyGreenlet>,
    /// Who switched to the greenlet that is just arriving: the reference that `current` had. Null
    /// after a native transfer.
    pub origin: Cell<*mut PyGreenlet>,
    /// The function of `settrace`, or null. Owned.
    pub tracer: Cell<*mut PyObject>,
    /// What `gettrace` shows though it is not called: it looks at [`switches`](Self::switches) instead.
    /// Owned, or null.
    pub quiet_tracer: Cell<*mut PyObject>,
    /// How many switches there were.
    pub switches: Cell<u64>,
    /// The thread's hub, for the embedder: an owned reference or null, dropped with the thread.
    pub hub: Cell<*mut PyObject>,
    /// Called first when the thread ends: with `true` in the thread itself, with `false` when another
    /// thread clears it, where nothing may run or be closed in its name.
    pub on_exit: Cell<Option<ExitHook>>,
    /// Who watches the thread's Python code.
    pub observers: Observers,
    /// Moves between the stacks.
    pub switcher: Switcher,
    loops: Loops,
    to_kill: UnsafeCell<Vec<*mut PyGreenlet>>,
    drops: UnsafeCell<Vec<*mut PyObject>>,
    attention: Cell<bool>,
    os_thread: libc::pthread_t,
}

impl ThreadData {
    /// The running thread's data, made at the first use.
    ///
    /// The reference is good until the thread state is cleared, that is: for as long as the code that
    /// asked can run.
    ///
    /// # Panics
    /// If there is no memory at a thread's first use: the entry raises MemoryError.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline]
    pub unsafe fn get() -> &'static ThreadData {
        // SAFETY: the GIL is held; a thread's data lives as long as its thread state, and `LAST` is
        // reset when one ends.
        unsafe {
            let ts = ffi::PyThreadState_Get();
            let last = LAST.load(Ordering::Relaxed);
            if !last.is_null() && (*last).tstate == ts {
                return &*last;
            }
            Self::find(ts)
        }
    }

    /// # Safety
    /// The GIL is held; `ts` is the running thread's.
    #[cold]
    unsafe fn find(ts: *mut PyThreadState) -> &'static ThreadData {
        // SAFETY: as `get`. A pending error is put back: a look-up must not lose it.
        unsafe {
            let pending = tstate::take_raised();
            let dict = ffi::PyThreadState_GetDict();
            let found = if dict.is_null() {
                null_mut()
            } else {
                ffi::PyDict_GetItemWithError(dict, globals().thread_key)
            };
            let td = if found.is_null() {
                Self::make(ts, dict)
            } else {
                ffi::PyCapsule_GetPointer(found, NAME.as_ptr()).cast::<ThreadData>()
            };
            if td.is_null() {
                ffi::Py_XDECREF(pending);
                crate::entry::out_of_memory();
            }
            if !pending.is_null() {
                tstate::set_raised(pending);
            }
            // A thread state that is being cleared will not tell when it is gone: do not remember it.
            if ENDED.get() != ffi::PyThreadState_GetID(ts) {
                LAST.store(td, Ordering::Relaxed);
            }
            &*td
        }
    }

    /// The address of the greenlet that runs in the thread that asked last, 0 for none. For a signal
    /// handler: it needs no GIL, and may be that of another thread.
    pub fn running_greenlet() -> usize {
        let last = LAST.load(Ordering::Relaxed);
        if last.is_null() {
            return 0;
        }
        // SAFETY: `LAST` is reset before what it points to ends.
        unsafe { (*last).current.get() as usize }
    }

    /// # Safety
    /// As [`find`](Self::find); `dict` is the thread's dictionary.
    unsafe fn make(ts: *mut PyThreadState, dict: *mut PyObject) -> *mut ThreadData {
        // SAFETY: as `get`.
        unsafe {
            let main = PyGreenlet::alloc_exact(Fiber::root());
            if main.is_null() {
                return null_mut();
            }
            MAIN_GREENLETS.fetch_add(1, Ordering::Relaxed);
            (*main).flags.set(Flags::MAIN);
            crate::overflow::prepare_thread();
            let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed);
            let td = Box::into_raw(Box::new(ThreadData {
                serial,
                tstate: ts,
                current: Cell::new(main),
                main,
                installed: Cell::new(main),
                origin: Cell::new(null_mut()),
                tracer: Cell::new(null_mut()),
                quiet_tracer: Cell::new(null_mut()),
                switches: Cell::new(0),
                hub: Cell::new(null_mut()),
                on_exit: Cell::new(None),
                observers: Observers::of(ts),
                switcher: Switcher::new(&raw const (*main).fiber),
                loops: Loops::default(),
                to_kill: UnsafeCell::default(),
                drops: UnsafeCell::default(),
                attention: Cell::new(false),
                os_thread: libc::pthread_self(),
            }));
            if !dict.is_null() {
                // Its destructor comes last: until then a failure finds nothing that was told of it.
                let capsule = ffi::PyCapsule_New(td.cast(), NAME.as_ptr(), None);
                if capsule.is_null() || ffi::PyDict_SetItem(dict, globals().thread_key, capsule) < 0
                {
                    ffi::Py_XDECREF(capsule);
                    drop(Box::from_raw(td));
                    ffi::Py_DECREF(main.cast());
                    return null_mut();
                }
                ffi::PyCapsule_SetDestructor(capsule, Some(thread_ended));
                ffi::Py_DECREF(capsule);
            }
            ffi::Py_INCREF(main.cast());
            (*main).status.set(Status::Live);
            (*main).td.set(td);
            (*main).bound.set(main);
            ALL.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((serial, td as usize));
            td
        }
    }

    /// What lasts until the thread switches.
    #[inline]
    pub fn stretch(&self) -> Stretch {
        Stretch {
            serial: self.serial,
            switches: self.switches.get(),
        }
    }

    /// How many main greenlets exist.
    pub fn main_greenlets() -> isize {
        MAIN_GREENLETS.load(Ordering::Relaxed)
    }

    /// A main greenlet is gone.
    pub(crate) fn main_greenlet_freed() {
        MAIN_GREENLETS.fetch_sub(1, Ordering::Relaxed);
    }

    /// Puts the Python state of `g` into the thread state, if it is not there already: to be called
    /// before Python runs on behalf of `g`.
    ///
    /// # Safety
    /// In this thread with the GIL; `g` belongs to it and has a state.
    #[inline]
    pub unsafe fn install(&self, g: *mut PyGreenlet) {
        let now = self.installed.get();
        if now != g {
            // SAFETY: `installed` is alive by the rule of the field; `g` by the caller's promise.
            unsafe {
                let mark = (*now).state.swap(self.tstate, &(*g).state);
                self.installed.set(g);
                self.loops.switched(self, now, g, mark);
            }
        }
    }

    /// Whether something is to be done before Python goes on: [`tidy`](Self::tidy).
    #[inline]
    pub fn needs_attention(&self) -> bool {
        self.attention.get()
    }

    /// Leaves a greenlet (with the one reference that the caller gives) to this thread, because only
    /// here it can be killed. Any thread.
    ///
    /// # Safety
    /// The GIL is held; `g` is parked in this thread.
    pub unsafe fn kill_later(&self, g: *mut PyGreenlet) {
        // SAFETY: the GIL excludes others, and nothing runs while the borrow lasts.
        unsafe { (*self.to_kill.get()).push(g) };
        self.attention.set(true);
    }

    /// Drops what other threads left here: it runs Python code. A pending error survives.
    ///
    /// # Safety
    /// In this thread with the GIL, in the context of the running greenlet.
    #[cold]
    pub unsafe fn tidy(&self) {
        self.attention.set(false);
        // SAFETY: in the context of the running greenlet.
        unsafe { self.empty_drops() };
        // SAFETY: taken before anything runs.
        let list = unsafe { std::mem::take(&mut *self.to_kill.get()) };
        if list.is_empty() || tstate::finalizing() {
            return;
        }
        // SAFETY: the GIL is held; each entry is a reference we own.
        unsafe {
            let pending = tstate::take_raised();
            for g in list {
                ffi::Py_DECREF(g.cast());
                if !ffi::PyErr_Occurred().is_null() {
                    ffi::PyErr_WriteUnraisable(null_mut());
                }
            }
            if !pending.is_null() {
                tstate::set_raised(pending);
            }
        }
    }

    /// Keeps a reference to be dropped when Python may run: for code between two installed states.
    ///
    /// # Safety
    /// In this thread with the GIL; `obj` is a reference that the caller gives away.
    #[inline]
    pub unsafe fn drop_later(&self, obj: *mut PyObject) {
        // SAFETY: in this thread; nothing runs while the borrow lasts.
        unsafe { (*self.drops.get()).push(obj) };
    }

    /// [`drop_later`](Self::drop_later) in any case, seen to at the next call of a greenlet function.
    ///
    /// # Safety
    /// As [`drop_later`](Self::drop_later).
    pub unsafe fn hold(&self, obj: *mut PyObject) {
        // SAFETY: the caller's promise.
        unsafe { self.drop_later(obj) };
        self.attention.set(true);
    }

    /// [`drop_later`](Self::drop_later), seen to at the next call of a greenlet function.
    ///
    /// # Safety
    /// As [`drop_later`](Self::drop_later).
    pub unsafe fn drop_soon(&self, obj: *mut PyObject) {
        // SAFETY: the caller's promise.
        unsafe {
            if ffi::Py_REFCNT(obj) > 1 {
                ffi::Py_DECREF(obj);
            } else {
                self.drop_later(obj);
                self.attention.set(true);
            }
        }
    }

    /// Whether something is kept to be dropped.
    #[inline]
    pub fn has_drops(&self) -> bool {
        // SAFETY: in this thread; a look at a length.
        unsafe { !(*self.drops.get()).is_empty() }
    }

    /// Drops what [`drop_later`](Self::drop_later) kept: it runs Python code.
    ///
    /// # Safety
    /// In this thread with the GIL, with the running greenlet's state installed.
    #[inline]
    pub unsafe fn empty_drops(&self) {
        // SAFETY: the borrow ends before each object is dropped.
        unsafe {
            while let Some(obj) = (*self.drops.get()).pop() {
                ffi::Py_DECREF(obj);
            }
        }
    }

    /// Visits what the thread owns besides its main greenlet.
    ///
    /// # Safety
    /// Called from the `tp_traverse` of the main greenlet.
    pub(crate) unsafe fn traverse(
        &self,
        visit: ffi::visitproc,
        arg: *mut c_void,
    ) -> std::ffi::c_int {
        let current = self.current.get();
        let current = if current == self.main {
            null_mut()
        } else {
            current.cast()
        };
        for owned in [
            current,
            self.tracer.get(),
            self.quiet_tracer.get(),
            self.hub.get(),
        ] {
            if !owned.is_null() {
                // SAFETY: an owned reference, visited for the collector.
                let stop = unsafe { visit(owned, arg) };
                if stop != 0 {
                    return stop;
                }
            }
        }
        0
    }
}

const NAME: &std::ffi::CStr = c"gevent thread data";

/// The capsule's destructor: the thread state is being cleared.
#[crate::entry]
unsafe extern "C" fn thread_ended(capsule: *mut PyObject) {
    // SAFETY: our capsule; the GIL is held. From here on nothing finds the data any more.
    unsafe {
        let raw = ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr()).cast::<ThreadData>();
        if raw.is_null() {
            ffi::PyErr_Clear();
            return;
        }
        let td = &*raw;
        let mine = libc::pthread_equal(td.os_thread, libc::pthread_self()) != 0
            && ffi::PyThreadState_Get() == td.tstate;
        if mine && tstate::finalizing() {
            // The main thread at the end of the interpreter: whatever it still does may ask for this.
            return;
        }
        if let Some(hook) = td.on_exit.get() {
            hook(td, mine);
        }
        let _ = LAST.compare_exchange(raw, null_mut(), Ordering::Relaxed, Ordering::Relaxed);
        if mine {
            ENDED.set(ffi::PyThreadState_GetID(td.tstate));
        }
        ALL.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(serial, _)| *serial != td.serial);
        let main = td.main;
        // From now on its greenlets are those of a dead thread, and nothing is thrown into them.
        (*main).td.set(null_mut());
        (*main).bound.set(null_mut());
        if !mine || td.current.get() != main {
            // The stacks may be in use, or were when the process was copied.
            (*main).add_flag(Flags::STACKS_LOST);
        }
        let owned = Box::from_raw(raw);
        if !mine {
            // Nothing is dropped in the name of a thread that somebody else clears.
            return;
        }
        let pending = tstate::take_raised();
        for g in std::mem::take(&mut *owned.to_kill.get()) {
            (*g).abandon();
            ffi::Py_DECREF(g.cast());
        }
        for obj in std::mem::take(&mut *owned.drops.get()) {
            ffi::Py_DECREF(obj);
        }
        owned.loops.clear();
        for slot in [&owned.tracer, &owned.quiet_tracer, &owned.hub] {
            ffi::Py_XDECREF(slot.replace(null_mut()));
        }
        let current = owned.current.get();
        ffi::Py_DECREF(current.cast());
        crate::greenlet::lifecycle::release_main(main);
        ffi::PyErr_Clear();
        if !pending.is_null() {
            tstate::set_raised(pending);
        }
    }
}
