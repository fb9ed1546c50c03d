//! [`Stream`] and [`Listener`], of TCP and of AF_UNIX alike.

use crate::addr::{ToAddrs, UnixAddr};
use crate::raw::{Address, IoHandle, Kind};
use crate::socket::{Socket, check, uninit};
use gevent_hub_core::reactor::Nanos;
use gevent_hub_core::{os, task};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::marker::PhantomData;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

/// How long a listener waits when the process has no descriptor left for a connection.
const NO_DESCRIPTORS: Duration = Duration::from_millis(100);

/// A family of stream sockets.
pub trait Family: sealed::Sealed + 'static {
    /// Its addresses.
    type Addr: for<'a> TryFrom<&'a Address, Error = io::Error>;
    /// What its short reads tell.
    const KIND: Kind;
}

mod sealed {
    pub trait Sealed {}
}

/// TCP over IPv4 and IPv6.
pub enum Tcp {}
/// Streams of AF_UNIX.
pub enum Unix {}

impl sealed::Sealed for Tcp {}
impl sealed::Sealed for Unix {}

impl Family for Tcp {
    type Addr = SocketAddr;
    const KIND: Kind = Kind::InetStream;
}

impl Family for Unix {
    type Addr = UnixAddr;
    const KIND: Kind = Kind::UnixStream;
}

/// A connected TCP socket.
pub type TcpStream = Stream<Tcp>;
/// A listening TCP socket.
pub type TcpListener = Listener<Tcp>;
/// A connected stream socket of AF_UNIX.
pub type UnixStream = Stream<Unix>;
/// A listening stream socket of AF_UNIX.
pub type UnixListener = Listener<Unix>;

/// A connected stream socket.
///
/// It reads and writes through a shared reference too, so that one fiber may read while another writes.
/// Reads and writes wait on the thread's hub, or by poll(2) on a thread without one. Their errors: what
/// the kernel says, `TimedOut`, `EBADF` when another fiber has closed it, and interruptions, which
/// [`is_interrupted`](crate::is_interrupted) recognises; after one of those the stream is as it was.
pub struct Stream<F: Family> {
    socket: Socket,
    _family: PhantomData<F>,
}

impl<F: Family> Stream<F> {
    fn new(socket: Socket) -> Self {
        Stream {
            socket,
            _family: PhantomData,
        }
    }

    /// Takes over a connected socket of this family and makes it non-blocking.
    ///
    /// # Errors
    /// Of fcntl(2).
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&fd)?;
        Ok(Self::new(Socket::new(fd, F::KIND)))
    }

    /// Gives the descriptor up, non-blocking as it is.
    pub fn into_fd(self) -> OwnedFd {
        self.socket.into_fd()
    }

    /// Its own address.
    ///
    /// # Errors
    /// Of getsockname(2).
    pub fn local_addr(&self) -> io::Result<F::Addr> {
        F::Addr::try_from(&self.socket.local()?)
    }

    /// The peer's address.
    ///
    /// # Errors
    /// Of getpeername(2).
    pub fn peer_addr(&self) -> io::Result<F::Addr> {
        F::Addr::try_from(&self.socket.peer()?)
    }

    /// How long each read may wait; without a limit for `None`.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.socket.set_read_timeout(timeout);
    }

    /// How long each write may wait, [`send_all`](Self::send_all) as a whole; without a limit for `None`.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.socket.set_write_timeout(timeout);
    }

    /// The moment at which all that waits, now or later, ends with `TimedOut`, counted from now. `None`:
    /// there is none any more.
    pub fn set_deadline(&self, from_now: Option<Duration>) {
        self.socket.set_deadline(from_now);
    }

    pub(crate) fn read_until(&self) -> Option<Nanos> {
        self.socket.read_until()
    }

    pub(crate) fn write_until(&self) -> Option<Nanos> {
        self.socket.write_until()
    }

    /// Shuts down one direction or both: the peer reads to an end, and here the other goes on.
    ///
    /// # Errors
    /// Of shutdown(2).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.as_std::<std::net::TcpStream>().shutdown(how)
    }

    /// Receives what is there, at least a byte; 0 is the end.
    ///
    /// # Errors
    /// See [`Stream`].
    #[inline]
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        let until = self.socket.read_until();
        Ok(self.socket.io.recv(uninit(buf), 0, until)?)
    }

    /// As [`recv`](Self::recv), and leaves it there.
    ///
    /// # Errors
    /// See [`Stream`].
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        let until = self.socket.read_until();
        let flags = libc::MSG_PEEK;
        Ok(self.socket.io.recv(uninit(buf), flags, until)?)
    }

    /// Sends a part of `data`.
    ///
    /// # Errors
    /// See [`Stream`].
    #[inline]
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        let until = self.socket.write_until();
        Ok(self.socket.io.send(data, 0, until)?)
    }

    /// Sends all of `data`.
    ///
    /// # Errors
    /// See [`Stream`]; use [`IoHandle::send_all`] of [`io`](Self::io) to know how much was sent.
    #[inline]
    pub fn send_all(&self, data: &[u8]) -> io::Result<()> {
        let until = self.socket.write_until();
        let sent = self.socket.io.send_all(data, 0, until);
        sent.map_err(|s| s.error.into())
    }

    /// The handle, for calls with flags and deadlines of one's own.
    pub fn io(&self) -> &IoHandle {
        &self.socket.io
    }
}

