//! `EVFILT_SIGNAL`, by a signalfd: the signal is blocked in the thread that asked, observed, and then handled as
//! it would have been.

use super::knote::Report;
use crate::sys::*;
use gevent_hub_core::os::check;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

pub struct Signal {
    signum: i32,
    fd: OwnedFd,
    /// It was blocked before we did so.
    was_blocked: bool,
    count: i64,
}

fn only(signum: i32) -> libc::sigset_t {
    // SAFETY: a signal set, filled before use.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signum);
        set
    }
}

fn mask(how: libc::c_int, signum: i32) -> libc::sigset_t {
    let mut old = MaybeUninit::uninit();
    // SAFETY: valid sets; the old one is filled by the call, which cannot fail.
    unsafe {
        libc::pthread_sigmask(how, &only(signum), old.as_mut_ptr());
        old.assume_init()
    }
}

impl Signal {
    pub fn new(change: &Kevent) -> io::Result<Signal> {
        let signum = i32::try_from(change.ident)
            .ok()
            .filter(|n| (1..=64).contains(n))
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: the set outlives the call; the descriptor is ours.
        let fd = unsafe {
            let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
            OwnedFd::from_raw_fd(check(libc::signalfd(-1, &only(signum), flags))? as RawFd)
        };
        let old = mask(libc::SIG_BLOCK, signum);
        Ok(Signal {
            signum,
            fd,
            // SAFETY: a valid set.
            was_blocked: unsafe { libc::sigismember(&old, signum) } == 1,
            count: 0,
        })
    }

    pub fn source(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub fn woken(&mut self) {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: room for one record.
        while unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) } > 0 {
            self.count += 1;
            if !self.was_blocked {
                self.handle();
            }
        }
    }

    /// Lets the signal do what it does without us.
    fn handle(&self) {
        // SAFETY: plain calls with valid pointers.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(self.signum, ptr::null(), &mut action) == 0
                && action.sa_sigaction != libc::SIG_IGN
            {
                // It is delivered as soon as it is unblocked.
                libc::raise(self.signum);
                mask(libc::SIG_UNBLOCK, self.signum);
                mask(libc::SIG_BLOCK, self.signum);
            }
        }
    }

    pub fn ask(&mut self) -> Option<Report> {
        let count = std::mem::take(&mut self.count);
        (count > 0).then_some(Report {
            data: count,
            ..Report::default()
        })
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        if !self.was_blocked {
            mask(libc::SIG_UNBLOCK, self.signum);
        }
    }
}
