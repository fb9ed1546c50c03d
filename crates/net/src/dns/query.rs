//! Asking the servers: one after the other, for each name that the search list gives, as glibc does.

use super::runtime::OnFiber;
use super::{Error, Found, Settings};
use hickory_resolver::Resolver as Hickory;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use std::cell::OnceCell;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::task::Poll;

/// What all the servers together had to say to one question.
enum Refusal {
    /// There is no such name.
    NoName,
    /// The name has no such record.
    NoData,
    /// A server could not answer.
    Failed,
    /// No server has answered.
    Silence,
}

/// The servers of one look-up.
pub(super) struct Servers<'a> {
    settings: &'a Settings,
    /// In the order in which they are asked, each with its client once it was.
    clients: Vec<(SocketAddr, OnceCell<Hickory<OnFiber>>)>,
}

impl<'a> Servers<'a> {
    /// `first` is the one that is asked first, where they take turns.
    pub(super) fn new(settings: &'a Settings, first: usize) -> Self {
        let mut clients: Vec<_> = settings
            .servers
            .iter()
            .map(|&server| (server, OnceCell::new()))
            .collect();
        if settings.rotate && !clients.is_empty() {
            let len = clients.len();
            clients.rotate_left(first % len);
        }
        Servers { settings, clients }
    }

    /// hickory's part: a question to one server, with its retries by UDP, its TCP where the answer is
    /// truncated, and the chain of CNAMEs. Caches and hosts files are not its part.
    fn client(&self, server: SocketAddr) -> Hickory<OnFiber> {
        let with_port = |mut connection: ConnectionConfig, port| {
            connection.port = port;
            connection
        };
        let tcp_port = self.settings.tcp_port.unwrap_or(server.port());
        let mut connections = vec![with_port(ConnectionConfig::tcp(), tcp_port)];
        if !self.settings.tcp_only {
            connections.insert(0, with_port(ConnectionConfig::udp(), server.port()));
        }
        let server = NameServerConfig::new(server.ip(), true, connections);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut builder = Hickory::builder_with_config(config, OnFiber);
        let options = builder.options_mut();
        options.timeout = self.settings.timeout;
        options.attempts = 0;
        options.edns0 = self.settings.edns;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.num_concurrent_reqs = 1;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        builder.build().expect("nothing of it can fail without TLS")
    }

    /// The first answer of a server, or the last refusal.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Lookup, Refusal> {
        let mut refusal = Refusal::Silence;
        for _ in 0..self.settings.attempts {
            for (server, client) in &self.clients {
                let client = client.get_or_init(|| self.client(*server));
                match client.lookup(name.clone(), kind).await {
                    Ok(found) => return Ok(found),
                    Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                        match none.response_code {
                            ResponseCode::NXDomain => return Err(Refusal::NoName),
                            ResponseCode::NoError => return Err(Refusal::NoData),
                            _ => refusal = Refusal::Failed,
                        }
                    }
                    Err(NetError::Timeout) => refusal = Refusal::Silence,
                    Err(_) => refusal = Refusal::Failed,
                }
            }
        }
        Err(refusal)
    }

    /// The addresses of `host`, of the kinds that are asked for, under the first name of the search list that
    /// has some.
    pub(super) async fn addresses(&self, host: &str, kinds: &[RecordType]) -> Result<Found, Error> {
        let (mut no_data, mut failed) = (false, false);
        for candidate in self.settings.candidates(host) {
            let Some(name) = full_name(&candidate) else {
                continue;
            };
            let answers = match kinds {
                [kind] => vec![self.ask(&name, *kind).await],
                [one, other] => {
                    let (one, other) = both(self.ask(&name, *one), self.ask(&name, *other)).await;
                    vec![one, other]
                }
                _ => Vec::new(),
            };
            let mut found = Found::default();
            let mut silence = false;
            for answer in answers {
                match answer {
                    Ok(lookup) => take(&lookup, &candidate, &mut found),
                    Err(Refusal::NoName) => {}
                    Err(Refusal::NoData) => no_data = true,
                    Err(Refusal::Failed) => failed = true,
                    Err(Refusal::Silence) => silence = true,
                }
            }
            if !found.addresses.is_empty() {
                return Ok(found);
            }
            if silence {
                return Err(Error::TryAgain);
            }
        }
        Err(match (no_data, failed) {
            (_, true) => Error::TryAgain,
            (true, _) => Error::NoData,
            (false, false) => Error::NotFound,
        })
    }

    /// The names of `address`.
    pub(super) async fn names(&self, address: IpAddr) -> Result<Vec<String>, Error> {
        let lookup = self.ask(&address.into(), RecordType::PTR).await;
        let lookup = lookup.map_err(|refusal| match refusal {
            Refusal::NoName | Refusal::NoData => Error::NotFound,
            Refusal::Failed | Refusal::Silence => Error::TryAgain,
        })?;
        let names = lookup
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::PTR(name) => Some(plain(&name.0)),
                _ => None,
            });
        let names: Vec<String> = names.collect();
        if names.is_empty() {
            return Err(Error::NotFound);
        }
        Ok(names)
    }
}

/// `name` as one that nothing is appended to; `None` if no name is like that.
fn full_name(name: &str) -> Option<Name> {
    let labels: Vec<&[u8]> = name.split('.').map(str::as_bytes).collect();
    if labels.iter().any(|label| label.is_empty()) {
        return None;
    }
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// A name as text, without the dot at its end.
fn plain(name: &Name) -> String {
    let mut text = name.to_ascii();
    if text.len() > 1 && text.ends_with('.') {
        text.pop();
    }
    text
}

/// Adds the addresses of an answer, and the names on the way to them: the last is the canonical one.
fn take(lookup: &Lookup, asked: &str, found: &mut Found) {
    let mut canonical = asked.to_owned();
    for record in lookup.answers() {
        match &record.data {
            RData::CNAME(target) => {
                let target = plain(&target.0);
                if !found.aliases.contains(&canonical) {
                    found
                        .aliases
                        .push(std::mem::replace(&mut canonical, target));
                } else {
                    canonical = target;
                }
            }
            RData::A(a) => found.addresses.push(a.0.into()),
            RData::AAAA(a) => found.addresses.push(a.0.into()),
            _ => {}
        }
    }
    if found.canonical.is_empty() {
        found.canonical = canonical;
    }
}

/// Both results, when both are there.
async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut has_a, mut has_b) = (None, None);
    poll_fn(|cx| {
        if has_a.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(cx)
        {
            has_a = Some(value);
        }
        if has_b.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(cx)
        {
            has_b = Some(value);
        }
        match (has_a.take(), has_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (has_a, has_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}
