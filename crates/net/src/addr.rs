//! Addresses: the kernel's form and Rust's, and names looked up on the offload pool.

use crate::raw::{self, Address};
use gevent_hub_core::hub::Hub;
use gevent_hub_core::offload::{CallError, Pool};
use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The bytes of a plain C struct.
fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: the socket address structs passed here have no padding, and live as long as the slice.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Reads a plain C struct from the start of `address`, if it is that long.
fn read_as<T: Copy>(address: &Address) -> Option<T> {
    let bytes = address.as_bytes();
    // SAFETY: long enough, checked here, and any bytes make a valid struct of numbers.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        let address = match addr {
            SocketAddr::V4(v4) => {
                // SAFETY: plain numbers, for which zeros are valid.
                let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
                raw.sin_family = libc::AF_INET as _;
                raw.sin_port = v4.port().to_be();
                raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                Address::from_bytes(bytes_of(&raw))
            }
            SocketAddr::V6(v6) => {
                // SAFETY: plain numbers, for which zeros are valid.
                let mut raw: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
                raw.sin6_family = libc::AF_INET6 as _;
                raw.sin6_port = v6.port().to_be();
                raw.sin6_addr.s6_addr = v6.ip().octets();
                raw.sin6_flowinfo = v6.flowinfo();
                raw.sin6_scope_id = v6.scope_id();
                Address::from_bytes(bytes_of(&raw))
            }
        };
        address.expect("an address fits into the storage of addresses")
    }
}

impl TryFrom<&Address> for SocketAddr {
    type Error = io::Error;

    fn try_from(address: &Address) -> io::Result<Self> {
        let internet = match address.family() {
            libc::AF_INET => read_as::<libc::sockaddr_in>(address).map(|raw| {
                let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
                SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into()
            }),
            libc::AF_INET6 => read_as::<libc::sockaddr_in6>(address).map(|raw| {
                let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
                let port = u16::from_be(raw.sin6_port);
                SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id).into()
            }),
            _ => None,
        };
        internet.ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
    }
}

/// An address of AF_UNIX.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum UnixAddr {
    /// Of a socket that was not bound.
    Unnamed,
    /// In the file system.
    Path(PathBuf),
    /// In Linux's abstract name space, without the leading zero.
    Abstract(Vec<u8>),
}

impl From<&Path> for UnixAddr {
    fn from(path: &Path) -> Self {
        UnixAddr::Path(path.to_owned())
    }
}

/// Where the path begins in a `sockaddr_un`.
const PATH_OFFSET: usize = std::mem::offset_of!(libc::sockaddr_un, sun_path);

impl TryFrom<&UnixAddr> for Address {
    type Error = io::Error;

    /// `ENAMETOOLONG` for a name of more than 107 bytes, `EINVAL` for a path with a zero.
    fn try_from(addr: &UnixAddr) -> io::Result<Self> {
        let name: Vec<u8> = match addr {
            UnixAddr::Unnamed => Vec::new(),
            UnixAddr::Path(path) => {
                let path = path.as_os_str().as_bytes();
                if path.contains(&0) {
                    return Err(io::Error::from_raw_os_error(libc::EINVAL));
                }
                [path, b"\0"].concat()
            }
            UnixAddr::Abstract(name) => [b"\0", name.as_slice()].concat(),
        };
        if PATH_OFFSET + name.len() > size_of::<libc::sockaddr_un>() {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        // SAFETY: plain numbers, for which zeros are valid.
        let mut raw: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        raw.sun_family = libc::AF_UNIX as _;
        for (to, from) in raw.sun_path.iter_mut().zip(&name) {
            *to = *from as libc::c_char;
        }
        let bytes = &bytes_of(&raw)[..PATH_OFFSET + name.len()];
        Ok(Address::from_bytes(bytes).expect("an address fits into the storage of addresses"))
    }
}

impl TryFrom<&Address> for UnixAddr {
    type Error = io::Error;

