//! [`TlsStream`] and [`TlsListener`]: TLS in blocking style, on fibers.
//!
//! Nothing here waits while it has the session: bytes are received and sent outside of it, so one fiber can
//! read while another writes. Readers take turns, and writers do, because records have an order.

use super::turn::Turn;
use super::{Session, as_io};
use crate::addr::ToAddrs;
use crate::stream::{Family, Listener, Stream, Tcp, TcpListener, TcpStream};
use gevent_hub_core::cell::LocalCell;
use gevent_hub_core::hub::Hub;
use gevent_hub_core::reactor::Nanos;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, Error, ServerConfig};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// How many plain bytes are encrypted before they are sent.
const CHUNK: usize = 64 << 10;

/// A TLS connection over a [`Stream`].
///
/// The handshake is made by the first read or write, or by [`handshake`](Self::handshake); its limits are
/// theirs. Errors are those of the stream, and `InvalidData` around a [`rustls::Error`] for what is wrong
/// with the peer. An interruption or a timeout leaves the connection whole: nothing that was received is
/// lost, and what a write had encrypted by then, up to 64 KiB, is sent before anything later, at the latest
/// by [`flush`](Write::flush).
///
/// Dropping it closes the stream without [`close_notify`](Self::close_notify); the peer cannot tell that
/// from an attack.
pub struct TlsStream<F: Family = Tcp> {
    stream: Stream<F>,
    state: LocalCell<State>,
    reading: Turn,
    writing: Turn,
}

struct State {
    session: Session,
    /// Encrypted, and not sent yet.
    out: Vec<u8>,
    /// Received, and not taken by the session yet; empty almost always.
    inbound: Vec<u8>,
}

impl State {
    /// The session takes what it can of `data`, after what it has not taken before.
    fn feed(&mut self, data: &[u8]) -> Result<(), Error> {
        if !self.inbound.is_empty() {
            self.inbound.extend_from_slice(data);
            return self.feed_rest();
        }
        let fed = self.session.feed(data)?;
        self.inbound.extend_from_slice(&data[fed..]);
        Ok(())
    }

    fn feed_rest(&mut self) -> Result<(), Error> {
        if !self.inbound.is_empty() {
            let fed = self.session.feed(&self.inbound)?;
            self.inbound.drain(..fed);
            if self.inbound.is_empty() {
                self.inbound = Vec::new();
            }
        }
        Ok(())
    }
}

impl TlsStream<Tcp> {
    /// Connects to a host and speaks TLS with it, as a client that knows it by the name.
    ///
    /// # Errors
    /// Of the look-up, of connect(2), and `InvalidInput` for a host that is neither an address nor a name.
    pub fn connect((host, port): (&str, u16), config: Arc<ClientConfig>) -> io::Result<Self> {
        Self::client(TcpStream::connect((host, port))?, config, host)
    }
}

