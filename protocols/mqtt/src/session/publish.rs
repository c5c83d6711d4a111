//! PUBLISH from the client (section 3.3): topic alias, checks, routing, acknowledgement.

use bytes::Bytes;
use inver_access::{Operation, ResourceKind};
use inver_broker::{Message, PublishError, Routed, Target};
use inver_driver::{Count, count, count_received};

use super::filters;
use super::receive::Arrival;
use super::{Session, stored};
use crate::codec::{Ack, DecodeError, Packet, Publish, Qos, Reason, Version};
use crate::config::{By, ClientLimits, is_topic_name};
use crate::error::{Stop, count_reason};
use crate::map::{Author, Incoming};
use crate::sys;

/// Size from which a write batch is submitted before the turn ends.
const WRITE_BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Why a client cannot publish at a topic, or have a will there: it is one of the server's own, or a function of another
/// server.
pub(super) fn refused_topic(topic: &str) -> Option<Reason> {
    if !topic.starts_with('$') {
        return None;
    }
    if inver_broker::is_reserved(topic.as_bytes()) {
        return Some(Reason::NotAuthorized);
    }
    filters::is_foreign(topic).then_some(Reason::TopicNameInvalid)
}

/// Checks what a message asks for against what its client may use [MQTT-3.2.2-11], [MQTT-3.2.2-14].
pub(super) fn check_publish(qos: Qos, retain: bool, limits: ClientLimits) -> Result<(), DecodeError> {
    if qos as u8 > limits.maximum_qos {
        return Err(DecodeError::because(
            Reason::QosNotSupported,
            "a QoS above the maximum (mqtt.maximum_qos)",
        ));
    }
    if retain && !limits.retain {
        let what = "a retained message (mqtt.retain_available)";
        return Err(DecodeError::because(Reason::RetainNotSupported, what));
    }
    Ok(())
}

/// Whether a topic has more levels than that. One with fewer bytes has not.
#[inline]
fn has_too_many_levels(topic: &str, levels_max: usize) -> bool {
    topic.len() >= levels_max && topic.bytes().filter(|&byte| byte == b'/').count() >= levels_max
}

impl Session {
    /// Routes a PUBLISH and copies it into the turn's write batch. The acknowledgement waits until that is committed.
    pub(super) fn publish(&mut self, publish: &Publish<'_>) -> Result<(), Stop> {
        let is_shut = self.is_told_to_wait(publish) && self.log().gate().shortage().is_some();
        check_publish(publish.qos, publish.retain, self.limits)?;
        let incoming = Incoming::read(publish.properties, self.server.config.amqp_names)?;
        let topic = match incoming.topic_alias {
            Some(alias) => self.aliases_in.resolve(publish.topic, alias)?,
            None if publish.topic.is_empty() => {
                return Err(DecodeError::protocol("PUBLISH without a topic [MQTT-4.7.3-1]").into());
            }
            None => publish.topic,
        };
        let rewritten = match &self.server.config.rewrite {
            rules if rules.0.is_empty() || self.connection.listener().is_internal => None,
            rules => {
                let by = By { client_id: self.core.client_id(), user: self.core.permissions().user() };
                rules.publish(topic, by)
            }
        };
        let topic = rewritten.as_deref().unwrap_or(topic);
        // One that is not well formed stays a function of another server.
        let (delay_ms, topic) = filters::delayed(topic).unwrap_or((None, topic));
        let topic = &*self.server.config.amqp_names.topic(topic);
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        count_received(publish.payload.len());
        sys::count(sys::Count::PublishBytesReceived, publish.payload.len() as u64);
        if qos != Qos::AtMostOnce {
            count(Count::ToConfirm, 1);
        }
        if qos != Qos::AtMostOnce && self.receive.arrive(qos, packet_id)? == Arrival::Repeated {
            // Published already; the client missed the PUBREC [MQTT-4.3.3-10].
            let pubrec = Packet::PubRec(Ack::new(packet_id, Reason::Success));
            let _always_fits = pubrec.encode(self.version, self.deferred.bytes());
            return Ok(());
        }
        let refused = if is_shut {
            Some(Reason::QuotaExceeded)
        } else if rewritten.as_deref().is_some_and(|rewritten| !is_topic_name(rewritten)) {
            Some(Reason::TopicNameInvalid)
        } else if let Some(reason) = refused_topic(topic) {
            Some(reason)
        } else if has_too_many_levels(topic, self.server.config.topic_levels_max) {
            Some(Reason::TopicNameInvalid)
        } else {
            None
        };
        let mut batch_bytes = 0;
        let reason = match refused {
            Some(Reason::TopicNameInvalid) => self.unpublishable(qos)?,
            Some(reason) => reason,
            None => {
                let author =
                    Author { client_id: self.core.client_id(), user: self.core.permissions().user() };
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
                    guaranteed: qos != Qos::AtMostOnce || self.server.config.upgrade_outgoing_qos,
                    lookup: None,
                };
                let publisher = self.publisher.of(&self.core);
                // An empty payload clears the retained message [MQTT-3.3.1-5], [MQTT-3.3.1-6].
                let to = Target::Hub(topic.as_bytes());
                let routed = match (delay_ms, publish.retain) {
                    (Some(delay_ms), retain) => {
                        publisher.publish_later(to, &message, delay_ms, retain).map(|routed| (routed, true))
                    }
                    (None, false) => publisher.publish(to, &message).map(|routed| (routed, true)),
                    (None, true) => publisher
                        .publish_retained(topic.as_bytes(), &message)
                        .map(|(routed, retained)| (routed, retained.is_ok())),
                };
                batch_bytes = publisher.bytes();
                match routed {
                    Err(PublishError::KeyRefused { .. }) => {
                        self.core.permissions().denied(ResourceKind::Address, topic, Operation::Write);
                        Reason::NotAuthorized
                    }
                    Err(PublishError::TooLong(_)) => self.unpublishable(qos)?,
                    routed => {
                        let (routed, retained) = routed?;
                        self.reason_of(routed, retained, qos).ok_or(Stop::QueueFull)?
                    }
                }
            }
        };
        if reason == Reason::NotAuthorized {
            // Dropped. A client before MQTT 5 is told that it was received, as by other servers: without a reason in
            // the acknowledgement the alternative would end its connection again and again [MQTT-3.3.5-2 of 3.1.1].
            sys::count(sys::Count::PublishesDropped, 1);
        }
        self.acknowledge(qos, packet_id, reason);
        if batch_bytes >= WRITE_BATCH_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    /// The reason of a PUBLISH to a topic that is too long. Only MQTT 5's acknowledgements carry one; otherwise the connection
    /// ends [MQTT-3.3.5-2].
    fn unpublishable(&self, qos: Qos) -> Result<Reason, DecodeError> {
        let reason = Reason::TopicNameInvalid;
        match qos == Qos::AtMostOnce || self.version != Version::V5 {
            true => Err(DecodeError::because(reason, "a topic that clients cannot publish to")),
            false => Ok(reason),
        }
    }

