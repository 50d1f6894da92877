//! TLS, where it is configured.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use crate::error::GatewayError;

/// The certificate chain and the private key that new connections are served with.
pub(crate) struct Tls {
    certificates: PathBuf,
    key: PathBuf,
    current: RwLock<TlsAcceptor>,
}

impl Tls {
    /// Reads two PEM files.
    pub fn open(certificates: &Path, key: &Path) -> Result<Self, GatewayError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| GatewayError::Tls {
                certificates: certificates.to_path_buf(),
                key: key.to_path_buf(),
                reason: format!("{} cannot be read: {error}", path.display()),
            })
        };
        let (chain, private) = (read(certificates)?, read(key)?);
        Ok(Self {
            current: RwLock::new(acceptor((certificates, &chain), (key, &private))?),
            certificates: certificates.to_path_buf(),
            key: key.to_path_buf(),
        })
    }

    /// The files.
    pub fn paths(&self) -> Vec<PathBuf> {
        vec![self.certificates.clone(), self.key.clone()]
    }

    /// Serves new connections with the present content of the files. If that cannot be used,
    /// nothing changes.
    pub fn replace(&self, chain: &[u8], private: &[u8]) -> Result<(), GatewayError> {
        let new = acceptor((&self.certificates, chain), (&self.key, private))?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// The acceptor for a new connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn acceptor(
    (certificates, chain): (&Path, &[u8]),
    (key, private): (&Path, &[u8]),
) -> Result<TlsAcceptor, GatewayError> {
    let fail = |reason: String| GatewayError::Tls {
        certificates: certificates.to_path_buf(),
        key: key.to_path_buf(),
        reason,
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| fail(format!("the certificates cannot be read: {error}")))?;
    let private = PrivateKeyDer::from_pem_slice(private)
        .map_err(|error| fail(format!("the key cannot be read: {error}")))?;
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| fail(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
