//! The addresses of this machine, getifaddrs(3).

use std::net::{IpAddr, SocketAddr};

/// An address of an interface that is up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interface {
    pub(super) address: IpAddr,
    pub(super) mask: Option<IpAddr>,
    pub(super) loopback: bool,
}

/// All of them; none if the system does not say.
pub(super) fn interfaces() -> Vec<Interface> {
    let mut first = std::ptr::null_mut();
    // SAFETY: it stores a list, which is freed below.
    if unsafe { libc::getifaddrs(&mut first) } != 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut at = first;
    // SAFETY: `at` is null or a member of the list, which is not freed yet.
    while let Some(entry) = unsafe { at.as_ref() } {
        at = entry.ifa_next;
        // SAFETY: both are null or socket addresses of their families' lengths.
        let (address, mask) = unsafe { (ip(entry.ifa_addr), ip(entry.ifa_netmask)) };
        if let Some(address) = address {
            found.push(Interface {
                address,
                mask,
                loopback: entry.ifa_flags & libc::IFF_LOOPBACK as u32 != 0,
            });
        }
    }
    // SAFETY: the list of getifaddrs(3), once.
    unsafe { libc::freeifaddrs(first) };
    found
}

/// The address in a `sockaddr` of an internet family.
///
/// # Safety
/// `addr` is null or a socket address.
unsafe fn ip(addr: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller's promise.
    let family = unsafe { addr.as_ref()? }.sa_family;
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a `sockaddr_in`.
            let v4 = unsafe { addr.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(SocketAddr::from((v4.sin_addr.s_addr.to_ne_bytes(), 0)).ip())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is a `sockaddr_in6`.
            let v6 = unsafe { addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(SocketAddr::from((v6.sin6_addr.s6_addr, 0)).ip())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_loopback() {
        let found = interfaces();
        let loopback = found.iter().find(|i| i.address.to_string() == "127.0.0.1");
        if let Some(loopback) = loopback {
            assert!(loopback.loopback);
            assert_eq!(loopback.mask.unwrap().to_string(), "255.0.0.0");
        } else {
            eprintln!("skipped: this machine has no 127.0.0.1");
        }
    }
}