impl TcpStream {
    /// Connects to the first of the addresses that answers.
    ///
    /// # Errors
    /// Of the look-up, or of the last attempt.
    pub fn connect(addr: impl ToAddrs) -> io::Result<Self> {
        Self::try_each(addr, None)
    }

    /// [`connect`](Self::connect) with a limit for each attempt; the look-up has none.
    ///
    /// # Errors
    /// As `connect`, and `TimedOut`.
    pub fn connect_timeout(addr: impl ToAddrs, timeout: Duration) -> io::Result<Self> {
        Self::try_each(addr, Some(timeout))
    }

    fn try_each(addr: impl ToAddrs, timeout: Option<Duration>) -> io::Result<Self> {
        let mut last = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        for addr in addr.to_addrs()? {
            let attempt = Socket::open(domain(&addr), libc::SOCK_STREAM).and_then(|socket| {
                socket.connect(&addr.into(), timeout)?;
                Ok(socket)
            });
            match attempt {
                Ok(socket) => return Ok(Self::new(socket)),
                Err(e) if crate::is_interrupted(&e) => return Err(e),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Whether small segments are sent at once (TCP_NODELAY).
    ///
    /// # Errors
    /// Of setsockopt(2).
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket
            .set_option(libc::IPPROTO_TCP, libc::TCP_NODELAY, nodelay.into())
    }
}

impl UnixStream {
    /// Connects to a path.
    ///
    /// # Errors
    /// Of connect(2).
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::connect_addr(&path.as_ref().into(), None)
    }

    /// Connects to an address, with a limit.
    ///
    /// # Errors
    /// Of connect(2), and `TimedOut`.
    pub fn connect_addr(addr: &UnixAddr, timeout: Option<Duration>) -> io::Result<Self> {
        let socket = Socket::open(libc::AF_UNIX, libc::SOCK_STREAM)?;
        socket.connect(&addr.try_into()?, timeout)?;
        Ok(Self::new(socket))
    }

    /// Two that are connected to each other.
    ///
    /// # Errors
    /// Of socketpair(2).
    pub fn pair() -> io::Result<(Self, Self)> {
        let mut fds = [-1; 2];
        let ty = libc::SOCK_STREAM | os::SOCKET_FLAGS;
        // SAFETY: `fds` has room for the two descriptors.
        check(unsafe { libc::socketpair(libc::AF_UNIX, ty, 0, fds.as_mut_ptr()) })?;
        fds.into_iter().for_each(os::finish_socket);
        // SAFETY: just opened, and nobody else's.
        let [a, b] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Ok((
            Self::new(Socket::new(a, Unix::KIND)),
            Self::new(Socket::new(b, Unix::KIND)),
        ))
    }
}

impl<F: Family> Read for &Stream<F> {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let until = self.socket.read_until();
        Ok(self.socket.io.readv(bufs, until)?)
    }
}

