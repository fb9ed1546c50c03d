//! `EVFILT_TIMER`, by a timerfd.

use super::knote::Report;
use crate::sys::*;
use gevent_hub_core::os::check;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// The unit of the data, in the filter flags: none is milliseconds.
pub const NOTE_SECONDS: u32 = 0x0001;
pub const NOTE_MSECONDS: u32 = 0x0002;
pub const NOTE_USECONDS: u32 = 0x0004;
pub const NOTE_NSECONDS: u32 = 0x0008;

pub struct Timer {
    fd: OwnedFd,
    /// Expirations that were not reported.
    count: u64,
}

fn nanos(change: &Kevent) -> io::Result<i64> {
    let unit = match change.fflags {
        NOTE_SECONDS => 1_000_000_000,
        0 | NOTE_MSECONDS => 1_000_000,
        NOTE_USECONDS => 1_000,
        NOTE_NSECONDS => 1,
        _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
    };
    if change.data < 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // A timerfd of 0 would be disarmed; a timer of 0 is due at once.
    Ok(change.data.saturating_mul(unit).max(1))
}

impl Timer {
    pub fn new(change: &Kevent) -> io::Result<Timer> {
        nanos(change)?;
        // SAFETY: no memory is passed; the descriptor is ours.
        let fd = unsafe {
            let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
            OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags))? as RawFd)
        };
        let mut timer = Timer { fd, count: 0 };
        timer.set(change)?;
        Ok(timer)
    }

    /// Starts it anew.
    pub fn set(&mut self, change: &Kevent) -> io::Result<()> {
        let nanos = nanos(change)?;
        let time = libc::timespec {
            tv_sec: nanos / 1_000_000_000,
            tv_nsec: nanos % 1_000_000_000,
        };
        let never = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let once = change.flags & EV_ONESHOT != 0;
        let spec = libc::itimerspec {
            it_value: time,
            it_interval: if once { never } else { time },
        };
        self.count = 0;
        // SAFETY: `spec` outlives the call.
        check(unsafe { libc::timerfd_settime(self.fd.as_raw_fd(), 0, &spec, ptr::null_mut()) })
            .map(drop)
    }

    pub fn source(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub fn woken(&mut self) {
        let mut n = 0u64;
        // SAFETY: eight bytes of `n`.
        if unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut n).cast(), 8) } == 8 {
            self.count += n;
        }
    }

    pub fn ask(&mut self) -> Option<Report> {
        let count = std::mem::take(&mut self.count);
        (count > 0).then_some(Report {
            data: count as i64,
            ..Report::default()
        })
    }
}
