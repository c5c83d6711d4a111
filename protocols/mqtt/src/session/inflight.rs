//! Inflight window: QoS 1 and 2 messages to the client, from PUBLISH to PUBACK or PUBCOMP, by packet identifier.
//!
//! An inbox message has the packet identifier `1 + offset % 65,535`. It has the same one when it is sent again, even
//! after a crash, so no assignment is stored and exactly-once delivery follows from the offset. Other messages (those
//! of shared subscriptions) take identifiers just behind the inbox's next one, which the inbox reaches last.
//!
//! Invariant: a packet identifier belongs to one message until its PUBACK or PUBCOMP [MQTT-2.2.1-4].

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use inver_broker::{Delivered, DeliveryId, Unsettled};

use crate::codec::{DecodeError, Qos};

/// Number of packet identifiers.
const IDS: u64 = u16::MAX as u64;

/// Capacity for messages that an idle connection keeps.
const IDLE_CAPACITY_MAX: usize = 8;

/// Where a message is acknowledged when the client has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckTarget {
    /// The session's inbox.
    Inbox { offset: u64 },
    /// A shared subscription, by its number within the session.
    Shared { subscription: u64, id: DeliveryId },
    /// It is acknowledged already.
    Acknowledged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// PUBLISH at QoS 1 was sent; PUBACK is expected.
    Sent1(AckTarget),
    /// PUBLISH at QoS 2 was sent; PUBREC is expected.
    Sent2(AckTarget),
    /// PUBREL was sent, or is deferred until it is stored; PUBCOMP is expected.
    Released,
}

/// The effect of a PUBREC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PubRecOutcome {
    /// The client has the message: acknowledge it, store the packet identifier as released, then send PUBREL.
    Received(AckTarget),
    /// The client refused the message, which ends the exchange [MQTT-4.3.3-3].
    Refused(AckTarget),
    /// It is released already: send PUBREL again.
    Repeated,
    /// No message has this packet identifier.
    Unknown,
}

/// The inflight window.
#[derive(Debug)]
pub(crate) struct InflightWindow {
    /// The most messages in flight: the client's Receive Maximum, bounded by `inflight_max`.
    size: u16,
    /// Absent until the first message: publishers and QoS 0 subscribers never have one.
    messages: Option<Box<Messages>>,
}

/// Messages in flight.
#[derive(Debug, Default)]
struct Messages {
    stages: HashMap<u16, Stage, BuildHasherDefault<IdHasher>>,
    /// The inbox offset after the highest one sent.
    inbox_next: u64,
    /// Where the search for an identifier of another message continues, as an inbox offset.
    others_at: u64,
    /// Sampled messages, by packet identifier.
    traced: Unsettled,
}

impl InflightWindow {
    /// `released`: the packet identifiers of a resumed session whose PUBCOMP is missing.
    pub(crate) fn new(size: u16, released: impl IntoIterator<Item = u16>) -> InflightWindow {
        let mut window = InflightWindow { size, messages: None };
        for id in released {
            window.messages().stages.insert(id, Stage::Released);
        }
        window
    }

    /// Messages that may be sent now [MQTT-3.3.4-7].
    pub(crate) fn room(&self) -> usize {
        let in_flight = self.messages.as_ref().map_or(0, |messages| messages.stages.len());
        usize::from(self.size).saturating_sub(in_flight)
    }

    fn messages(&mut self) -> &mut Messages {
        self.messages.get_or_insert_default()
    }

    fn stage(&self, id: u16) -> Option<Stage> {
        self.messages.as_ref()?.stages.get(&id).copied()
    }

    fn remove(&mut self, id: u16) -> Option<Stage> {
        self.messages.as_mut()?.stages.remove(&id)
    }

    /// Takes the packet identifier of an inbox message; `None` while another message has it.
    pub(crate) fn send_inbox(&mut self, offset: u64, qos: Qos) -> Option<u16> {
        self.messages().send_inbox(offset, qos)
    }

    /// Takes a packet identifier for another message; `None` if all are in use.
    pub(crate) fn send_other(&mut self, target: AckTarget, qos: Qos) -> Option<u16> {
        self.messages().send_other(target, qos)
    }

    /// Keeps what was told of a sampled message until its acknowledgement.
    pub(crate) fn trace(&mut self, id: u16, delivered: Delivered) {
        self.messages().traced.add(id.into(), delivered);
    }

    /// Whether a message in flight is sampled.
    pub(crate) fn is_traced(&self) -> bool {
        self.messages.as_ref().is_some_and(|messages| !messages.traced.is_empty())
    }

