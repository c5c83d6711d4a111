//! A client of the broker's API over HTTP or HTTPS: one connection for each request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use inver_broker::Io;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Time within which a request is answered.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of the largest answer.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// The authorities that the system trusts, where no file is named.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How to reach a running broker.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Reach {
    /// Address of the broker's HTTP listener.
    #[arg(long, global = true, env = "INVER_URL", default_value = "http://127.0.0.1:15672")]
    url: String,
    /// User; the password is in INVER_PASSWORD or in the file of --password-file.
    #[arg(long, global = true, env = "INVER_USER")]
    user: Option<String>,
    /// File with the password, or with the token if there is no user.
    #[arg(long, global = true, value_name = "FILE", env = "INVER_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
    /// Certificates of authorities (PEM) that sign the broker's; without it, those of the system.
    #[arg(long, global = true, value_name = "FILE", env = "INVER_CA")]
    ca: Option<PathBuf>,
    /// Namespace.
    #[arg(long, global = true, default_value = "/", env = "INVER_NAMESPACE")]
    namespace: String,
}

/// Variables of the process that are the client's, not keys of the configuration.
pub(crate) const VARIABLES: [&str; 7] = [
    "INVER_URL",
    "INVER_USER",
    "INVER_PASSWORD",
    "INVER_PASSWORD_FILE",
    "INVER_TOKEN",
    "INVER_CA",
    "INVER_NAMESPACE",
];

/// A client of one broker.
pub(crate) struct Client {
    base: Uri,
    authorization: Option<String>,
    ca: Option<PathBuf>,
    namespace: String,
    runtime: tokio::runtime::Runtime,
}

impl Reach {
    /// The client that these options describe.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let base: Uri = self.url.parse().with_context(|| format!("--url {}", self.url))?;
        if base.host().is_none() || !matches!(base.scheme_str(), Some("http" | "https")) {
            bail!("--url {}: expected http://host:port or https://host:port", self.url);
        }
        let secret = match &self.password_file {
            Some(file) => {
                let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            None => None,
        };
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let authorization = match &self.user {
            Some(user) => {
                let password = secret.or_else(|| variable("INVER_PASSWORD"));
                let password =
                    password.context("a user needs a password: INVER_PASSWORD or --password-file")?;
                Some(format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes())))
            }
            None => secret.or_else(|| variable("INVER_TOKEN")).map(|token| format!("Bearer {token}")),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ca, namespace) = (self.ca.clone(), self.namespace.clone());
        Ok(Client { base, authorization, ca, namespace, runtime })
    }
}

/// A part of a path or a parameter, percent-encoded.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

impl Client {
    /// Asks for a resource of the namespace; the parameters' values are encoded here.
    pub(crate) fn get(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, parameters, None)
    }

    /// A request about a resource of the namespace.
    pub(crate) fn ask(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, String)],
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let mut all = parameters.to_vec();
        if self.namespace != "/" {
            all.push(("namespace", self.namespace.clone()));
        }
        self.ask_node(method, path, &all, body)
    }

    /// A request about a resource of the broker as a whole.
    pub(crate) fn ask_node(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, String)],
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let query: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        let target = format!("{}/api/v1{path}{query}", self.base.path().trim_end_matches('/'));
        let mut request = Request::builder()
            .method(method)
            .uri(&target)
            .header(header::HOST, self.base.authority().map_or("", |authority| authority.as_str()));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = request.body(Full::new(body))?;
        self.runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, self.send(request)).await.context("no answer in time")?
        })
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Value> {
        let io = self.connect().await.with_context(|| format!("failed to connect to {}", self.base))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        tokio::spawn(connection);
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        let json = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice::<Value>(&body) };
        if !status.is_success() {
            let detail = json.ok().and_then(|problem| Some(problem.get("detail")?.as_str()?.to_owned()));
            bail!("{}", detail.unwrap_or_else(|| status.to_string()));
        }
        json.context("the answer is not JSON: is this the broker's HTTP listener?")
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Io>> {
        let host = self.base.host().unwrap_or_default();
        let is_tls = self.base.scheme_str() == Some("https");
        let port = self.base.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((name, port)).await?;
        if !is_tls {
            return Ok(Box::new(stream));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.authorities()?)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned())?;
        Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
    }

    fn authorities(&self) -> anyhow::Result<RootCertStore> {
        let system = SYSTEM_AUTHORITIES.iter().map(PathBuf::from).find(|path| path.exists());
        let file = self.ca.clone().or(system).context("no certificates of authorities: give --ca")?;
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&file).with_context(|| file.display().to_string())? {
            store.add(certificate.with_context(|| file.display().to_string())?)?;
        }
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_percent_encoded() {
        assert_eq!(encoded("a/b c%ü"), "a%2Fb%20c%25%C3%BC");
    }
}
