//! One GET of a key set, over HTTP or TLS: bounded in time and size, without redirects.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Bytes of a key set.
pub(super) const SET_BYTES_MAX: usize = 1 << 20;
/// The time for a whole request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where systems keep the certificates of authorities: Debian and Alpine, Red Hat, openSUSE.
const SYSTEM_CA: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// Whether a URL can be fetched from.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|_| format!("`{url}` is no URL"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(()),
        _ => Err(format!("`{url}` does not begin with `https://` or `http://`")),
    }
}

/// Reads the answer to a GET.
pub(super) async fn get(url: &str, ca: Option<&Path>) -> anyhow::Result<Bytes> {
    let fetched = tokio::time::timeout(TIMEOUT, request(url, ca)).await;
    fetched.with_context(|| format!("no answer within {} s", TIMEOUT.as_secs()))?
}

async fn request(url: &str, ca: Option<&Path>) -> anyhow::Result<Bytes> {
    let uri: Uri = url.parse()?;
    let host = uri.host().context("the URL has no host")?.trim_matches(['[', ']']).to_owned();
    let is_tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await.context("failed to connect")?;
    if !is_tls {
        return exchange(stream, &uri).await;
    }
    let paths: Vec<PathBuf> = match ca {
        Some(path) => vec![path.to_owned()],
        None => SYSTEM_CA.iter().map(PathBuf::from).filter(|path| path.exists()).take(1).collect(),
    };
    let roots = tokio::task::spawn_blocking(move || roots(&paths)).await??;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("TLS failed")?;
    exchange(stream, &uri).await
}

fn roots(paths: &[PathBuf]) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for path in paths {
        let shown = path.display();
        let all = CertificateDer::pem_file_iter(path).with_context(|| format!("failed to read {shown}"))?;
        roots.add_parsable_certificates(all.filter_map(Result::ok));
    }
    if roots.is_empty() {
        bail!("no certificates of authorities: set `jwks_ca`");
    }
    Ok(roots)
}

async fn exchange<S>(stream: S, uri: &Uri) -> anyhow::Result<Bytes>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().context("the URL has no host")?.as_str();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "inver")
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            bail!("the answer is {}", response.status());
        }
        let body = Limited::new(response.into_body(), SET_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer cannot be read: {error}"))?;
        Ok(body.to_bytes())
    };
    // The connection is driven beside the request, and dropped with it. A server may close it behind its answer.
    let mut answer = pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended?;
            answer.await
        }
    }
}
