//! The object: the layout of `PyGreenlet`, its small accessors, and the module's globals.

use crate::thread_data::ThreadData;
use crate::tstate::PyState;
use gevent_hub_core::fiber::{Fiber, FiberState, fetch};
use gevent_hub_core::stack;
use pyo3::ffi::{self, PyObject, PyTypeObject};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{self, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where a greenlet is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Status {
    /// Never started. (Zeroed memory is this.)
    New = 0,
    /// Started and not finished: it runs or is parked.
    Live,
    /// Finished, killed or abandoned.
    Dead,
}

/// A body in Rust: gets the greenlet that runs, returns a new reference or null with an error set.
pub type NativeRun = unsafe fn(*mut PyGreenlet) -> *mut PyObject;

/// A Python error is pending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Raised;

impl Raised {
    /// Takes the error.
    #[cold]
    pub fn into_error(self, py: pyo3::Python<'_>) -> pyo3::PyErr {
        pyo3::PyErr::fetch(py)
    }
}

/// Rare properties of a greenlet, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// The greenlet of a thread's own stack.
    pub const MAIN: Flags = Flags(1);
    /// On a main greenlet whose thread is gone: the stacks of that thread's greenlets are not reusable.
    pub const STACKS_LOST: Flags = Flags(2);
    /// For tests of errors: pretend that switching to it fails.
    pub const FAIL_SWITCH: Flags = Flags(4);
    /// For tests of errors: pretend that exchanging the stacks fails, which is fatal.
    pub const FAIL_STACKS: Flags = Flags(8);
    /// As a parent: results of finished children that come while it is parked natively are dropped,
    /// without installing its state. Exceptions are delivered as to any parent.
    pub const DROPS_RESULTS: Flags = Flags(16);
    /// Its class has a `switch` of its own, which each resumption has to go through.
    pub const OWN_SWITCH: Flags = Flags(64);
    /// It is parked natively and kept the reference that `ThreadData::current` had to it.
    pub const PARKED_NATIVELY: Flags = Flags(32);
    /// It has ended without having run, as there was no memory for its stack.
    pub const HAD_NO_STACK: Flags = Flags(128);

    /// Whether any bit of `other` is set.
    #[inline]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }
}

/// A greenlet. The first four fields are the C struct that extension modules know from greenlet's
/// header; gevent's own raw types put a `PyGreenlet` first and their fields after it.
///
/// The GIL protects every field. Pointers named "owned" hold one reference.
#[repr(C)]
pub struct PyGreenlet {
    /// The object header.
    pub ob_base: PyObject,
    /// The list of weak references (CPython's).
    pub weakreflist: Cell<*mut PyObject>,
    /// The instance dictionary, owned, made when it is asked for.
    pub dict: Cell<*mut PyObject>,
    /// Points to the object itself; extension modules may test it for null.
    pub pimpl: Cell<*mut c_void>,
    /// The main greenlet of its thread while it can be switched to without a further question; else
    /// null. One compare with `ThreadData::main` is the whole check of the usual switch.
    pub bound: Cell<*mut PyGreenlet>,
    /// What is being delivered: a value, or the arguments' tuple for the first switch. Owned.
    pub value: Cell<*mut PyObject>,
    /// The exception that is being delivered instead of a value. Owned.
    pub exc: Cell<*mut PyObject>,
    /// Keyword arguments for the first switch. Owned.
    pub kwargs: Cell<*mut PyObject>,
    /// Where it is in its life.
    pub status: Cell<Status>,
    /// Rare properties.
    pub flags: Cell<Flags>,
    /// Its stack.
    pub fiber: Fiber,
    /// Its Python state while it is not installed.
    pub state: PyState,
    /// The main greenlet of the thread where it was started. Owned; null before and when murdered.
    pub main: Cell<*mut PyGreenlet>,
    /// The greenlet that gets its result. Owned; null for a main greenlet.
    pub parent: Cell<*mut PyGreenlet>,
    /// The callable. Owned; null when there is none, or once it has run.
    pub run: Cell<*mut PyObject>,
    /// Only for a main greenlet: its thread, null once that has ended.
    pub td: Cell<*const ThreadData>,
    /// Called instead of `run`, in the new greenlet with its state installed: returns a new reference,
    /// or null with an error set. Must not unwind.
    pub native_run: Cell<Option<NativeRun>>,
    /// Bytes of address space for its stack; 0 for the default. To be set before it starts.
    pub stack_size: Cell<usize>,
}

