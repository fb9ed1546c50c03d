//! The end of a greenlet object: collection, deallocation of a parked one, the end of its thread.

use super::object::{PyGreenlet, Status, clear, globals, new_ref};
use super::switch::{Carry, depart};
use crate::thread_data::ThreadData;
use crate::tstate;
use gevent_hub_core::fiber::FiberState;
use pyo3::ffi::{self, PyObject};
use std::ffi::{c_int, c_long, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI64, Ordering};

/// Visits what a greenlet owns. For `tp_traverse` of raw types that begin with a `PyGreenlet`: they
/// call this and visit their own fields.
///
/// # Safety
/// As any `tp_traverse`.
#[crate::entry(silent)]
pub unsafe extern "C" fn traverse(
    slf: *mut PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: a greenlet, visited for the collector.
    unsafe {
        let g = &*slf.cast::<PyGreenlet>();
        let owned: [*mut PyObject; 8] = [
            ffi::Py_TYPE(slf).cast(),
            g.dict.get(),
            g.parent.get().cast(),
            g.main.get().cast(),
            g.run.get(),
            g.value.get(),
            g.exc.get(),
            g.kwargs.get(),
        ];
        for obj in owned {
            if !obj.is_null() {
                let stop = visit(obj, arg);
                if stop != 0 {
                    return stop;
                }
            }
        }
        let td = g.thread();
        if g.is_main() && !td.is_null() {
            let stop = (*td).traverse(visit, arg);
            if stop != 0 {
                return stop;
            }
        }
        let parked = g.active() && !td.is_null() && (*td).installed.get() != g.as_ptr();
        g.state.traverse(parked && !g.is_main(), visit, arg)
    }
}

/// Whether the collector may look at a greenlet: a parked one is hidden before 3.15, since nobody
/// knows what the frames on its stack refer to.
///
/// # Safety
/// As any `tp_is_gc`, on a greenlet.
#[crate::entry(silent)]
pub unsafe extern "C" fn is_gc(slf: *mut PyObject) -> c_int {
    // SAFETY: as the C API calls it, on a greenlet.
    let g = unsafe { &*slf.cast::<PyGreenlet>() };
    (g.is_main() || !g.active() || g.thread_ended()).into()
}

/// Drops what a greenlet in a garbage cycle owns. For `tp_clear`.
///
/// # Safety
/// As any `tp_clear`.
#[crate::entry]
pub unsafe extern "C" fn tp_clear(slf: *mut PyObject) -> c_int {
    // SAFETY: a greenlet; each slot is emptied before its object is dropped.
    unsafe {
        let g = &*slf.cast::<PyGreenlet>();
        clear(&g.dict);
        clear_owned(g);
    }
    0
}

/// # Safety
/// The GIL is held; `g` is being cleared or freed.
unsafe fn clear_owned(g: &PyGreenlet) {
    // SAFETY: owned slots.
    unsafe {
        if g.active() && g.thread_ended() && !g.is_main() {
            g.abandon();
        }
        if !g.is_main() {
            let td = g.thread();
            if td.is_null() || (*td).installed.get() != g.as_ptr() {
                g.state.clear();
            }
        }
        clear(&g.parent);
        if !g.active() {
            // Until then it is being called, and its caller has no other reference.
            clear(&g.run);
        }
        clear(&g.value);
        clear(&g.exc);
        clear(&g.kwargs);
        if !g.active() {
            g.bound.set(null_mut());
            clear(&g.main);
        }
    }
}

/// Deallocates a greenlet, or throws GreenletExit into one that is parked. For `tp_dealloc` of raw
/// types that begin with a `PyGreenlet`: they drop their own fields in `drop_fields`, which is called
/// when the greenlet is certainly dead.
///
/// # Safety
/// As any `tp_dealloc`, of a heap type.
pub unsafe fn dealloc_with(slf: *mut PyObject, drop_fields: unsafe fn(*mut PyObject)) {
    // SAFETY: a greenlet whose count has come to 0.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        let g = &*slf.cast::<PyGreenlet>();
        if g.active() && !g.is_main() && !kill(g) {
            return;
        }
        if !g.weakreflist.get().is_null() {
            ffi::PyObject_ClearWeakRefs(slf);
        }
        drop_fields(slf);
        if g.fiber.state() == FiberState::Live {
            // It left its stack without an end: switched away while its result was handed over.
            std::mem::forget(g.fiber.abandon());
        }
        clear(&g.dict);
        if g.is_main() {
            ThreadData::main_greenlet_freed();
        }
        // A child of the freed stack may still be installed in a dying thread; never here.
        clear_owned(g);
        clear(&g.main);
        let ty = ffi::Py_TYPE(slf);
        if let Some(free) = (*ty).tp_free {
            free(slf.cast());
        }
        ffi::Py_DECREF(ty.cast());
    }
}

/// `tp_dealloc` of `greenlet`.
///
/// # Safety
/// As any `tp_dealloc`.
#[crate::entry]
pub unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    /// # Safety
    /// None: it is there for its type.
    unsafe fn nothing(_: *mut PyObject) {}
    // SAFETY: the slot's own contract.
    unsafe { dealloc_with(slf, nothing) }
}

