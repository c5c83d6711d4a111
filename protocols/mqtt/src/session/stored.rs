//! State rows of a durable session beside its inbox and subscriptions. The broker stores them without reading them.
//!
//! - `i` + packet identifier: a QoS 2 PUBLISH of the client without its PUBREL.
//! - `o` + packet identifier: a QoS 2 message to the client with its PUBREC and without its PUBCOMP.
//! - `s`: the *sent mark*, the offset up to which the inbox was sent when the last connection ended. It is deleted
//!   while a connection holds the session, so it is absent after a crash, when more may have been sent.

use std::collections::BTreeSet;

use bytes::Bytes;

/// Row key of a received packet identifier.
pub(crate) fn received_key(packet_id: u16) -> Bytes {
    key(b'i', packet_id)
}

/// Row key of a packet identifier released by PUBREC.
pub(crate) fn released_key(packet_id: u16) -> Bytes {
    key(b'o', packet_id)
}

/// Row key of the sent mark.
pub(crate) const SENT_KEY: Bytes = Bytes::from_static(b"s");

fn key(kind: u8, packet_id: u16) -> Bytes {
    let [high, low] = packet_id.to_be_bytes();
    Bytes::copy_from_slice(&[kind, high, low])
}

/// The stored state of a resumed session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredState {
    /// Packet identifiers of the client's QoS 2 messages without PUBREL.
    pub(crate) received: BTreeSet<u16>,
    /// Packet identifiers released by PUBREC, without PUBCOMP.
    pub(crate) released: BTreeSet<u16>,
    /// The sent mark: inbox messages below this offset were sent before; `None` if that is unknown.
    pub(crate) sent: Option<u64>,
}

impl StoredState {
    /// Decodes the rows. Unknown ones are skipped.
    pub(crate) fn read(rows: &[(Bytes, Bytes)]) -> StoredState {
        let mut stored = StoredState::default();
        for (key, value) in rows {
            match **key {
                [b'i', high, low] => {
                    stored.received.insert(u16::from_be_bytes([high, low]));
                }
                [b'o', high, low] => {
                    stored.released.insert(u16::from_be_bytes([high, low]));
                }
                [b's'] => stored.sent = sent_mark(value),
                _ => tracing::warn!(?key, "unknown session state row skipped"),
            }
        }
        stored
    }
}

/// Row value of the sent mark.
pub(crate) fn sent_value(next: u64) -> Bytes {
    Bytes::copy_from_slice(&next.to_be_bytes())
}

fn sent_mark(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_decoded_and_unknown_ones_skipped() {
        let rows = [
            (received_key(7), Bytes::new()),
            (released_key(65_535), Bytes::new()),
            (SENT_KEY, sent_value(12)),
            (Bytes::from_static(b"unknown"), Bytes::new()),
        ];
        let wanted =
            StoredState { received: BTreeSet::from([7]), released: BTreeSet::from([65_535]), sent: Some(12) };
        assert_eq!(StoredState::read(&rows), wanted);
        assert_eq!(sent_mark(b"short"), None);
    }
}
