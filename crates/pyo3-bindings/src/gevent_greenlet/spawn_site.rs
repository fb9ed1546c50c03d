//! Where a greenlet was spawned: code objects and positions, kept raw until somebody asks.

use pyo3::ffi::{self, PyObject, PyThreadState};
use std::ffi::c_int;
use std::mem::MaybeUninit;

/// Frames that are kept, unless a class says otherwise.
pub const LIMIT: usize = 10;

/// One frame, as the shim has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame {
    /// A reference of its own.
    code: *mut PyObject,
    /// Of its instruction, in bytes.
    offset: c_int,
}

unsafe extern "C" {
    /// Walks the running frames. Returns how many.
    fn gv_walk_frames(ts: *mut PyThreadState, frames: *mut Frame, limit: c_int) -> c_int;
}

/// What is known of where a greenlet was spawned.
#[derive(Default)]
pub enum SpawnSite {
    /// It was not noted.
    #[default]
    Unknown,
    /// The frames, innermost first.
    Frames(Box<[Frame]>),
    /// `spawning_stack`, once it was made or assigned; an owned reference, or null for None.
    Made(*mut PyObject),
}

impl SpawnSite {
    /// Captures the running frames, at most `limit` of them.
    ///
    /// # Safety
    /// The GIL is held and `ts` is the thread's state, with the running greenlet's installed.
    #[inline]
    pub unsafe fn capture(ts: *mut PyThreadState, limit: usize) -> Self {
        let mut room = [const { MaybeUninit::<Frame>::uninit() }; LIMIT];
        if limit > LIMIT {
            // SAFETY: the caller's promise.
            return unsafe { Self::capture_many(ts, limit) };
        }
        // SAFETY: the caller's promise.
        SpawnSite::Frames(unsafe { walk(ts, &mut room[..limit]) }.into())
    }

    /// # Safety
    /// As of `capture`.
    #[cold]
    unsafe fn capture_many(ts: *mut PyThreadState, limit: usize) -> Self {
        let mut size = 4 * LIMIT;
        loop {
            let mut room = vec![MaybeUninit::uninit(); size.min(limit)];
            // SAFETY: the caller's promise.
            let frames = unsafe { walk(ts, &mut room) };
            if frames.len() == size && size < limit {
                // There may be more.
                // SAFETY: references that the walk has made; others keep the codes of running frames alive.
                unsafe { frames.iter().for_each(|frame| ffi::Py_DECREF(frame.code)) };
                size *= 2;
                continue;
            }
            return SpawnSite::Frames(frames.into());
        }
    }

    /// What it holds that can be in a cycle: a borrowed reference, or null.
    pub fn held(&self) -> *mut PyObject {
        match self {
            SpawnSite::Made(made) => *made,
            SpawnSite::Unknown | SpawnSite::Frames(_) => std::ptr::null_mut(),
        }
    }

    /// The frames as a list of (code, line number), innermost first: a new reference, or null with an error.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn as_list(&self) -> *mut PyObject {
        let frames: &[Frame] = match self {
            SpawnSite::Frames(frames) => frames,
            SpawnSite::Unknown | SpawnSite::Made(_) => &[],
        };
        // SAFETY: the codes are owned, here by the copy: an allocation may collect garbage, and that may
        // assign the greenlet another site.
        unsafe {
            let frames = frames.to_vec();
            frames.iter().for_each(|f| ffi::Py_INCREF(f.code));
            let list = list_of(&frames);
            frames.iter().for_each(|f| ffi::Py_DECREF(f.code));
            list
        }
    }
}

/// The running frames, as many as there is room for.
///
/// # Safety
/// As of `SpawnSite::capture`.
#[inline]
unsafe fn walk(ts: *mut PyThreadState, room: &mut [MaybeUninit<Frame>]) -> &[Frame] {
    let at = room.as_mut_ptr().cast::<Frame>();
    // SAFETY: as many as it says were written, which is no more than there is room for.
    unsafe {
        let n = gv_walk_frames(ts, at, room.len() as c_int);
        std::slice::from_raw_parts(at, n as usize)
    }
}

/// # Safety
/// The GIL is held; the codes are alive until this returns.
unsafe fn list_of(frames: &[Frame]) -> *mut PyObject {
    // SAFETY: the caller's promise; errors are passed on.
    unsafe {
        let list = ffi::PyList_New(0);
        if list.is_null() {
            return list;
        }
        for Frame { code, offset } in frames {
            let line = ffi::PyCode_Addr2Line(code.cast(), *offset);
            let item = ffi::Py_BuildValue(c"Oi".as_ptr(), *code, line);
            if item.is_null() || ffi::PyList_Append(list, item) < 0 {
                ffi::Py_XDECREF(item);
                ffi::Py_DECREF(list);
                return std::ptr::null_mut();
            }
            ffi::Py_DECREF(item);
        }
        list
    }
}

impl Drop for SpawnSite {
    fn drop(&mut self) {
        // SAFETY: dropped with the GIL held, by the greenlet that owns it.
        unsafe {
            match self {
                SpawnSite::Unknown => {}
                SpawnSite::Frames(frames) => {
                    frames.iter().for_each(|frame| ffi::Py_DECREF(frame.code));
                }
                SpawnSite::Made(made) => ffi::Py_XDECREF(*made),
            }
        }
    }
}
