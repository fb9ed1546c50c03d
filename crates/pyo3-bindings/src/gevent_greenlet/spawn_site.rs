//! Where a greenlet was spawned: code objects and positions, kept raw until somebody asks.

use pyo3::ffi::{self, PyObject, PyThreadState};
use std::ffi::c_int;
use std::ptr;

/// Frames kept at most.
pub const LIMIT: usize = 10;

unsafe extern "C" {
    /// Walks the running frames: for each a new reference to its code and the byte offset of its
    /// instruction. Returns how many.
    fn gv_walk_frames(
        ts: *mut PyThreadState,
        codes: *mut *mut PyObject,
        offsets: *mut c_int,
        limit: c_int,
    ) -> c_int;
}

/// The frames that spawned a greenlet, innermost first.
pub struct SpawnSite {
    frames: Vec<(*mut PyObject, c_int)>,
    /// `spawning_stack` as a Python object, once it was made or assigned; owned.
    pub made: *mut PyObject,
}

impl SpawnSite {
    /// Captures the running frames, at most `limit` of them.
    ///
    /// # Safety
    /// The GIL is held and `ts` is the thread's state, with the running greenlet's installed.
    pub unsafe fn capture(ts: *mut PyThreadState, limit: usize) -> Box<Self> {
        let mut codes = [ptr::null_mut(); LIMIT];
        let mut offsets = [0; LIMIT];
        let limit = limit.min(LIMIT);
        // SAFETY: both arrays have room for `limit`.
        let n =
            unsafe { gv_walk_frames(ts, codes.as_mut_ptr(), offsets.as_mut_ptr(), limit as c_int) }
                as usize;
        let frames = (0..n).map(|i| (codes[i], offsets[i])).collect();
        Box::new(SpawnSite {
            frames,
            made: ptr::null_mut(),
        })
    }

    /// No frames.
    pub fn empty() -> Box<Self> {
        Box::new(SpawnSite {
            frames: Vec::new(),
            made: ptr::null_mut(),
        })
    }

    /// The frames as a list of (code, line number), innermost first: a new reference, or null with an error.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn as_list(&self) -> *mut PyObject {
        // SAFETY: the codes are owned; errors are passed on.
        unsafe {
            let list = ffi::PyList_New(0);
            if list.is_null() {
                return list;
            }
            for (code, offset) in &self.frames {
                let line = ffi::PyCode_Addr2Line(code.cast(), *offset);
                let item = ffi::Py_BuildValue(c"Oi".as_ptr(), *code, line);
                if item.is_null() || ffi::PyList_Append(list, item) < 0 {
                    ffi::Py_XDECREF(item);
                    ffi::Py_DECREF(list);
                    return ptr::null_mut();
                }
                ffi::Py_DECREF(item);
            }
            list
        }
    }
}

impl Drop for SpawnSite {
    fn drop(&mut self) {
        // SAFETY: dropped with the GIL held, by the greenlet that owns it.
        unsafe {
            for (code, _) in &self.frames {
                ffi::Py_DECREF(*code);
            }
            ffi::Py_XDECREF(self.made);
        }
    }
}
