//! Connections to a broker: TCP or a Unix socket, with or without TLS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use hyper::Uri;
use inver_broker::Io;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::config::{Address, ClientAuth, Config, HTTP};
use crate::http_client;

/// Where a broker is reached.
#[derive(Debug)]
pub(super) struct Target {
    /// What precedes every path.
    base: String,
    /// The value of the header `Host`.
    host: String,
    place: Place,
    trust: Option<Trust>,
}

#[derive(Debug)]
enum Place {
    Tcp { name: String, port: u16 },
    Unix(PathBuf),
}

/// Which certificates of a broker are believed.
#[derive(Debug)]
enum Trust {
    /// Those for the host's name, signed by the authorities of this file, or by those of the system.
    Authorities(Option<PathBuf>),
    /// The first of this file, whatever its names.
    Exactly(PathBuf),
}

impl Target {
    /// The broker at an address.
    pub(super) fn of_url(url: &str, ca: Option<PathBuf>) -> anyhow::Result<Target> {
        let uri: Uri = url.parse().with_context(|| format!("--url {url}"))?;
        let (Some(authority), Some(scheme @ ("http" | "https"))) = (uri.authority(), uri.scheme_str()) else {
            bail!("--url {url}: expected http://host:port or https://host:port");
        };
        let is_tls = scheme == "https";
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let trust = is_tls.then_some(Trust::Authorities(ca));
        let base = uri.path().trim_end_matches('/').to_owned();
        Ok(Target { base, host: authority.to_string(), place: Place::Tcp { name, port }, trust })
    }

    /// The broker that a configuration describes, at its first HTTP listener that takes a client such as this one: those
    /// without TLS first.
    pub(super) fn of_config(config: &Config, ca: Option<PathBuf>) -> anyhow::Result<Target> {
        let mut entries: Vec<_> = config.listeners().into_iter().map(|entry| entry.settings).collect();
        entries.retain(|entry| {
            entry.protocol == HTTP && !entry.proxy_protocol && entry.tls_client_auth != ClientAuth::Require
        });
        entries.sort_by_key(|entry| entry.tls_cert.is_some());
        let found = entries.iter().find_map(|entry| Some((entry.address.0.first()?, entry.tls_cert.clone())));
        let Some((address, certificate)) = found else {
            bail!("the configuration has no HTTP listener to connect to: set http.listen, or give --url");
        };
        let trust = match (certificate, ca) {
            (None, _) => None,
            (Some(_), Some(ca)) => Some(Trust::Authorities(Some(ca))),
            (Some(certificate), None) => Some(Trust::Exactly(certificate)),
        };
        let (place, host) = match address {
            Address::Tcp(address) => {
                let address = reachable(*address);
                let place = Place::Tcp { name: address.ip().to_string(), port: address.port() };
                (place, address.to_string())
            }
            Address::Unix(path) => (Place::Unix(path.clone()), "localhost".into()),
        };
        Ok(Target { base: String::new(), host, place, trust })
    }

    /// What precedes every path.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// The value of the header `Host`.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> anyhow::Result<Box<dyn Io>> {
        let (io, name): (Box<dyn Io>, &str) = match &self.place {
            Place::Tcp { name, port } => {
                let stream = TcpStream::connect((name.as_str(), *port)).await;
                (Box::new(stream.with_context(|| format!("failed to connect to {}", self.host))?), name)
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                let shown = path.display();
                (Box::new(stream.with_context(|| format!("failed to connect to {shown}"))?), "localhost")
            }
        };
        let Some(trust) = &self.trust else { return Ok(io) };
        let connector = trust.connector()?;
        let name = ServerName::try_from(name.to_owned())?;
        let secured = connector.connect(name, io).await;
        Ok(Box::new(secured.with_context(|| format!("failed to connect to {} with TLS", self.host))?))
    }
}

impl Trust {
    fn connector(&self) -> anyhow::Result<TlsConnector> {
        let file = match self {
            Trust::Authorities(ca) => return http_client::tls(ca.as_deref()).context("--ca"),
            Trust::Exactly(file) => file,
        };
        let own = CertificateDer::from_pem_file(file).with_context(|| file.display().to_string())?;
        let provider = Arc::new(default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Exactly { own, provider }))
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// Believes one certificate, which is known from the broker's own configuration.
#[derive(Debug)]
struct Exactly {
    own: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match *certificate == self.own {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The address to connect to; loopback where the broker listens on all interfaces.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
