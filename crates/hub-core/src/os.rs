//! What every caller of the system needs: results with their errno, which call a loop was refused by, and the
//! calls that differ between systems.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

/// The system refused a loop.
#[derive(Debug)]
pub struct Refused {
    /// The system call.
    pub call: &'static str,
    /// Its errno.
    pub errno: i32,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = io::Error::from_raw_os_error(self.errno);
        write!(f, "{} failed with {e}", self.call)
    }
}

impl std::error::Error for Refused {}

/// Says which call an error is of. The [`Refused`] stays inside: `get_ref` finds it.
///
/// # Errors
/// The one of `result`.
pub fn of_call<T>(call: &'static str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|e| {
        let errno = errno(&e);
        io::Error::new(e.kind(), Refused { call, errno })
    })
}

/// Turns -1 into the errno.
///
/// # Errors
/// The thread's errno, when `result` is negative.
pub fn check(result: libc::c_int) -> io::Result<u32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as u32)
    }
}

/// As [`check`], for calls that return a size.
///
/// # Errors
/// The thread's errno, when `result` is negative.
pub fn check_len(result: libc::ssize_t) -> io::Result<u32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as u32)
    }
}

/// The errno of an error, or 0.
pub fn errno(e: &io::Error) -> i32 {
    e.raw_os_error().unwrap_or(0)
}

/// Starts a thread with a stack of so many bytes that no signal is delivered to, so that handlers run where the
/// program expects them.
///
/// # Errors
/// As of [`std::thread::Builder::spawn`].
pub fn start_thread(
    name: &str,
    stack: usize,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<std::thread::JoinHandle<()>> {
    // SAFETY: plain data of the C library's, filled before use; the mask is restored below.
    let old = unsafe {
        let (mut all, mut old) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        old
    };
    let builder = std::thread::Builder::new().name(name.to_owned());
    let thread = builder.stack_size(stack).spawn(run);
    // SAFETY: the mask from above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut()) };
    thread
}

/// The flag that keeps a send to a peer that is gone from raising SIGPIPE. Apple's systems have a socket option
/// for it and no flag.
#[cfg(not(target_vendor = "apple"))]
pub const NO_SIGNAL: libc::c_int = libc::MSG_NOSIGNAL;
/// The flag that keeps a send to a peer that is gone from raising SIGPIPE: none here, but a socket option.
#[cfg(target_vendor = "apple")]
pub const NO_SIGNAL: libc::c_int = 0;

/// The flags that may come with a socket's type: close-on-exec and non-blocking.
#[cfg(not(target_vendor = "apple"))]
pub const SOCKET_FLAGS: libc::c_int = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
/// The flags that may come with a socket's type: none here.
#[cfg(target_vendor = "apple")]
pub const SOCKET_FLAGS: libc::c_int = 0;

/// How many parts a scattered read or write may have: IOV_MAX of every system that we know.
pub const MAX_PARTS: usize = 1024;

/// accept(2), the new descriptor close-on-exec and non-blocking.
///
/// # Errors
/// Those of accept(2).
///
/// # Safety
/// `addr` has room for `*len` bytes; or both are null.
pub unsafe fn accept(
    fd: RawFd,
    addr: *mut libc::sockaddr,
    len: *mut libc::socklen_t,
) -> io::Result<u32> {
    #[cfg(not(target_vendor = "apple"))]
    // SAFETY: the caller's promise.
    return check(unsafe { libc::accept4(fd, addr, len, SOCKET_FLAGS) });
    #[cfg(target_vendor = "apple")]
    {
        // SAFETY: the caller's promise.
        let new = check(unsafe { libc::accept(fd, addr, len) })?;
        finish_socket(new as RawFd);
        Ok(new)
    }
}

/// Makes a new socket what [`SOCKET_FLAGS`] and [`NO_SIGNAL`] make it elsewhere, on systems without these flags.
pub fn finish_socket(fd: RawFd) {
    #[cfg(target_vendor = "apple")]
    // SAFETY: flags of a descriptor that is ours alone, and an option with its size.
    unsafe {
        let on: libc::c_int = 1;
        libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_NOSIGPIPE,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
    #[cfg(not(target_vendor = "apple"))]
    let _ = fd;
}

/// How many bytes can be read from a stream (FIONREAD of ioctl(2)).
pub fn unread(fd: RawFd) -> Option<libc::c_int> {
    let mut n: libc::c_int = 0;
    // SAFETY: it writes an int.
    (unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut n) } == 0).then_some(n)
}

