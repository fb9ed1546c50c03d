//! What can be had of a file without waiting: by calls that refuse to.

use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;

/// What a call that must not wait said.
pub enum Tried {
    /// It was done.
    Done(usize),
    /// It would have waited, or the kernel or the file system cannot tell.
    Waits,
    /// A signal came first.
    Interrupted,
    /// It failed.
    Failed(i32),
}

/// The number of the last failed call.
fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Reads what is in memory already. `offset` -1 is the file's own position, which moves.
///
/// # Safety
/// `at` is valid for writes of `len` bytes.
pub unsafe fn read_cached(fd: RawFd, at: *mut u8, len: usize, offset: i64) -> Tried {
    let part = libc::iovec {
        iov_base: at.cast(),
        iov_len: len,
    };
    // SAFETY: one part, valid by the caller's promise.
    let n = unsafe { libc::preadv2(fd, &raw const part, 1, offset, libc::RWF_NOWAIT) };
    if let Ok(n) = usize::try_from(n) {
        return Tried::Done(n);
    }
    match errno() {
        libc::EAGAIN | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::EPERM => Tried::Waits,
        libc::EINTR => Tried::Interrupted,
        e => Tried::Failed(e),
    }
}

/// `struct open_how` of openat2(2).
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const RESOLVE_CACHED: u64 = 0x20;

/// Whether opening `path` would neither wait for a disk nor, as a FIFO or a device may, for anything else: it
/// is a regular file and the kernel has it in memory.
pub fn is_cached_file(path: &CStr, flags: i32) -> bool {
    let how = OpenHow {
        flags: (libc::O_PATH | libc::O_CLOEXEC | flags & libc::O_NOFOLLOW) as u64,
        mode: 0,
        resolve: RESOLVE_CACHED,
    };
    // SAFETY: a path and a struct of that size, valid for the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw const how,
            size_of::<OpenHow>(),
        )
    } as RawFd;
    if fd < 0 {
        return false;
    }
    let regular = is_regular(fd);
    // SAFETY: just opened.
    unsafe { libc::close(fd) };
    regular
}

/// Whether `fd` is a regular file.
pub fn is_regular(fd: RawFd) -> bool {
    kind_and_size(fd).is_ok_and(|(kind, _)| kind == libc::S_IFREG)
}

/// The type bits of `fd`'s mode, and its size in bytes.
///
/// # Errors
/// Of fstat(2).
pub fn kind_and_size(fd: RawFd) -> io::Result<(libc::mode_t, i64)> {
    // SAFETY: all zeros is a valid stat, and an out pointer that is valid for the call.
    unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &mut st) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((st.st_mode & libc::S_IFMT, st.st_size))
    }
}

/// A call that may wait, repeated for as long as `go_on` allows after a signal.
///
/// # Errors
/// The number of the failed call.
pub fn blocking(call: impl FnOnce() -> isize) -> Result<usize, i32> {
    usize::try_from(call()).map_err(|_| errno())
}
