//! The first packet: it must be a CONNECT, and soon [MQTT-3.1.0-1].

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use inver_broker::{Broker, Mailbox};

use super::socket::Socket;
use crate::codec::{ConnAck, DecodeError, Packet, PropertiesBuf, Property, Reason, Version, decode};
use crate::error::{Refusal, Stop};
use crate::server::Server;
use crate::session::connect::{self, Accepted};

/// Reads the CONNECT and lets the client in. `None`: it was told why not, or is gone.
pub(super) async fn connect(
    socket: &mut Socket,
    peer: SocketAddr,
    broker: &Broker,
    server: &Arc<Server>,
    mailbox: &Arc<Mailbox>,
) -> Option<Accepted> {
    let bytes_max = server.config.connect_bytes_max;
    let wire = match tokio::time::timeout(server.config.connect_timeout, read(socket, bytes_max)).await {
        Ok(Ok(wire)) => wire,
        Ok(Err((version, refusal))) => {
            tracing::debug!(%peer, reason = ?refusal.reason(), %refusal, "no CONNECT");
            put_refusal(version, &refusal, socket.output());
            return None;
        }
        Err(_elapsed) => {
            tracing::debug!(%peer, "no CONNECT in time");
            return None;
        }
    };
    // Decoded before, so it decodes again.
    let Ok(Some((Packet::Connect(connect), _))) = decode(&wire, Version::V5, bytes_max) else {
        return None;
    };
    match connect::connect(&connect, peer.ip(), broker, server, mailbox).await {
        Ok(accepted) => Some(accepted),
        Err(refusal) => {
            tracing::debug!(%peer, client_id = connect.client_id, reason = ?refusal.reason(), %refusal, "CONNECT refused");
            put_refusal(connect.version, &refusal, socket.output());
            None
        }
    }
}

/// The bytes of the CONNECT; what follows it stays in the socket.
async fn read(socket: &mut Socket, bytes_max: usize) -> Result<Vec<u8>, (Version, Refusal)> {
    let ended = |stop: Stop| (Version::V311, Refusal::from(stop));
    loop {
        let read = poll_fn(|cx| socket.poll_read(cx)).await.map_err(ended)?;
        if read.is_empty() {
            return Err(ended(Stop::EndOfStream));
        }
        let mut found = None;
        socket.parse(Some(read), |input, _| {
            if found.is_some() {
                return Ok(0);
            }
            match whole_connect(input, bytes_max) {
                Ok(0) => Ok(0),
                Ok(length) => {
                    found = input.get(..length).map(<[u8]>::to_vec);
                    Ok(length)
                }
                Err(error) => Err((claimed_version(input), Refusal::from(error))),
            }
        })?;
        if let Some(wire) = found {
            return Ok(wire);
        }
    }
}

/// The length of the CONNECT at the start of `input`, 0 if it is not whole yet.
fn whole_connect(input: &[u8], bytes_max: usize) -> Result<usize, DecodeError> {
    const CONNECT: u8 = 0x10;
    if input.first() != Some(&CONNECT) {
        let what = "a first packet other than CONNECT [MQTT-3.1.0-1]";
        return Err(DecodeError { reason: Reason::ProtocolError, what });
    }
    Ok(decode(input, Version::V5, bytes_max)?.map_or(0, |(_, length)| length))
}

/// The version that a CONNECT claims which cannot be read: only a client of MQTT 5 understands its reasons. One that is
/// of no known version is answered as one of 3.1.1 [MQTT-3.1.2-2].
fn claimed_version(input: &[u8]) -> Version {
    let name = input.windows(7).take(6).find(|window| window.starts_with(b"\x00\x04MQTT"));
    if name.and_then(|name| name.last()) == Some(&5) { Version::V5 } else { Version::V311 }
}

/// What a refused client is told: MQTT 5 a reason and words, older ones a return code where they have one, else nothing.
fn put_refusal(version: Version, refusal: &Refusal, out: &mut Vec<u8>) {
    let reason = refusal.reason();
    let mut properties = PropertiesBuf::new();
    match version {
        Version::V5 => {
            let _too_long_is_left_out = properties.push(Property::ReasonString(&refusal.to_string()));
        }
        _ if reason.v3_connect_code().is_none() => return,
        _ => {}
    }
    let connack = ConnAck { session_present: false, reason, properties: properties.as_ref() };
    let _always_fits = Packet::ConnAck(connack).encode(version, out);
}