/// The address family of a socket (AF_INET, ...).
pub fn socket_domain(fd: RawFd) -> Option<libc::c_int> {
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    return socket_option(fd, libc::SO_DOMAIN);
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    {
        // SAFETY: plain data, for which zeros are valid, and which outlives the call.
        let (rc, addr) = unsafe {
            let mut addr: libc::sockaddr_storage = std::mem::zeroed();
            let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            let rc = libc::getsockname(fd, (&raw mut addr).cast(), &mut len);
            (rc, addr)
        };
        (rc == 0).then_some(libc::c_int::from(addr.ss_family))
    }
}

/// A socket's option of the level SOL_SOCKET that is a number.
pub fn socket_option(fd: RawFd, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` and `len` outlive the call, and `len` is the size of `value`.
    let rc = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &mut len,
        )
    };
    (rc == 0).then_some(value)
}

/// A socket's protocol, on systems that tell.
pub fn socket_protocol(fd: RawFd) -> Option<libc::c_int> {
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    return socket_option(fd, libc::SO_PROTOCOL);
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    return None;
}

/// sendfile(2), as Linux has it: sends up to `count` bytes of `file` from `at` on, moves `at`, and gives how many;
/// 0 at the end of the file, -1 with errno. On systems without it a buffer goes between.
pub fn send_file(socket: RawFd, file: RawFd, at: &mut libc::off_t, count: usize) -> libc::ssize_t {
    #[cfg(target_os = "linux")]
    // SAFETY: `at` outlives the call.
    return unsafe { libc::sendfile(socket, file, at, count) };
    #[cfg(not(target_os = "linux"))]
    {
        let sent = send_file_once(socket, file, *at, count);
        if sent > 0 {
            *at += sent as libc::off_t;
        }
        sent
    }
}

#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
fn send_file_once(socket: RawFd, file: RawFd, at: libc::off_t, count: usize) -> libc::ssize_t {
    #[cfg(target_vendor = "apple")]
    // SAFETY: the length outlives the call; there are no headers.
    let (rc, sent) = unsafe {
        let mut len = count as libc::off_t;
        let rc = libc::sendfile(file, socket, at, &mut len, std::ptr::null_mut(), 0);
        (rc, len)
    };
    #[cfg(target_os = "freebsd")]
    // SAFETY: the count outlives the call; there are no headers.
    let (rc, sent) = unsafe {
        let mut sent: libc::off_t = 0;
        let none = std::ptr::null_mut();
        let rc = libc::sendfile(file, socket, at, count, none, &mut sent, 0);
        (rc, sent)
    };
    // What was sent before EAGAIN or EINTR counts.
    if sent > 0 || rc == 0 {
        sent as libc::ssize_t
    } else {
        -1
    }
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd")))]
fn send_file_once(socket: RawFd, file: RawFd, at: libc::off_t, count: usize) -> libc::ssize_t {
    let mut buffer = [0u8; 16 << 10];
    let ask = count.min(buffer.len());
    // SAFETY: the buffer and its size; what was read of it is sent.
    unsafe {
        let n = libc::pread(file, buffer.as_mut_ptr().cast(), ask, at);
        if n <= 0 {
            return n;
        }
        libc::send(socket, buffer.as_ptr().cast(), n as usize, NO_SIGNAL)
    }
}

/// Where this thread's errno lives.
pub(crate) fn errno_location() -> *mut libc::c_int {
    // SAFETY: plain calls, whose result is valid for the calling thread.
    unsafe {
        #[cfg(any(target_os = "linux", target_os = "dragonfly"))]
        return libc::__errno_location();
        #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
        return libc::__error();
        #[cfg(any(target_os = "netbsd", target_os = "openbsd", target_os = "android"))]
        return libc::__errno();
    }
}
