//! A message becomes a PUBLISH: quality of service, flags, identifiers, properties, alias, and the bound of what the
//! client takes.

use inver_broker::{Delivery, Message, Target};
use inver_storage::batch::Record;
use smallvec::SmallVec;

use super::Session;
use super::deliver::From;
use super::outbound::Source;
use crate::codec::{Properties, Property, Publish, Qos, Version};
use crate::error::Stop;
use crate::map::{InboxFor, Outgoing, inbox_copy};

/// What a message is delivered as: QoS, RETAIN flag and subscription identifiers.
struct Terms {
    qos: Qos,
    retain: bool,
    ids: SmallVec<[u32; 4]>,
}

impl Session {
    /// Writes a best-effort message, unless it is dead or has no address. It has no identifier that lasts.
    pub(super) fn send_live(&mut self, record: &Record, topic: Option<&str>, out: &mut Vec<u8>) {
        let Some(outgoing) = Outgoing::read(record, topic.map(str::as_bytes)) else {
            return self.pass_over();
        };
        if outgoing.is_expired(self.now_ms) {
            // [MQTT-3.3.2-5]
            return;
        }
        let Terms { retain, ids, .. } = self.matched(&outgoing);
        self.write(Qos::AtMostOnce, retain, record, &outgoing, &ids, out);
    }

    /// Writes a guaranteed message as a PUBLISH, or sees that it is not to be sent. False: its packet identifier is in
    /// use.
    pub(super) fn send(&mut self, from: From, delivery: &Delivery, out: &mut Vec<u8>) -> Result<bool, Stop> {
        let (source, own_address) = match from {
            From::Inbox => (Source::Inbox { offset: delivery.id.offset }, None),
            From::Member(number) => {
                let member = self.members.get(number);
                let source = Source::Shared { member: number, id: delivery.id };
                (source, member.map(|member| member.address.clone()))
            }
        };
        let address = delivery.topic.as_deref().map(str::as_bytes).or(own_address.as_deref());
        let Some(outgoing) = Outgoing::read(&delivery.record, address) else {
            self.pass_over();
            self.acknowledged(source);
            return Ok(true);
        };
        if outgoing.is_expired(self.now_ms) {
            // [MQTT-3.3.2-5]
            self.acknowledged(source);
            return Ok(true);
        }
        let terms = self.terms_of(from, &outgoing);
        if let From::Member(number) = from
            && terms.qos == Qos::ExactlyOnce
            && self.core.is_durable()
        {
            self.move_to_inbox(number, delivery, &terms)?;
            return Ok(true);
        }
        let Some((packet_id, dup)) = self.take_id(source, terms.qos) else { return Ok(false) };
        if let From::Inbox = from {
            self.inbox_next = self.inbox_next.max(delivery.id.offset + 1);
            if outgoing.inbox_for.is_some_and(|terms| terms.shared) {
                self.moved = self.moved.saturating_sub(1);
            }
        }
        let publish = Publish {
            dup,
            qos: terms.qos,
            retain: terms.retain,
            topic: &outgoing.topic,
            packet_id,
            properties: Properties::EMPTY,
            payload: delivery.record.value.as_deref().unwrap_or_default(),
        };
        if !self.put(publish, &outgoing, &terms.ids, out)
            && let Some(source) = self.outbound.withdraw(packet_id)
        {
            // Too large for this client: as if it had been sent and acknowledged [MQTT-3.1.2-25].
            self.acknowledged(source);
        }
        Ok(true)
    }

    /// A packet identifier, and whether the message may have been sent with it before. At QoS 0 there is none, and the
    /// message is done; `None` if the identifier is another message's.
    fn take_id(&mut self, source: Source, qos: Qos) -> Option<(u16, bool)> {
        match source {
            _ if qos == Qos::AtMostOnce => {
                self.acknowledged(source);
                Some((0, false))
            }
            Source::Inbox { offset } => {
                let dup = self.sent_before.is_none_or(|before| offset < before);
                Some((self.outbound.send_inbox(offset, qos)?, dup))
            }
            Source::Shared { .. } | Source::Settled => Some((self.outbound.send_other(source, qos)?, false)),
        }
    }

    fn pass_over(&self) {
        tracing::debug!(client_id = self.core.client_id(), "a message without an address is passed over");
    }

