//! The Python state of a greenlet, as `shim.c` keeps it: opaque here, and moved by the functions below.
//!
//! The rule that keeps it sound: the state installed in a `PyThreadState` always describes a greenlet
//! that is alive in memory. Whoever runs Python on behalf of a greenlet installs that greenlet's state
//! first (`ThreadData::install`).

use pyo3::ffi::{self, PyObject, PyThreadState};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_void};

/// Bytes reserved for the shim's `gl_state`; the shim refuses to compile when that is too little.
const STATE_BYTES: usize = 160;

/// The part of a `PyThreadState` that belongs to one greenlet. All zeros until it is first used.
#[repr(C, align(8))]
pub struct PyState(UnsafeCell<[u8; STATE_BYTES]>);

unsafe extern "C" {
    fn gl_state_fresh(
        ts: *mut PyThreadState,
        g: *mut c_void,
        annex: *mut u8,
        annex_len: usize,
        stack_lo: usize,
        stack_len: usize,
    );
    fn gl_swap(ts: *mut PyThreadState, from: *mut c_void, to: *mut c_void) -> u64;
    fn gl_state_finish(ts: *mut PyThreadState, g: *mut c_void);
    fn gl_state_forget(g: *mut c_void);
    fn gl_state_abandon(g: *mut c_void) -> c_int;
    fn gl_top_frame(ts: *mut PyThreadState, g: *mut c_void) -> *mut PyObject;
    fn gl_context(ts: *mut PyThreadState, g: *mut c_void) -> *mut PyObject;
    fn gl_replace_context(
        ts: *mut PyThreadState,
        g: *mut c_void,
        context: *mut PyObject,
    ) -> *mut PyObject;
    fn gl_state_traverse(
        g: *mut c_void,
        parked: c_int,
        visit: ffi::visitproc,
        arg: *mut c_void,
    ) -> c_int;
    fn gl_state_clear(g: *mut c_void);
    fn gl_take_raised() -> *mut PyObject;
    fn gl_take_value() -> *mut PyObject;
    fn gl_set_raised(exc: *mut PyObject);
    fn gl_make_exception(
        ty: *mut PyObject,
        value: *mut PyObject,
        tb: *mut PyObject,
    ) -> *mut PyObject;
    fn gl_enter_tracing(ts: *mut PyThreadState);
    fn gl_leave_tracing(ts: *mut PyThreadState);
    fn gl_trash_nesting(ts: *mut PyThreadState) -> c_int;
    fn gl_resurrect(op: *mut PyObject);
    fn gl_bury(op: *mut PyObject) -> c_int;
    fn gl_call(
        callable: *mut PyObject,
        args: *mut PyObject,
        kwargs: *mut PyObject,
    ) -> *mut PyObject;
    fn gl_vectorcall(
        callable: *mut PyObject,
        args: *const *mut PyObject,
        nargsf: usize,
        kwnames: *mut PyObject,
    ) -> *mut PyObject;
    fn gl_restore_thread(saved: *mut PyThreadState);
    fn gl_tp_alloc(ty: *mut ffi::PyTypeObject) -> *mut PyObject;
    fn gl_tp_new(
        new: ffi::newfunc,
        ty: *mut ffi::PyTypeObject,
        args: *mut PyObject,
        kwargs: *mut PyObject,
    ) -> *mut PyObject;
    fn gl_tp_descr_get(
        get: ffi::descrgetfunc,
        descriptor: *mut PyObject,
        object: *mut PyObject,
        ty: *mut PyObject,
    ) -> *mut PyObject;
    fn gl_finalizing() -> c_int;
    fn gl_selftest() -> *const c_char;
    fn gl_compiled_minor() -> c_int;
    fn gl_state_size() -> usize;
}

impl Default for PyState {
    fn default() -> Self {
        Self::new()
    }
}

impl PyState {
    /// The state of a greenlet that has not started.
    pub const fn new() -> Self {
        PyState(UnsafeCell::new([0; STATE_BYTES]))
    }

