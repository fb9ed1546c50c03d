//! [`UdpSocket`].

use crate::addr::ToAddrs;
use crate::raw::{Address, IoHandle, Kind};
use crate::socket::{Socket, uninit};
use crate::stream::{domain, set_nonblocking};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// A UDP socket. Its calls wait as those of [`Stream`](crate::Stream), and fail as those do; a datagram is
/// received whole or, by an interrupted or late call, not at all.
pub struct UdpSocket {
    socket: Socket,
}

impl UdpSocket {
    /// Binds the first of the addresses that can be bound. Port 0 is any free one.
    ///
    /// # Errors
    /// Of the look-up, or of the last attempt.
    pub fn bind(addr: impl ToAddrs) -> io::Result<Self> {
        let mut last = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        for addr in addr.to_addrs()? {
            let attempt = Socket::open(domain(&addr), libc::SOCK_DGRAM).and_then(|socket| {
                socket.bind_port(&addr)?;
                Ok(socket)
            });
            match attempt {
                Ok(socket) => return Ok(UdpSocket { socket }),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Takes over a UDP socket and makes it non-blocking.
    ///
    /// # Errors
    /// Of fcntl(2).
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&fd)?;
        let socket = Socket::new(fd, Kind::Other);
        Ok(UdpSocket { socket })
    }

    /// Gives the descriptor up, non-blocking as it is.
    pub fn into_fd(self) -> OwnedFd {
        self.socket.into_fd()
    }

    /// Sets the peer of [`send`](Self::send) and [`recv`](Self::recv).
    ///
    /// # Errors
    /// Of the look-up, or of connect(2).
    pub fn connect(&self, addr: impl ToAddrs) -> io::Result<()> {
        let mut last = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        for addr in addr.to_addrs()? {
            match self.socket.connect(&addr.into(), None) {
                Ok(()) => return Ok(()),
                Err(e) => last = e.into(),
            }
        }
        Err(last)
    }

    /// Its own address.
    ///
    /// # Errors
    /// Of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        SocketAddr::try_from(&self.socket.local()?)
    }

    /// The peer set by [`connect`](Self::connect).
    ///
    /// # Errors
    /// Of getpeername(2).
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        SocketAddr::try_from(&self.socket.peer()?)
    }

    /// How long each receive may wait; without a limit for `None`.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.socket.set_read_timeout(timeout);
    }

    /// How long each send may wait; without a limit for `None`.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.socket.set_write_timeout(timeout);
    }

    /// Receives a datagram and its sender; what does not fit into `buf` is lost.
    ///
    /// # Errors
    /// See [`UdpSocket`].
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let until = self.socket.read_until();
        let (n, from) = self.socket.io.recv_from(uninit(buf), 0, until)?;
        Ok((n, SocketAddr::try_from(&from)?))
    }

    /// Receives a datagram of the peer.
    ///
    /// # Errors
    /// See [`UdpSocket`]; `ECONNREFUSED` when an earlier one that was sent found nobody.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        let until = self.socket.read_until();
        Ok(self.socket.io.recv(uninit(buf), 0, until)?)
    }

    /// Sends a datagram to the first of the addresses.
    ///
    /// # Errors
    /// See [`UdpSocket`].
    pub fn send_to(&self, data: &[u8], to: impl ToAddrs) -> io::Result<usize> {
        let to = to.to_addrs()?;
        let Some(to) = to.first() else {
            return Err(io::Error::from_raw_os_error(libc::EDESTADDRREQ));
        };
        let until = self.socket.write_until();
        Ok(self
            .socket
            .io
            .send_to(data, 0, &Address::from(*to), until)?)
    }

    /// Sends a datagram to the peer.
    ///
    /// # Errors
    /// See [`UdpSocket`].
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        let until = self.socket.write_until();
        Ok(self.socket.io.send(data, 0, until)?)
    }

    /// The handle, for calls with flags and deadlines of one's own.
    pub fn io(&self) -> &IoHandle {
        &self.socket.io
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.raw_fd()
    }
}
