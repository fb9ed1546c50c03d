//! One try of an operation: done, to be tried again when its descriptor is ready, or only possible by blocking.
//!
//! Sockets to accept from and to connect are non-blocking; all else may be blocking and is not waited for.

use crate::event_loop::{Op, Readiness};
use crate::os::{NO_SIGNAL, accept, check, check_len, errno};
use std::io;
use std::os::fd::RawFd;

/// The outcome of one try.
pub(super) enum Try {
    Done(io::Result<u32>),
    /// When its descriptor is ready for this, it can be tried again.
    Wait(Readiness),
    /// It can only be done by a call that blocks.
    Blocking,
}

/// What makes an operation that waits for `want` worth a try.
pub fn serves(want: Readiness, got: Readiness) -> bool {
    let broken = Readiness::HUP.with(Readiness::ERR);
    let mut reasons = broken;
    if want.has(Readiness::READ) {
        reasons = reasons
            .with(Readiness::READ)
            .with(Readiness::RDHUP)
            .with(Readiness::PRI);
    }
    if want.has(Readiness::WRITE) {
        reasons = reasons.with(Readiness::WRITE);
    }
    got.has(reasons.with(want))
}

fn settle(result: io::Result<u32>, want: Readiness) -> Try {
    match result {
        Err(e) if errno(&e) == libc::EAGAIN => Try::Wait(want),
        result => Try::Done(result),
    }
}

/// The poll(2) bits that `fd` has now of those that `want` asks for.
fn poll_now(fd: RawFd, want: Readiness) -> io::Result<u32> {
    let mut events = 0;
    if want.has(Readiness::READ) {
        events |= libc::POLLIN;
        #[cfg(target_os = "linux")]
        {
            events |= libc::POLLRDHUP;
        }
    }
    if want.has(Readiness::WRITE) {
        events |= libc::POLLOUT;
    }
    if want.has(Readiness::PRI) {
        events |= libc::POLLPRI;
    }
    let mut p = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one pollfd, which outlives the call.
    check(unsafe { libc::poll(&mut p, 1, 0) })?;
    if p.revents & libc::POLLNVAL != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    Ok(p.revents as u32)
}

/// How a connect that was under way has ended.
fn connect_result(fd: RawFd) -> io::Result<u32> {
    // A descriptor that hung up before the connect may report that event late: only poll(2) knows.
    if poll_now(fd, Readiness::WRITE)? == 0 {
        return Err(io::Error::from_raw_os_error(libc::EAGAIN));
    }
    let mut error: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `error` has room for an int, and both outlive the call.
    check(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &mut len,
        )
    })?;
    if error == 0 {
        Ok(0)
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}