impl<F: Family> TlsStream<F> {
    /// The client's end over a connected stream. `name` is the server's, which its certificate has to bear.
    ///
    /// # Errors
    /// `InvalidInput` if that is neither an address nor a DNS name.
    pub fn client(stream: Stream<F>, config: Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?}: {e}")))?;
        let session = Session::client(config, name).map_err(as_io)?;
        Ok(Self::over(stream, session))
    }

    /// The server's end over a connected stream.
    ///
    /// # Errors
    /// Of the configuration.
    pub fn server(stream: Stream<F>, config: Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self::over(stream, Session::server(config).map_err(as_io)?))
    }

    /// Over a stream, with a session that may have begun.
    pub fn over(stream: Stream<F>, session: Session) -> Self {
        TlsStream {
            stream,
            state: LocalCell::new(State {
                session,
                out: Vec::new(),
                inbound: Vec::new(),
            }),
            reading: Turn::default(),
            writing: Turn::default(),
        }
    }

    /// The stream below: its addresses, its options, its limits of time, which are those of TLS too.
    pub fn stream(&self) -> &Stream<F> {
        &self.stream
    }

    /// What the session knows: [`Session::alpn`], [`Session::server_name`] and the like.
    pub fn session<R>(&self, f: impl FnOnce(&Session) -> R) -> R {
        self.state.with(|s| f(&s.session))
    }

    /// Makes the handshake, if nobody has.
    ///
    /// # Errors
    /// See [`TlsStream`]; `UnexpectedEof` if the peer went away.
    pub fn handshake(&self) -> io::Result<()> {
        self.handshake_until(self.stream.read_until())
    }

    fn handshake_until(&self, until: Option<Nanos>) -> io::Result<()> {
        if !self.session(Session::is_handshaking) {
            return Ok(());
        }
        let _turn = self.reading.take(until)?;
        loop {
            self.flush_until(until)?;
            if !self.session(Session::is_handshaking) {
                return Ok(());
            }
            if self.receive(until)? == 0 {
                let what = "the peer closed the connection during the TLS handshake";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
            }
        }
    }

    /// Has the session take what has come, or will; 0 at the end. In the reader's turn only.
    fn receive(&self, until: Option<Nanos>) -> io::Result<usize> {
        let mut fed = Ok(());
        let got = self.stream.io().recv_with(until, |data| {
            fed = self.state.with(|s| {
                if data.is_empty() {
                    s.session.feed_end();
                }
                s.feed(data)
            });
        })?;
        match fed {
            Ok(()) => Ok(got),
            Err(error) => {
                self.try_send_alert();
                Err(as_io(error))
            }
        }
    }

    /// The peer should hear why; but nobody waits for that.
    fn try_send_alert(&self) {
        if let Some(_turn) = self.writing.try_take() {
            // Past already: what the socket does not take at once is given up.
            let _best_effort = self.send_output(Some(0));
        }
    }

    fn flush_until(&self, until: Option<Nanos>) -> io::Result<()> {
        let pending = |s: &mut State| !s.out.is_empty() || s.session.has_output();
        if !self.state.with(pending) {
            return Ok(());
        }
        let _turn = self.writing.take(until)?;
        self.send_output(until)
    }

    /// Sends all output. In the writer's turn only.
    fn send_output(&self, until: Option<Nanos>) -> io::Result<()> {
        loop {
            let mut out = self.state.with(|s| {
                s.session.take_output(&mut s.out);
                std::mem::take(&mut s.out)
            });
            if out.is_empty() {
                return Ok(());
            }
            let sent = self.stream.io().send_all(&out, 0, until);
            out.drain(..sent.map_or_else(|s| s.bytes, |()| out.len()));
            self.state.with(|s| s.out = out);
            sent.map_err(|s| io::Error::from(s.error))?;
        }
    }

    /// Receives plain bytes, at least one; 0 is the end that the peer has announced.
    ///
    /// # Errors
    /// See [`TlsStream`]; `UnexpectedEof` if the bytes end without an announcement.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        let until = self.stream.read_until();
        self.handshake_until(until)?;
        let _turn = self.reading.take(until)?;
        loop {
            let (read, fed) = self.state.with(|s| {
                let read = s.session.read_plain(buf);
                let fed = match &read {
                    Ok(None) if !s.inbound.is_empty() => Some(s.feed_rest()),
                    _ => None,
                };
                (read, fed)
            });
            match (read?, fed) {
                (Some(n), _) => return Ok(n),
                (None, Some(Ok(()))) => {}
                (None, Some(Err(error))) => {
                    self.try_send_alert();
                    return Err(as_io(error));
                }
                (None, None) => {
                    self.receive(until)?;
                }
            }
        }
    }

    /// Sends a part of `data`, up to 64 KiB.
    ///
    /// # Errors
    /// See [`TlsStream`].
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        let chunk = &data[..data.len().min(CHUNK)];
        self.send_chunk(chunk, self.stream.write_until())?;
        Ok(chunk.len())
    }

    /// Sends all of `data`; the limit is for the whole.
    ///
    /// # Errors
    /// See [`TlsStream`]; how much was sent is not known then.
    pub fn send_all(&self, data: &[u8]) -> io::Result<()> {
        let until = self.stream.write_until();
        for chunk in data.chunks(CHUNK) {
            self.send_chunk(chunk, until)?;
        }
        Ok(())
    }

    fn send_chunk(&self, chunk: &[u8], until: Option<Nanos>) -> io::Result<()> {
        self.handshake_until(until)?;
        let _turn = self.writing.take(until)?;
        // What an interrupted write has left comes first; while it cannot go, nothing more is encrypted.
        self.send_output(until)?;
        self.state.with(|s| s.session.write_plain(chunk))?;
        self.send_output(until)
    }

    /// Announces the end of what this side sends; the peer reads to an end. The other direction goes on.
    ///
    /// # Errors
    /// See [`TlsStream`].
    pub fn close_notify(&self) -> io::Result<()> {
        let until = self.stream.write_until();
        self.handshake_until(until)?;
        self.state.with(|s| s.session.close());
        self.flush_until(until)
    }

    /// [`close_notify`](Self::close_notify), and the end of the stream below after it.
    ///
    /// A client that only writes should read to the end before it drops the stream: closing a socket with
    /// unread bytes, and a server's session tickets are such, resets the connection, and what the server has
    /// not read by then is lost to it.
    ///
    /// # Errors
    /// As `close_notify`, and of shutdown(2).
    pub fn shutdown(&self) -> io::Result<()> {
        self.close_notify()?;
        self.stream.shutdown(Shutdown::Write)
    }
}

