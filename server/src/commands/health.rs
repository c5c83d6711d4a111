//! `inver health`: checks readiness over HTTP. Made for a container's health check, where no other tool exists.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};

use super::ConfigArgument;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes read of the response, which is a line or two.
const RESPONSE_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Some(listen) = self.config.load()?.config.http.listen.0 else {
            bail!("http.listen is off: health cannot be checked");
        };
        let address = reachable(listen);
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)
            .with_context(|| format!("failed to connect to {address}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "GET /health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.take(RESPONSE_BYTES_MAX).read_to_string(&mut response)?;
        let status = response.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            bail!("not ready: {status}");
        }
        println!("ready");
        Ok(())
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