/// A read or a write that does not block: as `nowait` does it where the system can, else by `call` after a
/// look whether the descriptor is ready.
fn positioned(
    fd: RawFd,
    want: Readiness,
    nowait: impl Fn() -> Option<libc::ssize_t>,
    call: impl Fn() -> libc::ssize_t,
) -> Try {
    if let Some(n) = nowait() {
        match check_len(n) {
            Err(e) if matches!(errno(&e), libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => {}
            result => return settle(result, want),
        }
    }
    if is_regular(fd) {
        return Try::Blocking;
    }
    match poll_now(fd, want) {
        Ok(0) => Try::Wait(want),
        Ok(_) => settle(check_len(call()), want),
        Err(e) => Try::Done(Err(e)),
    }
}

/// preadv2(2) with RWF_NOWAIT; `None` where there is no such call.
fn read_nowait(fd: RawFd, iov: &libc::iovec, offset: i64) -> Option<libc::ssize_t> {
    #[cfg(target_os = "linux")]
    // SAFETY: one vector, whose memory the operation's owner vouches for.
    return Some(unsafe { libc::preadv2(fd, iov, 1, offset, libc::RWF_NOWAIT) });
    #[cfg(not(target_os = "linux"))]
    return {
        let _ = (fd, iov, offset);
        None
    };
}

/// pwritev2(2) with RWF_NOWAIT; `None` where there is no such call.
fn write_nowait(fd: RawFd, iov: &libc::iovec, offset: i64) -> Option<libc::ssize_t> {
    #[cfg(target_os = "linux")]
    // SAFETY: one vector, whose memory the operation's owner vouches for.
    return Some(unsafe { libc::pwritev2(fd, iov, 1, offset, libc::RWF_NOWAIT) });
    #[cfg(not(target_os = "linux"))]
    return {
        let _ = (fd, iov, offset);
        None
    };
}

fn is_regular(fd: RawFd) -> bool {
    let mut s = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: room for the result, read only when it was filled.
    unsafe {
        libc::fstat(fd, s.as_mut_ptr()) == 0
            && matches!(
                s.assume_init().st_mode & libc::S_IFMT,
                libc::S_IFREG | libc::S_IFBLK
            )
    }
}

/// A read at `offset`, or where the file is if that is negative.
///
/// # Safety
/// `buf` is writable for `len`.
unsafe fn read(fd: RawFd, buf: *mut u8, len: usize, offset: i64) -> Try {
    let iov = libc::iovec {
        iov_base: buf.cast(),
        iov_len: len,
    };
    let call = || {
        // SAFETY: the caller's promise.
        unsafe {
            if offset < 0 {
                libc::read(fd, buf.cast(), len)
            } else {
                libc::pread(fd, buf.cast(), len, offset)
            }
        }
    };
    positioned(fd, Readiness::READ, || read_nowait(fd, &iov, offset), call)
}

/// As [`read`], a write.
///
/// # Safety
/// `buf` is readable for `len`.
unsafe fn write(fd: RawFd, buf: *const u8, len: usize, offset: i64) -> Try {
    let iov = libc::iovec {
        iov_base: buf.cast_mut().cast(),
        iov_len: len,
    };
    let call = || {
        // SAFETY: the caller's promise.
        unsafe {
            if offset < 0 {
                libc::write(fd, buf.cast(), len)
            } else {
                libc::pwrite(fd, buf.cast(), len, offset)
            }
        }
    };
    positioned(
        fd,
        Readiness::WRITE,
        || write_nowait(fd, &iov, offset),
        call,
    )
}

/// Tries `op`; `again` says that it has waited.
///
/// # Safety
/// What `op` points to is valid.
pub(super) unsafe fn attempt(op: &mut Op, again: bool) -> Try {
    const R: Readiness = Readiness::READ;
    const W: Readiness = Readiness::WRITE;
    match *op {
        Op::Recv {
            fd,
            buf,
            len,
            flags,
        } => {
            // SAFETY: the caller's promise.
            let n = unsafe { libc::recv(fd, buf.cast(), len, flags | libc::MSG_DONTWAIT) };
            // Urgent data that has not come is EINVAL; what is asked of the ordinary stream is EAGAIN.
            settle(
                check_len(n),
                if flags & libc::MSG_OOB != 0 {
                    Readiness::PRI
                } else {
                    R
                },
            )
        }
        Op::Send {
            fd,
            buf,
            len,
            flags,
        } => {
            let flags = flags | libc::MSG_DONTWAIT | NO_SIGNAL;
            // SAFETY: the caller's promise.
            settle(
                check_len(unsafe { libc::send(fd, buf.cast(), len, flags) }),
                W,
            )
        }
        Op::RecvMsg { fd, msg, flags } => {
            // SAFETY: the caller's promise.
            settle(
                check_len(unsafe { libc::recvmsg(fd, msg, flags | libc::MSG_DONTWAIT) }),
                R,
            )
        }
        Op::SendMsg { fd, msg, flags } => {
            let flags = flags | libc::MSG_DONTWAIT | NO_SIGNAL;
            // SAFETY: the caller's promise.
            settle(check_len(unsafe { libc::sendmsg(fd, msg, flags) }), W)
        }
        Op::Accept { fd, addr, len } => {
            loop {
                // SAFETY: the caller's promise.
                match unsafe { accept(fd, addr.cast(), len) } {
                    // The peer went away while it was in the backlog; the next one may be there.
                    Err(e) if matches!(errno(&e), libc::ECONNABORTED | libc::EINTR) => {}
                    result => break settle(result, R),
                }
            }
        }
        Op::Connect { fd, .. } if again => settle(connect_result(fd), W),
        Op::Connect { fd, addr, len } => {
            // SAFETY: the caller's promise.
            match check(unsafe { libc::connect(fd, addr.cast(), len) }) {
                Err(e) if errno(&e) == libc::EINPROGRESS => Try::Wait(W),
                result => Try::Done(result.map(|_| 0)),
            }
        }
        Op::Read {
            fd,
            buf,
            len,
            offset,
        } => {
            // SAFETY: the caller's promise.
            unsafe { read(fd, buf, len, offset) }
        }
        Op::Write {
            fd,
            buf,
            len,
            offset,
        } => {
            // SAFETY: the caller's promise.
            unsafe { write(fd, buf, len, offset) }
        }
        Op::Poll { fd, want } => match poll_now(fd, want) {
            Ok(0) => Try::Wait(want),
            result => Try::Done(result),
        },
        _ => Try::Blocking,
    }
}