    #[inline]
    fn raw(&self) -> *mut c_void {
        self.0.get().cast()
    }

    /// Makes it the state of a greenlet that is about to start on the C stack `stack` (lowest address
    /// and length), with `annex` for the first of its Python frames.
    ///
    /// # Safety
    /// The GIL is held, `ts` is the thread's; both memories are the greenlet's until it is finished.
    pub unsafe fn make_fresh(
        &self,
        ts: *mut PyThreadState,
        annex: (*mut u8, usize),
        stack: (usize, usize),
    ) {
        // SAFETY: the caller's promise; the state is ours and large enough (checked by the shim).
        unsafe { gl_state_fresh(ts, self.raw(), annex.0, annex.1, stack.0, stack.1) }
    }

    /// Saves the thread's state into `self`, which was installed, and installs `to`. Returns a number that changes
    /// when asyncio's running loop may have.
    ///
    /// # Safety
    /// The GIL is held, `ts` is the thread's, `self` is installed in it, `to` is another state that was
    /// made or saved in this thread.
    #[inline]
    pub unsafe fn swap(&self, ts: *mut PyThreadState, to: &PyState) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { gl_swap(ts, self.raw(), to.raw()) }
    }

    /// Gives back what the thread holds for a greenlet whose body has returned. It stays installed.
    ///
    /// # Safety
    /// The GIL is held and `self`, made by [`make_fresh`](Self::make_fresh), is installed in `ts`.
    pub unsafe fn finish(&self, ts: *mut PyThreadState) {
        // SAFETY: the caller's promise.
        unsafe { gl_state_finish(ts, self.raw()) }
    }

    /// Forgets the memory of a stack that is being given back.
    pub fn forget(&self) {
        // SAFETY: it only clears pointers inside the state.
        unsafe { gl_state_forget(self.raw()) }
    }

    /// Ends the state of a parked greenlet that will not run again. `false` if somebody still looks
    /// into its frames, so that its stack must not be used again.
    ///
    /// # Safety
    /// The GIL is held; the state is not installed anywhere.
    pub unsafe fn abandon(&self) -> bool {
        // SAFETY: the caller's promise.
        unsafe { gl_state_abandon(self.raw()) != 0 }
    }

    /// The innermost frame of a parked greenlet: a new reference, or null without an error.
    ///
    /// # Safety
    /// The GIL is held; the state belongs to a greenlet that is parked or has no stack.
    pub unsafe fn top_frame(&self, ts: *mut PyThreadState) -> *mut PyObject {
        // SAFETY: the caller's promise.
        unsafe { gl_top_frame(ts, self.raw()) }
    }

    /// Visits what the state owns.
    ///
    /// # Safety
    /// Called from a `tp_traverse`; `parked` only if it is neither installed nor without a stack.
    pub unsafe fn traverse(&self, parked: bool, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { gl_state_traverse(self.raw(), parked.into(), visit, arg) }
    }

    /// Drops what the state owns. It may run Python code.
    ///
    /// # Safety
    /// The GIL is held; the state is not installed.
    pub unsafe fn clear(&self) {
        // SAFETY: the caller's promise.
        unsafe { gl_state_clear(self.raw()) }
    }
}

/// The context of `state`, or of the running greenlet for `None`: borrowed, null for the empty one.
///
/// # Safety
/// The GIL is held and `ts` is the thread's.
pub unsafe fn context(ts: *mut PyThreadState, state: Option<&PyState>) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { gl_context(ts, state.map_or(std::ptr::null_mut(), PyState::raw)) }
}

/// Sets the context of `state`, or of the running greenlet for `None`, to `context`, which is stolen
/// (null: the empty one), and returns the old one.
///
/// # Safety
/// The GIL is held and `ts` is the thread's.
pub unsafe fn replace_context(
    ts: *mut PyThreadState,
    state: Option<&PyState>,
    context: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        gl_replace_context(
            ts,
            state.map_or(std::ptr::null_mut(), PyState::raw),
            context,
        )
    }
}

