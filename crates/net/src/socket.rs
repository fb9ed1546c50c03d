//! [`Socket`]: what every typed socket of this crate is made of: the descriptor, its handle, its limits.

use crate::raw::{Address, Error, IoHandle, Kind, deadline_after};
use gevent_hub_core::hub::Hub;
use gevent_hub_core::os;
use gevent_hub_core::reactor::Nanos;
use gevent_hub_core::task;
use std::cell::Cell;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// How long a listener's backlog is; the kernel's `somaxconn` caps it.
const BACKLOG: i32 = 4096;

/// How often a port that is in use is tried on a ring, and how long the pauses are. Ports were free again 8 to 9 ms
/// after a process with 300 connections was killed.
const BIND_TRIES: u32 = 100;
const BIND_PAUSE: Duration = Duration::from_millis(1);

/// Calls `attempt` up to `tries` times while it fails with EADDRINUSE, and `pause` in between, until that fails.
fn try_while_in_use(
    tries: u32,
    mut attempt: impl FnMut() -> io::Result<()>,
    mut pause: impl FnMut() -> bool,
) -> io::Result<()> {
    let mut left = tries;
    loop {
        let result = attempt();
        left -= 1;
        match &result {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && left > 0 && pause() => {}
            _ => return result,
        }
    }
}

/// A non-blocking socket that it owns. Closing tells the loop first.
pub(crate) struct Socket {
    /// `None` only while it is taken apart.
    fd: Option<OwnedFd>,
    pub(crate) io: IoHandle,
    read_timeout: Cell<Option<Duration>>,
    write_timeout: Cell<Option<Duration>>,
    deadline: Cell<Option<Nanos>>,
}

/// The result of a system call that gives -1 for errno.
pub(crate) fn check(rc: i32) -> io::Result<i32> {
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(rc)
    }
}

/// Bytes that a system call may fill in.
pub(crate) fn uninit(buf: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: the layouts are the same, and the system calls that it is made for write initialized bytes.
    unsafe { &mut *(std::ptr::from_mut(buf) as *mut [MaybeUninit<u8>]) }
}

impl Socket {
    /// socket(2).
    pub(crate) fn open(domain: i32, ty: i32) -> io::Result<Socket> {
        // SAFETY: no memory is passed.
        let fd = check(unsafe { libc::socket(domain, ty | os::SOCKET_FLAGS, 0) })?;
        os::finish_socket(fd);
        // SAFETY: just opened, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self::new(fd, Kind::of(domain, ty, 0)))
    }

    /// Takes over a descriptor that is non-blocking.
    pub(crate) fn new(fd: OwnedFd, kind: Kind) -> Socket {
        Socket {
            io: IoHandle::new(fd.as_raw_fd(), kind),
            fd: Some(fd),
            read_timeout: Cell::new(None),
            write_timeout: Cell::new(None),
            deadline: Cell::new(None),
        }
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.io.fd()
    }

    /// The descriptor, which the loop has forgotten.
    pub(crate) fn into_fd(mut self) -> OwnedFd {
        self.io.detach();
        self.fd.take().expect("a socket has its descriptor")
    }

    /// Lends the descriptor to a type of the standard library, for the calls that never wait.
    pub(crate) fn as_std<T: FromRawFd>(&self) -> ManuallyDrop<T> {
        // SAFETY: the descriptor is open and a socket, and `ManuallyDrop` keeps the borrower from closing it.
        ManuallyDrop::new(unsafe { T::from_raw_fd(self.raw_fd()) })
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.read_timeout.set(timeout);
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.write_timeout.set(timeout);
    }

    pub(crate) fn set_deadline(&self, from_now: Option<Duration>) {
        let at = from_now.map(|d| Hub::with(|hub| deadline_after(hub, d)));
        self.deadline.set(at);
    }

    #[inline]
    fn until(&self, timeout: Option<Duration>) -> Option<Nanos> {
        let Some(timeout) = timeout else {
            return self.deadline.get();
        };
        let at = Hub::with(|hub| deadline_after(hub, timeout));
        Some(self.deadline.get().map_or(at, |d| d.min(at)))
    }

