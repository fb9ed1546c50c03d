//! TLS inside of a connection: rustls without I/O between what the socket brings and what the parser sees.

use super::{Application, Connection, Error};
use gevent_hub_core::event_loop::Readiness;
use gevent_net::tls::Session;
use std::io::IoSlice;

/// Bytes of ciphertext that are received at a time: a record and its head.
const RECORD: usize = 16 * 1024 + 512;

/// One connection's TLS.
pub(super) struct Tls {
    session: Session,
    /// Decrypted and not yet taken.
    plain: Vec<u8>,
    at: usize,
    /// Nothing more comes.
    ended: bool,
}

impl Tls {
    pub(super) fn new(session: Session) -> Self {
        Tls {
            session,
            plain: Vec::new(),
            at: 0,
            ended: false,
        }
    }

    fn take(&mut self, buf: &mut [u8]) -> usize {
        let n = buf.len().min(self.plain.len() - self.at);
        buf[..n].copy_from_slice(&self.plain[self.at..self.at + n]);
        self.at += n;
        if self.at == self.plain.len() {
            // An idle connection keeps no buffer.
            self.plain = Vec::new();
            self.at = 0;
        }
        n
    }
}

impl<A: Application> Connection<A> {
    /// Whether it is encrypted.
    #[inline]
    pub fn is_tls(&self) -> bool {
        self.secure
    }

    fn with_tls<R>(&self, f: impl FnOnce(&mut Tls) -> R) -> Option<R> {
        self.tls.with(|tls| tls.as_mut().map(|tls| f(tls)))
    }

    /// Whether decrypted bytes wait to be taken.
    pub(super) fn has_plain(&self) -> bool {
        self.secure
            && self
                .with_tls(|tls| !tls.plain.is_empty() || tls.ended)
                .unwrap_or(false)
    }

    /// As `try_receive`, of plain bytes.
    pub(super) fn try_receive_tls(&self, buf: &mut [u8]) -> Result<Option<usize>, i32> {
        loop {
            let taken = self.with_tls(|tls| (tls.take(buf), tls.ended));
            match taken {
                None => return Err(libc::EBADF),
                Some((0, true)) => return Ok(Some(0)),
                Some((0, false)) => {}
                Some((n, _)) => return Ok(Some(n)),
            }
            let mut cipher = self.server().borrow_cipher(RECORD);
            let received = self.receive_bytes(&mut cipher);
            let fed = match received {
                Ok(Some(n)) => self.with_tls(|tls| {
                    if n == 0 {
                        tls.session.feed_end();
                        tls.ended = true;
                        return true;
                    }
                    let fed = tls.session.receive(&cipher[..n], &mut tls.plain);
                    tls.ended |= tls.session.peer_has_closed();
                    fed.is_ok()
                }),
                _ => Some(true),
            };
            self.server().give_back_cipher(cipher);
            // The handshake's answers, or the alert.
            let flushed = self.try_flush();
            match (received?, fed) {
                (None, _) => return Ok(None),
                (Some(_), Some(true)) => {
                    flushed?;
                }
                (Some(_), _) => return Err(libc::EPROTO),
            }
        }
    }

    /// Encrypts what is to be sent.
    pub(super) fn encrypt(&self, pieces: &[IoSlice<'_>]) -> Result<(), Error> {
        let written = self.with_tls(|tls| tls.session.write_plain_vectored(pieces));
        match written {
            Some(Ok(())) => Ok(()),
            _ => Err(Error::Os(libc::EPIPE)),
        }
    }

    /// Puts what TLS has to send behind what waits to be sent.
    pub(super) fn take_tls_output(&self) {
        if !self.secure {
            return;
        }
        let mut out = self.out.take();
        self.with_tls(|tls| tls.session.take_output(&mut out));
        self.out.with(|o| *o = out);
    }

    /// Says that nothing more is sent.
    pub(super) fn close_tls(&self) {
        if self.secure {
            self.with_tls(|tls| tls.session.close());
        }
    }

    /// What to wait for when nothing can be received: also for room, if something is to be sent.
    pub(super) fn want_read(&self) -> Readiness {
        match self.out.with(|out| out.is_empty()) {
            true => Readiness::READ,
            false => Readiness::READ.with(Readiness::WRITE),
        }
    }
}
