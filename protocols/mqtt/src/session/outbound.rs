//! What goes to the client at QoS 1 and 2: packet identifiers, stages, and the window.
//!
//! A message of the session's inbox has the identifier `1 + offset % 65,535`. So it has the same one when it is sent
//! again, after a crash too, and no assignment needs to be stored: exactly-once holds by the offset. Messages from
//! elsewhere (shared subscriptions) take identifiers from behind the inbox's next, which the inbox reaches last.
//!
//! Invariant: an identifier is one message's from its PUBLISH to its PUBACK or PUBCOMP [MQTT-2.2.1-4].

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use inver_broker::DeliveryId;

use crate::codec::{DecodeError, Qos};

/// Packet identifiers there are.
const IDS: u64 = u16::MAX as u64;

/// Places for messages under way that an idle connection keeps.
const IDLE_FLIGHTS_MAX: usize = 8;

/// Where a message came from, to be acknowledged there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The session's inbox.
    Inbox { offset: u64 },
    /// A shared subscription, by the session's number for it.
    Shared { member: u64, id: DeliveryId },
    /// It was acknowledged there already.
    Settled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// PUBLISH at QoS 1 was sent: PUBACK is awaited.
    Sent1(Source),
    /// PUBLISH at QoS 2 was sent: PUBREC is awaited.
    Sent2(Source),
    /// PUBREL was sent, or is as soon as that is stored: PUBCOMP is awaited.
    Released,
}

/// What a PUBREC means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// The client has the message: acknowledge it at its source, remember the identifier, then PUBREL.
    Release(Source),
    /// The client refused it: it is done [MQTT-4.3.3-3].
    Refused(Source),
    /// It was released before: PUBREL again.
    Again,
    /// No message has this identifier.
    Unknown,
}

/// The window towards the client.
#[derive(Debug)]
pub(crate) struct Outbound {
    window: u16,
    /// In a box, from the first message on: who only publishes, or takes nothing but QoS 0, has none.
    under_way: Option<Box<UnderWay>>,
}

/// Messages from their PUBLISH on.
#[derive(Debug, Default)]
struct UnderWay {
    flights: HashMap<u16, Stage, BuildHasherDefault<IdHasher>>,
    /// The next offset of the inbox, as far as it is known.
    inbox_next: u64,
    /// Where the search for the next identifier from behind it goes on.
    others_at: u64,
}

impl Outbound {
    /// `released` are the identifiers of a resumed session whose PUBCOMP is missing.
    pub(crate) fn new(window: u16, released: impl IntoIterator<Item = u16>) -> Outbound {
        let mut outbound = Outbound { window, under_way: None };
        for id in released {
            outbound.under_way().flights.insert(id, Stage::Released);
        }
        outbound
    }

    /// How many more messages the client may get now [MQTT-3.3.4-7].
    pub(crate) fn room(&self) -> usize {
        let under_way = self.under_way.as_ref().map_or(0, |under_way| under_way.flights.len());
        usize::from(self.window).saturating_sub(under_way)
    }

    fn under_way(&mut self) -> &mut UnderWay {
        self.under_way.get_or_insert_default()
    }

    fn stage(&self, id: u16) -> Option<Stage> {
        self.under_way.as_ref()?.flights.get(&id).copied()
    }

    fn land(&mut self, id: u16) -> Option<Stage> {
        self.under_way.as_mut()?.flights.remove(&id)
    }

    /// The identifier of a message of the inbox; `None` while another one has it.
    pub(crate) fn send_inbox(&mut self, offset: u64, qos: Qos) -> Option<u16> {
        self.under_way().send_inbox(offset, qos)
    }

    /// An identifier for a message from elsewhere; `None` if all are in use.
    pub(crate) fn send_other(&mut self, source: Source, qos: Qos) -> Option<u16> {
        self.under_way().send_other(source, qos)
    }

    /// A message was not sent after all: where to acknowledge it instead.
    pub(crate) fn withdraw(&mut self, id: u16) -> Option<Source> {
        match self.land(id) {
            Some(Stage::Sent1(source) | Stage::Sent2(source)) => Some(source),
            Some(Stage::Released) | None => None,
        }
    }

