//! Tests of the whole codec: round trips at every split point, and arbitrary bytes.

mod arbitrary;
mod differential;
mod refusals;

use proptest::prelude::*;

use self::arbitrary::{packet, version};
use super::*;

const MAX: usize = PACKET_BYTES_MAX;

proptest! {
    #[test]
    fn encoded_packets_are_decoded_once_they_are_complete((version, packet) in packet()) {
        let mut out = b"before".to_vec();
        packet.encode(version, &mut out).unwrap();
        let wire = &out[6..];
        for cut in 0..wire.len() {
            prop_assert_eq!(decode(&wire[..cut], version, MAX), Ok(None));
        }
        prop_assert_eq!(decode(wire, version, MAX), Ok(Some((packet.clone(), wire.len()))));
        let mut followed = wire.to_vec();
        followed.extend_from_slice(b"\xc0\x00");
        prop_assert_eq!(decode(&followed, version, MAX), Ok(Some((packet, wire.len()))));
        prop_assert_eq!(decode(wire, version, wire.len() - 1).map_err(|e| e.reason), Err(Reason::PacketTooLarge));
    }

    #[test]
    fn arbitrary_bytes_are_decoded_or_refused(
        version in version(),
        first in any::<u8>(),
        body in prop::collection::vec(any::<u8>(), 0..64),
        whole in any::<bool>(),
    ) {
        let mut wire = vec![first];
        if whole {
            wire.push(body.len() as u8);
        }
        wire.extend_from_slice(&body);
        let _ = decode(&wire, version, 1000);
        wire.insert(0, version as u8);
        crate::fuzz::packets(&wire);
        crate::fuzz::record(&body);
    }

    /// A valid packet with one byte changed reaches deep into the decoder.
    #[test]
    fn damaged_packets_are_decoded_or_refused((version, packet) in packet(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut wire = Vec::new();
        packet.encode(version, &mut wire).unwrap();
        let at = at.index(wire.len());
        wire[at] = with;
        crate::fuzz::packets(&[&[version as u8], &wire[..]].concat());
        crate::fuzz::record(&wire);
        if let Ok(Some((packet, used))) = decode(&wire, version, MAX) {
            // An accepted packet can be encoded again.
            let mut again = Vec::new();
            packet.encode(version, &mut again).unwrap();
            prop_assert!(used <= wire.len());
            if let Packet::Connect(connect) = &packet && connect.version == Version::V31 { return Ok(()) }
            prop_assert_eq!(decode(&again, version, MAX).map(|found| found.map(|(packet, _)| packet)), Ok(Some(packet)));
        }
    }
}
