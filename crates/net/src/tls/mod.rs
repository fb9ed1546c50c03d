//! TLS by rustls: a session without I/O, and streams on fibers above it.
//!
//! [`Session`] is bytes in, bytes out: for state machines that own no fiber. [`TlsStream`] and
//! [`TlsListener`] are the blocking style, above the [`Stream`](crate::Stream)s of this crate: one fiber may
//! read while another writes. [`Certificates`] are what a server shows, chosen by the name that the client
//! asked for and replaced without a restart; [`ServerSettings`] and [`ClientSettings`] make rustls's
//! configurations of them.
//!
//! TLS 1.2 and 1.3, with the primitives of AWS-LC on Linux for x86-64 and AArch64, where its RSA signatures cost
//! half of *ring*'s, and with *ring*'s elsewhere. Secrets are not logged and there is no early data.
//!
//! ```
//! use gevent_hub_core::task;
//! use gevent_loop_epoll::EpollLoop;
//! use gevent_net::tls::{self, Certificates, ClientSettings, Identity, ServerSettings};
//! use gevent_net::tls::{TlsListener, TlsStream};
//! use std::io::{self, Read, Write};
//!
//! // As a rule there are files: `Identity::from_pem_files` and `roots_from_pem_file`, or `system_roots`.
//! let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
//! let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
//!
//! let answer = task::run(Box::new(EpollLoop::new()?), move || -> io::Result<String> {
//!     let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes())?;
//!     let config = ServerSettings::new(Certificates::new(identity)).build()?;
//!     let listener = TlsListener::bind("127.0.0.1:0", config)?;
//!     let port = listener.local_addr()?.port();
//!     task::spawn(move || {
//!         listener.serve(|stream, _peer| {
//!             let mut buf = [0; 1024];
//!             while let Ok(n @ 1..) = stream.recv(&mut buf) {
//!                 stream.send_all(&buf[..n]).unwrap();
//!             }
//!             stream.shutdown().unwrap();
//!         })
//!     });
//!     let roots = tls::roots_from_pem(certificate.as_bytes())?;
//!     let mut stream = TlsStream::connect(("localhost", port), ClientSettings::new(roots).build()?)?;
//!     stream.write_all(b"hello")?;
//!     stream.close_notify()?;
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer)?;
//!     Ok(answer)
//! })??;
//! assert_eq!(answer, "hello");
//! # Ok::<(), io::Error>(())
//! ```
//!
//! `examples/tls_echo.rs` is such a server.

mod certificates;
mod config;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod turn;

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
use rustls::crypto::aws_lc_rs as primitives;
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
use rustls::crypto::ring as primitives;

pub use certificates::{Certificates, Identity};
pub use config::{
    ClientSettings, ServerSettings, roots_from_pem, roots_from_pem_file, system_roots,
};
pub use rustls::pki_types::ServerName;
pub use rustls::{ClientConfig, Error, ProtocolVersion, RootCertStore, ServerConfig};
pub use session::Session;
pub use stream::{TlsListener, TlsStream};

use std::io;

/// What a failure of TLS is as an error of I/O: `InvalidData`, around rustls's [`Error`].
pub(crate) fn as_io(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
