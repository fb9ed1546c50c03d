//! [`ServerSettings`] and [`ClientSettings`]: rustls's configurations, from files as servers have them.

use super::certificates::pem_error;
use super::{Certificates, Identity, as_io, primitives};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The certificates of PEM text, as roots.
///
/// # Errors
/// `InvalidData`: no PEM, or no certificate in it.
pub fn roots_from_pem(pem: &[u8]) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| pem_error("the roots", e))?;
        roots.add(certificate).map_err(as_io)?;
    }
    if roots.is_empty() {
        let what = "the roots: there is no certificate";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(roots)
}

/// The certificates of a PEM file, as roots.
///
/// # Errors
/// Of reading it, and as [`roots_from_pem`].
pub fn roots_from_pem_file(path: impl AsRef<Path>) -> io::Result<RootCertStore> {
    let path = path.as_ref();
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    roots_from_pem(&std::fs::read(path).map_err(named)?).map_err(named)
}

/// The roots that this system trusts, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where these are set.
/// It reads files, a few hundred: once is enough for a process.
///
/// # Errors
/// `NotFound` if there is none; else what can be used is used.
pub fn system_roots() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match (roots.is_empty(), found.errors.into_iter().next()) {
        (false, _) => Ok(roots),
        (true, why) => {
            let why = why.map_or_else(|| "no certificates".to_owned(), |e| e.to_string());
            let what = format!("the system's roots: {why}");
            Err(io::Error::new(io::ErrorKind::NotFound, what))
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(primitives::default_provider())
}

fn protocols(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// How a server speaks TLS.
#[must_use = "settings do nothing until they are built"]
pub struct ServerSettings {
    certificates: Arc<Certificates>,
    alpn: Vec<Vec<u8>>,
    clients: Option<(RootCertStore, bool)>,
}

impl ServerSettings {
    /// Shows these certificates, and asks clients for none.
    pub fn new(certificates: Arc<Certificates>) -> Self {
        ServerSettings {
            certificates,
            alpn: Vec::new(),
            clients: None,
        }
    }

    /// The protocols that it speaks (ALPN, RFC 7301), the preferred first: `["http/1.1"]`. A client that
    /// offers others only is refused; one that offers none is not.
    pub fn alpn(mut self, names: &[&str]) -> Self {
        self.alpn = protocols(names);
        self
    }

    /// Refuses clients without a certificate that leads to one of `roots`.
    pub fn require_clients(mut self, roots: RootCertStore) -> Self {
        self.clients = Some((roots, true));
        self
    }

    /// Asks clients for a certificate, which has to lead to one of `roots` if they have one.
    pub fn ask_clients(mut self, roots: RootCertStore) -> Self {
        self.clients = Some((roots, false));
        self
    }

    /// The configuration, for any number of sessions. Clients resume by tickets, whose keys are this
    /// configuration's own.
    ///
    /// # Errors
    /// `InvalidData` for roots that nothing can lead to.
    pub fn build(self) -> io::Result<Arc<ServerConfig>> {
        let clients = match self.clients {
            None => Arc::new(NoClientAuth),
            Some((roots, required)) => {
                let builder =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let builder = if required {
                    builder
                } else {
                    builder.allow_unauthenticated()
                };
                builder
                    .build()
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(as_io)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(self.certificates);
        config.alpn_protocols = self.alpn;
        config.ticketer = primitives::Ticketer::new().map_err(as_io)?;
        Ok(Arc::new(config))
    }
}

/// How a client speaks TLS.
#[must_use = "settings do nothing until they are built"]
pub struct ClientSettings {
    roots: RootCertStore,
    alpn: Vec<Vec<u8>>,
    identity: Option<Identity>,
}

impl ClientSettings {
    /// Trusts servers whose certificates lead to one of `roots` and have the name that was asked for.
    pub fn new(roots: RootCertStore) -> Self {
        ClientSettings {
            roots,
            alpn: Vec::new(),
            identity: None,
        }
    }

    /// The protocols that it offers (ALPN), the preferred first.
    pub fn alpn(mut self, names: &[&str]) -> Self {
        self.alpn = protocols(names);
        self
    }

    /// Shows this to servers that ask who the client is.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The configuration, for any number of sessions; they resume each other.
    ///
    /// # Errors
    /// `InvalidData` for roots that nothing can lead to.
    pub fn build(self) -> io::Result<Arc<ClientConfig>> {
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots), provider())
                .build()
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(as_io)?
            .with_webpki_verifier(verifier);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key.clone()))),
        };
        config.alpn_protocols = self.alpn;
        Ok(Arc::new(config))
    }
}