/// Objects that live as long as the process.
pub struct Globals {
    /// `greenlet.greenlet`.
    pub greenlet_type: *mut PyTypeObject,
    /// `greenlet.error`.
    pub error: *mut PyObject,
    /// `greenlet.GreenletExit`.
    pub exit: *mut PyObject,
    /// `()`.
    pub empty_tuple: *mut PyObject,
    /// `"run"`.
    pub str_run: *mut PyObject,
    /// `"switch"`.
    pub str_switch: *mut PyObject,
    /// `"throw"`.
    pub str_throw: *mut PyObject,
    /// The key of the thread data in a thread's dictionary.
    pub thread_key: *mut PyObject,
}

// SAFETY: immortal objects, used with the GIL held.
unsafe impl Send for Globals {}
// SAFETY: as above.
unsafe impl Sync for Globals {}

static GLOBALS: OnceLock<Globals> = OnceLock::new();

/// The module's globals.
#[inline]
pub fn globals() -> &'static Globals {
    GLOBALS
        .get()
        .expect("gevent._core is initialised before its types are used")
}

/// Stacks of ended threads come to the pool of a thread that may never need them.
fn trim_sometimes() {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    if COUNT.fetch_add(1, Ordering::Relaxed) % 32 == 31 {
        stack::trim_idle();
    }
}

/// Whether the module's globals are there already.
pub fn initialised() -> bool {
    GLOBALS.get().is_some()
}

/// Sets the module's globals, once.
pub fn set_globals(globals: Globals) {
    let _ = GLOBALS.set(globals);
}

/// A new reference to `obj`, which may be null.
///
/// # Safety
/// The GIL is held.
#[inline]
pub unsafe fn new_ref<T>(obj: *mut T) -> *mut T {
    // SAFETY: the caller's promise.
    unsafe { ffi::Py_XINCREF(obj.cast()) };
    obj
}

/// Empties an owned slot and drops what was in it; it may run Python code.
///
/// # Safety
/// The GIL is held and the slot owns its reference.
#[inline]
pub unsafe fn clear<T>(slot: &Cell<*mut T>) {
    let old = slot.replace(null_mut());
    // SAFETY: the caller's promise; the slot is empty before anything runs.
    unsafe { ffi::Py_XDECREF(old.cast()) };
}

/// Sets an owned slot to `new` (stolen) and drops the old value.
///
/// # Safety
/// As [`clear`].
#[inline]
pub unsafe fn replace<T>(slot: &Cell<*mut T>, new: *mut T) {
    let old = slot.replace(new);
    // SAFETY: the caller's promise.
    unsafe { ffi::Py_XDECREF(old.cast()) };
}

/// Bytes of a parked C stack that a resumed greenlet returns through, if it waited for a socket.
const C_FRAMES: usize = 1024;
/// Bytes of the annex in which a few Python frames lie.
const PYTHON_FRAMES: usize = 512;

