//! Sockets on fibers: blocking style, with deadlines, on whatever loop the hub has.

pub mod raw;

pub use raw::Error;

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