/// Takes the pending error: one normalised exception with its traceback, or null.
///
/// # Safety
/// The GIL is held.
pub unsafe fn take_raised() -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { gl_take_raised() }
}

/// Takes the pending error, which there is, as a value: where CPython keeps the traceback apart (before
/// 3.12) without it. It may run Python code.
///
/// # Safety
/// The GIL is held and an error is set.
pub unsafe fn take_raised_as_value() -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { gl_take_value() }
}

/// Makes `exc` (stolen) the pending error, as it is: nothing is chained to it.
///
/// # Safety
/// The GIL is held; `exc` is an exception instance.
pub unsafe fn set_raised(exc: *mut PyObject) {
    // SAFETY: the caller's promise.
    unsafe { gl_set_raised(exc) }
}

/// Drops an object, or null, which may run Python code, while an error is set, which stays.
///
/// # Safety
/// The GIL is held, the reference is owned, and an error is set.
pub unsafe fn drop_keeping_raised(object: *mut PyObject) {
    // SAFETY: the caller's promise.
    unsafe {
        let pending = take_raised();
        ffi::Py_XDECREF(object);
        set_raised(pending);
    }
}

/// The instance that raising the class `ty` with `value` (or null) and the traceback `tb` (or null)
/// would raise; if making it fails, that error. Null only without memory.
///
/// # Safety
/// The GIL is held; the arguments are borrowed, and `ty` is an exception class.
pub unsafe fn make_exception(
    ty: *mut PyObject,
    value: *mut PyObject,
    tb: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { gl_make_exception(ty, value, tb) }
}

/// Runs `body` with the thread's trace and profile functions asleep.
///
/// # Safety
/// The GIL is held and `ts` is the thread's. `body` does not unwind.
pub unsafe fn without_tracing<R>(ts: *mut PyThreadState, body: impl FnOnce() -> R) -> R {
    // SAFETY: the caller's promise.
    unsafe { gl_enter_tracing(ts) };
    let result = body();
    // SAFETY: as above.
    unsafe { gl_leave_tracing(ts) };
    result
}

/// The nesting of the trashcan, or `None` where CPython counts it no more.
///
/// # Safety
/// The GIL is held and `ts` is the thread's.
pub unsafe fn trash_nesting(ts: *mut PyThreadState) -> Option<c_int> {
    // SAFETY: the caller's promise.
    let n = unsafe { gl_trash_nesting(ts) };
    (n >= 0).then_some(n)
}

/// Gives an object in its deallocator one reference, so that code may run with it.
///
/// # Safety
/// `op` is in its `tp_dealloc` with a count of 0; [`bury`] follows.
pub unsafe fn resurrect(op: *mut PyObject) {
    // SAFETY: the caller's promise.
    unsafe { gl_resurrect(op) }
}

/// Takes the reference of [`resurrect`] back. `false`: somebody holds the object now.
///
/// # Safety
/// After [`resurrect`].
pub unsafe fn bury(op: *mut PyObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe { gl_bury(op) != 0 }
}

/// Calls `callable` with a tuple and a dictionary (or null, or both null); nothing unwinds past this. For
/// the bottom of a fiber's stack, and for users' code that may run for long: if the interpreter ends
/// meanwhile, the thread stays in it.
///
/// # Safety
/// The GIL is held; the arguments are borrowed.
pub unsafe fn call_at_bottom(
    callable: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { gl_call(callable, args, kwargs) }
}

/// As [`call_at_bottom`], by `PyObject_Vectorcall`.
///
/// # Safety
/// As `PyObject_Vectorcall`.
pub unsafe fn vectorcall_at_bottom(
    callable: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { gl_vectorcall(callable, args, nargsf, kwnames) }
}

/// As [`call_at_bottom`], with one argument.
///
/// # Safety
/// The GIL is held; both are borrowed.
pub unsafe fn call_one_at_bottom(callable: *mut PyObject, arg: *mut PyObject) -> *mut PyObject {
    let mut args = [std::ptr::null_mut(), arg];
    // SAFETY: one argument, with room before it that the callee may write to.
    unsafe {
        gl_vectorcall(
            callable,
            args.as_mut_ptr().add(1),
            1 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            std::ptr::null_mut(),
        )
    }
}

