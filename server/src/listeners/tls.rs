//! TLS 1.2 and 1.3, by rustls with the ring provider; certificates of clients.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::config::{ClientAuth, ListenerKeys, TlsVersion};

/// Permissions by which others than the owner and the group may read or write a file.
const OPEN_TO_OTHERS: u32 = 0o006;

/// TLS of one listener: its files, and the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    cert: PathBuf,
    key: PathBuf,
    /// Authorities of clients, and whether a certificate is required.
    clients: Option<(PathBuf, bool)>,
    min_version: TlsVersion,
}

impl TlsFiles {
    /// Those of a listener; none without TLS.
    pub(crate) fn of(listener: &ListenerKeys) -> Option<TlsFiles> {
        let (cert, key) = (listener.tls_cert.clone()?, listener.tls_key.clone()?);
        let clients = listener.tls_client_ca.clone().and_then(|ca| match listener.tls_client_auth {
            ClientAuth::None => None,
            ClientAuth::Request => Some((ca, false)),
            ClientAuth::Require => Some((ca, true)),
        });
        Some(TlsFiles { cert, key, clients, min_version: listener.tls_min_version })
    }

    /// Every file.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let ca = self.clients.as_ref().map(|(ca, _)| ca.as_path());
        [self.cert.as_path(), self.key.as_path()].into_iter().chain(ca)
    }

    /// A warning where others may read the private key.
    pub(crate) fn warning(&self) -> Option<String> {
        let mode = std::fs::metadata(&self.key).ok()?.mode() & 0o777;
        (mode & OPEN_TO_OTHERS != 0).then(|| {
            let key = self.key.display();
            format!("the private key {key} is open to every user of this machine (mode {mode:04o}): chmod 600 {key}")
        })
    }

    /// Reads the files.
    pub(crate) fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let (cert, key) = (self.cert.display(), self.key.display());
        let chain = certificates(&self.cert).with_context(|| format!("certificate chain {cert}"))?;
        let private =
            PrivateKeyDer::from_pem_file(&self.key).with_context(|| format!("private key {key}"))?;
        let provider = Arc::new(default_provider());
        let versions: &[&SupportedProtocolVersion] = match self.min_version {
            TlsVersion::Tls12 => &[&TLS13, &TLS12],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions)?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some((ca, required)) => {
                let shown = ca.display();
                let mut roots = RootCertStore::empty();
                for authority in
                    certificates(ca).with_context(|| format!("authorities of clients {shown}"))?
                {
                    roots.add(authority).with_context(|| format!("authorities of clients {shown}"))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if *required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let config = builder.with_single_cert(chain, private).with_context(|| format!("{cert} and {key}"))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The certificates of a PEM file, of which there is at least one.
fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>)?;
    if all.is_empty() {
        bail!("there is no certificate in the file");
    }
    Ok(all)
}
