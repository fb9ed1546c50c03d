//! [`Identity`] and [`Certificates`]: what a server shows of itself, replaceable while it runs.

use super::{as_io, primitives};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A certificate with its chain, and its private key.
#[derive(Clone)]
pub struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    /// Where it was read from.
    files: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("chain", &self.key.cert.len())
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// An error of reading PEM. `what` was looked for.
pub(super) fn pem_error(what: impl fmt::Display, error: pem::Error) -> io::Error {
    match error {
        pem::Error::Io(e) => io::Error::new(e.kind(), format!("{what}: {e}")),
        other => io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {other}")),
    }
}

impl Identity {
    /// From PEM: the server's certificate first, then those between it and the root; and the key, PKCS #8,
    /// PKCS #1 or SEC 1, without a password.
    ///
    /// # Errors
    /// `InvalidData`: no PEM, no certificate or no key in it, or a key that is not the certificate's.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> io::Result<Self> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| pem_error("the certificate", e))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| pem_error("the key", e))?;
        Self::from_der(chain, key)
    }

    /// As [`from_pem`](Self::from_pem), of two files, which may be the same.
    /// [`Certificates::reload`] reads them again.
    ///
    /// # Errors
    /// Of reading the files, with their names, and as `from_pem`.
    pub fn from_pem_files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<Self> {
        let (chain, key) = (chain.as_ref(), key.as_ref());
        let read = |path: &Path| {
            std::fs::read(path)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
        };
        let mut identity = Self::from_pem(&read(chain)?, &read(key)?)?;
        identity.files = Some((chain.to_owned(), key.to_owned()));
        Ok(identity)
    }

    fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> io::Result<Self> {
        if chain.is_empty() {
            return Err(pem_error("the certificate", pem::Error::NoItemsFound));
        }
        let key =
            CertifiedKey::from_der(chain, key, &primitives::default_provider()).map_err(as_io)?;
        Ok(Identity {
            key: Arc::new(key),
            files: None,
        })
    }

    fn again(&self) -> io::Result<Self> {
        match &self.files {
            Some((chain, key)) => Self::from_pem_files(chain, key),
            None => Ok(self.clone()),
        }
    }
}

/// The identities of a server: one for each name, and one for all other names and for clients that give
/// none. It is shared: handshakes that begin after a change see the change, connections stay as they are.
#[derive(Debug)]
pub struct Certificates {
    current: RwLock<Arc<Set>>,
    /// Held by whoever changes the set, so that changes do not get lost.
    changing: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Set {
    default: Identity,
    /// In lower case; `*.example.org` for the names one label below.
    names: HashMap<String, Identity>,
}

impl Set {
    fn find(&self, name: &str) -> &Identity {
        let name = name.to_ascii_lowercase();
        let wildcard = || {
            let (_, parent) = name.split_once('.')?;
            self.names.get(&format!("*.{parent}"))
        };
        self.names
            .get(&name)
            .or_else(wildcard)
            .unwrap_or(&self.default)
    }
}

impl Certificates {
    /// With one identity for every name.
    pub fn new(default: Identity) -> Arc<Self> {
        Arc::new(Certificates {
            current: RwLock::new(Arc::new(Set {
                default,
                names: HashMap::new(),
            })),
            changing: Mutex::new(()),
        })
    }

    fn set(&self) -> Arc<Set> {
        // A thread that panicked in between has left one whole set or the other.
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change<E>(&self, f: impl FnOnce(&mut Set) -> Result<(), E>) -> Result<(), E> {
        let _one_at_a_time = self.changing.lock();
        let mut set = (*self.set()).clone();
        f(&mut set)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(set);
        Ok(())
    }

    /// Shows `identity` to clients that ask for `name`, or for a name one label below `*.parent`.
    ///
    /// # Errors
    /// `InvalidInput` if it is no DNS name.
    pub fn insert(&self, name: &str, identity: Identity) -> io::Result<()> {
        let plain = name.strip_prefix("*.").unwrap_or(name);
        if DnsName::try_from(plain).is_err() {
            let what = format!("{name:?} is not a DNS name");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let name = name.to_ascii_lowercase();
        self.change(|set| {
            set.names.insert(name, identity);
            Ok(())
        })
    }

    /// Replaces the identity for the clients that no other is for.
    pub fn replace(&self, default: Identity) {
        let done: Result<(), std::convert::Infallible> = self.change(|set| {
            set.default = default;
            Ok(())
        });
        let Ok(()) = done;
    }

    /// Reads every identity that came from files again.
    ///
    /// # Errors
    /// Of the first that cannot be read; then none was changed.
    pub fn reload(&self) -> io::Result<()> {
        self.change(|set| {
            set.default = set.default.again()?;
            for identity in set.names.values_mut() {
                *identity = identity.again()?;
            }
            Ok(())
        })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let set = self.set();
        let identity = match hello.server_name() {
            Some(name) => set.find(name),
            None => &set.default,
        };
        Some(identity.key.clone())
    }
}
