//! kqueue(2) and kevent(2) as this crate uses them: one event type and three functions, `open`, `kevent` and
//! `close` (dropping), over the system's own calls, over libkqueue, or over the emulation.
//!
//! Field types, filter numbers and flags differ between systems; beyond this module they do not.

mod names;
pub use names::*;

#[cfg(not(target_os = "linux"))]
mod native;
#[cfg(not(target_os = "linux"))]
pub use native::Queue;

#[cfg(all(target_os = "linux", libkqueue))]
mod libkqueue;
#[cfg(all(target_os = "linux", libkqueue))]
pub use libkqueue::Queue;

#[cfg(all(target_os = "linux", not(libkqueue)))]
pub use crate::emulation::Queue;

/// A change asked of a queue, or an event that it brings: `struct kevent`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Kevent {
    /// A descriptor, a process, a signal, or a name of the caller's, as the filter has it.
    pub ident: usize,
    /// `EVFILT_*`.
    pub filter: i16,
    /// `EV_*`.
    pub flags: u16,
    /// `NOTE_*`.
    pub fflags: u32,
    /// What the filter has to say: bytes, a status, a count; an errno beside [`EV_ERROR`].
    pub data: i64,
    /// The caller's own.
    pub udata: usize,
}

impl Kevent {
    /// A change.
    pub const fn new(ident: usize, filter: i16, flags: u16) -> Self {
        Kevent {
            ident,
            filter,
            flags,
            fflags: 0,
            data: 0,
            udata: 0,
        }
    }

    /// With these filter flags.
    pub const fn notes(mut self, fflags: u32) -> Self {
        self.fflags = fflags;
        self
    }

    /// The errno that came with [`EV_ERROR`]: 0 for success, and `None` for an event.
    pub const fn error(&self) -> Option<i32> {
        if self.flags & EV_ERROR != 0 {
            Some(self.data as i32)
        } else {
            None
        }
    }
}