    /// A PUBACK: where to acknowledge the message. An identifier that no message has is passed over: the client may
    /// acknowledge what an earlier connection sent.
    pub(crate) fn puback(&mut self, id: u16) -> Result<Option<Source>, DecodeError> {
        match self.stage(id) {
            None => Ok(None),
            Some(Stage::Sent1(source)) => {
                self.land(id);
                Ok(Some(source))
            }
            Some(_) => Err(DecodeError::protocol("PUBACK for a message at QoS 2 [MQTT-4.3.3-2]")),
        }
    }

    /// A PUBREC, perhaps with an error.
    pub(crate) fn pubrec(&mut self, id: u16, refused: bool) -> Result<Received, DecodeError> {
        match self.stage(id) {
            None => Ok(Received::Unknown),
            Some(Stage::Released) => Ok(Received::Again),
            Some(Stage::Sent2(source)) if refused => {
                self.land(id);
                Ok(Received::Refused(source))
            }
            Some(Stage::Sent2(source)) => {
                self.under_way().flights.insert(id, Stage::Released);
                Ok(Received::Release(source))
            }
            Some(Stage::Sent1(_)) => {
                Err(DecodeError::protocol("PUBREC for a message at QoS 1 [MQTT-4.3.2-4]"))
            }
        }
    }

    /// A PUBCOMP; whether its identifier waited for it.
    pub(crate) fn pubcomp(&mut self, id: u16) -> bool {
        let waited = self.stage(id) == Some(Stage::Released);
        if waited {
            self.land(id);
        }
        waited
    }

    /// Gives back what a burst needed and an idle connection does not.
    pub(crate) fn rest(&mut self) {
        if let Some(UnderWay { flights, .. }) = self.under_way.as_deref_mut()
            && flights.is_empty()
            && flights.capacity() > IDLE_FLIGHTS_MAX
        {
            *flights = HashMap::default();
        }
    }

    /// A shared subscription is left: what was sent of it is completed all the same [MQTT-3.10.4-3], and nobody else
    /// is to get it. Returns what to acknowledge there.
    pub(crate) fn settle_member(&mut self, left: u64) -> Vec<DeliveryId> {
        self.settle(|source, _| matches!(source, Source::Shared { member, .. } if *member == left))
            .into_iter()
            .map(|(_, id)| id)
            .collect()
    }

    /// The session ends: messages at QoS 2 of shared subscriptions may be with the client, so nobody else is to get
    /// them [MQTT-4.8.2-5]. Returns what to acknowledge where.
    pub(crate) fn settle_exactly_once(&mut self) -> Vec<(u64, DeliveryId)> {
        self.settle(|_, qos| qos == Qos::ExactlyOnce)
    }

    fn settle(&mut self, which: impl Fn(&Source, Qos) -> bool) -> Vec<(u64, DeliveryId)> {
        let mut settled = Vec::new();
        for stage in self.under_way.iter_mut().flat_map(|under_way| under_way.flights.values_mut()) {
            let (source, qos) = match stage {
                Stage::Sent1(source) => (source, Qos::AtLeastOnce),
                Stage::Sent2(source) => (source, Qos::ExactlyOnce),
                Stage::Released => continue,
            };
            if let Source::Shared { member, id } = *source
                && which(source, qos)
            {
                settled.push((member, id));
                *source = Source::Settled;
            }
        }
        settled
    }
}

impl UnderWay {
    fn send_inbox(&mut self, offset: u64, qos: Qos) -> Option<u16> {
        let id = inbox_id(offset);
        if self.flights.contains_key(&id) {
            return None;
        }
        self.inbox_next = self.inbox_next.max(offset + 1);
        self.send(id, Source::Inbox { offset }, qos);
        Some(id)
    }

    fn send_other(&mut self, source: Source, qos: Qos) -> Option<u16> {
        // Far from where the inbox is, unless there are so many that looking for a place would take long.
        if self.others_at < self.inbox_next + IDS / 2 && self.flights.len() < IDS as usize / 4 {
            self.others_at = self.inbox_next + IDS;
        }
        for _ in 0..IDS {
            self.others_at = self.others_at.checked_sub(1).unwrap_or(self.inbox_next + IDS);
            let id = inbox_id(self.others_at);
            if !self.flights.contains_key(&id) {
                self.send(id, source, qos);
                return Some(id);
            }
        }
        None
    }

