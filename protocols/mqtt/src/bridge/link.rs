//! One MQTT connection as a client: buffers, and the beginning with CONNECT and CONNACK.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use inver_broker::{Clock, Io};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::Instant;

use super::error::BridgeError;
use super::side::Side;
use crate::codec::{Connect, EncodeError, PACKET_BYTES_MAX, Packet, Property, Qos, Version, decode};

/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;
/// Longest packet after which the memory of the input is kept for the next ones.
const KEPT_BYTES_MAX: usize = 4 * READ_BYTES;

/// A connection.
pub(super) struct Link {
    pub(super) side: Side,
    pub(super) version: Version,
    pub(super) reader: ReadHalf<Box<dyn Io>>,
    pub(super) writer: WriteHalf<Box<dyn Io>>,
    pub(super) input: BytesMut,
    /// The input had a packet that was longer than [`KEPT_BYTES_MAX`].
    was_long: bool,
    pub(super) output: BytesMut,
    /// What was written is not flushed yet.
    pub(super) is_unflushed: bool,
    /// The longest packet that is accepted.
    packet_bytes_max: usize,
    /// What the server said in CONNACK.
    pub(super) terms: Terms,
    /// When the server took output last, or had nothing to take.
    pub(super) took: Instant,
    /// When a packet was sent last.
    pub(super) sent: Instant,
    /// When the server was heard last.
    pub(super) heard: Instant,
    /// When a PINGREQ was sent that is not answered yet.
    pub(super) pinged: Option<Instant>,
}

/// What a server said in CONNACK (section 3.2.2.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) session_present: bool,
    pub(super) receive_maximum: u16,
    pub(super) maximum_qos: Qos,
    pub(super) retain_available: bool,
    pub(super) packet_bytes_max: usize,
    /// Between two packets; none: any time.
    pub(super) keep_alive: Option<Duration>,
}

impl Link {
    pub(super) fn new(
        side: Side,
        version: Version,
        io: Box<dyn Io>,
        packet_bytes_max: usize,
        now: Instant,
    ) -> Link {
        let (reader, writer) = split(io);
        Link {
            side,
            version,
            reader,
            writer,
            input: BytesMut::new(),
            was_long: false,
            output: BytesMut::new(),
            is_unflushed: false,
            packet_bytes_max,
            terms: Terms {
                session_present: false,
                receive_maximum: u16::MAX,
                maximum_qos: Qos::ExactlyOnce,
                retain_available: true,
                packet_bytes_max: PACKET_BYTES_MAX,
                keep_alive: None,
            },
            took: now,
            sent: now,
            heard: now,
            pinged: None,
        }
    }

    /// Appends a packet to the output.
    pub(super) fn put(&mut self, packet: &Packet<'_>, now: Instant) -> Result<(), EncodeError> {
        let mut encoded = Vec::new();
        packet.encode(self.version, &mut encoded)?;
        if self.output.is_empty() {
            self.took = now;
        }
        self.output.extend_from_slice(&encoded);
        self.sent = now;
        Ok(())
    }

    /// The first packet of the input, if it is whole. Its bytes stay until [`advance`](Self::advance).
    pub(super) fn packet(&self) -> Result<Option<(Packet<'_>, usize)>, BridgeError> {
        self.decode(&self.input)
    }

