//! Bodies of fuzz targets: what bytes from outside reach. They panic where an invariant does not hold.

use bytes::Bytes;
use inver_storage::batch::Record;

use crate::codec::{Packet, PropertiesBuf, Version, decode};
use crate::map::Outgoing;

/// The longest packet that is tried.
const PACKET_BYTES_MAX: usize = 64 * 1024;

/// Packets one after the other, of the version that the first byte says. What was read can be written, and is read as
/// the same again.
pub fn packets(bytes: &[u8]) {
    let Some((&first, mut rest)) = bytes.split_first() else { return };
    let version = [Version::V31, Version::V311, Version::V5][usize::from(first) % 3];
    while let Ok(Some((packet, length))) = decode(rest, version, PACKET_BYTES_MAX) {
        assert!(length > 0 && length <= rest.len(), "a packet of {length} bytes in {}", rest.len());
        // A CONNECT says its own version.
        let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
        let mut again = Vec::new();
        if packet.encode(version, &mut again).is_ok() {
            let read = decode(&again, version, usize::MAX).map(|found| found.map(|(packet, _)| packet));
            // MQTT 3.1 has other rules for what may be left out.
            assert!(version == Version::V31 || read == Ok(Some(packet)), "not the same again");
        }
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// A record of a finished batch with any headers, as a PUBLISH: the topic is one, and properties are readable.
pub fn record(bytes: &[u8]) {
    let Some((&count, headers)) = bytes.split_first() else { return };
    let record = Record {
        offset_delta: 0,
        timestamp_ms: 0,
        key: Some(Bytes::copy_from_slice(headers)),
        value: None,
        headers: Bytes::copy_from_slice(headers),
        header_count: u32::from(count),
    };
    if let Some(outgoing) = Outgoing::read(&record, Some(headers)) {
        let topic = &*outgoing.topic;
        assert!(!topic.is_empty() && !topic.contains(['+', '#', '\0']), "no topic name: {topic:?}");
        let mut properties = PropertiesBuf::new();
        outgoing.put_properties(0, &mut properties);
        properties.as_ref().iter().for_each(drop);
    }
}