impl PyGreenlet {
    /// Makes a plain `greenlet` without calling anything; null with an error set if it fails.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn alloc_exact(fiber: Fiber) -> *mut PyGreenlet {
        // SAFETY: the caller's promise.
        unsafe { Self::alloc(globals().greenlet_type, fiber) }
    }

    /// Makes an object of `ty`, the type `greenlet` or one below it: no parent, no `run`. What follows
    /// the `PyGreenlet` in the object is zero.
    ///
    /// # Safety
    /// The GIL is held and `ty` is such a type.
    pub unsafe fn alloc(ty: *mut PyTypeObject, fiber: Fiber) -> *mut PyGreenlet {
        // SAFETY: `tp_alloc` zeroes, which is a valid `PyGreenlet` but
        // for the fiber.
        unsafe {
            let g = crate::tstate::tp_alloc(ty).cast::<PyGreenlet>();
            if !g.is_null() {
                ptr::write(&raw mut (*g).fiber, fiber);
                (*g).pimpl.set(g.cast());
            }
            g
        }
    }

    /// The greenlet that a fiber belongs to.
    ///
    /// # Safety
    /// The fiber is the one of a `PyGreenlet`.
    #[inline]
    pub unsafe fn from_fiber(fiber: *const Fiber) -> *mut PyGreenlet {
        // SAFETY: the caller's promise.
        unsafe { fiber.byte_sub(std::mem::offset_of!(PyGreenlet, fiber)) }
            .cast_mut()
            .cast()
    }

    /// Its turn to be resumed by the loop comes: next if `near`, else after that. First the object is
    /// fetched, which tells where its stack and its Python frames are.
    ///
    /// # Safety
    /// The fiber is the one of a `PyGreenlet` that is alive.
    #[inline]
    pub unsafe fn expect(fiber: *const Fiber, near: bool) {
        // SAFETY: the caller's promise.
        let g = unsafe { Self::from_fiber(fiber) };
        if near {
            // SAFETY: alive.
            let fiber = unsafe { &(*g).fiber };
            fiber.fetch_stack(C_FRAMES);
            fetch(ptr::without_provenance(fiber.stack_span().1), PYTHON_FRAMES);
        } else {
            fetch(g.cast(), std::mem::offset_of!(PyGreenlet, main));
        }
    }

    /// Whether `obj` is a greenlet of any type.
    ///
    /// # Safety
    /// `obj` is an object.
    #[inline]
    pub unsafe fn check(obj: *mut PyObject) -> bool {
        // SAFETY: the caller's promise.
        unsafe { ffi::PyObject_TypeCheck(obj, globals().greenlet_type) != 0 }
    }

    /// Itself, as an object.
    #[inline]
    pub fn as_object(&self) -> *mut PyObject {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// Itself, as a pointer.
    #[inline]
    pub fn as_ptr(&self) -> *mut PyGreenlet {
        ptr::from_ref(self).cast_mut()
    }

    /// Sets a rare property.
    #[inline]
    pub fn add_flag(&self, flag: Flags) {
        self.flags.set(Flags(self.flags.get().0 | flag.0));
    }

    /// Unsets a rare property.
    #[inline]
    pub fn remove_flag(&self, flag: Flags) {
        self.flags.set(Flags(self.flags.get().0 & !flag.0));
    }

    /// Whether it stands for a thread's own stack.
    #[inline]
    pub fn is_main(&self) -> bool {
        self.flags.get().has(Flags::MAIN)
    }

    /// Whether it was started; it may be finished.
    #[inline]
    pub fn started(&self) -> bool {
        self.status.get() != Status::New
    }

    /// Whether it was started and is not finished.
    #[inline]
    pub fn active(&self) -> bool {
        self.status.get() == Status::Live
    }

    /// The main greenlet of the thread it was started in, itself for a main one; else null.
    pub fn main_greenlet(&self) -> *mut PyGreenlet {
        if self.is_main() {
            self.as_ptr()
        } else {
            self.main.get()
        }
    }

    /// Its thread, null if it has none or that has ended.
    pub fn thread(&self) -> *const ThreadData {
        let main = self.main_greenlet();
        if main.is_null() {
            return ptr::null();
        }
        // SAFETY: an owned reference, or itself.
        unsafe { (*main).td.get() }
    }

    /// Whether it was started in a thread that has ended.
    pub fn thread_ended(&self) -> bool {
        !self.main_greenlet().is_null() && self.thread().is_null()
    }

    /// The main greenlet that it belongs to by its start or, before that, by its parents.
    pub fn main_in_lineage(&self) -> *mut PyGreenlet {
        let mut g = self.as_ptr();
        // SAFETY: parents are owned references.
        unsafe {
            while !g.is_null() {
                if (*g).started() {
                    return (*g).main_greenlet();
                }
                g = (*g).parent.get();
            }
        }
        null_mut()
    }

    /// Whether it runs now, in whatever thread.
    pub fn is_running(&self) -> bool {
        let td = self.thread();
        // SAFETY: a thread's data is alive while a main greenlet points to it.
        self.active() && !td.is_null() && unsafe { (*td).current.get() } == self.as_ptr()
    }

    /// Sets [`bound`](Self::bound) by what the other fields say.
    pub fn rebind(&self) {
        let odd = self
            .flags
            .get()
            .has(Flags(Flags::FAIL_SWITCH.0 | Flags::FAIL_STACKS.0));
        let ok = self.active() && !odd && !self.thread().is_null();
        self.bound
            .set(if ok { self.main_greenlet() } else { null_mut() });
    }

    /// Makes a parked greenlet dead without running it: for one whose thread has ended, or at
    /// finalisation. Its stack goes back to the pool, or is leaked where somebody may still look at it.
    ///
    /// # Safety
    /// The GIL is held; it is not running.
    pub unsafe fn abandon(&self) {
        if !self.active() || self.is_main() {
            return;
        }
        self.status.set(Status::Dead);
        self.bound.set(null_mut());
        let main = self.main.get();
        // SAFETY: an owned reference. In a living thread only its own stack may be running, or the
        // fiber could be in the chain of those that resumed each other.
        let quiet = unsafe {
            let td = if main.is_null() {
                ptr::null()
            } else {
                (*main).td.get()
            };
            let lost = !main.is_null() && (*main).flags.get().has(Flags::STACKS_LOST);
            !lost && (td.is_null() || (*td).current.get() == main)
        };
        if quiet && self.fiber.state() == FiberState::Live {
            // SAFETY: it is parked and will not run again.
            unsafe {
                let clean = self.state.abandon();
                match self.fiber.abandon() {
                    Some(stack) if clean => {
                        stack::release(stack);
                        trim_sometimes();
                    }
                    stack => std::mem::forget(stack),
                }
            }
        }
        // SAFETY: owned slots; the greenlet is dead already.
        unsafe {
            clear(&self.value);
            clear(&self.exc);
            clear(&self.kwargs);
        }
    }
}
