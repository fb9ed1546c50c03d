//! `WSGICore`: the native server as `gevent.pywsgi` starts and stops it.

use super::app::{App, Core, Spawn};
use super::log;
use crate::hub::get_core;
use gevent_net::tls::{Certificates, Identity, ServerSettings};
use gevent_wsgi::server::{Application, Server, Settings};
use gevent_wsgi::{Limits, Rules};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// WSGICore(server)
///
/// Accepts and serves for a `WSGIServer` whose handlers nobody has overridden. Belongs to the thread of the
/// server's hub.
#[pyclass(unsendable, module = "gevent._core")]
pub struct WSGICore {
    server: Py<PyAny>,
    core: RefCell<Option<Rc<Core>>>,
    native: RefCell<Option<Rc<Server<App>>>>,
    certificates: RefCell<Option<Arc<Certificates>>>,
}

fn seconds(value: Option<f64>) -> Option<Duration> {
    value.map(|s| Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX))
}

impl WSGICore {
    fn native(&self) -> PyResult<Rc<Server<App>>> {
        let native = self.native.borrow().clone();
        native.ok_or_else(|| PyRuntimeError::new_err("the server was never started"))
    }
}

#[crate::entry]
#[pymethods]
impl WSGICore {
    #[new]
    fn new(server: Py<PyAny>) -> Self {
        WSGICore {
            server,
            core: RefCell::new(None),
            native: RefCell::new(None),
            certificates: RefCell::new(None),
        }
    }

    /// Set the limits; times in seconds, sizes in bytes, None for none.
    #[pyo3(signature = (*, http, max_line, max_head, max_headers, max_body, head_timeout, idle_timeout,
                        io_timeout, linger_timeout, max_accept))]
    #[allow(clippy::too_many_arguments, reason = "keywords of Python")]
    fn configure(
        &self,
        py: Python<'_>,
        http: &str,
        max_line: usize,
        max_head: usize,
        max_headers: usize,
        max_body: Option<u64>,
        head_timeout: Option<f64>,
        idle_timeout: Option<f64>,
        io_timeout: Option<f64>,
        linger_timeout: Option<f64>,
        max_accept: usize,
    ) -> PyResult<()> {
        let settings = Settings {
            rules: Rules {
                limits: Limits {
                    line: max_line,
                    head: max_head,
                    headers: max_headers,
                    body: max_body.unwrap_or(u64::MAX),
                    ..Limits::default()
                },
                policy: super::parser::policy(http)?,
            },
            head_timeout: seconds(head_timeout),
            idle_timeout: seconds(idle_timeout),
            body_timeout: seconds(io_timeout),
            write_timeout: seconds(io_timeout),
            linger: seconds(linger_timeout),
            batch: max_accept,
        };
        let known = self.native.borrow().clone();
        match known {
            Some(native) => native.set_settings(settings),
            None => {
                log::learn(py)?;
                get_core().map_err(|()| PyErr::fetch(py))?;
                let core = Core::new();
                let app = App { core: core.clone() };
                *self.core.borrow_mut() = Some(core);
                *self.native.borrow_mut() = Some(Server::new(app, settings));
            }
        }
        Ok(())
    }

    /// Accept from a listening socket's descriptor. `spawn`: 'greenlet', 'member' for one of the server's pool,
    /// 'call' for the server's `_spawn`, or 'hub'; `bounded`: the server's `full` is asked first.
    fn start(&self, py: Python<'_>, fd: i32, spawn: &str, bounded: bool) -> PyResult<()> {
        let native = self.native()?;
        let spawn = match spawn {
            "greenlet" => Spawn::Greenlet,
            "member" => Spawn::Member,
            "call" => Spawn::Call,
            "hub" => Spawn::Hub,
            other => return Err(PyValueError::new_err(other.to_owned())),
        };
        let core = &native.app().core;
        core.set_spawn(spawn, bounded);
        core.hold(self.server.bind(py))?;
        native.accept_from(fd).map_err(|e| {
            if native.is_empty() {
                native.app().over();
            }
            PyRuntimeError::new_err(e.to_string())
        })
    }

    /// Encrypt connections by TLS from now on, with the certificate chain and the key of these files (PEM).
    fn set_tls(&self, certfile: PathBuf, keyfile: PathBuf) -> PyResult<()> {
        let native = self.native()?;
        let made = Identity::from_pem_files(certfile, keyfile).and_then(|identity| {
            let certificates = Certificates::new(identity);
            let config = ServerSettings::new(certificates.clone())
                .alpn(&["http/1.1"])
                .build()?;
            Ok((certificates, config))
        });
        let (certificates, config) = made.map_err(|e| crate::errors::io_error(&e))?;
        native.set_tls(Some(config));
        *self.certificates.borrow_mut() = Some(certificates);
        Ok(())
    }

    /// Read the files of `set_tls` again: new connections get what is in them now. If they cannot be used,
    /// that raises, and nothing changes.
    fn reload_tls(&self) -> PyResult<()> {
        let certificates = self.certificates.borrow().clone();
        match certificates {
            Some(certificates) => certificates
                .reload()
                .map_err(|e| crate::errors::io_error(&e)),
            None => Err(PyRuntimeError::new_err("the server has no certificates")),
        }
    }

    /// Accept no more; what was accepted goes on.
    fn stop(&self) {
        if let Ok(native) = self.native() {
            native.stop_accepting();
        }
    }

    /// There is room for another greenlet again.
    fn room(&self) {
        if let Ok(native) = self.native() {
            native.app().core.found_room();
            native.room();
        }
    }

    /// From now on connections close after their answers.
    fn drain(&self) {
        if let Ok(native) = self.native() {
            native.finish();
        }
    }

    /// Close the connections that wait for a request.
    fn close_idle(&self) {
        if let Ok(native) = self.native() {
            native.drain();
        }
    }

    /// Close every connection that no greenlet serves.
    fn close(&self) {
        if let Ok(native) = self.native() {
            native.close_all();
        }
        if let Some(core) = &*self.core.borrow() {
            core.clear();
        }
    }

    /// Whether it accepts.
    #[getter]
    fn accepting(&self) -> bool {
        self.native().is_ok_and(|native| native.is_accepting())
    }

    /// How many connections there are.
    #[getter]
    fn connections(&self) -> usize {
        self.native().map_or(0, |native| native.len())
    }

    /// Connections accepted and requests begun so far.
    #[getter]
    fn counts(&self) -> (u64, u64) {
        self.native().map_or((0, 0), |native| native.counts())
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.server)
    }
}

impl Drop for WSGICore {
    fn drop(&mut self) {
        self.close();
    }
}

/// Adds the class.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<WSGICore>()
}
