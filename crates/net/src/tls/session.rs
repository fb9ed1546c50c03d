//! [`Session`]: one end of a TLS connection, without I/O.

use super::as_io;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, Error, HandshakeKind, ProtocolVersion,
    ServerConfig, ServerConnection,
};
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::sync::Arc;

/// One end of a TLS connection: bytes of the peer go in, bytes for the peer come out, plain ones on the
/// other side. It makes no system call, takes no lock and never waits.
///
/// A state machine does this, over and over:
/// 1. what was received goes into [`receive`](Self::receive) (or [`feed`](Self::feed)), an end into
///    [`feed_end`](Self::feed_end);
/// 2. plain bytes come out; answers go into [`write_plain`](Self::write_plain);
/// 3. while [`has_output`](Self::has_output), output goes to the peer, also after an error: it is the alert.
pub struct Session {
    connection: Connection,
    failed: Option<Error>,
    /// This side has announced its end.
    closing: bool,
    /// The peer has announced its end.
    closed: bool,
    /// No more bytes of the peer will come.
    ended: bool,
}

impl Session {
    /// A server's end of a new connection.
    ///
    /// # Errors
    /// Of the configuration.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self::new(ServerConnection::new(config)?.into()))
    }

    /// A client's end of a new connection to the server `name`, an address or a DNS name.
    ///
    /// # Errors
    /// Of the configuration.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        Ok(Self::new(ClientConnection::new(config, name)?.into()))
    }

    fn new(mut connection: Connection) -> Self {
        // Whoever writes also takes the output; a limit would mean writes in part.
        connection.set_buffer_limit(None);
        Session {
            connection,
            failed: None,
            closing: false,
            closed: false,
            ended: false,
        }
    }

    /// Takes bytes of the peer in, and says how many; the rest has to come again after
    /// [`read_plain`](Self::read_plain) has made room.
    ///
    /// # Errors
    /// What is wrong with the peer. The connection is over; output is left, the alert.
    pub fn feed(&mut self, data: &[u8]) -> Result<usize, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut rest = data;
        while !rest.is_empty() {
            match self.connection.read_tls(&mut rest) {
                // After a close_notify whatever follows is nothing (RFC 8446, 6.1).
                Ok(0) => return Ok(data.len()),
                Ok(_) => {}
                // There is no room for plain bytes.
                Err(e) if e.kind() == io::ErrorKind::Other => break,
                Err(e) => return Err(self.fail(Error::General(e.to_string()))),
            }
            match self.connection.process_new_packets() {
                Ok(state) => self.closed |= state.peer_has_closed(),
                Err(error) => return Err(self.fail(error)),
            }
        }
        Ok(data.len() - rest.len())
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failed = Some(error.clone());
        error
    }

    /// The peer will send nothing any more.
    pub fn feed_end(&mut self) {
        self.ended = true;
    }

    /// Takes all of `data` in, and appends the plain bytes that can be read now to `plain`.
    ///
    /// # Errors
    /// As [`feed`](Self::feed); what came before the error is in `plain`.
    pub fn receive(&mut self, data: &[u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        let mut rest = data;
        loop {
            let fed = self.feed(rest);
            self.drain_plain(plain);
            rest = &rest[fed?..];
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    fn drain_plain(&mut self, plain: &mut Vec<u8>) {
        let mut reader = self.connection.reader();
        while let Ok(chunk) = reader.fill_buf() {
            let len = chunk.len();
            if len == 0 {
                break;
            }
            plain.extend_from_slice(chunk);
            reader.consume(len);
        }
    }

    /// Copies plain bytes of the peer to `buf`. `Some(0)` is the end that the peer has announced, `None`
    /// says that more has to be fed.
    ///
    /// # Errors
    /// `UnexpectedEof`: the bytes ended without that announcement, so that some may have been cut off.
    /// `InvalidData`: the connection is over by an error of [`feed`](Self::feed).
    pub fn read_plain(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match self.connection.reader().read(buf) {
            Ok(0) if buf.is_empty() => Ok(Some(0)),
            Ok(n) => Ok(Some(n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => match &self.failed {
                Some(error) => Err(as_io(error.clone())),
                None if self.ended => Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the peer closed the connection without close_notify",
                )),
                None => Ok(None),
            },
            Err(e) => Err(e),
        }
    }

    /// Whether the peer has announced its end: no plain byte comes after those that are there.
    pub fn peer_has_closed(&self) -> bool {
        self.closed
    }

    /// Encrypts all of `data`; before the end of the handshake it is kept until then. There is no limit:
    /// see [`take_output`](Self::take_output).
    ///
    /// # Errors
    /// `InvalidData` after an error of [`feed`](Self::feed), `BrokenPipe` after [`close`](Self::close).
    pub fn write_plain(&mut self, data: &[u8]) -> io::Result<()> {
        self.write_plain_vectored(&[IoSlice::new(data)])
    }

    /// [`write_plain`](Self::write_plain) of several pieces, which share records.
    ///
    /// # Errors
    /// As `write_plain`.
    pub fn write_plain_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        if let Some(error) = &self.failed {
            return Err(as_io(error.clone()));
        }
        if self.closing {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // Without a limit it takes all.
        self.connection.writer().write_vectored(pieces).map(drop)
    }

    /// Announces the end of what this side sends (close_notify). What the peer sends can still be read.
    pub fn close(&mut self) {
        self.closing = true;
        self.connection.send_close_notify();
    }

    /// Whether there are bytes for the peer.
    pub fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    /// Appends all bytes for the peer to `out`.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            if !matches!(self.connection.write_tls(out), Ok(1..)) {
                break;
            }
        }
    }

    /// Whether the handshake is not over. Until then no plain byte comes, and none goes out.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The protocol that was agreed on (ALPN), once it was.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// On a server: the name that the client asked for (SNI), if it gave one.
    pub fn server_name(&self) -> Option<&str> {
        match &self.connection {
            Connection::Server(server) => server.server_name(),
            Connection::Client(_) => None,
        }
    }

    /// The version that was agreed on, once it was.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.connection.protocol_version()
    }

    /// The cipher suite by its name in the registry of IANA, once it was agreed on.
    pub fn cipher(&self) -> Option<&'static str> {
        self.connection.negotiated_cipher_suite()?.suite().as_str()
    }

    /// The peer's certificates, its own first; once they are known, if it has shown any.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.connection.peer_certificates()
    }

    /// Whether an earlier session was resumed.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}
