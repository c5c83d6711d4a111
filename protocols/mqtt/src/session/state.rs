//! What a durable session keeps in the broker beside its inbox and filters: opaque to the broker, read here.
//!
//! - `i` + packet identifier: a QoS 2 PUBLISH of the client that its PUBREL has not followed.
//! - `o` + packet identifier: a QoS 2 message to the client that was acknowledged by PUBREC, without its PUBCOMP.
//! - `s`: how far the inbox had been sent when the last connection ended. It is taken back while a connection holds
//!   the session, so that it is never there after a crash, when more may have been sent.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};

use bytes::Bytes;

/// The key of an identifier that the client used.
pub(crate) fn inbound_key(packet_id: u16) -> Bytes {
    key(b'i', packet_id)
}

/// The key of an identifier that was released towards the client.
pub(crate) fn released_key(packet_id: u16) -> Bytes {
    key(b'o', packet_id)
}

/// The key of the sent mark.
pub(crate) const SENT_KEY: Bytes = Bytes::from_static(b"s");

fn key(kind: u8, packet_id: u16) -> Bytes {
    let [high, low] = packet_id.to_be_bytes();
    Bytes::copy_from_slice(&[kind, high, low])
}

/// The state of a resumed session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) inbound: BTreeSet<u16>,
    pub(crate) released: BTreeSet<u16>,
    /// Messages of the inbox below this offset were sent before; `None` if that is not known.
    pub(crate) sent: Option<u64>,
}

impl Kept {
    /// Reads what the broker kept.
    pub(crate) fn read(state: &[(Bytes, Bytes)]) -> Kept {
        let mut kept = Kept::default();
        for (key, value) in state {
            match **key {
                [b'i', high, low] => {
                    kept.inbound.insert(u16::from_be_bytes([high, low]));
                }
                [b'o', high, low] => {
                    kept.released.insert(u16::from_be_bytes([high, low]));
                }
                [b's'] => kept.sent = sent_mark(value),
                _ => tracing::warn!(?key, "unknown session state is passed over"),
            }
        }
        kept
    }
}

/// The value of the sent mark.
pub(crate) fn sent_value(next: u64) -> Bytes {
    Bytes::copy_from_slice(&next.to_be_bytes())
}

fn sent_mark(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

/// Random bits from the standard library's hash keys.
pub(crate) fn random() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read() {
        let state = [
            (inbound_key(7), Bytes::new()),
            (released_key(65_535), Bytes::new()),
            (SENT_KEY, sent_value(12)),
            (Bytes::from_static(b"unknown"), Bytes::new()),
        ];
        let wanted =
            Kept { inbound: BTreeSet::from([7]), released: BTreeSet::from([65_535]), sent: Some(12) };
        assert_eq!(Kept::read(&state), wanted);
        assert_eq!(sent_mark(b"short"), None);
    }
}