/// As [`call_at_bottom`], of a callback with its arguments.
pub fn call_tuple<'py>(
    callable: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the GIL is held, as the handles say, and a call returns a reference or an error.
    unsafe {
        let r = call_at_bottom(callable.as_ptr(), args.as_ptr(), std::ptr::null_mut());
        Bound::from_owned_ptr_or_err(callable.py(), r)
    }
}

/// Takes the GIL again. A thread that is not the one to end the interpreter never returns once that has
/// begun.
///
/// # Safety
/// As `PyEval_RestoreThread`.
pub unsafe fn restore_thread(saved: *mut PyThreadState) {
    // SAFETY: the caller's promise.
    unsafe { gl_restore_thread(saved) };
}

/// Runs `f`, which touches nothing of Python's, without the GIL. What `Python::detach` does, by
/// [`restore_thread`].
pub fn without_gil<T>(_: Python<'_>, f: impl FnOnce() -> T + Send) -> T {
    struct Saved(*mut PyThreadState);
    impl Drop for Saved {
        fn drop(&mut self) {
            // SAFETY: saved below, by this thread.
            unsafe { restore_thread(self.0) };
        }
    }
    // SAFETY: the GIL is held, as the token says.
    let _saved = Saved(unsafe { ffi::PyEval_SaveThread() });
    f()
}

/// A new object of `ty`, all zeros, by its `tp_alloc`; null with an error set.
///
/// # Safety
/// The GIL is held and `ty` is a ready type.
#[inline]
pub unsafe fn tp_alloc(ty: *mut ffi::PyTypeObject) -> *mut PyObject {
    // SAFETY: the caller's promise; every ready type has the slot.
    unsafe { gl_tp_alloc(ty) }
}

/// Calls a `tp_new`.
///
/// # Safety
/// The GIL is held and the slot takes these arguments.
#[inline]
pub unsafe fn tp_new(
    new: ffi::newfunc,
    ty: *mut ffi::PyTypeObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { gl_tp_new(new, ty, args, kwargs) }
}

/// Calls a `tp_descr_get`.
///
/// # Safety
/// The GIL is held and `get` is the slot of `descriptor`'s type.
#[inline]
pub unsafe fn tp_descr_get(
    get: ffi::descrgetfunc,
    descriptor: *mut PyObject,
    object: *mut PyObject,
    ty: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { gl_tp_descr_get(get, descriptor, object, ty) }
}

/// Whether the interpreter has begun to finalise, so that no Python code should be started.
pub fn finalizing() -> bool {
    // SAFETY: reads one flag of the runtime.
    unsafe { gl_finalizing() != 0 }
}

/// Checks that the running interpreter is laid out as the one this was compiled for.
///
/// # Errors
/// One sentence that says what differs.
///
/// # Safety
/// The GIL is held.
pub unsafe fn self_test() -> Result<(), String> {
    // SAFETY: a static string that starts with "3.N.".
    let running = unsafe { CStr::from_ptr(ffi::Py_GetVersion()) }.to_string_lossy();
    // SAFETY: returns a constant.
    let minor = unsafe { gl_compiled_minor() };
    if !running.starts_with(&format!("3.{minor}.")) {
        return Err(format!(
            "gevent._core was built for CPython 3.{minor} and cannot run in {running}"
        ));
    }
    // SAFETY: returns a constant.
    debug_assert!(unsafe { gl_state_size() } <= STATE_BYTES);
    // SAFETY: the caller's promise; it restores all that it touches.
    let bad = unsafe { gl_selftest() };
    if bad.is_null() {
        return Ok(());
    }
    // SAFETY: a static string.
    let bad = unsafe { CStr::from_ptr(bad) }.to_string_lossy();
    Err(format!(
        "gevent._core does not know this build of CPython ({running}): the field {bad} of its \
         thread state is not where the headers of 3.{minor} put it"
    ))
}