    /// When a read that begins now has to be over.
    #[inline]
    pub(crate) fn read_until(&self) -> Option<Nanos> {
        self.until(self.read_timeout.get())
    }

    /// When a write that begins now has to be over.
    #[inline]
    pub(crate) fn write_until(&self) -> Option<Nanos> {
        self.until(self.write_timeout.get())
    }

    pub(crate) fn connect(&self, to: &Address, timeout: Option<Duration>) -> Result<(), Error> {
        let deadline = timeout.map(|d| Hub::with(|hub| deadline_after(hub, d)));
        self.io.connect(to, deadline)
    }

    pub(crate) fn bind(&self, to: &Address) -> io::Result<()> {
        // SAFETY: `to` is readable for its length and outlives the call.
        check(unsafe { libc::bind(self.raw_fd(), to.as_ptr(), to.len()) }).map(drop)
    }

    /// Binds to an internet address. On `uring`, tries for a while as long as the port is taken: the kernel takes a
    /// ring apart after its process is gone, and until then the ring holds the sockets of a server that was killed.
    pub(crate) fn bind_port(&self, to: &SocketAddr) -> io::Result<()> {
        let to = Address::from(*to);
        let on_ring = Hub::with(|hub| hub.is_some_and(|hub| hub.reactor().caps().name == "uring"));
        let tries = if on_ring { BIND_TRIES } else { 1 };
        try_while_in_use(tries, || self.bind(&to), || task::sleep(BIND_PAUSE).is_ok())
    }

    pub(crate) fn listen(&self) -> io::Result<()> {
        // SAFETY: no memory is passed.
        check(unsafe { libc::listen(self.raw_fd(), BACKLOG) }).map(drop)
    }

    /// Sets an option whose value is an int.
    pub(crate) fn set_option(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        let len = size_of::<i32>() as libc::socklen_t;
        // SAFETY: `value` is `len` bytes and outlives the call.
        let rc =
            unsafe { libc::setsockopt(self.raw_fd(), level, name, (&raw const value).cast(), len) };
        check(rc).map(drop)
    }

    pub(crate) fn local(&self) -> io::Result<Address> {
        let fd = self.raw_fd();
        // SAFETY: the address is writable for its length and outlives the call.
        let (rc, address) =
            Address::fill(|addr, len| unsafe { libc::getsockname(fd, addr, len) as isize });
        check(rc as i32).map(|_| address)
    }

    pub(crate) fn peer(&self) -> io::Result<Address> {
        let fd = self.raw_fd();
        // SAFETY: the address is writable for its length and outlives the call.
        let (rc, address) =
            Address::fill(|addr, len| unsafe { libc::getpeername(fd, addr, len) as isize });
        check(rc as i32).map(|_| address)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.fd.is_some() {
            self.io.closing();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_in_use_is_tried_again_for_a_while() {
        let attempts = |tries: u32, fails: u32, errno: i32| {
            let (mut count, mut pauses) = (0, 0);
            let result = try_while_in_use(
                tries,
                || {
                    count += 1;
                    match count {
                        n if n <= fails => Err(io::Error::from_raw_os_error(errno)),
                        _ => Ok(()),
                    }
                },
                || {
                    pauses += 1;
                    true
                },
            );
            (result.is_ok(), count, pauses)
        };
        assert_eq!(attempts(5, 0, libc::EADDRINUSE), (true, 1, 0));
        assert_eq!(attempts(5, 3, libc::EADDRINUSE), (true, 4, 3));
        assert_eq!(attempts(5, 9, libc::EADDRINUSE), (false, 5, 4));
        assert_eq!(attempts(1, 9, libc::EADDRINUSE), (false, 1, 0));
        assert_eq!(attempts(5, 9, libc::EACCES), (false, 1, 0));
        let interrupted = try_while_in_use(
            5,
            || Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
            || false,
        );
        assert_eq!(
            interrupted.unwrap_err().raw_os_error(),
            Some(libc::EADDRINUSE)
        );
    }
}
