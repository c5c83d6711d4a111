//! The client's messages, and its acknowledgements of ours (sections 3.3 to 3.7 and 4.3).

use bytes::Bytes;
use inver_broker::{Message, Target};

use super::inbound::Arrival;
use super::outbound::{Received, Source};
use super::{Session, state};
use crate::codec::{Ack, Packet, Publish, Qos, Reason, Version};
use crate::error::Stop;
use crate::map::{Author, Incoming};
use crate::sys::PREFIX;

/// A burst is handed over early at this size.
const BURST_BYTES_MAX: usize = 1024 * 1024;

impl Session {
    /// A PUBLISH: routed and copied into the burst; acknowledged once the burst is committed.
    pub(super) fn publish(&mut self, publish: &Publish<'_>) -> Result<(), Stop> {
        let incoming = Incoming::read(publish.properties)?;
        let topic = match incoming.topic_alias {
            Some(alias) => self.aliases_in.resolve(publish.topic, alias)?,
            None if publish.topic.is_empty() => {
                return Err(Stop::Tell(
                    Reason::ProtocolError,
                    "PUBLISH without a topic [MQTT-4.7.3-1]".into(),
                ));
            }
            None => publish.topic,
        };
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        if qos != Qos::AtMostOnce && self.inbound.arrive(qos, packet_id)? == Arrival::Again {
            // Published before; the acknowledgement was lost [MQTT-4.3.3-10].
            put(&Packet::PubRec(Ack::new(packet_id, Reason::Success)), self.version, self.deferred.bytes());
            return Ok(());
        }
        let refused = if topic.starts_with(PREFIX) {
            Some(Reason::NotAuthorized)
        } else if topic.bytes().filter(|&byte| byte == b'/').count() >= self.config.topic_levels_max {
            Some(Reason::TopicNameInvalid)
        } else {
            None
        };
        let mut burst_bytes = 0;
        let reason = match refused {
            // Only an acknowledgement of MQTT 5 can say so; else the connection ends [MQTT-3.3.5-2].
            Some(reason) if qos == Qos::AtMostOnce || self.version != Version::V5 => {
                return Err(Stop::Tell(reason, "a topic that clients cannot publish to".into()));
            }
            Some(reason) => reason,
            None => {
                let author = Author { client_id: self.core.client_id(), user: self.user.as_deref() };
                let headers = incoming.headers(
                    &mut self.scratch.get().headers,
                    author,
                    topic,
                    qos,
                    publish.retain,
                    self.now_ms,
                );
                let message = Message {
                    timestamp_ms: self.now_ms,
                    key: None,
                    value: Some(publish.payload),
                    headers,
                    guaranteed: qos != Qos::AtMostOnce,
                    lookup: None,
                };
                let publisher = self.publisher.of(&self.core);
                // Stored, or cleared by an empty payload [MQTT-3.3.1-5], [MQTT-3.3.1-6].
                let retained = !publish.retain || publisher.retain(topic.as_bytes(), &message).is_ok();
                let routed = publisher.publish(Target::Hub(topic.as_bytes()), &message)?;
                burst_bytes = publisher.bytes();
                if !retained && self.version == Version::V5 && qos != Qos::AtMostOnce {
                    // There is no room for one more retained message: delivered, not stored.
                    Reason::QuotaExceeded
                } else if routed.refused && qos != Qos::AtMostOnce {
                    // Nothing is acknowledged that is not delivered.
                    if self.version != Version::V5 {
                        return Err(Stop::Close("a full queue refused a message".into()));
                    }
                    Reason::QuotaExceeded
                } else if routed.destinations == 0 {
                    Reason::NoMatchingSubscribers
                } else {
                    Reason::Success
                }
            }
        };
        self.acknowledge(qos, packet_id, reason);
        if burst_bytes >= BURST_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, qos: Qos, packet_id: u16, reason: Reason) {
        match qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => {
                put(&Packet::PubAck(Ack::new(packet_id, reason)), self.version, self.deferred.bytes());
                self.deferred.completes_one();
            }
            Qos::ExactlyOnce => {
                put(&Packet::PubRec(Ack::new(packet_id, reason)), self.version, self.deferred.bytes());
                if reason.is_error() && self.version == Version::V5 {
                    // Its identifier is free again (section 4.3.3).
                    self.inbound.refuse(packet_id);
                    self.deferred.completes_one();
                } else if self.core.is_durable() {
                    let core = &self.core;
                    self.publisher.of(core).attach(|entry| {
                        core.put_in(entry, state::inbound_key(packet_id), Bytes::new());
                    });
                }
            }
        }
    }

    /// A PUBREL: the client will not send the message again. PUBCOMP follows once that is stored: the client may then
    /// use the identifier for another message.
    pub(super) fn pubrel(&mut self, packet_id: u16) -> Result<(), Stop> {
        let known = self.inbound.release(packet_id);
        let reason = if known { Reason::Success } else { Reason::PacketIdNotFound };
        if known {
            self.deferred.completes_one();
            if self.core.is_durable() {
                let core = &self.core;
                self.publisher.of(core).attach(|entry| core.delete_in(entry, &state::inbound_key(packet_id)));
            }
        }
        put(&Packet::PubComp(Ack::new(packet_id, reason)), self.version, self.deferred.bytes());
        Ok(())
    }

    /// A PUBACK, whatever its reason: the message is done.
    pub(super) fn puback(&mut self, packet_id: u16) -> Result<(), Stop> {
        if let Some(source) = self.outbound.puback(packet_id)? {
            self.acknowledged(source);
        }
        Ok(())
    }

    /// A PUBREC: the client has the message. PUBREL follows once it is stored that it is never sent again.
    pub(super) fn pubrec(&mut self, ack: &Ack<'_>) -> Result<(), Stop> {
        let packet_id = ack.packet_id;
        let mut reason = Reason::Success;
        match self.outbound.pubrec(packet_id, ack.reason.is_error())? {
            Received::Refused(source) => {
                self.acknowledged(source);
                return Ok(());
            }
            // [MQTT-4.3.3-4] asks for a PUBREL in each case.
            Received::Unknown => reason = Reason::PacketIdNotFound,
            Received::Again => {}
            Received::Release(source) => self.release_id(packet_id, source),
        }
        put(&Packet::PubRel(Ack::new(packet_id, reason)), self.version, self.deferred.bytes());
        Ok(())
    }

    fn release_id(&mut self, packet_id: u16, source: Source) {
        match source {
            Source::Inbox { offset } => {
                if self.core.is_durable() {
                    let scratch = self.scratch.get();
                    scratch.released_offsets.push(offset);
                    scratch.released.push((state::released_key(packet_id), Bytes::new()));
                } else {
                    self.scratch.get().acked.push(offset);
                }
            }
            Source::Shared { member, id } => {
                if let Some(member) = self.members.get(member) {
                    self.publisher.of(&self.core).attach_ack(&member.consumer, &[id]);
                }
                self.remember_released(packet_id);
            }
            Source::Settled => self.remember_released(packet_id),
        }
    }

    fn remember_released(&mut self, packet_id: u16) {
        if self.core.is_durable() {
            let core = &self.core;
            self.publisher
                .of(core)
                .attach(|entry| core.put_in(entry, state::released_key(packet_id), Bytes::new()));
        }
    }

    /// A PUBCOMP: the identifier is free. If this is lost, PUBREL is sent once more, which harms nobody.
    pub(super) fn pubcomp(&mut self, packet_id: u16) -> Result<(), Stop> {
        if self.outbound.pubcomp(packet_id) && self.core.is_durable() {
            let core = &self.core;
            self.publisher.of(core).attach(|entry| core.delete_in(entry, &state::released_key(packet_id)));
        }
        Ok(())
    }

    /// A message is done at its source.
    pub(super) fn acknowledged(&mut self, source: Source) {
        match source {
            Source::Inbox { offset } => self.scratch.get().acked.push(offset),
            Source::Settled => {}
            Source::Shared { member, id } => {
                if let Some(member) = self.members.get_mut(member) {
                    member.acked.push(id);
                }
            }
        }
    }
}

/// Writes an acknowledgement. Before MQTT 5 it has no reason.
fn put(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) {
    let _always_fits = packet.encode(version, out);
}
