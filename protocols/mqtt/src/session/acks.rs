//! PUBACK, PUBREC, PUBREL and PUBCOMP from the client (sections 3.4 to 3.7 and 4.3).

use bytes::Bytes;
use inver_driver::{Count, count};

use super::inflight::{AckTarget, PubRecOutcome};
use super::{Session, stored};
use crate::codec::{Ack, Packet, Reason};
use crate::error::Stop;

impl Session {
    /// PUBREL: the client will not send the message again. PUBCOMP waits until that is stored, because the client may
    /// then use the packet identifier for another message.
    pub(super) fn pubrel(&mut self, packet_id: u16) -> Result<(), Stop> {
        let is_known = self.receive.release(packet_id);
        let reason = if is_known { Reason::Success } else { Reason::PacketIdNotFound };
        if is_known {
            self.deferred.completes_one();
            if self.core.is_durable() {
                let core = &self.core;
                self.publisher
                    .of(core)
                    .attach(|entry| core.delete_in(entry, &stored::received_key(packet_id)));
            }
        }
        let pubcomp = Packet::PubComp(Ack::new(packet_id, reason));
        let _always_fits = pubcomp.encode(self.version, self.deferred.bytes());
        Ok(())
    }

    /// PUBACK, whatever its reason code: the message is acknowledged.
    pub(super) fn puback(&mut self, packet_id: u16) -> Result<(), Stop> {
        if let Some(target) = self.inflight.puback(packet_id)? {
            count(Count::Acknowledged, 1);
            if self.inflight.is_traced() {
                self.trace_settled(packet_id, "ack");
            }
            self.acknowledged(target);
        }
        Ok(())
    }

    /// PUBREC: the client has the message. PUBREL waits until it is stored that the message is never sent again.
    pub(super) fn pubrec(&mut self, ack: &Ack<'_>) -> Result<(), Stop> {
        let packet_id = ack.packet_id;
        if self.inflight.is_traced() {
            self.trace_settled(packet_id, if ack.reason.is_error() { "reject" } else { "ack" });
        }
        let reason = match self.inflight.pubrec(packet_id, ack.reason.is_error())? {
            PubRecOutcome::Refused(target) => {
                self.acknowledged(target);
                return Ok(());
            }
            // [MQTT-4.3.3-4] requires a PUBREL here too.
            PubRecOutcome::Unknown => Reason::PacketIdNotFound,
            PubRecOutcome::Repeated => Reason::Success,
            PubRecOutcome::Received(target) => {
                count(Count::Acknowledged, 1);
                self.store_release(packet_id, target);
                Reason::Success
            }
        };
        let pubrel = Packet::PubRel(Ack::new(packet_id, reason));
        let _always_fits = pubrel.encode(self.version, self.deferred.bytes());
        Ok(())
    }

    /// Acknowledges a message and stores its packet identifier as released, in one log entry where both are stored.
    fn store_release(&mut self, packet_id: u16, target: AckTarget) {
        match target {
            AckTarget::Inbox { offset } => {
                let scratch = self.scratch.get();
                if self.core.is_durable() {
                    scratch.released_offsets.push(offset);
                    scratch.released.push((stored::released_key(packet_id), Bytes::new()));
                } else {
                    scratch.acked.push(offset);
                }
                return;
            }
            AckTarget::Shared { subscription, id } => {
                if let Some(shared) = self.shared.get(subscription) {
                    self.publisher.of(&self.core).attach_ack(&shared.consumer, &[id]);
                }
            }
            AckTarget::Acknowledged => {}
        }
        if self.core.is_durable() {
            let core = &self.core;
            self.publisher
                .of(core)
                .attach(|entry| core.put_in(entry, stored::released_key(packet_id), Bytes::new()));
        }
    }

    /// PUBCOMP: the packet identifier is free. If this change is lost in a crash, PUBREL is sent once more, which does
    /// no harm.
    pub(super) fn pubcomp(&mut self, packet_id: u16) -> Result<(), Stop> {
        if self.inflight.pubcomp(packet_id) && self.core.is_durable() {
            let core = &self.core;
            self.publisher.of(core).attach(|entry| core.delete_in(entry, &stored::released_key(packet_id)));
        }
        Ok(())
    }

    /// Gathers the acknowledgement of a message for the end of the turn.
    pub(super) fn acknowledged(&mut self, target: AckTarget) {
        match target {
            AckTarget::Inbox { offset } => self.scratch.get().acked.push(offset),
            AckTarget::Acknowledged => {}
            AckTarget::Shared { subscription, id } => {
                if let Some(shared) = self.shared.get_mut(subscription) {
                    shared.acked.push(id);
                }
            }
        }
    }
}
