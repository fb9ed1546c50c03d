//! Operations by readiness: each is tried, and tried again when its descriptor has become ready.
//!
//! Sockets to accept from and to connect are non-blocking; all else may be blocking and is not waited for.

use crate::sys::{check, check_len, errno};
use gevent_hub_core::event_loop::{Op, Readiness};
use std::io;
use std::os::fd::RawFd;

/// The outcome of one try.
pub enum Try {
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

/// The descriptor of an operation that can be tried.
pub fn fd_of(op: &Op) -> Option<RawFd> {
    match *op {
        Op::Recv { fd, .. }
        | Op::Send { fd, .. }
        | Op::RecvMsg { fd, .. }
        | Op::SendMsg { fd, .. }
        | Op::Accept { fd, .. }
        | Op::Connect { fd, .. }
        | Op::Read { fd, .. }
        | Op::Write { fd, .. }
        | Op::Poll { fd, .. } => Some(fd),
        _ => None,
    }
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
        events |= libc::POLLIN | libc::POLLRDHUP;
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

/// A read or a write at a position, or without one, that does not block: by RWF_NOWAIT where the file has
/// it, else after a look whether it is ready.
fn positioned(fd: RawFd, want: Readiness, call: impl Fn(libc::c_int) -> libc::ssize_t) -> Try {
    match check_len(call(libc::RWF_NOWAIT)) {
        Err(e) if matches!(errno(&e), libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => {}
        result => return settle(result, want),
    }
    if is_regular(fd) {
        return Try::Blocking;
    }
    match poll_now(fd, want) {
        Ok(0) => Try::Wait(want),
        Ok(_) => settle(check_len(call(0)), want),
        Err(e) => Try::Done(Err(e)),
    }
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

/// Tries `op`; `again` says that it has waited.
///
/// # Safety
/// What `op` points to is valid.
pub unsafe fn attempt(op: &mut Op, again: bool) -> Try {
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
            let flags = flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
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
            let flags = flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: the caller's promise.
            settle(check_len(unsafe { libc::sendmsg(fd, msg, flags) }), W)
        }
        Op::Accept { fd, addr, len } => {
            let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            loop {
                // SAFETY: the caller's promise.
                match check(unsafe { libc::accept4(fd, addr.cast(), len, flags) }) {
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
        } => positioned(fd, R, |flags| {
            let iov = libc::iovec {
                iov_base: buf.cast(),
                iov_len: len,
            };
            // SAFETY: the caller's promise.
            unsafe { libc::preadv2(fd, &iov, 1, offset, flags) }
        }),
        Op::Write {
            fd,
            buf,
            len,
            offset,
        } => positioned(fd, W, |flags| {
            let iov = libc::iovec {
                iov_base: buf.cast_mut().cast(),
                iov_len: len,
            };
            // SAFETY: the caller's promise.
            unsafe { libc::pwritev2(fd, &iov, 1, offset, flags) }
        }),
        Op::Poll { fd, want } => match poll_now(fd, want) {
            Ok(0) => Try::Wait(want),
            result => Try::Done(result),
        },
        _ => Try::Blocking,
    }
}
