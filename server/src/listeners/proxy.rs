//! The PROXY protocol, versions 1 and 2: the header in which a proxy names the client of a connection.
//!
//! Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. A header is only read from proxies that the
//! configuration trusts. Nothing beyond the header is read.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ppp::v2::{self, Addresses, Command};
use ppp::{PartialResult, v1};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes after which the version is known: the whole signature of version 2, the beginning of version 1.
const SIGNATURE_BYTES: usize = v2::PROTOCOL_PREFIX.len();
/// Bytes of a header of version 2 before its variable part, whose length is in the last two.
const FIXED_BYTES: usize = 16;
/// Bytes of the longest header of version 1 (section 2.1).
const V1_BYTES_MAX: usize = 107;
/// Bytes of the variable part of the longest header of version 2 that is accepted: addresses, names, certificates.
const V2_BYTES_MAX: usize = 16 * 1024;

/// Type of the value that says what is known of the client's TLS (section 2.2.6).
const TLS: u8 = 0x20;
/// Type of the value within it that is the common name of the client's certificate.
const TLS_COMMON_NAME: u8 = 0x22;
/// Bytes of the TLS value before the values within it: flags, and the result of the verification.
const TLS_FIXED_BYTES: usize = 5;
/// The client connected over TLS.
const FLAG_TLS: u8 = 0x01;
/// The client presented a certificate over this connection, or over another one of the same TLS session.
const FLAG_CERTIFICATE: u8 = 0x02 | 0x04;

/// What a proxy says of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    /// The client's address.
    pub(super) peer: SocketAddr,
    /// The address that it connected to.
    pub(super) local: SocketAddr,
    /// Whether it connected to the proxy over TLS.
    pub(super) encrypted: bool,
    /// Common name of its certificate, which the proxy verified.
    pub(super) common_name: Option<String>,
}

/// What stands for the address of a client of which the proxy does not say any: no address of this machine, so that such a
/// client is none that is let in for being on it.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Reads the header. None where the connection is the proxy's own, such as its health check.
///
/// # Errors
/// `InvalidData`: there is no valid header. Others: the connection failed.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Client>> {
    let mut header = vec![0; SIGNATURE_BYTES];
    stream.read_exact(&mut header).await?;
    if header == v2::PROTOCOL_PREFIX {
        header.resize(FIXED_BYTES, 0);
        fill(stream, &mut header, SIGNATURE_BYTES).await?;
        let length = match header.as_slice() {
            [.., high, low] => usize::from(u16::from_be_bytes([*high, *low])),
            _ => 0,
        };
        if length > V2_BYTES_MAX {
            return Err(invalid(format!("a header of {length} bytes")));
        }
        header.resize(FIXED_BYTES + length, 0);
        fill(stream, &mut header, FIXED_BYTES).await?;
        return binary(&header);
    }
    if !header.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        return Err(invalid("no header of the PROXY protocol"));
    }
    // A line: what follows it is not to be read.
    while !header.ends_with(b"\n") {
        if header.len() >= V1_BYTES_MAX {
            return Err(invalid("the header has no end"));
        }
        header.push(stream.read_u8().await?);
    }
    text(&header)
}

