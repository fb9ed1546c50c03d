//! The system calls of the backend, with their errors as `io::Error`.

use gevent_hub_core::os::{check, errno};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// A close-on-exec eventfd that does not block.
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// An epoll set.
pub struct Epoll {
    fd: OwnedFd,
    /// The kernel has epoll_pwait2, as far as is known.
    nanos: bool,
}

/// How long a wait may last.
#[derive(Clone, Copy)]
pub enum Timeout {
    Zero,
    Nanos(u64),
    Infinite,
}

/// The kernel's 64-bit timespec, on every architecture.
#[repr(C)]
struct KernelTimespec {
    sec: i64,
    nsec: i64,
}

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no memory is passed.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: just made, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        Ok(Epoll { fd, nanos: true })
    }

    fn ctl(&self, op: libc::c_int, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: data };
        // SAFETY: `event` outlives the call.
        check(unsafe { libc::epoll_ctl(self.as_raw_fd(), op, fd, &mut event) }).map(drop)
    }

    /// Registers `fd`, or changes its registration: `armed` says which is expected, and a descriptor that
    /// was closed or replaced behind our back is the other case. Returns the calls made.
    pub fn set(&self, fd: RawFd, armed: bool, events: u32, data: u64) -> (u32, io::Result<()>) {
        let (first, other, but) = if armed {
            (libc::EPOLL_CTL_MOD, libc::EPOLL_CTL_ADD, libc::ENOENT)
        } else {
            (libc::EPOLL_CTL_ADD, libc::EPOLL_CTL_MOD, libc::EEXIST)
        };
        match self.ctl(first, fd, events, data) {
            Err(e) if errno(&e) == but => (2, self.ctl(other, fd, events, data)),
            result => (1, result),
        }
    }

    pub fn delete(&self, fd: RawFd) -> io::Result<()> {
        self.ctl(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Waits, and fills the spare capacity of `events`. An interruption is no event.
    pub fn wait(
        &mut self,
        events: &mut Vec<libc::epoll_event>,
        timeout: Timeout,
    ) -> io::Result<()> {
        events.clear();
        let room = events.capacity() as libc::c_int;
        let (fd, out) = (self.as_raw_fd(), events.as_mut_ptr());
        let result = match timeout {
            // SAFETY: `out` has `room` free places.
            Timeout::Zero => check(unsafe { libc::epoll_wait(fd, out, room, 0) }),
            Timeout::Infinite => {
                // SAFETY: as above.
                check(unsafe { libc::epoll_wait(fd, out, room, -1) })
            }
            Timeout::Nanos(nanos) => self.wait_nanos(out, room, nanos),
        };
        match result {
            Ok(n) => {
                // SAFETY: the kernel has filled so many.
                unsafe { events.set_len(n as usize) };
                Ok(())
            }
            Err(e) if errno(&e) == libc::EINTR => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn wait_nanos(
        &mut self,
        out: *mut libc::epoll_event,
        room: libc::c_int,
        nanos: u64,
    ) -> io::Result<u32> {
        let fd = self.as_raw_fd();
        if self.nanos {
            let time = KernelTimespec {
                sec: (nanos / 1_000_000_000) as i64,
                nsec: (nanos % 1_000_000_000) as i64,
            };
            // SAFETY: `out` has `room` free places, `time` outlives the call; no signal mask.
            let n = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    fd,
                    out,
                    room,
                    ptr::from_ref(&time),
                    ptr::null::<libc::sigset_t>(),
                    8usize,
                )
            };
            if n >= 0 {
                return Ok(n as u32);
            }
            let e = io::Error::last_os_error();
            // EPERM, EINVAL: a sandbox or an emulated kernel that does not know the call.
            if !matches!(errno(&e), libc::ENOSYS | libc::EPERM | libc::EINVAL) {
                return Err(e);
            }
            self.nanos = false;
        }
        // Rounded up: a wait that ends early would be repeated until the deadline.
        let millis = nanos.div_ceil(1_000_000).min(i32::MAX as u64) as libc::c_int;
        // SAFETY: as above.
        check(unsafe { libc::epoll_wait(fd, out, room, millis) })
    }

    #[cfg(test)]
    pub fn forget_nanos(&mut self) {
        self.nanos = false;
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
