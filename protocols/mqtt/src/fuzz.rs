//! Bodies of the fuzz targets: the entry points that bytes from outside reach. They panic on a violated invariant.

use bytes::Bytes;
use inver_storage::batch::Record;

use crate::codec::{Packet, PropertiesBuf, Version, decode};
use crate::config::AmqpNames;
use crate::map::Outgoing;

/// Maximum packet size of the decoder under test.
const PACKET_BYTES_MAX: usize = 64 * 1024;

/// Decodes consecutive packets; the first byte selects the version. Each packet that can be encoded decodes to itself.
pub fn packets(bytes: &[u8]) {
    let Some((&first, mut rest)) = bytes.split_first() else { return };
    let version = [Version::V31, Version::V311, Version::V5][usize::from(first) % 3];
    while let Ok(Some((packet, length))) = decode(rest, version, PACKET_BYTES_MAX) {
        assert!(length > 0 && length <= rest.len(), "a packet of {length} bytes in {}", rest.len());
        // CONNECT states its own version.
        let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
        let mut encoded = Vec::new();
        if packet.encode(version, &mut encoded).is_ok() {
            let decoded = decode(&encoded, version, usize::MAX).map(|found| found.map(|(packet, _)| packet));
            // MQTT 3.1 allows fields to be missing that the encoder writes.
            assert!(version == Version::V31 || decoded == Ok(Some(packet)), "the packet changed");
        }
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// Converts a record of a producer's batch with arbitrary headers: the topic name is valid, the properties can be read.
pub fn record(bytes: &[u8]) {
    let Some((&count, headers)) = bytes.split_first() else { return };
    let record = Record {
        is_marked: false,
        offset_delta: 0,
        timestamp_ms: 0,
        key: Some(Bytes::copy_from_slice(headers)),
        value: None,
        headers: Bytes::copy_from_slice(headers),
        header_count: u32::from(count),
    };
    if let Some(outgoing) = Outgoing::read(&record, Some(headers), AmqpNames::Reversible) {
        let topic = &*outgoing.topic;
        assert!(!topic.is_empty() && !topic.contains(['+', '#', '\0']), "not a topic name: {topic:?}");
        let mut properties = PropertiesBuf::new();
        outgoing.put_properties(0, &mut properties);
        properties.as_ref().iter().for_each(drop);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_and_what_is_near_them() {
        crate::seeds::run("mqtt_packets", super::packets);
    }
}
