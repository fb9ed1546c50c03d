//! The system calls that wait: receive, send, accept and connect, on an [`IoHandle`].
//!
//! Each is made at once and waits only when the kernel has said EAGAIN, or is known to; each `deadline` is a
//! moment of the loop's clock (see [`deadline_after`](super::deadline_after)). EINTR is made good here.

use super::{Error, IoHandle, deadline_after};
use gevent_hub_core::cell::LocalCell;
use gevent_hub_core::event_loop::{Interest, Readiness};
use gevent_hub_core::hub::Hub;
use gevent_hub_core::os;
use gevent_hub_core::reactor::Nanos;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Between two attempts where no readiness tells when to make the next.
const RETRY: Duration = Duration::from_millis(2);

/// What [`recv_with`](IoHandle::recv_with) asks for: a few records of TLS.
const SCRATCH_LEN: usize = 64 << 10;

/// A socket address as the kernel has it.
#[derive(Clone, Copy)]
pub struct Address {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl Address {
    /// The largest length of an address.
    pub const MAX_LEN: usize = size_of::<libc::sockaddr_storage>();

    /// One of no family and length 0.
    pub fn empty() -> Self {
        Address {
            // SAFETY: a `sockaddr_storage` is plain numbers, for which zeros are valid.
            storage: unsafe { std::mem::zeroed() },
            len: 0,
        }
    }

    /// Copies the bytes of a `sockaddr_*`. `None` if there are more than any address has.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut address = Self::empty();
        if bytes.len() > Self::MAX_LEN {
            return None;
        }
        // SAFETY: the storage has room for `MAX_LEN` bytes, and the two do not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                (&raw mut address.storage).cast::<u8>(),
                bytes.len(),
            );
        }
        address.len = bytes.len() as libc::socklen_t;
        Some(address)
    }

    /// Its bytes, a `sockaddr_*` of its family.
    pub fn as_bytes(&self) -> &[u8] {
        let len = (self.len as usize).min(Self::MAX_LEN);
        // SAFETY: the storage is initialized for its whole length.
        unsafe { std::slice::from_raw_parts((&raw const self.storage).cast::<u8>(), len) }
    }

    /// Its family, `AF_UNSPEC` if it is empty.
    pub fn family(&self) -> i32 {
        i32::from(self.storage.ss_family)
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    pub(crate) fn len(&self) -> libc::socklen_t {
        self.len
    }

    /// Has a system call fill it in.
    pub(crate) fn fill(
        call: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> isize,
    ) -> (isize, Self) {
        let mut address = Self::empty();
        address.len = Self::MAX_LEN as libc::socklen_t;
        let rc = call((&raw mut address.storage).cast(), &mut address.len);
        (rc, address)
    }
}

/// A [`send_all`](IoHandle::send_all) that did not send all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// How many bytes the kernel has taken.
    pub bytes: usize,
    /// Why no more.
    pub error: Error,
}

impl IoHandle {
    /// Makes `call` until it gives something else than EAGAIN and EINTR, and waits between. A negative
    /// result is a failure whose reason is in errno. `known` says whether a latch without readiness spares
    /// the first call.
    #[inline]
    fn until_done(
        &self,
        hub: Option<&Hub>,
        want: Interest,
        known: bool,
        deadline: Option<Nanos>,
        mut call: impl FnMut(RawFd) -> isize,
    ) -> Result<usize, Error> {
        if known
            && let Some(hub) = hub
            && !self.maybe_readable(hub)
        {
            self.wait(hub, want, deadline)?;
        }
        loop {
            let rc = call(self.fd());
            if rc >= 0 {
                return Ok(rc as usize);
            }
            match Error::last_os() {
                Error::Os(libc::EINTR) => {}
                // EWOULDBLOCK is the same number.
                Error::Os(libc::EAGAIN) => match hub {
                    Some(hub) => {
                        self.would_block(hub, want);
                        self.wait(hub, want, deadline)?;
                    }
                    None => self.wait_for(want, deadline)?,
                },
                other => return Err(other),
            }
        }
    }

    #[inline]
    fn reading(
        &self,
        deadline: Option<Nanos>,
        call: impl FnMut(RawFd) -> isize,
    ) -> Result<usize, Error> {
        Hub::with(|hub| self.until_done(hub, Readiness::READ, true, deadline, call))
    }

