//! [`Tunnel`]: a connection under TLS of ours that speaks something else than HTTP from now on.

use super::app::{Conn, Greenlets};
use super::raise::raise;
use gevent_wsgi::server::Error;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::io::IoSlice;
use std::rc::Rc;

/// Bytes received at a time.
const PIECE: usize = 64 * 1024;

/// The plain bytes of an encrypted connection, in both directions, for one greenlet each.
#[pyclass(frozen, module = "gevent._core", name = "HTTPTunnel")]
pub struct Tunnel {
    conn: Held,
}

struct Held(Rc<Conn>);
// SAFETY: touched only with the GIL held, and waited for only on the connection's own thread: the hub
// of another one has no such source.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Tunnel {
    /// Over `conn`.
    pub fn new(conn: Rc<Conn>) -> Self {
        Tunnel { conn: Held(conn) }
    }
}

#[crate::entry]
#[pymethods]
impl Tunnel {
    /// What has come, or comes next; empty at the end.
    fn recv<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let mut buf = vec![0; PIECE];
        loop {
            match self.conn.0.read_raw(&Greenlets, &mut buf) {
                Ok(n) => return Ok(PyBytes::new(py, &buf[..n])),
                // Nobody says how long the peers of another protocol may be silent.
                Err(Error::TimedOut) => {}
                Err(error) => {
                    let _ = raise::<()>(error);
                    return Err(PyErr::fetch(py));
                }
            }
        }
    }

    /// Send all of it.
    fn send(&self, py: Python<'_>, data: &Bound<'_, PyBytes>) -> PyResult<()> {
        let pieces = [IoSlice::new(data.as_bytes())];
        self.conn
            .0
            .write(&Greenlets, &pieces, false)
            .map_err(|error| {
                let _ = raise::<()>(error);
                PyErr::fetch(py)
            })
    }

    /// End the connection.
    fn close(&self) {
        self.conn.0.close();
    }
}