impl<F: Family> Write for &Stream<F> {
    #[inline]
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let until = self.socket.write_until();
        Ok(self.socket.io.sendv(bufs, until)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: Family> Read for Stream<F> {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl<F: Family> Write for Stream<F> {
    #[inline]
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: Family> AsRawFd for Stream<F> {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.raw_fd()
    }
}

/// A listening stream socket.
pub struct Listener<F: Family> {
    socket: Socket,
    _family: PhantomData<F>,
}

impl<F: Family> Listener<F> {
    fn new(socket: Socket) -> Self {
        Listener {
            socket,
            _family: PhantomData,
        }
    }

    /// Takes over a listening socket of this family and makes it non-blocking.
    ///
    /// # Errors
    /// Of fcntl(2).
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&fd)?;
        // What a listener reads are connections: nothing of theirs is ever short.
        Ok(Self::new(Socket::new(fd, Kind::Other)))
    }

    /// Gives the descriptor up, non-blocking as it is.
    pub fn into_fd(self) -> OwnedFd {
        self.socket.into_fd()
    }

    /// Its own address.
    ///
    /// # Errors
    /// Of getsockname(2).
    pub fn local_addr(&self) -> io::Result<F::Addr> {
        F::Addr::try_from(&self.socket.local()?)
    }

    /// How long each accept may wait; without a limit for `None`.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        self.socket.set_read_timeout(timeout);
    }

    /// Waits for a connection. An interruption leaves it in the backlog.
    ///
    /// # Errors
    /// As reads of [`Stream`]; `EMFILE` and `ENFILE` too.
    pub fn accept(&self) -> io::Result<(Stream<F>, F::Addr)> {
        let (fd, peer) = self.socket.io.accept(self.socket.read_until())?;
        let stream = Stream::new(Socket::new(fd, F::KIND));
        Ok((stream, F::Addr::try_from(&peer)?))
    }

    /// Accepts for ever, and runs `serve` for each connection in a task of its own. When there are no
    /// descriptors left, it waits for some to be closed.
    ///
    /// # Errors
    /// The first that is not about a single connection: an interruption too.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn serve(&self, serve: impl Fn(Stream<F>, F::Addr) + Clone + 'static) -> io::Result<()> {
        loop {
            match self.accept() {
                Ok((stream, peer)) => {
                    let serve = serve.clone();
                    drop(task::spawn(move || serve(stream, peer)));
                }
                Err(e) if is_exhaustion(&e) => {
                    task::sleep(NO_DESCRIPTORS).map_err(io::Error::other)?;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// The handle, for calls with deadlines of one's own.
    pub fn io(&self) -> &IoHandle {
        &self.socket.io
    }
}

impl TcpListener {
    /// Listens on the first of the addresses that can be bound, with SO_REUSEADDR. Port 0 is any free one.
    ///
    /// # Errors
    /// Of the look-up, or of the last attempt.
    pub fn bind(addr: impl ToAddrs) -> io::Result<Self> {
        let mut last = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        for addr in addr.to_addrs()? {
            let attempt = Socket::open(domain(&addr), libc::SOCK_STREAM).and_then(|socket| {
                socket.set_option(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
                socket.bind_port(&addr)?;
                socket.listen()?;
                Ok(socket)
            });
            match attempt {
                Ok(socket) => return Self::from_fd(socket.into_fd()),
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}

impl UnixListener {
    /// Listens on a path, which must not exist.
    ///
    /// # Errors
    /// Of bind(2).
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::bind_addr(&path.as_ref().into())
    }

    /// Listens on an address.
    ///
    /// # Errors
    /// Of bind(2).
    pub fn bind_addr(addr: &UnixAddr) -> io::Result<Self> {
        let socket = Socket::open(libc::AF_UNIX, libc::SOCK_STREAM)?;
        socket.bind(&addr.try_into()?)?;
        socket.listen()?;
        Ok(Self::new(socket))
    }
}

impl<F: Family> AsRawFd for Listener<F> {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.raw_fd()
    }
}

/// The address family of `addr`.
pub(crate) fn domain(addr: &SocketAddr) -> i32 {
    match addr {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    }
}

/// Whether an accept failed for want of descriptors or memory, which passes.
fn is_exhaustion(e: &io::Error) -> bool {
    let passing = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    e.raw_os_error().is_some_and(|n| passing.contains(&n))
}

pub(crate) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    if flags & libc::O_NONBLOCK == 0 {
        // SAFETY: as above.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    }
    Ok(())
}