    #[inline]
    fn writing(
        &self,
        deadline: Option<Nanos>,
        call: impl FnMut(RawFd) -> isize,
    ) -> Result<usize, Error> {
        Hub::with(|hub| self.until_done(hub, Readiness::WRITE, false, deadline, call))
    }

    /// recv(2) into memory that need not be initialized. 0 is the end of a stream.
    ///
    /// # Errors
    /// [`Error`].
    #[inline]
    pub fn recv(
        &self,
        buf: &mut [MaybeUninit<u8>],
        flags: i32,
        deadline: Option<Nanos>,
    ) -> Result<usize, Error> {
        Hub::with(|hub| {
            let (ptr, len) = (buf.as_mut_ptr(), buf.len());
            let got = self.until_done(hub, Readiness::READ, true, deadline, |fd| {
                // SAFETY: `buf` is writable for `len` bytes, and borrowed until the call is over.
                unsafe { libc::recv(fd, ptr.cast(), len, flags) }
            })?;
            if let Some(hub) = hub
                && flags == 0
            {
                self.was_read(hub, got, len);
            }
            Ok(got)
        })
    }

    /// recv(2) into memory of the thread's, which `take` is shown before anything else runs: so a connection
    /// that waits owns no buffer. Shows and returns 0 bytes at the end of a stream.
    ///
    /// # Errors
    /// [`Error`].
    pub fn recv_with(
        &self,
        deadline: Option<Nanos>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<usize, Error> {
        thread_local! {
            static SCRATCH: LocalCell<Box<[u8]>> = LocalCell::new(vec![0; SCRATCH_LEN].into());
        }
        let got = self.reading(deadline, |fd| {
            SCRATCH.with(|scratch| {
                scratch.with(|buf| {
                    // SAFETY: `buf` is writable for its length, and borrowed until the call is over.
                    let rc = unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), 0) };
                    if let Ok(got) = usize::try_from(rc) {
                        take(&buf[..got]);
                    }
                    rc
                })
            })
        })?;
        Hub::with(|hub| {
            if let Some(hub) = hub {
                self.was_read(hub, got, SCRATCH_LEN);
            }
        });
        Ok(got)
    }

    /// readv(2), also for what is no socket. 0 is the end of a stream.
    ///
    /// # Errors
    /// [`Error`].
    pub fn readv(
        &self,
        bufs: &mut [std::io::IoSliceMut<'_>],
        deadline: Option<Nanos>,
    ) -> Result<usize, Error> {
        let count = bufs.len().min(os::MAX_PARTS) as i32;
        let asked = bufs.iter().take(count as usize).map(|b| b.len()).sum();
        let got = self.reading(deadline, |fd| {
            // SAFETY: `IoSliceMut` has the layout of `iovec`; the buffers are borrowed until the call is over.
            unsafe { libc::readv(fd, bufs.as_mut_ptr().cast(), count) }
        })?;
        Hub::with(|hub| {
            if let Some(hub) = hub {
                self.was_read(hub, got, asked);
            }
        });
        Ok(got)
    }

    /// recvfrom(2): the bytes and the sender.
    ///
    /// # Errors
    /// [`Error`].
    pub fn recv_from(
        &self,
        buf: &mut [MaybeUninit<u8>],
        flags: i32,
        deadline: Option<Nanos>,
    ) -> Result<(usize, Address), Error> {
        let mut from = Address::empty();
        let got = self.reading(deadline, |fd| {
            let (rc, address) = Address::fill(|addr, len| {
                // SAFETY: all three areas are writable for their lengths and outlive the call.
                unsafe { libc::recvfrom(fd, buf.as_mut_ptr().cast(), buf.len(), flags, addr, len) }
            });
            from = address;
            rc
        })?;
        Ok((got, from))
    }

    /// send(2), with MSG_NOSIGNAL added. May send a part.
    ///
    /// # Errors
    /// [`Error`].
    #[inline]
    pub fn send(&self, data: &[u8], flags: i32, deadline: Option<Nanos>) -> Result<usize, Error> {
        self.writing(deadline, |fd| {
            // SAFETY: `data` is readable for its length and outlives the call.
            unsafe { libc::send(fd, data.as_ptr().cast(), data.len(), flags | os::NO_SIGNAL) }
        })
    }

    /// [`send`](Self::send) until all is sent; the deadline is for the whole.
    ///
    /// # Errors
    /// [`Sent`]: how far it came, and why no farther.
    #[inline]
    pub fn send_all(&self, data: &[u8], flags: i32, deadline: Option<Nanos>) -> Result<(), Sent> {
        let mut bytes = 0;
        while bytes < data.len() {
            match self.send(&data[bytes..], flags, deadline) {
                Ok(n) => bytes += n,
                Err(error) => return Err(Sent { bytes, error }),
            }
        }
        Ok(())
    }

    /// sendto(2), with MSG_NOSIGNAL added.
    ///
    /// # Errors
    /// [`Error`].
    pub fn send_to(
        &self,
        data: &[u8],
        flags: i32,
        to: &Address,
        deadline: Option<Nanos>,
    ) -> Result<usize, Error> {
        self.writing(deadline, |fd| {
            // SAFETY: `data` and `to` are readable for their lengths and outlive the call.
            unsafe {
                libc::sendto(
                    fd,
                    data.as_ptr().cast(),
                    data.len(),
                    flags | os::NO_SIGNAL,
                    to.as_ptr(),
                    to.len(),
                )
            }
        })
    }

    /// sendmsg(2) of several buffers, with MSG_NOSIGNAL. May send a part.
    ///
    /// # Errors
    /// [`Error`].
    pub fn sendv(
        &self,
        bufs: &[std::io::IoSlice<'_>],
        deadline: Option<Nanos>,
    ) -> Result<usize, Error> {
        // SAFETY: a `msghdr` is numbers and null pointers, for which zeros are valid.
        let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
        msg.msg_iov = bufs.as_ptr().cast_mut().cast();
        msg.msg_iovlen = bufs.len().min(os::MAX_PARTS) as _;
        self.writing(deadline, |fd| {
            // SAFETY: `IoSlice` has the layout of `iovec`, which the kernel only reads; all outlives the call.
            unsafe { libc::sendmsg(fd, &msg, os::NO_SIGNAL) }
        })
    }

    /// accept(2): a close-on-exec, non-blocking descriptor and the peer. What a connection in the backlog
    /// that was aborted meanwhile leaves (`ECONNABORTED`) is passed over.
    ///
    /// # Errors
    /// [`Error`].
    pub fn accept(&self, deadline: Option<Nanos>) -> Result<(OwnedFd, Address), Error> {
        let mut peer = Address::empty();
        loop {
            let fd = self.reading(deadline, |fd| {
                let (rc, address) = Address::fill(|addr, len| {
                    // SAFETY: the address is writable for its length and outlives the call.
                    unsafe { os::accept(fd, addr, len) }.map_or(-1, |fd| fd as isize)
                });
                peer = address;
                rc
            });
            match fd {
                // SAFETY: just opened, and nobody else's.
                Ok(fd) => return Ok((unsafe { OwnedFd::from_raw_fd(fd as RawFd) }, peer)),
                Err(Error::Os(libc::ECONNABORTED)) => {}
                Err(other) => return Err(other),
            }
        }
    }

    /// connect(2), finished. After an error other than a refusal the state of the socket is unknown, as in
    /// POSIX: it should be closed.
    ///
    /// # Errors
    /// [`Error`]; the errno is that of the attempt, such as `ECONNREFUSED`.
    pub fn connect(&self, to: &Address, deadline: Option<Nanos>) -> Result<(), Error> {
        loop {
            // SAFETY: `to` is readable for its length and outlives the call.
            let rc = unsafe { libc::connect(self.fd(), to.as_ptr(), to.len()) };
            if rc == 0 {
                return Ok(());
            }
            match Error::last_os() {
                // The first call has brought it about; this one only asks.
                Error::Os(libc::EISCONN) => return Ok(()),
                // After EINTR the attempt goes on by itself.
                Error::Os(libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => {
                    Hub::with(|hub| {
                        if let Some(hub) = hub {
                            self.would_block(hub, Readiness::WRITE);
                        }
                        self.wait_for(Readiness::WRITE, deadline)
                    })?;
                }
                // A Unix listener whose backlog is full; no event says when that changes.
                Error::Os(libc::EAGAIN) => Hub::with(|hub| pause(hub, deadline))?,
                other => return Err(other),
            }
        }
    }
}

/// Lets [`RETRY`] pass.
fn pause(hub: Option<&Hub>, deadline: Option<Nanos>) -> Result<(), Error> {
    let until = deadline_after(hub, RETRY);
    if deadline.is_some_and(|at| at < until) {
        return Err(Error::TimedOut);
    }
    match hub {
        Some(hub) => Ok(hub.sleep_until(until)?),
        None => {
            std::thread::sleep(RETRY);
            Ok(())
        }
    }
}
