//! The system's own calls.

use super::Kevent;
use gevent_hub_core::os::check;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

/// A kernel event queue.
pub struct Queue {
    fd: RawFd,
    /// The process that has it: a forked one does not, and there the number may be another descriptor's.
    pid: u32,
}

/// Events taken by one call, at most; changes given to one.
const ROOM: usize = 256;

fn to_system(e: &Kevent) -> libc::kevent {
    // SAFETY: plain data, for which zeros are valid; some systems have more fields than we know.
    let mut k: libc::kevent = unsafe { std::mem::zeroed() };
    k.ident = e.ident as _;
    k.filter = e.filter as _;
    k.flags = e.flags as _;
    k.fflags = e.fflags as _;
    k.data = e.data as _;
    k.udata = e.udata as _;
    k
}

#[allow(
    clippy::unnecessary_cast,
    reason = "the types of the fields differ between systems"
)]
fn from_system(k: &libc::kevent) -> Kevent {
    Kevent {
        ident: k.ident as usize,
        filter: k.filter as i16,
        flags: k.flags as u16,
        fflags: k.fflags as u32,
        data: k.data as i64,
        udata: k.udata as usize,
    }
}

impl Queue {
    /// Whether `kevent` may be called in a signal handler, as a system call may.
    pub const SIGNAL_SAFE: bool = true;
    /// The kernel forgets what is closed.
    pub const FORGETS_CLOSED: bool = true;

    /// kqueue(2), close-on-exec.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn open() -> io::Result<Self> {
        // SAFETY: no memory is passed; the descriptor is ours.
        unsafe {
            let fd = check(libc::kqueue())? as RawFd;
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            Ok(Queue {
                fd,
                pid: std::process::id(),
            })
        }
    }

    /// kevent(2): makes `changes`, then waits for `timeout` nanoseconds (`None`: without an end) for at least one
    /// event, and gives how many it has written. Of a call without `events` nothing is waited for.
    ///
    /// # Errors
    /// `EINTR`, and that of a change for which there is no place in `events`.
    pub fn kevent(
        &self,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<u64>,
    ) -> io::Result<usize> {
        let mut given = [const { MaybeUninit::<libc::kevent>::uninit() }; ROOM];
        let mut taken = [const { MaybeUninit::<libc::kevent>::uninit() }; ROOM];
        let changes = &changes[..changes.len().min(ROOM)];
        for (to, from) in given.iter_mut().zip(changes) {
            to.write(to_system(from));
        }
        let time = timeout.map(|nanos| libc::timespec {
            tv_sec: (nanos / 1_000_000_000) as _,
            tv_nsec: (nanos % 1_000_000_000) as _,
        });
        let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
        let room = events.len().min(ROOM);
        // SAFETY: as many filled changes and as much room as is said; the time is null or lives.
        let n = check(unsafe {
            libc::kevent(
                self.fd,
                given.as_ptr().cast(),
                changes.len() as _,
                taken.as_mut_ptr().cast(),
                room as _,
                time,
            )
        })? as usize;
        for (to, from) in events.iter_mut().zip(&taken[..n]) {
            // SAFETY: the kernel has filled so many.
            *to = from_system(unsafe { from.assume_init_ref() });
        }
        Ok(n)
    }

    /// In a forked child, which does not inherit queues: gives up the number, which may be another's by now.
    pub fn abandon(self) {
        std::mem::forget(self);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            // SAFETY: ours, and closed once.
            unsafe { libc::close(self.fd) };
        }
    }
}

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}
