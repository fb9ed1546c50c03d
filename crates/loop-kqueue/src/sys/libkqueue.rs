//! libkqueue, an implementation of kevent(2) on Linux that is not ours: `RUSTFLAGS='--cfg libkqueue'`.

use super::Kevent;
use gevent_hub_core::os::check;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

/// Its `struct kevent`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Raw {
    ident: usize,
    filter: libc::c_short,
    flags: libc::c_ushort,
    fflags: libc::c_uint,
    data: isize,
    udata: *mut libc::c_void,
}

#[link(name = "kqueue")]
unsafe extern "C" {
    fn kqueue() -> libc::c_int;
    fn kevent(
        queue: libc::c_int,
        changes: *const Raw,
        change_count: libc::c_int,
        events: *mut Raw,
        event_count: libc::c_int,
        timeout: *const libc::timespec,
    ) -> libc::c_int;
}

/// A queue of the library's.
pub struct Queue(RawFd);

impl Queue {
    /// It takes locks.
    pub const SIGNAL_SAFE: bool = false;
    /// It does not notice that a descriptor is closed.
    pub const FORGETS_CLOSED: bool = false;

    /// Makes one.
    ///
    /// # Errors
    /// Those of the descriptors that it needs.
    pub fn open() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        check(unsafe { kqueue() }).map(|fd| Queue(fd as RawFd))
    }

    /// kevent(2), with a timeout in nanoseconds.
    ///
    /// # Errors
    /// `EINTR`, and that of a change for which there is no place in `events`.
    pub fn kevent(
        &self,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<u64>,
    ) -> io::Result<usize> {
        let given: Vec<Raw> = changes
            .iter()
            .map(|e| Raw {
                ident: e.ident,
                filter: e.filter,
                flags: e.flags,
                fflags: e.fflags,
                data: e.data as isize,
                udata: e.udata as *mut libc::c_void,
            })
            .collect();
        let none = Raw {
            ident: 0,
            filter: 0,
            flags: 0,
            fflags: 0,
            data: 0,
            udata: ptr::null_mut(),
        };
        let mut taken = vec![none; events.len()];
        let time = timeout.map(|nanos| libc::timespec {
            tv_sec: (nanos / 1_000_000_000) as libc::time_t,
            tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
        });
        // SAFETY: as many changes and as much room as is said; the time is null or lives.
        let n = check(unsafe {
            kevent(
                self.0,
                given.as_ptr(),
                given.len() as libc::c_int,
                taken.as_mut_ptr(),
                taken.len() as libc::c_int,
                time.as_ref().map_or(ptr::null(), ptr::from_ref),
            )
        })? as usize;
        for (to, from) in events.iter_mut().zip(&taken[..n]) {
            *to = Kevent {
                ident: from.ident,
                filter: from.filter,
                flags: from.flags,
                fflags: from.fflags,
                data: from.data as i64,
                udata: from.udata as usize,
            };
        }
        Ok(n)
    }

    /// In a forked child: its descriptors are the parent's, so they are left alone.
    pub fn abandon(self) {
        std::mem::forget(self);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: ours, and closed once; the library notices.
        unsafe { libc::close(self.0) };
    }
}

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}
