//! Sockets on fibers: blocking style, with deadlines, on whatever loop the hub has.
//!
//! A call that has to wait parks its fiber; others run meanwhile. Every wait can be interrupted and can time
//! out, and neither loses a byte, a datagram or a connection: the kernel keeps them until a fiber that runs
//! takes them. On a thread without a hub the same types wait by poll(2).
//!
//! ```
//! use gevent_hub_core::task;
//! use gevent_loop_epoll::EpollLoop;
//! use gevent_net::{TcpListener, TcpStream};
//! use std::io::{self, Read, Write};
//!
//! let backend = Box::new(EpollLoop::new()?);
//! let answer = task::run(backend, || -> io::Result<String> {
//!     let listener = TcpListener::bind("127.0.0.1:0")?;
//!     let addr = listener.local_addr()?;
//!     task::spawn(move || {
//!         listener.serve(|stream, _peer| {
//!             let mut buf = [0; 1024];
//!             while let Ok(n @ 1..) = stream.recv(&mut buf) {
//!                 stream.send_all(&buf[..n]).unwrap();
//!             }
//!         })
//!     });
//!     let mut stream = TcpStream::connect(addr)?;
//!     stream.write_all(b"hello")?;
//!     stream.shutdown(std::net::Shutdown::Write)?;
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer)?;
//!     Ok(answer)
//! })??;
//! assert_eq!(answer, "hello");
//! # Ok::<(), io::Error>(())
//! ```

mod addr;
pub mod dns;
pub mod raw;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
pub mod tls;
mod udp;

pub use addr::{ToAddrs, UnixAddr};
pub use raw::Error;
pub use stream::{
    Family, Listener, Stream, Tcp, TcpListener, TcpStream, Unix, UnixListener, UnixStream,
};
pub use udp::UdpSocket;

use gevent_hub_core::hub::Interrupted;
use std::io;

/// Whether `error` says that the fiber was interrupted while it waited, and nothing about the socket.
pub fn is_interrupted(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| {
        inner.is::<Interrupted>()
            || inner
                .downcast_ref::<Error>()
                .is_some_and(|e| matches!(e, Error::Interrupted(_)))
    })
}
