//! One HTTP request to another service, over TCP or TLS, on a connection of its own and without redirects.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::{Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Where systems keep the certificates of authorities: Debian and Alpine, Red Hat, openSUSE, BSD.
const SYSTEM_CA: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whether a request can be sent to a URL.
pub(crate) fn check_url(url: &str) -> Result<Uri, String> {
    // It may hold a password: it is not repeated.
    let uri: Uri = url.parse().map_err(|_| "it is no URL".to_owned())?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("a URL has no user name and no password here".into());
    }
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err("a URL that does not begin with `https://` or `http://`".into()),
    }
}

/// A TLS client that trusts the authorities of a file, or those of the system.
pub(crate) fn tls(ca: Option<&Path>) -> anyhow::Result<TlsConnector> {
    tls_with(ca, None)
}

/// As [`tls`], with a certificate of its own: the files of its chain and of its private key.
pub(crate) fn tls_with(ca: Option<&Path>, own: Option<&(PathBuf, PathBuf)>) -> anyhow::Result<TlsConnector> {
    let paths: Vec<PathBuf> = match ca {
        Some(path) => vec![path.to_owned()],
        None => SYSTEM_CA.iter().map(PathBuf::from).filter(|path| path.exists()).take(1).collect(),
    };
    let mut roots = RootCertStore::empty();
    for path in &paths {
        let shown = path.display();
        let all = CertificateDer::pem_file_iter(path).with_context(|| format!("failed to read {shown}"))?;
        roots.add_parsable_certificates(all.filter_map(Result::ok));
    }
    if roots.is_empty() {
        bail!("no certificates of authorities: name a file of them in the configuration");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let (cert_shown, key_shown) = (cert.display(), key.display());
            let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let chain = chain.with_context(|| format!("certificate chain {cert_shown}"))?;
            let key =
                PrivateKeyDer::from_pem_file(key).with_context(|| format!("private key {key_shown}"))?;
            config
                .with_client_auth_cert(chain, key)
                .with_context(|| format!("{cert_shown} and {key_shown}"))?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Whether a URL asks for TLS.
pub(crate) fn is_tls(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// Sends a request to the place that `uri` names, with TLS if there is a client for it, and reads the answer, whose body
/// is at most `body_bytes_max` long.
pub(crate) async fn send(
    uri: &Uri,
    tls: Option<&TlsConnector>,
    request: Builder,
    body: Bytes,
    body_bytes_max: usize,
) -> anyhow::Result<Response<Bytes>> {
    let host = uri.host().context("the URL has no host")?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await.context("failed to connect")?;
    match tls {
        None => exchange(stream, uri, request, body, body_bytes_max).await,
        Some(tls) => {
            let stream = tls.connect(ServerName::try_from(host)?, stream).await.context("TLS failed")?;
            exchange(stream, uri, request, body, body_bytes_max).await
        }
    }
}

async fn exchange<S>(
    stream: S,
    uri: &Uri,
    request: Builder,
    body: Bytes,
    body_bytes_max: usize,
) -> anyhow::Result<Response<Bytes>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().context("the URL has no host")?.as_str();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let request = request
        .uri(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("inver/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, body_bytes_max).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer cannot be read: {error}"))?;
        Ok(Response::from_parts(head, body.to_bytes()))
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

/// The body of an answer that says 200.
pub(crate) fn ok(response: Response<Bytes>) -> anyhow::Result<Bytes> {
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        status => bail!("the answer is {status}"),
    }
}
