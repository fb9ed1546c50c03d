//! The hosts file, hosts(5): names in the order of its lines, with their aliases.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

/// A line: an address and its names, the canonical one first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) address: IpAddr,
    pub(super) names: Vec<String>,
}

/// The lines of a hosts file.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    lines: Vec<Line>,
    /// Lines by their names in lower case.
    by_name: HashMap<String, Vec<usize>>,
}

impl Hosts {
    pub(super) fn parse(text: &str) -> Self {
        let mut hosts = Hosts::default();
        for line in text.lines() {
            let mut words = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse) else {
                continue;
            };
            let names: Vec<String> = words.map(str::to_owned).collect();
            if names.is_empty() {
                continue;
            }
            for name in &names {
                let lines = hosts.by_name.entry(name.to_ascii_lowercase()).or_default();
                if lines.last() != Some(&hosts.lines.len()) {
                    lines.push(hosts.lines.len());
                }
            }
            hosts.lines.push(Line { address, names });
        }
        hosts
    }

    /// The lines that bear `name`.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = &Line> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let lines = self.by_name.get(&name).map_or(&[][..], Vec::as_slice);
        lines.iter().map(|&n| &self.lines[n])
    }

    /// The first line of `address`.
    pub(super) fn of(&self, address: IpAddr) -> Option<&Line> {
        self.lines.iter().find(|line| line.address == address)
    }

    /// The file at `path`, which is read again when it was changed.
    pub(super) fn read(path: &Path) -> Rc<Self> {
        type Kept = (PathBuf, Option<(SystemTime, u64)>, Rc<Hosts>);
        thread_local! {
            static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
        }
        let stamp = std::fs::metadata(path)
            .and_then(|m| Ok((m.modified()?, m.len())))
            .ok();
        KEPT.with_borrow_mut(|kept| match kept {
            Some((of, then, hosts)) if of == path && *then == stamp && stamp.is_some() => {
                hosts.clone()
            }
            _ => {
                let text = std::fs::read(path).unwrap_or_default();
                let hosts = Rc::new(Self::parse(&String::from_utf8_lossy(&text)));
                *kept = Some((path.to_owned(), stamp, hosts.clone()));
                hosts
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_their_names() {
        let hosts = Hosts::parse(
            "127.0.0.1 localhost\n::1 localhost ip6-localhost # x\n\
             192.0.2.1\tweb.example Web www # web2\nnonsense x\n192.0.2.2 web.example web web\n192.0.2.3\n",
        );
        let addresses =
            |name| -> Vec<String> { hosts.named(name).map(|l| l.address.to_string()).collect() };
        assert_eq!(addresses("LOCALHOST"), ["127.0.0.1", "::1"]);
        assert_eq!(addresses("web."), ["192.0.2.1", "192.0.2.2"]);
        assert!(addresses("web2").is_empty() && addresses("x").is_empty());
        let line = hosts.of("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(line.names, ["web.example", "Web", "www"]);
        assert_eq!(hosts.of("192.0.2.3".parse().unwrap()), None);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let path = std::env::temp_dir().join(format!("gevent-net-hosts-{}", std::process::id()));
        std::fs::write(&path, "192.0.2.1 a\n").unwrap();
        assert_eq!(Hosts::read(&path).named("a").count(), 1);
        std::fs::write(&path, "192.0.2.1 a\n192.0.2.2 a\n").unwrap();
        assert_eq!(Hosts::read(&path).named("a").count(), 2);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Hosts::read(&path).named("a").count(), 0);
    }
}