    /// The first packet of bytes that are not in the input now.
    pub(super) fn decode<'a>(&self, input: &'a [u8]) -> Result<Option<(Packet<'a>, usize)>, BridgeError> {
        decode(input, self.version, self.packet_bytes_max)
            .map_err(|error| BridgeError::Malformed(self.side, error))
    }

    /// Drops bytes of the input, and the memory of a long packet as soon as little is behind it.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.input.advance(bytes);
        self.was_long |= bytes > KEPT_BYTES_MAX;
        if self.was_long && self.input.len() <= READ_BYTES {
            self.input = BytesMut::from(&*self.input);
            self.was_long = false;
        }
    }

    /// Reads more input.
    pub(super) async fn read(&mut self) -> Result<(), BridgeError> {
        read(&mut self.reader, &mut self.input, self.side).await
    }

    /// Writes all output.
    pub(super) async fn write_all(&mut self) -> io::Result<()> {
        self.writer.write_all_buf(&mut self.output).await?;
        self.writer.flush().await
    }

    /// Sends CONNECT and reads CONNACK.
    pub(super) async fn connect(
        &mut self,
        connect: Connect<'_>,
        clock: &Clock,
        timeout: Duration,
    ) -> Result<(), BridgeError> {
        let until = clock.now() + timeout;
        let keep_alive_s = connect.keep_alive_s;
        self.put(&Packet::Connect(Box::new(connect)), clock.now())?;
        tokio::select! {
            done = self.exchange(keep_alive_s) => done,
            () = clock.sleep_until(until) => Err(BridgeError::NoAnswer(self.side)),
        }
    }

    async fn exchange(&mut self, keep_alive_s: u16) -> Result<(), BridgeError> {
        self.write_all().await.map_err(|error| BridgeError::Io(self.side, error))?;
        let (terms, length) = loop {
            match self.packet()? {
                None => {}
                Some((Packet::ConnAck(connack), _)) if connack.reason.is_error() => {
                    let text = connack.properties.iter().find_map(|property| match property {
                        Property::ReasonString(text) => Some(text.to_owned()),
                        _ => None,
                    });
                    return Err(BridgeError::Refused(self.side, connack.reason, text.unwrap_or_default()));
                }
                Some((Packet::ConnAck(connack), length)) => {
                    let mut terms = Terms { session_present: connack.session_present, ..self.terms };
                    let mut keep_alive_s = keep_alive_s;
                    for property in connack.properties.iter() {
                        match property {
                            Property::ReceiveMaximum(count) => terms.receive_maximum = count,
                            Property::MaximumQos(qos) => {
                                terms.maximum_qos = Qos::from_bits(qos).unwrap_or_default();
                            }
                            Property::RetainAvailable(flag) => terms.retain_available = flag != 0,
                            Property::MaximumPacketSize(bytes) => terms.packet_bytes_max = bytes as usize,
                            Property::ServerKeepAlive(seconds) => keep_alive_s = seconds,
                            _ => {}
                        }
                    }
                    let seconds = u64::from(keep_alive_s);
                    terms.keep_alive = (seconds > 0).then(|| Duration::from_secs(seconds));
                    break (terms, length);
                }
                Some(_) => return Err(BridgeError::Unexpected(self.side)),
            }
            self.read().await?;
        };
        self.terms = terms;
        self.advance(length);
        Ok(())
    }
}

/// Reads more input; the end of the stream is an error.
pub(super) async fn read(
    reader: &mut ReadHalf<Box<dyn Io>>,
    input: &mut BytesMut,
    side: Side,
) -> Result<(), BridgeError> {
    input.reserve(READ_BYTES);
    match reader.read_buf(input).await {
        Ok(0) => Err(BridgeError::Closed(side)),
        Ok(_) => Ok(()),
        Err(error) => Err(BridgeError::Io(side, error)),
    }
}

/// Writes a part of the output, or flushes what was written.
pub(super) async fn write(
    writer: &mut WriteHalf<Box<dyn Io>>,
    output: &mut BytesMut,
    is_unflushed: &mut bool,
    side: Side,
) -> Result<(), BridgeError> {
    let written = match output.is_empty() {
        true => {
            // It may have the memory of a long packet.
            *output = BytesMut::new();
            let flushed = writer.flush().await;
            *is_unflushed = false;
            flushed
        }
        false => writer.write_buf(output).await.and_then(|bytes| {
            *is_unflushed = true;
            if bytes == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
        }),
    };
    written.map_err(|error| BridgeError::Io(side, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_long_packet_is_not_kept() {
        let (io, _far) = tokio::io::duplex(1);
        let mut link = Link::new(Side::Remote, Version::V311, Box::new(io), usize::MAX, Instant::now());
        link.input.resize((1 << 20) + 1, 7);
        link.advance(1 << 20);
        assert_eq!(*link.input, [7]);
        link.input.reserve(READ_BYTES);
        assert!(link.input.capacity() < KEPT_BYTES_MAX, "{}", link.input.capacity());
    }
}
