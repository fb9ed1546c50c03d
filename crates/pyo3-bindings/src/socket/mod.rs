//! `_core.SocketBase`: the hot half of a gevent socket.
//!
//! The Python class keeps the standard library's socket, which owns the descriptor, in `_sock`; this base
//! watches what is put there and does the calls that are made for every message on the number itself. A
//! call is tried first, unless the loop is known to have nothing for it; only EAGAIN leads to a wait. The
//! descriptor is registered with the loop at the first wait, once and edge-triggered.

mod base;
mod calls;
mod tls;
mod wait;

pub use base::SocketBase;

use pyo3::prelude::*;

/// Adds the class.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<SocketBase>()?;
    calls::register(&m.py().get_type::<SocketBase>())?;
    tls::register(m)
}