impl<F: Family> Read for &TlsStream<F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv(buf)
    }
}

impl<F: Family> Write for &TlsStream<F> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_until(self.stream.write_until())
    }
}

impl<F: Family> Read for TlsStream<F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv(buf)
    }
}

impl<F: Family> Write for TlsStream<F> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

impl<F: Family> AsRawFd for TlsStream<F> {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// A listener whose connections speak TLS.
pub struct TlsListener<F: Family = Tcp> {
    listener: Listener<F>,
    config: Arc<ServerConfig>,
}

impl TlsListener<Tcp> {
    /// Listens as [`TcpListener::bind`] does.
    ///
    /// # Errors
    /// As it.
    pub fn bind(addr: impl ToAddrs, config: Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self::over(TcpListener::bind(addr)?, config))
    }

    /// Its own address.
    ///
    /// # Errors
    /// Of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl<F: Family> TlsListener<F> {
    /// Over a listener.
    pub fn over(listener: Listener<F>, config: Arc<ServerConfig>) -> Self {
        TlsListener { listener, config }
    }

    /// Waits for a connection. Its handshake is left to whoever reads or writes first, so that a slow client
    /// delays nobody else.
    ///
    /// # Errors
    /// As [`Listener::accept`].
    pub fn accept(&self) -> io::Result<(TlsStream<F>, F::Addr)> {
        let (stream, peer) = self.listener.accept()?;
        Ok((TlsStream::server(stream, self.config.clone())?, peer))
    }

    /// Accepts for ever, and runs `serve` for each connection in a task of its own, after its handshake,
    /// which has 10 seconds. Connections that do not get so far are dropped.
    ///
    /// # Errors
    /// As [`Listener::serve`].
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn serve(&self, serve: impl Fn(TlsStream<F>, F::Addr) + Clone + 'static) -> io::Result<()> {
        /// A client that needs longer is no client.
        const HANDSHAKE: Duration = Duration::from_secs(10);
        let config = self.config.clone();
        self.listener.serve(move |stream, peer| {
            let limit = Hub::with(|hub| crate::raw::deadline_after(hub, HANDSHAKE));
            if let Ok(stream) = TlsStream::server(stream, config.clone())
                && stream.handshake_until(Some(limit)).is_ok()
            {
                serve(stream, peer);
            }
        })
    }

    /// The listener below.
    pub fn listener(&self) -> &Listener<F> {
        &self.listener
    }
}
