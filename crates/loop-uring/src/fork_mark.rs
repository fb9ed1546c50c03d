//! Noticing that this process is a forked child, at the price of one load.
//!
//! A child that entered the parent's ring would corrupt it, and its memory is not even mapped there. The
//! reactor rebuilds the loop in its at-fork hook; this is for processes that forked without any hook.

use std::io;
use std::ptr;

/// A page that the kernel zeroes in children.
pub(crate) struct ForkMark(*mut u8);

const LEN: usize = 4096;

impl ForkMark {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                LEN,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mark = ForkMark(page.cast());
        // SAFETY: the mapping just made.
        if unsafe { libc::madvise(page, LEN, libc::MADV_WIPEONFORK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        mark.set();
        Ok(mark)
    }

    /// From now on, this process is the one the mark belongs to.
    pub(crate) fn set(&self) {
        // SAFETY: our page.
        unsafe { self.0.write_volatile(1) };
    }

    /// Whether this process was forked since [`set`](Self::set).
    #[inline]
    pub(crate) fn forked(&self) -> bool {
        // SAFETY: our page.
        unsafe { self.0.read_volatile() == 0 }
    }
}

impl Drop for ForkMark {
    fn drop(&mut self) {
        // SAFETY: our page, which nobody refers to any more.
        unsafe { libc::munmap(self.0.cast(), LEN) };
    }
}