    /// A message at QoS 2 of a shared subscription is this session's from here on: it is completed with this client or
    /// not at all [MQTT-4.8.2-4], [MQTT-4.8.2-5]. So it changes from the group to the inbox, in one entry.
    fn move_to_inbox(&mut self, number: u64, delivery: &Delivery, terms: &Terms) -> Result<(), Stop> {
        let terms = InboxFor {
            granted: terms.qos,
            retain: terms.retain,
            shared: true,
            subscription_id: terms.ids.first().copied(),
        };
        let headers = inbox_copy(&mut self.scratch.get().headers, &delivery.record, terms);
        let message = Message { headers, ..Message::of_record(&delivery.record, true) };
        let publisher = self.publisher.of(&self.core);
        publisher.publish(Target::Session(&self.core), &message)?;
        if let Some(member) = self.members.get(number) {
            publisher.attach_ack(&member.consumer, &[delivery.id]);
        }
        self.moved += 1;
        Ok(())
    }

    /// Writes a message at QoS 0. False, and nothing written, if the client takes no packet of its size.
    pub(super) fn write(
        &mut self,
        qos: Qos,
        retain: bool,
        record: &Record,
        outgoing: &Outgoing<'_>,
        ids: &[u32],
        out: &mut Vec<u8>,
    ) -> bool {
        let publish = Publish {
            dup: false,
            qos,
            retain,
            topic: &outgoing.topic,
            packet_id: 0,
            properties: Properties::EMPTY,
            payload: record.value.as_deref().unwrap_or_default(),
        };
        self.put(publish, outgoing, ids, out)
    }

    /// Writes a PUBLISH with its properties and perhaps an alias. False, and nothing written, if the client takes no
    /// packet of its size [MQTT-3.1.2-24].
    fn put(&mut self, publish: Publish<'_>, outgoing: &Outgoing<'_>, ids: &[u32], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let mut set_alias = false;
        let mut topic = publish.topic;
        let properties = &mut self.scratch.get().properties;
        properties.clear();
        if self.version == Version::V5 {
            outgoing.put_properties(self.now_ms, properties);
            for &id in ids {
                let _always_fits = properties.push(Property::SubscriptionIdentifier(id));
            }
            if let Some((alias, known)) = self.aliases_out.of(topic) {
                let _always_fits = properties.push(Property::TopicAlias(alias));
                set_alias = !known;
                if known {
                    topic = "";
                }
            }
        }
        let publish = Publish { topic, properties: properties.as_ref(), ..publish };
        let written = publish.encode(self.version, out).is_ok();
        if written && out.len() - start <= self.client_packet_bytes_max {
            self.sent += 1;
            return true;
        }
        out.truncate(start);
        if set_alias {
            self.aliases_out.unset(&outgoing.topic);
        }
        let (client_id, topic) = (self.core.client_id(), &*outgoing.topic);
        tracing::debug!(client_id, topic, "too large for this client");
        false
    }

    fn terms_of(&mut self, from: From, outgoing: &Outgoing<'_>) -> Terms {
        if let Some(terms) = outgoing.inbox_for {
            let qos = outgoing.qos.min(terms.granted);
            return Terms { qos, retain: terms.retain, ids: terms.subscription_id.into_iter().collect() };
        }
        let From::Member(number) = from else { return self.matched(outgoing) };
        let terms = self.members.get(number).map(|member| member.terms);
        let terms = terms.unwrap_or_default();
        Terms {
            qos: outgoing.qos.min(terms.options.qos),
            retain: terms.options.retain_as_published && outgoing.retain,
            ids: terms.id.into_iter().collect(),
        }
    }

    /// By the session's own filters, shared ones not among them.
    fn matched(&mut self, outgoing: &Outgoing<'_>) -> Terms {
        let client_id = self.core.client_id().as_bytes();
        let own = self.subscriptions.any_no_local() && outgoing.client_id == Some(client_id);
        let matched = self.subscriptions.matched(&outgoing.topic, own);
        Terms {
            // Where the subscription is gone since, what was under way for it is still delivered (section 3.10.4).
            qos: matched.qos.map_or(outgoing.qos, |granted| granted.min(outgoing.qos)),
            retain: matched.retain_as_published && outgoing.retain,
            ids: matched.ids.clone(),
        }
    }
}
