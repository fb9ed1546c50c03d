//! [`OnFiber`]: hickory's sockets and timers, polled by [`block_on`](super::drive::block_on).

use super::drive::{self, Delay};
use crate::raw::Address;
use crate::socket::check;
use async_trait::async_trait;
use futures_io::{AsyncRead, AsyncWrite};
use gevent_hub_core::event_loop::{Interest, Readiness};
use gevent_hub_core::os;
use hickory_resolver::net::runtime::{DnsTcpStream, DnsUdpSocket, RuntimeProvider, Spawn, Time};
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How long a TCP connection may take when hickory does not say.
const CONNECT: Duration = Duration::from_secs(5);

/// The runtime of a look-up: the fiber that wants it.
#[derive(Clone, Copy)]
pub(super) struct OnFiber;

impl Spawn for OnFiber {
    fn spawn_bg(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        drive::spawn(Box::pin(future));
    }
}

/// Makes `call` once, and has `cx` woken when it may be worth another try.
fn attempt<T>(
    fd: &impl AsRawFd,
    want: Interest,
    cx: &Context<'_>,
    mut call: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                drive::would_block(fd.as_raw_fd(), want, cx);
                return Poll::Pending;
            }
            done => return Poll::Ready(done),
        }
    }
}

pub(super) struct Udp(std::net::UdpSocket);

impl Drop for Udp {
    fn drop(&mut self) {
        drive::closing(self.0.as_raw_fd());
    }
}

impl DnsUdpSocket for Udp {
    type Time = Timers;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        attempt(&self.0, Readiness::READ, cx, || self.0.recv_from(buf))
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        attempt(&self.0, Readiness::WRITE, cx, || {
            self.0.send_to(buf, target)
        })
    }
}

pub(super) struct Tcp(std::net::TcpStream);

impl Drop for Tcp {
    fn drop(&mut self) {
        drive::closing(self.0.as_raw_fd());
    }
}

impl Tcp {
    /// Begins a connection.
    fn begin(to: SocketAddr, from: Option<SocketAddr>) -> io::Result<Self> {
        let kind = libc::SOCK_STREAM | os::SOCKET_FLAGS;
        // SAFETY: no memory is passed.
        let fd = check(unsafe { libc::socket(crate::stream::domain(&to), kind, 0) })?;
        os::finish_socket(fd);
        // SAFETY: just opened, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if let Some(from) = from.map(Address::from) {
            // SAFETY: the address is readable for its length and outlives the call.
            check(unsafe { libc::bind(fd.as_raw_fd(), from.as_ptr(), from.len()) })?;
        }
        let to = Address::from(to);
        // SAFETY: as above.
        match check(unsafe { libc::connect(fd.as_raw_fd(), to.as_ptr(), to.len()) }) {
            Err(e) if !matches!(e.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => Err(e),
            _ => Ok(Tcp(fd.into())),
        }
    }

    /// Waits for the end of its connect(2).
    fn poll_connected(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        attempt(&self.0, Readiness::WRITE, cx, || {
            match self.0.take_error()? {
                Some(e) => Err(e),
                None => match self.0.peer_addr() {
                    Err(e) if e.kind() == io::ErrorKind::NotConnected => {
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                    other => other.map(drop),
                },
            }
        })
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        attempt(&self.0, Readiness::READ, cx, || (&self.0).read(buf))
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        attempt(&self.0, Readiness::WRITE, cx, || (&self.0).write(buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown(Shutdown::Write))
    }
}

impl DnsTcpStream for Tcp {
    type Time = Timers;
}

pub(super) struct Timers;

/// `future`, if it is ready in time.
async fn in_time<F: Future>(duration: Duration, future: F) -> io::Result<F::Output> {
    let (mut future, mut delay) = (pin!(future), pin!(Delay::new(duration)));
    poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        ready!(delay.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    })
    .await
}

#[async_trait]
impl Time for Timers {
    async fn delay_for(duration: Duration) {
        Delay::new(duration).await;
    }

    async fn timeout<F: 'static + Future + Send>(
        duration: Duration,
        future: F,
    ) -> Result<F::Output, io::Error> {
        in_time(duration, future).await
    }
}

impl RuntimeProvider for OnFiber {
    type Handle = OnFiber;
    type Timer = Timers;
    type Udp = Udp;
    type Tcp = Tcp;

    fn create_handle(&self) -> OnFiber {
        OnFiber
    }

    fn connect_tcp(
        &self,
        to: SocketAddr,
        from: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Tcp>>>> {
        Box::pin(async move {
            let stream = Tcp::begin(to, from)?;
            let connected = poll_fn(|cx| stream.poll_connected(cx));
            in_time(timeout.unwrap_or(CONNECT), connected).await??;
            Ok(stream)
        })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        _server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Udp>>>> {
        Box::pin(async move {
            let socket = std::net::UdpSocket::bind(local)?;
            socket.set_nonblocking(true)?;
            Ok(Udp(socket))
        })
    }
}
