//! The order in which addresses are to be tried: RFC 6724, section 6, as getaddrinfo(3) does it.
//!
//! Of the rules those are applied that glibc applies without netlink: 1, 2, 5, 6, 8, 9 and 10, with the
//! default policy table. An /etc/gai.conf is not read.

use super::interfaces::Interface;
use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The policy table of RFC 6724, 2.1, with glibc's labels: prefix, its length, precedence, label.
const POLICY: [(Ipv6Addr, u32, u8, u8); 8] = [
    (Ipv6Addr::LOCALHOST, 128, 50, 0),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, 35, 4),
    (Ipv6Addr::UNSPECIFIED, 96, 1, 3),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, 5, 5),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 30, 2),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, 1, 11),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, 3, 13),
    (Ipv6Addr::UNSPECIFIED, 0, 40, 1),
];

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Precedence and label.
fn policy(address: IpAddr) -> (u8, u8) {
    let bits = mapped(address).to_bits();
    let found = POLICY.iter().find(|(prefix, len, ..)| {
        let mask = u128::MAX.checked_shl(128 - len).unwrap_or(0);
        bits & mask == prefix.to_bits() & mask
    });
    found.map_or((40, 1), |&(_, _, precedence, label)| (precedence, label))
}

/// The scope, as the number in a multicast address: 2 the link, 5 the site, 14 the world.
fn scope(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) if v4.is_loopback() || v4.is_link_local() => 2,
        IpAddr::V4(_) => 14,
        IpAddr::V6(v6) if v6.is_multicast() => v6.octets()[1] & 0xf,
        IpAddr::V6(v6) if v6.is_loopback() || v6.is_unicast_link_local() => 2,
        IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfec0 => 5,
        IpAddr::V6(_) => 14,
    }
}

