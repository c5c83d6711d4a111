//! Requests to the running broker, over HTTP on the listener of its configuration.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail};
use data_encoding::BASE64;

use crate::config::{Address, Config, HTTP};

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time within which the broker must begin to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes read of an answer.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// An answer of the broker.
pub(super) struct Answer {
    /// The status line without the version: `200 OK`.
    pub(super) status: String,
    pub(super) body: String,
}

impl Answer {
    /// Whether the request was carried out.
    pub(super) fn is_ok(&self) -> bool {
        self.status.starts_with('2')
    }
}

/// A stream to the broker.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// Sends a request, with a JSON body if there is one, to the first HTTP listener without TLS. `login` are a user and a
/// password.
pub(super) fn send(
    config: &Config,
    method: &str,
    path: &str,
    login: Option<(&str, &str)>,
    body: Option<&serde_json::Value>,
) -> anyhow::Result<Answer> {
    let entries = config.listeners();
    let http =
        entries.iter().filter(|entry| entry.settings.protocol == HTTP && !entry.settings.proxy_protocol);
    let plain = http.filter(|entry| entry.settings.tls_cert.is_none());
    let Some(address) = plain.flat_map(|entry| &entry.settings.address.0).next() else {
        bail!("there is no HTTP listener without TLS: set http.listen to an address on this machine");
    };
    let mut stream = connect(address).with_context(|| format!("failed to connect to {address}"))?;
    let login = login.map(|(user, password)| BASE64.encode(format!("{user}:{password}").as_bytes()));
    let authorization = login.map_or(String::new(), |login| format!("Authorization: Basic {login}\r\n"));
    let body = body.map(ToString::to_string).unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}Content-Length: {length}\r\n\
         {authorization}\r\n{body}"
    )?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.lines().next().and_then(|line| line.split_once(' '));
    Ok(Answer { status: status.map_or_else(String::new, |(_, status)| status.into()), body: body.into() })
}

fn connect(address: &Address) -> std::io::Result<Box<dyn Wire>> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect_timeout(&reachable(*address), CONNECT_TIMEOUT)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            Ok(Box::new(stream))
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            Ok(Box::new(stream))
        }
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
