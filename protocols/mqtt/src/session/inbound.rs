//! What comes from the client at QoS 1 and 2: which packet identifiers are in use, and how many.

use std::collections::BTreeSet;

use crate::codec::{DecodeError, Qos, Reason};

/// Whether a PUBLISH is the first of its packet identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// To be published.
    First,
    /// A QoS 2 message that was published already [MQTT-4.3.3-10]: only acknowledged.
    Again,
}

/// The client's messages that are not acknowledged to their end.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// QoS 2 identifiers from PUBLISH to PUBREL.
    ///
    /// In a box: most clients have none.
    #[expect(clippy::box_collection, reason = "a pointer is all that those hold")]
    received: Option<Box<BTreeSet<u16>>>,
    /// Messages from PUBLISH until their PUBACK or PUBCOMP is on its way.
    open: u32,
    /// What `open` may grow to; `None` before MQTT 5.
    receive_maximum: Option<u16>,
}

impl Inbound {
    /// `received` are the identifiers that a resumed session still knows.
    pub(crate) fn new(receive_maximum: Option<u16>, received: BTreeSet<u16>) -> Inbound {
        Inbound {
            open: received.len() as u32,
            received: (!received.is_empty()).then(|| Box::new(received)),
            receive_maximum,
        }
    }

    /// A PUBLISH at QoS 1 or 2 came. Refused beyond the receive maximum [MQTT-3.3.4-9].
    pub(crate) fn arrive(&mut self, qos: Qos, packet_id: u16) -> Result<Arrival, DecodeError> {
        if qos == Qos::ExactlyOnce
            && self.received.as_ref().is_some_and(|received| received.contains(&packet_id))
        {
            return Ok(Arrival::Again);
        }
        if self.receive_maximum.is_some_and(|maximum| self.open >= u32::from(maximum)) {
            return Err(DecodeError::because(
                Reason::ReceiveMaximumExceeded,
                "more unacknowledged PUBLISH packets than the Receive Maximum [MQTT-3.3.4-9]",
            ));
        }
        self.open += 1;
        if qos == Qos::ExactlyOnce {
            self.received.get_or_insert_default().insert(packet_id);
        }
        Ok(Arrival::First)
    }

    /// The message was refused: its identifier is free again with the acknowledgement.
    pub(crate) fn refuse(&mut self, packet_id: u16) {
        self.release(packet_id);
    }

    /// A PUBREL came; whether its identifier was known.
    pub(crate) fn release(&mut self, packet_id: u16) -> bool {
        let known = self.received.as_mut().is_some_and(|received| received.remove(&packet_id));
        self.received.take_if(|received| received.is_empty());
        known
    }

    /// So many messages' last acknowledgement is on its way.
    pub(crate) fn completed(&mut self, count: usize) {
        self.open = self.open.saturating_sub(count as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_at_qos_2_arrives_once_until_it_is_released() {
        let mut inbound = Inbound::new(Some(2), BTreeSet::new());
        assert_eq!(inbound.arrive(Qos::ExactlyOnce, 7), Ok(Arrival::First));
        assert_eq!(inbound.arrive(Qos::ExactlyOnce, 7), Ok(Arrival::Again));
        assert!(inbound.release(7));
        assert!(!inbound.release(7));
        inbound.completed(1);
        assert_eq!(inbound.arrive(Qos::ExactlyOnce, 7), Ok(Arrival::First));
    }

    #[test]
    fn the_receive_maximum_counts_what_is_open() {
        let mut inbound = Inbound::new(Some(2), BTreeSet::from([9]));
        assert_eq!(inbound.arrive(Qos::AtLeastOnce, 1), Ok(Arrival::First));
        assert_eq!(inbound.arrive(Qos::ExactlyOnce, 9), Ok(Arrival::Again));
        let refused = inbound.arrive(Qos::AtLeastOnce, 2).map_err(|error| error.reason);
        assert_eq!(refused, Err(Reason::ReceiveMaximumExceeded));
        inbound.completed(1);
        assert_eq!(inbound.arrive(Qos::AtLeastOnce, 2), Ok(Arrival::First));
        let mut unbounded = Inbound::new(None, BTreeSet::new());
        assert!((1..=u16::MAX).all(|id| unbounded.arrive(Qos::ExactlyOnce, id) == Ok(Arrival::First)));
    }
}