/// The address that this machine would send from; `None` if it has no way there.
fn source(to: IpAddr) -> Option<IpAddr> {
    let any: SocketAddr = match to {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    // Nothing is sent by that.
    socket.connect((to, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// How many bits of an address and its source are the same, where that tells how near it is.
fn common_bits(to: IpAddr, from: IpAddr, interfaces: &[Interface]) -> u32 {
    match (to, from) {
        (IpAddr::V6(to), IpAddr::V6(from)) => (to.to_bits() ^ from.to_bits()).leading_zeros(),
        (IpAddr::V4(to), IpAddr::V4(from)) => {
            let mask = interfaces.iter().find_map(|i| match (i.address, i.mask) {
                (IpAddr::V4(address), Some(IpAddr::V4(mask))) if address == from => Some(mask),
                _ => None,
            });
            let differ = to.to_bits() ^ from.to_bits();
            match mask {
                // Outside of the network its digits mean nothing.
                Some(mask) if differ & mask.to_bits() == 0 => differ.leading_zeros(),
                _ => 0,
            }
        }
        _ => 0,
    }
}

/// What the rules look at.
struct Candidate {
    address: IpAddr,
    source: Option<IpAddr>,
    bits: u32,
}

impl Candidate {
    fn new(address: IpAddr, source: Option<IpAddr>, interfaces: &[Interface]) -> Self {
        Candidate {
            address,
            source,
            bits: source.map_or(0, |source| common_bits(address, source, interfaces)),
        }
    }

    /// `Less` if this one is to be tried before `other`.
    fn compare(&self, other: &Self) -> Ordering {
        let better = |mine: bool, others: bool| others.cmp(&mine);
        let matches = |what: fn(IpAddr) -> u8| {
            move |c: &Self| {
                c.source
                    .is_some_and(|source| what(source) == what(c.address))
            }
        };
        let same_scope = matches(scope);
        let same_label = matches(|a| policy(a).1);
        let same_family = self.address.is_ipv4() == other.address.is_ipv4();
        // 1: avoid unusable destinations.
        better(self.source.is_some(), other.source.is_some())
            // 2: prefer matching scope.
            .then_with(|| better(same_scope(self), same_scope(other)))
            // 5: prefer matching label.
            .then_with(|| better(same_label(self), same_label(other)))
            // 6: prefer higher precedence.
            .then_with(|| policy(other.address).0.cmp(&policy(self.address).0))
            // 8: prefer smaller scope.
            .then_with(|| scope(self.address).cmp(&scope(other.address)))
            // 9: use the longest matching prefix.
            .then_with(|| match same_family {
                true => other.bits.cmp(&self.bits),
                false => Ordering::Equal,
            })
    }
}

/// Puts the addresses into the order in which they are to be tried; those that are equal stay as they are.
pub(super) fn sort(addresses: &mut Vec<IpAddr>, interfaces: &[Interface]) {
    if addresses.len() < 2 {
        return;
    }
    sort_from(addresses, interfaces, source);
}

fn sort_from(
    addresses: &mut Vec<IpAddr>,
    interfaces: &[Interface],
    source: impl Fn(IpAddr) -> Option<IpAddr>,
) {
    let mut candidates: Vec<_> = addresses
        .iter()
        .map(|&address| Candidate::new(address, source(address), interfaces))
        .collect();
    // Rule 10: otherwise leave the order unchanged.
    candidates.sort_by(Candidate::compare);
    addresses.clear();
    addresses.extend(candidates.iter().map(|c| c.address));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The examples of RFC 6724, 10.2, that glibc's rules cover: sources, what is sorted, what comes out.
    #[test]
    fn the_examples_of_the_rfc() {
        let cases: [(&[&str], &[&str], &[&str]); 5] = [
            (
                &["2001:db8:1::2", "169.254.13.78"],
                &["2001:db8:1::1", "198.51.100.121"],
                &["2001:db8:1::1", "198.51.100.121"],
            ),
            (
                &["fe80::1", "198.51.100.117"],
                &["2001:db8:1::1", "198.51.100.121"],
                &["198.51.100.121", "2001:db8:1::1"],
            ),
            (
                &["2001:db8:1::2", "10.1.2.4"],
                &["10.1.2.3", "2001:db8:1::1"],
                &["2001:db8:1::1", "10.1.2.3"],
            ),
            (
                &["2002:c633:6401::2", "fe80::2"],
                &["2002:c633:6401::1", "fe80::1"],
                &["fe80::1", "2002:c633:6401::1"],
            ),
            (
                &["2002:c633:6401::2", "2001:db8:1::2"],
                &["2002:c633:6401::1", "2001:db8:1::1"],
                &["2001:db8:1::1", "2002:c633:6401::1"],
            ),
        ];
        for (sources, given, wanted) in cases {
            let source = |to: IpAddr| {
                let mut of_family = sources.iter().map(|s| ip(s));
                if to.is_ipv4() {
                    return of_family.find(IpAddr::is_ipv4);
                }
                let of_family: Vec<_> = of_family.filter(IpAddr::is_ipv6).collect();
                of_family
                    .into_iter()
                    .max_by_key(|&from| (scope(from) == scope(to), common_bits(to, from, &[])))
            };
            let mut addresses: Vec<_> = given.iter().map(|a| ip(a)).collect();
            sort_from(&mut addresses, &[], source);
            let wanted: Vec<_> = wanted.iter().map(|a| ip(a)).collect();
            assert_eq!(addresses, wanted, "{given:?} from {sources:?}");
        }
    }

    #[test]
    fn the_own_network_comes_first_and_the_unreachable_last() {
        let eth = Interface {
            address: ip("192.0.2.77"),
            mask: Some(ip("255.255.255.0")),
            loopback: false,
        };
        let mut addresses = ["2001:db8::1", "203.0.113.1", "192.0.2.66", "192.0.2.76"]
            .map(ip)
            .to_vec();
        sort_from(&mut addresses, &[eth], |to| {
            to.is_ipv4().then(|| ip("192.0.2.77"))
        });
        let wanted = ["192.0.2.76", "192.0.2.66", "203.0.113.1", "2001:db8::1"].map(ip);
        assert_eq!(addresses, wanted);
    }

    #[test]
    fn loopback_is_sent_from_loopback() {
        assert_eq!(source(ip("127.0.0.1")), Some(ip("127.0.0.1")));
    }
}