    fn try_from(address: &Address) -> io::Result<Self> {
        let bytes = address.as_bytes();
        match bytes.get(PATH_OFFSET..) {
            None | Some([]) => Ok(UnixAddr::Unnamed),
            Some(_) if address.family() != libc::AF_UNIX => {
                Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
            }
            Some([0, name @ ..]) => Ok(UnixAddr::Abstract(name.to_vec())),
            Some(path) => {
                let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
                let path = OsStr::from_bytes(&path[..end]);
                Ok(UnixAddr::Path(PathBuf::from(path)))
            }
        }
    }
}

/// What names one or more internet addresses.
///
/// Numbers cost nothing; a name is looked up by getaddrinfo(3) on the offload pool, while other fibers run.
pub trait ToAddrs {
    /// The addresses, in the order in which they should be tried.
    ///
    /// # Errors
    /// Of the parse or the look-up.
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>>;
}

impl ToAddrs for SocketAddr {
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![*self])
    }
}

impl ToAddrs for [SocketAddr] {
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(self.to_vec())
    }
}

impl ToAddrs for (IpAddr, u16) {
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![(*self).into()])
    }
}

impl ToAddrs for (&str, u16) {
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        match self.0.parse::<IpAddr>() {
            Ok(ip) => Ok(vec![(ip, self.1).into()]),
            Err(_) => look_up((self.0.to_owned(), self.1)),
        }
    }
}

impl ToAddrs for str {
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        match self.parse() {
            Ok(addr) => Ok(vec![addr]),
            Err(_) => look_up(self.to_owned()),
        }
    }
}

impl ToAddrs for String {
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.as_str().to_addrs()
    }
}

impl<T: ToAddrs + ?Sized> ToAddrs for &T {
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        (**self).to_addrs()
    }
}

fn look_up(name: impl std::net::ToSocketAddrs + Send + 'static) -> io::Result<Vec<SocketAddr>> {
    let ask = move || name.to_socket_addrs().map(Iterator::collect);
    Hub::with(|hub| match hub {
        None => ask(),
        Some(hub) => match Pool::global().call(hub, ask) {
            Ok(found) => found,
            Err(CallError::Interrupted(i)) => Err(raw::Error::Interrupted(i).into()),
            Err(other) => Err(io::Error::other(other.to_string())),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internet_addresses_survive_the_kernels_form() {
        for text in [
            "127.0.0.1:80",
            "255.1.2.3:65535",
            "[::1]:443",
            "[fe80::1%3]:9",
        ] {
            let addr: SocketAddr = text.parse().unwrap();
            let raw = Address::from(addr);
            assert_eq!(SocketAddr::try_from(&raw).unwrap(), addr, "{text}");
        }
        let unix = Address::try_from(&UnixAddr::Unnamed).unwrap();
        let error = SocketAddr::try_from(&unix).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAFNOSUPPORT));
    }

    #[test]
    fn unix_addresses_survive_the_kernels_form() {
        for addr in [
            UnixAddr::Unnamed,
            UnixAddr::Path("/tmp/some.sock".into()),
            UnixAddr::Path("x".repeat(107).into()),
            UnixAddr::Abstract(b"name\0with zero".to_vec()),
        ] {
            let raw = Address::try_from(&addr).unwrap();
            assert_eq!(UnixAddr::try_from(&raw).unwrap(), addr);
        }
        let errno = |addr: UnixAddr| Address::try_from(&addr).err().unwrap().raw_os_error();
        assert_eq!(
            errno(UnixAddr::Path("x".repeat(108).into())),
            Some(libc::ENAMETOOLONG)
        );
        assert_eq!(errno(UnixAddr::Path("a\0b".into())), Some(libc::EINVAL));
    }

    #[test]
    fn numbers_need_no_look_up_and_names_get_one() {
        let v4: SocketAddr = "10.0.0.1:7".parse().unwrap();
        assert_eq!("10.0.0.1:7".to_addrs().unwrap(), [v4]);
        assert_eq!(("10.0.0.1", 7).to_addrs().unwrap(), [v4]);
        assert_eq!("10.0.0.1:7".to_owned().to_addrs().unwrap(), [v4]);
        let local = "localhost:7".to_addrs().unwrap();
        assert!(local.iter().all(|a| a.ip().is_loopback()) && !local.is_empty());
        assert!("no port".to_addrs().is_err());
    }
}
