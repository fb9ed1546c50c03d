//! `EVFILT_PROC` with `NOTE_EXIT`, by a pidfd.

use super::knote::Report;
use crate::sys::*;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    ended: bool,
}

impl Process {
    pub fn new(change: &Kevent) -> io::Result<Process> {
        if change.fflags & NOTE_EXIT == 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let pid = i32::try_from(change.ident)
            .ok()
            .filter(|pid| *pid > 0)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        // SAFETY: no memory is passed; the result is a new descriptor or an error.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Process {
            pid,
            // SAFETY: just opened, and nobody else's.
            pidfd: unsafe { OwnedFd::from_raw_fd(fd as RawFd) },
            ended: false,
        })
    }

    pub fn source(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }

    pub fn woken(&mut self) {
        self.ended = true;
    }

    pub fn ask(&mut self) -> Option<Report> {
        self.ended.then(|| Report {
            flags: EV_EOF | EV_ONESHOT,
            fflags: NOTE_EXIT,
            data: i64::from(status(self.pid)),
        })
    }
}

/// The wait status of a child that nobody has reaped, and that is not reaped by this; else 0.
fn status(pid: i32) -> i32 {
    // SAFETY: `info` outlives the calls, and was filled when its fields are read.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        if libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) != 0
            || info.si_pid() != pid
        {
            return 0;
        }
        match info.si_code {
            libc::CLD_EXITED => info.si_status() << 8,
            libc::CLD_DUMPED => info.si_status() | 0x80,
            _ => info.si_status(),
        }
    }
}
