//! `_core.Resolver`: names looked up on the hub, for `gevent.resolver.native`.

use crate::hub::{HubCore, HubRef, Parked, get_core, unexpected_switch};
use gevent_net::dns::{Error, Family, Query, Resolver as Dns, Settings};
use gevent_net::raw;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList, PyTuple};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A resolver with the settings of the system, except for those that were given.
#[pyclass(frozen, module = "gevent._core", name = "Resolver")]
pub struct Resolver(Dns);

/// What was given.
struct Given {
    servers: Vec<IpAddr>,
    timeout: Option<Duration>,
    total: Option<Duration>,
    tries: Option<usize>,
    ndots: Option<usize>,
    udp_port: Option<u16>,
    tcp_port: Option<u16>,
    search: Option<Vec<String>>,
    hosts: Option<std::path::PathBuf>,
    tcp_only: bool,
    first_only: bool,
}

impl Given {
    fn adjust(&self, settings: &mut Settings) {
        if !self.servers.is_empty() {
            settings.servers = self.servers.iter().map(|&ip| (ip, 53).into()).collect();
        }
        if self.first_only {
            settings.servers.truncate(1);
        }
        if let Some(port) = self.udp_port {
            settings.servers.iter_mut().for_each(|s| s.set_port(port));
        }
        settings.tcp_port = match (self.tcp_port, self.udp_port) {
            (None, Some(_)) => Some(53),
            (given, _) => given,
        };
        settings.timeout = self.timeout.unwrap_or(settings.timeout);
        settings.attempts = self.tries.unwrap_or(settings.attempts).max(1);
        settings.ndots = self.ndots.unwrap_or(settings.ndots);
        settings.total = self.total;
        settings.tcp_only |= self.tcp_only;
        if let Some(search) = &self.search {
            settings.search.clone_from(search);
        }
        if let Some(hosts) = &self.hosts {
            settings.hosts.clone_from(hosts);
        }
    }
}

fn seconds(value: Option<f64>) -> PyResult<Option<Duration>> {
    let convert = |v| Duration::try_from_secs_f64(v);
    let duration = value.map(convert).transpose();
    duration.map_err(|e| PyValueError::new_err(e.to_string()))
}

/// What came of a look-up that may have parked: its value, the number of a getaddrinfo error, or an exception.
fn outcome<T>(py: Python<'_>, hub: &HubCore, found: Result<T, Error>) -> PyResult<Result<T, i32>> {
    let interrupted = match found {
        Ok(value) => return Ok(Ok(value)),
        Err(Error::NotFound) => return Ok(Err(libc::EAI_NONAME)),
        Err(Error::NoData) => return Ok(Err(libc::EAI_NODATA)),
        Err(Error::TryAgain) => return Ok(Err(libc::EAI_AGAIN)),
        Err(Error::Wait(raw::Error::Interrupted(interrupted))) => interrupted,
        Err(Error::Wait(other)) => return Err(crate::errors::io_error(&other.into())),
    };
    match hub.interrupted(interrupted) {
        Parked::Switched(value, _) => {
            // SAFETY: the GIL is held; an owned reference.
            unsafe { unexpected_switch(c"a look-up", value) };
            Err(PyErr::fetch(py))
        }
        _ => Err(PyErr::fetch(py)),
    }
}

/// The thread's hub, on which the running greenlet may wait.
fn hub(py: Python<'_>) -> PyResult<HubRef> {
    // SAFETY: the GIL is held.
    match get_core().and_then(|hub| unsafe { hub.may_block() }.map(|()| hub)) {
        Ok(hub) => Ok(hub),
        Err(()) => Err(PyErr::fetch(py)),
    }
}

#[crate::entry]
#[pymethods]
impl Resolver {
    #[new]
    #[pyo3(signature = (*, servers = vec![], timeout = None, total = None, tries = None, ndots = None,
                        udp_port = None, tcp_port = None, search = None, hosts = None,
                        tcp_only = false, first_only = false))]
    #[allow(
        clippy::too_many_arguments,
        reason = "they are keywords, and each is one setting"
    )]
    fn new(
        servers: Vec<String>,
        timeout: Option<f64>,
        total: Option<f64>,
        tries: Option<usize>,
        ndots: Option<usize>,
        udp_port: Option<u16>,
        tcp_port: Option<u16>,
        search: Option<Vec<String>>,
        hosts: Option<std::path::PathBuf>,
        tcp_only: bool,
        first_only: bool,
    ) -> PyResult<Self> {
        let servers = servers.iter().map(|server| {
            server.parse::<IpAddr>().map_err(|_| {
                PyValueError::new_err(format!("a DNS server needs an address: {server:?}"))
            })
        });
        let given = Given {
            servers: servers.collect::<PyResult<_>>()?,
            timeout: seconds(timeout)?,
            total: seconds(total)?,
            tries,
            ndots,
            udp_port,
            tcp_port,
            search,
            hosts,
            tcp_only,
            first_only,
        };
        Ok(Resolver(Dns::adjusted(move |settings| {
            given.adjust(settings)
        })))
    }

    /// The servers that are asked, in this order.
    #[getter]
    fn servers(&self) -> Vec<String> {
        let settings = self.0.settings();
        settings.servers.iter().map(SocketAddr::to_string).collect()
    }

    /// `(canonical, aliases, addresses)` of a name, by the `AI_*` flags that choose among them; or the number of an error of getaddrinfo.
    fn lookup<'py>(
        &self,
        py: Python<'py>,
        host: &str,
        family: i32,
        flags: i32,
        sorted: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let family = match family {
            libc::AF_UNSPEC => Family::Any,
            libc::AF_INET => Family::V4,
            libc::AF_INET6 => Family::V6,
            _ => return Ok(PyInt::new(py, libc::EAI_FAMILY).into_any()),
        };
        let query = Query {
            family,
            configured: flags & libc::AI_ADDRCONFIG != 0,
            v4_mapped: flags & libc::AI_V4MAPPED != 0,
            all: flags & libc::AI_ALL != 0,
            sorted,
        };
        let hub = hub(py)?;
        match outcome(py, &hub, self.0.lookup(host, &query))? {
            Ok(found) => {
                let addresses = found.addresses.iter().map(IpAddr::to_string);
                let addresses = PyList::new(py, addresses.collect::<Vec<_>>())?;
                let aliases = PyList::new(py, found.aliases)?;
                let found = (found.canonical, aliases, addresses);
                Ok(found.into_pyobject(py).map(Bound::<PyTuple>::into_any)?)
            }
            Err(number) => Ok(PyInt::new(py, number).into_any()),
        }
    }

    /// The names of an address, or the number of an error of getaddrinfo.
    fn reverse<'py>(&self, py: Python<'py>, address: &str) -> PyResult<Bound<'py, PyAny>> {
        let address: IpAddr = address
            .parse()
            .map_err(|_| PyValueError::new_err("not an address"))?;
        let hub = hub(py)?;
        match outcome(py, &hub, self.0.reverse(address))? {
            Ok(names) => Ok(PyList::new(py, names)?.into_any()),
            Err(number) => Ok(PyInt::new(py, number).into_any()),
        }
    }
}

/// Adds the class.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Resolver>()
}
