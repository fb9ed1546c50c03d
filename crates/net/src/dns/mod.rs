//! Names and addresses: hosts file and DNS, looked up on the fiber that asks.
//!
//! What getaddrinfo(3) of glibc does with the sources `files` and `dns`: the hosts file, resolv.conf with its
//! search domains, servers one after the other, truncated answers again by TCP, CNAMEs, and the order of
//! RFC 6724. The messages and the exchange with a server are hickory's; its futures are polled by the fiber
//! that wants the answer, and parked for on the thread's hub like a socket. Look-ups share nothing, and
//! nothing is cached but the two files, which are read again when they were changed.
//!
//! ```
//! use gevent_hub_core::task;
//! use gevent_loop_epoll::EpollLoop;
//! use gevent_net::dns::{Query, Resolver};
//!
//! let found = task::run(Box::new(EpollLoop::new()?), || {
//!     Resolver::system().lookup("localhost", &Query::default())
//! })??;
//! assert!(found.addresses.iter().all(|address| address.is_loopback()));
//! # Ok::<(), std::io::Error>(())
//! ```

mod drive;
mod hosts;
mod interfaces;
mod order;
mod query;
mod runtime;
mod settings;
#[cfg(test)]
mod tests;

pub use settings::{Settings, Source};

use crate::raw;
use gevent_hub_core::hub::Hub;
use hickory_resolver::proto::rr::RecordType;
use hosts::Hosts;
use query::Servers;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// There is no such name (`EAI_NONAME`).
    NotFound,
    /// The name has no such addresses (`EAI_NODATA`).
    NoData,
    /// No server has answered, or none could (`EAI_AGAIN`).
    TryAgain,
    /// The fiber was interrupted, or could not wait.
    Wait(raw::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotFound => f.write_str("Name or service not known"),
            Error::NoData => f.write_str("No address associated with hostname"),
            Error::TryAgain => f.write_str("Temporary failure in name resolution"),
            Error::Wait(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<raw::Error> for Error {
    fn from(error: raw::Error) -> Self {
        match error {
            raw::Error::TimedOut => Error::TryAgain,
            other => Error::Wait(other),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound | Error::NoData => io::Error::new(io::ErrorKind::NotFound, error),
            Error::TryAgain => io::Error::new(io::ErrorKind::TimedOut, error),
            Error::Wait(error) => error.into(),
        }
    }
}

/// Which addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// Of both kinds (`AF_UNSPEC`).
    #[default]
    Any,
    /// IPv4 (`AF_INET`).
    V4,
    /// IPv6 (`AF_INET6`).
    V6,
}

/// What is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Which addresses.
    pub family: Family,
    /// Only of kinds of which this machine has an address that is not loopback (`AI_ADDRCONFIG`).
    pub configured: bool,
    /// IPv4 addresses as IPv6 ones when there are no others and those were asked for (`AI_V4MAPPED`).
    pub v4_mapped: bool,
    /// With that: also when there are others (`AI_ALL`).
    pub all: bool,
    /// In the order of RFC 6724, instead of that of the answers.
    pub sorted: bool,
}

impl Default for Query {
    /// All addresses, in the order in which they are to be tried.
    fn default() -> Self {
        Query {
            family: Family::Any,
            configured: false,
            v4_mapped: false,
            all: false,
            sorted: true,
        }
    }
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Its addresses, at least one.
    pub addresses: Vec<IpAddr>,
    /// The name that they belong to, at the end of all aliases.
    pub canonical: String,
    /// The other names, with the one that was asked for.
    pub aliases: Vec<String>,
}

/// Looks names and addresses up. Two look-ups of one resolver may run at once, on different fibers.
pub struct Resolver {
    adjust: Box<dyn Fn(&mut Settings) + Send + Sync>,
    kept: Mutex<Option<(Stamps, Arc<Settings>)>>,
    turn: AtomicUsize,
}

/// When the files with the settings were changed; `None` where they are not looked at.
type Stamps = Option<[Option<SystemTime>; 2]>;

fn stamps() -> Stamps {
    let changed = |path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    Some([changed("/etc/resolv.conf"), changed("/etc/nsswitch.conf")])
}

impl Resolver {
    /// As this system is configured, also when that changes.
    pub fn system() -> Self {
        Self::adjusted(|_| ())
    }

