//! One message as a PUBLISH: QoS, flags, packet identifier, properties and topic alias, within the client's maximum
//! packet size.

use inver_broker::{Delivery, Message};
use inver_driver::{Count, count};
use inver_storage::batch::Record;
use smallvec::SmallVec;

use super::Session;
use super::inflight::AckTarget;
use super::source::DeliverySource;
use crate::codec::{Properties, Property, Publish, Qos, Version};
use crate::error::Stop;
use crate::map::{InboxFor, Outgoing, inbox_copy};
use crate::sys;

/// How a message is delivered.
struct Delivered {
    qos: Qos,
    retain: bool,
    subscription_ids: SmallVec<[u32; 4]>,
}

impl Session {
    /// Writes a QoS 0 message, unless it has expired or has no address.
    pub(super) fn send_live(&mut self, record: &Record, topic: Option<&str>, out: &mut Vec<u8>) {
        let Some(outgoing) = Outgoing::read(record, topic.map(str::as_bytes), self.server.config.amqp_names)
        else {
            return self.log_no_address();
        };
        if outgoing.is_expired(self.now_ms) {
            // [MQTT-3.3.2-5]
            return;
        }
        let _not_settled = self.trace(record, &outgoing.topic);
        let Delivered { retain, subscription_ids, .. } = self.match_own_filters(&outgoing);
        self.write_qos_0(retain, record, &outgoing, &subscription_ids, out);
    }

    /// Writes a guaranteed message as a PUBLISH, or acknowledges one that is not to be sent. False: its packet
    /// identifier is in use.
    pub(super) fn send(
        &mut self,
        from: DeliverySource,
        delivery: &Delivery,
        out: &mut Vec<u8>,
    ) -> Result<bool, Stop> {
        let (target, filter_address) = match from {
            DeliverySource::Inbox => (AckTarget::Inbox { offset: delivery.id.offset }, None),
            DeliverySource::Shared(number) => {
                let shared = self.shared.get(number);
                let target = AckTarget::Shared { subscription: number, id: delivery.id };
                (target, shared.map(|shared| shared.address.clone()))
            }
        };
        let address = delivery.topic.as_deref().map(str::as_bytes).or(filter_address.as_deref());
        let Some(outgoing) = Outgoing::read(&delivery.record, address, self.server.config.amqp_names) else {
            self.log_no_address();
            self.acknowledged(target);
            return Ok(true);
        };
        if outgoing.is_expired(self.now_ms) {
            // [MQTT-3.3.2-5]
            self.acknowledged(target);
            return Ok(true);
        }
        let delivered = self.delivered_as(from, &outgoing);
        if let DeliverySource::Shared(number) = from
            && delivered.qos == Qos::ExactlyOnce
            && self.core.is_durable()
        {
            self.move_to_inbox(number, delivery, &outgoing.topic, &delivered)?;
            return Ok(true);
        }
        let Some((packet_id, dup)) = self.take_packet_id(target, delivered.qos) else { return Ok(false) };
        if from == DeliverySource::Inbox {
            self.inbox_next = self.inbox_next.max(delivery.id.offset + 1);
            if outgoing.inbox_for.is_some_and(|inbox_for| inbox_for.shared) {
                self.moved = self.moved.saturating_sub(1);
            }
        }
        let publish = Publish {
            dup,
            qos: delivered.qos,
            retain: delivered.retain,
            topic: &outgoing.topic,
            packet_id,
            properties: Properties::EMPTY,
            payload: delivery.record.value.as_deref().unwrap_or_default(),
        };
        if self.put_publish(publish, &outgoing, &delivered.subscription_ids, out) {
            if let Some(traced) = self.trace(&delivery.record, &outgoing.topic)
                && delivered.qos != Qos::AtMostOnce
            {
                self.inflight.trace(packet_id, traced);
            }
        } else if let Some(target) = self.inflight.withdraw(packet_id) {
            // Too large for this client: treated as sent and acknowledged [MQTT-3.1.2-25].
            self.acknowledged(target);
        }
        Ok(true)
    }

    /// A packet identifier, and the DUP flag: whether the message may have been sent with it before. A QoS 0 message
    /// has none and is acknowledged at once. `None`: the identifier is in use.
    fn take_packet_id(&mut self, target: AckTarget, qos: Qos) -> Option<(u16, bool)> {
        if qos == Qos::AtMostOnce {
            self.acknowledged(target);
            return Some((0, false));
        }
        match target {
            AckTarget::Inbox { offset } => {
                let dup = offset < self.sent_before;
                Some((self.inflight.send_inbox(offset, qos)?, dup))
            }
            AckTarget::Shared { .. } | AckTarget::Acknowledged => {
                Some((self.inflight.send_other(target, qos)?, false))
            }
        }
    }

    fn log_no_address(&self) {
        tracing::debug!(client_id = self.core.client_id(), "message without an address skipped");
    }