    /// Takes what was told of a message.
    pub(crate) fn take_traced(&mut self, id: u16) -> Vec<Delivered> {
        self.messages().traced.take(|key| key == u64::from(id))
    }

    /// Removes a message that was not sent after all; returns where to acknowledge it.
    pub(crate) fn withdraw(&mut self, id: u16) -> Option<AckTarget> {
        match self.remove(id) {
            Some(Stage::Sent1(target) | Stage::Sent2(target)) => Some(target),
            Some(Stage::Released) | None => None,
        }
    }

    /// Handles a PUBACK; returns where to acknowledge the message. An unknown packet identifier is ignored: the client
    /// may acknowledge a message of an earlier connection.
    pub(crate) fn puback(&mut self, id: u16) -> Result<Option<AckTarget>, DecodeError> {
        match self.stage(id) {
            None => Ok(None),
            Some(Stage::Sent1(target)) => {
                self.remove(id);
                Ok(Some(target))
            }
            Some(_) => Err(DecodeError::protocol("PUBACK for a message at QoS 2 [MQTT-4.3.3-2]")),
        }
    }

    /// Handles a PUBREC; `refused`: it carries an error.
    pub(crate) fn pubrec(&mut self, id: u16, refused: bool) -> Result<PubRecOutcome, DecodeError> {
        match self.stage(id) {
            None => Ok(PubRecOutcome::Unknown),
            Some(Stage::Released) => Ok(PubRecOutcome::Repeated),
            Some(Stage::Sent2(target)) if refused => {
                self.remove(id);
                Ok(PubRecOutcome::Refused(target))
            }
            Some(Stage::Sent2(target)) => {
                self.messages().stages.insert(id, Stage::Released);
                Ok(PubRecOutcome::Received(target))
            }
            Some(Stage::Sent1(_)) => {
                Err(DecodeError::protocol("PUBREC for a message at QoS 1 [MQTT-4.3.2-4]"))
            }
        }
    }

    /// Handles a PUBCOMP; returns whether its packet identifier was released.
    pub(crate) fn pubcomp(&mut self, id: u16) -> bool {
        let was_released = self.stage(id) == Some(Stage::Released);
        if was_released {
            self.remove(id);
        }
        was_released
    }

    /// Releases memory that an idle connection does not need.
    pub(crate) fn shrink(&mut self) {
        if let Some(Messages { stages, .. }) = self.messages.as_deref_mut()
            && stages.is_empty()
            && stages.capacity() > IDLE_CAPACITY_MAX
        {
            *stages = HashMap::default();
        }
    }

    /// Marks as acknowledged the messages of a shared subscription that the session leaves: they are completed all the same
    /// [MQTT-3.10.4-3], and no other member may get them. Returns what to acknowledge there.
    pub(crate) fn acknowledge_shared(&mut self, left: u64) -> Vec<DeliveryId> {
        self.acknowledge_early(
            |target, _| matches!(target, AckTarget::Shared { subscription, .. } if *subscription == left),
        )
        .into_iter()
        .map(|(_, id)| id)
        .collect()
    }

    /// Marks as acknowledged the QoS 2 messages of shared subscriptions at the end of the session: the client may have them, so no
    /// other member may get them [MQTT-4.8.2-5]. Returns subscription numbers and what to acknowledge there.
    pub(crate) fn acknowledge_exactly_once(&mut self) -> Vec<(u64, DeliveryId)> {
        self.acknowledge_early(|_, qos| qos == Qos::ExactlyOnce)
    }

    fn acknowledge_early(&mut self, selects: impl Fn(&AckTarget, Qos) -> bool) -> Vec<(u64, DeliveryId)> {
        let mut acknowledged = Vec::new();
        for stage in self.messages.iter_mut().flat_map(|messages| messages.stages.values_mut()) {
            let (target, qos) = match stage {
                Stage::Sent1(target) => (target, Qos::AtLeastOnce),
                Stage::Sent2(target) => (target, Qos::ExactlyOnce),
                Stage::Released => continue,
            };
            if let AckTarget::Shared { subscription, id } = *target
                && selects(target, qos)
            {
                acknowledged.push((subscription, id));
                *target = AckTarget::Acknowledged;
            }
        }
        acknowledged
    }
}

impl Messages {
    fn send_inbox(&mut self, offset: u64, qos: Qos) -> Option<u16> {
        let id = inbox_id(offset);
        if self.stages.contains_key(&id) {
            return None;
        }
        self.inbox_next = self.inbox_next.max(offset + 1);
        self.send(id, AckTarget::Inbox { offset }, qos);
        Some(id)
    }