    /// Whether the acknowledgement of a PUBLISH can tell the client to try again later.
    fn is_told_to_wait(&self, publish: &Publish<'_>) -> bool {
        publish.qos != Qos::AtMostOnce && self.version == Version::V5
    }

    /// Whether a packet must wait because the disk or the memory is low: a PUBLISH whose client is not told.
    pub(crate) fn waits_at_gate(&mut self, packet: &Packet<'_>) -> bool {
        self.is_at_gate = match packet {
            Packet::Publish(publish) if !self.is_told_to_wait(publish) => {
                self.log().gate().shortage().is_some()
            }
            _ => false,
        };
        self.is_at_gate
    }

    /// Whether a packet waits because the disk or the memory is low.
    pub(crate) fn is_at_gate(&self) -> bool {
        self.is_at_gate
    }

    /// The reason code of a message that was routed. None: it was refused, and no acknowledgement can say so.
    fn reason_of(&self, routed: Routed, retained: bool, qos: Qos) -> Option<Reason> {
        count(if routed.destinations == 0 { Count::Unroutable } else { Count::Routed }, 1);
        let is_v5 = self.version == Version::V5;
        match qos {
            // An undelivered message must not be acknowledged as received.
            Qos::AtLeastOnce | Qos::ExactlyOnce if routed.refused && !is_v5 => None,
            // The limit of retained messages is reached: delivered, not retained.
            Qos::AtLeastOnce | Qos::ExactlyOnce if routed.refused || (!retained && is_v5) => {
                // A bridge sends again what is refused for the quota, which would come again to those who have it.
                let is_final = self.is_internal() && (routed.is_split || !routed.refused);
                Some(if is_final { Reason::ImplementationSpecific } else { Reason::QuotaExceeded })
            }
            _ if routed.destinations == 0 => Some(Reason::NoMatchingSubscribers),
            _ => Some(Reason::Success),
        }
    }

    /// Defers the PUBACK or PUBREC of a PUBLISH.
    fn acknowledge(&mut self, qos: Qos, packet_id: u16, reason: Reason) {
        let ack = Ack::new(packet_id, reason);
        if qos != Qos::AtMostOnce {
            if reason.is_error() { count_reason(reason) } else { count(Count::Confirmed, 1) }
        }
        let (packet, is_last) = match qos {
            Qos::AtMostOnce => return,
            Qos::AtLeastOnce => (Packet::PubAck(ack), true),
            // A PUBREC with an error ends the exchange (section 4.3.3).
            Qos::ExactlyOnce => (Packet::PubRec(ack), reason.is_error() && self.version == Version::V5),
        };
        let _always_fits = packet.encode(self.version, self.deferred.bytes());
        if is_last {
            if qos == Qos::ExactlyOnce {
                self.receive.release(packet_id);
            }
            self.deferred.completes_one();
        } else if self.core.is_durable() {
            let core = &self.core;
            self.publisher.of(core).attach(|entry| {
                core.put_in(entry, stored::received_key(packet_id), Bytes::new());
            });
        }
    }
}