    fn send(&mut self, id: u16, source: Source, qos: Qos) {
        debug_assert!(qos != Qos::AtMostOnce);
        let stage = if qos == Qos::ExactlyOnce { Stage::Sent2(source) } else { Stage::Sent1(source) };
        self.flights.insert(id, stage);
    }
}

fn inbox_id(offset: u64) -> u16 {
    1 + (offset % IDS) as u16
}

/// Spreads packet identifiers, which come one after the other.
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

    const INBOX: fn(u64) -> Source = |offset| Source::Inbox { offset };

    fn shared(member: u64) -> Source {
        Source::Shared { member, id: DeliveryId { partition: 0, offset: 3 } }
    }

    #[test]
    fn the_identifier_follows_the_offset() {
        let mut outbound = Outbound::new(10, []);
        assert_eq!(outbound.send_inbox(0, Qos::AtLeastOnce), Some(1));
        assert_eq!(outbound.send_inbox(65_534, Qos::AtLeastOnce), Some(65_535));
        assert_eq!(outbound.send_inbox(65_535, Qos::AtLeastOnce), None, "offset 0 has it");
        assert_eq!(outbound.puback(1), Ok(Some(INBOX(0))));
        assert_eq!(outbound.send_inbox(65_535, Qos::AtLeastOnce), Some(1));
        assert_eq!(outbound.room(), 8);
    }

    #[test]
    fn qos_2_goes_through_its_stages() {
        let mut outbound = Outbound::new(1, []);
        assert_eq!(outbound.send_inbox(4, Qos::ExactlyOnce), Some(5));
        assert_eq!(outbound.room(), 0);
        assert!(outbound.puback(5).is_err());
        assert!(!outbound.pubcomp(5));
        assert_eq!(outbound.pubrec(5, false), Ok(Received::Release(INBOX(4))));
        assert_eq!(outbound.pubrec(5, false), Ok(Received::Again));
        assert_eq!(outbound.room(), 0, "it counts until PUBCOMP");
        assert!(outbound.pubcomp(5));
        assert_eq!(outbound.room(), 1);
        assert_eq!(outbound.pubrec(5, false), Ok(Received::Unknown));
        assert_eq!(outbound.puback(5), Ok(None));
    }

    #[test]
    fn a_refused_message_is_done() {
        let mut outbound = Outbound::new(1, []);
        outbound.send_inbox(4, Qos::ExactlyOnce);
        assert_eq!(outbound.pubrec(5, true), Ok(Received::Refused(INBOX(4))));
        assert_eq!(outbound.room(), 1);
    }

    #[test]
    fn others_take_what_the_inbox_reaches_last() {
        let mut outbound = Outbound::new(u16::MAX, [3]);
        outbound.send_inbox(9, Qos::AtLeastOnce);
        assert_eq!(outbound.send_other(shared(1), Qos::AtLeastOnce), Some(9));
        assert_eq!(outbound.send_other(shared(2), Qos::ExactlyOnce), Some(8));
        assert_eq!(outbound.send_inbox(10, Qos::AtLeastOnce), Some(11));
        assert_eq!(outbound.settle_member(1).len(), 1);
        assert_eq!(outbound.settle_exactly_once(), [(2, DeliveryId { partition: 0, offset: 3 })]);
        assert_eq!(outbound.puback(9), Ok(Some(Source::Settled)));
        assert!(outbound.pubrec(8, false).is_ok());
        assert!(outbound.pubcomp(3), "restored");
    }

    #[test]
    fn identifiers_can_all_be_in_use() {
        let mut outbound = Outbound::new(u16::MAX, []);
        for _ in 0..u16::MAX {
            assert!(outbound.send_other(shared(1), Qos::AtLeastOnce).is_some());
        }
        assert_eq!(outbound.room(), 0);
        assert_eq!(outbound.send_other(shared(1), Qos::AtLeastOnce), None);
    }
}