    /// Moves a QoS 2 message from a shared subscription to the inbox, in one log entry: from here on it is completed
    /// with this client or not at all [MQTT-4.8.2-4], [MQTT-4.8.2-5].
    fn move_to_inbox(
        &mut self,
        number: u64,
        delivery: &Delivery,
        topic: &str,
        delivered: &Delivered,
    ) -> Result<(), Stop> {
        let inbox_for = InboxFor {
            granted: delivered.qos,
            retain: delivered.retain,
            shared: true,
            subscription_id: delivered.subscription_ids.first().copied(),
        };
        let headers = inbox_copy(&mut self.scratch.get().headers, &delivery.record, topic, inbox_for);
        let message = Message { headers, ..Message::of_record(&delivery.record, true) };
        let publisher = self.publisher.of(&self.core);
        publisher.publish(self.core.target(), &message)?;
        if let Some(shared) = self.shared.get(number) {
            publisher.attach_ack(&shared.consumer, &[delivery.id]);
        }
        self.moved += 1;
        Ok(())
    }

    /// Writes a message at QoS 0, unless the client accepts no packet of its size.
    pub(super) fn write_qos_0(
        &mut self,
        retain: bool,
        record: &Record,
        outgoing: &Outgoing<'_>,
        subscription_ids: &[u32],
        out: &mut Vec<u8>,
    ) {
        let publish = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain,
            topic: &outgoing.topic,
            packet_id: 0,
            properties: Properties::EMPTY,
            payload: record.value.as_deref().unwrap_or_default(),
        };
        self.put_publish(publish, outgoing, subscription_ids, out);
    }

    /// Writes a PUBLISH with its properties and perhaps a topic alias. False, and nothing written, if the packet is
    /// longer than the client's maximum packet size [MQTT-3.1.2-24].
    fn put_publish(
        &mut self,
        publish: Publish<'_>,
        outgoing: &Outgoing<'_>,
        subscription_ids: &[u32],
        out: &mut Vec<u8>,
    ) -> bool {
        let start = out.len();
        let mut sets_alias = false;
        let mut topic = publish.topic;
        let properties = &mut self.scratch.get().properties;
        properties.clear();
        if self.version == Version::V5 {
            outgoing.put_properties(self.now_ms, properties);
            for &id in subscription_ids {
                let _always_fits = properties.push(Property::SubscriptionIdentifier(id));
            }
            if let Some((alias, is_known)) = self.aliases_out.of(topic) {
                let _always_fits = properties.push(Property::TopicAlias(alias));
                sets_alias = !is_known;
                if is_known {
                    topic = "";
                }
            }
        }
        let publish = Publish { topic, properties: properties.as_ref(), ..publish };
        let is_encoded = publish.encode(self.version, out).is_ok();
        if is_encoded && out.len() - start <= self.client_packet_bytes_max {
            self.sent += 1;
            sys::count(sys::Count::PublishBytesSent, publish.payload.len() as u64);
            count(if publish.qos == Qos::AtMostOnce { Count::SentAuto } else { Count::SentManual }, 1);
            if publish.dup {
                count(Count::Redelivered, 1);
            }
            return true;
        }
        out.truncate(start);
        if sets_alias {
            self.aliases_out.unset(&outgoing.topic);
        }
        let (client_id, topic) = (self.core.client_id(), &*outgoing.topic);
        tracing::debug!(client_id, topic, "message exceeds the client's maximum packet size");
        false
    }

    fn delivered_as(&mut self, from: DeliverySource, outgoing: &Outgoing<'_>) -> Delivered {
        if let Some(inbox_for) = outgoing.inbox_for {
            return Delivered {
                qos: self.qos_of(outgoing, inbox_for.granted),
                retain: inbox_for.retain,
                subscription_ids: inbox_for.subscription_id.into_iter().collect(),
            };
        }
        let DeliverySource::Shared(number) = from else { return self.match_own_filters(outgoing) };
        let terms = self.shared.get(number).map(|shared| shared.terms).unwrap_or_default();
        Delivered {
            qos: self.qos_of(outgoing, terms.options.qos),
            retain: terms.options.retain_as_published && outgoing.retain,
            subscription_ids: terms.id.into_iter().collect(),
        }
    }

    /// The QoS at which a message is delivered to a subscription.
    pub(super) fn qos_of(&self, outgoing: &Outgoing<'_>, granted: Qos) -> Qos {
        if self.server.config.upgrade_outgoing_qos { granted } else { granted.min(outgoing.qos) }
    }

    /// Matches a message against the session's filters, without the shared ones.
    fn match_own_filters(&mut self, outgoing: &Outgoing<'_>) -> Delivered {
        let client_id = self.core.client_id().as_bytes();
        let is_own = self.subscriptions.any_no_local() && outgoing.client_id == Some(client_id);
        let upgrades = self.server.config.upgrade_outgoing_qos;
        let matched = self.subscriptions.matched(&outgoing.topic, is_own);
        Delivered {
            // A message in flight when its filter is unsubscribed is still delivered (section 3.10.4).
            qos: matched.qos.map_or(outgoing.qos, |granted| match upgrades {
                true => granted,
                false => granted.min(outgoing.qos),
            }),
            retain: matched.retain_as_published && outgoing.retain,
            subscription_ids: SmallVec::from_slice(&matched.ids),
        }
    }
}