async fn fill(stream: &mut (impl AsyncRead + Unpin), header: &mut [u8], from: usize) -> io::Result<()> {
    stream.read_exact(header.get_mut(from..).unwrap_or_default()).await.map(drop)
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// The client of a header of version 1.
fn text(header: &[u8]) -> io::Result<Option<Client>> {
    let parsed = v1::Header::try_from(header);
    if parsed.is_incomplete() {
        return Err(invalid("the header is incomplete"));
    }
    let client = |peer: SocketAddr, local: SocketAddr| {
        Some(Client { peer, local, encrypted: false, common_name: None })
    };
    Ok(match parsed.map_err(|error| invalid(error.to_string()))?.addresses {
        v1::Addresses::Unknown => client(UNKNOWN, UNKNOWN),
        v1::Addresses::Tcp4(ip) => client(
            (ip.source_address, ip.source_port).into(),
            (ip.destination_address, ip.destination_port).into(),
        ),
        v1::Addresses::Tcp6(ip) => client(
            (ip.source_address, ip.source_port).into(),
            (ip.destination_address, ip.destination_port).into(),
        ),
    })
}

/// The client of a header of version 2.
fn binary(header: &[u8]) -> io::Result<Option<Client>> {
    let header = v2::Header::try_from(header).map_err(|error| invalid(error.to_string()))?;
    let (peer, local): (SocketAddr, SocketAddr) = match (header.command, header.addresses) {
        (Command::Local, _) => return Ok(None),
        (Command::Proxy, Addresses::Unspecified | Addresses::Unix(_)) => (UNKNOWN, UNKNOWN),
        (Command::Proxy, Addresses::IPv4(ip)) => {
            ((ip.source_address, ip.source_port).into(), (ip.destination_address, ip.destination_port).into())
        }
        (Command::Proxy, Addresses::IPv6(ip)) => {
            ((ip.source_address, ip.source_port).into(), (ip.destination_address, ip.destination_port).into())
        }
    };
    let mut client = Client { peer, local, encrypted: false, common_name: None };
    for value in header.tlvs() {
        let value = value.map_err(|error| invalid(error.to_string()))?;
        if value.kind == TLS {
            tls(&value.value, &mut client)?;
        }
    }
    Ok(Some(client))
}

/// Reads the value that says what is known of the client's TLS. A certificate that the proxy did not verify does not count.
fn tls(value: &[u8], client: &mut Client) -> io::Result<()> {
    let Some((fixed, inner)) = value.split_at_checked(TLS_FIXED_BYTES) else {
        return Err(invalid("the value on TLS is too short"));
    };
    let [flags, verification @ ..] = fixed else { return Ok(()) };
    client.encrypted = flags & FLAG_TLS != 0;
    let is_verified = verification == [0; 4] && flags & FLAG_CERTIFICATE != 0;
    for value in v2::TypeLengthValues::from(inner) {
        let value = value.map_err(|error| invalid(error.to_string()))?;
        if value.kind == TLS_COMMON_NAME && is_verified {
            let name = String::from_utf8(value.value.into_owned());
            client.common_name = Some(name.map_err(|_| invalid("a common name that is not UTF-8"))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: &[u8] = b"what follows";

    async fn parse(header: &[u8]) -> io::Result<Option<Client>> {
        let bytes = [header, PAYLOAD].concat();
        let mut stream = bytes.as_slice();
        let client = read(&mut stream).await?;
        assert_eq!(stream, PAYLOAD, "nothing beyond the header is read");
        Ok(client)
    }

    /// A header of version 2.
    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[command, family], &length, payload].concat()
    }

    fn value(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind], &u16::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat()
    }

    const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x04, 0xd2, 0x22, 0xb8];

    fn client(encrypted: bool, common_name: Option<&str>) -> Client {
        Client {
            peer: "192.0.2.1:1234".parse().unwrap(),
            local: "198.51.100.2:8888".parse().unwrap(),
            encrypted,
            common_name: common_name.map(Into::into),
        }
    }

    #[tokio::test]
    async fn both_versions_name_the_client() {
        let text = parse(b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 8888\r\n").await.unwrap();
        assert_eq!(text, Some(client(false, None)));
        let text = parse(b"PROXY TCP6 2001:db8::1 ::1 1234 8888\r\n").await.unwrap().unwrap();
        assert_eq!(text.peer, "[2001:db8::1]:1234".parse().unwrap());
        for unknown in
            [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN ffff:: ffff:: 1 2\r\n", &v2(0x21, 0x00, &[])]
        {
            let client = parse(unknown).await.unwrap().unwrap();
            assert!(!client.peer.ip().is_loopback(), "{unknown:?}: a client that may be anywhere");
        }
        assert_eq!(parse(&v2(0x21, 0x11, &IPV4)).await.unwrap(), Some(client(false, None)));
        assert_eq!(parse(&v2(0x20, 0x11, &IPV4)).await.unwrap(), None, "the proxy's own connection");
        assert_eq!(parse(&v2(0x20, 0x00, &[])).await.unwrap(), None);
        let mut ipv6 = vec![0; 36];
        ipv6[15] = 1;
        ipv6[31] = 2;
        let parsed = parse(&v2(0x21, 0x21, &ipv6)).await.unwrap().unwrap();
        assert_eq!((parsed.peer, parsed.local), ("[::1]:0".parse().unwrap(), "[::2]:0".parse().unwrap()));
    }

    #[tokio::test]
    async fn the_name_of_a_verified_certificate_is_taken() {
        let with = |flags: u8, verification: u8, name: &[u8]| {
            let inner = [value(0x21, b"TLSv1.3"), value(0x22, name)].concat();
            let tls = [&[flags, 0, 0, 0, verification], inner.as_slice()].concat();
            v2(0x21, 0x11, &[&IPV4[..], &value(0x04, &[0; 3]), &value(0x20, &tls)].concat())
        };
        assert_eq!(parse(&with(0x07, 0, b"device-1")).await.unwrap(), Some(client(true, Some("device-1"))));
        assert_eq!(parse(&with(0x05, 0, b"device-1")).await.unwrap(), Some(client(true, Some("device-1"))));
        assert_eq!(parse(&with(0x07, 1, b"device-1")).await.unwrap(), Some(client(true, None)));
        assert_eq!(parse(&with(0x01, 0, b"device-1")).await.unwrap(), Some(client(true, None)));
        assert!(parse(&with(0x07, 0, &[0xff])).await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let mut too_long = v2(0x21, 0x11, &[0; 12]);
        too_long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let cases: [&[u8]; 9] = [
            b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 70000\r\n",
            b"PROXY TCP4 ::1 ::1 1 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
            &v2(0x31, 0x11, &IPV4),
            &v2(0x21, 0x11, &IPV4[..11]),
            &too_long,
            &endless,
        ];
        for bytes in cases {
            let error = parse(bytes).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}: {error}");
        }
    }

    /// Every prefix of a header ends early, and damaged headers are refused or understood: nothing panics.
    #[tokio::test]
    async fn damaged_headers_never_panic() {
        let tls = [&[7, 0, 0, 0, 0][..], &value(0x22, b"name")].concat();
        let whole = v2(0x21, 0x11, &[&IPV4[..], &value(0x20, &tls)].concat());
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 8888\r\n".to_vec();
        for header in [whole, line] {
            for end in 0..header.len() {
                let error = read(&mut header.get(..end).unwrap()).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            }
            for at in 0..header.len() {
                for byte in 0..=u8::MAX {
                    let mut damaged = header.clone();
                    damaged[at] = byte;
                    let _ = read(&mut damaged.as_slice()).await;
                }
            }
        }
    }
}
