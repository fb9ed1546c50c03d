//! [`Error`]: why a call on a descriptor ended without its result.

use gevent_hub_core::hub::Interrupted;
use std::fmt;
use std::io;

/// Why a call on a descriptor ended without its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The system call failed with this errno.
    Os(i32),
    /// The deadline has passed.
    TimedOut,
    /// The descriptor was closed by another fiber meanwhile.
    Closed,
    /// Something other than a wake ended the wait. Nothing was taken from the kernel, or sent, by it.
    Interrupted(Interrupted),
}

impl Error {
    /// The errno of the calling thread.
    pub fn last_os() -> Self {
        Error::Os(io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Os(errno) => io::Error::from_raw_os_error(*errno).fmt(f),
            Error::TimedOut => f.write_str("timed out"),
            Error::Closed => f.write_str("the descriptor was closed while it was waited for"),
            Error::Interrupted(i) => i.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Interrupted(i) => Some(i),
            _ => None,
        }
    }
}

impl From<Interrupted> for Error {
    fn from(i: Interrupted) -> Self {
        Error::Interrupted(i)
    }
}

impl From<io::Error> for Error {
    /// Keeps the errno; an error without one becomes `EIO`.
    fn from(e: io::Error) -> Self {
        Error::Os(e.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<Error> for io::Error {
    /// [`Error::Interrupted`] does not become [`io::ErrorKind::Interrupted`], which `read_to_end` and
    /// `write_all` take for EINTR and try again: see [`is_interrupted`](crate::is_interrupted).
    fn from(e: Error) -> Self {
        match e {
            Error::Os(errno) => io::Error::from_raw_os_error(errno),
            Error::TimedOut => io::Error::new(io::ErrorKind::TimedOut, e),
            Error::Closed => io::Error::from_raw_os_error(libc::EBADF),
            Error::Interrupted(_) => io::Error::other(e),
        }
    }
}