/// Ends a parked greenlet that nobody refers to. `false` if it lives on.
///
/// # Safety
/// In the deallocator of `g`, with the GIL held.
unsafe fn kill(g: &PyGreenlet) -> bool {
    // SAFETY: in the deallocator, with the GIL. The temporary reference keeps it while code runs.
    unsafe {
        if tstate::finalizing() {
            g.abandon();
            return true;
        }
        tstate::resurrect(g.as_object());
        let pending = tstate::take_raised();
        let home = g.thread();
        if home.is_null() {
            g.abandon();
        } else {
            let here = ThreadData::get();
            if std::ptr::eq(home, here) {
                throw_exit(here, g);
            } else {
                (*home).kill_later(new_ref(g.as_ptr()));
            }
        }
        if ffi::Py_REFCNT(g.as_object()) == 1 && g.active() {
            complain(g);
        }
        if !pending.is_null() {
            tstate::set_raised(pending);
        }
        if tstate::bury(g.as_object()) {
            return true;
        }
        // Somebody took it. A subclass's deallocator has not given the type back yet: ours does that,
        // and only when it frees the object.
        ffi::PyObject_GC_Track(g.as_object().cast());
        false
    }
}

/// Throws GreenletExit into a parked greenlet, and waits for it to come back here.
///
/// # Safety
/// The GIL is held; `g` is parked in this thread, of which `td` is, and has a reference that lasts.
unsafe fn throw_exit(td: &ThreadData, g: &PyGreenlet) {
    // SAFETY: in its thread; `current` is alive as its temporary parent.
    unsafe {
        let text = c"Killing the greenlet because all references have vanished.";
        ffi::PyErr_SetString(globals().exit, text.as_ptr());
        let exc = tstate::take_raised();
        let parent = g.parent.replace(new_ref(td.current.get()));
        let result = depart(td, g.as_ptr(), Carry::Raise(exc));
        // What ran meanwhile may have made it an ancestor of its own parent-to-be.
        let dropped = if is_ancestor(g, parent) {
            parent
        } else {
            g.parent.replace(parent)
        };
        if result.is_null() {
            ffi::PyErr_WriteUnraisable(g.as_object());
        }
        ffi::Py_XDECREF(result);
        ffi::Py_XDECREF(dropped.cast());
    }
}

/// Whether `g` is `other` or one of its parents.
///
/// # Safety
/// The GIL is held; `other` is a greenlet or null.
unsafe fn is_ancestor(g: &PyGreenlet, mut other: *mut PyGreenlet) -> bool {
    while !other.is_null() {
        if std::ptr::eq(g, other) {
            return true;
        }
        // SAFETY: an owned reference of a greenlet that is alive.
        other = unsafe { (*other).parent.get() };
    }
    false
}

/// It swallowed GreenletExit and is parked again: says so, and leaks it.
///
/// # Safety
/// The GIL is held; `g` has a reference that lasts.
unsafe fn complain(g: &PyGreenlet) {
    // SAFETY: the caller's promise.
    unsafe {
        let file = ffi::PySys_GetObject(c"stderr".as_ptr());
        ffi::Py_INCREF(g.as_object());
        if !file.is_null() {
            ffi::Py_INCREF(file);
            ffi::PyFile_WriteString(c"GreenletExit did not kill ".as_ptr(), file);
            ffi::PyFile_WriteObject(g.as_object(), file, 0);
            ffi::PyFile_WriteString(c"\n".as_ptr(), file);
            ffi::Py_DECREF(file);
        }
        ffi::PyErr_Clear();
    }
}

// ---- the end of a thread ---------------------------------------------------------------------------

/// Processor time spent on finding leaked main greenlets, in ticks of `clock()`; -1 when turned off.
static CLEANUP_CLOCKS: AtomicI64 = AtomicI64::new(0);

/// Time spent on the optional clean-up, or `None` when it is turned off.
pub fn cleanup_clocks() -> Option<i64> {
    let clocks = CLEANUP_CLOCKS.load(Ordering::Relaxed);
    (clocks >= 0).then_some(clocks)
}

/// Turns the optional clean-up on or off.
pub fn enable_cleanup(on: bool) {
    if !on {
        CLEANUP_CLOCKS.store(-1, Ordering::Relaxed);
    } else if cleanup_clocks().is_none() {
        CLEANUP_CLOCKS.store(0, Ordering::Relaxed);
    }
}

fn clock() -> i64 {
    unsafe extern "C" {
        fn clock() -> c_long;
    }
    // SAFETY: a plain function of the C library.
    unsafe { clock() }
}

/// Drops the reference that an ended thread had to its main greenlet. If one other is left that no
/// object holds, it lies on the stack of a greenlet that will never run again (typically a pending
/// `parent.switch()`), and is dropped too.
///
/// # Safety
/// The GIL is held; `main` is the caller's reference.
pub(crate) unsafe fn release_main(main: *mut PyGreenlet) {
    // SAFETY: the caller's promise.
    unsafe {
        let count = ffi::Py_REFCNT(main.cast());
        (*main).status.set(Status::Dead);
        if count != 2 || cleanup_clocks().is_none() {
            ffi::Py_DECREF(main.cast());
            return;
        }
        let begin = clock();
        let gc = ffi::PyImport_ImportModule(c"gc".as_ptr());
        let mut unseen = false;
        if !gc.is_null() {
            let name = c"get_referrers".as_ptr();
            let find = ffi::PyObject_GetAttrString(gc, name);
            if !find.is_null() {
                let found = ffi::PyObject_CallFunctionObjArgs(find, main, null_mut::<PyObject>());
                unseen = !found.is_null()
                    && ffi::PyList_Check(found) != 0
                    && ffi::PyList_Size(found) == 0;
                ffi::Py_XDECREF(found);
                ffi::Py_DECREF(find);
            }
            ffi::Py_DECREF(gc);
        }
        ffi::PyErr_Clear();
        if unseen && ffi::Py_REFCNT(main.cast()) == 2 {
            ffi::Py_DECREF(main.cast());
        }
        ffi::Py_DECREF(main.cast());
        let _ = CLEANUP_CLOCKS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |c| {
            (c >= 0).then_some(c + clock() - begin)
        });
    }
}
