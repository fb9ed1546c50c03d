//! Waking the loop from any thread: an eventfd that the ring polls, written to once for any number of wakes.

use gevent_hub_core::event_loop::Wake;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

pub(crate) struct Waker {
    fd: OwnedFd,
    /// A wake is on its way, and the loop has not seen it.
    pending: AtomicBool,
    /// Another eventfd that each wake is written to: the kernel does not ring the bell of a ring for what
    /// a write to an eventfd completes, but puts that off, and does so once only.
    bell: OnceLock<Arc<Waker>>,
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: a plain call.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fresh, and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Waker {
            fd: eventfd()?,
            pending: AtomicBool::new(false),
            bell: OnceLock::new(),
        })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The loop has seen the wake. Before its owner looks at what it was woken for. The eventfd is not read:
    /// its counter has room for 2^64 wakes, and each write completes the poll again.
    pub(crate) fn seen(&self) {
        self.pending.store(false, Ordering::SeqCst);
    }

    /// Reads the eventfd empty, so that it becomes readable by the next wake.
    pub(crate) fn silence(&self) {
        self.seen();
        let mut count = 0u64;
        // SAFETY: room for eight bytes; it does not block.
        unsafe { libc::read(self.fd(), (&raw mut count).cast(), 8) };
    }

    /// In a forked child: puts an eventfd of its own in the place of the one shared with the parent.
    pub(crate) fn renew(&self) -> io::Result<()> {
        let fresh = eventfd()?;
        // SAFETY: both are open and ours; the old number now names the new eventfd.
        if unsafe { libc::dup3(fresh.as_raw_fd(), self.fd(), libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // A wake that was on its way in the parent is repeated here.
        if self.pending.load(Ordering::SeqCst) {
            self.write();
        }
        Ok(())
    }

    /// Has each wake written to the eventfd `bell` too, which stays open.
    pub(crate) fn ring(&self, bell: &Arc<Waker>) {
        let _ = self.bell.set(bell.clone());
    }

    fn write(&self) {
        let one = 1u64;
        // SAFETY: eight valid bytes. It cannot fail but by a full counter, which wakes as well.
        unsafe { libc::write(self.fd(), (&raw const one).cast(), 8) };
        if let Some(bell) = self.bell.get() {
            bell.write();
        }
    }
}

impl Wake for Waker {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::SeqCst) {
            self.write();
        }
    }
}
