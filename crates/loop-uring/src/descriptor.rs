//! What kind of thing a descriptor is, so far as the loop has to know.

use std::io;
use std::mem;
use std::os::fd::RawFd;

/// Whether `fd` can be polled at all: epoll refuses files and directories and devices that have no
/// readiness, and so does this loop, for the same answer.
pub(crate) fn pollable(fd: RawFd) -> io::Result<bool> {
    // SAFETY: all zeros is a valid stat, and an out pointer that is valid for the call.
    let kind = unsafe {
        let mut st: libc::stat = mem::zeroed();
        if libc::fstat(fd, &mut st) != 0 {
            return Err(io::Error::last_os_error());
        }
        st.st_mode & libc::S_IFMT
    };
    match kind {
        libc::S_IFREG | libc::S_IFDIR => Ok(false),
        // Only its driver knows; epoll asks it.
        libc::S_IFCHR => {
            // SAFETY: plain calls; the epoll descriptor is ours and closed again.
            unsafe {
                let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
                if epoll < 0 {
                    return Err(io::Error::last_os_error());
                }
                let mut event = libc::epoll_event { events: 0, u64: 0 };
                let added = libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event);
                let refused =
                    added != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM);
                libc::close(epoll);
                Ok(!refused)
            }
        }
        _ => Ok(true),
    }
}

/// Whether `fd` is a regular file.
pub(crate) fn is_regular(fd: RawFd) -> bool {
    // SAFETY: all zeros is a valid stat, and an out pointer that is valid for the call.
    unsafe {
        let mut st: libc::stat = mem::zeroed();
        libc::fstat(fd, &mut st) == 0 && st.st_mode & libc::S_IFMT == libc::S_IFREG
    }
}