    fn send_other(&mut self, target: AckTarget, qos: Qos) -> Option<u16> {
        // Start again far ahead of the inbox, unless so many identifiers are in use that the search would take long.
        if self.others_at < self.inbox_next + IDS / 2 && self.stages.len() < IDS as usize / 4 {
            self.others_at = self.inbox_next + IDS;
        }
        for _ in 0..IDS {
            self.others_at = self.others_at.checked_sub(1).unwrap_or(self.inbox_next + IDS);
            let id = inbox_id(self.others_at);
            if !self.stages.contains_key(&id) {
                self.send(id, target, qos);
                return Some(id);
            }
        }
        None
    }

    fn send(&mut self, id: u16, target: AckTarget, qos: Qos) {
        debug_assert!(qos != Qos::AtMostOnce);
        let stage = if qos == Qos::ExactlyOnce { Stage::Sent2(target) } else { Stage::Sent1(target) };
        self.stages.insert(id, stage);
    }
}

fn inbox_id(offset: u64) -> u16 {
    1 + (offset % IDS) as u16
}

/// Multiplicative hash that spreads consecutive packet identifiers.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_u16(&mut self, id: u16) {
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INBOX: fn(u64) -> AckTarget = |offset| AckTarget::Inbox { offset };

    fn shared(subscription: u64) -> AckTarget {
        AckTarget::Shared { subscription, id: DeliveryId { partition: 0, offset: 3 } }
    }

    #[test]
    fn the_packet_identifier_follows_the_offset() {
        let mut window = InflightWindow::new(10, []);
        assert_eq!(window.send_inbox(0, Qos::AtLeastOnce), Some(1));
        assert_eq!(window.send_inbox(65_534, Qos::AtLeastOnce), Some(65_535));
        assert_eq!(window.send_inbox(65_535, Qos::AtLeastOnce), None, "offset 0 has packet identifier 1");
        assert_eq!(window.puback(1), Ok(Some(INBOX(0))));
        assert_eq!(window.send_inbox(65_535, Qos::AtLeastOnce), Some(1));
        assert_eq!(window.room(), 8);
    }

    #[test]
    fn a_qos_2_message_passes_through_its_stages() {
        let mut window = InflightWindow::new(1, []);
        assert_eq!(window.send_inbox(4, Qos::ExactlyOnce), Some(5));
        assert_eq!(window.room(), 0);
        assert!(window.puback(5).is_err());
        assert!(!window.pubcomp(5));
        assert_eq!(window.pubrec(5, false), Ok(PubRecOutcome::Received(INBOX(4))));
        assert_eq!(window.pubrec(5, false), Ok(PubRecOutcome::Repeated));
        assert_eq!(window.room(), 0, "it counts until PUBCOMP");
        assert!(window.pubcomp(5));
        assert_eq!(window.room(), 1);
        assert_eq!(window.pubrec(5, false), Ok(PubRecOutcome::Unknown));
        assert_eq!(window.puback(5), Ok(None));
    }

    #[test]
    fn a_refused_message_is_complete() {
        let mut window = InflightWindow::new(1, []);
        window.send_inbox(4, Qos::ExactlyOnce);
        assert_eq!(window.pubrec(5, true), Ok(PubRecOutcome::Refused(INBOX(4))));
        assert_eq!(window.room(), 1);
    }

    #[test]
    fn other_messages_take_identifiers_that_the_inbox_reaches_last() {
        let mut window = InflightWindow::new(u16::MAX, [3]);
        window.send_inbox(9, Qos::AtLeastOnce);
        assert_eq!(window.send_other(shared(1), Qos::AtLeastOnce), Some(9));
        assert_eq!(window.send_other(shared(2), Qos::ExactlyOnce), Some(8));
        assert_eq!(window.send_inbox(10, Qos::AtLeastOnce), Some(11));
        assert_eq!(window.acknowledge_shared(1).len(), 1);
        assert_eq!(window.acknowledge_exactly_once(), [(2, DeliveryId { partition: 0, offset: 3 })]);
        assert_eq!(window.puback(9), Ok(Some(AckTarget::Acknowledged)));
        assert!(window.pubrec(8, false).is_ok());
        assert!(window.pubcomp(3), "restored");
    }

    #[test]
    fn all_packet_identifiers_can_be_in_use() {
        let mut window = InflightWindow::new(u16::MAX, []);
        for _ in 0..u16::MAX {
            assert!(window.send_other(shared(1), Qos::AtLeastOnce).is_some());
        }
        assert_eq!(window.room(), 0);
        assert_eq!(window.send_other(shared(1), Qos::AtLeastOnce), None);
    }
}
