//! What a producer's record says of itself: the headers under which records of MQTT messages carry their properties are
//! understood on the way back, so that a Kafka application can answer and command devices.
//!
//! The first header of each name counts, if its value has the right form; a further one, or one of another form, is shown
//! like any other header. The address is the one that the record was routed by.

use inver_broker::message::{HeaderView, NEUTRAL_ORIGIN, name};

use super::names::own;
use crate::codec::Qos;

/// The properties in a producer's headers.
#[derive(Default)]
pub(super) struct Produced<'a> {
    /// Slashed.
    pub(super) address: Option<&'a [u8]>,
    pub(super) qos: Option<Qos>,
    pub(super) retain: bool,
    pub(super) payload_format: Option<u8>,
    pub(super) content_type: Option<&'a [u8]>,
    /// Slashed.
    pub(super) reply_to: Option<&'a [u8]>,
    pub(super) correlation_id: Option<&'a [u8]>,
    pub(super) expires_ms: Option<i64>,
    /// The places of these among the user's headers.
    pub(super) places: Places,
}

/// Places among the user's headers of a record: that of the address, and a bit for each other one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Places {
    others: u64,
    address: Option<usize>,
}

impl Places {
    /// Whether the header at this place is among them.
    pub(super) fn contains(self, place: usize) -> bool {
        self.address == Some(place) || (place < LOOKED_AT_MAX && self.others & 1 << place != 0)
    }
}

/// Headers among which properties other than the address are looked for: one for each bit of [`Places`].
const LOOKED_AT_MAX: usize = 64;

impl<'a> Produced<'a> {
    /// Reads the headers of a record that a producer wrote.
    pub(super) fn read(headers: &HeaderView<'a>) -> Produced<'a> {
        let mut produced = Produced::default();
        // The record was routed by the first header of this name, wherever it is and even if it is null.
        let named = headers.written().enumerate().find(|(_, (header, _))| *header == name::ADDRESS);
        if let Some((place, (_, Some(address)))) = named {
            (produced.address, produced.places.address) = (Some(address), Some(place));
        }
        for (place, (header, value)) in headers.written().take(LOOKED_AT_MAX).enumerate() {
            if value.is_some_and(|value| produced.take(header, value)) {
                produced.places.others |= 1 << place;
            }
        }
        produced
    }

    /// Takes a header as a property; false if it is none.
    fn take(&mut self, header: &[u8], value: &'a [u8]) -> bool {
        let level = || match value {
            b"0" => Some(Qos::AtMostOnce),
            b"1" => Some(Qos::AtLeastOnce),
            b"2" => Some(Qos::ExactlyOnce),
            _ => None,
        };
        match header {
            name::QOS => set(&mut self.qos, level()),
            own::RETAIN if matches!(value, b"1" | b"true") => !std::mem::replace(&mut self.retain, true),
            own::RETAIN => matches!(value, b"0" | b"false"),
            own::PAYLOAD_FORMAT => set(&mut self.payload_format, number(value).filter(|format| *format <= 1)),
            name::CONTENT_TYPE => set(&mut self.content_type, Some(value)),
            name::REPLY_TO => set(&mut self.reply_to, Some(value)),
            name::CORRELATION_ID => set(&mut self.correlation_id, Some(value)),
            name::EXPIRES => set(&mut self.expires_ms, number(value)),
            _ => false,
        }
    }
}

/// Whether a producer wrote the user's headers of a record: in a batch of its own, or in one that the broker composed again.
pub(super) fn is_producers(headers: &HeaderView<'_>) -> bool {
    headers.origin().is_none_or(|origin| origin == NEUTRAL_ORIGIN.as_bytes())
}

/// Sets what is not set yet.
fn set<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let is_first = place.is_none() && value.is_some();
    if is_first {
        *place = value;
    }
    is_first
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
