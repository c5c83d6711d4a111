//! Receive window: packet identifiers of the client's QoS 1 and 2 messages, bounded by the Receive Maximum.

use std::collections::BTreeSet;

use crate::codec::{DecodeError, Qos, Reason};

/// Whether a PUBLISH is the first of its packet identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Publish it.
    First,
    /// A QoS 2 message that was published already [MQTT-4.3.3-10]: acknowledge it only.
    Repeated,
}

/// The client's messages whose acknowledgement is not complete.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    /// Packet identifiers of QoS 2 messages from PUBLISH to PUBREL; one pointer while there are none.
    #[expect(clippy::box_collection, reason = "most clients have none")]
    received: Option<Box<BTreeSet<u16>>>,
    /// Messages from PUBLISH until their PUBACK or PUBCOMP is written.
    open: u32,
    /// Bound of `open`; `None` before MQTT 5.
    receive_maximum: Option<u16>,
}

impl ReceiveWindow {
    /// `received`: the stored packet identifiers of a resumed session.
    pub(crate) fn new(receive_maximum: Option<u16>, received: BTreeSet<u16>) -> ReceiveWindow {
        ReceiveWindow {
            open: received.len() as u32,
            received: (!received.is_empty()).then(|| Box::new(received)),
            receive_maximum,
        }
    }

    /// Records a PUBLISH at QoS 1 or 2. Fails beyond the Receive Maximum [MQTT-3.3.4-9].
    pub(crate) fn arrive(&mut self, qos: Qos, packet_id: u16) -> Result<Arrival, DecodeError> {
        if qos == Qos::ExactlyOnce
            && self.received.as_ref().is_some_and(|received| received.contains(&packet_id))
        {
            return Ok(Arrival::Repeated);
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

    /// Frees a packet identifier, on PUBREL or because the message was refused; returns whether it was in use.
    pub(crate) fn release(&mut self, packet_id: u16) -> bool {
        let known = self.received.as_mut().is_some_and(|received| received.remove(&packet_id));
        self.received.take_if(|received| received.is_empty());
        known
    }

    /// Records that the last acknowledgements of `count` messages are written.
    pub(crate) fn complete(&mut self, count: usize) {
        self.open = self.open.saturating_sub(count as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qos_2_message_arrives_once_until_it_is_released() {
        let mut window = ReceiveWindow::new(Some(2), BTreeSet::new());
        assert_eq!(window.arrive(Qos::ExactlyOnce, 7), Ok(Arrival::First));
        assert_eq!(window.arrive(Qos::ExactlyOnce, 7), Ok(Arrival::Repeated));
        assert!(window.release(7));
        assert!(!window.release(7));
        window.complete(1);
        assert_eq!(window.arrive(Qos::ExactlyOnce, 7), Ok(Arrival::First));
    }

    #[test]
    fn the_receive_maximum_bounds_incomplete_messages() {
        let mut window = ReceiveWindow::new(Some(2), BTreeSet::from([9]));
        assert_eq!(window.arrive(Qos::AtLeastOnce, 1), Ok(Arrival::First));
        assert_eq!(window.arrive(Qos::ExactlyOnce, 9), Ok(Arrival::Repeated));
        let refused = window.arrive(Qos::AtLeastOnce, 2).map_err(|error| error.reason);
        assert_eq!(refused, Err(Reason::ReceiveMaximumExceeded));
        window.complete(1);
        assert_eq!(window.arrive(Qos::AtLeastOnce, 2), Ok(Arrival::First));
        let mut unbounded = ReceiveWindow::new(None, BTreeSet::new());
        assert!((1..=u16::MAX).all(|id| unbounded.arrive(Qos::ExactlyOnce, id) == Ok(Arrival::First)));
    }
}
