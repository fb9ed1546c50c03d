//! [`Settings`]: whom to ask, how often and how long, as resolv.conf(5) and nsswitch.conf(5) say.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The most search domains and servers that are looked at; glibc takes six and three.
const MOST: usize = 8;

/// What is asked, in this order, until one knows the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The hosts file.
    Files,
    /// The servers.
    Dns,
}

/// How names are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The servers, in the order in which they are asked.
    pub servers: Vec<SocketAddr>,
    /// Port of TCP, where it is not that of UDP.
    pub tcp_port: Option<u16>,
    /// The domains that are tried for a name with few dots.
    pub search: Vec<String>,
    /// So many dots make a name that is tried as it is first.
    pub ndots: usize,
    /// How long a server has to answer.
    pub timeout: Duration,
    /// How often each server is asked.
    pub attempts: usize,
    /// How long a look-up may take in all; `None`: as long as it takes.
    pub total: Option<Duration>,
    /// EDNS(0), for answers over 512 bytes by UDP.
    pub edns: bool,
    /// Nothing but TCP.
    pub tcp_only: bool,
    /// Begin with another server each time.
    pub rotate: bool,
    /// What is asked.
    pub sources: Vec<Source>,
    /// The hosts file.
    pub hosts: PathBuf,
}

impl Default for Settings {
    /// Without resolv.conf: a server on this machine, as resolv.conf(5) has it.
    fn default() -> Self {
        Settings {
            servers: vec![(IpAddr::from(Ipv4Addr::LOCALHOST), 53).into()],
            tcp_port: None,
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            total: None,
            edns: false,
            tcp_only: false,
            rotate: false,
            sources: vec![Source::Files, Source::Dns],
            hosts: "/etc/hosts".into(),
        }
    }
}

impl Settings {
    /// Those of this system. What cannot be read, or not be understood, is as if it were not there.
    pub fn system() -> Self {
        let mut settings = match std::fs::read_to_string("/etc/resolv.conf") {
            Ok(text) => Self::from_resolv_conf(&text),
            Err(_) => Settings::default(),
        };
        if let Ok(text) = std::fs::read_to_string("/etc/nsswitch.conf") {
            settings.take_nsswitch(&text);
        }
        if settings.search.is_empty()
            && let Some((_, domain)) = host_name().split_once('.')
        {
            settings.search.push(domain.to_owned());
        }
        settings
    }

    /// The text of a resolv.conf(5).
    pub fn from_resolv_conf(text: &str) -> Self {
        // What it does not understand is left out.
        let (config, _errors) = resolv_conf::Config::parse_with_errors(text.as_bytes());
        let search = config.get_last_search_or_domain();
        let search = search.filter(|domain| !domain.is_empty()).take(MOST);
        let mut settings = Settings {
            search: search.cloned().collect(),
            ndots: config.ndots as usize,
            timeout: Duration::from_secs(u64::from(config.timeout.max(1))),
            attempts: config.attempts.max(1) as usize,
            edns: config.edns0,
            tcp_only: config.use_vc,
            rotate: config.rotate,
            ..Settings::default()
        };
        if !config.nameservers.is_empty() {
            let servers = config.nameservers.iter().take(MOST);
            let address = |server| (IpAddr::from(server), 53).into();
            settings.servers = servers.map(address).collect();
        }
        settings
    }

    /// The `hosts` line of an nsswitch.conf(5): whether the hosts file and the servers are asked, and which
    /// first. Other services are for glibc alone.
    fn take_nsswitch(&mut self, text: &str) {
        let line = text
            .lines()
            .find_map(|line| line.trim_start().strip_prefix("hosts:"));
        let Some(line) = line else { return };
        let sources = line
            .split('#')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let sources: Vec<_> = sources
            .filter_map(|word| match word {
                "files" => Some(Source::Files),
                "dns" => Some(Source::Dns),
                _ => None,
            })
            .collect();
        if !sources.is_empty() {
            self.sources = sources;
        }
    }

    /// The names that a look-up of `host` tries, in this order, each in full.
    pub(super) fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(full) = host.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let dots = host.matches('.').count();
        let searched = self.search.iter().map(|domain| {
            let domain = domain.trim_matches('.');
            if domain.is_empty() {
                host.to_owned()
            } else {
                format!("{host}.{domain}")
            }
        });
        let as_it_is = std::iter::once(host.to_owned());
        let mut names: Vec<String> = if dots >= self.ndots {
            as_it_is.chain(searched).collect()
        } else {
            searched.chain(as_it_is).collect()
        };
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }
}

/// gethostname(2).
pub(super) fn host_name() -> String {
    let mut buf = [0u8; 256];
    // SAFETY: the buffer is writable for its length, less the end that stays zero.
    let rc = unsafe { libc::gethostname(buf.as_mut_ptr().cast(), buf.len() - 1) };
    let len = buf.iter().position(|&b| b == 0).unwrap_or(0);
    match rc {
        0 => String::from_utf8_lossy(&buf[..len]).into_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let s = Settings::from_resolv_conf(
            "# a comment\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch a.example b.example\n\
             options ndots:2 timeout:3 attempts:4 rotate edns0\n",
        );
        assert_eq!(
            s.servers,
            [
                "192.0.2.1:53".parse().unwrap(),
                "[2001:db8::1]:53".parse().unwrap()
            ]
        );
        assert_eq!((s.ndots, s.attempts), (2, 4));
        assert_eq!(s.timeout, Duration::from_secs(3));
        assert!(s.edns && s.rotate && !s.tcp_only);
        assert_eq!(s.candidates("x"), ["x.a.example", "x.b.example", "x"]);
        assert_eq!(
            s.candidates("x.y.z"),
            ["x.y.z", "x.y.z.a.example", "x.y.z.b.example"]
        );
        assert_eq!(s.candidates("x.y."), ["x.y"]);
        assert_eq!(Settings::from_resolv_conf("nonsense"), Settings::default());
        let local = Settings::from_resolv_conf("search c.example\n");
        assert_eq!(local.servers, Settings::default().servers);
        assert_eq!(local.search, ["c.example"]);
    }

    #[test]
    fn nsswitch() {
        let mut s = Settings::default();
        s.take_nsswitch("passwd: files\nhosts: dns [!UNAVAIL=return] files # x dns\n");
        assert_eq!(s.sources, [Source::Dns, Source::Files]);
        s.take_nsswitch("hosts: mdns4\n");
        assert_eq!(s.sources, [Source::Dns, Source::Files]);
    }
}