    /// As this system is configured, except for what `adjust` changes.
    pub fn adjusted(adjust: impl Fn(&mut Settings) + Send + Sync + 'static) -> Self {
        Resolver {
            adjust: Box::new(adjust),
            kept: Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// With fixed settings.
    pub fn new(settings: Settings) -> Self {
        Resolver {
            adjust: Box::new(|_| ()),
            kept: Mutex::new(Some((None, Arc::new(settings)))),
            turn: AtomicUsize::new(0),
        }
    }

    /// The settings that hold now.
    pub fn settings(&self) -> Arc<Settings> {
        // What was kept when a thread panicked is as good as any.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = match &*kept {
            Some((None, settings)) => return settings.clone(),
            Some((then, settings)) => {
                let now = stamps();
                if *then == now {
                    return settings.clone();
                }
                now
            }
            None => stamps(),
        };
        let mut settings = Settings::system();
        (self.adjust)(&mut settings);
        let settings = Arc::new(settings);
        *kept = Some((now, settings.clone()));
        settings
    }

    /// The addresses of a host: a name, or an address in full, which is its own answer.
    ///
    /// # Errors
    /// [`Error`].
    pub fn lookup(&self, host: &str, query: &Query) -> Result<Found, Error> {
        let settings = self.settings();
        let interfaces = match query.sorted || query.configured {
            true => interfaces::interfaces(),
            false => Vec::new(),
        };
        let has = |v4: bool| {
            !query.configured
                || interfaces
                    .iter()
                    .any(|i| i.address.is_ipv4() == v4 && !i.loopback)
        };
        let mapping = query.family == Family::V6 && query.v4_mapped;
        let v4 = query.family != Family::V6 && has(true);
        let v6 = query.family != Family::V4 && has(false);
        let mut found = if mapping && query.all {
            self.find(&settings, host, true, v6)?
        } else {
            match self.find(&settings, host, v4, v6) {
                Err(Error::NotFound | Error::NoData) if mapping => {
                    self.find(&settings, host, true, false)?
                }
                other => other?,
            }
        };
        if mapping {
            for address in &mut found.addresses {
                if let IpAddr::V4(v4) = address {
                    *address = v4.to_ipv6_mapped().into();
                }
            }
        }
        if query.sorted {
            order::sort(&mut found.addresses, &interfaces);
        }
        Ok(found)
    }

    fn find(&self, settings: &Settings, host: &str, v4: bool, v6: bool) -> Result<Found, Error> {
        let wanted = |address: &IpAddr| if address.is_ipv4() { v4 } else { v6 };
        if let Ok(address) = host.parse::<IpAddr>() {
            return match wanted(&address) {
                true => Ok(Found {
                    addresses: vec![address],
                    canonical: host.to_owned(),
                    aliases: Vec::new(),
                }),
                false => Err(Error::NotFound),
            };
        }
        let kinds: &[RecordType] = match (v4, v6) {
            (true, true) => &[RecordType::A, RecordType::AAAA],
            (true, false) => &[RecordType::A],
            (false, true) => &[RecordType::AAAA],
            (false, false) => return Err(Error::NotFound),
        };
        first_found(&settings.sources, |source| match source {
            Source::Files => in_hosts(settings, host, wanted),
            Source::Dns => self.ask(settings, host, kinds),
        })
    }

    fn ask(&self, settings: &Settings, host: &str, kinds: &[RecordType]) -> Result<Found, Error> {
        let plain = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if plain == "localhost" || plain.ends_with(".localhost") {
            // RFC 6761, 6.3: no server is asked.
            let loopback = kinds.iter().map(|kind| match *kind {
                RecordType::AAAA => Ipv6Addr::LOCALHOST.into(),
                _ => Ipv4Addr::LOCALHOST.into(),
            });
            return Ok(Found {
                addresses: loopback.collect(),
                canonical: plain,
                aliases: Vec::new(),
            });
        }
        let servers = self.servers(settings);
        drive::block_on(servers.addresses(host, kinds), deadline(settings))?
    }

    fn servers<'a>(&self, settings: &'a Settings) -> Servers<'a> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Servers::new(settings, turn)
    }

    /// The names of an address: the canonical one first.
    ///
    /// # Errors
    /// [`Error`].
    pub fn reverse(&self, address: IpAddr) -> Result<Vec<String>, Error> {
        let settings = self.settings();
        first_found(&settings.sources, |source| match source {
            Source::Files => match Hosts::read(&settings.hosts).of(address) {
                Some(line) => Ok(line.names.clone()),
                None => Err(Error::NotFound),
            },
            Source::Dns => {
                let servers = self.servers(&settings);
                drive::block_on(servers.names(address), deadline(&settings))
                    .map_err(Error::from)
                    .flatten()
            }
        })
    }
}

/// What the first source says that knows anything. One that fails does not keep the next from being asked, but
/// if none knows, its error says more than "not found"; a wait that was cut short ends it all.
fn first_found<T>(
    sources: &[Source],
    mut ask: impl FnMut(&Source) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut refused = Error::NotFound;
    for source in sources {
        match ask(source) {
            Ok(found) => return Ok(found),
            Err(Error::NotFound) => {}
            Err(wait @ Error::Wait(_)) => return Err(wait),
            Err(other) => refused = other,
        }
    }
    Err(refused)
}

fn deadline(settings: &Settings) -> Option<u64> {
    let total = settings.total?;
    Some(Hub::with(|hub| raw::deadline_after(hub, total)))
}

/// What the hosts file says.
fn in_hosts(
    settings: &Settings,
    host: &str,
    wanted: impl Fn(&IpAddr) -> bool,
) -> Result<Found, Error> {
    let hosts = Hosts::read(&settings.hosts);
    let mut found = Found::default();
    for line in hosts.named(host).filter(|line| wanted(&line.address)) {
        if found.canonical.is_empty() {
            found.canonical = line.names[0].clone();
            found.aliases = line.names[1..].to_vec();
        }
        found.addresses.push(line.address);
    }
    if found.addresses.is_empty() {
        return Err(Error::NotFound);
    }
    Ok(found)
}
